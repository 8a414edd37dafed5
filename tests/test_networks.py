"""Networks: their sizes, the weights they begin with, and which kept weights can matter."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from lthbench import networks
from lthbench.errors import TaskError
from lthbench.states import same
from lthbench.task import Network, Task, load_task, task_names
from tests import tiny
from tests.strategies import masks as random_masks
from tests.strategies import moderate

Bools = NDArray[np.bool_]
TASKS = [load_task(name) for name in task_names()]


# --- sizes ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "prunable", "parameters"),
    [
        ("lenet300-mnist", 266_200, 266_610),
        ("mlp-digits", 50_200, 50_610),
        ("mlp-modadd59", 59 * 64 + 128 * 128 * 2 + 59 * 128, 44_411),
        ("transformer-modadd59", 60 * 64 + 4 * 64 * 64 + 2 * 64 * 256 + 59 * 64, 57_280),
    ],
)
def test_networks_have_the_sizes_of_the_protocol(name: str, prunable: int, parameters: int) -> None:
    task = load_task(name)
    shapes = networks.shapes(task.network, task.network.depth)
    assert sum(math.prod(shape) for shape in shapes.values()) == prunable
    module = networks.build(task.network, task.network.depth)
    assert sum(p.numel() for p in module.parameters()) == parameters
    assert all(p.device.type == "meta" for p in module.parameters())


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_weights_are_prunable_and_nothing_else(task: Task) -> None:
    for depth in (1, 2, 3):
        shapes = networks.shapes(task.network, depth)
        names = networks.initial(task.network, depth, 0)
        assert list(shapes) == [name for name in names if name.endswith(".weight")]
        assert all(len(shape) == 2 for shape in shapes.values())


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_a_deeper_network_has_more_units_of_the_same_shape(family: str) -> None:
    of = tiny.network(family)
    two, three = (networks.shapes(of, depth) for depth in (2, 3))
    more = set(three) - set(two)
    last = {name.replace(".2.", ".1.") for name in more}
    assert more and {three[n] for n in more} == {two[n] for n in last}
    assert {name: three[name] for name in two} == two


# --- initial weights -----------------------------------------------------------------------


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_initial_weights_have_their_distributions(task: Task) -> None:
    state = networks.initial(task.network, task.network.depth, 11)
    assert state.step == 0
    for name, tensor in state.items():
        assert tensor.dtype == torch.float32 and tensor.device.type == "cpu"
        if name.endswith("bias"):
            assert not tensor.any()
            continue
        expected = {"embed.weight": 0.125, "position": 0.125}.get(name, 0.125)
        if task.network.family == "mlp":
            expected = math.sqrt(2 / sum(tensor.shape))
        elif task.network.family == "pair-mlp" and name != "embed.weight":
            expected = 0.051
        z = tensor.double().flatten() / expected
        n = len(z)
        assert abs(float(z.mean())) < 5 / math.sqrt(n)
        assert abs(float(z.var()) - 1) < 5 * math.sqrt(2 / n)
        assert abs(float((z**4).mean()) - 3) < 5 * math.sqrt(96 / n)


@pytest.mark.parametrize(
    ("distribution", "deviation"),
    [("glorot-normal", math.sqrt(2 / 500)), ("kaiming-normal", math.sqrt(2 / 300)), ("normal", 3)],
)
def test_fans_are_those_of_the_layer(distribution: str, deviation: float) -> None:
    init = {"tensors": ("*.weight",), "distribution": distribution, "value": 3.0}
    biases = {"tensors": ("*.bias",), "distribution": "constant", "value": 0.5}
    of = tiny.network(inputs=300, width=200, neck=0, init=(init, biases))
    state = networks.initial(of, 1, 0)
    assert float(state["hidden.0.weight"].std()) == pytest.approx(deviation, rel=0.02)
    assert bool((state["hidden.0.bias"] == 0.5).all())


def test_the_same_seed_draws_the_same_weights() -> None:
    of = tiny.network()
    assert networks.initial(of, 2, 3).digest == networks.initial(of, 2, 3).digest
    others = [networks.initial(of, 2, 4), networks.initial(of, 2, 3, "reinit")]
    others += [networks.initial(of, 2, 3), networks.initial(of, 2, 3, "reinit", "1")]
    assert len({state.digest for state in others}) == 4


def test_a_tensor_s_draw_does_not_depend_on_the_depth() -> None:
    two, three = (networks.initial(tiny.network(), depth, 0) for depth in (2, 3))
    assert all(same(two[name], three[name]) for name in two)
    assert not same(three["hidden.1.weight"], three["hidden.2.weight"])


@pytest.mark.parametrize("patterns", [["*.weight"], ["*"], ["*", "*.bias"]])
def test_every_tensor_needs_exactly_one_row(patterns: list[str]) -> None:
    rows = tuple(
        {"tensors": (pattern,), "distribution": "constant", "value": 0.0} for pattern in patterns
    )
    of = tiny.network(init=rows)
    if patterns == ["*"]:
        networks.initial(of, 2, 0)
        return
    with pytest.raises(TaskError, match=r"hidden\.0\.bias: [02] rows match"):
        networks.initial(of, 2, 0)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_a_loaded_network_has_weights_of_its_own(family: str) -> None:
    of = tiny.network(family)
    state = networks.initial(of, of.depth, 0)
    before = state.digest
    module = networks.load(of, of.depth, state)
    with torch.no_grad():
        for parameter in module.parameters():
            assert parameter.requires_grad
            parameter.zero_()
    assert state.digest == before


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_a_network_takes_its_all_ones_input(family: str) -> None:
    of = tiny.network(family)
    module = networks.load(of, of.depth, networks.initial(of, of.depth, 0))
    ones = module.ones()  # type: ignore[operator]
    assert module(ones).shape == (1, tiny.CLASSES)
    data = tiny.examples(family, 9)
    assert module(data.inputs(slice(None))).shape == (9, tiny.CLASSES)


@pytest.mark.parametrize("family", ["pair-mlp", "transformer"])
def test_a_token_is_a_weight_of_one_on_its_row(family: str) -> None:
    of = tiny.network(family)
    module = networks.load(of, of.depth, networks.initial(of, of.depth, 0))
    x = torch.tensor([[1, 5], [0, 0], [6, 2]])
    given = x if family == "pair-mlp" else torch.cat([x, torch.full((3, 1), tiny.TOKENS)], 1)
    one_hot = torch.nn.functional.one_hot(given, of.inputs).float()
    assert torch.allclose(module(x), module(one_hot), atol=1e-6)


def test_attention_looks_back_alone() -> None:
    """In a deep transformer the first token's stream does not change with the second token."""
    of = tiny.network("transformer")
    module = networks.load(of, 2, networks.initial(of, 2, 0))
    streams: list[Tensor] = []
    module.blocks[0].register_forward_hook(  # type: ignore[union-attr, index]
        lambda block, given, out: streams.append(out)
    )
    module(torch.tensor([[3, 1], [3, 4]]))
    (first,) = streams
    assert torch.equal(first[0, 0], first[1, 0])
    assert not torch.allclose(first[0, 1], first[1, 1])
    assert not torch.allclose(first[0, 2], first[1, 2])


# --- effective weights ---------------------------------------------------------------------


def full(of: Network, depth: int) -> dict[str, Tensor]:
    shapes = networks.shapes(of, depth)
    return {name: torch.ones(shape, dtype=torch.bool) for name, shape in shapes.items()}


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_all_weights_of_a_full_network_are_effective(family: str, depth: int) -> None:
    of = tiny.network(family)
    masks = full(of, depth)
    found = networks.effective(of, depth, masks)
    assert list(found) == list(masks)
    assert all(bool(mask.all()) for mask in found.values())


@pytest.mark.parametrize("family", ["mlp", "pair-mlp"])
def test_an_emptied_layer_leaves_nothing_effective(family: str) -> None:
    of = tiny.network(family)
    for name in networks.shapes(of, 2):
        masks = full(of, 2)
        masks[name][:] = False
        assert not any(mask.any() for mask in networks.effective(of, 2, masks).values())


@pytest.mark.parametrize("emptied", ["query", "key"])
def test_values_pass_without_attention_scores(emptied: str) -> None:
    of = tiny.network("transformer")
    masks = full(of, 1)
    masks[f"blocks.0.{emptied}.weight"][:] = False
    found = networks.effective(of, 1, masks)
    for name, mask in found.items():
        expected = "query" not in name and "key" not in name
        rows = mask[:-1] if name == "embed.weight" else mask  # "=" was read by the query alone
        assert bool(rows.all()) == expected, name
    assert not found["embed.weight"][-1].any()


@pytest.mark.parametrize("emptied", ["value", "output", "head"])
def test_without_values_nothing_of_the_operands_arrives(emptied: str) -> None:
    of = tiny.network("transformer")
    masks = full(of, 1)
    masks[f"blocks.0.{emptied}.weight" if emptied != "head" else "head.weight"][:] = False
    assert not any(mask.any() for mask in networks.effective(of, 1, masks).values())
    state = networks.initial(of, 1, 0).tensors()
    for name, mask in masks.items():
        state[name] *= mask
    outputs = networks.load(of, 1, networks.initial(of, 1, 0))
    outputs.load_state_dict(state)
    logits = outputs(torch.tensor([[0, 1], [2, 3], [6, 6]]))
    assert torch.equal(logits[0], logits[1]) and torch.equal(logits[0], logits[2])


def layered(masks: Mapping[str, Bools], alive: Bools, layers: list[str]) -> dict[str, Bools]:
    """Reachability through layers, forward from the inputs and back from the outputs."""
    forward = [alive]
    for name in layers:
        forward.append((masks[name] & forward[-1]).any(1))
    back = [np.ones(len(forward[-1]), dtype=bool)]
    for name in reversed(layers):
        back.insert(0, (masks[name] & back[0][:, None]).any(0))
    result = {
        name: masks[name] & forward[i] & back[i + 1][:, None] for i, name in enumerate(layers)
    }
    return result | {"inputs": forward[0] & back[0]}


@moderate
@given(drawn=st.data(), depth=st.integers(1, 3), neck=st.sampled_from([0, 2]))
def test_effective_weights_of_an_mlp_lie_on_a_path(
    drawn: st.DataObject, depth: int, neck: int
) -> None:
    of = tiny.network(inputs=3, width=3, neck=neck, classes=2)
    masks = drawn.draw(random_masks(networks.shapes(of, depth)))
    found = networks.effective(of, depth, masks)
    bools = {name: mask.numpy() for name, mask in masks.items()}
    expected = layered(bools, np.ones(3, dtype=bool), list(masks))
    for name, mask in found.items():
        assert np.array_equal(mask.numpy(), expected[name]), name


@moderate
@given(drawn=st.data(), depth=st.integers(1, 2))
def test_effective_weights_of_a_pair_mlp_lie_on_a_path(drawn: st.DataObject, depth: int) -> None:
    of = tiny.network("pair-mlp", inputs=3, embedding=2, width=3, classes=2)
    masks = drawn.draw(random_masks(networks.shapes(of, depth)))
    found = networks.effective(of, depth, masks)
    bools = {name: mask.numpy() for name, mask in masks.items()}
    reached = np.tile(bools["embed.weight"].any(0), 2)  # dimension d of the first or second token
    expected = layered(bools, reached, [name for name in masks if name != "embed.weight"])
    read = expected["inputs"].reshape(2, -1).any(0)
    expected["embed.weight"] = bools["embed.weight"] & read
    for name, mask in found.items():
        assert np.array_equal(mask.numpy(), expected[name]), name


@moderate
@given(drawn=st.data())
def test_effective_weights_of_a_transformer_lie_on_a_path(drawn: st.DataObject) -> None:
    of = tiny.network("transformer", inputs=3, width=4, hidden=3, classes=2)
    masks = drawn.draw(random_masks(networks.shapes(of, 1)))
    found = networks.effective(of, 1, masks)
    expected = reached_by_attention({name: mask.numpy() for name, mask in masks.items()})
    for name, mask in found.items():
        assert np.array_equal(mask.numpy(), expected[name]), name


def reached_by_attention(masks: Mapping[str, Bools], heads: int = 2) -> dict[str, Bools]:
    """Reachability in one block, read at "=": operands pass as values, and by query and key."""
    block = {n.split(".")[2]: m for n, m in masks.items() if n.startswith("blocks.")}
    embed, head = masks["embed.weight"], masks["head.weight"]
    operand, equals = embed[:-1].any(0), embed[-1]
    # Forward: operands to values, then to the stream at "=", then through the MLP.
    value = (block["value"] & operand).any(1)
    mixed = (block["output"] & value).any(1)
    up = (block["up"] & mixed).any(1)
    down = (block["down"] & up).any(1)
    # Back: from the head, by the residual or through the MLP.
    wanted = head.any(0)
    up_wanted = (block["down"] & wanted[:, None]).any(0)
    mixed_wanted = wanted | (block["up"] & up_wanted[:, None]).any(0)
    value_wanted = (block["output"] & mixed_wanted[:, None]).any(0)
    passing = (value & value_wanted).reshape(heads, -1).any(1)  # heads with a value to weigh
    query, key = (block["query"] & equals).any(1), (block["key"] & operand).any(1)
    scored = query & key & np.repeat(passing, len(query) // heads)
    read = (block["value"] & value_wanted[:, None]).any(0)
    operand_wanted = read | (block["key"] & scored[:, None]).any(0)
    equals_wanted = (block["query"] & scored[:, None]).any(0)
    return {
        "embed.weight": np.vstack([embed[:-1] & operand_wanted, embed[-1:] & equals_wanted]),
        "blocks.0.query.weight": block["query"] & equals & scored[:, None],
        "blocks.0.key.weight": block["key"] & operand & scored[:, None],
        "blocks.0.value.weight": block["value"] & operand & value_wanted[:, None],
        "blocks.0.output.weight": block["output"] & value & mixed_wanted[:, None],
        "blocks.0.up.weight": block["up"] & mixed & up_wanted[:, None],
        "blocks.0.down.weight": block["down"] & up & wanted[:, None],
        "head.weight": head & (mixed | down),
    }


# --- repeated units ------------------------------------------------------------------------


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_a_stage_has_blocks_of_one_shape_and_every_depth_adds_one(family: str) -> None:
    of = tiny.network(family)
    for depth in (1, 2, 4):
        tensors = networks.build(of, depth).state_dict()
        for stage in networks.stages(of, depth):
            units = [
                {n.removeprefix(b): tuple(t.shape) for n, t in tensors.items() if n.startswith(b)}
                for b in stage.blocks[stage.fixed :]
            ]
            assert all(unit and unit == units[0] for unit in units)
            deeper = networks.stages(of, depth + 1)
            assert any(stage.blocks == other.blocks[:-1] for other in deeper)


def test_the_layer_that_reads_the_features_is_no_unit() -> None:
    stages = {f: networks.stages(tiny.network(f), 3) for f in ("mlp", "pair-mlp", "transformer")}
    assert stages["mlp"][0].blocks == ("hidden.1.", "hidden.2.")
    assert stages["pair-mlp"][0].blocks == ("hidden.0.", "hidden.1.", "hidden.2.")
    assert stages["transformer"][0].blocks == ("blocks.0.", "blocks.1.", "blocks.2.")
    assert not any(stage.fixed for of in stages.values() for stage in of)
