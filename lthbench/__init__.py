"""lthbench: a benchmark for methods that find lottery tickets."""

from __future__ import annotations
