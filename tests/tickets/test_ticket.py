"""Tickets: what is refused and why, which rung they are, and where their weights come from."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lthbench.errors import TicketError
from lthbench.networks import families
from lthbench.networks.state import State
from lthbench.records.aggregate import division
from lthbench.tickets.masks import keep_top, target_count
from lthbench.tickets.ticket import Ticket, check, completed, origin, rung_of
from lthbench.training.engines import plain
from tests import tiny
from tests.strategies import moderate

OF = tiny.network()
SHAPES = families.shapes(OF, 2)
THETA = families.initial(OF, 2, 0)
NAMES = {name: tuple(tensor.shape) for name, tensor in THETA.items()}
MASKS = tiny.masks(OF, 2)
LIMIT = 20
KEPT = tuple(map(int, MASKS["hidden.1.weight"].nonzero()[0]))
PRUNED = tuple(map(int, (~MASKS["hidden.1.weight"]).nonzero()[0]))
Weights = dict[str, Tensor]


# --- check ---------------------------------------------------------------------------------


def refusal(ticket: Any) -> str:
    with pytest.raises(TicketError) as caught:
        check(ticket, SHAPES, NAMES, LIMIT)
    line = str(caught.value)
    assert "\n" not in line and len(line) < 200
    return line


def with_mask(name: str, mask: Any) -> Ticket:
    return Ticket({**MASKS, name: mask})


def with_weight(name: str, tensor: Any) -> Ticket:
    return Ticket(MASKS, weights={**THETA.tensors(), name: tensor})


def without(tensors: Mapping[str, Tensor], name: str) -> Weights:
    return {other: tensor for other, tensor in tensors.items() if other != name}


HEAD = (tiny.CLASSES, 4)
NAN, INFINITE = torch.full(HEAD, math.nan), torch.zeros(HEAD)
INFINITE[2, 2] = math.inf


@pytest.mark.parametrize(
    ("ticket", "line"),
    [
        (MASKS, "find_tickets yielded a dict; yield Ticket(masks)"),
        (None, "find_tickets yielded a NoneType; yield Ticket(masks)"),
        (Ticket([]), "masks must be a mapping from parameter name to bool tensor"),  # type: ignore[arg-type]
        (Ticket({}), "mask missing for hidden.0.weight; masks need exactly the names of"),
        (Ticket(without(MASKS, "head.weight")), "mask missing for head.weight; masks need exactly"),
        (with_mask("head.bias", torch.ones(5) > 0), "head.bias: not prunable; masks need exactly"),
        (with_mask("head.weight", torch.ones(HEAD)), "mask of head.weight is torch.float32; masks"),
        (with_mask("head.weight", [True]), "mask of head.weight is list; masks are bool tensors"),
        (
            with_mask("head.weight", torch.ones(4, 5) > 0),
            "mask of head.weight has shape (4, 5), not (5, 4)",
        ),
        (Ticket(MASKS, start=-1), "start -1: a ticket starts at step 0 to 20 of the dense run"),
        (Ticket(MASKS, start=21), "start 21: a ticket starts at step 0 to 20 of the dense run"),
        (Ticket(MASKS, start=1.0), "start 1.0: a ticket starts at step"),  # type: ignore[arg-type]
        (Ticket(MASKS, start=True), "start True: a ticket starts at step"),
        (Ticket(MASKS, start=5, trained=False), "start 5 of an untrained ticket; these start at"),
        (Ticket(MASKS, weights=[]), "weights must be a mapping from name to tensor"),  # type: ignore[arg-type]
        (Ticket(MASKS, weights={}), "weights need every tensor of the state; hidden.0.weight is"),
        (Ticket(MASKS, weights=without(THETA, "head.bias")), "head.bias is missing or misshapen"),
        (with_weight("head.bias", torch.zeros(4)), "head.bias is missing or misshapen"),
        (with_weight("head.bias", [0.0] * 5), "head.bias is missing or misshapen"),
        (with_weight("more", torch.zeros(4)), "weights of more: the network has no such tensor"),
        (with_weight("head.bias", torch.zeros(5).double()), "head.bias are torch.float64; a state"),
        (with_weight("head.bias", torch.zeros(5).int()), "weights of head.bias are torch.int32"),
        (with_weight("head.weight", NAN), "weights of head.weight are not finite"),
        (with_weight("head.weight", INFINITE), "weights of head.weight are not finite"),
        (with_weight("head.weight", -INFINITE), "weights of head.weight are not finite"),
    ],
)
def test_a_broken_rule_is_named(ticket: Any, line: str) -> None:
    assert line in refusal(ticket)


@pytest.mark.parametrize(
    "ticket",
    [
        Ticket(MASKS),
        Ticket(dict(reversed(MASKS.items()))),
        Ticket(MASKS, start=LIMIT),
        Ticket(MASKS, weights=THETA, trained=False),
        Ticket(MASKS, weights=dict(reversed(THETA.tensors().items()))),
    ],
)
def test_what_keeps_the_rules_passes(ticket: Ticket) -> None:
    check(ticket, SHAPES, NAMES, LIMIT)


# --- rungs ---------------------------------------------------------------------------------

LADDER = (0.512, 0.262144, 0.134217728)
TOTAL = sum(math.prod(shape) for shape in SHAPES.values())
SCORES = {name: THETA[name].abs() for name in SHAPES}


def at(density: float) -> Ticket:
    return Ticket(keep_top(SCORES, density))


def test_a_ticket_is_the_rung_of_its_count() -> None:
    for i, density in enumerate(LADDER):
        assert rung_of(at(density), LADDER, TOTAL, LADDER[:i]) == density
    assert rung_of(at(LADDER[2]), LADDER, TOTAL, ()) == LADDER[2]  # a rung may be left out


@pytest.mark.parametrize("change", [-1, 1])
def test_one_weight_more_or_less_is_no_rung(change: int) -> None:
    count = target_count(LADDER[1], TOTAL)
    flat = torch.arange(TOTAL) < count + change
    masks = {}
    for name, part in zip(SHAPES, flat.split([math.prod(s) for s in SHAPES.values()]), strict=True):
        masks[name] = part.reshape(SHAPES[name])
    expected = (
        rf"{count + change} of {TOTAL} weights kept.*nearest keeps {count} \(density 0\.2621\)"
    )
    with pytest.raises(TicketError, match=expected):
        rung_of(Ticket(masks), LADDER, TOTAL, ())


def test_rungs_come_once_and_sparsest_last() -> None:
    with pytest.raises(TicketError, match=r"rung at density 0\.2621 came twice"):
        rung_of(at(LADDER[1]), LADDER, TOTAL, LADDER[:2])
    with pytest.raises(TicketError, match=r"density 0\.512 after 0\.2621; yield the sparsest last"):
        rung_of(at(LADDER[0]), LADDER, TOTAL, LADDER[1:2])


# --- origins -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def states() -> dict[str, State]:
    """theta_5 and theta_20 of the dense run, a final state, and that state trained on."""
    data = tiny.examples()

    def run(until: int, **changes: Any) -> State:
        ((_, result),) = plain.run([tiny.job(until=until, **changes)], {0: data})
        assert result.state is not None
        return result.state

    final = run(100, masks=MASKS)
    again = State(final.tensors(), 0)
    return {
        "theta_5": run(5),
        "theta_20": run(20),
        "final": final,
        "final, 5 steps on": run(5, start=again, masks=MASKS),
    }


def found(weights: Mapping[str, Tensor] | None, states: Mapping[str, State], start: int = 0) -> Any:
    thetas = {0: THETA, 5: states["theta_5"], 20: states["theta_20"]}
    ticket = Ticket(MASKS, start, weights)
    check(ticket, SHAPES, NAMES, LIMIT)
    return origin(ticket, thetas, [states["final"]])


def changed(tensors: Mapping[str, Tensor], name: str, at: tuple[int, ...], how: str) -> Weights:
    """The tensors with one entry moved by one bit, or with its sign turned."""
    result = {n: t.clone() for n, t in tensors.items()}
    entry = result[name][at]
    if how == "bit":
        entry.copy_(torch.nextafter(entry, entry + 1))
    elif how == "negative zero":
        entry.copy_(torch.tensor(-0.0))
    else:
        entry.neg_()
    return result


def signed(theta: Mapping[str, Tensor], magnitude: float = 0.3) -> Weights:
    """Each prunable tensor one magnitude, another for each tensor, times the signs of theta."""
    result = {name: tensor.clone() for name, tensor in theta.items()}
    for i, name in enumerate(SHAPES):
        result[name] = theta[name].sign() * (magnitude + i)
    return result


@pytest.mark.parametrize("start", [0, 5, 20])
def test_a_ticket_without_weights_is_where_it_starts(start: int, states: dict[str, State]) -> None:
    assert found(None, states, start) == ("rewind" if start else "init", start)


def test_weights_are_known_by_their_bits(states: dict[str, State]) -> None:
    assert found(THETA, states) == ("init", 0)
    assert found(states["theta_5"], states) == ("rewind", 5)
    assert found(states["theta_20"], states) == ("rewind", 20)
    assert found(states["final"], states) == ("final", 0)  # trained once more, from the first step
    assert found(states["final"], states, start=7) == ("final", 7)
    assert found(THETA.tensors(), states, start=5) == ("init", 0)  # named a start, is another


def test_pruned_positions_do_not_count(states: dict[str, State]) -> None:
    weights = changed(THETA, "hidden.1.weight", PRUNED, "sign")
    assert found(weights, states) == ("init", 0)
    zeroed = {n: t * MASKS[n] if n in MASKS else t for n, t in states["theta_5"].items()}
    assert found(zeroed, states) == ("rewind", 5)  # with zeros of both signs


@pytest.mark.parametrize("base", ["theta_0", "theta_5", "final"])
@pytest.mark.parametrize("how", ["bit", "sign"])
@pytest.mark.parametrize(
    ("name", "at"), [("hidden.1.weight", KEPT), ("head.bias", (2,)), ("hidden.0.bias", (0,))]
)
def test_one_changed_entry_makes_free(
    base: str, how: str, name: str, at: tuple[int, ...], states: dict[str, State]
) -> None:
    weights = THETA if base == "theta_0" else states[base]
    assert found(changed(weights, name, at, how), states) == ("free", 0)
    assert found(changed(weights, name, at, how), states, start=7) == ("free", 7)


def test_a_zero_of_the_other_sign_makes_free(states: dict[str, State]) -> None:
    zero = State({**THETA.tensors(), "head.bias": torch.zeros(5)}, 0)
    thetas = {0: zero}
    for name, at in (("head.bias", (2,)), ("hidden.1.weight", KEPT)):
        base = {n: t.clone() for n, t in zero.items()}
        base[name][at] = 0.0
        assert origin(Ticket(MASKS, weights=base), {0: State(base, 0)}, []) == ("init", 0)
        weights = changed(base, name, at, "negative zero")
        assert origin(Ticket(MASKS, weights=weights), {0: State(base, 0)}, []) == ("free", 0)
        assert origin(Ticket(MASKS, weights=weights), thetas, [State(base, 9)]) == ("free", 0)


def test_running_statistics_and_scales_count_too() -> None:
    """A state with the tensors that a norm would add."""
    more = {"norm.weight": torch.ones(3), "norm.running_mean": torch.zeros(3)}
    theta = State({**THETA.tensors(), **more}, 0)
    assert origin(Ticket(MASKS, weights=theta), {0: theta}, []) == ("init", 0)
    assert origin(Ticket(MASKS, weights=signed(theta)), {0: theta}, []) == ("signs", 0)
    for name in more:
        moved = changed(theta, name, (1,), "bit")
        assert origin(Ticket(MASKS, weights=moved), {0: theta}, []) == ("free", 0)
        both = {**signed(theta), name: moved[name]}
        assert origin(Ticket(MASKS, weights=both), {0: theta}, []) == ("free", 0)
    assert origin(Ticket(MASKS, weights=THETA), {0: theta}, []) == ("free", 0)


def test_a_final_state_trained_on_is_final_or_free(states: dict[str, State]) -> None:
    on = states["final, 5 steps on"]
    assert found(on, states) == ("free", 0)
    ticket = Ticket(MASKS, weights=on)
    assert origin(ticket, {0: THETA}, [states["final"], on]) == ("final", 0)


def test_trained_biases_make_free(states: dict[str, State]) -> None:
    mixed = {n: (states["final"] if n.endswith("bias") else THETA)[n] for n in THETA}
    assert found(mixed, states)[0] == "free"
    mixed = {n: (THETA if n.endswith("bias") else states["final"])[n] for n in THETA}
    assert found(mixed, states)[0] == "free"


@pytest.mark.parametrize("name", [*SHAPES, "head.bias"])
def test_tensors_of_two_steps_make_free(name: str, states: dict[str, State]) -> None:
    for one, other in ((THETA, states["theta_5"]), (states["theta_5"], states["theta_20"])):
        assert found({**one.tensors(), name: other[name]}, states)[0] == "free"


def test_signs_of_theta_count_as_its_own(states: dict[str, State]) -> None:
    assert found(signed(THETA), states) == ("signs", 0)
    assert found(signed(states["theta_20"]), states) == ("signs", 20)
    assert found(signed(THETA, 1e-30), states, start=5) == ("signs", 0)


def turn_all(weights: Weights) -> None:
    weights["head.weight"].neg_()


def second_magnitude(weights: Weights) -> None:
    weights["hidden.1.weight"][KEPT] *= 2


def one_sign(weights: Weights) -> None:
    weights["hidden.1.weight"][KEPT].neg_()


def one_zero(weights: Weights) -> None:
    weights["hidden.1.weight"][KEPT] = 0


def no_magnitude(weights: Weights) -> None:
    weights["hidden.1.weight"].zero_()


def a_bias(weights: Weights) -> None:
    weights["head.bias"][0] += 1


@pytest.mark.parametrize(
    "spoil", [turn_all, second_magnitude, one_sign, one_zero, no_magnitude, a_bias]
)
def test_signs_are_one_positive_magnitude_a_tensor(
    spoil: Callable[[Weights], None], states: dict[str, State]
) -> None:
    for k, theta in ((0, THETA), (5, states["theta_5"])):
        weights = signed(theta)
        assert found(weights, states) == ("signs", k)
        spoil(weights)
        assert found(weights, states) == ("free", 0)


def test_signs_of_two_steps_make_free(states: dict[str, State]) -> None:
    later = states["theta_20"]
    turned = {
        name: bool((THETA[name].sign() != later[name].sign())[MASKS[name]].any()) for name in SHAPES
    }
    assert any(turned.values())
    mixed = signed(THETA) | {name: signed(later)[name] for name in SHAPES if turned[name]}
    assert found(mixed, states)[0] == "free"


def test_an_emptied_tensor_may_hold_anything(states: dict[str, State]) -> None:
    masks = {**MASKS, "head.weight": torch.zeros_like(MASKS["head.weight"])}
    for weights in (signed(THETA), THETA.tensors()):
        weights["head.weight"] = torch.randn(HEAD, generator=torch.Generator().manual_seed(0))
        ticket = Ticket(masks, weights=weights)
        assert origin(ticket, {0: THETA}, [])[0] in ("signs", "init")


@moderate
@given(
    k=st.sampled_from([0, 5, 20]),
    name=st.sampled_from(list(NAMES)),
    bit=st.integers(0, 31),
    where=st.integers(0, 10**6),
)
def test_any_flipped_bit_is_seen(
    k: int, name: str, bit: int, where: int, states: dict[str, State]
) -> None:
    theta = {0: THETA, 5: states["theta_5"], 20: states["theta_20"]}[k]
    weights = theta.tensors()
    index = where % weights[name].numel()
    weights[name].view(-1).view(torch.int32)[index] ^= -(2**31) if bit == 31 else 1 << bit
    kept = name not in MASKS or bool(MASKS[name].view(-1)[index])
    ticket = Ticket(MASKS, weights=weights)
    result = origin(ticket, {0: THETA, k: theta}, [states["final"]])
    assert result == (("free", 0) if kept else ("rewind" if k else "init", k))


@pytest.mark.parametrize(
    ("name", "k", "expected"),
    [
        ("init", 0, "init"),
        ("rewind", 5, "rewind"),
        ("signs", 0, "init"),
        ("signs", 5, "rewind"),
        ("scaled", 0, "init"),
        ("final", 0, "reference"),
        ("free", 0, "open"),
        ("transferred", 0, "init"),
        ("transferred", 5, "rewind"),
    ],
)
def test_each_origin_has_its_board(name: str, k: int, expected: str) -> None:
    assert division(name, k) == expected


def test_a_ticket_is_a_value() -> None:
    ticket = Ticket(MASKS)
    assert (ticket.start, ticket.weights, ticket.trained) == (0, None, True)
    assert replace(ticket, start=3).start == 3


@pytest.mark.parametrize("rule", ["signs", "scaled"])
def test_zeros_where_a_ticket_is_pruned_do_not_reach_its_shuffled_control(rule: str) -> None:
    """Handed over with zeros or with all its weights, a ticket is completed to the same ones."""
    theta = THETA.tensors()
    whole = signed(theta) if rule == "signs" else {n: 0.5 * t for n, t in theta.items()}
    bare = {n: t * MASKS[n] if n in MASKS else t for n, t in whole.items()}
    full = completed(bare, theta, MASKS)
    assert all(torch.equal(full[name], whole[name]) for name in whole)
    assert not all(torch.equal(bare[name], whole[name]) for name in MASKS)
