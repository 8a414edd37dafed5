"""What child and worker processes share: a private channel to the parent, and its lifetime."""

from __future__ import annotations

import os
import queue
import sys
import threading
from typing import BinaryIO

from lthbench.io import messages


class Channel:
    """Messages over the original standard input and output; printing goes to standard error.

    A thread reads the input, so that its end is noticed even during a long computation: the process
    then exits at once, because nobody is left to read its answers.
    """

    def __init__(self) -> None:
        incoming = os.fdopen(os.dup(0), "rb")
        self._outgoing: BinaryIO = os.fdopen(os.dup(1), "wb")
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        os.dup2(2, 1)
        sys.stdout = os.fdopen(1, "w", buffering=1, errors="replace", closefd=False)
        _die_with_parent()
        self._messages: queue.Queue[messages.Message] = queue.Queue()
        threading.Thread(target=self._read, args=(incoming,), daemon=True).start()

    def receive(self) -> messages.Message:
        """Wait for the next message and return it."""
        return self._messages.get()

    def send(self, header: object, tensors: messages.Tensors | None = None) -> None:
        """Send one message."""
        messages.send(self._outgoing, header, tensors)

    def ask(self, header: object, tensors: messages.Tensors | None = None) -> messages.Message:
        """Send a request and wait for its answer."""
        self.send(header, tensors)
        return self.receive()

    def _read(self, incoming: BinaryIO) -> None:
        while True:
            try:
                message = messages.receive(incoming)
            except messages.WireError:
                message = None
            if message is None:
                os._exit(0)
            self._messages.put(message)


def _die_with_parent() -> None:
    """Have the Linux kernel kill this process with its parent, even while code holds the GIL."""
    if sys.platform != "linux":
        return
    import ctypes
    import signal

    parent_death_signal = 1
    ctypes.CDLL(None).prctl(parent_death_signal, signal.SIGKILL)
