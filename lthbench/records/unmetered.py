"""Searches that computed more than they were charged for: what the meter does not see, told.

The meter counts calls. What a method does with examples that it has kept shows in the processor
time of its own process alone, which is held against what its calls cost on the same machine
(protocol, section 4). No torch.
"""

from __future__ import annotations

from collections import Counter

from lthbench.records.schema import Record

FACTOR = 3.0  # times a step's own time: methods do more in a step than dense training does
STEPS_A_TICKET = 100  # for what is done between calls: ranking weights, reading states
IMPORTS = 3.0  # seconds, for the libraries that a method loads


def allowance(pace: float, steps: float, tickets: int) -> float:
    """Processor seconds of its own process that a search may take before it is flagged.

    Args:
        pace: seconds of one step there (`lthbench.method.pace`).
        steps: that its loops and drawn examples were charged for.
        tickets: that it yielded.
    """
    return FACTOR * pace * (steps + STEPS_A_TICKET * tickets) + IMPORTS


def told_of(record: Record) -> tuple[str, ...]:
    """A sentence for each search that took more than its allowance."""
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
