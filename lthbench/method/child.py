"""The process that holds a method and one seed's examples: `python -m lthbench.method.child`.

Its environment has no test path and no data folder. Every costly call goes to the coordinator over
the channel; an error is sent there with the method's own line. Inside a sandbox it is started as
`python -m lthbench.method.child sandboxed`.
"""

from __future__ import annotations

import random
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lthbench import seeds
from lthbench.errors import BudgetExceeded, NotApplicable
from lthbench.io import messages
from lthbench.io.channel import Channel
from lthbench.io.visible_text import unmarked
from lthbench.method import audit_hook, pace
from lthbench.method.problem import Batch, Problem
from lthbench.networks import families
from lthbench.networks.state import State
from lthbench.protocol.task import Task
from lthbench.tickets.ticket import Ticket
from lthbench.training.augment import fed
from lthbench.training.job import Examples, single_threaded

REHEARSED, LEAST = 0.5, 4  # seconds and steps of a loop that a rehearsal runs


def main() -> None:
    """Run one method at one seed, as the first message says."""
    channel = Channel()
    single_threaded()
    setup, tensors = channel.receive()
    task = Task.model_validate(setup["task"])
    device = torch.device(setup["device"])
    if device.type == "cuda":
        torch.cuda.set_device(device.index or 0)
        torch.backends.cudnn.deterministic = True  # a replay must produce the same tickets
    seen = task.data.scale, task.data.shift, bool(setup["tokens"])
    train = Examples(tensors["x"], tensors["y"], *seen).to(device)
    path = setup["path"]
    families.shapes(task.network, setup["depth"])  # what a family imports, before the guard stands
    if setup.get("paced"):
        channel.send({"op": "pace", "pace": pace.measure(task, setup["seed"], train)})
    _seed_global_generators(setup["seed"])
    forbidden = [Path(folder) for folder in setup["forbidden"]]
    audit_hook.install(Path.cwd(), forbidden, sandboxed=sys.argv[1:] == ["sandboxed"])
    try:
        kind = Shortened if setup.get("rehearsal") else Problem
        problem = kind(task, setup["depth"], setup["seed"], train, channel.ask)
        defined = _load(setup["source"], path)
        if setup.get("carry"):
            _carry(channel, problem, defined["transfer_ticket"])
        else:
            for ticket in _tickets(defined["find_tickets"], problem, setup["options"]):
                _yield(channel, ticket)
        channel.send({"op": "end"})
    except BaseException as error:
        channel.send(_described(error, path))
    channel.receive()  # the coordinator closes the channel, which ends this process


class Shortened(Problem):
    """For a rehearsal: a problem whose loops end after their first steps, which are timed."""

    def _steps(
        self, stateful: tuple[Any, ...], number: int, first: int, steps: int, reply: dict[str, Any]
    ) -> Iterator[Batch]:
        order = ("method", "loop", str(number))
        began, done = (0.0, 0.0), 0
        batches = fed(self._train, self._task.recipe, self._seed, order, first, steps)
        for done, (x, y) in enumerate(batches, start=1):
            yield Batch(x, y)
            if done == 1:  # the first step creates the optimiser's state and is not typical
                began = time.perf_counter(), time.process_time()
            elif time.perf_counter() - began[0] > REHEARSED and done >= LEAST:
                break
        if done > 1:
            wall, processor = time.perf_counter() - began[0], time.process_time() - began[1]
            spent = {"wall": wall / (done - 1), "processor": processor / (done - 1)}
            self._request({"op": "timed", "left": steps - done, **spent})


def _seed_global_generators(seed: int) -> None:
    """Make a method that draws without problem.generator reproducible, outside long loops."""
    torch.manual_seed(seeds.torch_seed(seed, "method", "torch"))
    np.random.seed(seeds.torch_seed(seed, "method", "numpy") % 2**32)
    random.seed(seeds.torch_seed(seed, "method", "random"))


def _load(source: str, path: str) -> dict[str, Any]:
    """Execute the method's source in a module of its own and return what it defines."""
    sys.dont_write_bytecode = True
    module = type(sys)("method")
    module.__file__ = path
    sys.modules["method"] = module  # dataclasses look their module up
    exec(compile(unmarked(source), path, "exec", dont_inherit=True), module.__dict__)
    return module.__dict__


def _carry(channel: Channel, source: Problem, transfer_ticket: Any) -> None:
    """Transfer each ticket that the coordinator hands over, until there are no more."""
    while True:
        header, tensors = channel.ask({"op": "next"})
        if "target" not in header:
            return
        weights = State(messages.under("weight", tensors), header["start"])
        ticket = Ticket(messages.under("mask", tensors), header["start"], weights)
        moved = transfer_ticket(ticket, source, source.at_depth(header["target"]))
        if not isinstance(moved, Ticket):
            kind = type(moved).__name__
            raise TypeError(f"transfer_ticket returned {kind}; return Ticket(masks)")
        _yield(channel, moved, "carried")


def _tickets(find_tickets: Any, problem: Problem, options: dict[str, Any]) -> Iterator[Any]:
    found = find_tickets(problem, **options)
    try:
        return iter(found)
    except TypeError:
        kind = type(found).__name__
        raise TypeError(f"find_tickets returned {kind}; yield tickets or return a list") from None


def _yield(channel: Channel, ticket: Any, op: str = "ticket") -> None:
    """Send one ticket; anything else is refused here, an invalid ticket by the coordinator."""
    if not isinstance(ticket, Ticket):
        raise TypeError(f"find_tickets yielded {type(ticket).__name__}; yield Ticket(masks)")
    header: dict[str, Any] = {"op": op, "start": ticket.start, "trained": ticket.trained}
    header["masks"] = {str(n): _kind(m) for n, m in dict(ticket.masks).items()}
    tensors = messages.prefixed("mask", _only_tensors(ticket.masks))
    if ticket.weights is not None:
        header["weighted"] = True
        header["step"] = ticket.weights.step if isinstance(ticket.weights, State) else 0
        tensors |= messages.prefixed("weight", _only_tensors(ticket.weights))
    reply, _ = channel.ask(header, tensors)
    if "error" in reply:  # theta_k of its start is not paid for yet; other errors end the run there
        raise BudgetExceeded(reply["message"])


def _only_tensors(mapping: Any) -> dict[str, Tensor]:
    return {str(n): t for n, t in dict(mapping).items() if isinstance(t, Tensor)}


def _kind(value: Any) -> str:
    return "tensor" if isinstance(value, Tensor) else type(value).__name__


def _described(error: BaseException, path: str) -> dict[str, Any]:
    """Encode the error as a message: its type, its text, the last of the method's own lines."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == path]
    if isinstance(error, SyntaxError) and error.filename == path:
        lines.append(error.lineno)
    return {
        "op": "error",
        "type": type(error).__name__,
        "left_out": isinstance(error, NotApplicable),
        "message": str(error),
        "line": lines[-1] if lines else None,
        "trace": "".join(traceback.format_exception(error))[-20_000:],
    }


if __name__ == "__main__":
    main()
