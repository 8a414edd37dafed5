"""What a step of a loop takes of a method's own process, measured there before its code is loaded.

A search's processor time is held against it (`lthbench.records.unmetered`; protocol, section 4).
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
MOST = 10_000  # steps, should the clock stand still


def measure(task: Task, seed: int, train: Examples) -> float:
    """Processor seconds of one step of dense training, in which all weights are ranked once.

    The ranking is what methods that learn a mask do in every step (edge-popup and its kin); on
    small networks it takes as long as the step's passes.
    """
    theta = families.initial(task.network, task.network.depth, seed)
    network = families.load(task.network, task.network.depth, theta).to(train.x.device).train()
    optimiser = optimiser_of([{"params": list(network.parameters())}], task.recipe)
    named = dict(network.named_parameters())
    ranked = {name: named[name] for name in families.shapes(task.network, task.network.depth)}
    began, done = 0.0, 0
    for done, (x, y) in enumerate(fed(train, task.recipe, seed, ("pace",), 0, MOST + 1)):
        if done == 1:  # the step that makes the optimiser's state is not one of many
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
