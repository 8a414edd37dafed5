"""Networks: their sizes, the weights they begin with, and which kept weights can matter."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils import prune

from lthbench.errors import TaskError
from lthbench.networks import families, resnet
from lthbench.networks.state import State, same
from lthbench.protocol.task import Network, Task, load_task, task_names
from tests import tiny
from tests.strategies import masks as random_masks
from tests.strategies import moderate

Bools = NDArray[np.bool_]
TASKS = [load_task(name) for name in task_names()]
LAYERS = [f"blocks.0.{name}" for name in ("query", "key", "value", "output", "up", "down")]


# --- sizes ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "prunable", "parameters"),
    [
        ("lenet300-mnist", 266_200, 266_610),
        ("mlp-digits", 50_200, 50_610),
        ("mlp-modadd59", 59 * 64 + 128 * 128 * 2 + 59 * 128, 44_411),
        ("transformer-modadd59", 60 * 64 + 4 * 64 * 64 + 2 * 64 * 256 + 59 * 64, 57_280),
        ("transformer-modadd113", 227 * 128 + 4 * 128**2 + 2 * 128 * 512, 226_688),
        ("conv4-cifar10", 2_425_024, 2_425_930),
        ("resnet20-cifar10", 270_896, 272_474),
        ("resnet20-cifar10-160", 270_896, 272_474),
        ("vit-tiny-cifar10", 48 * 192 + 6 * 12 * 192**2 + 192 * 10, 2_693_578),
        ("vit-tiny-imagenette", 768 * 192 + 12 * 12 * 192**2 + 192 * 10, 5_507_914),
    ],
)
def test_networks_have_the_sizes_of_the_protocol(name: str, prunable: int, parameters: int) -> None:
    task = load_task(name)
    shapes = families.shapes(task.network, task.network.depth)
    assert sum(math.prod(shape) for shape in shapes.values()) == prunable
    module = families.build(task.network, task.network.depth)
    assert sum(p.numel() for p in module.parameters()) == parameters
    assert all(p.device.type == "meta" for p in module.parameters())


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_weights_are_prunable_and_nothing_else(task: Task) -> None:
    """What multiplies features is prunable: matrices and kernels, by whatever name."""
    free = {"cls_token": 3, "pos_embed": 3, "position": 2}  # tables that are added, not multiplied
    for depth in (1, 2, 3):
        shapes = families.shapes(task.network, depth)
        state = families.build(task.network, depth).state_dict()
        kept = [name for name, tensor in state.items() if name not in shapes]
        square = task.network.rank == 2
        assert all(s[2] == (s[3] if square else 1) for s in shapes.values() if len(s) > 2)
        assert all(state[name].ndim == free.get(name, 1) for name in kept)
        assert all(name in free or "norm" in name or name.endswith("bias") for name in kept)
        assert all(tensor.dtype == torch.float32 for tensor in state.values())


@pytest.mark.parametrize("family", ["mlp", "pair-mlp", "transformer", "vit"])
def test_a_deeper_network_has_more_units_of_the_same_shape(family: str) -> None:
    of = tiny.network(family)
    two, three = (families.shapes(of, depth) for depth in (2, 3))
    more = set(three) - set(two)
    last = {name.replace(".2.", ".1.") for name in more}
    assert more and {three[n] for n in more} == {two[n] for n in last}
    assert {name: three[name] for name in two} == two


# --- initial weights -----------------------------------------------------------------------


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_initial_weights_have_their_distributions(task: Task) -> None:
    state = families.initial(task.network, task.network.depth, 11)
    assert state.step == 0
    for name, tensor in state.items():
        assert tensor.dtype == torch.float32 and tensor.device.type == "cpu"
        if name.endswith(("bias", "running_mean")):
            assert not tensor.any()
            continue
        if tensor.ndim == 1:
            assert bool((tensor == 1).all()) and "norm" in name
            continue
        expected = deviation(task.network, name, tuple(tensor.shape))
        z = tensor.double().flatten() / expected
        n = len(z)
        assert abs(float(z.mean())) < 5 / math.sqrt(n)
        assert abs(float(z.var()) - 1) < 5 * math.sqrt(2 / n)
        assert abs(float((z**4).mean()) - 3) < 5 * math.sqrt(96 / n)


def deviation(of: Network, name: str, shape: tuple[int, ...]) -> float:
    """Of one tensor's entries in the tasks that ship."""
    fan_in, kernel = math.prod(shape[1:]), math.prod(shape[2:])
    if of.family == "vit" and of.rank == 1 and name.endswith("weight"):
        return math.sqrt(1 / fan_in)
    match of.family:
        case "mlp" | "conv":
            return math.sqrt(2 / (fan_in + shape[0] * kernel))
        case "pair-mlp":
            return 0.125 if name == "embed.weight" else 0.051
        case "transformer":
            return 0.125 if 64 in shape else 1 / math.sqrt(128)
        case "resnet":
            return math.sqrt(2 / fan_in)
        case _:
            special = {"cls_token": 1e-6, "patch_embed.proj.weight": math.sqrt(1 / fan_in)}
            return special.get(name, 0.02)


@pytest.mark.parametrize(
    ("distribution", "deviation"),
    [
        ("glorot-normal", math.sqrt(2 / 500)),
        ("kaiming-normal", math.sqrt(2 / 300)),
        ("lecun-normal", math.sqrt(1 / 300)),
        ("normal", 3),
    ],
)
def test_fans_are_those_of_the_layer(distribution: str, deviation: float) -> None:
    init = {"tensors": ("*.weight",), "distribution": distribution, "value": 3.0}
    biases = {"tensors": ("*.bias",), "distribution": "constant", "value": 0.5}
    of = tiny.network(inputs=300, width=200, neck=0, init=(init, biases))
    state = families.initial(of, 1, 0)
    assert float(state["hidden.0.weight"].std()) == pytest.approx(deviation, rel=0.02)
    assert bool((state["hidden.0.bias"] == 0.5).all())


def test_the_same_seed_draws_the_same_weights() -> None:
    of = tiny.network()
    assert families.initial(of, 2, 3).digest == families.initial(of, 2, 3).digest
    others = [families.initial(of, 2, 4), families.initial(of, 2, 3, "reinit")]
    others += [families.initial(of, 2, 3), families.initial(of, 2, 3, "reinit", "1")]
    assert len({state.digest for state in others}) == 4


def test_a_tensor_s_draw_does_not_depend_on_the_depth() -> None:
    two, three = (families.initial(tiny.network(), depth, 0) for depth in (2, 3))
    assert all(same(two[name], three[name]) for name in two)
    assert not same(three["hidden.1.weight"], three["hidden.2.weight"])


@pytest.mark.parametrize("patterns", [["*.weight"], ["*"], ["*", "*.bias"]])
def test_every_tensor_needs_exactly_one_row(patterns: list[str]) -> None:
    rows = tuple(
        {"tensors": (pattern,), "distribution": "constant", "value": 0.0} for pattern in patterns
    )
    of = tiny.network(init=rows)
    if patterns == ["*"]:
        families.initial(of, 2, 0)
        return
    with pytest.raises(TaskError, match=r"hidden\.0\.bias: [02] rows match"):
        families.initial(of, 2, 0)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_a_loaded_network_has_weights_of_its_own(family: str) -> None:
    of = tiny.network(family)
    state = families.initial(of, of.depth, 0)
    before = state.digest
    module = families.load(of, of.depth, state)
    with torch.no_grad():
        for parameter in module.parameters():
            assert parameter.requires_grad
            parameter.zero_()
    assert state.digest == before


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_a_network_takes_its_all_ones_input(family: str) -> None:
    of = tiny.network(family)
    module = families.load(of, of.depth, families.initial(of, of.depth, 0))
    ones = module.ones()  # type: ignore[operator]
    assert module(ones).shape == (1, tiny.CLASSES)
    data = tiny.examples(family, 9)
    assert module(data.inputs(slice(None))).shape == (9, tiny.CLASSES)


@pytest.mark.parametrize("family", ["pair-mlp", "transformer"])
def test_a_token_is_a_weight_of_one_on_its_row(family: str) -> None:
    of = tiny.network(family)
    module = families.load(of, of.depth, families.initial(of, of.depth, 0))
    x = torch.tensor([[1, 5], [0, 0], [6, 2]])
    given = x if family == "pair-mlp" else torch.cat([x, torch.full((3, 1), tiny.TOKENS)], 1)
    one_hot = torch.nn.functional.one_hot(given, of.inputs).float()
    assert torch.allclose(module(x), module(one_hot), atol=1e-6)


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("family", ["pair-mlp", "transformer"])
def test_many_pairs_and_one_alone_read_alike(family: str, depth: int) -> None:
    """Many pairs are read through the tokens they share, few as they stand: to the same answers."""
    of = tiny.network(family)
    module = families.load(of, depth, families.initial(of, depth, 0)).double()
    pairs = torch.cartesian_prod(torch.arange(of.inputs), torch.arange(of.inputs))
    together = module(pairs)
    alone = torch.cat([module(pair[None]) for pair in pairs])
    assert torch.allclose(together, alone, rtol=1e-12, atol=1e-14)
    parameters = list(module.parameters())
    expected = torch.autograd.grad(alone.square().sum(), parameters)
    found = torch.autograd.grad(together.square().sum(), parameters)
    assert all(torch.allclose(a, b, rtol=1e-10) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("family", ["mlp", "pair-mlp"])
def test_what_a_method_hangs_on_a_layer_is_seen(family: str) -> None:
    """Layers of its own, torch's own pruning, and hooks, on many examples as on one."""
    of = tiny.network(family)
    given = tiny.examples(family, 60).inputs(slice(None))

    def fresh() -> torch.nn.Module:
        return families.load(of, 2, families.initial(of, 2, 0))

    class Halved(torch.nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) / 2

    class Sevens(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.full((len(x), 8), 7.0)

    module = fresh()
    before, layer = module(given), module.hidden[1]  # type: ignore[union-attr, index]
    kept: list[Tensor] = []
    layer.register_forward_hook(lambda *seen: kept.append(seen[2]))
    layer.register_full_backward_hook(lambda *seen: kept.append(seen[2][0]))
    after = module(given)
    after.sum().backward()
    assert torch.allclose(after, before, atol=1e-6)
    assert len(kept) == 2
    assert (kept[0] < 0).any()  # before the ReLU
    first = module.hidden[0]  # type: ignore[union-attr, index]
    for other in (Halved(first.in_features, first.out_features), Sevens()):
        module = fresh()
        module.hidden[0] = other  # type: ignore[union-attr, index, operator]
        one_by_one = torch.cat([module(x[None]) for x in given])
        assert torch.allclose(module(given), one_by_one, atol=1e-6)
    module = fresh()
    layer = module.hidden[0]  # type: ignore[union-attr, index]
    layer.forward = lambda x: torch.full((len(x), 8), 7.0)
    assert torch.allclose(module(given), one_by_one, atol=1e-6)
    module = fresh()
    layer = module.hidden[0]  # type: ignore[union-attr, index]
    prune.random_unstructured(layer, "weight", amount=0.5)
    for _ in range(2):
        module(given).sum().backward()
        with torch.no_grad():
            layer.weight_orig += 1.0
    assert torch.allclose(module(given), torch.cat([module(x[None]) for x in given]), atol=1e-4)


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("place", ["embed", "blocks.0", *LAYERS])
def test_what_a_method_hangs_on_a_transformer_is_seen(place: str, depth: int) -> None:
    """Hooks see every position; a hook's, a layer's own or a pruned layer's output counts."""
    of = tiny.network("transformer")
    given = tiny.examples("transformer", 40).inputs(slice(None))
    assert len(given) >= of.inputs  # many enough to be read through the tokens they share

    def fresh() -> tuple[torch.nn.Module, torch.nn.Module]:
        module = families.load(of, depth, families.initial(of, depth, 0))
        return module, module.get_submodule(place)

    module, layer = fresh()
    before = module(given)
    seen: list[Tensor] = []
    layer.register_forward_hook(lambda *call: seen.append(call[2]))
    assert torch.allclose(module(given), before, atol=1e-5)
    assert [len(output) for output in seen] == [len(given)]
    assert (seen[0] < 0).any()  # of `up`: before the ReLU
    module, layer = fresh()
    layer.register_forward_hook(lambda *call: 3 * call[2])
    tripled = module(given)
    assert not torch.allclose(tripled, before, atol=1e-3)
    module, layer = fresh()
    usual = layer.forward
    layer.forward = lambda *x: 3 * usual(*x)  # type: ignore[method-assign]
    assert torch.allclose(module(given), tripled, atol=1e-5)
    if place == "blocks.0":
        return
    module, layer = fresh()
    prune.random_unstructured(layer, "weight", amount=0.5)
    for _ in range(2):
        module(given).sum().backward()
        with torch.no_grad():
            layer.weight_orig += 1.0  # type: ignore[operator]
    assert torch.allclose(module(given), torch.cat([module(x[None]) for x in given]), atol=1e-3)


def test_attention_looks_back_alone() -> None:
    """In a deep transformer the first token's stream does not change with the second token."""
    of = tiny.network("transformer")
    module = families.load(of, 2, families.initial(of, 2, 0))
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
    shapes = families.shapes(of, depth)
    return {name: torch.ones(shape, dtype=torch.bool) for name, shape in shapes.items()}


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_all_weights_of_a_full_network_are_effective(family: str, depth: int) -> None:
    of = tiny.network(family)
    masks = full(of, depth)
    found = families.effective(of, depth, masks)
    assert list(found) == list(masks)
    assert all(bool(mask.all()) for mask in found.values())


@pytest.mark.parametrize("family", ["mlp", "pair-mlp"])
def test_an_emptied_layer_leaves_nothing_effective(family: str) -> None:
    of = tiny.network(family)
    for name in families.shapes(of, 2):
        masks = full(of, 2)
        masks[name][:] = False
        assert not any(mask.any() for mask in families.effective(of, 2, masks).values())


@pytest.mark.parametrize("emptied", ["query", "key"])
def test_values_pass_without_attention_scores(emptied: str) -> None:
    of = tiny.network("transformer")
    masks = full(of, 1)
    masks[f"blocks.0.{emptied}.weight"][:] = False
    found = families.effective(of, 1, masks)
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
    assert not any(mask.any() for mask in families.effective(of, 1, masks).values())
    state = families.initial(of, 1, 0).tensors()
    for name, mask in masks.items():
        state[name] *= mask
    outputs = families.load(of, 1, families.initial(of, 1, 0))
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
    masks = drawn.draw(random_masks(families.shapes(of, depth)))
    found = families.effective(of, depth, masks)
    bools = {name: mask.numpy() for name, mask in masks.items()}
    expected = layered(bools, np.ones(3, dtype=bool), list(masks))
    for name, mask in found.items():
        assert np.array_equal(mask.numpy(), expected[name]), name


@moderate
@given(drawn=st.data(), depth=st.integers(1, 2))
def test_effective_weights_of_a_pair_mlp_lie_on_a_path(drawn: st.DataObject, depth: int) -> None:
    of = tiny.network("pair-mlp", inputs=3, embedding=2, width=3, classes=2)
    masks = drawn.draw(random_masks(families.shapes(of, depth)))
    found = families.effective(of, depth, masks)
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
    masks = drawn.draw(random_masks(families.shapes(of, 1)))
    found = families.effective(of, 1, masks)
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
    for depth in (1, 2, 3):
        tensors = families.build(of, depth).state_dict()
        for stage in families.stages(of, depth):
            units = [
                {n.removeprefix(b): tuple(t.shape) for n, t in tensors.items() if n.startswith(b)}
                for b in stage.blocks[stage.fixed :]
            ]
            assert all(unit and unit == units[0] for unit in units)
            deeper = families.stages(of, depth + 1)
            assert any(stage.blocks == other.blocks[:-1] for other in deeper)


def test_the_layer_that_reads_the_features_is_no_unit() -> None:
    stages = {f: families.stages(tiny.network(f), 3) for f in ("mlp", "pair-mlp", "transformer")}
    assert stages["mlp"][0].blocks == ("hidden.1.", "hidden.2.")
    assert stages["pair-mlp"][0].blocks == ("hidden.0.", "hidden.1.", "hidden.2.")
    assert stages["transformer"][0].blocks == ("blocks.0.", "blocks.1.", "blocks.2.")
    assert not any(stage.fixed for of in stages.values() for stage in of)


def test_stages_of_networks_on_images() -> None:
    assert families.stages(tiny.network("conv"), 1) == ()
    (blocks,) = families.stages(tiny.network("vit"), 2)
    assert blocks.blocks == ("blocks.0.", "blocks.1.") and not blocks.fixed
    first, second, third = families.stages(tiny.network("resnet"), 2)
    assert first.blocks == ("stage.0.0.", "stage.0.1.") and third.blocks[1] == "stage.2.1."
    assert first.fixed and second.fixed and third.fixed


# --- networks on images --------------------------------------------------------------------


@pytest.mark.parametrize("family", tiny.IMAGES)
def test_gradients_reach_every_parameter(family: str) -> None:
    of = tiny.network(family)
    module = families.load(of, 2, families.initial(of, 2, 0))
    data = tiny.examples(family, 16)
    torch.nn.functional.cross_entropy(module(data.inputs(slice(None))), data.y.long()).backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None and bool(parameter.grad.any()), name


def test_a_vit_is_timm_s_own() -> None:
    """Same names, same function: the weights fit timm's network, and it answers the same."""
    from timm.models.vision_transformer import VisionTransformer

    of = tiny.network("vit")
    state = families.initial(of, 3, 0).tensors()
    theirs = VisionTransformer(
        img_size=tiny.SIDE,
        patch_size=of.patch,
        in_chans=tiny.CHANNELS,
        num_classes=tiny.CLASSES,
        embed_dim=of.width,
        depth=3,
        num_heads=of.heads,
        mlp_ratio=1.5,
    )
    theirs.load_state_dict(state, strict=True)
    ours = families.load(of, 3, families.initial(of, 3, 0))
    x = tiny.examples("vit", 9).inputs(slice(None))
    assert torch.allclose(ours(x), theirs(x), atol=1e-5)


def test_a_vit_has_second_derivatives() -> None:
    of = tiny.network("vit")
    module = families.load(of, 1, families.initial(of, 1, 0))
    x = tiny.examples("vit", 4).inputs(slice(None))
    weight = module.get_parameter("blocks.0.attn.qkv.weight")
    (first,) = torch.autograd.grad(module(x).square().sum(), weight, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), weight)
    assert bool(second.any())


def test_norms_are_torch_s_without_the_count() -> None:
    ours, theirs = resnet.Norm(3), torch.nn.BatchNorm2d(3)
    with torch.no_grad():
        for mine, own in ((ours.weight, theirs.weight), (ours.bias, theirs.bias)):
            own.copy_(torch.tensor([0.5, -1.0, 2.0]))
            mine.copy_(own)
        ours.running_mean.zero_()
        ours.running_var.fill_(1)
    generator = torch.Generator().manual_seed(0)
    for training in (True, True, False):
        x = torch.randn(5, 3, 4, 4, generator=generator) * 3 + 1
        assert torch.equal(ours.train(training)(x), theirs.train(training)(x))
    assert torch.equal(ours.running_var, theirs.running_var)
    assert set(ours.state_dict()) == set(theirs.state_dict()) - {"num_batches_tracked"}


def test_a_resnet_of_zero_kernels_passes_its_shortcuts() -> None:
    """The residual form: without kernels in the blocks of one shape, they change nothing."""
    of = tiny.network("resnet")
    tensors = families.initial(of, 3, 0).tensors()
    for name, tensor in tensors.items():
        if ".conv" in name and name.split(".")[2] != "0":
            tensor.zero_()
        if ".norm2.bias" in name:
            tensor.zero_()
    deep = families.load(of, 3, State(tensors, 0)).eval()
    shallow = {n: t for n, t in tensors.items() if n.split(".")[2:3] not in (["1"], ["2"])}
    short = families.load(of, 1, State(shallow, 0)).eval()
    x = tiny.examples("resnet", 4).inputs(slice(None))
    with torch.no_grad():
        for module in (deep, short):
            for norm in module.modules():
                if isinstance(norm, resnet.Norm):
                    norm.running_mean.zero_()
    assert torch.allclose(deep(x), short(x), atol=1e-5)


# Paths are counted here in whole numbers and without torch: a weight is on one exactly if the
# count falls without it. Each function gives the paths that begin in the image.

Counts = NDArray[np.int64]


def convolved(x: Counts, kernel: Counts, stride: int = 1) -> Counts:
    """(channels, side, side) by (out, channels, k, k), padded to keep the side."""
    size, side = kernel.shape[2], x.shape[1]
    pad = size // 2
    padded = np.zeros((x.shape[0], side + 2 * pad, side + 2 * pad), dtype=x.dtype)
    padded[:, pad : pad + side, pad : pad + side] = x
    out = np.zeros((kernel.shape[0], side, side), dtype=x.dtype)
    for i in range(size):
        for j in range(size):
            out += np.einsum(
                "oc,chw->ohw", kernel[:, :, i, j], padded[:, i : i + side, j : j + side]
            )
    return out[:, ::stride, ::stride]


def conv_paths(masks: Mapping[str, Counts], of: Network) -> int:
    x = np.ones((of.channels, of.side, of.side), dtype=object)
    for number in range(2):
        x = convolved(x, masks[f"conv.{number}.weight"])
    x = sum(x[:, i::2, j::2] for i in (0, 1) for j in (0, 1)).reshape(-1)
    for name in ("hidden.0.weight", "hidden.1.weight", "head.weight"):
        x = masks[name] @ x
    return int(x.sum())


def resnet_paths(masks: Mapping[str, Counts], of: Network) -> int:
    x = np.ones((of.channels, of.side, of.side), dtype=object)
    x = convolved(x, masks["stem.weight"])
    for stage in range(3):
        block, stride = f"stage.{stage}.0.", 2 if stage else 1
        y = convolved(x, masks[f"{block}conv1.weight"], stride)
        y = convolved(y, masks[f"{block}conv2.weight"])
        if stage:
            x = convolved(x, masks[f"{block}shortcut.weight"], stride)
        x = x + y
    return int((masks["head.weight"] @ x.sum((1, 2))).sum())


def vit_paths(masks: Mapping[str, Counts], of: Network) -> int:
    """With and without the image: the class token alone begins no path."""

    def logits(image: int) -> int:
        side = of.side // of.patch
        kernel = masks["patch_embed.proj.weight"]
        patches = np.full((side * side, of.width), image * kernel.sum((1, 2, 3)), dtype=object)
        x = np.concatenate([np.ones((1, of.width), dtype=object), patches])
        q, k, v = np.split(masks["blocks.0.attn.qkv.weight"], 3)
        mixed = []
        for rows in np.split(np.arange(of.width), of.heads):
            scores = 1 + (x @ q[rows].T) @ (x @ k[rows].T).T
            mixed.append(scores @ (x @ v[rows].T))
        x = x + np.concatenate(mixed, axis=1) @ masks["blocks.0.attn.proj.weight"].T
        up = x @ masks["blocks.0.mlp.fc1.weight"].T
        x = x + up @ masks["blocks.0.mlp.fc2.weight"].T
        return int((x[0] @ masks["head.weight"].T).sum())

    return logits(1) - logits(0)


@pytest.mark.parametrize("density", [0.2, 0.4, 0.7])
@pytest.mark.parametrize(
    ("family", "count", "sizes"),
    [
        ("conv", conv_paths, {"side": 2, "width": 1, "hidden": 2, "inputs": 8}),
        ("resnet", resnet_paths, {"width": 1, "channels": 1, "inputs": 64}),
        ("vit", vit_paths, {"patch": 4, "channels": 1, "inputs": 64, "hidden": 3}),
    ],
)
def test_a_weight_is_effective_if_there_are_fewer_paths_without_it(
    family: str, count: Any, sizes: dict[str, int], density: float
) -> None:
    of = tiny.network(family, classes=2, **sizes)
    draw = np.random.default_rng(round(10 * density))
    masks = {
        name: torch.from_numpy(draw.random(shape) < density)
        for name, shape in families.shapes(of, 1).items()
    }
    found = families.effective(of, 1, masks)
    whole = {name: mask.numpy().astype(object) * 1 for name, mask in masks.items()}
    paths = count(whole, of)
    for name, mask in masks.items():
        for place in map(tuple, mask.nonzero().tolist()):
            whole[name][place] = 0
            assert (count(whole, of) < paths) == bool(found[name][place]), (name, place)
            whole[name][place] = 1
        assert not bool(found[name][~mask].any())


def test_the_paths_of_a_deep_vit_are_finite() -> None:
    """Each block of attention cubes what it reads: counted plainly, five of them overflow."""
    of = tiny.network("vit", width=32)
    masks = full(of, 16)
    assert all(bool(mask.all()) for mask in families.effective(of, 16, masks).values())
    state = {n: t.double().abs() for n, t in families.initial(of, 16, 0).items()}
    module = families.load(of, 16, families.initial(of, 16, 0))
    assert 0 < float(module.flow(state).detach()) < math.inf  # type: ignore[operator]


def signal_network(family: str, **changes: Any) -> Network:
    """A network on signals of eight points."""
    return tiny.network(family, rank=1, channels=1, side=8, inputs=8, **changes)


def signals(count: int = 3) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).normal(size=(count, 8)).astype(np.float32))


def test_a_resnet_on_signals_convolves_along_them_alone() -> None:
    """Written out with one-dimensional convolutions; norms see (batch, width, points)."""
    of = signal_network("resnet", stages=2, stem=5)
    state = families.initial(of, 1, 0)
    network = families.load(of, 1, state).eval()

    def convolve(x: torch.Tensor, name: str, stride: int = 1) -> torch.Tensor:
        kernel = state[f"{name}.weight"].squeeze(2)
        return F.conv1d(x, kernel, stride=stride, padding=kernel.shape[2] // 2)

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        parts = (state[f"{name}.{part}"] for part in ("running_mean", "running_var"))
        return F.batch_norm(x, *parts, state[f"{name}.weight"], state[f"{name}.bias"])

    x = F.relu(norm(convolve(signals()[:, None], "stem"), "norm"))
    for stage, stride in ((0, 1), (1, 2)):
        block = f"stage.{stage}.0"
        y = F.relu(norm(convolve(x, f"{block}.conv1", stride), f"{block}.norm1"))
        y = norm(convolve(y, f"{block}.conv2"), f"{block}.norm2")
        if stage:
            x = norm(convolve(x, f"{block}.shortcut", stride), f"{block}.shortcut_norm")
        x = F.relu(x + y)
    expected = x.mean(2) @ state["head.weight"].T + state["head.bias"]
    assert torch.allclose(network(signals()), expected, atol=1e-5)
    assert network(network.ones()).shape == (1, 5)  # type: ignore[operator]


def test_a_vit_on_signals_cuts_them_into_patches() -> None:
    of = signal_network("vit", patch=2)
    state = families.initial(of, 1, 0)
    assert state["pos_embed"].shape[1] == 1 + 4 and state["patch_embed.proj.weight"].shape[2] == 1
    network = families.load(of, 1, state).eval()
    x = signals()
    cut = torch.stack([x[:, 2 * p : 2 * p + 2] for p in range(4)], 1)  # (batch, patches, points)
    kernel, bias = state["patch_embed.proj.weight"].flatten(1), state["patch_embed.proj.bias"]
    embedded = network.patch_embed(x[:, None, None])  # type: ignore[operator]
    assert torch.allclose(embedded, cut @ kernel.T + bias, atol=1e-5)
    assert network(x).shape == (3, 5)


@pytest.mark.parametrize("family", ["resnet", "vit"])
def test_every_weight_of_a_network_on_signals_is_effective(family: str) -> None:
    of = signal_network(family, **({"patch": 2} if family == "vit" else {"stages": 2}))
    assert all(bool(mask.all()) for mask in families.effective(of, 1, full(of, 1)).values())


@pytest.mark.parametrize(
    ("family", "changes", "told"),
    [
        ("conv", {}, "families resnet, vit"),
        ("resnet", {"channels": 2, "inputs": 16}, "one channel"),
        ("resnet", {"stem": 4}, "odd"),
        ("resnet", {"inputs": 64}, r"side\*\*rank"),
    ],
)
def test_networks_on_signals_that_cannot_be(
    family: str, changes: dict[str, Any], told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        tiny.network(family, **{"rank": 1, "channels": 1, "side": 8, "inputs": 8, **changes})
