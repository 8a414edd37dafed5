"""Entry point of `python -m lthbench`, which is the same as `lthbench`."""

from lthbench.cli.main import main

main()
