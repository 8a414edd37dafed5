"""Tickets that arrive already trained are references, and no file of theirs can say otherwise."""

from __future__ import annotations

import atexit
import functools
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lthbench.leaderboard.bundle import archive
from lthbench.leaderboard.bundle.build import pack
from lthbench.leaderboard.verification.verify import verify
from lthbench.records import pretrained
from lthbench.records.schema import Arrival, Cell, Record, build, file_bytes
from lthbench.report import remarks
from tests import submitted
from tests.forged import Forger
from tests.submitted import DIGITS
from tests.synthetic import synthetic_record

# One ticket a rung: a network that was trained; constants, the same for every seed; a seed's own
# weights, which nothing was trained for. Each is masked by its seed's own lots.
METHOD = '''"""Weights of a ticket's own, of three kinds."""

import torch
from lthbench import State, Ticket, keep_top

METHOD = {"name": "arriving"}


def find_tickets(problem):
    lots = problem.generator("arriving")
    constants = torch.Generator().manual_seed(1)
    scores = {n: torch.rand(s, generator=lots) for n, s in problem.shapes.items()}
    for number, density in enumerate(problem.densities):
        masks = keep_top(scores, density)
        weights = problem.theta().tensors()
        for order in range(9 if number == 0 else 0):  # the schedule again and again
            weights = problem.train(State(weights, 0), masks, order=order).tensors()
        for name, mask in masks.items():
            if number == 1:
                drawn = torch.rand(mask.shape, generator=constants) - 0.5
                weights[name] = weights[name].abs().mean() * 4 * drawn
            else:
                weights[name] = torch.where(mask, weights[name] + 1e-4, 0.0)
        yield Ticket(masks, weights=weights)
'''
TRAINED, ALIKE, FREE = 0.5, 0.2, 0.1  # the ladder


@functools.cache
def made() -> tuple[Path, Path, Path]:
    """A home, its cache, and the bundle of that method; nothing in it may be changed."""
    folder = Path(tempfile.mkdtemp(prefix="lthbench-arriving-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    share, cache = submitted.furnish(folder / "home"), folder / "cache"
    with submitted.at_home(share, cache):
        named_imp = METHOD.replace('"arriving"}', '"imp"}')
        first = submitted.finished(folder / "first", named_imp, (DIGITS,))
        submitted.freeze(submitted.records_of(first)[0], share)
        out = submitted.scored_again(first, folder / "out", METHOD)
        (folder / "bundle.zip").write_bytes(pack(out, submitted.records_of(out)))
    return share, cache, folder / "bundle.zip"


@pytest.fixture
def bundle() -> Iterator[Path]:
    share, cache, path = made()
    with submitted.at_home(share, cache):
        yield path


@pytest.fixture
def honest(bundle: Path) -> Record:
    return archive.record(archive.read(bundle), DIGITS)


def tickets(record: Record, density: float) -> list[tuple[Cell, Arrival]]:
    """Each ticket of a rung with what was measured before its training."""
    told = {(a.seed, a.density): a for a in record.arrivals or ()}
    return [
        (c, told[c.seed, density])
        for c in record.cells
        if (c.kind, c.density, c.schedule) == ("ticket", density, 1)
    ]


# --- what is measured ------------------------------------------------------------------------


def test_each_rung_is_of_the_origin_that_its_weights_tell(honest: Record) -> None:
    size = honest.sizes["0"]["held_out"]
    dense = pretrained.dense_accuracies(honest.cells, honest.sizes)
    least = pretrained.bar(honest.task.chance, dense)
    assert least is not None and 0.1 < least < 1
    for cell, arrival in tickets(honest, ALIKE):
        assert (cell.origin, arrival.alike) == ("pretrained", 1.0)
        assert arrival.right < least * size  # constants that nothing was trained for
    for cell, arrival in tickets(honest, TRAINED):
        assert cell.origin == "pretrained" and arrival.right >= least * size
        assert arrival.alike is not None and abs(arrival.alike) < 0.3
    for cell, arrival in tickets(honest, FREE):
        assert cell.origin == "free" and arrival.right < least * size
        assert arrival.alike is None or abs(arrival.alike) < 0.3


def test_a_pretrained_ticket_is_a_reference(honest: Record) -> None:
    """So is its record, which says why; the controls beside it are what they were."""
    for density in (TRAINED, ALIKE):
        beside = [c for c in honest.cells if c.density == density and c.origin != "init"]
        assert {c.origin for c in beside} == {"pretrained"}
        assert {c.division for c in beside} == {"reference"}
        assert {"ticket", "shuffled", "reinit", "reinit-signs"} == {c.kind for c in beside}
    assert {c.division for c, _ in tickets(honest, FREE)} == {"open"}
    assert honest.aggregates["division"] == "reference"
    (remark,) = [r for r in remarks.remarks(honest) if r.name == "Pretrained"]
    assert remark.warns and remark.text.startswith("4 of 6 tickets arrive trained already")


def test_a_record_without_such_tickets_tells_of_none() -> None:
    """Its file, and all that is computed of its table, is as it was before there were any."""
    plain = synthetic_record()
    assert plain.arrivals is None
    assert b"arrivals" not in file_bytes(plain)
    assert "arrivals" not in plain.model_dump(mode="json")


def test_an_honest_bundle_holds(bundle: Path) -> None:
    done = verify(str(bundle), 1)
    done.demand()
    assert "6 tickets with weights of their own: what they are before training" in done.text()


# --- forgeries -------------------------------------------------------------------------------


def refused(forger: Forger, place: Path, level: int, why: str) -> None:
    """By a rule of that level and none below, in one line."""
    done = verify(str(forger.made(place / "forged.zip")), 1)
    first = next(f for f in done.findings if f.ok is False)
    assert first.level == level, done.text()
    assert re.search(why, first.what), first.what
    assert "\n" not in first.what


def said_free(forger: Forger, density: float) -> list[dict[str, Any]]:
    """All cells of a rung, whose origin is said to be free; returns what is told of its tickets."""
    for cell in forger.cells(density=density, origin="pretrained"):
        cell.update(origin="free", division="open")
    return [told for told in forger.record["arrivals"] if told["density"] == density]


@pytest.mark.parametrize(
    ("density", "why"),
    [(ALIKE, "origin free, but correlation 1.000"), (TRAINED, r"free, but 0\.\d+ right before")],
)
def test_a_pretrained_ticket_that_says_free(
    density: float, why: str, bundle: Path, tmp_path: Path
) -> None:
    forger = Forger.of(bundle, DIGITS)
    said_free(forger, density)
    refused(forger, tmp_path, 0, why)


def test_one_that_tells_nothing_of_before(bundle: Path, tmp_path: Path) -> None:
    forger = Forger.of(bundle, DIGITS)
    for told in said_free(forger, TRAINED):
        forger.record["arrivals"].remove(told)
    refused(forger, tmp_path, 0, "arrivals: must be one for each ticket of origin free")


def test_one_that_is_said_to_know_nothing_yet(bundle: Path, tmp_path: Path) -> None:
    """Its weights are in the bundle, and answer."""
    forger = Forger.of(bundle, DIGITS)
    for told in said_free(forger, TRAINED):
        told["right"] = 14
    refused(forger, tmp_path, 1, r"seed 0 ticket at density 0.5: 14 right before training; found")


def test_one_whose_weights_are_said_to_differ(bundle: Path, tmp_path: Path) -> None:
    forger = Forger.of(bundle, DIGITS)
    for told in said_free(forger, ALIKE):
        told["alike"] = 0.01
    refused(forger, tmp_path, 1, r"0.01 like another seed's weights; found 1.0")


def test_one_whose_dense_is_raised_is_no_way_out(bundle: Path, tmp_path: Path) -> None:
    """The bar lies higher then, but dense runs are the reference's own."""
    forger = Forger.of(bundle, DIGITS)
    said_free(forger, TRAINED)
    for cell in forger.cells(kind="dense", schedule=1):
        cell["correct"]["held_out"][-1] = forger.record["sizes"]["0"]["held_out"]
        name = f"dense/{cell['density']!r}/{cell['seed']}/1/held_out"
        if name in forger.curves:
            forger.curves[name][-1] = cell["correct"]["held_out"][-1]
    refused(forger, tmp_path, 0, "not the reference's own run|free, but")


def test_another_s_ticket_is_no_reference_by_decree(bundle: Path, tmp_path: Path) -> None:
    """Nor does a free ticket become one that nothing says was trained."""
    forger = Forger.of(bundle, DIGITS)
    for cell in forger.cells(density=FREE, origin="free"):
        cell.update(origin="pretrained", division="reference")
    refused(forger, tmp_path, 0, "origin pretrained, but nothing says that it was trained before")


def test_only_tickets_tell_of_before(bundle: Path, tmp_path: Path) -> None:
    forger = Forger.of(bundle, DIGITS)
    first = forger.record["arrivals"][0]
    forger.record["arrivals"].insert(1, {**first, "density": 1.0})
    refused(forger, tmp_path, 0, "arrivals: must be one for each ticket of origin free")


def test_a_division_that_does_not_follow(honest: Record) -> None:
    table = honest.model_dump(mode="json", exclude={"aggregates", "scorer"})
    cell = next(c for c in table["cells"] if c["origin"] == "pretrained")
    cell["division"] = "open"
    with pytest.raises(ValueError, match="division does not follow"):
        build(table)


# --- the rule --------------------------------------------------------------------------------


def kept(values: np.ndarray, mask: np.ndarray) -> pretrained.Kept:
    return {"w": (mask, values[mask].astype(np.float32))}


def test_a_correlation_is_of_what_both_keep() -> None:
    """The same values at other places are another draw; a mean and a scale are nothing alike."""
    dice = np.random.default_rng(5)
    one, other = dice.standard_normal((2, 60, 50))
    first, second = dice.random((2, 60, 50)) < 0.5
    same = pretrained.correlation(kept(one, first), kept(one, second))
    assert same == 1.0
    moved = pretrained.correlation(kept(one, first), kept(3 * one + 7, second))
    assert moved == 1.0
    for a, b in ((one, other), (one + 9, other + 9), (one, -other)):
        found = pretrained.correlation(kept(a, first), kept(b, second))
        assert found is not None and abs(found) < 0.15
    half = np.where(dice.random((60, 50)) < 0.5, one, other)
    found = pretrained.correlation(kept(one, first), kept(half, second))
    assert found == pytest.approx(0.5, abs=0.1)


def test_too_few_weights_tell_nothing() -> None:
    dice = np.random.default_rng(5)
    one = dice.standard_normal((30, 30))
    few = np.zeros((30, 30), dtype=bool)
    few.reshape(-1)[:99] = True
    assert pretrained.correlation(kept(one, few), kept(one, few)) is None
    few.reshape(-1)[99] = True
    assert pretrained.correlation(kept(one, few), kept(one, few)) == 1.0
    flat = np.ones((30, 30))
    assert pretrained.correlation(kept(flat, few), kept(flat, few)) == 0.0


def test_each_seed_is_held_against_all_others() -> None:
    dice = np.random.default_rng(5)
    mask = np.ones((20, 20), dtype=bool)
    draws = dice.standard_normal((3, 20, 20))
    seeds = {n: kept(draw, mask) for n, draw in enumerate((*draws, draws[1]))}
    found = pretrained.likeness(seeds)
    assert found[1] == found[3] == 1.0
    assert all(abs(found[n] or 0) < 0.2 for n in (0, 2))
    assert pretrained.likeness({0: seeds[0]}) == {0: None}


def test_the_bar_is_nine_tenths_of_the_way_to_dense() -> None:
    assert pretrained.bar(0.1, [0.9, 0.7]) == pytest.approx(0.1 + 0.9 * 0.7)
    assert pretrained.bar(0.1, []) is None
    assert pretrained.bar(0.1, [0.15]) is None  # dense learned nothing: nothing is like it
    assert pretrained.why(0.7, None, 0.71) == ""
    assert "0.710 right" in pretrained.why(0.71, None, 0.71)
    assert pretrained.why(0.99, 0.49, None) == ""
    assert "correlation 0.500" in pretrained.why(0.1, 0.5, None)
