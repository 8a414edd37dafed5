"""The work of an evaluation: its steps, and an estimate of their time before measuring."""

from __future__ import annotations

import math

from lthbench.protocol import design
from lthbench.protocol.design import Found, Plan
from lthbench.protocol.task import Controls, Task, Transfer

IMP_COST = 1 / -math.log(0.8)  # dense trainings per nat: the costliest usual search, at first
OVERHEAD, FLOPS = 7e-4, 6e10  # seconds of a step on one core, before any is measured
STARTING = 4.0  # seconds until a task's processes have imported what they need


def guessed_step(task: Task) -> float:
    """Estimate seconds of one training step on one core, from its arithmetic."""
    network = task.network
    inputs = 2 * network.embedding if network.family == "pair-mlp" else network.inputs
    weights = inputs * network.width + network.depth * network.width**2
    if network.family == "transformer":
        weights = network.depth * network.width * (4 * network.width + 2 * network.hidden)
    examples = task.recipe.batch or task.data.modulus**2 * task.data.train_fraction
    return OVERHEAD + 6 * weights * examples / FLOPS


def scoring_steps(task: Task, seeds: int, controls: Controls, compressed: bool) -> float:
    """Count model-steps of scoring a whole ladder: dense, tickets, controls, short schedules."""
    plan = Plan(controls=controls, compressed=compressed)
    tickets = dict.fromkeys(task.ladder.trained, Found())
    runs = sum(1 / place.schedule for place in design.cells(task, plan, 0, tickets))
    return runs * seeds * task.recipe.steps


def carrying_steps(task: Task, seeds: int, direct: bool) -> float:
    """Count model-steps at other depths: transferred and random tickets, parts of one."""
    if task.transfer is None:
        return 0.0
    runs = len(task.transfer.targets) * runs_at_a_target(task.transfer, direct)
    return float(runs * seeds * task.recipe.steps)


def runs_at_a_target(transfer: Transfer, direct: bool) -> int:
    """Count a seed's runs at one depth: transferred, random and direct on each rung, parts."""
    rungs = design.target_rungs(transfer)
    every = list(design.target_cells(transfer, 0, rungs, rungs if direct else ()))
    return len(every) // len(transfer.targets)


def further_nats(task: Task, direct: bool) -> float:
    """Return the nats of density that a seed searches at depths other than the task's own."""
    if task.transfer is None:
        return 0.0
    searches = (task.transfer.source != task.network.depth) + direct * len(task.transfer.targets)
    return searches * -math.log(task.transfer.densities[-1])


def clock(seconds: float) -> str:
    """Format seconds as 0:07, 12:30 or 3:05:00."""
    whole = round(seconds)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"
