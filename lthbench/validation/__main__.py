"""A process that looks at a share of the files."""

from lthbench.validation.spread import work

work()
