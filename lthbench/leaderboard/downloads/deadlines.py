"""One moment by which all of a download must be done, whatever it waits for."""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Deadline:
    """A moment of the monotonic clock.

    Attributes:
        pause: the longest single wait, in seconds.
    """

    end: float
    pause: float

    @classmethod
    def after(cls, seconds: float, pause: float) -> Deadline:
        """A deadline that many seconds from now."""
        return cls(time.monotonic() + seconds, pause)

    def part(self, parts: int) -> Deadline:
        """An earlier one: of what is left, one of so many equal parts."""
        now = time.monotonic()
        return Deadline(now + (self.end - now) / parts, self.pause)

    @property
    def passed(self) -> bool:
        """Whether there is nothing left."""
        return time.monotonic() >= self.end

    def wait(self) -> float:
        """How long to wait for the next thing, in seconds.

        Raises:
            TimeoutError: if nothing is left.
        """
        left = self.end - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        return min(left, self.pause)
