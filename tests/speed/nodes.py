"""One node of one core against two: `python -m tests.speed.nodes`.

Trains a list of short LeNets on drawn examples of MNIST's shape, on a Ray cluster that lies on this
machine, once with one node and once with two. "From the start" counts the time in which the nodes'
processes start and import torch; "once started" is a second list on the same processes.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import time

import numpy as np
import torch

from lthbench.networks import families
from lthbench.protocol.task import load_task
from lthbench.tickets import controls
from lthbench.training.executors import cluster, ray_connection
from lthbench.training.job import Examples, Job

TASK = "lenet300-mnist"
ENGINE = "compact"
STORE = 256 * 2**20  # bytes of a node's object store


def trainings(count: int, steps: int, name: str) -> list[Job]:
    """Dense and masked trainings by turns."""
    task = load_task(TASK)
    recipe = task.recipe.model_copy(update={"steps": steps})
    depth = task.network.depth
    start = families.initial(task.network, depth, 0)
    (masks,) = controls.random_masks(families.shapes(task.network, depth), [0.2], 0, "uniform")
    return [
        Job(
            *(task.network, depth, start, masks if n % 2 else None, recipe, steps, 0),
            *(("speed", str(n)), f"{name} {n}"),
            engine=ENGINE,
        )
        for n in range(count)
    ]


def drawn() -> Examples:
    """Noise of MNIST's shape, which takes as long to learn nothing from."""
    draw = np.random.default_rng(0)
    x = torch.from_numpy(draw.integers(0, 256, (55_000, 784), dtype=np.uint8))
    return Examples(x, torch.from_numpy(draw.integers(0, 10, 55_000, dtype=np.uint8)), 1 / 255)


async def timed(lists: list[list[Job]], examples: Examples) -> list[float]:
    """Seconds of each list of trainings, one list after the other."""
    executor = cluster.Cluster()
    seconds = []
    for jobs in lists:
        began = time.perf_counter()
        ended = [key async for key, _ in executor.results(jobs, {0: examples}, None)]
        assert sorted(ended) == sorted(job.key for job in jobs)
        seconds.append(time.perf_counter() - began)
    await executor.close()
    return seconds


def measured(count: int, lists: list[list[Job]], examples: Examples) -> list[float]:
    """The same on a cluster of so many nodes."""
    from ray.cluster_utils import Cluster as Nodes

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    first = {"num_cpus": 1, "object_store_memory": STORE, "include_dashboard": False}
    nodes = Nodes(initialize_head=True, head_node_args=first)
    for _ in range(count - 1):
        nodes.add_node(num_cpus=1, object_store_memory=STORE)
    try:
        with ray_connection.connected(nodes.address):
            return asyncio.run(timed(lists, examples))
    finally:
        nodes.shutdown()


def main() -> None:
    """Print trainings a second with one node and with two, and the ratios."""
    parser = argparse.ArgumentParser(prog="python -m tests.speed.nodes", description=__doc__)
    parser.add_argument("--jobs", type=int, default=12)
    parser.add_argument("--steps", type=int, default=1000)
    options = parser.parse_args()
    lists = [trainings(options.jobs, options.steps, name) for name in ("first", "second")]
    examples = drawn()
    taken = {count: measured(count, lists, examples) for count in (1, 2)}
    print(f"{options.jobs} trainings of {options.steps} steps of {TASK}; {os.cpu_count()} cores,")
    print(f"{os.getloadavg()[0]:.1f} processes ran on average in the last minute")
    for row, name in enumerate(("from the start", "once started")):
        one, two = (taken[count][row] for count in (1, 2))
        rates = f"{options.jobs / one:.2f} and {options.jobs / two:.2f} trainings a second"
        print(
            f"{name}: one node {one:.1f} s, two nodes {two:.1f} s ({rates}); ratio {one / two:.2f}"
        )


if __name__ == "__main__":
    main()
