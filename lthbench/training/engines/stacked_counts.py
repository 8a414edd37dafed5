"""Correct answers of a stack of networks, counted at the same steps as by `plain`."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import torch
from torch import Tensor

from lthbench.training.engines import plain
from lthbench.training.engines.stacked_feed import seen_as
from lthbench.training.engines.stacked_network import Stack
from lthbench.training.job import Evaluation, Examples, Job, Looks, count_correct

Answers = dict[str, Tensor]  # (examples,) uint8, by the set's name


class Counts:
    """The counts of correct answers of a stack's jobs."""

    def __init__(self, stack: Stack, jobs: Sequence[Job], evaluation: Evaluation | None) -> None:
        self.stack = stack
        looks = [evaluation.due(job) if evaluation else {} for job in jobs]
        # By job, in its own steps.
        self.sets: list[Looks] = [
            {step - job.start.step: sets for step, sets in due.items()}
            for job, due in zip(jobs, looks, strict=True)
        ]
        self._due: dict[int, list[int]] = {}
        for j, due in enumerate(self.sets):
            for step in due:
                self._due.setdefault(step, []).append(j)
        self._waiting: list[tuple[int, int, Answers]] = []
        self._correct: list[dict[str, list[int]]] = [
            {name: [] for sets in due.values() for name in sets} for due in looks
        ]
        self._last: list[Answers] = [{} for _ in jobs]

    def due(self, step: int) -> list[int]:
        """Return the jobs that are evaluated after this many of their own steps."""
        return self._due.get(step, [])

    def take(self, jobs: Sequence[int], step: int) -> None:
        """Record these jobs' answers to the sets that are due after this many steps."""
        if jobs:
            found = answers(self.stack, jobs, [self.sets[j][step] for j in jobs])
            self._waiting += [(j, step, some) for j, some in zip(jobs, found, strict=True)]

    def keep(self, broken: Mapping[int, int]) -> None:
        """Count the recorded answers, except those of jobs that had diverged by then."""
        for j, step, found in self._waiting:
            if j in broken and step >= broken[j]:
                continue
            self._last[j] |= found
            for name, some in found.items():
                self._correct[j][name].append(count_correct(some, self.sets[j][step][name]))
        self._waiting = []

    def correct(self, j: int) -> dict[str, Tensor]:
        """Return a job's counts (int64) at each of its evaluations, by set."""
        return {name: torch.tensor(values) for name, values in self._correct[j].items()}

    def predictions(self, j: int) -> Answers:
        """Return a job's last answers, by set."""
        return {name: found.cpu() for name, found in self._last[j].items()}


@torch.no_grad()
def answers(
    stack: Stack, jobs: Sequence[int], sets: Sequence[Mapping[str, Examples]]
) -> list[Answers]:
    """Return each job's answers to its own sets; sets of one shape are evaluated together."""
    found: list[Answers] = [{} for _ in jobs]
    alike: dict[tuple[str, Hashable], list[int]] = {}
    for place, some in enumerate(sets):
        for name, examples in some.items():
            alike.setdefault((name, seen_as(examples)), []).append(place)
    stack.module.eval()
    for (name, _), places in alike.items():
        together = _answers(stack, [jobs[p] for p in places], [sets[p][name] for p in places])
        for place, some in zip(places, together, strict=True):
            found[place][name] = some
    stack.module.train()
    return [{n: one[n] for n in some} for one, some in zip(found, sets, strict=True)]


def _answers(stack: Stack, jobs: Sequence[int], examples: Sequence[Examples]) -> Tensor:
    """Return answers (jobs, examples), uint8, in parts that bound the memory."""
    first = examples[0]
    size = plain._together(first)
    if not first.x.is_cuda:
        size = max(1, size // len(jobs))
    everyone = list(jobs) == list(range(stack.jobs))
    parts = []
    for start in range(0, len(first.y), size):
        x = _inputs(examples, slice(start, start + size), stack.weights.dtype)
        parts.append(stack.outputs(x, None if everyone else jobs).argmax(-1).to(torch.uint8))
    return torch.cat(parts, 1)


def _inputs(examples: Sequence[Examples], part: slice, dtype: torch.dtype) -> Tensor:
    """Return inputs (jobs, n, …); those that all jobs share are in memory once."""
    first = examples[0]
    if all(one.x is first.x for one in examples):
        x = first.inputs(part, dtype)
        return x.expand(len(examples), *x.shape)
    return torch.stack([one.inputs(part, dtype) for one in examples])
