"""The leaderboard as a site of files: built anew or in part, and shown on this machine."""

from __future__ import annotations

from lthbench.leaderboard.site.build import Built, build
from lthbench.leaderboard.site.serve import serve

__all__ = ["Built", "build", "serve"]
