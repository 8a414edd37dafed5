"""The process that holds a method and one seed's training examples: `python -m lthbench.child`.

It has no test path and no data folder in its environment. Every costly call goes to the coordinator
over the channel; an error is sent there with the method's own line.
"""

from __future__ import annotations

import random
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lthbench import guard, seeds, wire
from lthbench.engine import Examples, single_threaded
from lthbench.errors import BudgetExceeded
from lthbench.problem import Problem
from lthbench.process import Channel
from lthbench.states import State
from lthbench.task import Task
from lthbench.ticket import Ticket


def main() -> None:
    """Run one method at one seed, as the first message says."""
    channel = Channel()
    single_threaded()
    setup, tensors = channel.receive()
    task = Task.model_validate(setup["task"])
    train = Examples(
        tensors["x"], tensors["y"], task.data.scale, task.data.shift, bool(setup["tokens"])
    )
    path = setup["path"]
    _seed_global_generators(setup["seed"])
    guard.install(Path.cwd(), [Path(folder) for folder in setup["forbidden"]])
    try:
        problem = Problem(task, setup["depth"], setup["seed"], train, channel.ask)
        find_tickets = _load(setup["source"], path)
        for ticket in _tickets(find_tickets, problem, setup["options"]):
            _yield(channel, ticket)
        channel.send({"op": "end"})
    except BaseException as error:
        channel.send(_described(error, path))
    channel.receive()  # the coordinator closes the channel, which ends this process


def _seed_global_generators(seed: int) -> None:
    """A method that draws without problem.generator repeats itself too, outside long loops."""
    torch.manual_seed(seeds.torch_seed(seed, "method", "torch"))
    np.random.seed(seeds.torch_seed(seed, "method", "numpy") % 2**32)
    random.seed(seeds.torch_seed(seed, "method", "random"))


def _load(source: str, path: str) -> Any:
    """Execute the method's source in a module of its own and return its find_tickets."""
    sys.dont_write_bytecode = True
    module = type(sys)("method")
    module.__file__ = path
    sys.modules["method"] = module  # dataclasses look their module up
    exec(compile(source, path, "exec"), module.__dict__)
    return module.__dict__["find_tickets"]


def _tickets(find_tickets: Any, problem: Problem, options: dict[str, Any]) -> Iterator[Any]:
    found = find_tickets(problem, **options)
    try:
        return iter(found)
    except TypeError:
        kind = type(found).__name__
        raise TypeError(f"find_tickets returned {kind}; yield tickets or return a list") from None


def _yield(channel: Channel, ticket: Any) -> None:
    """Send one ticket; what is no ticket at all is refused here, the rest by the coordinator."""
    if not isinstance(ticket, Ticket):
        raise TypeError(f"find_tickets yielded {type(ticket).__name__}; yield Ticket(masks)")
    header: dict[str, Any] = {"op": "ticket", "start": ticket.start, "trained": ticket.trained}
    header["masks"] = {str(n): _kind(m) for n, m in dict(ticket.masks).items()}
    tensors = wire.prefixed("mask", _only_tensors(ticket.masks))
    if ticket.weights is not None:
        header["weighted"] = True
        header["step"] = ticket.weights.step if isinstance(ticket.weights, State) else 0
        tensors |= wire.prefixed("weight", _only_tensors(ticket.weights))
    reply, _ = channel.ask(header, tensors)
    if "error" in reply:  # theta_k of its start was not paid yet; other errors end the run there
        raise BudgetExceeded(reply["message"])


def _only_tensors(mapping: Any) -> dict[str, Tensor]:
    return {str(n): t for n, t in dict(mapping).items() if isinstance(t, Tensor)}


def _kind(value: Any) -> str:
    return "tensor" if isinstance(value, Tensor) else type(value).__name__


def _described(error: BaseException, path: str) -> dict[str, Any]:
    """The error as a message: its type, its text, the last of the method's own lines."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == path]
    if isinstance(error, SyntaxError) and error.filename == path:
        lines.append(error.lineno)
    return {
        "op": "error",
        "type": type(error).__name__,
        "message": str(error),
        "line": lines[-1] if lines else None,
        "trace": "".join(traceback.format_exception(error))[-20_000:],
    }


if __name__ == "__main__":
    main()
