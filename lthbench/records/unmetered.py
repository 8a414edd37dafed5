"""Searches that computed more than they were charged for, beyond what the meter sees.

The meter counts calls. Work on examples that a method has kept shows only in the processor time of
its own process, which is compared with the cost of its calls on the same machine (protocol,
section 4). No torch.
"""

from __future__ import annotations

from collections import Counter

from lthbench.records.schema import Record

FACTOR = 3.0  # multiple of a step's own time, since methods do more in a step than dense training
STEPS_A_TICKET = 100  # for work between calls: ranking weights, reading states
IMPORTS = 3.0  # seconds, for libraries that a method loads


def allowance(pace: float, steps: float, tickets: int) -> float:
    """Return the processor seconds of its own process that a search may take without a flag.

    Args:
        pace: Seconds of one step on that machine (`lthbench.method.pace`).
        steps: Steps charged for its loops and drawn examples.
        tickets: Number of tickets that it yielded.
    """
    return FACTOR * pace * (steps + STEPS_A_TICKET * tickets) + IMPORTS


def told_of(record: Record) -> tuple[str, ...]:
    """Return a sentence for each search that exceeded its allowance."""
    yielded = Counter(
        cell.seed
        for cell in record.cells
        if cell.kind == "ticket" and cell.schedule == 1 and cell.status != "missing"
    )
    told = []
    for search in record.searches:
        if (own := search.own) is None:
            continue
        allowed = allowance(own.pace, own.steps, yielded[search.seed])
        if own.seconds > allowed:
            told.append(
                f"search of seed {search.seed}: its own process computed {own.seconds:.3g} s, and "
                f"what it was charged for allows {allowed:.3g} s there; its cost is not all it did"
            )
    return tuple(told)
