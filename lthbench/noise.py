"""The noise floor: what another machine, thread count or order of sums moves a count by.

One ticket of each rung is trained several times, each time from weights that are moved by one unit
in the last place at random (protocol, "Randomness and determinism"):
`python -m lthbench.noise OUT/<task>`, beside the tickets of IMP's final evaluation.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from lthbench import answers, data, executors, networks, score, seeds
from lthbench.engine import Evaluation, Job
from lthbench.engine.choice import Means, engine_for, means_of
from lthbench.errors import ResourceError
from lthbench.paths import canonical_json, write_whole
from lthbench.record import read_record
from lthbench.states import State
from lthbench.task import Task, load_task

DRAWS = 10
LEAST = 1.0  # examples: a floor is never below one

Counts = dict[str, list[list[int]]]  # by set of examples: for each rung, the count of each draw


def nudged(start: State, seed: int, draw: int) -> State:
    """Each weight (float32) moved by one unit in the last place, up or down by lot."""
    moved = {}
    for name, tensor in start.items():
        up = seeds.generator(seed, "noise", str(draw), name).random(tuple(tensor.shape)) < 0.5
        towards = np.where(up, np.float32(np.inf), np.float32(-np.inf))
        moved[name] = torch.from_numpy(np.nextafter(tensor.numpy(), towards))
    return State(moved, start.step)


def floor(counts: Sequence[int]) -> float:
    """The standard deviation of counts that differ by noise alone, at least one example."""
    return max(LEAST, statistics.stdev(counts))


async def counted(
    task: Task, seed: int, tickets: Path, workers: int, means: Means, draws: int = DRAWS
) -> Counts:
    """Correct answers at T of each rung's ticket, from that many starts.

    Args:
        tickets: the folder of that seed's tickets.

    Raises ResourceError where one diverges: noise that decides that has no standard deviation.
    """
    seen = score.see(task, [seed], score.Plan(final=True), means)
    depth, steps = task.network.depth, task.recipe.steps
    theta = networks.initial(task.network, depth, seed)
    jobs, by = [], engine_for(means, task.network)
    for rung in task.ladder.trained:
        header, masks, stored = answers.read_ticket(tickets, rung)
        start = State(stored, header["start"]) if stored else theta
        for draw in range(draws):
            moved = nudged(start, seed, draw)
            key = f"{rung!r} {draw}"
            what = task.network, depth, moved, masks, task.recipe, steps, seed, score.ORDER, key
            jobs.append(Job(*what, engine=by))
    executor = executors.local(workers, means)
    looks = Evaluation(seen.sets, (steps,))
    found: dict[str, dict[str, int]] = {}
    try:
        async for key, result in executor.results(jobs, seen.train, looks):
            if result.status != "ok":
                raise ResourceError(f"{task.name}: run {key} diverged; a floor needs all of them")
            found[key] = {part: int(counts[-1]) for part, counts in result.correct.items()}
    finally:
        await executor.close()
    return {
        part: [
            [found[f"{rung!r} {draw}"][part] for draw in range(draws)]
            for rung in task.ladder.trained
        ]
        for part in ("held_out", "test")
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Write OUT/<task>/noise.json, which `lthbench.reference` takes up."""
    parser = argparse.ArgumentParser(prog="python -m lthbench.noise", description=__doc__)
    parser.add_argument("folder", type=Path, help="OUT/<task> of IMP's final evaluation")
    parser.add_argument("--device")
    parser.add_argument("--workers", type=int)
    options = parser.parse_args(arguments)
    record = read_record(options.folder / "record.json")
    task, seed = load_task(record.task.name), record.seeds[0]
    data.prepare(task, download=False)
    means = means_of(options.device, None)
    crew = executors.default_workers(means) if options.workers is None else options.workers
    tickets = options.folder / "tickets" / f"seed{seed}"
    counts = asyncio.run(counted(task, seed, tickets, crew, means))
    floors = {part: [floor(rung) for rung in rungs] for part, rungs in counts.items()}
    path = options.folder / "noise.json"
    made = {"task": task.digest, "seed": seed, "counts": counts, "floors": floors}
    write_whole(path, canonical_json(made))
    print(path)


if __name__ == "__main__":
    main()
