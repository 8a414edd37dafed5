"""Writes a new method: a small working example, or a copy of a baseline."""

from __future__ import annotations

import json
import re
from pathlib import Path

from lthbench.errors import MethodError, UsageError, nearest
from lthbench.io import file_names
from lthbench.io.paths import shipped, write_whole
from lthbench.method.source import baseline_names

EXAMPLE = '''\
"""Magnitude increase: keep the weights that grew most while the dense network was trained.

From Zhou et al. 2019, "Deconstructing lottery tickets". An example to change: `lthbench check` and
`lthbench evaluate` take this file as it is. The first line here is what result tables show.
"""

from lthbench import Problem, Ticket, keep_top

# What an entry is published under, and cited by: fill it in before `lthbench evaluate --final`.
METHOD = {"name": "NAME", "authors": "", "licence": "", "paper": ""}


# Options are keyword-only, with a default: `--set share=0.5` changes this one.
def find_tickets(problem: Problem, *, share: float = 1.0):
    # theta_0: every tensor of the untrained network, by name.
    before = problem.theta()

    # Train it by the task's own recipe. This costs 1 of problem.budget; under masks,
    # problem.train(start, masks), it costs the same. For a loop of your own see problem.loop.
    after = problem.train()

    # One score for each weight that may be pruned; the highest stay.
    scores = {n: after[n].abs() - share * before[n].abs() for n in problem.prunable}

    # One ticket for each rung of the ladder, sparsest last, with exactly the rung's count.
    for density in problem.densities:
        masks = keep_top(scores, density)  # bool by name, True = kept
        yield Ticket(masks)  # starts from theta_0; Ticket(masks, start=k) from step k
'''


def new(path: Path, source: str | None = None) -> None:
    """Write the example, or a copy of the baseline `source`, under the name of the new file.

    Raises:
        UsageError: the file exists already, or is not a .py file.
        MethodError: there is no such baseline.
    """
    if path.suffix != ".py" or not path.stem:
        raise UsageError(f"{path}: a method is a Python file; name one that ends in .py")
    if why := file_names.fault(path.stem):
        raise UsageError(f"{path}: the name {path.stem!r} {why}; name another file")
    if path.exists() or path.is_symlink():
        raise UsageError(f"{path}: is there already; name another file, or move it")
    if source is not None and source not in baseline_names():
        hint = nearest(source, baseline_names()) or "; `lthbench baselines` lists them"
        raise MethodError(f"no baseline {source!r}{hint}")
    name = f'"name": {json.dumps(path.stem)}'
    if source is None:
        text = EXAMPLE.replace('"name": "NAME"', name)
    else:
        original = (shipped("baselines") / f"{source}.py").read_text(encoding="utf-8")
        text = original.replace(f'"name": "{source}"', name)
        text = re.sub(
            r'(?m)^    "(authors|licence)": ".*"', r'    "\1": ""', text
        )  # the user's own
    write_whole(path, text.encode())
