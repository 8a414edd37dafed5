"""The time of one loop step in a method's own process, measured before its code is loaded.

A search's processor time is compared with it (`lthbench.records.unmetered`; protocol, section 4).
"""

from __future__ import annotations

import time

from lthbench.networks import families
from lthbench.protocol.task import Task
from lthbench.tickets.masks import keep_top
from lthbench.training.augment import fed
from lthbench.training.engines.plain import loss_of, optimiser_of
from lthbench.training.job import Examples

LASTS = 0.25  # seconds of processor time, at least
MOST = 10_000  # steps, should the clock not advance


def measure(task: Task, seed: int, train: Examples) -> float:
    """Measure the processor seconds of one dense training step that ranks all weights once.

    Methods that learn a mask rank the weights in every step (edge-popup and its kin); on small
    networks this takes as long as the step's passes.
    """
    theta = families.initial(task.network, task.network.depth, seed)
    network = families.load(task.network, task.network.depth, theta).to(train.x.device).train()
    optimiser = optimiser_of([{"params": list(network.parameters())}], task.recipe)
    named = dict(network.named_parameters())
    ranked = {name: named[name] for name in families.shapes(task.network, task.network.depth)}
    began, done = 0.0, 0
    for done, (x, y) in enumerate(fed(train, task.recipe, seed, ("pace",), 0, MOST + 1)):
        if done == 1:  # the first step creates the optimiser's state and is not typical
            began = time.process_time()
        elif done > 1 and time.process_time() - began > LASTS:
            break
        loss = loss_of(network(x), y, task.recipe.label_smoothing)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        sizes = {name: weight.detach().abs() for name, weight in ranked.items()}
        keep_top(sizes, task.ladder.trained[-1])  # waits for a GPU, too
    return (time.process_time() - began) / (done - 1)
