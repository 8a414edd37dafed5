"""`python -m lthbench` is `lthbench`."""

from lthbench.cli.main import main

main()
