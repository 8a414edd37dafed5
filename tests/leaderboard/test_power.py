"""analysis.power: its tests of pairs against scipy, its bootstrap against closed forms."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as reference

from lthbench.cli import main
from lthbench.errors import RecordError, UsageError
from lthbench.io.paths import canonical_json
from lthbench.leaderboard.analysis import power
from lthbench.leaderboard.analysis.power import Run, World, apart, needed, powers
from lthbench.leaderboard.board import ranks
from lthbench.leaderboard.board.standings import standings
from lthbench.protocol.task import load_task
from lthbench.records import intervals
from tests.boards import LITE, Method, board_of, board_record, entry_of
from tests.strategies import moderate
from tests.synthetic import synthetic_record

pytestmark = pytest.mark.usefixtures("small_lite")

RETAINED = "lenet300-mnist"


def drawn(seed: int, methods: int, seeds: int, shifts: Sequence[float] = ()) -> np.ndarray:
    """Values (methods, seeds) with a part that all methods of a seed share."""
    dice = np.random.default_rng(seed)
    noise = dice.normal(size=(methods, seeds)) + 2 * dice.normal(size=seeds)
    return noise + np.array([*shifts, *[0.0] * (methods - len(shifts))])[:, None]


def runs_of(
    values: np.ndarray, task: str = "a", what: str = "retention", own: int = 5
) -> list[Run]:
    return [
        Run(task, f"m{number}", what, dict(enumerate(map(float, row))), own)
        for number, row in enumerate(values)
    ]


# --- the test ---------------------------------------------------------------------------------


@settings(moderate)
@given(seed=st.integers(0, 10**6), seeds=st.integers(3, 12), shift=st.floats(-3, 3))
def test_two_methods_on_a_task_are_compared_as_pairs(seed: int, seeds: int, shift: float) -> None:
    """By paired t where there are few seeds, by all sign flips where there are eight."""
    values = drawn(seed, 2, seeds, [shift])
    (found,) = apart([values])
    if seeds < power.LEAST_FLIPPED:
        assert found == (reference.ttest_rel(*values).pvalue <= 0.05)
    elif 2 ** (seeds - 1) <= power.FLIPS:
        assert found == (ranks.sign_flips([values[0]], [values[1]]) <= 0.05)


@settings(moderate)
@given(seed=st.integers(0, 10**6), sizes=st.lists(st.integers(3, 9), min_size=1, max_size=4))
def test_several_tasks_are_averaged_as_boards_average_them(seed: int, sizes: list[int]) -> None:
    """The plain mean over tasks, Welch-Satterthwaite: as `stats.suite_interval` has it."""
    tasks = [drawn(seed + at, 3, size, [1.0]) for at, size in enumerate(sizes)]
    mean, variance, freedom = power._paired(tasks)
    for at, (a, b) in enumerate(combinations(range(3), 2)):
        interval = intervals.suite_interval([values[a] - values[b] for values in tasks])
        assert mean[at] == pytest.approx(interval.mean)
        reach = reference.t.ppf(0.975, freedom[at]) * np.sqrt(variance[at])
        assert interval.high == pytest.approx(interval.mean + reach)


def test_holm_is_holms() -> None:
    """By hand: .01 * 3, .02 * 2, and .03, which is raised to what came before it."""
    assert power._holm(np.array([0.03, 0.01, 0.02])) == pytest.approx([0.04, 0.03, 0.04])
    assert power._holm(np.array([0.9, 0.8])).max() == 1.0


@pytest.mark.parametrize("seeds", [3, 5])
def test_few_seeds_find_nothing_where_nothing_is(seeds: int) -> None:
    """Family-wise error at .05 at most, within three standard errors of 600 trials."""
    wrong = sum(bool(apart([drawn(trial, 8, seeds)]).any()) for trial in range(600))
    assert wrong / 600 <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 600)


def test_methods_that_are_one_are_not_apart() -> None:
    """Not even where nothing varies at all; and what differs alike on every seed is."""
    for seeds in (3, 5, 9):
        one = drawn(1, 1, seeds)
        same = np.concatenate([one, one, one + 0.5])
        assert apart([same]).tolist() == [False, True, True]
    assert not apart([np.ones((3, 5))]).any()


# --- the bootstrap ----------------------------------------------------------------------------


@settings(moderate)
@given(seed=st.integers(0, 10**6), methods=st.integers(2, 6), seeds=st.integers(3, 10))
def test_a_world_has_the_records_means_and_covariance(seed: int, methods: int, seeds: int) -> None:
    values = drawn(seed, methods, seeds)
    world = World.of(values)
    assert world.means == pytest.approx(values.mean(axis=1))
    assert world.residuals.T @ world.residuals == pytest.approx(np.cov(values))
    far = world.draw(np.random.default_rng(0), 300, 40)
    assert far.shape == (300, methods, 40)
    pooled = np.cov(np.concatenate(list(far), axis=1))
    assert np.abs(pooled - np.cov(values)).max() < 0.1 * np.abs(np.cov(values)).max()


def pair(difference: float, deviation: float) -> World:
    """Two methods whose difference has this mean and standard deviation."""
    root = np.array([[deviation, 0.0], [0.0, 0.0], [0.0, 0.0]])
    return World(np.array([difference, 0.0]), root)


def by_hand(effect: float, seeds: int) -> float:
    """The power of a two-sided paired t test."""
    limit, shift = reference.t.ppf(0.975, seeds - 1), effect * np.sqrt(seeds)
    upper = reference.nct.sf(limit, seeds - 1, shift)
    return float(upper + reference.nct.cdf(-limit, seeds - 1, shift))


@pytest.mark.parametrize("seeds", [3, 5, 7])
@pytest.mark.parametrize("effect", [0.0, 1.0, 2.0])
def test_a_pair_is_apart_as_often_as_the_noncentral_t_says(
    seeds: int, effect: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(power, "SIMULATED", power.ALL_PAIRS)
    found = power._expected("a", [pair(effect, 1.0)], [seeds])
    assert found == pytest.approx(by_hand(effect, seeds), abs=4 * np.sqrt(0.25 / power.SIMULATED))


@pytest.mark.parametrize("effect", [0.5, 1.0, 1.5, 2.5])
def test_seeds_that_a_difference_takes_follow_from_the_noncentral_t(effect: float) -> None:
    least = next(n for n in range(3, 200) if by_hand(effect, n) >= power.WANTED)
    found = needed("a", [pair(0.0, 0.1)], effect / 10)
    assert found is not None and abs(found - least) <= max(1, 0.1 * least)


def test_what_cannot_be_found_is_not_and_more_tasks_find_more() -> None:
    assert needed("a", [pair(0.0, 10.0)], 0.05) is None
    alone, three = needed("a", [pair(0.0, 0.1)], 0.1), needed("a", [pair(0.0, 0.1)] * 3, 0.1)
    assert alone and three and three < alone


def test_more_seeds_part_more_pairs() -> None:
    values = drawn(3, 6, 10, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0])
    (found,) = powers("suite", ["a"], runs_of(values, own=10))
    assert found.pairs == 15 and found.seeds == (10,)
    counts = [found.expected[n] for n in (3, 5, 10)]
    assert counts == sorted(counts) and counts[0] < counts[-1] == pytest.approx(found.own, abs=1)
    assert found.apart == int(apart([values]).sum()) > 0
    assert powers("suite", ["a"], runs_of(values, own=10)) == (found,)


# --- what goes together -----------------------------------------------------------------------


def test_tasks_of_retention_are_told_together() -> None:
    """Over the methods that all of them have; ticket - erk stands for itself."""
    first, second = runs_of(drawn(1, 4, 10), "a"), runs_of(drawn(2, 3, 5), "b")
    points = runs_of(drawn(3, 4, 5), "c", "above erk")
    found = powers("suite", ["a", "b", "c", "d"], [*first, *second, *points])
    assert [each.name for each in found] == ["a", "b", "c", "suite"]
    assert found[-1].methods == ("m0", "m1", "m2") and found[-1].seeds == (10, 5)
    assert found[2].needed == {} and found[2].what == "above erk"
    assert set(found[-1].needed) == set(power.DIFFERENCES)


def test_too_little_tells_nothing() -> None:
    """One method, or fewer than three seeds in common."""
    assert powers("suite", ["a"], runs_of(drawn(1, 1, 5))) == ()
    assert powers("suite", ["a"], runs_of(drawn(1, 3, 2))) == ()
    one, other = runs_of(drawn(1, 2, 5))
    apart_ones = {seed + 3: value for seed, value in other.values.items()}
    assert powers("suite", ["a"], [one, Run("a", "m1", "retention", apart_ones, 5)]) == ()
    assert powers("suite", ["a"], runs_of(drawn(1, power.MANY + 1, 5))) == ()


def put(folder: Path, name: str, place: str = "", **changes: Any) -> Path:
    """A record of a method on LeNet, as an evaluation leaves it."""
    task = {"digest": load_task(RETAINED).digest}
    number = sum(map(ord, name))
    record = synthetic_record(number, name=name, task=task, **changes)
    path = folder / (place or name) / RETAINED / "record.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(canonical_json(record.model_dump(mode="json")))
    return path


@pytest.mark.parametrize("final", [True, False])
def test_evaluations_are_read_whatever_their_seeds(final: bool, tmp_path: Path) -> None:
    """Final ones and those on development seeds; the named methods alone, references only then."""
    for name in ("imp", "snip", "force"):
        put(tmp_path, name, final=final)
    put(tmp_path, "imp_lrr", final=final, division="reference")
    (found,) = power.of_suite("lite", folders=[tmp_path])
    assert (found.name, set(found.methods)) == (RETAINED, {"force", "imp", "snip"})
    (found,) = power.of_suite("lite", ["imp", "imp_lrr"], [tmp_path])
    assert set(found.methods) == {"imp", "imp_lrr"} and found.pairs == 1
    (other,) = power.of_suite("lite", ["imp", "imp_lrr"], [tmp_path / "imp", tmp_path / "imp_lrr"])
    assert other == found
    with pytest.raises(UsageError, match="--baselines snop: no record of it on a task of lite"):
        power.of_suite("lite", ["snop"], [tmp_path])


def test_records_that_do_not_go_together_are_refused(tmp_path: Path) -> None:
    first = put(tmp_path, "imp")
    second = put(tmp_path, "imp", "imp-again")
    with pytest.raises(RecordError, match=f"imp on {RETAINED} is {first} already"):
        power.of_suite("lite", folders=[tmp_path])
    table = json.loads(second.read_bytes())
    second.write_bytes(canonical_json({**table, "task": {**table["task"], "digest": "0" * 64}}))
    with pytest.raises(RecordError, match="of another protocol than"):
        power.of_suite("lite", folders=[tmp_path / "imp-again"])
    with pytest.raises(UsageError, match="no record in it"):
        power.of_suite("lite", folders=[tmp_path / "nowhere"])
    with pytest.raises(UsageError, match="quick is on no board; name records with --records"):
        power.of_suite("quick")


def test_a_board_tells_of_accepted_records_with_all_seeds() -> None:
    """Of the page; an entry that is not accepted yet, or has three of five seeds, says nothing."""

    def method(name: str, quality: float) -> Method:
        return Method(name, "init", False, quality, 1.0, 2)

    methods = [method(name, 0.2 * at + 0.2) for at, name in enumerate(("a", "b", "c", "d"))]
    records = [board_record(RETAINED, at + 1, method=one) for at, one in enumerate(methods[:3])]
    records.append(board_record(RETAINED, 4, method=methods[3], seeds=3))
    states: tuple[Any, ...] = ("accepted", "accepted", "listed", "accepted")
    mine = [entry_of(r, n, state=s) for n, (r, s) in enumerate(zip(records, states, strict=True))]
    board = standings(board_of(mine), "lite")
    (found,) = power.of_standings(board, "lite")
    assert (found.name, set(found.methods), found.seeds) == (RETAINED, {"a", "b"}, (5,))
    assert power.of_standings(standings(board_of(mine[:1]), "lite"), "lite") == ()
    assert RETAINED in LITE


# --- what is printed --------------------------------------------------------------------------


def said(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str) -> str:
    monkeypatch.setattr(sys, "argv", ["lthbench", *words])
    with pytest.raises(SystemExit) as ended:
        main.main()
    assert ended.value.code == 0
    return capsys.readouterr().out


def test_the_verb_prints_a_row_a_task(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("imp", "snip", "force"):
        put(tmp_path, name)
    words = ("dev", "power", "lite", "--records", str(tmp_path))
    text = said(capsys, monkeypatch, *words)
    assert f"\n{RETAINED}  " in text and " of 3 " in text and "Methods: " in text
    assert max(map(len, text.splitlines())) <= 120
    (found,) = json.loads(said(capsys, monkeypatch, *words, "--baselines", "imp,snip", "--json"))
    assert set(found["methods"]) == {"imp", "snip"} and set(found["expected"]) == {"3", "5", "10"}
    few = said(capsys, monkeypatch, *words, "--baselines", "imp")
    assert few == "lite: fewer than two methods with 3 seeds in common on a task\n"


@pytest.mark.parametrize("verb", ["calibrate", "noise", "reference", "rescore"])
def test_verbs_for_maintainers_are_the_modules_own(
    verb: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert f"lthbench dev {verb}" in said(capsys, monkeypatch, "dev", verb, "--help")
    assert "For maintainers" in said(capsys, monkeypatch, "dev", "--help")
