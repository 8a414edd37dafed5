"""Elastic tickets: IMP at another depth of the family, its tickets stretched or squeezed to fit.

Chen et al. 2021. Blocks are the repeated unit: a deeper network gets copies of the source's blocks,
a shallower one loses the last of them; masks, early weights and the state of norms move together,
and nothing is rescaled or drawn again. The search costs what the source's dense network costs.

Parameters: rate, as in imp, and more where the budget does not last for so many rounds at the
source's cost; depth, the source's (0: one less than the task's, or one more where a
shallower network has no block to copy); order, of the copies: append (the paper's main choice) or
interpolate.
Departures: the carried masks are brought to the rung's exact count, in the copied blocks where
there are any (the paper compares at whatever density comes out); pruning at the source is global.
"""

from collections.abc import Iterator, Sequence

from torch import Tensor

from lthbench import NotApplicable, Problem, Ticket, elastic, keep_top

METHOD = {
    "name": "elastic",
    "authors": "The lthbench authors",
    "licence": "Apache-2.0",
    "paper": "Chen et al. 2021, arXiv:2103.16547",
}


def find_tickets(
    problem: Problem, *, rate: float = 0.2, depth: int = 0, order: str = "append"
) -> Iterator[Ticket]:
    if not 0 < rate < 1:
        raise ValueError(f"rate {rate}: the share that a round removes lies between 0 and 1")
    if not problem.level.stages:
        raise NotApplicable("the network repeats no block, so it has no other depth")
    source = problem.at_depth(depth or _neighbour(problem))
    start, before = problem.rewind_limit, problem.budget
    end = source.train(start)
    affordable = 1 + int(problem.budget / (before - problem.budget) + 1e-9)
    while sum(map(len, rounds(rate, problem.densities))) > affordable and rate < 0.99:
        rate += 0.01
    masks: dict[str, Tensor] = {}
    for way in rounds(rate, problem.densities):
        for density in way:
            if masks:
                end = source.train(start, masks)
            scores = {name: end[name].abs() for name in source.prunable}
            masks = keep_top(scores, density, within=masks or None)
        yield elastic(Ticket(masks, start), source, problem, order=order)


def rounds(rate: float, densities: Sequence[float]) -> list[list[float]]:
    """For every rung the densities after each round on the way there from the one before."""
    found: list[list[float]] = []
    density = 1.0
    for target in densities:
        found.append([])
        while density > target * (1 + 1e-9):  # the last bits of 0.8^n must not cost a round
            density = max(density * (1 - rate), target)
            found[-1].append(density)
    return found


def _neighbour(problem: Problem) -> int:
    """One block less, if what is left still has one that can be copied."""
    less = problem.depth - 1
    if less < 1:
        return problem.depth + 1
    stages = problem.at_depth(less).level.stages
    enough = all(len(stage.blocks) > stage.fixed for stage in stages)
    return less if enough else problem.depth + 1
