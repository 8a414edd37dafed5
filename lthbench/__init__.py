"""lthbench: a benchmark for methods that find lottery tickets in neural networks.

Names are loaded when they are first used, so that `import lthbench` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lthbench.errors import BudgetExceeded as BudgetExceeded
    from lthbench.errors import LthbenchError as LthbenchError
    from lthbench.errors import NotApplicable as NotApplicable
    from lthbench.evaluation.pipeline import evaluate as evaluate
    from lthbench.leaderboard.tickets import load_ticket as load_ticket
    from lthbench.method.problem import Batch as Batch
    from lthbench.method.problem import Problem as Problem
    from lthbench.networks.state import State as State
    from lthbench.tickets.allocation import layer_counts as layer_counts
    from lthbench.tickets.elastic import elastic as elastic
    from lthbench.tickets.masks import keep_top as keep_top
    from lthbench.tickets.ticket import Ticket as Ticket

_HOMES = {
    "Batch": "method.problem",
    "BudgetExceeded": "errors",
    "LthbenchError": "errors",
    "NotApplicable": "errors",
    "Problem": "method.problem",
    "State": "networks.state",
    "Ticket": "tickets.ticket",
    "elastic": "tickets.elastic",
    "evaluate": "evaluation.pipeline",
    "keep_top": "tickets.masks",
    "layer_counts": "tickets.allocation",
    "load_ticket": "leaderboard.tickets",
}

__all__ = [
    "Batch",
    "BudgetExceeded",
    "LthbenchError",
    "NotApplicable",
    "Problem",
    "State",
    "Ticket",
    "elastic",
    "evaluate",
    "keep_top",
    "layer_counts",
    "load_ticket",
]


def __getattr__(name: str) -> Any:
    """Load a public name on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module 'lthbench' has no attribute {name!r}")
    return getattr(import_module(f"lthbench.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    """List the public names."""
    return sorted([*globals(), *__all__])
