"""What a search costs, to the third of an example; and what of it is kept on disk."""

from __future__ import annotations

import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lthbench.errors import BudgetExceeded, MethodError, ResourceError
from lthbench.io import store
from lthbench.io.store import Log, Store
from lthbench.method.meter import Meter
from lthbench.networks.state import same
from tests.strategies import moderate

# --- meter ---------------------------------------------------------------------------------


def test_one_unit_is_a_dense_training() -> None:
    meter = Meter(steps=100, batch=60, budget=30.0)
    assert (meter.spent, meter.left) == (0, 30)
    meter.charge(100 * 60)
    assert (meter.spent, meter.left) == (1, 29)
    meter.charge(100 * 60, 1 / 3)
    assert meter.spent == pytest.approx(4 / 3)
    meter.charge(60, 2)
    assert meter.spent == pytest.approx(4 / 3 + 0.02)


@moderate
@given(
    calls=st.lists(st.tuples(st.integers(0, 500), st.sampled_from([1 / 3, 1.0, 2.0])), max_size=30)
)
def test_charges_add_up_exactly(calls: list[tuple[int, float]]) -> None:
    meter = Meter(10, 7, 10_000.0)
    for examples, cost in calls:
        meter.charge(examples, cost)
    thirds = sum(examples * round(3 * cost) for examples, cost in calls)
    assert meter.count == thirds
    assert meter.spent == float(Fraction(thirds, 3 * 70))


def test_the_budget_may_be_spent_to_the_last_example() -> None:
    meter = Meter(10, 10, 2.0)
    meter.charge(199)
    with pytest.raises(
        BudgetExceeded, match=r"budget of 2 dense trainings is spent \(1\.99 used, "
    ):
        meter.charge(2)
    assert meter.spent == 1.99  # the call that was refused is not counted
    meter.charge(1)
    assert meter.left == 0
    meter.charge(0)
    with pytest.raises(BudgetExceeded):
        meter.charge(1, 1 / 3)


def test_a_budget_may_be_a_fraction() -> None:
    meter = Meter(100, 10, 0.05)
    meter.charge(50)
    with pytest.raises(BudgetExceeded):
        meter.charge(1)


# --- store ---------------------------------------------------------------------------------


def test_a_key_is_of_everything_and_of_no_order() -> None:
    parts: dict[str, Any] = {"a": 1, "b": "x", "c": {"d": [1, 2.5]}, "e": None}
    key = store.key(**parts)
    assert len(key) == 64 and key == store.key(**dict(reversed(parts.items())))
    others = [{**parts, "a": 2}, {**parts, "b": "y"}, {**parts, "c": {"d": [1]}}, {**parts, "f": 0}]
    assert len({key, *(store.key(**other) for other in others)}) == 5
    with pytest.raises(ValueError, match="JSON"):
        store.key(a=float("nan"))


def test_a_result_comes_back(tmp_path: Path) -> None:
    kept = Store(tmp_path / "store")
    assert kept.get("name") is None
    kept.put("name", {"step": 3}, {"w": torch.tensor([1.5, -0.0])})
    found = kept.get("name")
    assert found is not None and found[0] == {"step": 3}
    assert same(found[1]["w"], torch.tensor([1.5, -0.0]))
    kept.put("name", {"step": 4})
    assert kept.get("name") == ({"step": 4}, {})
    kept.drop("name")
    kept.drop("name")
    assert kept.get("name") is None
    store.discard(kept.folder)
    store.discard(kept.folder)
    assert not kept.folder.exists()


def test_equal_results_are_equal_files(tmp_path: Path) -> None:
    first, second = Store(tmp_path / "a"), Store(tmp_path / "b")
    tensors = {"a": torch.ones(2), "b": torch.zeros(3)}
    first.put("k", {"x": 1, "y": 2}, tensors)
    second.put("k", {"y": 2, "x": 1}, dict(reversed(tensors.items())))
    assert first.path("k").read_bytes() == second.path("k").read_bytes()


@pytest.mark.parametrize("content", [b"", b"half a mess", b"\x00" * 100])
def test_a_damaged_result_is_named_with_what_to_do(content: bytes, tmp_path: Path) -> None:
    kept = Store(tmp_path)
    kept.path("name").write_bytes(content)
    with pytest.raises(ResourceError, match=r"name\.safetensors: damaged .*delete it and run"):
        kept.get("name")


def test_an_unwritable_store_says_so(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file where the folder should be")
    with pytest.raises(ResourceError, match="part of the path is a file"):
        Store(tmp_path / "store").put("name", {})


# --- log -----------------------------------------------------------------------------------


def test_a_replay_must_repeat_the_calls(tmp_path: Path) -> None:
    path = tmp_path / "calls.json"
    first = Log(path)
    for name in "abc":
        first.call(name)
    first.save()
    again = Log(path)
    again.call("a")
    again.call("b")
    with pytest.raises(MethodError, match="call 3 differs on replay: find_tickets must be"):
        again.call("d")


def test_a_replay_may_go_further(tmp_path: Path) -> None:
    path = tmp_path / "calls.json"
    first = Log(path)
    first.call("a")
    first.save()
    first.call("never written")
    again = Log(path)
    for name in "ab":
        again.call(name)
    again.save()
    assert Log(path).keys == ["a", "b"]


def test_a_replay_must_not_end_early(tmp_path: Path) -> None:
    path = tmp_path / "calls.json"
    first = Log(path)
    for name in "ab":
        first.call(name)
    first.end()
    again = Log(path)
    again.call("a")
    with pytest.raises(MethodError, match="call 2 differs on replay"):
        again.end()
    again.call("b")
    again.end()


@pytest.mark.parametrize("content", [b"", b"[", b"\xff", b"3"])
def test_a_damaged_log_is_named_with_what_to_do(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "calls.json"
    path.write_bytes(content)
    with pytest.raises(ResourceError, match=r"calls\.json: damaged .*delete it and run"):
        Log(path)


@pytest.mark.parametrize("write", [lambda s: s.put("n", {}), lambda s: Log(s.folder / "l").save()])
@pytest.mark.skipif(os.name == "nt", reason="folders have no such permissions there")
def test_nothing_half_written_is_left(write: Callable[[Store], None], tmp_path: Path) -> None:
    kept = Store(tmp_path / "store")
    write(kept)
    assert [path.name[0] for path in kept.folder.iterdir()] != ["."]
    assert len(list(kept.folder.iterdir())) == 1
