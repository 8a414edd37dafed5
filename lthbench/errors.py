"""What lthbench raises on purpose, and the exit code each error ends in.

LthbenchError           2  the user's mistake, told in one line
├── UsageError          2  a command line that cannot be meant
├── TaskError           2  a task file, or the name of one
├── DataError           2  a data set: absent, or not the one a task names
├── MethodError         2  a method's file, its options, or what it did
│   ├── BadCall         2  a call of the problem's that no method may make
│   └── NotApplicable   2  a task that a method cannot be run on
├── TicketError         2  a ticket that breaks the rules
├── BudgetExceeded      2  a call that would cost more than is left
├── RecordError         2  a record, an entry or a reference
├── ResourceError       2  the machine: a full disk, an unwritable or a locked folder
│   └── NodeLost        2  a node of a cluster that a search ran on
└── CheckFailed         1  nothing is wrong but the answer: a check said no

A message names the place, the value, the rule and the next step:
``tasks/x.toml [training] momentun: unknown key (did you mean momentum?)``.
An exception that is not in this tree is our bug (exit code 3), unless `machine` knows it as
something that the machine refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar


class LthbenchError(Exception):
    """A mistake the user can put right."""

    exit_code: ClassVar[int] = 2


class UsageError(LthbenchError):
    """A command line that cannot be meant."""


class TaskError(LthbenchError):
    """A task file that cannot be read as a protocol, or a task that is not there."""


class DataError(LthbenchError):
    """A data set that is absent, or whose bytes are not those a task names."""


class MethodError(LthbenchError):
    """A method that cannot be loaded, was given wrong options, or did what none may."""


class BadCall(MethodError):
    """A call that no method may make; raised in the method, at its own line."""


class NotApplicable(MethodError):
    """Raised by a method for a task it cannot be run on: that task is left out, not scored.

    Before anything is trained or yielded; later it is an error as any other.
    """


class TicketError(LthbenchError):
    """A ticket that breaks the rules of its task."""


class BudgetExceeded(LthbenchError):
    """Raised by the call that would exceed the budget; rungs already yielded count."""


class RecordError(LthbenchError):
    """A record, an entry or a reference that is malformed or does not fit."""


class ResourceError(LthbenchError):
    """The machine stands in the way: a full disk, an unwritable or a locked folder."""


class NodeLost(ResourceError):
    """The machine that a search ran on is gone: the search begins again and replays its store."""


class CheckFailed(LthbenchError):
    """A check was carried out and said no."""

    exit_code: ClassVar[int] = 1


def nearest(name: str, candidates: Iterable[str]) -> str:
    """`` (did you mean X?)`` for the candidate most like ``name``, or nothing if none is."""
    from difflib import get_close_matches

    folded = {candidate.casefold(): candidate for candidate in candidates}
    close = get_close_matches(name.casefold(), folded, n=1)
    return f" (did you mean {folded[close[0]]}?)" if close else ""
