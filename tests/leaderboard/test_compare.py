"""analysis.compare: pairs by seed, what is never compared, and how far masks overlap."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from lthbench.errors import RecordError
from lthbench.io.paths import canonical_json
from lthbench.leaderboard.analysis import compare as comparing
from lthbench.leaderboard.analysis.compare import Comparison, Side, compare, of, side
from lthbench.leaderboard.board import entries, ranks
from lthbench.leaderboard.board.entries import Board
from lthbench.records import intervals
from lthbench.records.schema import Record, build, record_digest, write_record
from lthbench.report.terminal import WIDTH
from tests import accepted, submitted
from tests.boards import LITE, Method, board_record, synthetic_board
from tests.submitted import DIGITS, MODADD, at_home, house
from tests.synthetic import synthetic_record

pytestmark = pytest.mark.usefixtures("small_lite")

ACCURACY = "lenet300-mnist"
AREA = "mlp-modadd59"


@cache
def record(number: int, task: str = ACCURACY, **changes: Any) -> Record:
    return board_record(task, number, **changes)


def pair(a: Record, b: Record) -> Comparison:
    return of(Side("a", {a.task.name: a}), Side("b", {b.task.name: b}))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic_board(tmp_path_factory.mktemp("board"), 6)


@pytest.fixture
def board(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Board:
    found = entries.load(folder)
    monkeypatch.setattr(entries, "load", lambda: found)
    return found


@pytest.fixture
def home() -> Iterator[submitted.House]:
    """Two finished evaluations of one source under two names, and the bundle of one."""
    with at_home(house().share, house().cache):
        yield house()


# Figures


def test_rungs_are_compared_seed_by_seed() -> None:
    a, b = record(1), record(2)
    (found,) = pair(a, b).tasks
    assert found.seeds == (0, 1, 2, 3, 4) and found.measure == "accuracy"
    for rung, one, other in zip(
        found.rungs, a.aggregates["rungs"], b.aggregates["rungs"], strict=True
    ):
        assert rung.density == one["density"]
        wanted = [
            x - y for x, y in zip(one["ticket"]["values"], other["ticket"]["values"], strict=True)
        ]
        assert rung.values == pytest.approx(wanted)
        told = intervals.t_interval(wanted)
        assert rung.a == pytest.approx(one["ticket"]["mean"])
        assert rung.b == pytest.approx(other["ticket"]["mean"])
        assert rung.difference.mean == pytest.approx(told.mean)
        assert rung.difference.low == pytest.approx(told.low)


def test_retention_matching_and_cost_are_those_of_the_records() -> None:
    a, b = record(1), record(2)
    (found,) = pair(a, b).tasks
    assert found.what == "retention" and found.headline and found.counts
    assert found.headline[0].mean == pytest.approx(a.aggregates["retention"]["mean"])
    assert found.headline[1].low == pytest.approx(b.aggregates["retention"]["low"])
    apart = [
        x - y
        for x, y in zip(
            a.aggregates["retention"]["values"], b.aggregates["retention"]["values"], strict=True
        )
    ]
    assert found.values == pytest.approx(apart)
    assert found.headline[2].mean == pytest.approx(sum(apart) / 5)
    assert found.matching[0].proved == a.aggregates["matching"]["proved"]
    assert found.cost == (a.aggregates["cost"]["mean"], b.aggregates["cost"]["mean"])
    assert found.division == ("init", "rewind")
    assert "Division: A at initialisation, B early weights." in pair(a, b).text()


def test_turned_around_every_difference_changes_its_sign() -> None:
    one, other = pair(record(1), record(2)), pair(record(2), record(1))
    for here, there in zip(one.tasks[0].rungs, other.tasks[0].rungs, strict=True):
        assert here.values == tuple(-value for value in there.values)
    assert one.tasks[0].p == other.tasks[0].p


def test_under_eight_seeds_there_is_no_p() -> None:
    found = pair(record(1), record(2))
    assert found.tasks[0].p is None and found.p is None
    assert "too few" in found.text() and "p is two-sided" in found.text()


def test_from_eight_seeds_on_p_is_by_sign_flips() -> None:
    a, b = (synthetic_record(draw, seeds=10, name=name) for draw, name in ((1, "x"), (2, "y")))
    b = build({**b.model_dump(mode="json"), "reference": a.model_dump(mode="json")["reference"]})
    (found,) = pair(a, b).tasks
    values = [r.aggregates["retention"]["values"] for r in (a, b)]
    assert found.p == ranks.sign_flips([values[0]], [values[1]])
    assert found.p is not None and found.p * 2**9 == round(found.p * 2**9)
    assert pair(a, a).tasks[0].p == 1


def test_a_suite_is_compared_over_its_shared_tasks() -> None:
    """15 units: three tasks of five seeds; tasks that may not be ranked do not count."""
    sides = [Side(str(n), {task: record(n, task) for task in LITE}) for n in (1, 6)]
    found = of(*sides)
    values = [task.values for task in found.tasks]
    assert found.difference == intervals.suite_interval(values)
    assert found.p == ranks.sign_flips(values, [[0.0] * 5] * 3)
    assert f"Mean retention over {', '.join(sorted(LITE))}" in " ".join(found.text().split())
    unranked = dict(sides[0].records)
    weak = unranked[ACCURACY]
    lost = {**weak.aggregates, "retention": None}
    unranked[ACCURACY] = weak.model_copy(update={"aggregates": lost})
    fewer = of(Side("1", unranked), sides[1])
    assert fewer.difference == intervals.suite_interval(
        [task.values for task in found.tasks if task.task != ACCURACY]
    )


def test_seeds_that_one_lacks_are_left_out() -> None:
    """Both are paired on what they share, here three of five."""
    (found,) = pair(record(1), record(2, seeds=3)).tasks
    assert found.seeds == (0, 1, 2)
    assert [len(rung.values) for rung in found.rungs] == [3] * 6


def test_areas_are_told_as_points() -> None:
    found = pair(record(0, AREA), record(1, AREA))
    (task,) = found.tasks
    assert task.measure == "area" and "area, %" in found.text()
    values = [
        r.aggregates["rungs"][0]["ticket"]["values"] for r in (record(0, AREA), record(1, AREA))
    ]
    assert task.rungs[0].values == pytest.approx([a - b for a, b in zip(*values, strict=True)])


def test_where_there_is_no_retention_points_above_erk_are_compared() -> None:
    """The word does not occur, and a suite's mean leaves the task out."""
    one, other = (weak(record(n)) for n in (1, 2))
    found = pair(one, other)
    (task,) = found.tasks
    values = [r.aggregates["above_erk"]["values"] for r in (one, other)]
    assert task.what == "above erk" and not task.counts
    assert task.values == pytest.approx([a - b for a, b in zip(*values, strict=True)])
    assert "above erk, points" in found.text() and "etention" not in found.text()


def weak(record: Record) -> Record:
    """The same against a reference whose random tickets lose too little to divide by."""
    table = record.model_dump(mode="json")
    table["reference"]["loss_random"] = [0.5, 0.7, 0.6]
    return build(table)


def test_untrained_tickets_are_compared_as_they_stand() -> None:
    method = Method("supermask", "init", True, 2.0, 5.0, 2)
    (found,) = pair(record(3), board_record(ACCURACY, 9, method=method)).tasks
    assert found.what == "accuracy" and found.headline and not found.counts
    told = record(3).aggregates["untrained"]
    means = [r["ticket"]["mean"] for r in told["rungs"]]
    assert [rung.a for rung in found.rungs] == pytest.approx(means)
    best = next(r for r in told["rungs"] if r["density"] == told["headline"])
    assert found.headline[0].mean == pytest.approx(best["ticket"]["mean"])


def test_trained_and_untrained_ones_share_few_rungs_and_no_score() -> None:
    found = pair(record(1), record(3))
    (task,) = found.tasks
    assert [rung.density for rung in task.rungs] == [0.512, 0.2097152]
    assert task.headline is None and task.p is None
    assert "the tickets of b are untrained: compared as trained afterwards" in found.text()


# What is not comparable


def test_two_versions_of_a_protocol_are_refused() -> None:
    a, b = record(1), record(2)
    task = b.task.model_copy(update={"version": 2, "digest": "0" * 64})
    with pytest.raises(RecordError, match=r"b of version 2 .* two protocols are never compared"):
        pair(a, b.model_copy(update={"task": task}))


def test_records_without_a_common_task_are_refused() -> None:
    with pytest.raises(RecordError, match="no task that both have"):
        pair(record(1), record(1, AREA))


def test_development_and_final_records_are_refused() -> None:
    final, other = synthetic_record(1), synthetic_record(1, final=False)
    with pytest.raises(RecordError, match="compare two development runs or two final ones"):
        pair(final, other)


def test_another_reference_is_told_and_no_retention_compared() -> None:
    a, b = record(1), record(2)
    assert b.reference is not None
    other = b.reference.model_copy(update={"digest": "9" * 64})
    found = pair(a, b.model_copy(update={"reference": other}))
    assert found.tasks[0].headline is None and found.tasks[0].rungs
    assert "different references" in found.text() and "no headline compared" in " ".join(
        found.text().split()
    )


def test_what_else_differs_is_told() -> None:
    a, b = record(1), record(2)
    other = {**b.environment, "torch": "9.9", "device": "cuda"}
    warnings = pair(a, b.model_copy(update={"environment": other})).tasks[0].warnings
    assert warnings == (f"torch: {a.environment['torch']} and 9.9", "device: cpu and cuda")
    method = a.method.model_copy(update={"options": {"rate": 0.1, "more": True}})
    (told,) = pair(a, a.model_copy(update={"method": method})).tasks[0].warnings
    assert told == "one source with other options: more unset and True, rate 0.2 and 0.1"


# What the arguments name


def test_entries_by_their_names(board: Board) -> None:
    """An id, eight digits, a path, and the name of a whole method."""
    entry = next(e for e in board.entries if e.record.method.name == "imp")
    for name in (entry.id, entry.digest[:8], entry.file):
        assert side(name).records == {entry.record.task.name: entry.record}
        assert side(name).name == entry.id
    whole = side(f"imp--{entry.record.method.digest[:8]}")
    assert sorted(whole.records) == sorted(LITE)
    assert compare(entry.id, whole.name).tasks[0].task == entry.record.task.name
    with pytest.raises(RecordError, match="no entry 'imq'"):
        side("imq")


def test_a_records_file_is_known_again_as_an_entry(
    folder: Path, board: Board, tmp_path: Path
) -> None:
    entry = board.entries[0]
    assert side(str(folder / entry.file)).name == entry.id
    stranger = record(5)
    path = tmp_path / "stranger.json"
    write_record(path, stranger)
    assert side(str(path)).name == f"sign_only-0005--{record_digest(stranger)[:8]}"
    path.write_bytes(path.read_bytes().replace(b'"mean":', b'"mean":1', 1))
    with pytest.raises(RecordError):
        side(str(path))


@pytest.mark.slow
def test_an_evaluations_folder_and_its_bundle_have_masks(home: submitted.House) -> None:
    """The tickets are the same here: they overlap as far as their counts allow."""
    first = home.out.parent / "first"
    for other in (str(first), str(home.bundle)):
        found = compare(str(home.out), other)
        assert [task.task for task in found.tasks] == [DIGITS, MODADD]
        for task in found.tasks:
            assert task.overlap == ""
            assert {rung.overlap and round(rung.overlap.mean, 9) for rung in task.rungs} == {1.0}
            assert all(rung.difference.mean == 0 for rung in task.rungs)
    alone = compare(str(home.out / DIGITS / "record.json"), str(home.bundle))
    assert [task.task for task in alone.tasks] == [DIGITS]
    assert alone.tasks[0].overlap == "" and set(alone.alone) == {MODADD}


def test_random_masks_overlap_as_chance_would_have_it() -> None:
    """Excess around 0, one value a seed; a rung that one search missed has none."""
    import torch

    a, b = record(1), record(2)

    def masks(shift: int) -> Any:
        def read(seed: int, density: float) -> dict[str, Any]:
            lots = torch.Generator().manual_seed(1000 * shift + seed)
            return {"weight": torch.rand((200, 300), generator=lots) < density}

        return read

    found = of(
        Side("a", {ACCURACY: a}, {ACCURACY: masks(1)}),
        Side("b", {ACCURACY: b}, {ACCURACY: masks(2)}),
    ).tasks[0]
    assert all(rung.overlap and rung.overlap.n == 5 for rung in found.rungs)
    assert all(rung.overlap and abs(rung.overlap.mean) < 0.05 for rung in found.rungs)
    same = of(*(Side("a", {ACCURACY: r}, {ACCURACY: masks(1)}) for r in (a, b))).tasks[0]
    assert all(rung.overlap and rung.overlap.mean == pytest.approx(1) for rung in same.rungs)


def test_masks_that_are_not_at_hand_are_said_to_be_missing(board: Board) -> None:
    first, second = (entry.id for entry in board.entries[:2])
    found = compare(first, second)
    assert found.tasks[0].overlap == comparing.NO_MASKS
    assert "Overlap: masks not at hand (set LTHBENCH_BUNDLES)." in found.text()


@pytest.mark.slow
def test_an_entrys_bundle_is_found_but_never_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only what lies here already: an address in a record is left alone."""
    from lthbench.leaderboard.downloads import fetch

    def never(*_: object) -> bytes:
        raise AssertionError("nothing is downloaded for a comparison")

    monkeypatch.setattr(fetch, "download", never)
    with accepted.board(tmp_path) as share:
        name = accepted.entry_of(share, house().bundle, DIGITS, urls=("https://example.org/b.zip",))
        monkeypatch.delenv("LTHBENCH_BUNDLES", raising=False)
        assert not side(name).masks
        monkeypatch.setenv("LTHBENCH_BUNDLES", str(house().bundle.parent))
        found = compare(name, str(house().out))
        assert found.tasks[0].overlap == ""
        assert found.tasks[0].rungs[0].overlap and found.tasks[0].rungs[0].overlap.mean == 1


@pytest.mark.slow
def test_a_ticket_that_is_not_the_records_is_refused(home: submitted.House, tmp_path: Path) -> None:
    import shutil

    out = tmp_path / "out"
    shutil.copytree(home.out, out)
    tickets = out / DIGITS / "tickets"
    rung = sorted(path.name for path in (tickets / "seed0").glob("0*.safetensors"))[0]
    shutil.copy(tickets / "seed1" / rung, tickets / "seed0" / rung)
    with pytest.raises(RecordError, match="is not the record's"):
        compare(str(out), str(home.bundle))


# Text


def test_the_text_says_first_what_differs(board: Board) -> None:
    first, second = sorted({e.record.method.digest[:8]: e for e in board.entries}.values(),
                           key=lambda e: e.id)[:2]  # fmt: skip
    a, b = (f"{e.record.method.name}--{e.record.method.digest[:8]}" for e in (first, second))
    said = compare(a, b).text()
    lines = said.splitlines()
    assert lines[0] == f"{a} (A) against {b} (B): A - B, paired by seed"
    assert lines[2].startswith("Mean retention over ")
    assert max(map(len, lines)) <= WIDTH
    places = [said.index(f"{name}, seeds 0 to 4, test split") for name in sorted(LITE)]
    assert all(x < y for x, y in pairwise(places))


def test_json_is_the_whole_comparison() -> None:
    found = pair(record(1), record(2))
    table = json.loads(found.json())
    assert canonical_json(table).decode().rstrip("\n") == found.json()
    assert table["tasks"][0]["rungs"][0]["values"] == list(found.tasks[0].rungs[0].values)
    assert set(table) == {"a", "b", "tasks", "difference", "p", "alone"}


def test_what_strangers_wrote_stays_on_its_line() -> None:
    a = record(1)
    hostile = "\u202e\n\x1b[31m<b>"
    method = a.method.model_copy(update={"options": {hostile: hostile}})
    other = {**a.environment, "torch": hostile}
    b = a.model_copy(update={"method": method, "environment": other})
    said = pair(a, b).text()
    assert "\u202e" not in said and "\x1b" not in said
