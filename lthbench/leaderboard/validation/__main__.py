"""A process that looks at a share of the files."""

from lthbench.leaderboard.validation.parallel import work

work()
