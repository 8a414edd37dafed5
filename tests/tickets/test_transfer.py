"""Elastic transfer: block maps, one table of sources for all that is carried, exact counts."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lthbench.errors import LthbenchError, TaskError, TicketError
from lthbench.networks import families
from lthbench.networks.blocks import Level, level
from lthbench.networks.stages import Stage
from lthbench.networks.state import State, same
from lthbench.tickets.elastic import (
    Order,
    block_map,
    block_maps,
    carried,
    carry,
    copies,
    elastic,
    on_rung,
    parts,
    sources,
    to_count,
    undone,
)
from lthbench.tickets.masks import counts, digest, keep_top, kept, target_count, total
from lthbench.tickets.ticket import Ticket
from tests import strategies, tiny
from tests.strategies import moderate

DEPTHS = (1, 2, 3, 4, 5)
ORDERS: tuple[Order, ...] = get_args(Order)
FAMILIES = tuple(f for f in tiny.FAMILIES if families.stages(tiny.network(f), 2))


# --- block maps ----------------------------------------------------------------------------


def written(text: str) -> tuple[int, ...]:
    """A map in the notation "source:target,target;…" as the source of every target block."""
    rows = [row.split(":") for row in text.split(";")]
    origin = {int(target): int(old) for old, targets in rows for target in targets.split(",")}
    return tuple(origin[target] for target in range(len(origin)))


@pytest.mark.parametrize(
    ("depths", "order", "text"),
    [
        ((14, 20), "append", "0:0;1:1,2"),
        ((14, 20), "interpolate", "0:0;1:1,2"),
        ((20, 32), "append", "0:0;1:1,3;2:2,4"),
        ((20, 32), "interpolate", "0:0;1:1,2;2:3,4"),
        ((20, 44), "append", "0:0;1:1,3,5;2:2,4,6"),
        ((20, 56), "append", "0:0;1:1,3,5,7;2:2,4,6,8"),
        ((32, 44), "append", "0:0;1:1,5;2:2,6;3:3;4:4"),
        ((32, 44), "interpolate", "0:0;1:1,2;2:3,4;3:5;4:6"),
        ((32, 20), "append", "0:0;1:1;2:2"),
        ((20, 14), "append", "0:0;1:1"),
        ((56, 20), "append", "0:0;1:1;2:2"),
        ((56, 20), "interpolate", "0:0;1:1;2:2"),
    ],
)
def test_the_block_maps_of_residual_networks(
    depths: tuple[int, int], order: Order, text: str
) -> None:
    """Chen et al. 2021; a network of D layers has (D - 2) / 6 blocks a stage."""
    source, target = ((depth - 2) // 6 for depth in depths)
    assert block_map(source, target, True, order) == written(text)


def test_without_a_fixed_block_the_first_one_is_copied_first() -> None:
    assert block_map(2, 3, False) == (0, 1, 0)
    assert block_map(2, 5, False, "interpolate") == (0, 0, 0, 1, 1)
    assert block_map(1, 3, False) == (0, 0, 0)
    assert block_map(1, 0, False) == ()
    assert block_map(0, 0, False) == ()


@given(
    source=st.integers(0, 9),
    target=st.integers(0, 20),
    fixed=st.booleans(),
    order=st.sampled_from(ORDERS),
)
def test_a_block_map_copies_many_early_blocks_a_few_times(
    source: int, target: int, fixed: bool, order: Order
) -> None:
    if min(source, target) < fixed or target > source == fixed:
        with pytest.raises(TicketError, match=f"not transferable: {source} to {target} blocks"):
            block_map(source, target, fixed, order)
        return
    blocks = block_map(source, target, fixed, order)
    assert len(blocks) == target
    if target <= source:
        assert blocks == tuple(range(target))
        return
    times = Counter(blocks)
    assert set(times) == set(range(source))
    assert not fixed or (blocks[0] == 0 and times[0] == 1)
    free = [times[block] for block in range(fixed, source)]
    assert free == sorted(free, reverse=True) and free[0] - free[-1] <= 1
    if order == "interpolate":
        assert list(blocks) == sorted(blocks)
    else:
        assert blocks[:source] == tuple(range(source))
        assert blocks[source:] == tuple(
            fixed + i % (source - fixed) for i in range(target - source)
        )
    (back,) = undone((blocks,))
    assert tuple(blocks[place] for place in back) == tuple(range(source))
    assert order == "interpolate" or back == block_map(target, source, fixed)


def test_an_order_that_is_none() -> None:
    with pytest.raises(TicketError, match=r"order 'prepend': .* append or interpolate"):
        block_map(2, 3, True, "prepend")  # type: ignore[arg-type]


# --- sources -------------------------------------------------------------------------------


@cache
def at(family: str, depth: int) -> Level:
    """A small network of a family, or of stages with a fixed first block, at a depth."""
    return residual(depth) if family == "fixed" else level(tiny.network(family), depth)


def residual(depth: int) -> Level:
    """Two stages that begin with a block of its own shape, written by hand."""
    tensors: dict[str, tuple[int, ...]] = {"stem.weight": (2, 3), "stem.mean": (2,)}
    for stage, width in enumerate((2, 4)):
        for block in range(depth):
            reads = width // 2 if block == 0 and stage else width
            tensors[f"stages.{stage}.{block}.conv.weight"] = (width, reads, 2)
            tensors[f"stages.{stage}.{block}.norm.mean"] = (width,)
            if block == 0 and stage:
                tensors[f"stages.{stage}.{block}.shortcut.weight"] = (width, reads)
    tensors["head.weight"] = (3, 4)
    runs = (
        Stage(tuple(f"stages.{stage}.{block}." for block in range(depth)), True) for stage in (0, 1)
    )
    prunable = tuple(name for name in tensors if name.endswith("weight"))
    return Level(depth, tensors, prunable, tuple(runs))


def transferable(family: str, source: int, target: int) -> bool:
    """Whether no stage gets more blocks than there are and has none to copy."""
    return target <= source or all(
        len(stage.blocks) > stage.fixed for stage in at(family, source).stages
    )


EVERY = (*FAMILIES, "fixed")
PAIRS = [(f, *pair) for f in EVERY for pair in product(DEPTHS, DEPTHS) if transferable(f, *pair)]


def mapped(family: str, source: int, target: int, order: Order = "append") -> dict[str, str]:
    old, new = at(family, source), at(family, target)
    return sources(old, new, block_maps(old, new, order))


def test_the_families_have_blocks_to_carry() -> None:
    assert set(FAMILIES) == {"mlp", "pair-mlp", "transformer", "resnet", "vit"}
    assert sum(family == "mlp" for family, *_ in PAIRS) == 21  # depth 1 has no square layer
    assert sum(family == "resnet" for family, *_ in PAIRS) == 21  # nor any but a fixed block
    assert sum(family == "transformer" for family, *_ in PAIRS) == 25


@pytest.mark.parametrize("family", EVERY)
def test_every_target_tensor_has_one_source_of_its_shape(family: str) -> None:
    for name, source, target in PAIRS:
        for order in ORDERS if name == family else ():
            old, new = at(family, source), at(family, target)
            where = mapped(family, source, target, order)
            assert list(where) == list(new.tensors)
            assert set(where.values()) <= set(old.tensors)
            for tensor, origin in where.items():
                assert old.tensors[origin] == new.tensors[tensor]
                assert (origin in old.prunable) == (tensor in new.prunable)
                assert last(tensor) == last(origin)
            if source == target:
                assert all(tensor == origin for tensor, origin in where.items())
            if target >= source:
                assert set(where.values()) == set(old.tensors)


def last(name: str) -> str:
    """What a tensor is called in its block: without any number."""
    return ".".join(part for part in name.split(".") if not part.isdigit())


@pytest.mark.parametrize("family", EVERY)
def test_what_stands_outside_of_blocks_and_fixed_blocks_go_one_to_one(family: str) -> None:
    for name, source, target in PAIRS:
        for order in ORDERS if name == family else ():
            where = mapped(family, source, target, order)
            stages = at(family, target).stages
            repeated = tuple(block for stage in stages for block in stage.blocks[stage.fixed :])
            for tensor, origin in where.items():
                if not tensor.startswith(repeated):
                    assert tensor == origin
                    assert list(where.values()).count(origin) == 1
            fixed = tuple(stage.blocks[0] for stage in stages if stage.fixed)
            of_fixed = (
                [t for t in at(family, source).tensors if t.startswith(fixed)] if fixed else []
            )
            assert set(of_fixed) <= set(where)


def test_the_blocks_of_a_transformer_by_name() -> None:
    where = mapped("transformer", 2, 4)
    origins = [where[f"blocks.{block}.up.bias"] for block in range(4)]
    assert origins == [f"blocks.{block}.up.bias" for block in (0, 1, 0, 1)]
    between = mapped("transformer", 2, 4, "interpolate")
    origins = [between[f"blocks.{block}.query.weight"] for block in range(4)]
    assert origins == [f"blocks.{block}.query.weight" for block in (0, 0, 1, 1)]
    assert (where["embed.weight"], where["position"]) == ("embed.weight", "position")


def test_ten_blocks_are_told_from_one() -> None:
    where = mapped("transformer", 12, 11)
    assert all(tensor == origin for tensor, origin in where.items())


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_carried_can_be_loaded(family: str) -> None:
    spec = tiny.network(family)
    source = 2
    start = families.initial(spec, source, 0)
    for target in (1, 2, 4):
        moved = carry(dict(start), mapped(family, source, target))
        module = families.load(spec, target, State(moved, 0))
        assert all(bool(tensor.isfinite().all()) for tensor in module.state_dict().values())
        assert {n: tuple(t.shape) for n, t in moved.items()} == {
            n: tuple(t.shape) for n, t in families.initial(spec, target, 0).items()
        }


# --- carrying ------------------------------------------------------------------------------


def drawn(of: Level, seed: int, density: float = 0.5) -> tuple[Ticket, dict[str, Tensor]]:
    """A ticket on a rung whose kept weights are positive and all others negative; its state."""
    draw = np.random.default_rng(seed)
    start = {n: torch.from_numpy(draw.random(s).astype(np.float32)) for n, s in of.tensors.items()}
    masks = keep_top(
        {n: torch.from_numpy(draw.random(of.tensors[n])) for n in of.prunable}, density
    )
    signed = {n: torch.where(masks[n], t, -t) if n in masks else t for n, t in start.items()}
    return Ticket(masks, weights=signed), signed


@st.composite
def pairs(draw: st.DrawFn) -> tuple[str, int, int]:
    """A family and two depths of it between which a ticket can be carried."""
    return draw(st.sampled_from(PAIRS))


@moderate
@given(pair=pairs(), order=st.sampled_from(ORDERS), seed=strategies.seeds())
def test_masks_and_weights_go_together(pair: tuple[str, int, int], order: Order, seed: int) -> None:
    """Every sign says whether its own entry was kept: a mask from elsewhere would show."""
    family, source, target = pair
    old, new = at(family, source), at(family, target)
    ticket, start = drawn(old, seed)
    before = {name: tensor.clone() for name, tensor in start.items()}
    maps = block_maps(old, new, order)
    where = sources(old, new, maps)
    result = carried(ticket, start, old, new, 0.5, maps)
    assert result.weights is not None
    assert list(result.weights) == list(new.tensors) and list(result.masks) == list(new.prunable)
    for name, tensor in result.weights.items():
        assert same(tensor, start[where[name]])
    assert kept(result.masks) == target_count(0.5, total(result.masks))
    if target >= source:
        for name in set(new.prunable) - set(copies(new, maps)):
            assert torch.equal(result.masks[name], result.weights[name] > 0)
    for name, tensor in start.items():
        assert same(tensor, before[name])
    for tensor in (*result.weights.values(), *result.masks.values()):
        tensor.zero_()
    for name, tensor in start.items():
        assert same(tensor, before[name])
    assert digest(ticket.masks) == digest({n: before[n] > 0 for n in old.prunable})


@moderate
@given(pair=pairs(), order=st.sampled_from(ORDERS), seed=strategies.seeds())
def test_a_squeeze_takes_a_stretch_back(
    pair: tuple[str, int, int], order: Order, seed: int
) -> None:
    """Bit for bit, though the copies were brought to the rung's count on the way."""
    family, one, other = pair
    old, new = at(family, min(one, other)), at(family, max(one, other))
    if not transferable(family, old.depth, new.depth):
        return
    ticket, start = drawn(old, seed)
    maps = block_maps(old, new, order)
    there = carried(ticket, start, old, new, 0.5, maps)
    assert there.weights is not None
    back = carried(there, there.weights, new, old, 0.5, undone(maps))
    assert back.weights is not None
    assert digest(back.masks) == digest(ticket.masks)
    assert list(back.weights) == list(start)
    assert all(same(back.weights[name], start[name]) for name in start)
    if order == "append":
        dropped = carried(there, there.weights, new, old, 0.5, block_maps(new, old))
        assert digest(dropped.masks) == digest(ticket.masks)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("family", sorted({family for family, _, _ in PAIRS}))
@pytest.mark.parametrize(
    "rule", [test_masks_and_weights_go_together, test_a_squeeze_takes_a_stretch_back]
)
def test_no_pair_of_depths_is_forgotten(rule: Any, family: str, order: Order) -> None:
    """Hypothesis samples the pairs; here each has its turn."""
    for pair in PAIRS:
        if pair[0] == family:
            rule.hypothesis.inner_test(pair=pair, order=order, seed=0)


def test_only_copies_are_brought_to_the_rung() -> None:
    old, new = at("transformer", 2), at("transformer", 3)
    maps = block_maps(old, new)
    assert {name.split(".")[1] for name in copies(new, maps)} == {"2"}
    assert {n.split(".")[1] for n in copies(new, block_maps(old, new, "interpolate"))} == {"1"}
    assert copies(old, block_maps(new, old)) == ()
    ticket, start = drawn(old, 3, density=0.3)
    result = carried(ticket, start, old, new, 0.3, maps)
    for name in old.prunable:
        assert torch.equal(result.masks[name], ticket.masks[name])
    added = {name: result.masks[name] for name in copies(new, maps)}
    assert kept(added) == kept(result.masks) - kept(ticket.masks)
    assert abs(kept(added) - 0.3 * total(added)) <= 1


# --- exact counts --------------------------------------------------------------------------


def prefix(size: int, count: int) -> Tensor:
    return torch.arange(size) < count


def weighted(masks: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights that grow in magnitude with the index, with signs that turn."""
    return {
        name: (torch.arange(1.0, mask.numel() + 1) * torch.tensor(-1.0)).reshape(mask.shape)
        for name, mask in masks.items()
    }


def test_surplus_is_taken_where_it_is_by_magnitude() -> None:
    masks = {"a": prefix(10, 9), "b": prefix(10, 6), "c": prefix(10, 0)}
    result = to_count(masks, weighted(masks), 12)
    # Density .4: a has 5 too many, b 2, c lacks 4; three are taken, 15/7 and 6/7 of them.
    assert counts(result) == {"a": 7, "b": 5, "c": 0}
    assert result["a"].tolist() == [False, False, *[True] * 7, False]
    assert result["b"].tolist() == [False, *[True] * 5, *[False] * 4]


def test_lack_is_filled_where_it_is_by_magnitude() -> None:
    masks = {"a": prefix(10, 9), "b": prefix(10, 4), "c": prefix(10, 1)}
    result = to_count(masks, weighted(masks), 18)
    # Density .6: b lacks 2, c 5; four are added, 8/7 and 20/7 of them.
    assert counts(result) == {"a": 9, "b": 5, "c": 4}
    assert result["b"].tolist() == [*[True] * 4, *[False] * 5, True]
    assert result["c"].tolist() == [True, *[False] * 6, *[True] * 3]
    assert result["a"].tolist() == masks["a"].tolist()


def test_tensors_apart_from_the_copies_give_only_what_these_cannot() -> None:
    masks = {"a": prefix(10, 5), "b": prefix(10, 5)}
    assert counts(to_count(masks, weighted(masks), 8, ["b"])) == {"a": 5, "b": 3}
    assert counts(to_count(masks, weighted(masks), 5, ["b"])) == {"a": 5, "b": 0}
    assert counts(to_count(masks, weighted(masks), 15, ["b"])) == {"a": 5, "b": 10}
    assert counts(to_count(masks, weighted(masks), 16, ["b"])) == {"a": 8, "b": 8}


def test_equal_magnitudes_go_by_the_fixed_rank() -> None:
    masks = {"w": prefix(40, 20)}
    flat = {"w": torch.ones(40)}
    result = to_count(masks, flat, 12)
    assert torch.equal(result["w"], keep_top(flat, {"w": 12}, masks)["w"])
    assert not torch.equal(result["w"], prefix(40, 12))


@moderate
@given(data=st.data(), masks=strategies.masks(), seed=strategies.seeds())
def test_counts_are_exact_and_change_one_way(
    data: st.DataObject, masks: dict[str, Tensor], seed: int
) -> None:
    have, size = kept(masks), total(masks)
    wanted = data.draw(st.integers(-(-have // 2), min(2 * have, size)))
    among = data.draw(st.sets(st.sampled_from(sorted(masks))))
    draw = np.random.default_rng(seed)
    weights = {n: torch.from_numpy(np.array(draw.normal(size=m.shape))) for n, m in masks.items()}
    before = digest(masks)
    result = to_count(masks, weights, wanted, among)
    assert kept(result) == wanted
    assert list(result) == list(masks) and digest(masks) == before
    outside = have - sum(int(masks[name].sum()) for name in among)
    room = sum(masks[name].numel() for name in among)
    enough = 0 <= wanted - outside <= room and bool(among)
    chosen = among if enough else set(masks)
    density = (wanted - (outside if enough else 0)) / max(1, sum(masks[n].numel() for n in chosen))
    for name, mask in masks.items():
        one, magnitude = result[name], weights[name].abs()
        assert one.shape == mask.shape
        if wanted <= have:
            gone = mask & ~one
            assert not bool((one & ~mask).any())
            assert (
                not bool(gone.any())
                or not bool(one.any())
                or (magnitude[gone].max() <= magnitude[one].min())
            )
        else:
            gone = one & ~mask
            assert not bool((mask & ~one).any())
            assert (
                not bool(gone.any())
                or bool(one.all())
                or (magnitude[gone].min() >= magnitude[~one].max())
            )
        if bool(gone.any()):
            assert name in chosen
            past = (density * mask.numel() - int(one.sum())) * (1 if wanted <= have else -1)
            assert past < 1


@pytest.mark.parametrize("wanted", [-1, 21])
def test_a_count_that_is_none(wanted: int) -> None:
    masks = {"a": prefix(20, 10)}
    with pytest.raises(TicketError, match=f"{wanted} of 20 entries are to be kept"):
        to_count(masks, weighted(masks), wanted)


@pytest.mark.parametrize("wanted", [7, 31])
def test_a_density_off_by_more_than_a_factor_of_two_is_refused(wanted: int) -> None:
    masks = {"a": prefix(20, 5), "b": prefix(20, 10)}
    far = "b: .* this tensor keeps 10 of 20" if wanted == 7 else "a: .* this tensor keeps 5 of 20"
    rung = f"density 0.375 for a rung of {wanted / 40:.4g}, off by more than a factor of 2"
    with pytest.raises(TicketError, match=far) as error:
        to_count(masks, weighted(masks), wanted)
    assert rung in str(error.value) and "\n" not in str(error.value)
    for allowed in (8, 30):
        assert kept(to_count(masks, weighted(masks), allowed)) == allowed


def test_weights_that_do_not_fit_the_masks() -> None:
    masks = {"a": prefix(20, 10)}
    with pytest.raises(TicketError, match="a has a mask but no weights"):
        to_count(masks, {}, 9)
    with pytest.raises(TicketError, match=r"a has shape \[3\] in scores"):
        to_count(masks, {"a": torch.ones(3)}, 9)
    with pytest.raises(TicketError, match="scores of a contain NaN"):
        to_count(masks, {"a": torch.full((20,), torch.nan)}, 9)


# --- errors --------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [0, -1])
def test_a_depth_that_a_family_does_not_have(depth: int) -> None:
    for family in FAMILIES:
        with pytest.raises(
            TaskError, match=f"^depth {depth}: {family} networks have depths from 1$"
        ):
            level(tiny.network(family), depth)


def test_a_family_that_repeats_nothing() -> None:
    spec = tiny.network("conv")
    assert level(spec, spec.depth).stages == ()
    deeper, only = spec.depth + 1, f"conv networks repeat no block: {spec.depth} is their only"
    with pytest.raises(TaskError, match=f"^depth {deeper}: {only} depth$"):
        level(spec, deeper)


@pytest.mark.parametrize(("family", "block"), [("mlp", "hidden.1."), ("fixed", "stages.0.1.")])
def test_a_source_that_lacks_a_unit(family: str, block: str) -> None:
    with pytest.raises(TicketError) as error:
        mapped(family, 1, 3)
    assert str(error.value).startswith(f"{block}* from depth 1: not transferable")
    assert "\n" not in str(error.value)


def changed(of: Level, drop: str = "", **shapes: tuple[int, ...]) -> Level:
    """A level without one tensor, or with others (a name's dots are written as __)."""
    tensors = {name: shape for name, shape in of.tensors.items() if name != drop}
    tensors |= {name.replace("__", "."): shape for name, shape in shapes.items()}
    return replace(of, tensors=tensors, prunable=tuple(n for n in of.prunable if n in tensors))


BLOCK = "stages.1.1.conv.weight"


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        (changed(residual(2), "stem.mean"), residual(3), "stem.mean at depth 3 has no source"),
        (
            changed(residual(2), BLOCK), residual(3),
            "stages.1.1.conv.weight at depth 3 has no source: there is no stages.1.1.conv.weight",
        ),
        (
            residual(2), changed(residual(3), extra=(2,)),
            "extra at depth 3 has no source: there is no extra at depth 2",
        ),
        (
            residual(2), changed(residual(3), stages__0__2__bias=(2,)),
            "stages.0.2.bias at depth 3 has no source: there is no stages.0.1.bias at depth 2",
        ),
        (changed(residual(2), extra=(2,)), residual(3), "extra at depth 2 has no place at depth 3"),
        (
            changed(residual(3), stages__0__0__bias=(2,)), residual(2),
            "stages.0.0.bias at depth 3 has no place at depth 2",
        ),
        (
            residual(2), changed(residual(3), head__weight=(9, 4)),
            r"head.weight has shape \(9, 4\), its source head.weight has \(3, 4\)",
        ),
        (
            replace(residual(2), prunable=("head.weight",)), residual(3),
            "stem.weight and its source stem.weight: only one",
        ),
        (residual(2), at("transformer", 3), "2 stages at depth 2 and 1 at depth 3"),
        (at("pair-mlp", 2), at("transformer", 2), "position at depth 2 has no source: there is no"),
    ],
)  # fmt: skip
def test_a_mapping_that_does_not_fit_names_the_tensor(
    source: Level, target: Level, message: str
) -> None:
    with pytest.raises(TicketError, match=message) as error:
        sources(source, target, block_maps(source, target))
    assert "\n" not in str(error.value)


def test_a_dropped_block_needs_no_place() -> None:
    extra = changed(residual(3), stages__0__2__bias=(2,))
    assert "stages.0.2.bias" not in sources(extra, residual(2), block_maps(extra, residual(2)))


@pytest.mark.parametrize(
    ("maps", "message"),
    [
        (
            ((0, 1), (0, 1)),
            r"block map \(0, 1\): it must name one of 2 source blocks for each of 3",
        ),
        (((0, 1, 2), (0, 1, 1)), r"block map \(0, 1, 2\): it must name one of 2 source blocks"),
        (((0, 1, 0), (0, 1, 1)), "stages.0.0.* is fixed: it comes from block 0, which comes once"),
        (((0, 1, 1), (1, 1, 1)), "stages.1.0.* is fixed: it comes from block 0, which comes once"),
    ],
)
def test_a_block_map_of_ones_own_is_checked(
    maps: tuple[tuple[int, ...], ...], message: str
) -> None:
    with pytest.raises(TicketError, match=message):
        sources(residual(2), residual(3), maps)


def test_what_is_not_there_cannot_be_carried() -> None:
    with pytest.raises(TicketError, match=r"b: its source a is not among what is carried"):
        carry({}, {"b": "a"})


# --- tickets -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shown:
    """What a problem shows of itself, with a dense run of two states."""

    family: str
    depth: int
    densities: tuple[float, ...] = (0.8, 0.4, 0.2)
    untrained_densities: tuple[float, ...] = (0.6,)

    @property
    def level(self) -> Level:
        return at(self.family, self.depth)

    def theta(self, k: int = 0) -> State:
        return State(drawn(self.level, 100 + k)[1], k)


@pytest.mark.parametrize("start", [0, 3])
def test_a_ticket_takes_its_rung_its_start_and_the_dense_runs_weights(start: int) -> None:
    source = Shown("transformer", 2)
    masks = drawn(source.level, 7, 0.4)[0].masks
    for depth in (1, 2, 3):
        target = Shown("transformer", depth)
        result = elastic(Ticket(masks, start), source, target)
        assert (result.start, result.trained) == (start, True)
        assert kept(result.masks) == target_count(0.4, total(result.masks))
        assert result.weights is not None
        expected = carry(dict(source.theta(start)), mapped("transformer", 2, depth))
        assert all(same(result.weights[name], tensor) for name, tensor in expected.items())


def test_a_tickets_own_weights_are_carried_and_orders_differ() -> None:
    source, target = Shown("transformer", 2), Shown("transformer", 3)
    ticket, start = drawn(source.level, 7, 0.4)
    results = [elastic(ticket, source, target, order=order) for order in ORDERS]
    for result, block in zip(results, (1, 0), strict=True):
        assert result.weights is not None
        own = start[f"blocks.{block}.up.weight"]
        assert same(result.weights["blocks.1.up.weight"], own)


def test_an_untrained_ticket_has_its_own_ladder() -> None:
    source, target = Shown("pair-mlp", 2), Shown("pair-mlp", 3)
    masks = drawn(source.level, 7, 0.6)[0].masks
    result = elastic(Ticket(masks, trained=False), source, target)
    assert not result.trained
    assert kept(result.masks) == target_count(0.6, total(result.masks))
    with pytest.raises(TicketError, match="which is no rung"):
        elastic(Ticket(masks), source, target)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (("transformer", 3), "blocks.2.down.weight: not prunable"),
        (("transformer", 1), "mask missing for blocks.1.query.weight"),
        (("pair-mlp", 2), "mask missing for blocks.0.query.weight"),
    ],
)
def test_a_ticket_for_another_network_is_refused(other: tuple[str, int], message: str) -> None:
    ticket = Ticket(drawn(at(*other), 0, 0.4)[0].masks)
    with pytest.raises(TicketError, match=f"^not a ticket of depth 2: {message}"):
        elastic(ticket, Shown("transformer", 2), Shown("transformer", 3))


def test_weights_for_another_network_are_refused() -> None:
    source = Shown("transformer", 2)
    ticket, start = drawn(source.level, 0, 0.4)
    ticket = replace(ticket, weights={**start, "position": torch.ones(4, 8)})
    with pytest.raises(
        TicketError, match=r"not a ticket of depth 2: .* position is missing or mis"
    ):
        elastic(ticket, source, Shown("transformer", 3))


def test_a_carried_ticket_that_comes_out_too_sparse_is_refused() -> None:
    """All that is kept stands outside of what is copied."""
    source, target = Shown("transformer", 1), Shown("transformer", 9)
    sizes = source.level.tensors
    scores = {
        name: torch.full(sizes[name], 0.0 if name.startswith("blocks") else 1.0)
        for name in source.level.prunable
    }
    with pytest.raises(TicketError, match="off by more than a factor of 2") as error:
        elastic(Ticket(keep_top(scores, 0.2)), source, target)
    assert isinstance(error.value, LthbenchError) and "\n" not in str(error.value)
    assert str(error.value).split(":")[0] in target.level.prunable


def test_a_ticket_that_a_method_carried_is_brought_to_its_rung() -> None:
    here = at("transformer", 3)
    ticket, start = drawn(here, 0, 0.3)
    result = on_rung(Ticket(ticket.masks, 2), start, here, 0.4)
    assert (result.start, result.weights) == (2, None)
    assert kept(result.masks) == target_count(0.4, total(result.masks)) > kept(ticket.masks)
    assert digest(on_rung(ticket, start, here, 0.3).masks) == digest(ticket.masks)
    with pytest.raises(TicketError, match="off by more than a factor of 2"):
        on_rung(ticket, start, here, 0.1)
    with pytest.raises(TicketError, match=r"^not a ticket of depth 2: blocks.2.down.weight"):
        on_rung(ticket, start, at("transformer", 2), 0.3)


def test_the_parts_of_a_carried_ticket() -> None:
    ticket, start = drawn(at("transformer", 3), 0, 0.4)
    ticket = replace(ticket, start=2)
    fresh = drawn(at("transformer", 3), 1, 0.4)[1]
    found = parts(ticket, fresh, 5)
    assert list(found) == ["layers", "mask-only", "weights-only"]
    random = found["layers"].masks
    assert counts(random) == counts(ticket.masks) and digest(random) != digest(ticket.masks)
    assert digest(found["weights-only"].masks) == digest(random)
    assert digest(found["mask-only"].masks) == digest(ticket.masks)
    for name in ("layers", "mask-only"):
        assert (found[name].start, found[name].weights) == (0, fresh)
    assert found["weights-only"].start == 2
    assert found["weights-only"].weights is ticket.weights is start
    again, other = (parts(ticket, fresh, 5, attempt=n)["layers"] for n in (0, 1))
    assert digest(again.masks) == digest(random) != digest(other.masks)
    assert digest(parts(ticket, fresh, 6)["layers"].masks) != digest(random)
