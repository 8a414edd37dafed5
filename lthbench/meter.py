"""Counts what a search costs, in exact thirds of one example's forward and backward pass."""

from __future__ import annotations

from lthbench.errors import BudgetExceeded


class Meter:
    """The work of one search at one seed; raises at the budget.

    Args:
        steps, batch: T and the examples of one step: together one dense training, one unit.
        budget: units.
    """

    def __init__(self, steps: int, batch: int, budget: float) -> None:
        self.unit = 3 * steps * batch  # a forward pass alone is 1/3
        self.limit = round(budget * self.unit)
        self.count = 0

    def charge(self, examples: int, cost: float = 1.0) -> None:
        """Charge forward and backward passes (times cost) of the unmasked network.

        Raises:
            BudgetExceeded: by the call that would exceed; it is not counted.
        """
        work = round(3 * cost * examples)
        if self.count + work > self.limit:
            raise BudgetExceeded(
                f"the budget of {self.limit / self.unit:g} dense trainings is spent "
                f"({self.spent:.4g} used, this call costs {work / self.unit:.4g})"
            )
        self.count += work

    @property
    def spent(self) -> float:
        """Dense trainings used."""
        return self.count / self.unit

    @property
    def left(self) -> float:
        """Dense trainings left."""
        return (self.limit - self.count) / self.unit
