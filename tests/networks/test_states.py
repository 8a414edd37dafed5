"""States: read-only, addressed by every bit, the same for any order and layout."""

from __future__ import annotations

import hashlib
import struct

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lthbench.networks.state import State, bits, digest, same
from tests.strategies import moderate, scores, shapes

TENSORS = {
    "w": torch.tensor([[1.0, -2.0], [0.0, 3.0]]),
    "b": torch.zeros(2),
    "running": torch.tensor(5),
}


def test_reading_a_state_gives_copies() -> None:
    state = State(TENSORS, 3)
    before = state.digest
    state["w"].zero_()
    state.tensors()["b"].fill_(7)
    dict(state)["running"].add_(1)
    assert state.digest == before and state.step == 3
    with pytest.raises(TypeError):
        state["w"] = torch.zeros(2, 2)  # type: ignore[index]
    with pytest.raises(KeyError):
        state["nothing"]


def test_a_state_is_a_mapping_in_its_own_order() -> None:
    state = State(TENSORS, 0)
    assert list(state) == list(TENSORS) and len(state) == 3
    assert "w" in state and "x" not in state
    assert repr(state) == "State(step=0, tensors=['w', 'b', 'running'])"


@moderate
@given(drawn=st.data())
def test_the_order_of_tensors_is_no_part_of_a_digest(drawn: st.DataObject) -> None:
    tensors = drawn.draw(scores(drawn.draw(shapes())))
    names = drawn.draw(st.permutations(list(tensors)))
    assert State({n: tensors[n] for n in names}, 2).digest == State(tensors, 2).digest


def test_neither_is_the_layout_in_memory() -> None:
    wide = torch.arange(12.0).reshape(3, 4)
    assert digest({"w": wide.T}, 0) == digest({"w": wide.T.contiguous()}, 0)
    assert digest({"w": wide[:, ::2]}, 0) == digest({"w": wide[:, ::2].clone()}, 0)
    assert digest({"w": wide.requires_grad_()}, 0) == digest({"w": wide.detach()}, 0)


def changes(tensor: Tensor) -> dict[str, Tensor]:
    """The tensor with the smallest change of each kind."""
    last = tensor.clone()
    last.view(torch.int32)[0, 0] ^= 1
    negative_zero = tensor.clone()
    negative_zero[1, 0] = -0.0
    return {
        "one bit": last,
        "the sign of a zero": negative_zero,
        "the type": tensor.double(),
        "the shape": tensor.reshape(4),
    }


@pytest.mark.parametrize("kind", ["one bit", "the sign of a zero", "the type", "the shape"])
def test_every_change_shows(kind: str) -> None:
    changed = changes(TENSORS["w"])[kind]
    assert not same(TENSORS["w"], changed)
    assert same(changed, changed.clone())
    assert State({**TENSORS, "w": changed}, 0).digest != State(TENSORS, 0).digest


def test_names_and_steps_are_part_of_a_digest() -> None:
    found = {
        State(TENSORS, 0).digest,
        State(TENSORS, 1).digest,
        State({"v" if n == "w" else n: t for n, t in TENSORS.items()}, 0).digest,
        State({**TENSORS, "w": TENSORS["b"], "b": TENSORS["w"]}, 0).digest,
        State({"w": TENSORS["w"]}, 0).digest,
        State({}, 0).digest,
    }
    assert len(found) == 6


@pytest.mark.parametrize(
    "tensor", [torch.tensor(1.5), torch.zeros(0), torch.zeros(0, 3), torch.tensor([True, False])]
)
def test_tensors_without_rows_have_bits_too(tensor: Tensor) -> None:
    assert bits(tensor).dtype == torch.uint8
    assert bits(tensor).numel() == tensor.numel() * tensor.element_size()
    assert same(tensor, tensor.clone())
    assert digest({"a": tensor}, 0) == digest({"a": tensor.clone()}, 0)


def test_a_nan_is_the_same_as_itself() -> None:
    nan = torch.tensor([torch.nan, 1.0])
    assert same(nan, nan.clone())
    assert not same(nan, torch.tensor([-torch.nan, 1.0]))


def test_a_frozen_digest() -> None:
    # Keys of stored results rest on it: a change here forgets all of them.
    tensors = {"b": torch.tensor([1.0, -0.0]), "a": torch.tensor([[2]], dtype=torch.int64)}
    first = b"|a torch.int64 (1, 1)|" + struct.pack("<q", 2)
    second = b"|b torch.float32 (2,)|" + struct.pack("<2f", 1.0, -0.0)
    assert digest(tensors, 7) == hashlib.sha256(b"step 7" + first + second).hexdigest()
