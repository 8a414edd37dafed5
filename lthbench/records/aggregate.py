"""From the cells of a record to its scores: one scorer for the terminal, the report and the board.

Works on plain tables (a record's JSON), so that reading and writing a record compute the same.
Definitions: protocol, section 8.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from lthbench.protocol import design
from lthbench.protocol.constants import CONTROLS, DIVISIONS, IDENTITY, LAST, UNTRAINED
from lthbench.protocol.task import PUBLISHED, grid
from lthbench.records import intervals, metrics, transfer_score
from lthbench.records.intervals import FloatArray, Interval
from lthbench.records.metrics import Gap

VERSION = 6
MEASURES = ("distance", "flops_inference", "flops_training", "effective_nodes")
Table = Mapping[str, Any]


def aggregate(record: Table) -> dict[str, Any]:
    """Compute every aggregate of a record without them; plain numbers, None where unavailable."""
    ladder = list(record["task"]["ladder"])
    cells = _index(record)
    rungs = [_rung(record, cells, density) for density in ladder]
    result = {
        "dense": interval(_dense(record, cells)),
        "reproduces": _reproduces(record, cells),
        "rungs": rungs,
        **_loss(record, cells, ladder),
        "matching": _matching(record, cells, ladder),
        "speed": _speed(record, cells, ladder),
        "measures": _measures(record, cells, ladder),
        "cost": interval([search["cost"] for search in record["searches"]]),
        "division": _division(record),
        "complete": _complete(record, cells, ladder),
        **({"untrained": _untrained(record, cells, ladder)} if is_untrained(record) else {}),
        **_transfer(record),
    }
    told = _matching_is_told(record, cells)
    for rung in rungs:
        proved = result["matching"]["proved"]
        matches = proved is not None and rung["density"] >= proved
        rung["winning"] = rung["identity_matters"] if matches else (False if told else None)
    return result


def is_untrained(record: Table) -> bool:
    """Return whether a record's tickets are scored without training."""
    return any(cell["kind"] == "untrained" for cell in record["cells"])


def score_of(record: Table, cell: Table, part: str | None = None) -> float:
    """Return one run's score, 0 to 1: its accuracy at T, or the area of its curve.

    A network scored without training has one evaluation, so its score is its accuracy in every
    task.

    Raises:
        ValueError: If the curve has fewer evaluations than its area needs.
    """
    shown = part or record["shown"]
    if record["task"]["kind"] == "area" and cell.get("kind") not in UNTRAINED:
        return area_of(record, cell, shown)
    return accuracy_of(record, cell, shown)


def unit(kind: str, size: int) -> float:
    """Return the value of a score of 1 in a noise floor's unit: examples of an accuracy, or points.

    Args:
        kind: Kind of the task's score.
        size: Number of examples in the set.
    """
    return 100.0 if kind == "area" else float(size)


def area_of(record: Table, cell: Table, part: str) -> float:
    """Return a run's accuracy averaged over log step (`stats.area`); a failed run scores chance."""
    counts = cell["correct"].get(part, ())
    if cell["status"] != "ok" or not counts:
        return float(record["task"]["chance"])
    size = record["sizes"][str(cell["seed"])][part]
    steps = grid(record["task"]["every"], record["task"]["steps"])
    known = [count / size for count in counts]
    missing = cell.get("start", 0) // record["task"]["every"]
    return metrics.area([*_before(record, cell, part, missing), *known], steps)


def _before(record: Table, cell: Table, part: str, count: int) -> list[float]:
    """Return the credit of a run that starts at step k for the evaluations up to k.

    The path to theta_k is the dense network's, so these evaluations count as those of the same
    seed's dense run on the scoring stream: a ticket is neither charged for the steps it skipped,
    nor credited beyond what dense has. Chance if there is no such run, as at another depth.
    """
    if not count:
        return []
    of = () if "depth" in cell else record.get("cells", ())
    for dense in of:
        if (dense["kind"], dense["seed"], dense["schedule"]) == ("dense", cell["seed"], 1):
            read = dense["correct"].get(part, ()) if dense["status"] == "ok" else ()
            if len(read) >= count:
                size = record["sizes"][str(cell["seed"])][part]
                return [correct / size for correct in read[:count]]
    return [float(record["task"]["chance"])] * count


def accuracy_of(record: Table, cell: Table, part: str) -> float:
    """Return one run's accuracy at T.

    It is the mean of the last 5 evaluations where the rate is constant; a failed run scores chance.
    """
    counts = cell["correct"].get(part, ())
    if cell["status"] != "ok" or not counts:
        return float(record["task"]["chance"])
    last = counts[-LAST:] if record["task"]["schedule"] == "constant" else counts[-1:]
    return float(sum(last) / len(last) / record["sizes"][str(cell["seed"])][part])


Cells = dict[tuple[str, float, int, int], Table]


def _index(record: Table) -> Cells:
    """Index the cells by place, with each one's score, since they are read many times."""
    return {
        (c["kind"], c["density"], c["seed"], c["schedule"]): {**c, "score": score_of(record, c)}
        for c in record["cells"]
    }


def _values(
    record: Table, cells: Cells, kind: str, density: float, schedule: int = 1
) -> list[float] | None:
    """Return one score per seed; None unless every seed has a comparable run.

    A ticket's missing or failed run scores chance, as does a rung without any run; a failed control
    or dense run makes the comparison "not available": it never counts for the ticket.
    """
    found = [cells.get((kind, density, seed, schedule)) for seed in record["seeds"]]
    if kind != "ticket" and any(cell is None or cell["status"] != "ok" for cell in found):
        return None
    tried = schedule == 1 and any(place[0] == "ticket" for place in cells)
    if all(cell is None for cell in found) and not tried:
        return None
    chance = float(record["task"]["chance"])
    return [chance if cell is None else cell["score"] for cell in found]


def _dense(record: Table, cells: Cells) -> list[float] | None:
    return _values(record, cells, "dense", 1.0)


def _rung(record: Table, cells: Cells, density: float) -> dict[str, Any]:
    ticket, dense = _values(record, cells, "ticket", density), _dense(record, cells)
    controls = {kind: _values(record, cells, kind, density) for kind in CONTROLS}
    gaps = {kind: _gap(ticket, controls[kind]) for kind in IDENTITY}
    found = [cells.get(("ticket", density, seed, 1)) for seed in record["seeds"]]
    tickets = [cell for cell in found if cell is not None]
    effective = [c["effective"] / c["kept"] for c in tickets if c["effective"] is not None]
    matters = metrics.identity_matters(gaps["shuffled"], gaps["reinit"])
    return {
        "density": density,
        "ticket": interval(ticket),
        "difference": _difference(ticket, dense),
        **{kind: interval(values) for kind, values in controls.items()},
        **{gap_name(kind): _gap_table(gap) for kind, gap in gaps.items()},
        "identity_matters": matters,
        "effective": sum(effective) / len(effective) if effective else None,
        "collapsed": sum(c["effective"] == 0 for c in tickets),
        "failed": sum(c["status"] != "ok" for c in tickets),
    }


def gap_name(kind: str) -> str:
    """Return the key of ticket minus a control, among the aggregates of a rung."""
    return f"gap_{kind.replace('-', '_')}"


def _measures(record: Table, cells: Cells, ladder: Sequence[float]) -> list[dict[str, Any]]:
    """Return measures that no score reads, for dense and for each rung's trained tickets.

    Each is a mean over the seeds that have it, None without any: accuracy on the training part at
    T, learning distance, operations of inference and of training, effective nodes.
    """

    def row(kind: str, density: float) -> dict[str, Any]:
        found = [cells.get((kind, density, seed, 1)) for seed in record["seeds"]]
        ok = [cell for cell in found if cell is not None and cell["status"] == "ok"]
        fits = [cell["correct"]["train"][-1] / record["sizes"][str(cell["seed"])]["train"]
                for cell in ok if cell["correct"].get("train")]  # fmt: skip
        told = {name: [c[name] for c in ok if c.get(name) is not None] for name in MEASURES}
        means = {n: sum(v) / len(v) if v else None for n, v in {"train": fits, **told}.items()}
        whole = {n: round(v) for n, v in means.items() if n.startswith("flops") and v is not None}
        return {"density": density, **means, **whole}

    return [row("dense", 1.0), *(row("ticket", density) for density in ladder)]


def _gap(ticket: list[float] | None, control: list[float] | None) -> Gap | None:
    return None if ticket is None or control is None else metrics.identity_gap(ticket, control)


def division(origin_name: str, k: int) -> str:
    """Return the board of a cell: "init", "rewind", "open", or "reference" for trained weights."""
    if origin_name in ("signs", "transferred"):
        return "rewind" if k else "init"
    known = {"init": "init", "scaled": "init", "rewind": "rewind"}
    known |= dict.fromkeys(("final", "pretrained"), "reference")
    return known.get(origin_name, "open")


def _loss(record: Table, cells: Cells, ladder: list[float]) -> dict[str, Any]:
    """Return the loss L per seed in points, and its comparison with random pruning.

    Retention divides by the frozen L of `erk` tickets, which must be large enough; the points above
    `erk` are reported for every record that allows the comparison.
    """
    told: dict[str, Any] = {"loss": None, "retention": None, "rankable": None, "above_erk": None}
    table, dense = _ladder_table(record, cells, ladder), _dense(record, cells)
    if table is None or is_untrained(record):  # a different ladder
        return told
    loss = None
    if dense is not None:
        loss = metrics.loss_points(dense, table, metrics.log_density_weights(ladder))
        told["loss"] = interval(loss.tolist())
    random = None if record["reference"] is None else record["reference"]["loss_random"]
    if random is not None:
        told["rankable"] = metrics.rankable(random)
        if told["rankable"] and loss is not None:
            of = metrics.retention(loss, sum(random) / len(random))
            told["retention"] = interval(of.tolist())
    return {**told, "above_erk": _above_erk(record, cells, ladder, loss)}


def _above_erk(
    record: Table, cells: Cells, ladder: list[float], loss: FloatArray | None
) -> dict[str, Any] | None:
    """Return ticket minus `erk` in points, by seed: a mean over rungs, weighted in log density.

    It uses the record's own `erk` tickets if every rung has them; otherwise the reference's, whose
    mean loss is compared with this record's; otherwise those of the rungs that have them.
    """
    pairs = {
        density: (ticket, erk)
        for density in ladder
        if (ticket := _values(record, cells, "ticket", density)) is not None
        and (erk := _values(record, cells, "erk", density)) is not None
    }
    reference = record["reference"]
    if len(pairs) < len(ladder) and reference is not None and loss is not None:
        random = sum(reference["loss_random"]) / len(reference["loss_random"])
        return {**(interval((random - loss).tolist()) or {}), "densities": ladder}
    if not pairs:
        return None
    weights = metrics.log_density_weights(list(pairs))
    scored = np.array(list(pairs.values()), dtype=np.float64)  # [rungs, 2, seeds]
    above = 100 * (weights @ (scored[:, 0] - scored[:, 1]))
    return {**(interval(above.tolist()) or {}), "densities": list(pairs)}


def headline(aggregates: Table) -> dict[str, Any] | None:
    """Return the headline figure of a record: retention or its substitute.

    The key "what" is "retention"; on tasks that cannot support it, "above erk", in points; for
    untrained tickets, "accuracy" at their best rung, a fraction. None without a ticket, or without
    anything to compare it with.
    """
    if "untrained" in aggregates:
        found = aggregates["untrained"]
        (told,) = [r["ticket"] for r in found["rungs"] if r["density"] == found["headline"]]
        return {"what": "accuracy", **told}
    for what, key in (("retention", "retention"), ("above erk", "above_erk")):
        if aggregates.get(key):
            return {"what": what, **aggregates[key]}
    return None


def _ladder_table(record: Table, cells: Cells, ladder: list[float]) -> list[list[float]] | None:
    """Return scores [seeds][rungs]; None if no ticket exists."""
    rows = [_values(record, cells, "ticket", density) for density in ladder]
    known = [row for row in rows if row is not None]
    return [list(seed) for seed in zip(*known, strict=True)] if known else None


def _matching_is_told(record: Table, cells: Cells) -> bool:
    """Return whether a matching density is computable: dense runs, a margin, three seeds."""
    judged = record["reference"] is not None and not is_untrained(record)
    return (
        judged and _dense(record, cells) is not None and len(record["seeds"]) >= intervals.MIN_SEEDS
    )


def _matching(record: Table, cells: Cells, ladder: list[float]) -> dict[str, float | None]:
    table, dense = _ladder_table(record, cells, ladder), _dense(record, cells)
    if table is None or dense is None or is_untrained(record) or record["reference"] is None:
        return {"proved": None, "not_refuted": None}
    differences = [[a - d for a in row] for row, d in zip(table, dense, strict=True)]
    return _plain(metrics.matching_density(ladder, differences, record["reference"]["margin"]))


def _speed(record: Table, cells: Cells, ladder: list[float]) -> dict[str, Any]:
    """Return iterations to match, by the kind of the task (protocol, section 8.4)."""
    if is_untrained(record):
        return {}
    if record["task"]["kind"] == "area":
        level = record["task"]["threshold"]
        runs = [cells.get(("dense", 1.0, seed, 1)) for seed in record["seeds"]]
        dense = {
            part: [_first(record, run, part, level) for run in runs]
            for part in ("train", record["shown"])
        }
        return {"grokking": {_name(d): _grokking(record, cells, d, dense) for d in [1.0, *ladder]}}
    if record["reference"] is None:
        return {}
    if record["task"]["schedule"] == "constant":
        return {"steps": {_name(d): _steps(record, cells, d) for d in ladder}}
    return {"compressed": _compressed(record, cells, ladder)}


def _name(density: float) -> str:
    return f"{density:.6g}"


def _first(record: Table, cell: Table | None, part: str, level: float) -> int | None:
    """Return the step of the first of three consecutive evaluations at or above a level."""
    if cell is None or cell["status"] != "ok" or part not in cell["correct"]:
        return None
    size = record["sizes"][str(cell["seed"])][part]
    index = metrics.first_sustained(cell["correct"][part], size, level)
    every, skipped = record["task"]["every"], cell["start"] // record["task"]["every"]
    return None if index is None else (index + 1 + skipped) * int(every)


def _grokking(
    record: Table, cells: Cells, density: float, dense: Mapping[str, list[int | None]]
) -> dict[str, Any] | None:
    """Return memorising step, generalising step and delay of dense or of one rung, by seed.

    Args:
        record: The record.
        cells: The record's cells by place.
        density: Density of the rung; 1 for dense.
        dense: Steps at which dense runs arrive, on each set.
    """
    kind, level = ("dense" if density == 1.0 else "ticket"), record["task"]["threshold"]
    runs = [cells.get((kind, density, seed, 1)) for seed in record["seeds"]]
    if all(run is None for run in runs) or _dense(record, cells) is None:
        return None
    steps = record["task"]["steps"]

    def moments(part: str) -> dict[str, Any]:
        ours = [_first(record, run, part, level) for run in runs]
        found = metrics.iterations_to_match(ours, dense[part], steps)
        later = metrics.log2_difference(ours, dense[part], steps)
        told = {"mean": found.mean, "reached": found.reached, "n": found.n, "steps": ours}
        return {**told, "log2_difference": _plain(_of_unequal(later))}

    memorised, generalised = moments("train"), moments(record["shown"])
    delay = _delay(memorised["steps"], generalised["steps"], steps)
    return {"memorised": memorised, "generalised": generalised, "delay": delay}


def _delay(
    memorised: Sequence[int | None], generalised: Sequence[int | None], steps: int
) -> dict[str, Any] | None:
    """Return steps from memorising to generalising, over seeds that memorised; None without any.

    A seed that had not generalised by T is censored at the remaining length of its run: its delay
    is longer than that, and the mean is a restricted one.
    """
    pairs = [(m, g) for m, g in zip(memorised, generalised, strict=True) if m is not None]
    if not pairs:
        return None
    values = [(steps if g is None else g) - m for m, g in pairs]
    delays = [None if g is None else g - m for m, g in pairs]
    reached = sum(delay is not None for delay in delays)
    return {**(interval(values) or {}), "values": values, "steps": delays, "reached": reached}


def _steps(record: Table, cells: Cells, density: float) -> dict[str, Any] | None:
    reference = record["reference"]
    level = sum(reference["dense"]) / len(reference["dense"]) - reference["margin"]
    runs = [cells.get(("ticket", density, seed, 1)) for seed in record["seeds"]]
    dense = [cells.get(("dense", 1.0, seed, 1)) for seed in record["seeds"]]
    if all(run is None for run in runs) or _dense(record, cells) is None:
        return None
    first: Callable[[Table | None], int | None] = lambda cell: _first(  # noqa: E731 - one line twice
        record, cell, record["shown"], level
    )
    steps = record["task"]["steps"]
    return _steps_table(
        metrics.iterations_to_match([*map(first, runs)], [*map(first, dense)], steps)
    )


def _compressed(record: Table, cells: Cells, ladder: list[float]) -> dict[str, Any]:
    """Return the shortest whole schedule that matches dense at T, for ticket, dense and reinit."""
    dense, margin = _dense(record, cells), record["reference"]["margin"]
    densities = {c["density"] for c in record["cells"] if c["schedule"] > 1 and c["density"] < 1}
    if dense is None or not densities:
        return {}
    rung = min(densities)
    result: dict[str, Any] = {"density": rung}
    for kind in ("ticket", "dense", "reinit"):
        density = 1.0 if kind == "dense" else rung
        tried = {n: _values(record, cells, kind, density, n) for n in (8, 4, 2, 1)}
        found = {n: values for n, values in tried.items() if values is not None}
        result[kind] = metrics.compressed_match(found, dense, margin) if found else None
    return result


def _reproduces(record: Table, cells: Cells) -> bool | None:
    """Return whether local dense runs lie in the reference's 99 % prediction interval."""
    reference, dense = record["reference"], _dense(record, cells)
    if reference is None or dense is None or record["final"] or len(reference["dense"]) < 3:
        return None
    return intervals.predicted(dense, reference["dense"], level=0.99)


def _division(record: Table) -> str | None:
    """Return the most permissive division among the tickets."""
    found = [DIVISIONS.index(c["division"]) for c in record["cells"] if c["kind"] == "ticket"]
    return DIVISIONS[max(found)] if found else None


def _complete(record: Table, cells: Cells, ladder: Sequence[float]) -> bool:
    """Return whether every rung of every seed has a ticket that was trained and scored.

    If the seeds are published ones, all that the task names must be present.
    """
    if record["final"] and len(record["seeds"]) < record["task"].get("seeds", PUBLISHED):
        return False
    wanted = design.ticket_cells(ladder, record["seeds"], untrained=is_untrained(record))
    return all(key in cells and cells[key]["status"] == "ok" for key in wanted)


def _transfer(record: Table) -> dict[str, Any]:
    found = transfer_score.transfer(record, lambda cell: score_of(record, cell), interval)
    return {} if found is None else {"transfer": found}


def _untrained(record: Table, cells: Cells, ladder: list[float]) -> dict[str, Any]:
    """Return accuracies without training; the headline rung is the best on the held-out part."""

    def of(kind: str, density: float, part: str) -> list[float] | None:
        found = [cells.get((kind, density, seed, 1)) for seed in record["seeds"]]
        if kind != "untrained" and any(cell is None or cell["status"] != "ok" for cell in found):
            return None
        chance = float(record["task"]["chance"])
        return [chance if c is None else accuracy_of(record, c, part) for c in found]

    def rung(density: float) -> dict[str, Any]:
        ticket, dense, random = (
            of(kind, at, record["shown"])
            for kind, at in (("untrained", density), ("dense", 1.0), ("untrained_random", density))
        )
        assert ticket is not None
        held_out = of("untrained", density, "held_out") or []
        gap = None if random is None else metrics.identity_gap(ticket, random)
        return {
            "density": density,
            "ticket": interval(ticket),
            "held_out": sum(held_out) / len(held_out),
            "dense": interval(dense),
            "difference": _difference(ticket, dense),
            "random": interval(random),
            "above_random": _difference(ticket, random),
            "p": None if gap is None else gap.p,
        }

    rungs = [rung(density) for density in ladder]
    best = max(rungs, key=lambda found: (found["held_out"], -found["density"]))
    return {"headline": best["density"], "rungs": rungs}


def _plain(found: Interval | metrics.Matching) -> dict[str, Any]:
    """Convert a flat dataclass to a table, without the slow deep copies of `asdict`."""
    return dict(vars(found))


def _steps_table(found: metrics.IterationsToMatch) -> dict[str, Any]:
    return {**vars(found), "difference": _plain(found.difference)}


def _difference(a: list[float] | None, b: list[float] | None) -> dict[str, Any] | None:
    if a is None or b is None:
        return None
    return interval([x - y for x, y in zip(a, b, strict=True)])


def _of_unequal(interval: Interval) -> Interval:
    """Drop the bounds if all values are equal, since there is no spread to estimate."""
    if interval.low is None or interval.high is None:
        return interval
    if not intervals.alike((interval.low, interval.high)):
        return interval
    return Interval(interval.mean, None, None, interval.n)


def _gap_table(gap: Gap | None) -> dict[str, Any] | None:
    return None if gap is None else {**_plain(_of_unequal(gap.interval)), "p": gap.p}


def interval(values: Sequence[float] | None) -> dict[str, Any] | None:
    """Return mean, interval and the values themselves."""
    if values is None or not len(values):
        return None
    return {**_plain(_of_unequal(intervals.t_interval(values))), "values": list(values)}
