"""A process that trains jobs: `python -m lthbench.worker DEVICE`. It knows what it was sent."""

from __future__ import annotations

import sys
import traceback
from typing import Any

from torch import Tensor

from lthbench import wire
from lthbench.engine import Evaluation, Examples, Result, choice, packing, single_threaded
from lthbench.process import Channel


def main() -> None:
    """Train what arrives until the channel ends."""
    channel = Channel()
    single_threaded()
    known: dict[str, Examples] = {}
    (device,) = sys.argv[1:]
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
    """Run one chunk and send each result as it ends; an error of ours makes it "failed"."""
    jobs = [
        packing.unpack_job(packed, wire.under(str(number), tensors))
        for number, packed in enumerate(header["jobs"])
    ]
    data = {int(seed): known[name] for seed, name in header["data"].items()}
    evaluation = None
    if header["evaluation"]:
        sets = {
            int(seed): {part: known[name] for part, name in named.items()}
            for seed, named in header["evaluation"]["sets"].items()
        }
        evaluation = Evaluation(sets, tuple(header["evaluation"]["at"]))
    done = set()
    try:
        for key, result in choice.run(jobs, data, evaluation):
            channel.send(*packing.pack_result(key, result))
            done.add(key)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        for job in jobs:
            if job.key not in done:
                failed = Result(None, status="failed", reason=reason)
                channel.send(*packing.pack_result(job.key, failed))
        traceback.print_exc()


if __name__ == "__main__":
    main()
