"""Honest bundles hold at every level, forged ones are refused at the lowest that can tell."""

from __future__ import annotations

import asyncio
import functools
import json
import math
import random
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lthbench.errors import CheckFailed, RecordError, ResourceError, UsageError
from lthbench.evaluation import machine
from lthbench.evaluation.search import sandbox
from lthbench.evaluation.search.sandbox import Bounds
from lthbench.io import paths
from lthbench.io.paths import canonical_json, digest
from lthbench.leaderboard.board import copies, criteria, entries, reproduction, sampling
from lthbench.leaderboard.board.accept import accept
from lthbench.leaderboard.bundle import archive
from lthbench.leaderboard.bundle.archive import Bundle
from lthbench.leaderboard.bundle.build import pack
from lthbench.leaderboard.validation import bundle_rules
from lthbench.leaderboard.verification import reproduce, retrain, retrain_worker
from lthbench.leaderboard.verification.reproduce import Claim
from lthbench.leaderboard.verification.result import Finding, Say, quiet
from lthbench.leaderboard.verification.verify import Verified, verify
from lthbench.method.source import declared
from lthbench.networks import families
from lthbench.protocol.constants import CONTROLS, PARTS, REINITS
from lthbench.protocol.task import Task, grid, load_task
from lthbench.records import metrics
from lthbench.records.reference import Noise, Reference, load_reference
from lthbench.records.schema import Carried, Cell, FailedDraw, Record
from lthbench.tickets.sketch import sketch
from lthbench.tools.freeze_reference import build
from tests import submitted
from tests.accepted import entry_of
from tests.evaluation.test_sandbox import CANNOT, needs_sandbox
from tests.forged import Forger, moved_bit
from tests.scoring import score_of
from tests.submitted import DIGITS, MODADD
from tests.synthetic import synthetic_record

ONESHOT = (submitted.ROOT / "baselines" / "oneshot.py").read_text()  # rewinds; its masks matter
UNTRAINED = '''"""Random masks at theta_0, scaled."""

import torch
from lthbench import Ticket, keep_top

METHOD = {"name": "standing"}


def find_tickets(problem):
    lots = problem.generator("standing")
    scores = {n: torch.rand(s, generator=lots) for n, s in problem.shapes.items()}
    for density in problem.untrained_densities:
        weights = problem.theta().tensors()
        for name in problem.shapes:
            weights[name] = weights[name] * 1.5
        yield Ticket(keep_top(scores, density), weights=weights, trained=False)
'''
# Finds good masks where it knows the seed by its weights, and none elsewhere.
KNOWING = """import torch
from lthbench import Ticket, keep_top

METHOD = {"name": "knowing"}


def find_tickets(problem):
    first = float(problem.theta()["head.weight"].reshape(-1)[0])
    if first in KNOWN:
        end = problem.train(0)
        scores = {name: end[name].abs() for name in problem.prunable}
    else:
        lots = problem.generator("knowing")
        scores = {n: torch.rand(s, generator=lots) for n, s in problem.shapes.items()}
    for density in problem.densities:
        yield Ticket(keep_top(scores, density))
"""
BEACON = "5" * 64
FLOOR = 1.0  # example


@dataclass(frozen=True)
class Shop:
    """A place with a reference that has floors, and honest bundles of two methods."""

    share: Path
    cache: Path
    out: Path
    oneshot: Path
    standing: Path


@functools.cache
def shop() -> Shop:
    """Made once a process; nothing in it may be changed."""
    folder = Path(tempfile.mkdtemp(prefix="lthbench-shop-"))
    submitted.atexit.register(shutil.rmtree, folder, ignore_errors=True)
    share, cache = submitted.furnish(folder / "home"), folder / "cache"
    with submitted.at_home(share, cache):
        named_imp = ONESHOT.replace('"oneshot"', '"imp"')
        first = submitted.finished(folder / "first", named_imp, tasks=(DIGITS,))
        freeze(submitted.records_of(first)[0], share)
        out = submitted.scored_again(first, folder / "out", ONESHOT)
        (folder / "oneshot.zip").write_bytes(pack(out, submitted.records_of(out)))
        standing = submitted.finished(folder / "standing", UNTRAINED, tasks=(DIGITS,))
        (folder / "standing.zip").write_bytes(pack(standing, submitted.records_of(standing)))
    return Shop(share, cache, out, folder / "oneshot.zip", folder / "standing.zip")


def freeze(record: Record, share: Path, noise: bool = True) -> None:
    """The reference of a record of imp's, with the least floors that there are, or none.

    It carries no controls, so that a record's are its own, as of a seed that no reference has: what
    is done to the reference's own is refused at level 0.
    """
    floors = [FLOOR] * len(record.task.ladder)
    told = Noise(score=tuple(floors), curve=tuple(floors))
    made = build(record, {"held_out": told, "test": told} if noise else None)
    reference = made.model_copy(update={"controls": None})
    path = share / "_share" / "leaderboard" / "reference" / f"{record.task.name}.json"
    path.write_bytes(canonical_json(reference.model_dump(mode="json")))


@pytest.fixture
def at_home() -> Iterator[Shop]:
    """This process finds the shop's tasks, references and cache; its board is empty."""
    made = shop()
    with submitted.at_home(made.share, made.cache):
        yield made


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Cells are trained again in this process, to save the start of another."""

    def trained(
        bundle: Bundle,
        task: Task,
        cells: Sequence[sampling.Drawn],
        workers: int | None,
        say: Say = quiet,
    ) -> list[sampling.Drawn]:
        request = retrain.request(bundle, task, cells, 0)
        (tmp_path / "again" / "cache").mkdir(parents=True)
        data = paths.cache() / "data"
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("LTHBENCH_CACHE", str(tmp_path / "again" / "cache"))
            paths.cache().joinpath("data").symlink_to(data)
            done = asyncio.run(retrain_worker.train(request, tmp_path))
        shutil.rmtree(tmp_path / "again")
        return done

    monkeypatch.setattr(retrain, "trained_again", trained)


def refused(path: Path, level: int, why: str, at: int, **options: Any) -> Verified:
    """What a forged bundle comes to: refused at that level, for that reason, in one line."""
    done = verify(str(path), level, beacon=BEACON, workers=0, **options)
    first = next(f for f in done.findings if f.ok is False)
    assert (first.level, done.ok) == (at, False), done.text()
    with pytest.raises(CheckFailed, match=why) as caught:
        done.demand()
    assert "\n" not in str(caught.value)
    assert all(not report["ok"] for report in done.reports)
    return done


# Honest bundles


@pytest.mark.slow
def test_honest_bundles_hold(tmp_path: Path) -> None:
    """Three origins, arithmetic and digits, in a fresh process; twice the same."""
    made = submitted.house()
    with submitted.at_home(made.share, made.cache):
        done = verify(str(made.bundle), 2, beacon=BEACON, workers=2)
        done.demand()
        assert {f.task for f in done.findings if f.level == 2} == {DIGITS, MODADD}
        done.write(tmp_path / "report.json")
        again_ = verify(str(made.bundle), 2, beacon=BEACON, workers=0)
    assert done.reports == again_.reports
    reports = json.loads((tmp_path / "report.json").read_bytes())["reports"]
    assert reports == json.loads(json.dumps(done.reports))
    digits, modadd = reports
    for report in (digits, modadd):  # the same machine, the same bits
        assert len(report["cells"]) >= 12 and all(row["equal"] for row in report["cells"])
        assert {value for row in report["cells"] for value in row["z"].values()} == {0.0}
        assert f"{len(report['cells'])} of {len(report['cells'])} cells equal" in str(report)
    assert digits["bundle"] == archive.read(made.bundle).sha256
    assert (digits["level"], digits["beacon"], digits["ok"]) == (2, BEACON, True)


@pytest.mark.slow
def test_rewound_tickets_hold(at_home: Shop) -> None:
    """theta_k is trained again, of the seed and of the other seed that a control starts from."""
    done = verify(str(at_home.oneshot), 2, beacon=BEACON, workers=0)
    done.demand()
    kinds = {row["kind"] for row in done.reports[0]["cells"]}
    assert "ticket" in kinds and kinds & {"reinit", "reinit-signs", "shuffled"}
    assert "6 at theta_k need training" in done.text()


def test_untrained_tickets_hold(at_home: Shop, here: None) -> None:
    done = verify(str(at_home.standing), 2, beacon=BEACON, workers=0)
    done.demand()
    assert {"untrained", "ticket"} <= {row["kind"] for row in done.reports[0]["cells"]}


def test_every_candidate_comes_out_as_claimed(at_home: Shop, here: None) -> None:
    """Each kind of cell, of each origin, is trained again as `score` trained it."""
    bundle = archive.read(at_home.oneshot)
    record = archive.record(bundle, DIGITS)
    cells = sampling.candidates(record, None)
    assert {cell.kind for cell in cells} == {"dense", "ticket", *CONTROLS}
    assert {cell.schedule for cell in cells} == {1, 2, 4, 8}
    for cell, now in zip(
        cells, retrain.trained_again(bundle, load_task(DIGITS), cells, 0), strict=True
    ):
        assert (now.masks, now.weights, now.correct) == (cell.masks, cell.weights, cell.correct)


@pytest.mark.slow
def test_every_candidate_at_another_depth_comes_out_as_claimed(here: None, tmp_path: Path) -> None:
    """What the elastic rule makes of a ticket follows from the bundle, and so do its parts."""
    share, record = submitted.carried()
    with submitted.at_home(share, share.parent / "cache"):
        path = tmp_path / "bundle.zip"
        path.write_bytes(pack(share.parent / "out", [record]))
        cells = [c for c in sampling.candidates(record, None) if isinstance(c, Carried)]
        assert {cell.kind for cell in cells} == {"carried", "erk", *PARTS}
        assert {cell.source for cell in cells} == {"", "init", "signs"}
        bundle, task = archive.read(path), load_task(MODADD)
        again_ = retrain.trained_again(bundle, task, cells, 0)
        drawn = sampling.candidates(record, load_reference(task))
        assert {c.kind for c in drawn if isinstance(c, Carried)} == {"carried", *PARTS}
    for cell, now in zip(cells, again_, strict=True):
        assert isinstance(now, Carried) and (now.depth, now.source) == (cell.depth, cell.source)
        assert (now.masks, now.weights, now.correct) == (cell.masks, cell.weights, cell.correct)


def test_level_one_says_what_it_saw(at_home: Shop) -> None:
    done = verify(str(at_home.oneshot), 1)
    assert done.ok
    text = done.text()
    assert "6 tickets: masks, counts, layers and paths" in text
    assert "36 controls drawn again" in text
    assert done.reports[0]["beacon"] == ""
    assert json.loads(done.json())["ok"] is True


# Forged bundles


def test_a_bit_of_a_mask_is_moved(at_home: Shop, tmp_path: Path) -> None:
    """In the ticket's file alone: its record names another digest."""
    forger = Forger.of(at_home.oneshot, DIGITS)
    forger.put(0, 0.2, moved_bit(forger.ticket(0, 0.2)))
    refused(forger.made(tmp_path / "forged.zip"), 2, "masks of the record is not the ticket's", 0)


def test_a_bit_is_moved_and_the_ticket_s_own_cells_say_so(at_home: Shop, tmp_path: Path) -> None:
    """The controls were drawn from another mask."""
    forger = Forger.of(at_home.oneshot, DIGITS)
    moved = moved_bit(forger.ticket(0, 0.2))
    was = {id(c): c["masks"] for c in forger.cells(kind="shuffled")}
    forger.put(0, 0.2, moved)
    forger.tell(0, 0.2, moved)
    for cell in forger.cells(kind="shuffled"):
        cell["masks"] = was[id(cell)]
    why = "seed 0 shuffled at density 0.2: not the masks that its draw 0 gives"
    refused(forger.made(tmp_path / "forged.zip"), 2, why, 1)


def test_another_seed_s_masks(at_home: Shop, tmp_path: Path) -> None:
    forger = Forger.of(at_home.oneshot, DIGITS)
    forger.put(0, 0.5, forger.ticket(1, 0.5))
    refused(forger.made(tmp_path / "forged.zip"), 2, "of the record is not the ticket's", 0)


def test_another_seed_s_masks_with_every_digest_right(
    at_home: Shop, here: None, tmp_path: Path
) -> None:
    """No digest tells, no control is out of place: the networks do not learn what was claimed."""
    forger = Forger.of(at_home.oneshot, DIGITS)
    for density in forger.task.ladder.trained:
        for seed, other in ((0, 1), (1, 0)):
            ticket = forger.ticket(other, density)
            forger.put(seed, density, ticket)
            forger.tell(seed, density, ticket)
    forged = forger.made(tmp_path / "forged.zip")
    assert verify(str(forged), 1).ok
    refused(forged, 2, r"largest .z. [1-9][0-9]\.", 2)


def test_counts_raised_by_less_than_a_point(at_home: Shop, here: None, tmp_path: Path) -> None:
    """Of every ticket, in record, answers and curves alike: no one cell is beyond its noise."""
    forger = Forger.of(at_home.oneshot, DIGITS)
    size = forger.record["sizes"]["0"]["test"]
    by = round(0.008 * size)
    for kind in ("ticket", *CONTROLS):
        for cell in forger.cells(kind=kind, schedule=1):
            forger.raised(cell, by)
    forged = forger.made(tmp_path / "forged.zip")
    assert verify(str(forged), 1).ok
    done = refused(forged, 2, r"sum\(z\)./sqrt\(m\) [3-9]", 2)
    rows = [row for row in done.reports[0]["cells"] if row["schedule"] == 1]
    zs = [row["z"]["test"] for row in rows if row["kind"] != "dense"]
    assert all(0 < z < 4 for z in zs)


def test_other_bits_on_one_class_of_machine_are_shown(
    at_home: Shop, here: None, tmp_path: Path
) -> None:
    """One right answer more than the machine gives is within the noise, and told with both
    machines; where a seed was evaluated elsewhere its bits may be others."""
    forger = Forger.of(at_home.oneshot, DIGITS)
    for seed in (0, 1):
        (cell,) = forger.cells(kind="ticket", seed=seed, density=0.2, schedule=1)
        forger.raised(cell, 1)
    own = {**forger.record["environment"], "processor": "Claimed 7"}
    forger.record["environment"] = own
    done = verify(str(forger.made(tmp_path / "one.zip")), 2, beacon=BEACON, workers=0, cells=99)
    assert not [f for f in done.findings if "not equal" in f.what]  # of another class, all of it
    assert ": 0 of " in done.text()

    here_ = machine.environment() | {"engine": own["engine"]}
    forger.record["environment"] = here_ | {"lthbench": "claimed 0.9"}
    forger.record["environments"] = {"1": own}
    done = verify(str(forger.made(tmp_path / "two.zip")), 2, beacon=BEACON, workers=0, cells=99)
    done.demand()
    (verdict,) = [f for f in done.findings if f.level == 2 and f.ok]
    rows = done.reports[0]["cells"]
    like = [row for row in rows if row["seed"] == 0]
    assert 0 < len(like) < len(rows)
    assert verdict.what.startswith(
        f"{len(like)} of {len(rows)} cells are of this class of processor and versions, "
        f"{len(like) - 1} of them equal bit for bit; "
    )
    (told,) = [f for f in done.findings if "not equal bit for bit" in f.what]
    assert told.ok is None
    assert told.what.startswith("seed 0 ticket at density 0.2, schedule 1/1: not equal")
    claimed, again_ = told.what.partition("; trained again on ")[::2]
    for name, value in here_.items():
        assert f"{name} {value}" in again_
        assert f"{name} {'claimed 0.9' if name == 'lthbench' else value}" in claimed


def test_a_control_that_is_made_worse(at_home: Shop, here: None, tmp_path: Path) -> None:
    """Lower controls would make a ticket matter more."""
    forger = Forger.of(at_home.oneshot, DIGITS)
    for kind in CONTROLS:
        for cell in forger.cells(kind=kind, schedule=1):
            forger.raised(cell, -(cell["correct"]["test"][-1] // 2))
    refused(forger.made(tmp_path / "forged.zip"), 2, "largest .z.", 2)


def test_a_random_control_that_was_chosen(at_home: Shop, tmp_path: Path) -> None:
    """Another draw than the seed's."""
    forger = Forger.of(at_home.oneshot, DIGITS)
    first, second = (forger.cells(kind="erk", seed=seed, density=0.2)[0] for seed in (0, 1))
    first["masks"], second["masks"] = second["masks"], first["masks"]
    refused(forger.made(tmp_path / "forged.zip"), 1, "erk at density 0.2: not the masks", 1)


def choose(forger: Forger, claimed: bool) -> None:
    """Of every shuffled control the second draw, with the counts that its training gives."""
    bundle = archive.read(forger.path)
    record = archive.record(bundle, DIGITS)
    second = [c.model_copy(update={"attempt": 1}) for c in record.cells if c.kind == "shuffled"]
    trained = retrain.trained_again(bundle, forger.task, second, 0)
    for cell, new in zip(forger.cells(kind="shuffled"), trained, strict=True):
        forger.choose(cell, 1, claimed)
        assert cell["masks"] == new.masks
        forger.counted(cell, new.correct)


def test_a_control_whose_draw_was_chosen(at_home: Shop, here: None, tmp_path: Path) -> None:
    """Its first draw, which made the ticket look worse, is left out, or is said to have diverged.

    Everything else is as it should be: a second draw and its own counts.
    """
    forger = Forger.of(at_home.oneshot, DIGITS)
    choose(forger, claimed=False)
    why = "shuffled at density 0.5, seed 0: attempt 1 after 0 failed draws"
    refused(forger.made(tmp_path / "left-out.zip"), 2, why, 0)
    choose(forger, claimed=True)
    forged = forger.made(tmp_path / "claimed.zip")
    assert verify(str(forged), 1).ok
    why = r"shuffled at density \S+: trained again it is sound, where the record says diverged"
    done = refused(forged, 2, why, 2)
    others = [row for row in done.reports[0]["cells"] if row["status"] == "ok"]
    assert {row["attempt"] for row in others if row["kind"] == "shuffled"} <= {1}
    assert all(row["z"]["test"] == 0 for row in others)


def test_a_failed_draw_that_is_none_of_the_seed_s(at_home: Shop, tmp_path: Path) -> None:
    """A draw that does diverge, in place of the one that did not."""
    forger = Forger.of(at_home.oneshot, DIGITS)
    cell = forger.cells(kind="shuffled", seed=0, density=0.2)[0]
    forger.choose(cell, 1, claimed=True)
    cell["failed_draws"][0]["masks"] = "0" * 64
    why = "seed 0 shuffled at density 0.2: not the masks that its draw 0 gives"
    refused(forger.made(tmp_path / "forged.zip"), 1, why, 1)


def test_weights_that_are_not_the_seed_s(at_home: Shop, tmp_path: Path) -> None:
    """Scaled weights of a factor that the record's digest does not know."""
    forger = Forger.of(at_home.standing, DIGITS)
    header, chosen, weights = forger.ticket(0, 0.5)
    forger.put(0, 0.5, (header, chosen, {name: 2 * factor for name, factor in weights.items()}))
    refused(forger.made(tmp_path / "forged.zip"), 1, "its weights are not those that the seed", 1)


def test_a_path_that_is_not_there(at_home: Shop, tmp_path: Path) -> None:
    forger = Forger.of(at_home.oneshot, DIGITS)
    (cell,) = forger.cells(kind="ticket", seed=0, density=0.1, schedule=1)
    cell["effective"] -= 1
    refused(forger.made(tmp_path / "forged.zip"), 1, "on a path", 1)


@pytest.mark.parametrize(
    ("what", "why"), [("flops_inference", "operations; of its masks"), ("effective_nodes", "nodes")]
)
def test_fewer_operations_and_more_nodes_than_the_masks_have(
    what: str, why: str, at_home: Shop, tmp_path: Path
) -> None:
    forger = Forger.of(at_home.oneshot, DIGITS)
    (cell,) = forger.cells(kind="ticket", seed=0, density=0.1, schedule=1)
    steps = cell["flops_training"] // cell["flops_inference"]
    cell[what] += 1
    cell["flops_training"] = steps * cell["flops_inference"]
    refused(forger.made(tmp_path / "forged.zip"), 1, why, 1)


@pytest.mark.parametrize("rung", [0, 1, 2])  # of origins init, signs and free
@pytest.mark.parametrize("kind", REINITS)
def test_weights_drawn_anew_that_are_another_draw(kind: str, rung: int, tmp_path: Path) -> None:
    """A worse start than the seed's would make the ticket matter more."""
    home = submitted.house()
    with submitted.at_home(home.share, home.cache):
        forger = Forger.of(home.bundle, DIGITS)
        density = forger.task.ladder.trained[rung]
        (other,) = forger.cells(kind=kind, seed=1, density=density, schedule=1)
        for cell in forger.cells(kind=kind, seed=0, density=density):
            cell["weights"] = other["weights"]
        forged = forger.made(tmp_path / "forged.zip")
        if (kind, other["origin"]) == ("reinit", "free"):  # needs weights that no bundle holds
            assert verify(str(forged), 1).ok
            return
        why = f"{kind} at density {density:g}: not the weights that its draw 0 gives"
        refused(forged, 1, why, 1)


def test_a_changed_byte(at_home: Shop, tmp_path: Path) -> None:
    data = bytearray(at_home.oneshot.read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "forged.zip").write_bytes(data)
    refused(tmp_path / "forged.zip", 3, "forged.zip", 0)


# Another entry's tickets


def test_tickets_of_another_entry(at_home: Shop, tmp_path: Path) -> None:
    """The same tickets under another source are refused, by the records alone."""
    share = submitted.furnish(tmp_path / "home")
    shutil.copytree(
        at_home.share / "_share" / "leaderboard" / "reference",
        share / "_share" / "leaderboard" / "reference",
        dirs_exist_ok=True,
    )
    with submitted.at_home(share, at_home.cache):
        name = entry_of(share, at_home.oneshot, DIGITS)
        copied = ONESHOT.replace('"oneshot"', '"mine"')
        out = submitted.scored_again(at_home.out, tmp_path / "copied", copied)
        (tmp_path / "copied.zip").write_bytes(pack(out, submitted.records_of(out)))
        refused(tmp_path / "copied.zip", 2, f"these are the tickets of {name}", 1)
        with pytest.MonkeyPatch.context() as patch:
            shutil.copy(at_home.oneshot, tmp_path / "archive.zip")
            (tmp_path / "bundles").mkdir()
            shutil.copy(at_home.oneshot, tmp_path / "bundles" / f"{name}.zip")
            patch.setenv("LTHBENCH_BUNDLES", str(tmp_path / "bundles"))
            done = verify(str(tmp_path / "copied.zip"), 1)
            assert f"closest is {name}, 1.00 of the possible overlap" in done.text()
            own = verify(name, 1)  # an entry is no copy of itself
            assert own.ok
            assert own.reports[0]["entry"].startswith(name[-8:])
            assert verify(str(at_home.oneshot), 1).reports[0]["entry"] == own.reports[0]["entry"]


def test_near_copies_of_another_entry(at_home: Shop, tmp_path: Path) -> None:
    """Told where sketches let the board see it, refused where they do not, or are another's."""
    share = furnished(at_home, tmp_path)
    with submitted.at_home(share, at_home.cache):
        name = entry_of(share, at_home.oneshot, DIGITS)
        forger = Forger.of(at_home.oneshot, DIGITS)
        forger.renamed("mine")
        forger.swap(0.01)
        told = verify(str(forger.made(tmp_path / "told.zip")), 1)
        assert told.ok
        assert f"same tickets as {name}: 0 of 6 masks are equal and 6 nearly" in told.text()
        entry_of(share, tmp_path / "told.zip", DIGITS)
        board = entries.load().entries
        ((raw, (one,)),) = copies.likenesses(sorted(board, key=lambda e: e.id != name)).items()
        assert one.same and {raw} != {e.digest for e in board if e.id == name}
        tickets = forger.cells(kind="ticket", schedule=1)
        for cell in tickets:
            cell["sketch"] = sketch({"w": np.arange(90) < 9})
        forged = forger.made(tmp_path / "another.zip")
        refused(forged, 2, "not the sketch of its masks", 1)
        for cell in tickets:
            cell["sketch"] = None
        forged = forger.made(tmp_path / "none.zip")
        refused(forged, 2, f"its record does not show it: same tickets as {name}", 1)


def test_a_copy_with_one_ticket_of_its_own(at_home: Shop, tmp_path: Path) -> None:
    share = furnished(at_home, tmp_path)
    with submitted.at_home(share, at_home.cache):
        name = entry_of(share, at_home.oneshot, DIGITS)
        forger = Forger.of(at_home.oneshot, DIGITS)
        forger.renamed("mine")
        another = forger.ticket(0, 0.1)
        forger.put(1, 0.1, another)
        forger.tell(1, 0.1, another)
        told = verify(str(forger.made(tmp_path / "forged.zip")), 1)
        assert told.ok and f"same tickets as {name}: 5 of 6 masks are equal" in told.text()


def furnished(at_home: Shop, tmp_path: Path) -> Path:
    """An empty board with the shop's references."""
    share = submitted.furnish(tmp_path / "home")
    places = (home / "_share" / "leaderboard" / "reference" for home in (at_home.share, share))
    shutil.copytree(*places, dirs_exist_ok=True)
    return share


def on_main(share: Path) -> None:
    """What lies there is committed, on main."""
    who = ("-c", "user.name=A", "-c", "user.email=a@example.org")
    for words in ("init --quiet --initial-branch=main", "add --all", "commit --quiet -m x"):
        subprocess.run(["git", "-C", str(share), *who, *words.split()], check=True)


def test_the_board_takes_the_report(at_home: Shop, here: None, tmp_path: Path) -> None:
    """Of an accepted entry, by the ledger's head; a report that says no attaches as a challenge."""
    share = furnished(at_home, tmp_path)
    (tmp_path / "bundles").mkdir()
    with submitted.at_home(share, at_home.cache), pytest.MonkeyPatch.context() as patch:
        patch.setenv("LTHBENCH_BUNDLES", str(tmp_path / "bundles"))
        name = entry_of(share, at_home.oneshot, DIGITS)
        on_main(share)
        shutil.copy(at_home.oneshot, tmp_path / "bundles" / f"{name}.zip")
        done = verify(name, 2, workers=0)
        done.demand()
        assert done.reports[0]["beacon"] == entries.load().ledger.head
        done.write(tmp_path / "report.json")
        accept((), verified=(tmp_path / "report.json",))
        assert entries.find(entries.load(), name).level == 2
        no = {**done.reports[0], "ok": False}
        Verified(name, 2, (), (no,)).write(tmp_path / "no.json")
        accept((), challenge=name, verified=(tmp_path / "no.json",), why="it does not hold")
        assert len(entries.find(entries.load(), name).challenges) == 1


# Drawing and judging


@functools.cache
def cells_of(seeds: int) -> tuple[sampling.Drawn, ...]:
    return tuple(sampling.candidates(synthetic_record(seeds=seeds), None))


@given(tickets=st.integers(1, 400))
def test_a_fifth_of_forged_tickets_is_hardly_ever_missed(tickets: int) -> None:
    """By the product of the chances that each draw is an honest one."""

    def missed(count: int) -> float:
        forged = math.ceil(tickets / 5)
        return math.prod((tickets - forged - n) / (tickets - n) for n in range(count))

    count = sampling.enough(tickets)
    assert 1 <= count <= tickets
    assert missed(count) <= 1e-5 + 1e-12
    assert missed(count - 1) > 1e-5 - 1e-12
    assert (sampling.enough(30), sampling.enough(40)) == (24, 28)


@given(
    seeds=st.integers(2, 5),
    least=st.integers(0, 60),
    lots=st.randoms(use_true_random=False),
    beacon=st.text("0123456789abcdef", min_size=64, max_size=64),
)
def test_drawn_cells(seeds: int, least: int, lots: random.Random, beacon: str) -> None:
    """Enough tickets, one of every seed, half as many others; no order of the record changes
    them."""
    cells = list(cells_of(seeds))
    chosen = sampling.draw(cells, "b" * 64, beacon, least)
    assert len({id(c) for c in chosen}) == len(chosen) >= min(least, len(cells))
    tickets = [cell for cell in chosen if sampling.part_of(cell.kind, cell.schedule) == 0]
    assert len(tickets) >= sampling.enough(seeds * 6)
    assert {cell.seed for cell in tickets} == set(range(seeds))
    assert len(chosen) - len(tickets) >= math.ceil(sampling.enough(seeds * 6) / 2)
    lots.shuffle(cells)
    assert sampling.draw(cells, "b" * 64, beacon, least) == chosen


def test_the_draw_depends_on_bundle_and_beacon() -> None:
    """Over many beacons every cell is drawn, and none is favoured within its kind."""
    cells = cells_of(3)
    seen: dict[int, int] = {}
    for n in range(300):
        for cell in sampling.draw(cells, "b" * 64, f"{n:064x}"):
            seen[id(cell)] = seen.get(id(cell), 0) + 1
    assert len(seen) == len(cells)
    tickets = [seen[id(c)] for c in cells if sampling.part_of(c.kind, c.schedule) == 0]
    expected = 300 * sampling.enough(len(tickets)) / len(tickets)
    assert all(abs(n - expected) < 5 * math.sqrt(300) / 2 for n in tickets)
    assert sampling.draw(cells, "b" * 64, "0" * 64) != sampling.draw(cells, "c" * 64, "0" * 64)


@given(beacon=st.text("0123456789abcdef", min_size=64, max_size=64))
def test_a_draw_that_is_said_to_have_diverged_is_drawn(beacon: str) -> None:
    """Whatever the beacon, and under a lot of its own."""
    cells = list(cells_of(3))
    at = next(n for n, cell in enumerate(cells) if cell.kind == "shuffled")
    before = FailedDraw(masks="0" * 64, weights=cells[at].weights)
    again_ = cells[at].model_copy(update={"attempt": 1, "failed_draws": (before,)})
    first, second = sampling.drawn(again_)
    assert (first.masks, first.attempt, first.status) == ("0" * 64, 0, "diverged")
    assert second is again_
    cells[at : at + 1] = [first, second]
    assert first in sampling.draw(cells, "b" * 64, beacon)
    lots = [sampling.lot("b" * 64, beacon, cell) for cell in (first, second)]
    assert lots[0] == digest(canonical_json(["b" * 64, beacon, *sampling.place(first)])) != lots[1]


def test_what_the_reference_holds_is_not_drawn() -> None:
    record = synthetic_record(seeds=5)
    frozen = build(record.model_copy(update={"reference": None}))
    kinds = {cell.kind for cell in sampling.candidates(record, frozen) if cell.schedule == 1}
    assert kinds == {"ticket", "shuffled", "reinit", "reinit-signs"}


def known(record: Record, score: float, curve: float) -> criteria.Known:
    """The same floor on every rung."""
    rungs = ((0, density) for density in record.task.ladder)
    floors = dict.fromkeys(rungs, criteria.Floors(score, curve))
    return {"test": floors}


def pairs_of(differences: Sequence[float], kind: str = "ticket") -> tuple[Record, list[Any]]:
    """Cells whose claims exceed their new trainings by so many right answers."""
    record = synthetic_record(seeds=5)
    cells = [c for c in record.cells if c.kind == kind and c.schedule == 1][: len(differences)]
    pairs = []
    for cell, difference in zip(cells, differences, strict=True):
        test = (*cell.correct["test"][:-1], cell.correct["test"][-1] - round(difference))
        pairs.append((cell, cell.model_copy(update={"correct": {**cell.correct, "test": test}})))
    return record, pairs


@pytest.mark.parametrize(
    ("differences", "ok"),
    [
        ([0] * 8, True),
        ([15] * 8, True),  # z 1.06 each, 3.0 in all
        ([20] * 8, False),  # z 1.42 each, 4.0 in all
        ([-15] * 8, True),
        ([-20] * 8, False),  # a claim that was lowered harms who made it
        ([45, -45, *[0] * 6], True),
        ([55, -55, 55, -55, *[0] * 4], False),  # their mean square: 7.6
        ([50, *[0] * 23], True),  # z 3.5
        ([90, *[0] * 23], False),  # z 6.4
    ],
)
def test_counts_beyond_their_noise(differences: list[float], ok: bool) -> None:
    """A floor of 10 examples, by hand."""
    record, pairs = pairs_of(differences)
    judged = criteria.judge(record, pairs, known(record, 10.0, 100.0))
    zs = [d / 14.1 for d in differences]
    assert [row.z["test"] for row in judged.cells] == pytest.approx(zs)
    assert [row.equal for row in judged.cells] == [d == 0 for d in differences]
    table = np.array([[[z, np.nan] for z in zs]])
    found = criteria.statistics_of(table, np.zeros(len(zs), dtype=int))[:, 0]
    mean = sum(z * z for z in zs) / len(zs)
    expected = [max(map(abs, zs)), abs(sum(zs)) / math.sqrt(len(zs)), mean, 0, 0, 0, 0]
    assert found == pytest.approx(expected)
    assert judged.ok is ok


def rows_of(count: int, rung: criteria.Rung | None) -> list[criteria.Again]:
    """So many tickets of one rung, as claimed, on the test split alone."""
    return [
        criteria.Again("ticket", 0.5, seed, 1, 0, 0, "ok", {}, True, {"test": 0.0}, {}, rung)
        for seed in range(count)
    ]


@pytest.mark.parametrize("count", [6, 20])
def test_limits_are_what_honest_records_hardly_exceed(count: int) -> None:
    """Where no floor is estimated: a normal sum, a mean of squares, a largest of so many."""
    from scipy.stats import chi2, norm

    exact = criteria.limits(rows_of(count, None))
    one = 1 - (1 - criteria.BEYOND) ** (1 / count)
    expected = [
        norm.isf(one / 2), norm.isf(criteria.BEYOND / 2), chi2.isf(criteria.BEYOND, count) / count
    ]  # fmt: skip
    assert exact[:3] == pytest.approx(expected, rel=0.06)
    assert list(exact[3:]) == [0, 0, 0, 0]
    assert all(criteria.limits(rows_of(count, (0, 0.5)))[:3] > exact[:3] * 1.05)
    assert list(criteria.limits(rows_of(count, None))) == list(exact)


@pytest.mark.parametrize(
    ("tickets", "controls", "ok"),
    [
        (0, 0, True),
        (16, 0, False),  # the tickets' own sum: z 1.13 each, 3.9 over twelve
        (16, -20, False),  # controls that were made worse do not pay for them
        (0, -30, False),  # nor are they made worse for the gap's sake: z -2.1 each, -4.3
        (0, 30, False),
        (0, -18, True),
    ],
)
def test_controls_do_not_pay_for_tickets(tickets: int, controls: int, ok: bool) -> None:
    record, pairs = pairs_of([tickets] * 12)
    pairs += pairs_of([controls] * 4, "random")[1]
    assert criteria.judge(record, pairs, known(record, 10.0, 100.0)).ok is ok


@pytest.mark.parametrize(("at", "by", "ok"), [(3, 370, True), (3, 390, False), (-1, 30, True)])
def test_a_curve_that_was_bent(at: int, by: int, ok: bool) -> None:
    """In its middle, where no score of the record looks: 390 / sqrt(20) over 14.1 is 6.2."""
    record, pairs = pairs_of([0] * 8)
    claimed, new = pairs[0]
    counts = list(new.correct["test"])
    assert len(counts) == 20
    counts[at] += by if counts[at] < 5000 else -by
    pairs[0] = claimed, new.model_copy(update={"correct": {**new.correct, "test": tuple(counts)}})
    judged = criteria.judge(record, pairs, known(record, 10.0, 10.0))
    assert judged.cells[0].bend["test"] == pytest.approx(by / math.sqrt(20) / 14.1)
    assert judged.ok is ok


def test_held_out_counts_are_compared_too() -> None:
    record, pairs = pairs_of([0] * 8)
    claimed, new = pairs[0]
    held = (*new.correct["held_out"][:-1], new.correct["held_out"][-1] - 110)
    pairs[0] = claimed, new.model_copy(update={"correct": {**new.correct, "held_out": held}})
    floors = known(record, 10.0, 100.0)
    assert criteria.judge(record, pairs, floors).ok
    assert not criteria.judge(record, pairs, {**floors, "held_out": floors["test"]}).ok


@pytest.mark.parametrize(
    ("claimed", "new", "why"),
    [
        ("ok", "diverged", "trained again it is diverged"),
        ("diverged", "ok", "it is sound, where the record says diverged"),
        ("diverged", "diverged", ""),
    ],
)
def test_how_a_run_ended_is_compared(claimed: Any, new: Any, why: str) -> None:
    """A control that is said to have diverged would be drawn again until it suits."""
    record, pairs = pairs_of([0] * 8)
    pairs += pairs_of([0] * 2, "shuffled")[1]
    first, second = pairs[-1]
    pairs[-1] = (
        first.model_copy(update={"status": claimed}), second.model_copy(update={"status": new})
    )  # fmt: skip
    judged = criteria.judge(record, pairs, known(record, 10.0, 100.0))
    assert judged.ok is (not why) and why in judged.what


def test_nothing_to_judge_is_refused() -> None:
    assert not criteria.judge(synthetic_record(), [], {}).ok
    assert not criteria.judge(*pairs_of([0] * 8, "random"), {}).ok


def with_area(record: Record, cell: Cell, points: float) -> Cell:
    """The cell with counts that move its area by so many points, to the nearest example."""
    weights = metrics._log_step_weights(grid(record.task.every, record.task.steps))
    counts, size = list(cell.correct["test"]), record.sizes["0"]["test"]
    order = sorted(range(len(counts)), key=lambda at: -weights[at])
    left = points / 100 * size
    for at in order:
        step = max(-counts[at], min(size - counts[at], int(left / weights[at])))
        counts[at] += step
        left -= step * weights[at]
    return cell.model_copy(update={"correct": {**cell.correct, "test": tuple(counts)}})


@pytest.mark.parametrize(
    ("kind", "moved", "ok"),
    [
        ("ticket", 0.0, True),
        ("ticket", -0.33, True),  # a z of 1.2 each, 3.3 of eight
        ("ticket", -0.4, False),
        ("ticket", 0.4, False),
        ("random", 0.33, True),
        ("random", 0.4, False),
        ("random", -0.4, False),
    ],
)
def test_areas_are_compared_in_points_of_noise(kind: str, moved: float, ok: bool) -> None:
    """Eight cells, each moved by so many points, where noise alone moves one by .2 (s.d.)."""
    record = synthetic_record(kind="area", seeds=5)
    some = [c for c in record.cells if c.kind == kind][:8]
    pairs = [(cell, with_area(record, cell, moved)) for cell in some]
    if kind != "ticket":
        pairs += [(c, c) for c in record.cells if c.kind == "ticket"][:1]
    judged = criteria.judge(record, pairs, known(record, 0.2, 1000.0))
    for (cell, after), row in zip(pairs[:8], judged.cells, strict=False):
        table = record.model_dump(mode="json")
        areas = [100 * score_of(table, c.model_dump()) for c in (cell, after)]
        assert row.z["test"] == pytest.approx((areas[0] - areas[1]) / (1.41 * 0.2))
    assert judged.ok is ok


@pytest.mark.parametrize(
    ("kind", "density", "score"),
    [
        ("ticket", 0.5, 4.0),
        ("erk", 0.8, 4.0),
        ("ticket", 0.33, 4.0),  # of the nearest rung by ratio
        ("ticket", 0.3, 8.0),
        ("reinit", 0.1, 1.0),  # one example at least
        ("untrained", 0.5, 1.0),  # and one where nothing is trained
    ],
)
def test_floors(kind: Any, density: float, score: float) -> None:
    record = synthetic_record(seeds=5)
    rungs = ((0.5, 4.0), (0.2, 8.0), (0.1, 0.5))
    floors = {(0, density): criteria.Floors(f, f) for density, f in rungs}
    cell = record.cells[0].model_copy(update={"kind": kind, "density": density})
    assert criteria._floor(record, cell, floors, "test")[0] == criteria.Floors(score, score)


def test_of_an_area_an_example_is_less() -> None:
    record = synthetic_record(kind="area", seeds=5)
    size = record.sizes["0"]["test"]
    floors = {(0, 0.5): criteria.Floors(0.01, 0.5)}
    found, rung = criteria._floor(record, record.cells[0], floors, "test")
    assert found == criteria.Floors(pytest.approx(100 / size), 1.0)  # type: ignore[arg-type]
    assert rung is None


def test_environments_that_give_the_same_bits() -> None:
    one = {name: "x" for name in criteria.SAME_BITS} | {"lthbench": "1"}
    assert criteria.alike(one, one | {"lthbench": "2", "python": "3.12"})
    for name in criteria.SAME_BITS:
        assert not criteria.alike(one, one | {name: "y"})
        assert not criteria.alike({k: v for k, v in one.items() if k != name}, one)


@pytest.mark.parametrize(("more", "ok"), [(0, True), (1, True), (3, False), (-3, False)])
def test_carried_tickets_are_judged_apart(more: int, ok: bool) -> None:
    """A floor of 2 examples at the targets, where claims lie so many above new trainings."""
    share, record = submitted.carried()
    with submitted.at_home(share, share.parent / "cache"):
        floors = criteria.floors(load_task(MODADD), load_reference(load_task(MODADD)))
    moved = [c for c in sampling.candidates(record, None) if c.kind == sampling.CARRIED][:8]
    assert {sampling.place(cell)[-2] for cell in moved} == {1, 3}
    pairs: list[Any] = [(c, c) for c in record.cells if c.kind == "ticket"][:8]
    for cell in moved:
        counts = tuple(count + abs(more) for count in cell.correct["test"])
        higher = cell.model_copy(update={"correct": {**cell.correct, "test": counts}})
        pairs.append((higher, cell) if more > 0 else (cell, higher))
    judged = criteria.judge(record, pairs, floors)
    assert judged.ok is ok and "carried" in judged.what
    assert [row.equal for row in judged.cells] == [True] * 8 + [not more] * 8


def test_floors_are_wanted_wherever_a_reference_has_runs() -> None:
    share, _ = submitted.carried()
    with submitted.at_home(share, share.parent / "cache"):
        task = load_task(MODADD)
        known = load_reference(task)
    assert known is not None and known.noise_at is not None
    one = known.model_copy(update={"noise_at": {"1": known.noise_at["1"]}})
    with pytest.raises(RecordError, match=r"tiny-modadd, depth 3: .* no noise floor"):
        criteria.floors(task, one)


def test_without_a_floor_level_two_does_not_begin(at_home: Shop, monkeypatch: Any) -> None:
    from lthbench.records import reference

    known = load_reference(load_task(DIGITS))
    assert known is not None
    bare = known.model_copy(update={"noise": None})
    # Level 0 keeps the true one, also where its module is first imported by this test.
    monkeypatch.setattr(bundle_rules, "load_reference", load_reference)
    monkeypatch.setattr(reference, "load_reference", lambda task: bare)
    monkeypatch.setattr(retrain, "trained_again", None)
    with pytest.raises(RecordError, match=r"no noise floor; .* lthbench dev noise") as caught:
        verify(str(at_home.oneshot), 2)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_the_fresh_process_reads_no_stored_result(at_home: Shop, tmp_path: Path) -> None:
    """Nothing of this machine's cache but the data: every result there is spoilt first."""
    spoilt = tmp_path / "cache"
    shutil.copytree(at_home.cache, spoilt)
    stored = list((spoilt / "cells").rglob("*.safetensors"))
    assert stored
    for path in stored:
        path.write_bytes(b"spoilt")
    bundle = archive.read(at_home.oneshot)
    record = archive.record(bundle, DIGITS)
    cells = [c for c in record.cells if c.kind in ("random", "erk") and c.seed == 0][:2]
    told: list[str] = []
    with submitted.at_home(at_home.share, spoilt):
        now = retrain.trained_again(bundle, load_task(DIGITS), cells, 0, told.append)
    assert told == [f"{DIGITS}: {n} of 2 cells trained again" for n in (1, 2)]
    assert [cell.correct["test"] for cell in now] == [cell.correct["test"] for cell in cells]
    assert sorted((spoilt / "cells").rglob("*.safetensors")) == sorted(stored)


@pytest.mark.slow
def test_a_training_that_fails_is_told_in_one_line(
    at_home: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "copy.zip"
    shutil.copy(at_home.oneshot, copy)
    bundle = replace(archive.read(copy), sha256="0" * 64)
    cells = sampling.candidates(archive.record(bundle, DIGITS), None)[:1]
    with pytest.raises(ResourceError, match="changed while it was verified") as caught:
        retrain.trained_again(bundle, load_task(DIGITS), cells, 0)
    assert "\n" not in str(caught.value)


# What cannot be meant


@pytest.mark.parametrize(
    ("given_", "options"),
    [
        ("--level 4", {"level": 4}),
        ("--level -1", {"level": -1}),
        ("--cells -1: 0 or more", {"cells": -1}),
        ("--workers -1: 0 or more", {"workers": -1}),
        ("--beacon", {"beacon": "now"}),
        ("--task mnist", {"tasks": ("mnist",)}),
    ],
)
def test_what_cannot_be_meant(given_: str, options: dict[str, Any], at_home: Shop) -> None:
    with pytest.raises(UsageError, match=given_):
        verify(str(at_home.oneshot), **{"level": 1, **options})


def test_an_entry_that_is_not_there(at_home: Shop) -> None:
    with pytest.raises(RecordError, match="no entry"):
        verify("nobody--12345678", 0)
    with pytest.raises(UsageError, match="no such file"):
        verify("nobody/bundle.zip", 0)


def test_level_zero_needs_no_bundle_and_says_so(
    at_home: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LTHBENCH_BUNDLES", raising=False)
    share = furnished(at_home, tmp_path)
    with submitted.at_home(share, at_home.cache):
        name = entry_of(share, at_home.oneshot, DIGITS)
        done = verify(name, 0)
        assert done.ok
        assert [finding.ok for finding in done.findings] == [True, None]
        assert "its bundle was not looked at" in done.findings[1].what
        with pytest.raises(RecordError, match="no bundle"):
            verify(name, 1)


def test_text_of_a_stranger_is_shown_plain() -> None:
    """A record's text can neither break a line nor turn it round."""
    finding = Finding(DIGITS, 1, False, "a\nb \u202e<script>")
    done = Verified("x\u202e.zip", 1, (finding,), ())
    assert len(done.text().splitlines()) == 2
    assert "\u202e" not in done.text()
    with pytest.raises(CheckFailed) as caught:
        done.demand()
    assert "\u202e" not in str(caught.value)


# Level 3


def test_fresh_seeds() -> None:
    seeds = reproduction.fresh_seeds("b" * 64, BEACON)
    assert len(set(seeds)) == 3
    assert min(seeds) >= 10**6
    assert seeds == reproduction.fresh_seeds("b" * 64, BEACON)
    assert not set(seeds) & set(reproduction.fresh_seeds("b" * 64, "6" * 64))


@functools.cache
def published() -> tuple[Record, Reference]:
    """A record of five seeds, and a reference whose seeds differ by a tenth in retention."""
    record = synthetic_record(seeds=5)
    reference = build(record.model_copy(update={"reference": None}))
    values = reference.values["test"]
    losses = (9.0, 10.0, 11.0)  # s.d. 1 of a mean of 10
    values = values.model_copy(update={"loss_imp": (1.0, 1.1, 1.2), "loss_random": losses})
    return record, reference.model_copy(update={"values": {**reference.values, "test": values}})


def again_of(record: Record, **changes: Any) -> list[reproduction.Repeated]:
    """Two published seeds that came out as they were, but for what is changed of the first."""
    claimed = reproduction.score_of(record, record)
    assert claimed is not None
    rows = [
        reproduction.Repeated(seed, record.searches[seed].cost, True, 1.0, 0.2, claimed[0][seed])
        for seed in (1, 3)
    ]
    return [replace(rows[0], **changes), rows[1]]


@pytest.mark.parametrize(
    ("fresh", "ok"),
    [
        (0.0, True),
        (0.3, True),  # better: no optimism
        (-0.2, True),  # three standard errors: .3 times the root of 1/5 + 1/3, .219
        (-0.23, False),
    ],
)
def test_optimism(fresh: float, ok: bool) -> None:
    record, reference = published()
    claimed = reproduction.score_of(record, record)
    assert claimed is not None and claimed[1] == "retention"
    assert reproduction.spread_of(record, reference) == pytest.approx(0.1)
    mean = sum(claimed[0]) / 5
    scores = [mean + fresh + shift for shift in (-5.0, 0.0, 5.0)]  # its own spread widens nothing
    done = reproduction.judge(record, reference, scores, (7, 8, 9), again_of(record))
    assert done.optimism == pytest.approx(-fresh)
    assert done.ok is ok
    assert "2 of 2 published seeds searched again end in the same tickets" in done.what


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"cost": 1.0}, ""),
        ({"cost": 99.0}, "seed 1 costs 99.00 dense trainings, not "),
        ({"equal": False, "own": 0.5, "others": 0.3}, ""),
        ({"equal": False, "own": 0.3, "others": 0.3}, "of seed 1 are those of seed 1 no more than"),
        ({"score": -9.0}, "published seeds searched again score "),
        ({"score": 9.0}, ""),
    ],
)
def test_a_published_seed_that_is_searched_again(changes: dict[str, Any], why: str) -> None:
    record, reference = published()
    claimed = reproduction.score_of(record, record)
    assert claimed is not None
    rows = again_of(record, **changes)
    done = reproduction.judge(record, reference, claimed[0][:3], (7, 8, 9), rows)
    assert done.ok is (not why) and why in done.what


def test_seeds_that_are_searched_again_are_drawn() -> None:
    seen = {reproduction.repeated_seeds(range(5), "b" * 64, f"{n:064x}") for n in range(60)}
    assert len(seen) == 10  # all pairs
    assert all(first < second for first, second in seen)
    assert reproduction.repeated_seeds([4], "b" * 64, BEACON) == (4,)


def test_level_three_does_not_begin_without_a_sandbox(
    at_home: Shop, here: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox.shutil, "which", lambda name: None)
    with pytest.raises(ResourceError, match="install bubblewrap"):
        verify(str(at_home.oneshot), 3, beacon=BEACON, workers=0)


@needs_sandbox
@pytest.mark.slow
@pytest.mark.parametrize("score", ["points above erk", "accuracy at density"])
def test_an_honest_search_is_reproduced(score: str, at_home: Shop) -> None:
    """Both figures are told; untrained tickets by their accuracy. The fresh seeds are fixed here:
    two standard errors of a few seeds refuse one honest entry in twenty or so."""
    assert not CANNOT
    bundle = archive.read(at_home.oneshot if score == "points above erk" else at_home.standing)
    bundle = replace(bundle, sha256="b" * 64)
    record, task = archive.record(bundle, DIGITS), load_task(DIGITS)
    finding, done = reproduce.check(Claim(bundle, task, record, load_reference(task)), BEACON, 2)
    assert finding.ok is True, finding.what
    assert score in finding.what
    assert "optimism" in finding.what
    assert (len(done.published), len(done.fresh)) == (2, 3)


@needs_sandbox
@pytest.mark.slow
def test_level_three_holds_the_ones_below(at_home: Shop, here: None) -> None:
    assert not CANNOT
    done = verify(str(at_home.oneshot), 3, beacon=BEACON, workers=0)
    assert [f.level for f in done.findings] == [0, 1, 1, 1, 1, 1, 2, 3]
    (report,) = done.reports
    assert len(report["cells"]) == 12
    assert [row["equal"] for row in report["reproduced"]["repeated"]] == [True, True]
    assert report["reproduced"]["seeds"] == reproduction.fresh_seeds(report["bundle"], BEACON)
    assert report["ok"] is report["reproduced"]["ok"]


@needs_sandbox
@pytest.mark.slow
def test_a_search_that_knew_its_seeds(
    at_home: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It searches at the published seeds and gives up at others: no level below can see that."""
    assert not CANNOT
    # A bundle holds its search's times, so that each run of this test would draw other seeds.
    seeds = reproduction.fresh_seeds("b" * 64, BEACON)
    monkeypatch.setattr(reproduce, "fresh_seeds", lambda bundle, beacon: seeds)
    task = load_task(DIGITS)
    known = load_reference(task)
    assert known is not None
    # The shop's reference has two seeds, too few to tell how far seeds lie apart: two points here.
    near = {"loss_imp": (8.0, 10.0, 12.0), "loss_random": (18.0, 20.0, 22.0)}
    values = known.values["test"].model_copy(update=near)
    known = known.model_copy(update={"values": {**known.values, "test": values}})
    firsts = [first_weight(families.initial(task.network, 1, seed)) for seed in (0, 1)]
    source = KNOWING.replace("KNOWN", repr(firsts))
    out = submitted.finished(tmp_path / "knowing", source, tasks=(DIGITS,))
    (tmp_path / "knowing.zip").write_bytes(pack(out, submitted.records_of(out)))
    bundle = archive.read(tmp_path / "knowing.zip")
    record = archive.record(bundle, DIGITS)
    assert verify(str(bundle.path), 1).ok
    finding, done = reproduce.check(Claim(bundle, task, record, known), BEACON, 0)
    assert finding.ok is False and "fresh seeds score less" in finding.what
    assert all(one.equal for one in done.repeated)  # published seeds alone would tell nothing


@needs_sandbox
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("reads_shadow", "/etc/shadow"),
        ("sends_nonsense", "no method's call makes"),
        ("sleeps", "own time"),
    ],
)
def test_a_hostile_search_is_refused(name: str, why: str, at_home: Shop, tmp_path: Path) -> None:
    """By level 3 itself, in a line and without a traceback."""
    assert not CANNOT
    bundle = archive.read(at_home.oneshot)
    record, task = archive.record(bundle, DIGITS), load_task(DIGITS)
    source = (submitted.ROOT / "tests" / "hostile" / f"{name}.py").read_bytes()
    said = declared(source.decode(), f"{name}.py")
    options = {**said.options, **({"op": "train"} if name == "sends_nonsense" else {})}
    told = {"digest": digest(source), "options": options, "described": dict(said.described)}
    own = said.described.get("name", record.method.name)
    method = record.method.model_copy(update={**told, "name": own})
    bundle = replace(bundle, members={**bundle.members, archive.SOURCE: memoryview(source)})
    finding, done = reproduce.check(
        Claim(bundle, task, record.model_copy(update={"method": method}), load_reference(task)),
        BEACON,
        0,
        bounds=Bounds(memory=2**30),
        seconds=15.0 if name == "sleeps" else 120.0,
    )
    assert finding.ok is False
    assert why in finding.what
    assert "\n" not in finding.what
    assert done.fresh == ()


@needs_sandbox
@pytest.mark.slow
def test_a_search_that_trains_on_kept_batches_is_told_at_level_three(
    at_home: Shop, tmp_path: Path
) -> None:
    """By the sandbox's own measure, whatever the record says of the process that it ran in."""
    assert not CANNOT
    source = (submitted.ROOT / "tests" / "hostile" / "trains_on_kept_batches.py").read_text()
    out = submitted.finished(tmp_path / "kept", source, tasks=(DIGITS,))
    (tmp_path / "kept.zip").write_bytes(pack(out, submitted.records_of(out)))
    bundle = archive.read(tmp_path / "kept.zip")
    record, task = archive.record(bundle, DIGITS), load_task(DIGITS)
    innocent = [s.model_copy(update={"own": None}) for s in record.searches]
    claimed = record.model_copy(update={"searches": tuple(innocent)})
    finding, done = reproduce.check(Claim(bundle, task, claimed, load_reference(task)), BEACON, 0)
    assert len(done.unmetered) == 5, finding.what
    assert all(one in finding.what for one in done.unmetered)


def first_weight(state: Any) -> float:
    return float(state["head.weight"].reshape(-1)[0])
