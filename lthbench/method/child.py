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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
from lthbench.method import audit_hook, pace, requests
from lthbench.method.problem import Batch, Problem
from lthbench.method.requests import Refusal, Reply, Setup
from lthbench.networks import families
from lthbench.networks.state import State
from lthbench.tickets.ticket import Ticket
from lthbench.training.job import Examples, single_threaded

REHEARSED, LEAST = 0.5, 4  # seconds and steps of a loop that a rehearsal runs


def main() -> None:
    """Run one method at one seed, as the first message says."""
    channel = Channel()
    single_threaded()
    header, tensors = channel.receive()
    setup = messages.read(Setup, header)
    task, depth = setup.task, setup.task.network.depth
    device = torch.device(setup.device)
    if device.type == "cuda":
        torch.cuda.set_device(device.index or 0)
        torch.backends.cudnn.deterministic = True  # a replay must produce the same tickets
    seen = task.data.scale, task.data.shift, setup.tokens
    train = Examples(tensors["x"], tensors["y"], *seen).to(device)
    families.shapes(task.network, depth)  # what a family imports, before the guard stands
    if setup.purpose == "search":
        channel.send(requests.Pace(pace.measure(task, setup.seed, train)))
    _seed_global_generators(setup.seed)
    forbidden = [Path(folder) for folder in setup.forbidden]
    audit_hook.install(Path.cwd(), forbidden, sandboxed=sys.argv[1:] == ["sandboxed"])
    try:
        kind = Shortened if setup.purpose == "rehearsal" else Problem
        problem = kind(task, depth, setup.seed, train, channel.ask)
        defined = _load(setup.source, setup.path)
        if setup.purpose == "transfer":
            _transfer(channel, problem, defined["transfer_ticket"])
        else:
            for ticket in _tickets(defined["find_tickets"], problem, setup.options):
                _yield(channel, ticket)
        channel.send(requests.End())
    except BaseException as error:
        channel.send(_failure(error, setup.path))
    channel.receive()  # the coordinator closes the channel, which ends this process


class Shortened(Problem):
    """For a rehearsal: a problem whose loops end after their first steps, which are timed."""

    def _steps(
        self, loop: requests.Loop, begin: requests.Begin, stateful: Sequence[object]
    ) -> Iterator[Batch]:
        del stateful  # nothing is restored
        began, done = (0.0, 0.0), 0
        for done, batch in enumerate(self._batches(loop, begin.step), start=1):
            yield batch
            if done == 1:  # the first step creates the optimiser's state and is not typical
                began = time.perf_counter(), time.process_time()
            elif time.perf_counter() - began[0] > REHEARSED and done >= LEAST:
                break
        if done > 1:
            wall, processor = time.perf_counter() - began[0], time.process_time() - began[1]
            spent = wall / (done - 1), processor / (done - 1)
            self._request(requests.Timed(loop.steps - done, *spent), requests.Done)


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


def _transfer(channel: Channel, source: Problem, transfer_ticket: Callable[..., object]) -> None:
    """Transfer each ticket that the coordinator sends, until there are no more."""
    while True:
        header, tensors = channel.ask(requests.Next())
        move = messages.read(Reply, header).answer
        if not isinstance(move, requests.Move):
            return
        weights = State(messages.under("weight", tensors), move.start)
        ticket = Ticket(messages.under("mask", tensors), move.start, weights)
        moved = transfer_ticket(ticket, source, source.at_depth(move.target))
        if not isinstance(moved, Ticket):
            kind = type(moved).__name__
            raise TypeError(f"transfer_ticket returned {kind}; return Ticket(masks)")
        _yield(channel, moved, requests.Transferred)


def _tickets(
    find_tickets: Callable[..., Iterable[object]], problem: Problem, options: Mapping[str, object]
) -> Iterator[object]:
    found = find_tickets(problem, **options)
    try:
        return iter(found)
    except TypeError:
        kind = type(found).__name__
        raise TypeError(f"find_tickets returned {kind}; yield tickets or return a list") from None


def _yield(
    channel: Channel,
    ticket: object,
    kind: type[requests.Proposal | requests.Transferred] = requests.Proposal,
) -> None:
    """Send one ticket; anything else is refused here, an invalid ticket by the coordinator."""
    if not isinstance(ticket, Ticket):
        raise TypeError(f"find_tickets yielded {type(ticket).__name__}; yield Ticket(masks)")
    kinds = {str(n): _kind(m) for n, m in dict(ticket.masks).items()}
    tensors = messages.prefixed("mask", _only_tensors(ticket.masks))
    step = None
    if ticket.weights is not None:
        step = ticket.weights.step if isinstance(ticket.weights, State) else 0
        tensors |= messages.prefixed("weight", _only_tensors(ticket.weights))
    header, _ = channel.ask(kind(ticket.start, bool(ticket.trained), kinds, step), tensors)
    answer = messages.read(Reply, header).answer
    if isinstance(answer, Refusal):  # theta_k of its start is not paid for yet; what else is
        raise BudgetExceeded(answer.message)  # wrong with a ticket ends the run there


def _only_tensors(mapping: Mapping[str, object]) -> dict[str, Tensor]:
    return {str(n): t for n, t in dict(mapping).items() if isinstance(t, Tensor)}


def _kind(value: object) -> str:
    return "tensor" if isinstance(value, Tensor) else type(value).__name__


def _failure(error: BaseException, path: str) -> requests.Failure:
    """Return an error's type, its text, and the last of the method's own lines that it met."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == path]
    if isinstance(error, SyntaxError) and error.filename == path:
        lines.append(error.lineno)
    return requests.Failure(
        _text(type(error).__name__),
        _text(str(error)),
        isinstance(error, NotApplicable),
        lines[-1] if lines else None,
        _text("".join(traceback.format_exception(error))[-20_000:]),
    )


def _text(text: str) -> str:
    """Return what of a text can be encoded: an error may name a file that is no Unicode."""
    return text.encode(errors="replace").decode()


if __name__ == "__main__":
    main()
