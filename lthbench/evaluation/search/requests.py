"""Requests as they arrive: parsed once, by their types and limits, before they are acted on."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import ValidationError

from lthbench.errors import MethodError
from lthbench.io import messages
from lthbench.method.requests import Asked, Loop, Request, Snapshot


class Requests:
    """The requests of one search, in order."""

    def __init__(self) -> None:
        self._begun: set[int] = set()

    def read(self, header: Mapping[str, object]) -> Request:
        """Parse the header of the next request.

        Raises:
            MethodError: for one that no call of a problem makes.
        """
        op = header.get("op")
        try:
            request = messages.adapter(Asked).validate_python({"request": header}).request
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            if first["type"].startswith("union_tag"):
                raise MethodError(f"the child sent an unknown request {_short(op)}") from error
            _, _, name, *_ = first["loc"]  # "request", its op, the field
            raise _refused(op, f"{name} is {_short(header.get(str(name)))}") from error
        match request:
            case Loop(number=number):
                if number in self._begun:
                    raise _refused(op, f"loop {number} was begun already")
                self._begun.add(number)
            # A snapshot stored before its loop begins would turn the meter back.
            case Snapshot(number=number) if number not in self._begun:
                raise _refused(op, f"loop {number} was not begun")
        return request


def unknown(request: Request) -> MethodError:
    """Return the error of a request where there is no answer to it."""
    return MethodError(f"the child sent an unknown request {request.op!r}")


def _refused(op: object, why: str) -> MethodError:
    return MethodError(f"a request that no method's call makes ({_short(op)}: {why})")


def _short(value: object) -> str:
    return repr(value)[:40]
