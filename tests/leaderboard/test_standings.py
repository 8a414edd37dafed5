"""leaderboard.board.standings: who stands on which board, with which score, and what moves none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lthbench.errors import TaskError
from lthbench.io.paths import canonical_json
from lthbench.leaderboard.board import entries, ledger
from lthbench.leaderboard.board.entries import Board, Entry
from lthbench.leaderboard.board.standings import (
    BOARDS,
    Row,
    Standing,
    contenders,
    published,
    ranked_tasks,
    standings,
)
from lthbench.protocol.task import load_suite
from lthbench.records import intervals
from lthbench.records.schema import Record, build, record_digest
from tests.boards import (
    CARRYING,
    LITE,
    WEIGHTS,
    Method,
    board_of,
    board_record,
    entry_of,
    method_of,
    reference_of,
    synthetic_board,
)

pytestmark = pytest.mark.usefixtures("small_lite")

METHODS = 7


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic_board(tmp_path_factory.mktemp("board"), 3 * METHODS)


@pytest.fixture(scope="module")
def board(folder: Path) -> Board:
    return entries.load(folder)


@cache
def record(task: str, number: int = 1, **changes: Any) -> Record:
    return board_record(task, number, **changes)


def lite(number: int, level: int = 2, **changes: Any) -> list[Entry]:
    """A method's entries on the three tasks."""
    return [
        entry_of(record(task, number, **changes), 10 * number + at, level)
        for at, task in enumerate(LITE)
    ]


def found(listed: Sequence[Entry], name: str = "open", tasks: Sequence[str] = LITE) -> Standing:
    """One board of the suite lite."""
    (chosen,) = [s for s in standings(board_of(listed, tasks), "lite") if s.board == name]
    return chosen


def only(listed: Sequence[Entry], name: str = "open") -> Row:
    (row,) = found(listed, name).rows
    return row


# The synthetic board itself


def test_the_synthetic_board_holds(folder: Path, board: Board) -> None:
    """Reading it computes every aggregate and checks every digest and the ledger's chain."""
    assert len(board.entries) == 3 * METHODS
    for entry in board.entries:
        assert record_digest(entry.record) == entry.digest
        assert entry.record.reference == board.references[entry.record.task.name].frozen("test")
        size = (folder / entry.file).stat().st_size
        assert 60_000 < size < 300_000
    told = {entry.id.partition("--")[0]: entry.level for entry in board.entries}
    assert set(told.values()) == {1, 2, 3}
    assert board.ledger == ledger.read(folder / "ledger.jsonl")


def test_a_larger_synthetic_board_holds_the_smaller_one(folder: Path, tmp_path: Path) -> None:
    """The same arguments give the same bytes; more entries leave the others' as they are."""
    smaller = synthetic_board(tmp_path / "one", 4)
    for path in smaller.rglob("*.json"):
        assert path.read_bytes() == (folder / path.relative_to(smaller)).read_bytes()


def test_made_up_tasks_hold_too(tmp_path: Path) -> None:
    tasks = ("made-up", "made-up-mod")
    folder = synthetic_board(tmp_path, 18, tasks, listed=2, levels=(2,))
    found = entries.load(folder)
    assert [entry.state for entry in found.entries].count("listed") == 2
    assert len({entry.digest for entry in found.entries}) == 18
    assert {entry.record.task.name for entry in found.entries} == set(tasks)


@pytest.mark.slow
def test_the_weights_of_the_tasks_are_counted() -> None:
    """WEIGHTS spares the synthetic board from importing torch."""
    import math

    from lthbench.networks import families
    from lthbench.protocol.task import load_task, task_names

    assert set(WEIGHTS) == set(task_names())
    for name, depths in WEIGHTS.items():
        spec = load_task(name).network
        counted = {d: sum(map(math.prod, families.shapes(spec, d).values())) for d in depths}
        assert counted == depths
    assert all(load_task(name).transfer for name in CARRYING)


# Boards


def test_boards_are_nested_and_untrained_tickets_stand_apart(board: Board) -> None:
    """The main board first; what is on a stricter one is on the looser ones."""
    told = {standing.board: standing for standing in standings(board, "lite")}
    assert list(told) == list(BOARDS) and next(iter(told)) == "early"
    held = {name: {row.contender.id for row in s.rows} for name, s in told.items()}
    assert held["init"] < held["early"] < held["open"]
    assert not held["open"] & held["untrained"] and held["untrained"]
    assert {row.division for row in told["init"].rows} == {"init"}
    assert {row.division for row in told["open"].rows} == {"init", "rewind", "open"}
    assert all(standing.tasks == LITE for standing in told.values())


def test_a_suites_score_is_the_mean_of_its_tasks_retention(board: Board) -> None:
    for standing in standings(board, "lite"):
        for row in standing.rows:
            values = [row.tasks[task].values for task in LITE]
            assert row.score is not None
            assert row.score.mean == pytest.approx(sum(map(sum, values)) / 15)
            told = intervals.suite_interval(values)
            assert row.score.low in (told.low, None)
            assert row.score.n == 15
            assert row.cost == pytest.approx(row.tasks[LITE[0]].cost)
            for name, on in row.tasks.items():
                told_ = on.entry.record.aggregates
                if standing.board == "untrained":
                    assert on.headline == told_["untrained"]["headline"]
                else:
                    assert list(on.values) == told_["retention"]["values"]
                assert on.ranked and on.seeds == 5 and on.entry.record.task.name == name


def test_ranked_rows_come_first_by_score(board: Board) -> None:
    for standing in standings(board, "lite"):
        ranks = [row.rank for row in standing.rows]
        assert ranks == sorted(ranks, key=lambda rank: rank is None)
        means = [row.score.mean for row in standing.rows if row.rank and row.score]
        assert means == sorted(means, reverse=True)
        count = len(means)
        assert all(1 <= r[0] <= i + 1 <= r[1] <= count for i, r in enumerate(ranks) if r)
        assert all((row.rank is None) == bool(row.why_unranked) for row in standing.rows)
        assert len(standing.p) == count * (count - 1)


def test_levels_below_two_are_listed(board: Board) -> None:
    rows = {row.level: row for standing in standings(board, "lite") for row in standing.rows}
    assert rows[1].rank is None and rows[1].why_unranked == "level 1" and rows[1].score
    assert rows[2].rank and rows[3].rank
    assert only(lite(1, level=0)).why_unranked == "level 0"
    assert only([*lite(1)[:2], *lite(1, level=0)[2:]]).level == 0


def test_every_ranked_task_is_needed() -> None:
    row = only(lite(1)[:2])
    assert (row.score, row.rank, row.why_unranked) == (None, None, "2 of 3 tasks")
    assert set(row.tasks) == set(LITE[:2]) and row.tasks[LITE[0]].score


def test_every_published_seed_is_needed() -> None:
    three = entry_of(record(LITE[2], seeds=3), 3)
    row = only([*lite(1)[:2], three])
    assert (row.score, row.why_unranked) == (None, f"3 of 5 seeds on {LITE[2]}")
    assert row.tasks[LITE[2]].seeds == 3 and len(row.tasks[LITE[2]].values) == 3


def test_more_seeds_than_the_published_ones_change_nothing() -> None:
    """A reference's IMP has ten seeds; its row is that of the five that all entries have."""
    five, ten = (
        [entry_of(record(task, 0, seeds=seeds), at) for at, task in enumerate(LITE)]
        for seeds in (5, 10)
    )
    one, other = only(five), only(ten)
    assert other.tasks[LITE[0]].entry.record.seeds == tuple(range(10))
    assert one.score == other.score and one.rank == other.rank
    for task in LITE:
        assert replace(one.tasks[task], entry=None) == replace(other.tasks[task], entry=None)
    table = published(ten[0].record)
    assert table == published(five[0].record) == five[0].record.scores
    assert table != ten[0].record.scores


def test_seeds_that_are_none_of_the_published_ones_tell_nothing() -> None:
    told = record(LITE[0])
    none = told.model_copy(update={"seeds": (7, 8, 9)})
    assert published(none) is None
    row = only([entry_of(none)])
    assert row.tasks[LITE[0]].seeds == 0 and row.tasks[LITE[0]].score is None


def test_what_was_retracted_or_superseded_is_on_no_board() -> None:
    gone = [
        *[replace(entry, state="retracted") for entry in lite(1)],
        *[replace(entry, state="superseded", of="x--12345678") for entry in lite(2)],
    ]
    (row,) = found([*gone, *lite(4)]).rows
    assert row.contender.name == method_of(4, 0).name


def test_references_are_shown_and_never_ranked() -> None:
    """Learning-rate rewinding: last on every board of trained tickets, whatever it scores."""
    method = Method("imp_lrr", "reference", False, 5.0, 23.0, 2)
    final = [
        entry_of(board_record(task, 30, method=method), 30 + at) for at, task in enumerate(LITE)
    ]
    for name in ("init", "early", "open"):
        rows = found([*final, *lite(1), *lite(4, level=0)], name).rows
        assert rows[-1].contender.name == "imp_lrr" and rows[-1].score
        assert rows[-1].why_unranked == rows[-1].division == "reference"
    assert not [s for s in standings(board_of(final), "lite") if s.board == "untrained"]


def test_records_of_another_protocol_are_not_mixed() -> None:
    """An older version of a task stands in a row of its own, and says so."""
    mine = lite(1)
    old = mine[0].record
    older = old.model_copy(update={"task": old.task.model_copy(update={"digest": "0" * 64})})
    rows, version = found([entry_of(older, 99), *mine[1:]]).rows, old.task.version
    assert {row.contender.id.rpartition(".")[2]: row.why_unranked for row in rows} == {
        "old": f"version {version} of {LITE[0]}; the board is of version {version}",
        rows[0].contender.id: "2 of 3 tasks",
    }
    assert old.reference is not None
    other = old.reference.model_copy(update={"digest": "1" * 64})
    elsewhere = entry_of(old.model_copy(update={"reference": other}), 99)
    assert f"scored against another reference on {LITE[0]}" in [
        row.why_unranked for row in found([elsewhere, *mine[1:]]).rows
    ]


def test_only_tasks_where_random_pruning_loses_enough_are_ranked() -> None:
    """And only those that have a reference; the suite is what is left."""
    mine, references = lite(1), {name: reference_of(name) for name in LITE}
    weak = references[LITE[0]].values["test"].model_copy(update={"loss_random": (0.1, 0.2, 0.3)})
    values = {**references[LITE[0]].values, "test": weak}
    references[LITE[0]] = references[LITE[0]].model_copy(update={"values": values})
    del references[LITE[1]]
    suite = load_suite("lite")
    tasks, left_out = ranked_tasks(suite, references)
    assert tasks == LITE[2:]
    assert left_out == {
        LITE[0]: "random pruning loses too little there, or too unevenly over the seeds",
        LITE[1]: "no reference yet",
    }
    chosen = replace(board_of(mine), references=references)
    rows = standings(chosen, "lite")[0].rows
    assert {row.why_unranked for row in rows} == {
        "5 units, ranks need 10", f"scored against another reference on {LITE[0]}",
    }  # fmt: skip
    assert any(LITE[1] in note for note in standings(chosen, "lite")[0].notes)


def test_a_task_with_ten_seeds_is_ranked_with_ten() -> None:
    """Entries of five are listed with what they lack; the others' units are five and ten."""

    def named(number: int, seeds: int) -> Record:
        table = board_record(LITE[0], number, seeds=seeds).model_dump(mode="json")
        return build({**table, "task": {**table["task"], "seeds": 10}})

    both, few = [named(number, 10) for number in (1, 2)], named(4, 5)
    others = [board_record(name, n) for name in LITE[1:] for n in (1, 2, 4)]
    mine = [entry_of(r, n) for n, r in enumerate([*both, few, *others])]
    (widest,) = [s for s in standings(board_of(mine), "lite") if s.board == "open"]
    rows = {row.contender.name: row for row in widest.rows}
    assert len(rows) == 3
    whole, lacking = [rows[r.method.name] for r in both], rows[few.method.name]
    assert all(row.rank and not row.why_unranked for row in whole)
    assert [len(row.tasks[LITE[0]].values) for row in whole] == [10, 10]
    assert lacking.why_unranked == f"5 of 10 seeds on {LITE[0]}" and lacking.rank is None
    assert lacking.score is None


def test_provisional_references_are_told() -> None:
    short = reference_of(LITE[0]).model_copy(update={"provisional": True})
    chosen = board_of([])
    told = replace(chosen, references={**chosen.references, LITE[0]: short})
    assert standings(chosen, "lite")[0].notes == ()
    assert f"provisional: reference of {LITE[0]}." in standings(told, "lite")[0].notes[0]


def test_equal_values_have_no_interval() -> None:
    """Seeds that are all alike tell no spread: an interval of width zero would tell a lie."""
    table = record(LITE[0]).model_dump(mode="json")
    first = {
        (c["kind"], c["density"], c["schedule"]): c["correct"]
        for c in table["cells"]
        if c["seed"] == 0
    }
    for cell in table["cells"]:
        cell["correct"] = first[cell["kind"], cell["density"], cell["schedule"]]
    table["sizes"] = {seed: table["sizes"]["0"] for seed in table["sizes"]}
    alike = entry_of(build(table), 99)
    told = [row.tasks[LITE[0]] for row in found([alike]).rows]
    assert told and all(intervals.alike(on.values) for on in told)
    assert all(on.score and on.score.low is None and on.score.n == 5 for on in told)


def test_a_task_without_retention_is_told_in_points_and_never_averaged() -> None:
    """Its record stands above erk; the suite's score is of the other tasks."""
    mine, references = lite(1), {name: reference_of(name) for name in LITE}
    weak = references[LITE[1]].values["test"].model_copy(update={"loss_random": (0.1, 0.2, 0.3)})
    values = {**references[LITE[1]].values, "test": weak}
    references[LITE[1]] = references[LITE[1]].model_copy(update={"values": values})
    table = mine[1].record.model_dump(mode="json")
    table["reference"] = references[LITE[1]].frozen("test").model_dump(mode="json")
    other = entry_of(build(table), 99)
    board = replace(board_of([mine[0], other, mine[2]]), references=references)
    standing = standings(board, "lite")[0]
    (row,) = standing.rows
    on = row.tasks[LITE[1]]
    assert standing.tasks == (LITE[0], LITE[2])
    assert on.what == "above erk" and not on.ranked
    assert list(on.values) == other.record.aggregates["above_erk"]["values"]
    retentions = [e.record.aggregates["retention"]["values"] for e in (mine[0], mine[2])]
    assert row.score == intervals.suite_interval(retentions)


# Suites


def test_suites_without_ranks_have_no_board(board: Board) -> None:
    assert standings(board, "quick") == ()
    with pytest.raises(TaskError, match="no suite 'lit'"):
        standings(board, "lit")


def test_a_suite_whose_entries_all_stand_in_another_is_left_out(board: Board) -> None:
    """LeNet is a task of two suites: the other one appears with the first entry of its own."""
    assert {standing.suite for standing in standings(board)} == {"lite"}
    conv = entry_of(record("conv4-cifar10"), 99)
    more = replace(
        board,
        entries=(*board.entries, conv),
        references={**board.references, "conv4-cifar10": reference_of("conv4-cifar10")},
    )
    assert {standing.suite for standing in standings(more)} == {"lite", "standard"}
    assert standings(replace(board, entries=())) == ()


# Who belongs together


def joined(*chosen: Entry) -> list[tuple[str, tuple[str, ...]]]:
    references = {name: reference_of(name) for name in LITE}
    return [
        (c.id.partition("--")[2][8:], tuple(sorted(e.digest[:6] for e in c.entries.values())))
        for c in contenders(chosen, references)
    ]


def named(*chosen: Entry) -> tuple[str, ...]:
    return tuple(sorted(entry.digest[:6] for entry in chosen))


def test_records_of_one_method_and_source_are_one_contender() -> None:
    a, b, c = lite(1)
    assert joined(c, b, a) == [("", named(a, b, c))]
    (x, *_) = lite(2)
    assert len(joined(a, x)) == 2


def test_the_order_of_acceptance_decides_and_equal_options_come_first() -> None:
    """A later entry fills a gap or begins a contender; it takes nobody's place."""
    first = entry_of(record(LITE[0]), 1)
    second = entry_of(board_record(LITE[0], options={"rate": 0.1}), 2)
    like_second = entry_of(board_record(LITE[1], options={"rate": 0.1}), 3)
    other = entry_of(board_record(LITE[1], options={"rate": 0.3}), 4)
    third = entry_of(board_record(LITE[1], options={"rate": 0.4}), 5)
    assert joined(first, second) == [("", named(first)), (".2", named(second))]
    assert joined(first, second, like_second)[1] == (".2", named(second, like_second))
    assert joined(first, second, like_second, other) == [
        ("", named(first, other)),
        (".2", named(second, like_second)),
    ]
    told = joined(third, other, like_second, second, first)
    assert told[2] == (".3", named(third)) and told[:2] == joined(first, second, like_second, other)


def test_listed_records_come_after_accepted_ones() -> None:
    accepted = entry_of(record(LITE[0]), 5)
    listed = entry_of(board_record(LITE[0], options={"rate": 0.1}), 1, 0, "listed")
    assert joined(listed, accepted) == [("", named(accepted)), (".2", named(listed))]


def test_options_that_differ_between_tasks_are_told() -> None:
    a, b, _ = lite(1)
    c = entry_of(board_record(LITE[2], options={"rate": 0.2, "depth": 3}), 12)
    row = only([a, b, c])
    assert {task: dict(on.options) for task, on in row.tasks.items()} == {
        LITE[0]: {}, LITE[1]: {}, LITE[2]: {"depth": 3},
    }  # fmt: skip
    assert row.rank == (1, 1)


# What a new entry changes


@cache
def pool() -> tuple[Entry, ...]:
    """Records to make boards of: whole methods, and variants of some with other options."""
    whole = [entry for number in range(METHODS) for entry in lite(number)]
    options = [{"rate": 0.1}, {"rate": 0.3, "more": True}]
    variants = [
        entry_of(board_record(task, number, options=chosen))
        for number in (1, 2)
        for task in LITE[:2]
        for chosen in options
    ]
    return (*whole, *variants)


def figures(row: Row) -> bytes:
    """All that is said of a contender but its rank."""
    tasks = {
        task: {**asdict(replace(on, entry=None)), "entry": on.entry.digest}
        for task, on in row.tasks.items()
    }
    told = {**asdict(replace(row, contender=None, tasks={}, rank=None)), "tasks": tasks}
    return canonical_json({**told, "why_unranked": row.why_unranked})


def moves_nobody(data: st.DataObject) -> None:
    """No score but the new entry's moves by a byte, and no rank interval gets shorter."""
    order = data.draw(st.permutations(range(len(pool()))))
    count = data.draw(st.integers(1, len(order)))
    levels = data.draw(st.lists(st.sampled_from([2, 3, 2, 2, 0]), min_size=count, max_size=count))
    states = st.sampled_from(["accepted"] * 8 + ["retracted", "superseded"])
    chosen = []
    for number, (at, level) in enumerate(zip(order, levels, strict=False), 1):
        state = data.draw(states) if number < count else "accepted"
        line = {"n": number, "act": "accept", "entry": pool()[at].digest}
        chosen.append(replace(pool()[at], level=level, state=state, lines=(line,)))
    *old, new = chosen
    before = {
        (s.board, r.contender.id): r for s in standings(board_of(old), "lite") for r in s.rows
    }
    after = {(s.board, r.contender.id): r for s in standings(board_of(chosen), "lite")
             for r in s.rows}  # fmt: skip
    mine = {key for key, row in after.items() if new in row.contender.entries.values()}
    assert before.keys() - mine <= after.keys()
    assert after.keys() - before.keys() <= mine
    for key in before.keys() - mine:
        one, other = before[key], after[key]
        assert figures(one) == figures(other)
        if one.rank:
            assert other.rank
            assert other.rank[1] - other.rank[0] >= one.rank[1] - one.rank[0]


@settings(max_examples=5)
@given(st.data())
def test_a_new_entry_moves_nobody_elses_score(data: st.DataObject) -> None:
    moves_nobody(data)


@pytest.mark.slow
@settings(max_examples=100)
@given(st.data())
def test_a_new_entry_moves_nobody_elses_score_on_many_boards(data: st.DataObject) -> None:
    moves_nobody(data)


def test_the_order_of_entries_in_a_folder_is_of_no_matter(board: Board) -> None:
    turned = replace(board, entries=board.entries[::-1])
    assert [[(r.contender.id, r.rank, figures(r)) for r in s.rows] for s in standings(board)] == [
        [(r.contender.id, r.rank, figures(r)) for r in s.rows] for s in standings(turned)
    ]
