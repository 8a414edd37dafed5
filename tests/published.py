"""Sources that the leaderboard would refuse, each with words of the line that says why."""

from __future__ import annotations

UNPUBLISHABLE = (
    ("#" * 2**16 + "\n", r"mine\.py: 65,\d{3} bytes; at most 64 kB"),
    (f"MASK = {'0' * 4097!r}\n", r"mine\.py:1: a literal of 4,099 bytes; at most 4 kB"),
    ("METHOD = {'paper': 'a\\u202eb'}\n", r"method\.described\.paper: holds the character U\+202E"),
    ("METHOD = {'authors': '<b>me</b>'}\n", r"method\.described\.authors: holds markup"),
    ("METHOD = {'code': 'http://example.org'}\n", r"an address that begins with http://"),
)
