"""Level 0: what is valid passes; every rule refuses what breaks it, whoever computes the scores."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from lthbench.errors import CheckFailed, RecordError, ResourceError, UsageError
from lthbench.io import paths
from lthbench.io.paths import canonical_json, digest
from lthbench.leaderboard.bundle import archive
from lthbench.leaderboard.validation import (
    bundle_rules,
    claims,
    parallel,
    pull_request,
)
from lthbench.leaderboard.validation.record_rules import rules as check_rules
from lthbench.leaderboard.validation.validate import check_bundle, check_record, validate
from lthbench.method.source import load_method
from lthbench.protocol.task import controlled, load_suite
from lthbench.records.schema import SIZE_LIMIT, read_record
from tests import commands
from tests.golden_aggregates import cases, golden
from tests.rewritten import Json, cell, cells, changed, shipped_records, table_of, written
from tests.submitted import DIGITS, House, at_home, carried, house
from tests.synthetic import as_file, as_table

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = {
    "accuracy 1": "43dc17d3775f6d8b",
    "accuracy 2": "9e9743c93c592181",
    "accuracy 3": "c7afad9ece9ba6e5",
    "accuracy 5": "9900d1786bd790b9",
    "accuracy 10": "ef0b3cece3a0878a",
    "accuracy bad": "0e69a7ec29b82ab9",
    "accuracy development": "2b910260ebf9b188",
    "accuracy alone": "4ee2ceb918d78a72",
    "accuracy rewind": "c16b48cc25f58e18",
    "accuracy open": "347b647749d1ac06",
    "accuracy reference": "2dc561b6be1923ef",
    "accuracy untrained": "4efd261e13a2bd37",
    "accuracy untrained bad": "3fdd82917ab21be5",
    "accuracy carried": "24781a4e7a206907",
    "accuracy carried bad": "49579daf055e0d23",
    "area 1": "8d86535f56487f5b",
    "area 2": "03fdf34a0073939c",
    "area 3": "1936d6c8a24b7a2a",
    "area 5": "832ce37904d0242e",
    "area 10": "77a213baad341ff4",
    "area bad": "b955deb4612e4835",
    "area development": "d6305ed8bfd1e5cc",
    "area alone": "7ecf1be63a637c2c",
    "area rewind": "abdd724df7a9752b",
    "area open": "2a458bebaec6e03e",
    "area reference": "94facdc846fcb31d",
    "area untrained": "7bdce26f812a69fa",
    "area untrained bad": "79d6555bad08dea4",
    "area carried": "26d0fa6d9840cbde",
    "area carried bad": "f1001540899a1447",
    "constant": "889633affb151987",
    "constant bad": "bc3d76b75e8c19fe",
    "uneven": "67551c4576259883",
    "alike": "0061ebf31dd9fd63",
}


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the tiny task has a reference too, so that a record of carried tickets is valid."""
    monkeypatch.setattr(paths, "PACKAGE", carried()[0])


# --- the scorer is what it was ---------------------------------------------------------------


@pytest.mark.slow
def test_aggregates_are_what_they_were_before_the_scorer_was_quick() -> None:
    assert {name: golden(table) for name, table in cases()} == GOLDEN


def test_a_golden_digest_notices_a_billionth_of_a_point() -> None:
    """The digests themselves: a figure moved by 1e-8 gives another."""
    name, table = next(cases())
    table["searches"][0]["cost"] += 1e-8
    assert golden(table) != GOLDEN[name]


# --- records ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", shipped_records(), ids=lambda path: f"{path.parent.name}/{path.name}"
)
def test_every_record_of_the_leaderboard_is_valid(path: Path) -> None:
    assert check_record(path) == read_record(path)


@pytest.mark.parametrize("kind", ["small", "compressed", "untrained", "carried"])
def test_a_record_may_say_other_things_of_its_method_and_machine(kind: str, tmp_path: Path) -> None:
    """The helper itself: what changes nothing that counts is valid under its new name."""

    def edit(table: Json) -> None:
        table["method"]["digest"] = "0" * 64  # no baseline's source
        table["method"]["described"]["authors"] = "A. Nobody <nobody@example.org>"
        table["method"]["described"]["code"] = "https://example.org/method"
        table["environment"]["processor"] = "another"
        table["times"]["find_seconds"] = 1.5

    assert check_record(written(tmp_path, changed(table_of(kind), edit), scored=True))


IMP = dict(load_method("imp").described)


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"described": {**IMP, "paper": "mine"}}, "described.paper: 'mine', but its source's"),
        ({"described": {**IMP, "paper": ""}}, "described.paper: '', but its source's METHOD says"),
        (
            {"described": {"name": "imp"}},
            "described.authors: nothing, but its source",
        ),
        ({"name": "mine", "described": {}}, "method.name: mine, but its source's METHOD says imp"),
        ({"options": {}}, "method.options: no rate, which its source has"),
        ({"options": {"rate": 0.2, "speed": 1}}, "options.speed: its source has no such option"),
        ({"options": {"rate": 1}}, "method.options.rate: 1, but its source wants float"),
    ],
)
def test_a_record_of_a_baseline_says_what_the_baseline_says(
    told: Json, message: str, tmp_path: Path
) -> None:
    """The sources of baselines are at hand without any bundle; another source may say so."""
    its = {"digest": load_method("imp").digest, "described": IMP}
    path = written(tmp_path, changed(table_of("small"), lambda t: t["method"].update(its | told)))
    with pytest.raises(RecordError, match=re.escape(message)):
        check_record(path)
    other = told | {"digest": "0" * 64}
    path = written(tmp_path, changed(table_of("small"), lambda t: t["method"].update(other)))
    assert check_record(path).method.digest == "0" * 64


def test_a_description_has_the_keys_of_a_method_s(tmp_path: Path) -> None:
    """No source could say another."""
    told = {"digest": "0" * 64, "described": {"award": "the first"}}
    path = written(tmp_path, changed(table_of("small"), lambda t: t["method"].update(told)))
    with pytest.raises(RecordError, match=r"described\.award: METHOD has no such key; it has name"):
        check_record(path)


def first_ticket(table: Json) -> Json:
    return cell(table, "ticket", schedule=1)


def rename_layer(table: Json, name: str) -> None:
    for kind in ("ticket", "untrained"):
        for one in cells(table, kind, schedule=1):
            old = sorted(one["layers"])[0]
            one["layers"][name] = one["layers"].pop(old)


def drop(table: Json, kind: str, **facts: Any) -> None:
    table["cells"].remove(cell(table, kind, **facts))


def fail(one: Json, status: str = "failed", reason: str = "no memory", **more: Any) -> None:
    one.update(status=status, reason=reason, correct={}, **more)


def draws_before(one: Json, count: int) -> list[Json]:
    """So many draws of other masks that are said to have diverged."""
    return [
        {"masks": digest(f"{one['masks']}{n}".encode()), "weights": one["weights"]}
        for n in range(count)
    ]


def swap(a: Json, b: Json, key: str) -> None:
    a[key], b[key] = b[key], a[key]


def move(table: Json) -> None:
    table["cells"][0], table["cells"][1] = table["cells"][1], table["cells"][0]


def two_seeds_alike(table: Json) -> None:
    """One seed's theta_0 in another's place, wherever it stands."""
    theirs = {one["seed"]: one["weights"] for one in cells(table, "dense", schedule=1)}
    for one in table["cells"]:
        if one["weights"] == theirs[1]:
            one["weights"] = theirs[0]


def other_theta(table: Json) -> None:
    for one in cells(table, "random", seed=0):
        one["weights"] = "7" * 64


def own_reinit(table: Json) -> None:
    one = cell(table, "reinit")
    one["weights"] = cell(table, "ticket", seed=one["seed"], density=one["density"])["weights"]


def unshuffled(table: Json) -> None:
    one = cell(table, "shuffled")
    one["masks"] = cell(table, "ticket", seed=one["seed"], density=one["density"])["masks"]


def half_missing(table: Json) -> None:
    gone = first_ticket(table)
    fail(gone, "missing")
    for kind in ("shuffled", "reinit"):
        drop(table, kind, seed=gone["seed"], density=gone["density"])


def rewound(table: Json) -> None:
    """A ticket that starts a step late, all that follows from it told accordingly."""
    first = first_ticket(table)
    for kind in ("ticket", "shuffled", "reinit"):
        one = cell(table, kind, seed=first["seed"], density=first["density"], schedule=1)
        one.update(origin="rewind", start=1, division="rewind")


def half_full(table: Json) -> None:
    """A tensor is called full at a rung that keeps less of it than another."""
    rung = min(one["density"] for one in cells(table, "ticket"))
    name = sorted(first_ticket(table)["layers"])[0]
    cell(table, "shuffled", density=rung)["own_shuffle"] = [name]


# What is edited in which record, and words of the refusal. All scores are computed again.
BROKEN: dict[str, tuple[str, Callable[[Json], object], str]] = {
    "development seeds": ("small", lambda t: t.update(final=False), "development seeds"),
    "held-out shown": ("small", lambda t: t.update(shown="held_out"), "development seeds"),
    "picked seeds": ("small", lambda t: t["seeds"].reverse(), "published ones"),
    "few controls": ("small", lambda t: t.update(controls="one rung"), 'must be "all"'),
    "unknown task": ("small", lambda t: t["task"].update(name="mlp-letters"), "no task of that"),
    "a path as task": ("small", lambda t: t["task"].update(name="x.toml"), "no task of that name"),
    "version": ("small", lambda t: t["task"].update(version=2), "task.version: 2"),
    "digest": ("small", lambda t: t["task"].update(digest="0" * 64), "task.digest"),
    "kind": ("small", lambda t: t["task"].update(kind="area"), "task.kind"),
    "schedule": ("small", lambda t: t["task"].update(schedule="cosine"), "task.schedule"),
    "chance": ("small", lambda t: t["task"].update(chance=0.5), "task.chance"),
    "threshold": ("small", lambda t: t["task"].update(threshold=0.5), "task.threshold"),
    "steps": ("small", lambda t: t["task"].update(steps=1501), "task.steps"),
    "seeds": ("small", lambda t: t["task"].update(seeds=2), "task.seeds"),
    "every": ("small", lambda t: t["task"].update(every=1), "task.every"),
    "weights": ("small", lambda t: t["task"].update(
        weights=t["task"]["weights"] + 1), "requested is not density"),
    "ladder": ("small", lambda t: t["task"]["ladder"].pop(), "task.ladder"),
    "fingerprints": ("small", lambda t: t["fingerprints"].update(
        {"fold0.test.x": "0" * 64}), "fingerprints: not those"),
    "a fingerprint more": ("small", lambda t: t["fingerprints"].update(
        {"more": "0" * 64}), "fingerprints: not those"),
    "margin": ("small", lambda t: t["reference"].update(margin=0.2), "not the frozen reference"),
    "losses of random": ("small", lambda t: t["reference"].update(
        loss_random=[50.0, 50.0]), "not the frozen reference"),
    "another reference": ("small", lambda t: t["reference"].update(
        digest="0" * 64), "not the frozen reference"),
    "no reference": ("small", lambda t: t.update(reference=None), "not the frozen reference"),
    "smaller test split": ("carried", lambda t: t["sizes"]["0"].update(
        test=t["sizes"]["0"]["test"] + 1), "sizes: of seed 0"),
    "another set": ("small", lambda t: t["sizes"]["1"].update(more=9), "sizes: of seed 1"),
    "a seed more": ("small", lambda t: t["sizes"].update({"99": t["sizes"]["0"]}), "sizes: must"),
    "more steps of its own than it cost": ("small", lambda t: t["searches"][0].update(
        own={"seconds": 9.0, "pace": 1e-3, "steps": 1.01 * t["searches"][0]["cost"]
             * t["task"]["steps"]}), "steps of its own, which are part of its cost"),
    "cost beyond the budget": ("small", lambda t: t["searches"][0].update(
        cost=31.0), "the budget is 30"),
    "searches turned round": ("small", lambda t: t["searches"].reverse(), "one for each seed"),
    "failed without reason": ("small", lambda t: t["searches"][0].update(
        status="failed"), "is failed, reason ''"),
    "no ticket": ("small", lambda t: drop(t, "ticket"), "no ticket at density"),
    "no shuffled": ("small", lambda t: drop(t, "shuffled"), "no shuffled at density"),
    "no reinit": ("small", lambda t: drop(t, "reinit"), "no reinit at density"),
    "no reinit-signs": ("measured", lambda t: drop(t, "reinit-signs"), "no reinit-signs at"),
    "signs that nobody asked for": ("small", lambda t: t["cells"].append(
        {**cell(t, "reinit"), "kind": "reinit-signs"}), "nothing asks for it"),
    "other operations of training": ("measured", lambda t: first_ticket(t).update(
        flops_training=first_ticket(t)["flops_training"] + 1), "flops_training"),
    "operations in part": ("measured", lambda t: first_ticket(t).update(
        flops_training=None), "operations in part"),
    "no distance": ("measured", lambda t: first_ticket(t).update(distance=None), "distance must"),
    "a distance alone": ("small", lambda t: first_ticket(t).update(distance=1.0), "distance must"),
    "nodes alone": ("small", lambda t: first_ticket(t).update(effective_nodes=3), "of its nodes"),
    "no nodes": ("measured", lambda t: first_ticket(t).update(effective_nodes=None), "nodes must"),
    "no node on a path": ("measured", lambda t: first_ticket(t).update(
        effective_nodes=0), "but 0 effective nodes"),
    "nodes of a control": ("measured", lambda t: cell(t, "shuffled").update(
        effective_nodes=0), "which tickets alone do"),
    "nothing of the fit": ("measured", lambda t: first_ticket(t)["correct"].pop(
        "train"), "0 counts of train"),
    "the ticket's own magnitudes": ("measured", lambda t: cell(t, "reinit-signs").update(
        weights=first_ticket(t)["weights"]), "own weights"),
    "the signs of another": ("measured", lambda t: cell(t, "reinit-signs", seed=0).update(
        weights=cell(t, "dense", seed=1)["weights"]), "starts from theta_0 of seed 1"),
    "no random": ("small", lambda t: drop(t, "random"), "no random at density"),
    "no erk": ("small", lambda t: drop(t, "erk"), "no erk at density"),
    "no dense": ("small", lambda t: drop(t, "dense"), "no dense at density"),
    "no compressed ticket": ("compressed", lambda t: drop(t, "ticket", schedule=8), "schedule 1/8"),
    "no compressed dense": ("compressed", lambda t: drop(t, "dense", schedule=4), "schedule 1/4"),
    "no random mask": ("untrained", lambda t: drop(t, "untrained_random"), "no untrained_random"),
    "no trained ticket": ("untrained", lambda t: drop(t, "ticket"), "no ticket at density"),
    "a cell more": ("small", lambda t: t["cells"].append(
        {**cell(t, "ticket"), "schedule": 2}), "nothing asks for it"),
    "disorder": ("small", move, "not in the order"),
    "ok with a reason": ("small", lambda t: first_ticket(t).update(reason="x"), "is ok, reason"),
    "failed and no reason": ("small", lambda t: fail(first_ticket(t), reason=""), "is failed"),
    "missing yet kept": ("small", lambda t: fail(first_ticket(t), "missing"), "nothing asks"),
    "missing without controls, yet kept": ("small", half_missing, "something is told"),
    "a missing control": ("small", lambda t: fail(cell(t, "erk"), "missing", kept=0, masks=None),
                          "something is told"),
    "one weight more": ("small", lambda t: first_ticket(t).update(
        kept=first_ticket(t)["kept"] + 1), "counts are exact"),
    "a control keeps more": ("small", lambda t: cell(t, "reinit").update(
        kept=cell(t, "reinit")["kept"] + 1), "counts are exact"),
    "no masks": ("small", lambda t: first_ticket(t).update(masks=None), "masks missing"),
    "masks of dense": ("compressed", lambda t: cell(t, "dense", schedule=2).update(
        masks="0" * 64), "masks of nothing"),
    "best of five draws": ("small", lambda t: cell(t, "erk").update(attempt=4), "attempt 4"),
    "a draw that was chosen": ("small", lambda t: cell(t, "shuffled").update(attempt=1),
                               "attempt 1 after 0 failed draws"),
    "draws after the last": ("small", lambda t: cell(t, "shuffled").update(
        failed_draws=draws_before(cell(t, "shuffled"), 1)), "attempt 0 after 1 failed draws"),
    "one draw twice": ("small", lambda t: cell(t, "shuffled").update(
        attempt=2, failed_draws=2 * draws_before(cell(t, "shuffled"), 1)), "two of its draws"),
    "its own draw before": ("small", lambda t: cell(t, "erk").update(
        attempt=1, failed_draws=[{k: cell(t, "erk")[k] for k in ("masks", "weights")}]),
        "two of its draws"),
    "a ticket drawn again": ("small", lambda t: first_ticket(t).update(attempt=1), "attempt 1"),
    "a curve cut": ("small", lambda t: first_ticket(t)["correct"]["test"].pop(0), "counts of test"),
    "a curve drawn out": ("small", lambda t: first_ticket(t)["correct"]["test"].insert(
        0, 1), "counts of test"),
    "no counts": ("small", lambda t: first_ticket(t)["correct"].pop("test"), "0 counts of test"),
    "a control's training curve": ("carried", lambda t: cell(t, "random")["correct"].update(
        train=[1, 1]), "2 counts of train"),
    "a later start": ("small", rewound, "rewinds to 0"),
    "random from elsewhere": ("small", lambda t: cell(t, "random").update(
        origin="signs"), "not theta_0"),
    "a control of another origin": ("small", lambda t: cell(t, "shuffled").update(
        origin="signs"), "its ticket from init"),
    "layers": ("small", lambda t: first_ticket(t)["layers"].update(
        {"head.weight": 0}), "its tensors keep"),
    "layers of a control": ("small", lambda t: cell(t, "erk").update(
        layers={"head.weight": 1}), "which tickets alone do"),
    "no effective": ("small", lambda t: first_ticket(t).update(effective=None), "its tensors keep"),
    "another tensor": ("small", lambda t: rename_layer(t, "stem.weight"), "no prunable tensor"),
    "markup in a tensor": ("small", lambda t: rename_layer(
        t, "hidden.<b>.weight"), "no prunable tensor"),
    "nothing shuffled": ("small", unshuffled, "nothing was shuffled"),
    "falsely full": ("small", half_full, "neither full nor empty"),
    "own shuffle of nothing": ("small", lambda t: cell(t, "shuffled").update(
        own_shuffle=["head.bias"]), "names no tensors"),
    "own shuffle of erk": ("small", lambda t: cell(t, "reinit").update(
        own_shuffle=["head.weight"]), "of shuffled controls alone"),
    "own reinit": ("small", own_reinit, "own weights"),
    "reinit by other masks": ("small", lambda t: cell(t, "reinit").update(
        masks="0" * 64), "other masks than its ticket"),
    "shuffled from other weights": ("small", lambda t: cell(t, "shuffled").update(
        weights="0" * 64), "other weights than its ticket"),
    "compressed by other masks": ("compressed", lambda t: cell(t, "ticket", schedule=2).update(
        masks="0" * 64), "other masks than its ticket"),
    "compressed reinit": ("compressed", lambda t: cell(t, "reinit", schedule=2).update(
        weights="0" * 64), "than with the whole schedule"),
    "untrained by other masks": ("untrained", lambda t: cell(t, "untrained").update(
        masks="0" * 64), "other masks than its ticket"),
    "untrained of other tensors": ("untrained", lambda t: cell(t, "untrained").update(
        effective=cell(t, "untrained")["effective"] - 1), "other tensors than its ticket"),
    "two seeds alike": ("small", two_seeds_alike, "theta_0"),
    "another theta_0": ("small", other_theta, "theta_0 is not that of other cells"),
    "one random mask twice": ("small", lambda t: cell(t, "random").update(
        masks=cell(t, "erk")["masks"]), "has the masks of"),
    "a worse dense run": ("small", lambda t: cell(t, "dense")["correct"]["test"].__setitem__(
        -1, 1), "not the reference's own run"),
    "transfer of nothing": ("small", lambda t: t.update(
        transfer={**table_of("carried")["transfer"], "cells": []}), "transfer.densities: not"),
    "transfer's targets": ("carried", lambda t: t["transfer"].update(
        reason="none", cells=[], targets=[1, 4], sizes={"1": 1, "4": 1}), "transfer.targets"),
    "transfer's sizes": ("carried", lambda t: t["transfer"].update(
        reason="none", cells=[], sizes={"1": 1, "3": 1}), "transfer.sizes"),
    "transfer for no reason": ("carried", lambda t: t["transfer"].update(
        reason="none"), "not both"),
    "no carried ticket": ("carried", lambda t: t["transfer"]["cells"].remove(
        next(c for c in t["transfer"]["cells"] if c["kind"] == "carried")), "no carried at depth"),
    "a worse random ticket": ("carried", lambda t: next(
        c for c in t["transfer"]["cells"] if c["kind"] == "erk")["correct"]["test"].__setitem__(
        -1, 7), "not the reference's own run"),
    "carried from elsewhere": ("carried", lambda t: next(
        c for c in t["transfer"]["cells"] if c["kind"] == "carried").update(
        weights="0" * 64), "than the ticket that was carried"),
    "transfer in disorder": ("carried", lambda t: t["transfer"]["cells"].reverse(), "the order"),
    "a carried source": ("carried", lambda t: next(
        c for c in t["transfer"]["cells"] if c["kind"] == "carried").update(
        source=""), "its source"),
    "layers by the ticket's masks": ("carried", lambda t: next(
        c for c in t["transfer"]["cells"] if c["kind"] == "mask-only").update(
        masks="0" * 64), "a mask-only part"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_each_rule_refuses_what_breaks_it(name: str, tmp_path: Path) -> None:
    kind, edit, words = BROKEN[name]
    path = written(tmp_path, table_of(kind))
    check_record(path)
    table = changed(table_of(kind), edit)
    path = written(tmp_path / "broken", table)
    with suppress(KeyError, ValueError, IndexError):
        path = written(tmp_path / "scored", table, scored=True)  # as far as any follow from it
    with pytest.raises(RecordError, match=re.escape(words)) as caught:
        check_record(path)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ")


def test_failed_cells_are_allowed_with_their_reasons(tmp_path: Path) -> None:
    """A ticket that no search yielded has no controls; what diverged keeps what it has."""

    def edit(table: Json) -> None:
        gone = first_ticket(table)
        place = {"seed": gone["seed"], "density": gone["density"]}
        dense = cell(table, "dense", seed=gone["seed"])
        fail(gone, "missing", "not yielded", kept=0, effective=None, layers={}, masks=None)
        gone["weights"] = dense["weights"]
        drop(table, "shuffled", **place)
        drop(table, "reinit", **place)
        fail(cells(table, "ticket", status="ok")[0], "diverged", "a loss was not finite")
        again = cell(table, "shuffled")
        draws = draws_before(again, 2)
        fail(again, "diverged", "a weight was not finite", attempt=2, failed_draws=draws)
        table["searches"][0].update(status="failed", reason="it raised")

    assert check_record(written(tmp_path, changed(table_of(), edit), scored=True))


def only_alternate(table: Json) -> None:
    """As an evaluation whose suite asks for controls on every second rung leaves it."""
    ladder = table["task"]["ladder"]
    rungs = {1.0, *controlled(ladder, "alternate")}
    table["controls"] = "alternate"
    table["cells"] = [c for c in table["cells"] if c["kind"] == "ticket" or c["density"] in rungs]


@pytest.mark.parametrize("kind", ["small", "compressed"])
def test_as_many_controls_as_a_ranked_suite_asks_for(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or all of them; fewer are refused, and so is a control that nothing asked for."""
    whole = table_of(kind)

    def ask(controls: str) -> None:
        asked = load_suite("lite").model_copy(
            update={"controls": controls, "tasks": (whole["task"]["name"],)}
        )
        monkeypatch.setattr(claims, "load_suite", lambda name: asked)

    ask("all")
    table = changed(whole, only_alternate)
    assert len(table["cells"]) < len(whole["cells"])
    path = written(tmp_path, table, scored=True)
    with pytest.raises(RecordError, match="controls: 'alternate', must be \"all\""):
        check_record(path)
    ask("alternate")
    assert check_record(path).controls == "alternate"
    check_record(written(tmp_path, whole))
    more = changed(whole, lambda t: t.update(controls="alternate"))
    with pytest.raises(RecordError, match="nothing asks for it"):
        check_record(written(tmp_path, more, scored=True))
    fewer = changed(table, lambda t: drop(t, "reinit"))
    with pytest.raises(RecordError, match="no reinit at density"):
        check_record(written(tmp_path, fewer, scored=True))


@pytest.mark.parametrize("kind", ["erk", "random"])
def test_random_controls_are_the_references_where_it_has_them(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As dense runs are; of a seed that it lacks they are the record's own."""
    table = table_of()
    own = read_record(written(tmp_path, table))
    reference = claims.check(own).reference
    known = tuple(cell for cell in own.cells if cell.kind == kind and cell.seed == 0)
    rich = reference.model_copy(update={"controls": known})
    real = claims.known_of
    monkeypatch.setattr(
        claims, "known_of", lambda name: dataclasses.replace(real(name), reference=rich)
    )
    check_rules(own)

    def other(seed: int) -> Any:
        def edit(t: Json) -> None:
            cell(t, kind, seed=seed)["correct"]["test"][-1] -= 1

        return read_record(written(tmp_path / str(seed), changed(table, edit), scored=True))

    check_rules(other(1))
    with pytest.raises(RecordError, match=f"{kind} at density .* not the reference's own run"):
        check_rules(other(0))


# --- files -----------------------------------------------------------------------------------


def test_a_file_must_bear_its_own_name(tmp_path: Path) -> None:
    path = written(tmp_path, table_of())
    for other in (
        path.with_name("imp--00000000.json"),
        path.with_name(path.name.replace("imp", "pim")),
        path.with_name("record.json"),
        tmp_path / "mlp-modadd59" / path.name,
    ):
        other.parent.mkdir(exist_ok=True)
        shutil.copy(path, other)
        with pytest.raises(RecordError, match=f"must be mlp-digits/{path.name}"):
            check_record(other)


@pytest.mark.parametrize("form", ["spaces", "order", "twice", "no newline", "number", "null"])
def test_a_file_is_canonical(form: str, tmp_path: Path) -> None:
    """What stands there in another form, or twice, could be read as two things."""
    raw = written(tmp_path, table_of()).read_bytes()
    other = {
        "spaces": raw.replace(b'"final":', b'"final": '),
        "order": canonical_json(dict(reversed(json.loads(raw).items()))).replace(
            b'{"aggregates"', b'{ "aggregates"', 1
        ),
        "twice": raw.replace(b'"final":true', b'"final":false,"final":true'),
        "no newline": raw.rstrip(b"\n"),
        "number": raw.replace(b'"chance":0.1', b'"chance":0.10'),
        "null": raw.replace(b',"scorer"', b',"bundle":null,"scorer"'),
    }[form]
    assert other != raw
    path = tmp_path / "mlp-digits" / f"imp--{digest(other)[:8]}.json"
    path.write_bytes(other)
    with pytest.raises(RecordError, match="canonical form"):
        check_record(path)


# --- many ------------------------------------------------------------------------------------


def test_folders_files_and_bundles(tmp_path: Path) -> None:
    first = written(tmp_path / "records", table_of())
    second = written(tmp_path / "records", table_of("carried"))
    (tmp_path / "records" / "README").write_text("not looked at")
    found = validate([tmp_path, first])
    assert [f.path for f in found.findings] == sorted(map(str, (first, second)))
    assert [f.ok for f in found.findings] == [True, True]
    assert found.text().endswith("2 of 2 valid")
    found.demand()
    with pytest.raises(UsageError, match="no such file"):
        validate([tmp_path / "absent.json"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no records here"):
        validate([tmp_path / "empty"])


def test_an_evaluation_is_to_be_submitted(at_house: House) -> None:
    """Its records have no bundle and no name yet: no rule that they break is told."""
    with pytest.raises(UsageError) as caught:
        validate([at_house.out])
    told = f"{at_house.out}: an evaluation's folder; `lthbench submit {at_house.out}` makes the"
    assert str(caught.value) == f"{told} record that the leaderboard takes"


def test_what_is_refused_is_told_and_demanded(tmp_path: Path) -> None:
    good = written(tmp_path, table_of())
    bad = good.with_name("imp--00000000.json")
    bad.write_bytes(b"{}")
    found = validate([tmp_path])
    assert [f.ok for f in found.findings] == [False, True]
    assert "REFUSED" in found.text()
    assert "1 of 2 valid" not in found.text()  # but in the error, once
    assert json.loads(found.json())["ok"] is False
    with pytest.raises(CheckFailed, match="1 of 2 valid, 1 refused"):
        found.demand()


def test_many_files_are_shared_among_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In order, each once, by processes that take nothing from the working folder."""
    monkeypatch.setattr(parallel, "ALONE", 2)
    monkeypatch.setattr(parallel, "_cores", lambda: 3)
    paths = []
    for number in range(7):
        table = table_of()
        table["times"]["find_seconds"] = float(number)
        paths.append(written(tmp_path, table))
    paths[4].write_bytes(b"{}")
    trap = tmp_path / "trap"
    (trap / "lthbench" / "validation").mkdir(parents=True)
    for name in ("__init__.py", "validation/__init__.py", "validation/__main__.py"):
        (trap / "lthbench" / name).write_text("raise SystemExit('imported from here')\n")
    monkeypatch.chdir(trap)
    heard = []
    listened = parallel._heard
    monkeypatch.setattr(parallel, "_heard", lambda w: heard.append(listened(w)) or heard[-1])
    found = parallel.findings(paths)
    assert [f.path for f in found] == [str(path) for path in paths]
    assert [f.ok for f in found] == [number != 4 for number in range(7)]
    assert [len(share) for share in heard] == [2, 2]  # none of them had to be done again


def test_a_process_that_dies_leaves_its_share_to_this_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parallel, "ALONE", 1)
    monkeypatch.setattr(parallel, "_cores", lambda: 2)
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    paths = [written(tmp_path, table_of(kind)) for kind in ("small", "carried")]
    assert [f.ok for f in parallel.findings(paths)] == [True, True]


# --- bundles ---------------------------------------------------------------------------------


@pytest.fixture
def at_house() -> Any:
    lived = house()
    with at_home(lived.share, lived.cache):
        yield lived


def rebundled(lived: House, path: Path, edit: Callable[[dict[str, bytes]], object]) -> Path:
    """The house's bundle with members changed and a manifest that says so."""
    found = archive.read(lived.bundle)
    members = {name: bytes(data) for name, data in found.members.items()}
    del members["manifest.json"]
    edit(members)
    path.write_bytes(archive.contain(members))
    return path


def test_a_bundle_is_valid(at_house: House) -> None:
    tasks, remarks = check_bundle(at_house.bundle)
    assert (tasks, remarks) == (("tiny-digits", "tiny-modadd"), ())
    assert validate([at_house.bundle]).findings[0].ok


def test_accuracies_are_not_checked_without_data(
    at_house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LTHBENCH_CACHE", str(tmp_path))
    _, remarks = check_bundle(at_house.bundle)
    assert remarks == ("accuracies of tiny-digits not checked (no data)",)
    assert "not checked (no data)" in validate([at_house.bundle]).text()


def raised(members: dict[str, bytes]) -> None:
    """A ticket's end raised by one answer, its scores computed again and its curve with it."""
    from lthbench.io import canonical_tensors
    from tests.scoring import aggregates

    name = f"{DIGITS}/record.json"
    table = as_table(members[name])
    one = cell(table, "ticket", seed=0)
    one["correct"]["test"][-1] += 1
    table["aggregates"] = aggregates(table)
    members[name] = canonical_json(as_file(table))
    header, curves = canonical_tensors.loads(members[f"{DIGITS}/curves.safetensors"], "curves")
    place = f"ticket/{one['density']!r}/0/1/test"
    curves[place] = curves[place].copy()
    curves[place][-1] += 1
    members[f"{DIGITS}/curves.safetensors"] = canonical_tensors.dumps(header, curves)


def unanswered(members: dict[str, bytes]) -> None:
    from lthbench.io import canonical_tensors

    name = f"{DIGITS}/answers.safetensors"
    header, held = canonical_tensors.loads(members[name], "answers")
    held.pop(next(place for place in held if place.startswith("shuffled")))
    members[name] = canonical_tensors.dumps(header, held)


def broken_rule(members: dict[str, bytes]) -> None:
    name = f"{DIGITS}/record.json"
    table = json.loads(members[name])
    table["environment"]["processor"] = "a\u202eb"
    members[name] = canonical_json(table)


def test_a_count_that_the_answers_do_not_give_is_refused(at_house: House, tmp_path: Path) -> None:
    path = rebundled(at_house, tmp_path / "raised.zip", raised)
    with pytest.raises(RecordError, match=r"are right, but the record counts"):
        check_bundle(path)


def test_a_run_without_answers_is_refused(at_house: House, tmp_path: Path) -> None:
    path = rebundled(at_house, tmp_path / "unanswered.zip", unanswered)
    with pytest.raises(RecordError, match=r"answers: none of shuffled/"):
        check_bundle(path)


def test_a_bundles_records_keep_the_rules(at_house: House, tmp_path: Path) -> None:
    path = rebundled(at_house, tmp_path / "rule.zip", broken_rule)
    with pytest.raises(RecordError, match=r"environment.processor: holds the character U\+202E"):
        check_bundle(path)
    assert not validate([path]).findings[0].ok


def test_the_house_is_not_excused_from_any_rule(at_house: House) -> None:
    for record in at_house.records:
        check_rules(record)
    assert bundle_rules.check(at_house.bundle)[0]


# --- changes ---------------------------------------------------------------------------------


class Clone:
    """A repository with a leaderboard, for a branch to be made in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.git("init", "--quiet", "--initial-branch=main")
        self.write("leaderboard/ledger.jsonl", b"")
        self.write("leaderboard/reference/mlp-digits.json", b"{}\n")
        self.write("tasks/mlp-digits.toml", b"")
        self.write("lthbench/code.py", b"")
        self.old = written(folder / "leaderboard" / "records", table_of("carried"))
        self.commit()
        self.git("switch", "--quiet", "--create", "submission")

    def git(self, *arguments: str) -> None:
        identity = ("-c", "user.name=A", "-c", "user.email=a@example.org")
        subprocess.run(
            ["git", "-C", str(self.folder), *identity, *arguments], check=True, capture_output=True
        )

    def write(self, name: str, data: bytes) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def commit(self) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "x")


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return Clone(tmp_path / "clone")


def test_a_branch_may_add_records(clone: Clone) -> None:
    added = written(clone.folder / "leaderboard" / "records", table_of())
    clone.commit()
    found = validate([clone.folder], since="main")
    assert [(f.path, f.ok) for f in found.findings] == [(str(added), True)]
    found.demand()


def test_what_is_added_is_checked(clone: Clone) -> None:
    path = written(clone.folder / "leaderboard" / "records", table_of())
    path.write_bytes(path.read_bytes().replace(b'"final":true', b'"final":false'))
    clone.commit()
    assert [f.ok for f in validate([clone.folder], since="main").findings] == [False]


def test_what_is_committed_counts_not_what_lies_there(clone: Clone) -> None:
    """A good record of the commit, a bad one in the working tree; the reverse; none there."""
    path = written(clone.folder / "leaderboard" / "records", table_of())
    good = path.read_bytes()
    bad = good.replace(b'"final":true', b'"final":false')
    for held, there, fine in ((good, bad, True), (bad, good, False), (good, None, True)):
        path.write_bytes(held)
        clone.commit()
        if there is None:
            path.unlink()
        else:
            path.write_bytes(there)
        for named in (clone.folder, *([path] if there else [])):
            (finding,) = validate([named], since="main").findings
            assert (finding.path, finding.ok) == (str(path), fine)


def test_what_is_not_committed_is_no_change(clone: Clone) -> None:
    """Nor do changes that are hidden from the working tree go unseen."""
    clone.write("tasks/mlp-digits.toml", b"changed")
    clone.git("add", "--all")
    clone.write("lthbench/method/template.py", b"x")
    assert validate([clone.folder], since="main").findings == ()
    clone.git("commit", "--quiet", "--message", "x")
    clone.write("tasks/mlp-digits.toml", b"")
    clone.git("update-index", "--assume-unchanged", "tasks/mlp-digits.toml")
    assert [f.ok for f in validate([clone.folder], since="main").findings] == [False]


def test_a_filter_of_the_working_tree_is_not_applied(clone: Clone) -> None:
    """What a checkout would make of a record is not what was added."""
    (clone.folder / ".git" / "info").mkdir(exist_ok=True)
    (clone.folder / ".git" / "info" / "attributes").write_text("*.json text eol=crlf\n")
    path = written(clone.folder / "leaderboard" / "records", table_of())
    clone.commit()
    path.unlink()
    clone.git("checkout", "--quiet", "--", ".")
    assert path.read_bytes().endswith(b"\r\n")
    assert [f.ok for f in validate([clone.folder], since="main").findings] == [True]


@pytest.mark.parametrize("hide", ["configuration", "file"])
def test_no_setting_hides_another_repository_in_a_folder(hide: str, clone: Clone) -> None:
    head = "1" * 40
    clone.git("update-index", "--add", "--cacheinfo", f"160000,{head},lthbench/sub")
    clone.git("commit", "--quiet", "--message", "x")
    if hide == "configuration":
        clone.git("config", "diff.ignoreSubmodules", "all")
    else:
        text = '[submodule "s"]\npath = lthbench/sub\nurl = x\nignore = all\n'
        clone.write(".gitmodules", text.encode())
    found = validate([clone.folder], since="main").findings
    assert [(f.path, f.ok) for f in found] == [("lthbench/sub", False)]


def test_no_replacement_stands_for_a_commit(clone: Clone) -> None:
    """`git replace` shows one's own clone another history than everyone else's."""
    clone.write("lthbench/code.py", b"x")
    clone.commit()
    clone.git("replace", "HEAD", "main")
    assert [f.ok for f in validate([clone.folder], since="main").findings] == [False]


def test_no_variable_leads_to_another_repository(
    clone: Clone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Clone(tmp_path / "other")
    clone.write("lthbench/code.py", b"x")
    clone.commit()
    monkeypatch.setenv("GIT_DIR", str(other.folder / ".git"))
    assert [f.ok for f in validate([clone.folder], since="main").findings] == [False]


def test_a_file_that_is_too_large_is_not_read(clone: Clone) -> None:
    path = clone.folder / "leaderboard/records/mlp-digits/imp--01234567.json"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b" " * (SIZE_LIMIT + 1))
    clone.commit()
    (finding,) = validate([clone.folder], since="main").findings
    assert not finding.ok and finding.what == "larger than 2 MB; this is no record"


def test_without_git_nothing_is_valid(clone: Clone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ResourceError, match="git: cannot be run"):
        validate([clone.folder], since="main")


def linked(clone: Clone) -> None:
    name = f"{clone.old.parent}/imp--00000000.json"
    Path(name).symlink_to("/etc/passwd")


def executable(clone: Clone) -> None:
    path = written(clone.folder / "leaderboard" / "records", table_of())
    path.chmod(0o755)


CHANGES: dict[str, tuple[Callable[[Clone], object], str]] = {
    "a record": (lambda c: c.old.write_bytes(b"{}\n"), "changed; a record that was once"),
    "a record goes": (lambda c: c.old.unlink(), "deleted; a record that was once"),
    "a record is renamed": (
        lambda c: c.old.rename(c.old.with_name("imp--00000000.json")), "deleted; a record that"),
    "the ledger": (lambda c: c.write("leaderboard/ledger.jsonl", b"x\n"), "writes the ledger"),
    "the ledger goes": (
        lambda c: (c.folder / "leaderboard/ledger.jsonl").unlink(), "deleted; only `lthbench"),
    "a reference": (
        lambda c: c.write("leaderboard/reference/mlp-digits.json", b"x\n"), "references are froz"),
    "a new reference": (
        lambda c: c.write("leaderboard/reference/new.json", b"x\n"), "references are frozen"),
    "a task": (lambda c: c.write("tasks/mlp-digits.toml", b"x"), "tasks are frozen"),
    "a new task": (lambda c: c.write("tasks/new.toml", b"x"), "tasks are frozen"),
    "code": (lambda c: c.write("lthbench/code.py", b"x"), "pull requests of their own"),
    "the workflow": (
        lambda c: c.write(".github/workflows/leaderboard.yml", b"x"), "pull requests of their own"),
    "a file of another name": (
        lambda c: c.write("leaderboard/records/mlp-digits/imp.json", b"{}"), "a record is leader"),
    "a hidden file": (
        lambda c: c.write("leaderboard/records/mlp-digits/.x", b"{}"), "a record is leaderboard"),
    "a newline": (
        lambda c: c.write("leaderboard/records/mlp-digits/a\nb--01234567.json", b"{}"), "a record"),
    "a link": (linked, "not as an ordinary file"),
    "a program": (executable, "not as an ordinary file"),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_nothing_else_may_change(name: str, clone: Clone) -> None:
    edit, words = CHANGES[name]
    edit(clone)
    clone.commit()
    found = validate([clone.folder], since="main")
    refused = [f for f in found.findings if not f.ok]
    assert any(words in f.what for f in refused)
    assert all("\n" not in f.path + f.what for f in refused)
    with pytest.raises(CheckFailed):
        found.demand()


def test_what_main_did_since_is_no_change_of_the_branch(clone: Clone) -> None:
    written(clone.folder / "leaderboard" / "records", table_of())
    clone.commit()
    clone.git("switch", "--quiet", "main")
    clone.write("leaderboard/ledger.jsonl", b"later\n")
    clone.commit()
    clone.git("switch", "--quiet", "submission")
    assert [f.ok for f in validate([clone.folder], since="main").findings] == [True]
    clone.git("merge", "--quiet", "--no-edit", "main")  # as a pull request is checked out
    assert pull_request.since("main", clone.folder).refused == ()


@pytest.mark.parametrize("revision", ["nowhere", "--output=x", "-h", "main..", ""])
def test_a_revision_that_is_none(revision: str, clone: Clone, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="name a revision that the clone has"):
        validate([clone.folder], since=revision)
    assert not list(tmp_path.glob("**/x"))


def test_a_folder_in_no_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    with pytest.raises(UsageError, match="not a git repository"):
        validate([tmp_path], since="main")


def test_nothing_added_is_nothing_refused(clone: Clone) -> None:
    found = validate([clone.folder], since="main")
    assert found.text() == "nothing to validate"
    found.demand()


def test_since_alone_is_of_the_folder_one_is_in(clone: Clone) -> None:
    """As CONTRIBUTING says it; without --since something must be named."""
    added = written(clone.folder / "leaderboard" / "records", table_of())
    clone.commit()
    for arguments, code in ((("--since", "main"), 0), (("--since", "main", "."), 0), ((), 2)):
        done = commands.run("validate", *arguments, cwd=clone.folder)
        assert done.returncode == code
        assert code or done.stdout == f"ok       {added}: valid\n1 of 1 valid\n"
        assert not code or "missing argument PATHS" in done.stderr


# --- the workflow ----------------------------------------------------------------------------


def test_the_workflow_gives_a_pull_request_nothing() -> None:
    """Read as text: no parser of YAML is needed to see what must not be there."""
    text = (ROOT / ".github" / "workflows" / "leaderboard.yml").read_text()
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    code = "\n".join(lines)
    assert re.search(r"^on:\n  pull_request:$", code, re.MULTILINE)
    assert "pull_request_target" not in code and "workflow_run" not in code
    assert "secrets" not in code
    assert re.findall(r"permissions:\n((?:  .*\n)+)", code) == ["  contents: read\n"]
    used = [line.strip().removeprefix("- ") for line in lines if "uses:" in line]
    assert used and all(re.match(r"uses: [\w/-]+@[0-9a-f]{40}( |$)", line) for line in used)
    assert code.count("persist-credentials: false") == len(used)
    # What is submitted is never installed, imported or put into a command.
    assert "ref: ${{ github.event.pull_request.base.sha }}\n          path: base" in code
    assert "./submission" not in code
    assert "working-directory" not in code
    commands = code[code.index("run:") :]
    assert "${{" not in commands
    assert "lthbench validate --since 'HEAD^1' submission" in commands


def test_the_command_tells_and_exits_as_it_must(tmp_path: Path) -> None:
    """0 where all is valid, 1 where something is refused, 2 where there is nothing to look at."""
    good = written(tmp_path, table_of())
    bad = good.with_name("imp--00000000.json")
    bad.write_bytes(good.read_bytes())
    for path, code, words in (
        (good, 0, "1 of 1 valid"),
        (bad, 1, f"must be mlp-digits/{good.name}"),
        (tmp_path / "absent", 2, "no such file"),
    ):
        done = commands.run("validate", str(path), cwd=ROOT)
        assert done.returncode == code and words in done.stdout + done.stderr
        assert "Traceback" not in done.stderr
