"""The leaderboard as a site of files: built anew or in part, and shown on this machine."""

from __future__ import annotations

from lthbench.site.making import Built, build
from lthbench.site.serving import serve

__all__ = ["Built", "build", "serve"]
