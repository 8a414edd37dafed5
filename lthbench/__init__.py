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
    from lthbench.evaluation import evaluate as evaluate
    from lthbench.masks import keep_top as keep_top
    from lthbench.masks import layer_counts as layer_counts
    from lthbench.problem import Batch as Batch
    from lthbench.problem import Problem as Problem
    from lthbench.states import State as State
    from lthbench.ticket import Ticket as Ticket
    from lthbench.transfer import elastic as elastic
    from lthbench.zoo import load_ticket as load_ticket

_HOMES = {
    "Batch": "problem",
    "BudgetExceeded": "errors",
    "LthbenchError": "errors",
    "NotApplicable": "errors",
    "Problem": "problem",
    "State": "states",
    "Ticket": "ticket",
    "elastic": "transfer",
    "evaluate": "evaluation",
    "keep_top": "masks",
    "layer_counts": "masks",
    "load_ticket": "zoo",
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
    if name not in _HOMES:
        raise AttributeError(f"module 'lthbench' has no attribute {name!r}")
    return getattr(import_module(f"lthbench.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
