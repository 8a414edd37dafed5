"""One deadline for a whole download, whatever it waits for."""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Deadline:
    """A moment of the monotonic clock.

    Attributes:
        pause: The longest single wait, in seconds.
    """

    end: float
    pause: float

    @classmethod
    def after(cls, seconds: float, pause: float) -> Deadline:
        """Return a deadline `seconds` from now."""
        return cls(time.monotonic() + seconds, pause)

    def part(self, parts: int) -> Deadline:
        """Return an earlier deadline, after one of `parts` equal parts of the remaining time."""
        now = time.monotonic()
        return Deadline(now + (self.end - now) / parts, self.pause)

    @property
    def passed(self) -> bool:
        """Whether no time is left."""
        return time.monotonic() >= self.end

    def wait(self) -> float:
        """Return how long to wait for the next step, in seconds.

        Raises:
            TimeoutError: If no time is left.
        """
        left = self.end - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        return min(left, self.pause)
