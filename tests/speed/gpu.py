"""All rows of a GPU in one call of under ten minutes: `python -m tests.speed.gpu`.

First the stacked engine must be equal to the plain one on this device: in float64 to 1e-7 of each
tensor's largest value, for every family and both ways, and in float32 in its counts over ten seeds.
Then each row: stacked jobs beside the plain DataLoader loop on the same GPU, which trains one after
the other. Each trains as many steps as its task has between two evaluations, with one at the end.
Prints JSON, then a Markdown table. Without a GPU it says so and exits 2.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from statistics import fmean

from lthbench.training.executors.environment import NO_COMPILER

os.environ.update(NO_COMPILER)  # before torch is imported

import torch
from tabulate import tabulate

from lthbench.protocol.task import load_task
from lthbench.training.engines import plain, stacked
from lthbench.training.engines.stacked_network import Way
from lthbench.training.job import Evaluation, Examples, Job, Result

DEVICE = "cuda"
ROWS = (  # task, jobs, goal
    ("lenet300-mnist", 100, 200),
    ("resnet20-cifar10", 15, 10),
    ("resnet20-cifar10", 1, 3),
    ("vit-tiny-cifar10", 15, 5),
    ("transformer-modadd113", 15, 5),
)
WAYS: tuple[Way, ...] = ("vmap", "unrolled")
WHOLE = 560  # seconds that everything may take
BOX = 90  # seconds of a row
SHORT = 5  # a short run is a long one's share of this
WITHIN = 1e-7  # of a tensor's largest value: other kernels add in another order
SEEDS = 10
CHECKED = "mlp-digits"
LEAST = 1500  # steps of a row, so that capturing a graph does not drown them
STEPS = 600  # of the comparison in float32


@dataclass(frozen=True)
class Row:
    """One row of the issue's table: model-steps a second of both, and what was to be reached."""

    task: str
    real: bool
    jobs: int
    rate: float
    peer: float
    ratio: float
    goal: int
    note: str = ""


def equal_in_float64() -> dict[str, float]:
    """The largest difference by family and way; SystemExit if one is too large."""
    from tests import tiny

    worst = {}
    for family in tiny.FAMILIES:
        of = tiny.network(family)
        optimiser = {"resnet": "sgd-momentum", "vit": "adamw"}.get(family, "adam-decay")
        augment = "crop-flip" if family in tiny.IMAGES else "none"
        recipe = tiny.recipe(optimiser, precision="float64", augment=augment)
        jobs = [
            tiny.job(family, "0", masks=tiny.masks(of, of.depth), recipe=recipe, until=50),
            tiny.job(family, "1", seed=1, recipe=recipe, until=30),
        ]
        data = {seed: tiny.examples(family, 40, seed).to(DEVICE) for seed in (0, 1)}
        theirs = dict(plain.run(jobs, data))
        for way in WAYS:
            ours = dict(stacked.run(jobs, data, way=way, most=2))
            far = max(_distance(ours[key], theirs[key]) for key in theirs)
            worst[f"{family}, {way}"] = far
            if not far <= WITHIN:
                raise SystemExit(f"{family}, {way}: stacked is {far:.1e} away from plain")
    return worst


def _distance(ours: Result, theirs: Result) -> float:
    if ours.note:  # it fell back to what it is compared with
        raise SystemExit(f"the stacked engine was not tried: {ours.note}")
    if ours.state is None or theirs.state is None:
        raise SystemExit(f"stacked {ours.status}, plain {theirs.status}: {ours.reason}")
    pairs = [(ours.state[name], tensor) for name, tensor in theirs.state.items()]
    return max(float((a - b).abs().max() / max(1e-30, float(b.abs().max()))) for a, b in pairs)


def counts_in_float32() -> dict[str, float]:
    """Mean difference of correct counts over seeds, beside one standard error of the seeds."""
    from lthbench.networks import families
    from tests.speed import peers

    case = peers.prepared(load_task(CHECKED), DEVICE, STEPS)
    spec = case.task.network
    jobs = [
        replace(
            case.job, key=str(n), order=(*case.job.order, str(n)),
            start=families.initial(spec, spec.depth, n),
        )
        for n in range(SEEDS)
    ]  # fmt: skip
    evaluation = Evaluation({peers.SEED: case.sets}, (STEPS,))
    data = {peers.SEED: case.train}
    found = []
    for run in (stacked.run, plain.run):
        results: Mapping[str, Result] = dict(run(jobs, data, evaluation))
        found.append([float(results[job.key].correct["held_out"][-1]) for job in jobs])
    mean = fmean(a - b for a, b in zip(*found, strict=True))
    deviation = float(torch.tensor(found[1]).std())
    floor = max(1.0, deviation / SEEDS**0.5)
    if abs(mean) > 2 * floor:
        raise SystemExit(f"{CHECKED}: counts differ by {mean:+.2f}, floor {floor:.2f}")
    return {"mean difference": mean, "noise floor": floor, "mean count": fmean(found[1])}


def ours(
    jobs: list[Job], data: Mapping[int, Examples], evaluation: Evaluation, steps: int
) -> float:
    """Seconds of the stacked engine, set-up included."""
    torch.cuda.synchronize()
    began = time.perf_counter()
    some = [replace(job, until=steps) for job in jobs]
    for _, result in stacked.run(some, data, evaluation):
        if result.status != "ok":
            raise SystemExit(f"{jobs[0].network.family}: {result.status}: {result.reason}")
        if result.note:
            print(result.note, file=sys.stderr, flush=True)
    torch.cuda.synchronize()
    return time.perf_counter() - began


def row(name: str, count: int, goal: int) -> Row:
    """Both rates; by a short run alone where a long one would not end in time."""
    from tests.speed import peers
    from tests.speed.engines import several

    task = load_task(name)
    steps = max(task.score.every, LEAST)
    case = peers.prepared(task, DEVICE, steps)
    jobs, data = several(case, count), {peers.SEED: case.train}
    evaluation = Evaluation({peers.SEED: case.sets}, (steps,))
    short, note = steps // SHORT, ""
    spent = ours(jobs, data, evaluation, short)
    if spent * (SHORT + 1) > BOX / 2:
        note = f"{short} steps, set-up included, no evaluation"
        rate = count * short / spent
    else:
        spent = ours(jobs, data, evaluation, short)  # warm now
        rate = count * (steps - short) / (ours(jobs, data, evaluation, steps) - spent)
    given = case.task, case.job, case.train, case.sets, DEVICE
    tried = max(10, steps // 20)
    each = peers.dataloader_loop(*given, tried).seconds / tried
    length = steps if each * steps < BOX / 2 else max(tried, int(BOX / 2 / each))
    peer = length / peers.dataloader_loop(*given, length).seconds
    return Row(name, case.real, count, rate, peer, rate / peer, goal, note)


def markdown(rows: list[Row]) -> str:
    """The table, one line a row."""
    head = "work", "stacked, model-steps/s", "DataLoader loop, steps/s", "ratio", "goal", ""
    lines = [
        (
            f"{r.task}{'' if r.real else ' (noise)'}, {r.jobs} job{'s' * (r.jobs != 1)}",
            f"{r.rate:,.0f}", f"{r.peer:,.1f}", f"{r.ratio:.1f}", str(r.goal), r.note,
        )
        for r in rows
    ]  # fmt: skip
    return tabulate(lines, head, tablefmt="github", disable_numparse=True)


def main() -> None:
    """Check, measure, print."""
    if not torch.cuda.is_available():
        print("no CUDA device here: nothing was checked or measured", file=sys.stderr)
        raise SystemExit(2)
    began = time.perf_counter()
    device = torch.cuda.get_device_name()
    equal, counts = equal_in_float64(), counts_in_float32()
    rows: list[Row] = []
    left_out = []
    for name, count, goal in ROWS:
        if time.perf_counter() - began > WHOLE - 2 * BOX:
            left_out.append(f"{name}, {count} jobs")
            continue
        rows.append(row(name, count, goal))
        print(f"{name}, {count}: {rows[-1].ratio:.1f} times", file=sys.stderr, flush=True)
    found = {
        "device": device, "torch": torch.__version__, "seconds": time.perf_counter() - began,
        "equal in float64": equal, "counts in float32": counts,
        "rows": [asdict(r) for r in rows], "left out for time": left_out,
    }  # fmt: skip
    print(json.dumps(found, indent=1))
    print(f"\n{device}, torch {torch.__version__}\n\n{markdown(rows)}")


if __name__ == "__main__":
    main()
