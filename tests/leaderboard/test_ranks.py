"""board.ranks: against its definition written out, by simulation, and as boards grow."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lthbench import seeds
from lthbench.leaderboard.board import ranks
from lthbench.records import intervals

Board = dict[str, list[list[float]]]
Pair = tuple[str, str]

# Values of few digits: ties, equal contenders and differences without variance come up often.
VALUES = st.integers(-3, 3).map(lambda n: n / 4)


def boards(tasks: int = 2, least: int = 1, most: int = 4) -> st.SearchStrategy[Board]:
    rows = st.lists(st.lists(VALUES, min_size=5, max_size=5), min_size=tasks, max_size=tasks)
    return st.lists(rows, min_size=least, max_size=most).map(
        lambda found: {f"m{at}": row for at, row in enumerate(found)}
    )


def drawn(count: int, tasks: int, spread: float = 0.0, seed: int = 0) -> Board:
    """Contenders that share what is hard about each unit, and differ by a spread of their own."""
    dice = seeds.generator(seed, "bench", count, tasks)
    hard = dice.normal(size=(tasks, 5))
    good = dice.normal(size=count) * spread
    return {
        f"m{at:03d}": (good[at] + hard + dice.normal(size=(tasks, 5))).tolist()
        for at in range(count)
    }


# The definition, one number at a time


def statistic(differences: Sequence[np.ndarray]) -> float:
    """T^2 of a suite's difference, from the tasks' own variances; 0 where rounding left less."""
    k = len(differences)
    mean = sum(float(task.mean()) for task in differences) / k
    variance = sum(float(task.var(ddof=1)) / len(task) for task in differences) / k**2
    squares = sum(float((task**2).sum()) / (len(task) * (len(task) - 1)) for task in differences)
    if squares == 0:
        return 0.0
    found = mean**2 / max(variance, ranks.LEAST_VARIANCE * squares / k**2)
    return found if found >= ranks.NOTHING else 0.0


def flipped(board: Board, signs: Sequence[float]) -> dict[Pair, float]:
    """Every pair's statistic under one flip of the units."""
    found = {}
    for a, b in itertools.combinations(sorted(board), 2):
        at, differences = 0, []
        for first, second in zip(board[a], board[b], strict=True):
            own = np.array(signs[at : at + len(first)])
            differences.append(own * (np.array(first) - np.array(second)))
            at += len(first)
        found[a, b] = statistic(differences)
    return found


def by_definition(board: Board, flips: Sequence[Sequence[float]], more: int) -> dict[Pair, float]:
    """Step-down max-T: of each flip the maximum over a pair and all that are not above it."""
    observed = flipped(board, [1.0] * len(flips[0]))
    nulls = [flipped(board, signs) for signs in flips]
    order = sorted(observed, key=lambda pair: -observed[pair])
    p, worst = {}, 0.0
    for at, pair in enumerate(order):
        reached = observed[pair] * (1 - ranks.TIE)
        beyond = sum(max(null[left] for left in order[at:]) >= reached for null in nulls)
        worst = max(worst, (beyond + more) / (len(nulls) + more))
        p[pair] = worst
    return p


def agree(found: Mapping[Pair, float], wanted: Mapping[Pair, float]) -> None:
    for (a, b), p in wanted.items():
        assert found[a, b] == found[b, a]
        assert found[a, b] == pytest.approx(p, abs=1e-12), (a, b)


# The means of m2 cancel, in floats but nearly: T^2 of it was 1e-33, above that of some flips.
CANCELLED: Board = {
    "m0": [[0.0] * 5] * 2,
    "m1": [[0.0] * 5] * 2,
    "m2": [[0.0, 0.0, 0.0, 0.5, 0.75], [0.0, 0.0, 0.0, -0.5, -0.75]],
}


@settings(max_examples=8)
@given(boards(least=2))
@example(CANCELLED)
def test_all_flips_agree_with_the_definition(board: Board) -> None:
    flips = list(itertools.product([1.0, -1.0], repeat=10))
    agree(ranks.rank(board).p, by_definition(board, flips, more=0))


@pytest.mark.parametrize("spread", [0.0, 1.5])
def test_drawn_flips_agree_with_the_definition(
    spread: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Above 16 units; with the flips' number cut, or the definition would take minutes."""
    monkeypatch.setattr(ranks, "DRAWN", 300)
    board = drawn(4, 4, spread)
    flips = ranks.signs(20, 300)
    assert flips.shape == (300, 20) and set(flips.ravel()) == {1.0, -1.0}
    agree(ranks.rank(board).p, by_definition(board, flips.tolist(), more=1))


def test_the_statistic_is_the_suites_difference_in_its_standard_errors() -> None:
    """That of `suite_interval`: half its width, at its own degrees of freedom."""
    board = drawn(2, 3, 1.0)
    differences = [np.array(a) - np.array(b) for a, b in zip(*board.values(), strict=True)]
    _, low, high = intervals.suite_bounds(differences, 0.95)
    mean = intervals.suite_interval(differences).mean
    squared = float(ranks._squared(np.concatenate(differences)[None], (5, 5, 5))[0])
    errors = [float(task.std(ddof=1) / np.sqrt(5)) for task in differences]
    error = np.sqrt(sum(e**2 for e in errors)) / 3
    freedom = sum(e**2 for e in errors) ** 2 / sum(e**4 / 4 for e in errors)
    from scipy import stats as scipy_stats

    assert squared == pytest.approx((mean / error) ** 2)
    assert (high - low) / 2 == pytest.approx(error * scipy_stats.t.ppf(0.975, freedom))


# Errors of the board as a whole


def false_alarms(boards_: Sequence[Board], alike: Sequence[str]) -> float:
    """Share of boards on which some pair of contenders that are alike is told apart."""
    found = [ranks.rank(board).p for board in boards_]
    pairs = list(itertools.combinations(alike, 2))
    return float(np.mean([any(p[pair] <= ranks.ALPHA for pair in pairs) for p in found]))


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["normal", "heavy", "counts"])
def test_alike_contenders_are_told_apart_on_one_board_in_twenty(shape: str) -> None:
    """Family-wise, not by pair: of 10 pairs at .05 each, some 3 boards in 10 would show one."""
    dice = seeds.generator(1, "bench", shape)
    tried = []
    for _ in range(600):
        draw = {
            "normal": lambda: dice.normal(size=(2, 5)),
            "heavy": lambda: dice.standard_t(2, size=(2, 5)),
            "counts": lambda: dice.binomial(3, 0.5, size=(2, 5)) / 3,
        }[shape]
        hard = dice.normal(size=(2, 5))
        tried.append({f"m{at}": (hard + draw()).tolist() for at in range(5)})
    rate = false_alarms(tried, [f"m{at}" for at in range(5)])
    assert rate <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 600)
    assert rate >= 0.005  # or it could not tell anything apart


@pytest.mark.slow
def test_a_better_contender_does_not_make_others_differ() -> None:
    """Stepping down past a true difference keeps the error among those that are alike."""
    dice = seeds.generator(2, "bench")
    tried = []
    for _ in range(600):
        board = {f"m{at}": dice.normal(size=(2, 5)).tolist() for at in range(4)}
        board["best"] = (50 + dice.normal(size=(2, 5))).tolist()
        tried.append(board)
    rate = false_alarms(tried, [f"m{at}" for at in range(4)])
    assert 0.005 <= rate <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 600)
    assert all(ranks.rank(board).low[0] == ranks.rank(board).high[0] == 1 for board in tried[:20])


# Rank intervals


def test_rank_intervals_count_what_is_surely_better_and_surely_worse() -> None:
    """Two close ones far above two close ones, on 15 units."""
    board = drawn(4, 3, 0.0)
    for name in ("m000", "m001"):
        board[name] = [[value + 20 for value in task] for task in board[name]]
    found = ranks.rank(board)
    assert set(found.entries[:2]) == {"m000", "m001"}
    assert found.low == (1, 1, 3, 3) and found.high == (2, 2, 4, 4)


def test_a_difference_without_variance_has_its_p_too() -> None:
    """Ten equal differences: of 1,024 flips two leave all signs alike."""
    board = {"a": [[2.0] * 5] * 2, "b": [[1.0] * 5] * 2}
    found = ranks.rank(board)
    assert found.p["a", "b"] == 2 / 2**10  # where signs differ between tasks, the mean is 0
    assert found.entries == ("a", "b") and found.low == (1, 2) and found.high == (1, 2)


def test_equal_contenders_share_every_rank() -> None:
    board = drawn(1, 2)
    found = ranks.rank({"b": board["m000"], "a": board["m000"]})
    assert found.p["a", "b"] == 1 and found.entries == ("a", "b")
    assert found.low == (1, 1) and found.high == (2, 2)


def test_equal_means_are_never_told_apart() -> None:
    """A difference of 0 is reached by every flip."""
    found = ranks.rank(CANCELLED)
    assert {found.p[pair] for pair in found.p} == {1.0}


def test_a_contender_alone_is_first_and_last() -> None:
    found = ranks.rank(drawn(1, 2))
    assert (found.low, found.high, len(found.p), list(found.p)) == ((1,), (1,), 0, [])


@settings(max_examples=40)
@given(boards(), st.randoms(use_true_random=False))
def test_the_order_of_entries_is_of_no_matter(board: Board, random: object) -> None:
    names = list(board)
    random.shuffle(names)  # type: ignore[attr-defined]
    one, other = ranks.rank(board), ranks.rank({name: board[name] for name in names})
    assert (one.entries, one.low, one.high) == (other.entries, other.low, other.high)
    assert dict(one.p) == dict(other.p)


@settings(max_examples=60)
@given(boards(least=2, most=5))
def test_a_new_contender_can_only_widen_what_is_known_of_the_others(board: Board) -> None:
    """With the same flips no p falls, so nobody is surely better than an old one who was not.

    A rank interval may move down by one (the new one is surely better), but never gets shorter.
    """
    *old, _ = sorted(board)
    before, after = ranks.rank({name: board[name] for name in old}), ranks.rank(board)
    for pair in before.p:
        assert after.p[pair] >= before.p[pair] - 1e-12
    widths = [
        {name: high - low for name, low, high in zip(f.entries, f.low, f.high, strict=True)}
        for f in (before, after)
    ]
    assert all(widths[1][name] >= widths[0][name] for name in old)
    assert [name for name in after.entries if name in old] == list(before.entries)


def test_what_is_no_board_is_refused() -> None:
    with pytest.raises(ValueError, match="5 units; ranks need 10"):
        ranks.rank(drawn(3, 1))
    with pytest.raises(ValueError, match="shapes"):
        ranks.rank({"a": [[1.0, 2.0]] * 5, "b": [[1.0] * 5] * 2})
    with pytest.raises(ValueError, match="finite"):
        ranks.rank({"a": [[float("nan")] * 5] * 2, "b": [[1.0] * 5] * 2})
    with pytest.raises(ValueError, match="two for a variance"):
        ranks.rank({"a": [[1.0]] * 10})
    with pytest.raises(ValueError, match="0 contenders"):
        ranks.rank({})


# What is stored


def test_a_result_is_stored_and_found_again(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "STORED_FROM", 0)
    board = drawn(4, 3, 1.0)
    first = ranks.rank(board)
    (path,) = (cache / "board").glob("*.json")
    kept = path.read_bytes()

    def never(*_: object) -> None:
        raise AssertionError("it was stored")

    with monkeypatch.context() as context:
        context.setattr(ranks, "step_down", never)
        again = ranks.rank(board)
        assert dict(again.p) == dict(first.p) and again.high == first.high
        with pytest.raises(AssertionError, match="it was stored"):
            ranks.rank({**board, "m000": [[0.0, 1.0, 2.0, 3.0, 4.0]] * 3})
    for damage in (b"", b"[", b"[1]", b"{}", kept.replace(b"0.", b"-0.", 1), b"[" * 100_000):
        path.write_bytes(damage)
        assert dict(ranks.rank(board).p) == dict(first.p)
        assert path.read_bytes() == kept


def test_a_cache_that_cannot_be_written_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cache").write_text("a file")
    monkeypatch.setenv("LTHBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(ranks, "STORED_FROM", 0)
    assert ranks.rank(drawn(2, 2)).high == (2, 2)


def test_p_values_are_told_of_pairs_alone() -> None:
    found = ranks.rank(drawn(3, 2))
    assert len(found.p) == 6 == len(list(found.p))
    with pytest.raises(KeyError):
        found.p["m000", "m000"]
    with pytest.raises(KeyError):
        found.p["m000", "nobody"]


def test_sign_flips_of_two_are_a_board_of_two() -> None:
    board = drawn(2, 2, 1.0)
    assert ranks.sign_flips(board["m000"], board["m001"]) == ranks.rank(board).p["m000", "m001"]
    assert ranks.sign_flips([[1.0, 2.0, 3.0]], [[0.0, 1.0, 2.0]]) == 0.25
