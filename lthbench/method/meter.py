"""Meters a search's cost, in exact thirds of one example's forward and backward pass."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

from lthbench.errors import BadCall, BudgetExceeded

Work = Literal["forward", "gradient", "hessian"]
# What is done with each example, in forward-and-backward passes; the minimum is a forward pass.
PASSES: Mapping[Work, float] = {"forward": 1 / 3, "gradient": 1.0, "hessian": 2.0}


def work_of(value: object, call: str) -> Work:
    """Return the name of a loop's work, as a method gave it to `call`.

    Raises:
        BadCall: for a number or another name.
    """
    for work in get_args(Work):
        if type(value) is str and value == work:
            return work  # type: ignore[no-any-return]
    raise BadCall(
        f'{call}: cost {repr(value)[:40]} is no name of what is done; give "forward" (1/3 of a '
        'pass forward and backward), "gradient" (1) or "hessian" (2)'
    )


class Meter:
    """The work of one search at one seed; raises at the budget.

    Attributes:
        given: what was charged for examples that the method was given, a part of `count`.

    Args:
        steps, batch: T and the batch size: together one dense training, the unit.
        budget: in units.
    """

    def __init__(self, steps: int, batch: int, budget: float) -> None:
        self.unit = 3 * steps * batch  # a forward pass alone is 1/3
        self.limit = round(budget * self.unit)
        self.count = self.given = 0
        self._step = 3 * batch

    def charge(self, examples: int, cost: float = 1.0, *, given: bool = False) -> None:
        """Charge forward and backward passes of the unmasked network.

        Args:
            examples: how many.
            cost: passes per example, in multiples of one forward and backward pass.
            given: whether the method does the work, on examples that it is given.

        Raises:
            BudgetExceeded: by the call that would exceed the budget; it is not counted.
        """
        work = round(3 * cost * examples)
        if self.count + work > self.limit:
            raise BudgetExceeded(
                f"the budget of {self.limit / self.unit:g} dense trainings is spent "
                f"({self.spent:.4g} used, this call costs {work / self.unit:.4g})"
            )
        self.count += work
        self.given += work if given else 0

    @property
    def steps(self) -> float:
        """Steps of dense training that examples were given for."""
        return self.given / self._step

    @property
    def spent(self) -> float:
        """Dense trainings used."""
        return self.count / self.unit

    @property
    def left(self) -> float:
        """Dense trainings left."""
        return (self.limit - self.count) / self.unit
