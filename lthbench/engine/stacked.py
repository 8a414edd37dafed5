"""The stacked engine: jobs of one shape as one batched network (being written)."""

from __future__ import annotations

from lthbench.engine.plain import run as run
