"""The exceptions that lthbench raises deliberately, and the exit code of each.

LthbenchError           2  the user's mistake, reported in one line
├── UsageError          2  an invalid command line
├── TaskError           2  a task file, or the name of one
├── DataError           2  a data set: absent, or not the one a task names
├── MethodError         2  a method's file, its options or its behaviour
│   ├── BadCall         2  a forbidden call to the problem
│   └── NotApplicable   2  a task that a method does not support
├── TicketError         2  a ticket that breaks the rules
├── BudgetExceeded      2  a call that costs more than what is left
├── RecordError         2  a record, an entry or a reference
├── ResourceError       2  the machine: a full disk, an unwritable or a locked folder
│   └── NodeLost        2  a node of a cluster that a search ran on
└── CheckFailed         1  a check ran and failed

A message names the place, the value, the rule and the next step:
``tasks/x.toml [training] momentun: unknown key (did you mean momentum?)``.
Any other exception is a bug in lthbench (exit code 3), unless `machine` recognises it as
something that the machine refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar


class LthbenchError(Exception):
    """Base class of the mistakes that the user can correct."""

    exit_code: ClassVar[int] = 2


class UsageError(LthbenchError):
    """An invalid command line."""


class TaskError(LthbenchError):
    """A task file that is not a valid protocol, or a task that does not exist."""


class DataError(LthbenchError):
    """A data set that is missing, or whose bytes are not those that a task names."""


class MethodError(LthbenchError):
    """A method that cannot be loaded, got invalid options, or did something forbidden."""


class BadCall(MethodError):
    """A call that no method may make; raised inside the method, at the offending line."""


class NotApplicable(MethodError):
    """Raised by a method that does not support a task: the task is left out, not scored.

    Allowed only before anything is trained or yielded; later it is an error like any other.
    """


class TicketError(LthbenchError):
    """A ticket that breaks the rules of its task."""


class BudgetExceeded(LthbenchError):
    """Raised by the call that would exceed the budget; rungs yielded before it count."""


class RecordError(LthbenchError):
    """A record, an entry or a reference that is malformed or does not fit."""


class ResourceError(LthbenchError):
    """Something the machine refused: a full disk, an unwritable or a locked folder."""


class NodeLost(ResourceError):
    """The machine that a search ran on is lost: the search restarts and replays its store."""


class CheckFailed(LthbenchError):
    """A check that ran and failed."""

    exit_code: ClassVar[int] = 1


def nearest(name: str, candidates: Iterable[str]) -> str:
    """Return `` (did you mean X?)`` for the candidate closest to ``name``, or "" if none is."""
    from difflib import get_close_matches

    folded = {candidate.casefold(): candidate for candidate in candidates}
    close = get_close_matches(name.casefold(), folded, n=1)
    return f" (did you mean {folded[close[0]]}?)" if close else ""
