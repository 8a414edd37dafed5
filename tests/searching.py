"""A search without its child process: the coordinator's own functions, called in turn."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from lthbench.errors import BudgetExceeded
from lthbench.evaluation.search import answers, session
from lthbench.evaluation.search.requests import Requests
from lthbench.io import messages
from lthbench.method import child
from lthbench.method.problem import Problem
from lthbench.method.requests import Answer, Refusal, Reply
from lthbench.method.source import Method
from lthbench.protocol.task import Task
from lthbench.training.executors.local import Here
from lthbench.training.job import single_threaded

ROOT = Path(__file__).resolve().parents[1]
METHODS = ROOT / "tests" / "methods"


@dataclass
class Coordinator:
    """Answers requests as `find` does; what is asked crosses the wire's format both ways."""

    state: session.SeedState
    seen: list[session.Point] = field(default_factory=list)
    requests: Requests = field(default_factory=Requests)

    def ask(self, header: object, tensors: Mapping[str, Tensor] | None = None) -> messages.Message:
        sent, given = messages.loads(messages.dumps(header, tensors))
        request = self.requests.read(sent)
        content: Mapping[str, Tensor] = {}
        said: Answer
        try:
            said, content = asyncio.run(answers.answer(request, given, self.state))
        except BudgetExceeded as error:
            said = Refusal("budget", str(error))
        self.seen.append((request.op, self.state.log.position, 0))
        return messages.loads(messages.dumps(Reply(self.state.meter.left, said), content))


def begin(task: Task, seed: int, folder: Path) -> tuple[Problem, Coordinator]:
    """A problem whose calls are answered in this process; the folder is as `find` lays it out."""
    single_threaded()
    place = folder / "store" / f"seed{seed}"
    state = session.prepare(task, seed, folder / "tickets" / f"seed{seed}", place, Here())
    coordinator = Coordinator(state)
    problem = Problem(task, task.network.depth, seed, state.train, coordinator.ask)
    return problem, coordinator


def search(method: Method, task: Task, seed: int, folder: Path) -> session.SeedState:
    """Run a method from its first line to its last ticket in this process."""
    return traced(method, task, seed, folder)[0]


def traced(
    method: Method, task: Task, seed: int, folder: Path
) -> tuple[session.SeedState, list[session.Point]]:
    """The same, and the requests that it made."""
    problem, coordinator = begin(task, seed, folder)
    child._seed_global_generators(seed)
    found = child._load(method.source, method.path)["find_tickets"]
    for ticket in child._tickets(found, problem, dict(method.options)):
        child._yield(coordinator, ticket)  # type: ignore[arg-type]
    coordinator.state.log.end()
    return coordinator.state, coordinator.seen
