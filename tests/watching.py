"""Watches folders through Linux's inotify: what is created, closed and renamed, as it happens."""

from __future__ import annotations

import ctypes
import os
import select
import struct
from pathlib import Path

CREATE, CLOSE_WRITE, MOVED_TO, IS_DIR = 0x100, 0x8, 0x80, 0x40000000
EVENT = struct.Struct("iIII")


class Watch:
    """Events in some folders, from now on.

    An event is (phase, folder, name): "create" while a file is being written, "close" when it is
    written and not yet renamed, "move" when it has its name.
    """

    def __init__(self, folders: list[Path]) -> None:
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.handle = self.libc.inotify_init1(os.O_NONBLOCK)
        self.folders: dict[int, Path] = {}
        for folder in folders:
            mask = CREATE | CLOSE_WRITE | MOVED_TO
            number = self.libc.inotify_add_watch(self.handle, os.fsencode(folder), mask)
            assert number >= 0, f"{folder}: cannot be watched"
            self.folders[number] = folder

    def next(self, seconds: float) -> list[tuple[str, Path, str]]:
        """What happened, waiting at most so long."""
        if not select.select([self.handle], [], [], seconds)[0]:
            return []
        data, found, at = os.read(self.handle, 2**16), [], 0
        while at < len(data):
            number, mask, _, length = EVENT.unpack_from(data, at)
            at += EVENT.size
            name = data[at : at + length].rstrip(b"\0").decode()
            at += length
            phase = {CREATE: "create", CLOSE_WRITE: "close", MOVED_TO: "move"}.get(mask)
            if phase:
                found.append((phase, self.folders[number], name))
        return found

    def close(self) -> None:
        os.close(self.handle)
