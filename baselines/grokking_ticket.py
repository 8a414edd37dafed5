"""Grokking ticket: the largest weights of a network that has generalised, from theta_0 again.

Minegishi et al. 2023: a mask from the generalised network, laid on the initial weights, generalises
in fewer steps than the dense network; a mask from the network that has only memorised does not. One
dense training, pruned once to each density.

Parameters: generalised, the accuracy on the held-out part from which a network counts as having
generalised (paper: 0.95 on its test set); tries, dense trainings at most. The first that has
generalised by its last step gives the masks, or else the most accurate one.
Departures: the densities are the task's, not 40 % alone; a dense network that did not generalise is
trained again on another data order, since the paper trains as long as it takes. On tasks where
nothing groks it runs as well, and is one-shot pruning with a choice of the dense run.
"""

from collections.abc import Iterator

from lthbench import Problem, State, Ticket, keep_top

METHOD = {
    "name": "grokking_ticket",
    "authors": "The lthbench authors",
    "licence": "Apache-2.0",
    "paper": "Minegishi et al. 2023, arXiv:2310.19470",
}


def find_tickets(
    problem: Problem, *, generalised: float = 0.95, tries: int = 3
) -> Iterator[Ticket]:
    end = generalising(problem, generalised, tries)
    scores = {name: end[name].abs() for name in problem.prunable}
    for density in problem.densities:
        yield Ticket(keep_top(scores, density))


def generalising(problem: Problem, generalised: float, tries: int) -> State:
    """The end of the first dense run that generalised, or of the most accurate one."""
    runs: list[tuple[float, State]] = []
    for order in range(tries):
        end = problem.train(0, order=order)
        runs.append((problem.accuracy(end), end))
        if runs[-1][0] >= generalised:
            break
    return max(runs, key=lambda run: run[0])[1]
