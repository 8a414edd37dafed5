"""A process that trains jobs, and remembers the examples it was sent.

`python -m lthbench.training.executors.worker DEVICE`.
"""

from __future__ import annotations

import sys

import torch

from lthbench.io import messages
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
        order = messages.read(codec.Order, {"order": header}).order
        if isinstance(order, codec.ExamplesHeader):
            known[order.name] = codec.unpack_examples(order, tensors).to(device)
        else:
            for key, result in dispatch.run_whole(*codec.unpack_chunk(order, tensors, known)):
                channel.send(*codec.pack_result(key, result))


if __name__ == "__main__":
    main()
