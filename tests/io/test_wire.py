"""Messages: what goes in comes out bit for bit, and hostile bytes end in one kind of error."""

from __future__ import annotations

import asyncio
import io
import json
import math
import struct
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lthbench.io import messages
from lthbench.io.messages import WireError
from lthbench.method import snapshot
from lthbench.networks.state import State, same
from lthbench.training.executors import codec
from lthbench.training.job import Result
from tests import tiny
from tests.strategies import moderate, scores, shapes

NUMBERS = st.one_of(st.integers(-(2**70), 2**70), st.floats(allow_nan=False, allow_infinity=False))
PLAIN: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)
HEADERS = st.dictionaries(st.text(max_size=6), PLAIN, max_size=4)
DTYPES = [
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.bool),
    *(torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
]


def alike(a: Any, b: Any) -> bool:
    """Equal values of equal types, tensors bit for bit, NaN equal to itself."""
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and same(a.detach(), b.detach())
    if isinstance(a, dict):
        return type(b) is dict and list(a) == list(b) and all(alike(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        ok = type(a) is type(b) and len(a) == len(b)
        return ok and all(alike(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, float) and math.isnan(a):
        return isinstance(b, float) and math.isnan(b)
    return type(a) is type(b) and a == b and str(a) == str(b)


# --- round trips ---------------------------------------------------------------------------


@moderate
@given(header=HEADERS, drawn=st.data())
def test_a_message_comes_back_as_it_was(header: dict[str, Any], drawn: st.DataObject) -> None:
    tensors = drawn.draw(scores(drawn.draw(shapes())))
    data = messages.dumps(header, tensors)
    found, arrived = messages.loads(data)
    assert alike(found, {name: found[name] for name in found}) and found == header
    assert alike(dict(sorted(arrived.items())), dict(sorted(tensors.items())))
    reordered = dict(reversed(tensors.items()))
    assert messages.dumps(dict(reversed(header.items())), reordered) == data


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (1,), (2, 3)])
def test_tensors_of_any_type_and_shape(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    tensor = torch.ones(shape).to(dtype)
    _, arrived = messages.loads(messages.dumps({}, {"a/b c": tensor}))
    assert same(arrived["a/b c"], tensor)


def test_views_and_gradients_arrive_as_plain_values() -> None:
    whole = torch.arange(12.0).reshape(3, 4)
    sent = {"t": whole.T, "slice": whole[1:, ::2], "row": whole[0], "again": whole[0]}
    sent["parameter"] = nn.Parameter(whole)
    _, arrived = messages.loads(messages.dumps({}, sent))
    assert all(torch.equal(arrived[name], sent[name]) for name in sent)
    assert not any(t.requires_grad for t in arrived.values())
    arrived["row"].zero_()
    assert whole[0].any() and arrived["again"].any()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_header_holds_finite_numbers(value: float) -> None:
    with pytest.raises(ValueError, match="JSON"):
        messages.dumps({"value": value})


def test_messages_follow_each_other_in_a_pipe() -> None:
    pipe = io.BytesIO()
    for n in range(3):
        messages.send(pipe, {"n": n}, {"t": torch.full((n,), float(n))})
    pipe.seek(0)
    for n in range(3):
        message = messages.receive(pipe)
        assert message is not None
        assert message[0] == {"n": n} and len(message[1]["t"]) == n
    assert messages.receive(pipe) is None


def areceived(data: bytes) -> messages.Message | None:
    async def receive() -> messages.Message | None:
        reader = asyncio.StreamReader()
        reader.feed_data(data)
        reader.feed_eof()
        return await messages.areceive(reader)

    return asyncio.run(receive())


def test_both_ends_of_a_pipe_speak_alike() -> None:
    pipe = io.BytesIO()
    messages.send(pipe, {"n": 1}, {"t": torch.arange(3)})
    message = areceived(pipe.getvalue())
    assert message is not None and message[0] == {"n": 1}
    assert message[1]["t"].tolist() == [0, 1, 2]
    assert areceived(b"") is None


def test_names_under_a_prefix() -> None:
    both = messages.prefixed("a", {"x": torch.zeros(1)}) | messages.prefixed(
        "ab", {"y": torch.ones(1)}
    )
    both |= messages.prefixed("1", {"z/w": torch.ones(2)}) | messages.prefixed(
        "10", {"z": torch.ones(3)}
    )
    assert list(messages.under("a", both)) == ["x"]
    assert list(messages.under("ab", both)) == ["y"]
    assert list(messages.under("1", both)) == ["z/w"]
    assert messages.under("b", both) == {}


# --- hostile bytes -------------------------------------------------------------------------

MESSAGE = messages.dumps(
    {"op": "train", "n": [1, 2]}, {"a": torch.arange(6.0), "b": torch.ones(2, 2)}
)


def refused(data: bytes) -> bool:
    """Whether the bytes are refused; anything but a message or WireError is a failure."""
    try:
        header, tensors = messages.loads(data)
    except WireError:
        return True
    assert isinstance(header, dict) and all(isinstance(t, Tensor) for t in tensors.values())
    return False


@settings(max_examples=300)
@given(at=st.integers(0, len(MESSAGE) - 1), new=st.binary(max_size=9), cut=st.integers(0, 9))
def test_changed_bytes_are_a_message_or_refused(at: int, new: bytes, cut: int) -> None:
    refused(MESSAGE[:at] + new + MESSAGE[at + cut :])


@settings(max_examples=200)
@given(data=st.binary(max_size=200))
def test_random_bytes_are_refused(data: bytes) -> None:
    assert refused(data)
    assert refused(struct.pack("<Q", len(data)) + data)


@given(size=st.integers(0, len(MESSAGE) - 1))
def test_a_cut_message_is_refused(size: int) -> None:
    assert refused(MESSAGE[:size])


def with_header(header: Any) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text


@pytest.mark.parametrize(
    "data",
    [
        with_header({}),
        with_header([]),
        with_header(b"\xff\xfe"),
        with_header({"__metadata__": {}}),
        with_header({"__metadata__": {"header": "["}}),
        with_header({"__metadata__": {"header": "[1]"}}),
        with_header({"__metadata__": {"header": "null"}}),
        with_header({"__metadata__": {"header": 5}}),
        with_header(b'{"__metadata__": {"header": "{}"}, "a": ' + b"[" * 10**5),
        with_header(b'{"__metadata__": {"header": "' + b"[" * 10**5 + b'"}}'),
        with_header(
            {
                "__metadata__": {"header": "{}"},
                "a": {"dtype": "F32", "shape": [2**62, 2**62], "data_offsets": [0, 2**64 - 1]},
            }
        ),
        with_header(
            {
                "__metadata__": {"header": "{}"},
                "a": {"dtype": "F32", "shape": [2**33], "data_offsets": [0, 2**35]},
            }
        ),
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 2**64 - 1),
        b"\x80\x04\x95pickle.",
    ],
    ids=range(15),
)
def test_hostile_headers_are_refused(data: bytes) -> None:
    assert refused(data)


@pytest.mark.parametrize("length", [messages.LIMIT + 1, 2**40, 2**64 - 1])
def test_a_huge_length_is_refused_unread(length: int) -> None:
    data = struct.pack("<Q", length) + b"{}"
    with pytest.raises(WireError, match=f"{length} bytes"):
        messages.receive(io.BytesIO(data))
    with pytest.raises(WireError, match=f"{length} bytes"):
        areceived(data)


@pytest.mark.parametrize("size", [1, 7, 8, 9, 50])
def test_a_pipe_that_ends_inside_a_message(size: int) -> None:
    pipe = io.BytesIO()
    messages.send(pipe, {"n": 1}, {"t": torch.arange(3)})
    with pytest.raises(WireError):
        messages.receive(io.BytesIO(pipe.getvalue()[:size]))
    assert areceived(pipe.getvalue()[:size]) is None  # the process is gone: the end is all there is


# --- nested state --------------------------------------------------------------------------

KEYS = st.one_of(st.text(max_size=4), st.integers(-5, 5), st.tuples(st.integers(0, 3)))
STATES: st.SearchStrategy[Any] = st.recursive(
    st.one_of(
        *(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
        st.sampled_from([torch.arange(3.0), torch.tensor(2), torch.zeros(0), torch.ones(2) > 0]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(KEYS, inner, max_size=3),
    ),
    max_leaves=10,
)


def through(value: Any) -> Any:
    """The value packed, sent as a message, and unpacked."""
    tensors: dict[str, Tensor] = {}
    packed = snapshot.pack(value, tensors)
    header, arrived = messages.loads(messages.dumps({"packed": packed}, tensors))
    return snapshot.unpack(header["packed"], arrived)


@moderate
@given(value=STATES)
def test_nested_state_comes_back_as_it_was(value: Any) -> None:
    assert alike(through(value), value)


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.SGD(p, lr=0.1),
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
        lambda p: torch.optim.Adam(p, lr=0.1, amsgrad=True, fused=True),
        lambda p: torch.optim.AdamW(p, lr=0.1, betas=(0.5, 0.9)),
    ],
    ids=["sgd", "nesterov", "adam", "adamw"],
)
def test_an_optimiser_goes_on_from_its_packed_state(make: Any) -> None:
    def steps(module: nn.Module, optimiser: torch.optim.Optimizer, count: int) -> None:
        for _ in range(count):
            optimiser.zero_grad()
            module(torch.ones(1, 3)).square().sum().backward()
            optimiser.step()

    first = nn.Linear(3, 2)
    optimiser = make(first.parameters())
    steps(first, optimiser, 3)
    second = nn.Linear(3, 2)
    second.load_state_dict(through(dict(first.state_dict())))
    other = make(second.parameters())
    state = through(optimiser.state_dict())
    assert alike(state, optimiser.state_dict())
    other.load_state_dict(state)
    steps(first, optimiser, 3)
    steps(second, other, 3)
    assert all(same(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


@pytest.mark.parametrize("value", [{1, 2}, object(), b"bytes", [lambda: 0], {"a": 1j}])
def test_what_cannot_be_packed_is_named(value: Any) -> None:
    with pytest.raises(TypeError, match="a state_dict holds a "):
        snapshot.pack(value, {})


# --- jobs and results ----------------------------------------------------------------------


@pytest.mark.parametrize("masked", [None, "none", "some"])
def test_a_job_crosses_a_pipe(masked: str | None) -> None:
    of = tiny.network("transformer")
    masks = {None: None, "none": {}, "some": tiny.masks(of, 1)}[masked]
    recipe = tiny.recipe("sgd-momentum", precision="float64")
    job = tiny.job("transformer", "a key", seed=3, masks=masks, recipe=recipe, until=7)
    header, tensors = messages.loads(messages.dumps(*codec.pack_job(job)))
    arrived = codec.unpack_job(messages.read(codec.JobHeader, header), tensors)
    plain = ("network", "depth", "recipe", "until", "seed", "order", "key")
    assert all(getattr(arrived, name) == getattr(job, name) for name in plain)
    assert arrived.start.digest == job.start.digest
    assert (arrived.masks is None) == (masked is None)
    assert alike(dict(sorted((arrived.masks or {}).items())), dict(sorted((masks or {}).items())))


@pytest.mark.parametrize("state", [None, State({"w": torch.ones(2)}, 4), State({}, 0)])
def test_a_result_crosses_a_pipe(state: State | None) -> None:
    counts, answers = {"a/b": torch.tensor([1, 2])}, {"a/b": torch.tensor([7], dtype=torch.uint8)}
    result = Result(state, counts, answers, "failed", "for a reason", 1.25, distance=0.1)
    header, tensors = messages.loads(messages.dumps(*codec.pack_result("key", result)))
    told = messages.read(codec.ResultHeader, header)
    arrived = codec.unpack_result(told, tensors)
    assert told.key == "key"
    assert (arrived.status, arrived.reason, arrived.seconds) == ("failed", "for a reason", 1.25)
    assert arrived.distance == 0.1
    assert alike(arrived.correct, counts) and alike(arrived.predictions, answers)
    assert (arrived.state and arrived.state.digest) == (state and state.digest)
