"""Overlaps against three nulls, channel matching, verdicts, and the files that they are kept in."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from lthbench import seeds
from lthbench.errors import RecordError, UsageError
from lthbench.io.paths import canonical_json, digest
from lthbench.leaderboard.analysis import channel_matching, files, overlap_nulls, schema, verdicts
from lthbench.leaderboard.analysis.evidence import evidence, load, rules
from lthbench.leaderboard.analysis.overlap_nulls import Masks, over_other_seeds
from lthbench.leaderboard.analysis.render import Evidence
from lthbench.leaderboard.analysis.schema import Saved, Side
from lthbench.leaderboard.analysis.verdicts import Estimate, Verdict
from lthbench.leaderboard.board import entries
from lthbench.leaderboard.bundle.build import pack
from lthbench.networks import families
from lthbench.networks.state import State
from lthbench.protocol.task import Network
from lthbench.tickets import overlap
from tests.accepted import board, entry_of
from tests.strategies import mask_pairs, moderate
from tests.submitted import DIGITS, METHOD, finished, house, records_of
from tests.tiny import FAMILIES
from tests.tiny import network as spec

SHAPES = {"hidden.0.weight": (30, 40), "head.weight": (10, 30)}
SEEDS = range(5)
Thetas = list[dict[str, NDArray[np.float32]]]


def dice(*names: str | int) -> np.random.Generator:
    return seeds.generator(0, "evidence-test", *names)


def thetas(name: str | int, n: int = 5) -> Thetas:
    return [
        {of: dice(name, seed, of).standard_normal(s).astype(np.float32) for of, s in SHAPES.items()}
        for seed in range(n)
    ]


def random_masks(name: str | int, density: float, n: int = 5) -> list[Masks]:
    lots = dice(name)
    return [{of: lots.random(shape) < density for of, shape in SHAPES.items()} for _ in range(n)]


def joined(a: Sequence[Masks], b: Sequence[Masks]) -> list[Masks]:
    return [{n: x[n] | y[n] for n in x} for x, y in zip(a, b, strict=True)]


def largest(scores: NDArray[np.float64], density: float) -> NDArray[np.bool_]:
    return scores > np.quantile(scores, 1 - density)


def found(a: Sequence[Masks], b: Sequence[Masks], of: Thetas) -> overlap_nulls.Overlaps:
    return overlap_nulls.overlaps(a, b, of)


# The table of overlaps


@moderate
@given(mask_pairs())
def test_the_excess_is_that_of_the_masks_module(pair: tuple[dict[str, Tensor], ...]) -> None:
    """Exact fractions there, matrices of floats here: one definition."""
    a, b = ({n: np.asarray(m) for n, m in masks.items()} for masks in pair)
    theta = {n: np.zeros(m.shape, np.float32) for n, m in a.items()}
    ours, exact = found([a], [b], [theta]), overlap.overlap(*pair)
    rows = [(overlap_nulls.pooled([layer]), exact.tensors[layer.name]) for layer in ours.layers]
    for table, figures_ in [*rows, (ours.excess, exact.pooled)]:
        if figures_.excess is None:
            assert np.isnan(table).all()
        else:
            assert table[0, 0] == pytest.approx(figures_.excess, abs=1e-9)
    for layer in ours.layers:
        assert np.sqrt(layer.variance[0, 0]) == pytest.approx(exact.tensors[layer.name].deviation)


@moderate
@given(mask_pairs(), st.data())
def test_neither_order_nor_names_matter(
    pair: tuple[dict[str, Tensor], ...], data: st.DataObject
) -> None:
    """A and B may change places, entries may be renumbered in both, layers renamed."""
    a, b = ({n: np.asarray(m).ravel() for n, m in masks.items()} for masks in pair)
    theta = {n: dice(n).standard_normal(m.shape).astype(np.float32) for n, m in a.items()}
    first, second = found([a], [b], [theta]), found([b], [a], [theta])
    order = {n: np.array(data.draw(st.permutations(range(len(m)))), int) for n, m in a.items()}
    moved = [{f"x{n}": side[n][order[n]] for n in side} for side in (a, b, theta)]
    third = found([moved[0]], [moved[1]], [moved[2]])
    for other in (second, third):
        for name in ("excess", "same_start", "profile"):
            assert np.allclose(getattr(first, name), getattr(other, name), equal_nan=True)
    for value in (*first.excess.ravel(), *first.same_start):
        assert np.isnan(value) or value <= 1 + 1e-9


def test_identical_masks_are_wholly_the_same() -> None:
    """Over every null the excess is 1, and no pairing of seeds is as good as the true one."""
    a = random_masks("a", 0.2)
    of = found(a, a, thetas("a"))
    rung = rung_of(of)
    for null in (rung.excess.chance, rung.excess.other_seeds, rung.excess.same_start):
        assert null is not None
        assert np.allclose(null.values, 1, atol=0.08)
        assert null.mean == pytest.approx(1)
    assert rung.excess.other_seeds is not None
    assert rung.excess.other_seeds.p == pytest.approx(1 / 120)
    assert rung.verdict.result == "supported"
    assert rung.profile is not None
    assert rung.profile.mean == 0


def rung_of(of: overlap_nulls.Overlaps, density: float = 0.2) -> schema.Rung:
    return schema.rung_of(
        density,
        tuple(range(len(of.excess))),
        tuple(schema.listed(row) for row in of.excess),
        None,
        schema.listed(of.same_start),
        verdicts.estimate(of.profile.tolist()),
        (),
    )


@pytest.mark.slow
def test_intervals_cover_nothing_in_common() -> None:
    """Independent random masks, 600 times at 5 seeds: 95 % intervals hold 0 in 93 to 97 %."""
    hits = {"chance": 0, "other_seeds": 0, "same_start": 0}
    low = 0
    for draw in range(600):
        a, b = random_masks(f"a{draw}", 0.15), random_masks(f"b{draw}", 0.15)
        excess = rung_of(found(a, b, thetas(draw))).excess
        for null in hits:
            estimate: Estimate = getattr(excess, null)
            assert estimate.low is not None and estimate.high is not None
            hits[null] += estimate.low <= 0 <= estimate.high
        assert excess.other_seeds is not None and excess.other_seeds.p is not None
        low += excess.other_seeds.p <= 0.05
    for count in hits.values():
        assert 0.93 * 600 <= count <= 0.975 * 600
    assert low <= 0.07 * 600


@pytest.mark.slow
def test_intervals_cover_where_seeds_differ() -> None:
    """Seeds that overlap with everyone by more or less do not belong together for that; then the
    interval is wider than it must be."""
    inside = 0
    for draw in range(1000):
        lots = dice("effects", draw)
        table = 0.3 + np.add.outer(lots.normal(0, 0.1, 5), lots.normal(0, 0.1, 5))
        interval = verdicts.estimate(
            over_other_seeds(table + lots.normal(0, 0.02, (5, 5))).tolist()
        )
        assert interval is not None and interval.low is not None and interval.high is not None
        inside += interval.low <= 0 <= interval.high
    assert inside / 1000 >= 0.93


@pytest.mark.parametrize("density", [0.5, 0.1, 0.02])
def test_large_starts_are_no_common_find(density: float) -> None:
    """Both keep what starts large, with noise of their own: far above chance and other seeds, yet
    nothing beyond the start; sparse masks too, which all lie in the uppermost tenth."""
    of = [{"w": dice("big", seed).standard_normal((200, 300)).astype(np.float32)} for seed in SEEDS]
    a, b = (
        [
            {
                "w": largest(
                    np.abs(t["w"]) + 0.15 * dice(side, s).standard_normal((200, 300)), density
                )
            }
            for s, t in enumerate(of)
        ]
        for side in "ab"
    )
    excess = rung_of(found(a, b, of)).excess
    assert excess.chance is not None and excess.same_start is not None
    assert excess.other_seeds is not None
    assert excess.chance.mean > 0.5
    assert excess.other_seeds.mean > 0.5
    assert abs(excess.same_start.mean) < 0.04
    assert verdicts.same_subnetwork(excess.other_seeds, excess.same_start).result == "refuted"


def test_rows_and_columns_that_all_seeds_share_are_no_common_find() -> None:
    """As the border pixels of MNIST, which no method keeps: chance sees it, other seeds do not."""
    alive = {name: dice(name).random(shape[1]) < 0.4 for name, shape in SHAPES.items()}

    def masks(side: str) -> list[Masks]:
        return [
            {n: m & alive[n] for n, m in one.items()} for one in random_masks(f"rows{side}", 0.4)
        ]

    excess = rung_of(found(masks("a"), masks("b"), thetas("rows"))).excess
    assert excess.chance is not None and excess.other_seeds is not None
    assert excess.chance.mean > 0.15
    assert excess.other_seeds.low is not None and excess.other_seeds.high is not None
    assert excess.other_seeds.low < 0 < excess.other_seeds.high
    assert excess.other_seeds.p is not None and excess.other_seeds.p > 0.05


def test_half_of_a_mask_in_common_is_found_over_every_null() -> None:
    a, b, common = (random_masks(f"half{n}", 0.1) for n in "abc")
    a, b = joined(a, common), joined(b, common)
    rung = rung_of(found(a, b, thetas("half")))
    for null in (rung.excess.chance, rung.excess.other_seeds, rung.excess.same_start):
        assert null is not None and null.lower is not None
        assert 0.25 < null.lower < null.mean < 0.5
    assert rung.verdict.result == "supported"


def test_full_and_empty_layers_have_no_value() -> None:
    full: list[Masks] = [{n: np.ones(s, bool) for n, s in SHAPES.items()} for _ in SEEDS]
    empty: list[Masks] = [{n: np.zeros(s, bool) for n, s in SHAPES.items()} for _ in SEEDS]
    for a, b in ((full, full), (empty, empty), (empty, full)):
        rung = rung_of(found(a, b, thetas("full")))
        assert rung.excess.chance is None and rung.excess.other_seeds is None
        assert rung.verdict.result == "not measured"


def test_masks_that_their_start_gives_leave_no_room() -> None:
    """Two methods that keep exactly the largest starts are equal, and that says nothing."""
    of = thetas("exact")
    a: list[Masks] = [{n: largest(np.abs(w), 0.2) for n, w in t.items()} for t in of]
    excess = rung_of(found(a, a, of)).excess
    assert excess.other_seeds is not None and excess.other_seeds.mean == pytest.approx(1)
    assert excess.same_start is None


def test_the_profiles_distance_is_what_must_move() -> None:
    """Three of four kept weights in the first layer against one of four: half must move."""
    a = {"x": np.array([1, 1, 1, 0], bool), "y": np.array([1, 0, 0, 0], bool)}
    b = {"x": a["y"], "y": a["x"]}
    theta = {n: np.arange(4, dtype=np.float32) for n in a}
    assert found([a], [b], [theta]).profile.tolist() == [0.5]
    assert found([a], [a], [theta]).profile.tolist() == [0.0]


def test_all_pairings_are_tried_and_many_are_drawn() -> None:
    diagonal = np.eye(5) + 0.01 * dice("p").random((5, 5))
    assert schema.by_chance_of_pairing(diagonal) == pytest.approx(1 / 120)
    assert schema.by_chance_of_pairing(0.05 * diagonal) == pytest.approx(1 / 120)
    assert schema.by_chance_of_pairing(np.ones((5, 5))) == 1
    assert schema.by_chance_of_pairing(np.eye(9)) == pytest.approx(1e-4)
    assert schema.by_chance_of_pairing(-np.eye(9)) == 1
    assert schema.by_chance_of_pairing(np.full((5, 5), np.nan)) is None
    assert schema.by_chance_of_pairing(np.ones((1, 1))) is None


@given(st.integers(2, 7), st.integers(0, 99))
def test_the_mean_over_other_seeds_is_diagonal_less_the_rest(n: int, draw: int) -> None:
    table = dice("mean", draw).random((n, n)) * 0.5
    off = table[~np.eye(n, dtype=bool)].mean()
    expected = (np.diag(table).mean() - off) / (1 - off)
    assert over_other_seeds(table).mean() == pytest.approx(expected)


def test_a_seeds_value_is_its_own_cell_less_row_and_column() -> None:
    """By hand: rows have .2, .3 and .1 elsewhere, columns .2, .1 and .3; the mean is .2."""
    table = np.array([[0.9, 0.1, 0.3], [0.3, 0.8, 0.3], [0.1, 0.1, 0.7]])
    assert np.allclose(over_other_seeds(table), np.array([0.7, 0.6, 0.5]) / 0.8)


# Hidden units in another order


def groups_of(of: Network) -> tuple[channel_matching.Group, ...]:
    return channel_matching.groups(of, families.shapes(of, of.depth))


@pytest.mark.parametrize("family", FAMILIES)
def test_units_in_another_order_are_the_same_network(family: str) -> None:
    """What a group moves together leaves every output as it was (biases 0, norms alike)."""
    of = spec(family)
    state = families.initial(of, of.depth, 0).tensors()
    for name, tensor in state.items():
        if tensor.ndim == 1 and not name.endswith("running_var"):
            state[name] = torch.full_like(tensor, float(name.endswith("norm.weight")))
    found_groups = groups_of(of)
    assert found_groups
    moved = dict(state)
    for number, group in enumerate(found_groups):
        (units,) = {side.shape[side.axis] for side in group}
        order = torch.from_numpy(dice(family, number).permutation(units))
        for side in group:
            seen = moved[side.name].reshape(side.shape).index_select(side.axis, order)
            moved[side.name] = seen.reshape(state[side.name].shape)
    assert any(not torch.equal(moved[name], state[name]) for name in state)
    before, after = (families.load(of, of.depth, State(s, 0)).eval() for s in (state, moved))
    x = inputs_of(before)
    with torch.no_grad():
        assert torch.allclose(before(x), after(x), atol=1e-4)


def inputs_of(network: torch.nn.Module) -> Tensor:
    ones: Tensor = network.ones()  # type: ignore[operator]
    lots = torch.Generator().manual_seed(0)
    if hasattr(network, "tokens"):
        return torch.randint(0, 6, (4, 2), generator=lots)
    return torch.rand((4, *ones.shape[1:]), generator=lots)


MLP = spec("mlp")


def mlp_masks(name: str, density: float = 0.3) -> list[Masks]:
    shapes = families.shapes(MLP, MLP.depth)
    lots = dice(name)
    return [{n: lots.random(shape) < density for n, shape in shapes.items()} for _ in SEEDS]


def test_shuffled_units_are_found_again() -> None:
    """B is A with the units of every layer in another order: by itself chance, matched the same."""
    a, groups = mlp_masks("units"), groups_of(MLP)
    b: list[Masks] = []
    for seed, masks in enumerate(a):
        moved = dict(masks)
        for number, group in enumerate(groups):
            order = dice("order", seed, number).permutation(group[0].shape[group[0].axis])
            for side in group:
                seen = np.take(moved[side.name].reshape(side.shape), order, side.axis)
                moved[side.name] = seen.reshape(masks[side.name].shape)
        b.append(moved)
    common = channel_matching.matched(a, b, groups)
    kept = np.array([sum(m.sum() for m in masks.values()) for masks in a])
    assert np.diag(common).mean() > 0.9 * kept.mean()  # one layer after the other: near the best
    off = common[~np.eye(5, dtype=bool)].mean()
    assert off < 0.7 * kept.mean()


def test_matching_only_adds_and_does_not_ask_who_is_first() -> None:
    a, b, groups = mlp_masks("first"), mlp_masks("second"), groups_of(MLP)
    table = channel_matching.matched(a, b, groups)
    plain = np.array([[sum((x[n] & y[n]).sum() for n in x) for y in b] for x in a])
    assert (table >= plain).all() and (table > plain).any()
    assert np.array_equal(channel_matching.matched(b, a, groups), table.T)
    most = [[sum(min(x[n].sum(), y[n].sum()) for n in x) for y in b] for x in a]
    assert (table <= np.array(most)).all()


# Verdicts


def around(mean: float, half: float = 0.01, n: int = 5) -> Estimate:
    """Values whose one-sided bounds are about `half` from their mean."""
    values = mean + half * np.linspace(-1, 1, n)
    found_ = verdicts.estimate(values.tolist())
    assert found_ is not None
    return found_


def fallen(mean: float, side: str) -> Estimate:
    """An estimate with one of its bounds just there."""
    one = around(mean)
    shift = mean - (one.lower if side == "lower" else one.upper)  # type: ignore[operator]
    moved = verdicts.estimate([value + shift for value in one.values])
    assert moved is not None
    return moved


@pytest.mark.parametrize(
    ("other", "start", "result"),
    [
        (fallen(0.2001, "lower"), fallen(0.2001, "lower"), "supported"),
        (fallen(0.1999, "lower"), around(0.9), "undecided"),
        (around(0.9), fallen(0.1999, "lower"), "undecided"),
        (around(0.9), fallen(0.0501, "upper"), "undecided"),
        (around(0.9), fallen(0.0499, "upper"), "refuted"),
        (fallen(0.0499, "upper"), around(0.9), "refuted"),
        (around(0.9, n=4), around(0.9, n=5), "too few seeds"),
        (None, around(0.9), "not measured"),
    ],
)
def test_the_rule_of_the_same_subnetwork(
    other: Estimate | None, start: Estimate | None, result: str
) -> None:
    assert verdicts.same_subnetwork(other, start).result == result


@pytest.mark.parametrize(
    ("rule", "bound", "side", "result"),
    [
        (verdicts.already_there, -0.0049, "lower", "supported"),
        (verdicts.already_there, -0.0051, "lower", "undecided"),
        (verdicts.already_there, -0.0049, "upper", "undecided"),
        (verdicts.already_there, -0.0051, "upper", "refuted"),
        (verdicts.tangent, -0.0049, "lower", "supported"),
        (verdicts.tangent, -0.0051, "lower", "undecided"),
        (verdicts.tangent, -0.0249, "upper", "undecided"),
        (verdicts.tangent, -0.0251, "upper", "refuted"),
    ],
)
def test_the_rules_of_non_inferiority(
    rule: Callable[..., Verdict], bound: float, side: str, result: str
) -> None:
    """The margin is half a point; tangent is refuted beyond five of them."""
    assert rule(fallen(bound, side), 0.005, "a").result == result
    assert rule(None, 0.005, "a").result == "not measured"
    assert rule(fallen(bound, side), None, "a").result == "not measured"
    assert rule(around(0.0, n=4), 0.005, "a").result == "too few seeds"


@pytest.mark.parametrize(
    ("shuffled", "reinit", "result"),
    [
        (fallen(0.0001, "lower"), fallen(0.0001, "lower"), "supported"),
        (fallen(-0.0001, "lower"), around(0.9), "undecided"),
        (around(0.9), fallen(-0.0001, "lower"), "undecided"),
        (around(0.9), fallen(0.0051, "upper"), "undecided"),
        (around(0.9), fallen(0.0049, "upper"), "refuted"),
        (around(0.9, n=4), around(0.9, n=4), "too few seeds"),
        (around(0.9), None, "not measured"),
    ],
)
def test_the_rule_of_identity(shuffled: Estimate, reinit: Estimate | None, result: str) -> None:
    assert verdicts.identity_matters(shuffled, reinit, 0.005, "b").result == result


def test_a_rule_is_never_changed_only_superseded() -> None:
    """Another text or threshold needs another version: this digest is that of version 2."""
    table = [rule.model_dump(mode="json") for rule in rules()]
    told = (verdicts.RULES_VERSION, verdicts.LEAST_SEEDS, digest(canonical_json(table))[:16])
    assert told == (2, 5, "839adda9cb1471c5")


# Files


def side(name: str) -> Side:
    return Side(
        id=name,
        method=name.partition("--")[0],
        record=digest(name.encode()),
        division="init",
        margin=0.005,
        untrained=None,
        shuffled=around(0.01),
        reinit=verdicts.estimate([1.0] * 5),
    )


def saved(n: int = 5) -> Saved:
    a, b, common = (random_masks(f"saved{x}", 0.1, n) for x in "abc")
    a, b = joined(a, common), joined(b, common)
    of = found(a, b, thetas("saved", n))
    rungs = [rung_of(of, 0.5), rung_of(of, 0.2)]
    sides = side("imp--00000001"), side("snip--00000002")
    return schema.build("mlp-digits", digest(b""), sides, tuple(range(n)), "", rungs, ())


def test_what_is_saved_is_read_again(tmp_path: Path) -> None:
    one = saved()
    path = files.write(one, tmp_path)
    assert path == tmp_path / "mlp-digits" / "imp--00000001--snip--00000002.json"
    assert load(tmp_path) == (one,)
    assert load(tmp_path / "absent") == ()
    assert [verdict.result for verdict in one.verdicts] == [
        *("supported", "not measured", "supported", "not measured"),
        *("not measured", "supported", "not measured"),
    ]


def test_four_seeds_are_too_few_for_any_verdict() -> None:
    one = saved(4)
    assert one.verdicts[0].result == "too few seeds"
    assert {rung.verdict.result for rung in one.rungs} == {"too few seeds"}


def edits() -> list[tuple[str, Callable[[dict[str, object]], object]]]:
    """Places of a file, and what is done there by hand."""

    def put(*at: str | int, value: object) -> Callable[[dict[str, object]], object]:
        def edit(table: dict[str, object]) -> None:
            for step in at[:-1]:
                table = table[step]  # type: ignore[index, assignment]
            table[at[-1]] = value  # type: ignore[index]

        return edit

    return [
        ("mean", put("rungs", 0, "excess", "other_seeds", "mean", value=0.9)),
        ("p", put("rungs", 1, "excess", "other_seeds", "p", value=0.001)),
        ("table", put("rungs", 0, "table", 0, 0, value=0.99)),
        ("above 1", put("rungs", 0, "table", 0, 0, value=1.5)),
        ("row", put("rungs", 0, "table", 0, value=[0.1])),
        ("rows", put("rungs", 0, "table", value=[])),
        ("matched", put("rungs", 0, "matched_table", value=[[0.1]])),
        ("start", put("rungs", 0, "same_start", value=[0.9] * 5)),
        ("verdict", put("verdicts", 0, "result", value="refuted")),
        ("why", put("verdicts", 0, "why", value="because")),
        ("gap", put("a", "shuffled", "mean", value=0.5)),
        ("margin", put("a", "margin", value=-0.5)),
        ("ladder", put("ladder", "densities", value=[0.5])),
        ("density", put("rungs", 0, "density", value=0.1)),
        ("unknown", put("unknown", value=1)),
        ("version", put("rules", value=1)),
        ("name", put("a", "id", value="../../x")),
        ("other name", put("a", "id", value="imp--00000003")),
        ("task", put("task", value="..")),
        ("huge", put("rungs", 0, "table", 0, 0, value=-1e300)),
        ("text", put("rungs", 0, "table", 0, 0, value="0.1")),
        ("deep", put("not_measured", value=[[[[[[]]]]]])),
    ]


@pytest.mark.parametrize(("name", "edit"), edits(), ids=[name for name, _ in edits()])
def test_a_figure_that_was_edited_is_refused(
    name: str, edit: Callable[[dict[str, object]], object], tmp_path: Path
) -> None:
    path = files.write(saved(), tmp_path)
    table = json.loads(path.read_bytes())
    edit(table)
    path.write_bytes(canonical_json(table))
    with pytest.raises(RecordError, match="imp--00000001--snip") as caught:
        load(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[" * 100_000,
        b'{"schema_version": NaN}',
        b'{"a":"\\u202e\\n<script>"}\n',
        b"\xff\xfe",
        b"9" * 5000 + b"\n",
        b" " * (files.SIZE_LIMIT + 1),
    ],
    ids=["nothing", "empty", "deep", "NaN", "markup", "bytes", "digits", "large"],
)
def test_a_file_that_is_no_evidence_is_refused(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "mlp-digits" / "a--1--b--2.json"
    path.parent.mkdir()
    path.write_bytes(data)
    with pytest.raises(RecordError) as caught:
        load(tmp_path)
    assert str(path) in str(caught.value)
    assert str(caught.value).isprintable()


def test_text_and_json_hold_every_verdict() -> None:
    shown = Evidence((saved(),), left_out="x: tickets of one alone")
    text = shown.text()
    assert "A and B, same subnetwork: SUPPORTED" in text
    assert "supported above 0.2" in text
    assert max(map(len, text.splitlines())) <= 130
    assert text.isascii() or set(text) - set(map(chr, range(128))) <= {"±"}
    table = json.loads(shown.json())
    assert len(table["tasks"]) == 1
    assert [rule["name"] for rule in table["rules"]] == [rule.name for rule in rules()]


# From bundles, folders and entries


OTHER = METHOD.replace('generator("mixed")', 'generator("other")').replace(
    '"name": "mixed"', '"name": "other"'
)


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    """The folder of another random method's evaluation on one task, and its bundle."""
    folder = tmp_path_factory.mktemp("second")
    with board(folder):
        out = finished(folder / "other", OTHER, (DIGITS,), seeds=2)
        file = folder / "other.zip"
        file.write_bytes(pack(out, records_of(out)))
    yield out, file


def test_folders_and_bundles_say_the_same(second: tuple[Path, Path], tmp_path: Path) -> None:
    out, file = second
    with board(tmp_path):
        one = evidence(house().out, out)
        assert evidence(file, house().bundle).tasks == one.tasks
    (of_task,) = one.tasks
    assert [rung.density for rung in of_task.rungs] == [0.5, 0.2, 0.1]
    assert of_task.seeds == (0, 1)
    assert (of_task.a.method, of_task.b.method) == ("mixed", "other")
    assert of_task.matching == "all hidden units"
    assert one.left_out == "tiny-modadd: tickets of one alone"
    assert {verdict.result for verdict in of_task.verdicts} == {"too few seeds", "not measured"}
    for rung in of_task.rungs:
        assert rung.excess.chance is not None and rung.excess.chance.low is None
        assert abs(rung.excess.chance.mean) < 0.1
        assert [row.name for row in rung.layers] == [
            "hidden.0.weight",
            "neck.weight",
            "head.weight",
        ]
    assert "seeds 0, 1" in one.text()


def test_entries_are_saved_under_their_names(
    second: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, file = second
    monkeypatch.setenv("LTHBENCH_BUNDLES", str(tmp_path))
    (tmp_path / "a.zip").write_bytes(file.read_bytes())
    (tmp_path / "b.zip").write_bytes(house().bundle.read_bytes())
    with board(tmp_path / "home") as share:
        names = entry_of(share, house().bundle, DIGITS), entry_of(share, file, DIGITS)
        done = evidence(names[1], names[0], save=True)
        home = share / "_share" / "leaderboard" / "evidence"
        assert done.written == (home / DIGITS / f"{names[0]}--{names[1]}.json",)
        assert load() == done.tasks
        (one,) = load()
        digests = {e.id: e.digest for e in entries.load().entries}
        assert (one.a.record, one.b.record) == tuple(digests[name] for name in names)
        assert evidence(house().bundle, file).tasks == done.tasks  # known again by their records


def test_what_is_no_entry_is_not_saved(second: tuple[Path, Path], tmp_path: Path) -> None:
    with board(tmp_path), pytest.raises(UsageError, match=r"mixed--.* is no entry of the board"):
        evidence(house().bundle, second[1], save=True)
    assert not list(tmp_path.rglob("evidence"))


def test_what_cannot_be_compared(second: tuple[Path, Path], tmp_path: Path) -> None:
    out, file = second
    with board(tmp_path):
        with pytest.raises(RecordError, match=r"tiny-digits: both are other--.*nothing to compare"):
            evidence(out, file)
        with pytest.raises(RecordError, match="no entry 'nobody--1234'"):
            evidence(out, "nobody--1234")
        with pytest.raises(RecordError, match="no records here"):
            evidence(out, tmp_path)


def test_masks_that_are_not_the_records_are_refused(
    second: tuple[Path, Path], tmp_path: Path
) -> None:
    """One seed's ticket under another seed's name."""
    copy = tmp_path / "other"
    shutil.copytree(second[0], copy)
    tickets = copy / DIGITS / "tickets"
    shutil.copy(tickets / "seed0" / "0200000.safetensors", tickets / "seed1")
    with board(tmp_path), pytest.raises(RecordError, match=r"density 0\.2 is not the one of the"):
        evidence(house().out, copy)
