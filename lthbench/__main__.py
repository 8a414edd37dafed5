"""`python -m lthbench` is `lthbench`."""

from lthbench.cli import main

main()
