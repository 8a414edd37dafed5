"""A worker process that checks a share of the files."""

from lthbench.leaderboard.validation.parallel import work

work()
