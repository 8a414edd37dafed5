"""A process that trains jobs, and remembers the examples it was sent.

`python -m lthbench.training.executors.worker DEVICE`.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import Tensor

from lthbench.io.channel import Channel
from lthbench.training import dispatch
from lthbench.training.executors import codec
from lthbench.training.job import Examples, single_threaded


def main() -> None:
    """Train the chunks that arrive until the channel closes."""
    channel = Channel()
    single_threaded()
    known: dict[str, Examples] = {}
    (device,) = sys.argv[1:]
    if device.startswith("cuda"):
        torch.cuda.set_device(torch.device(device).index or 0)  # where no device is given
    while True:
        header, tensors = channel.receive()
        if header["op"] == "examples":
            fields = {name: header[name] for name in ("scale", "shift", "tokens")}
            examples = Examples(tensors["x"], tensors["y"], **fields)
            known[header["name"]] = examples.to(device)
        else:
            _run(channel, header, tensors, known)


def _run(
    channel: Channel, header: dict[str, Any], tensors: dict[str, Tensor], known: dict[str, Examples]
) -> None:
    """Run one chunk and send each result as it ends."""
    for key, result in dispatch.run_whole(*codec.unpack_chunk(header, tensors, known)):
        channel.send(*codec.pack_result(key, result))


if __name__ == "__main__":
    main()
