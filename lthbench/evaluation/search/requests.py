"""What a child may ask for: each request's fields, checked before they are acted on.

A method's own calls are well-formed by `method.problem`. A hostile one writes its own requests: a
number may be a path, a count negative, a depth a billion.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lthbench.errors import MethodError
from lthbench.method.meter import PASSES

# Integers: the minimum and maximum of each.
WHOLE = {
    "depth": (1, 64),
    "count": (0, 10**9),
    "number": (1, 10**6),
    "loops": (0, 10**6),
    "steps": (-(10**9), 10**9),  # negative ones are reported by the call itself
    "step": (-(10**9), 10**9),
    "until": (-(10**9), 10**9),
    "k": (-(10**9), 10**9),
    "order": (-(2**63), 2**63),
}
CHARGED = ("loop", "examples")  # by the name of their work


class Requests:
    """The requests of one search, in order."""

    def __init__(self) -> None:
        self._begun: set[int] = set()

    def check(self, header: Mapping[str, Any]) -> None:
        """Check and record one request.

        Raises:
            MethodError: for one that no call of a problem makes.
        """
        for name, (least, most) in WHOLE.items():
            value = header.get(name, least)
            if type(value) is not int or not least <= value <= most:
                raise _refused(header, f"{name} is {_short(value)}")
        cost = header.get("cost")
        if (header.get("op") in CHARGED or "cost" in header) and (
            type(cost) is not str or cost not in PASSES
        ):
            raise _refused(header, f"cost is {_short(cost)}")
        number = header.get("number")
        if header.get("op") == "loop":
            if number is None or number in self._begun:
                raise _refused(header, f"loop {number} was begun already")
            self._begun.add(number)
        # A snapshot stored before its loop begins would turn the meter back.
        if header.get("op") == "snapshot" and number not in self._begun:
            raise _refused(header, f"loop {number} was not begun")


def _refused(header: Mapping[str, Any], why: str) -> MethodError:
    return MethodError(f"a request that no method's call makes ({_short(header.get('op'))}: {why})")


def _short(value: Any) -> str:
    return repr(value)[:40]
