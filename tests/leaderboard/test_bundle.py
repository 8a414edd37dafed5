"""The bundle: one form, read back as it was packed, and every changed byte noticed."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from safetensors.numpy import load as load_safetensors
from safetensors.numpy import save as save_safetensors

from lthbench.errors import RecordError
from lthbench.io import canonical_tensors, canonical_zip
from lthbench.io.paths import digest
from lthbench.leaderboard.bundle import archive, start_weights, ticket_member
from lthbench.leaderboard.bundle.archive import Bundle
from lthbench.leaderboard.bundle.build import pack
from lthbench.networks import families
from lthbench.networks.state import State
from lthbench.protocol.task import load_task
from lthbench.records.schema import record_digest
from lthbench.tickets import masks, ticket_files
from lthbench.tickets.ticket import Ticket, completed, origin
from tests.searching import ROOT
from tests.submitted import DIGITS, MODADD, at_home, finished, house, records_of

TASKS = (DIGITS, MODADD)


@pytest.fixture(scope="module")
def whole() -> Bundle:
    return archive.read(house().bundle)


def frozen(name: str) -> bool:
    """Whether a run is the reference's, whose answers it keeps to itself."""
    kind, _, _, schedule = name.split("/")
    return kind in ("dense", "erk", "random") and schedule == "1"


# --- the file ---------------------------------------------------------------------------------


def test_what_was_packed_is_read(whole: Bundle) -> None:
    """Records, source, tickets, answers and curves, as the evaluation left them."""
    home = house()
    assert whole.tasks == TASKS
    assert whole.sha256 == digest(home.bundle.read_bytes())
    assert whole.size == home.bundle.stat().st_size
    assert archive.source(whole) == (home.out / "method.py").read_text()
    for record in home.records:
        task = record.task.name
        assert archive.record(whole, task) == record
        pairs = [(c.seed, c.density) for c in record.cells if (c.kind, c.schedule) == ("ticket", 1)]
        assert sorted(archive.tickets(whole, task)) == sorted(pairs)
        ran = {name for name, run in archive.runs(record) if not frozen(name)}
        assert set(archive.answers(whole, task)) == ran
        for seed, density in archive.tickets(whole, task):
            header, chosen, _ = archive.ticket(whole, task, seed, density)
            folder = home.out / task / "tickets" / f"seed{seed}"
            told, held, _ = ticket_files.read_ticket(folder, density)
            assert header == {name: told[name] for name in ticket_member.HEADER}
            assert "cost" not in header
            assert all(np.array_equal(chosen[name], held[name].numpy()) for name in held)


def test_answers_give_the_accuracies(whole: Bundle) -> None:
    """Beside the labels, answers are as many correct ones as the record counts."""
    from lthbench.protocol.datasets import prepare
    from lthbench.protocol.test_split import test_examples

    home = house()
    with at_home(home.share, home.cache):
        for record in home.records:
            task = load_task(record.task.name)
            prepare(task, download=False, test=True)
            given = archive.answers(whole, task.name)
            curves = archive.curves(whole, task.name)
            for name, run in archive.runs(record):
                if frozen(name):
                    continue
                labels = test_examples(task, run.seed).y
                correct = int((given[name] == labels).sum())
                assert correct == run.correct["test"][-1] == curves[f"{name}/test"][-1]


def test_the_same_input_gives_the_same_bytes() -> None:
    """Packed twice, and once more from records in another order."""
    home = house()
    with at_home(home.share, home.cache):
        again = pack(home.out, home.records[::-1])
    assert again == home.bundle.read_bytes()


def test_any_zip_reader_reads_it() -> None:
    """Of the standard library, and of the system where it has one; plain files, readable."""
    path = house().bundle
    with zipfile.ZipFile(path) as file:
        assert file.testzip() is None
        names = file.namelist()
        infos = file.infolist()
    assert names == sorted(names)
    assert {info.compress_type for info in infos} == {zipfile.ZIP_STORED}
    assert {info.date_time for info in infos} == {(1980, 1, 1, 0, 0, 0)}
    assert {info.external_attr >> 16 for info in infos} == {0o100644}
    assert f"{DIGITS}/tickets/seed0/0500000.safetensors" in names


def test_reading_needs_no_torch() -> None:
    """Level 0 takes seconds: torch alone would take two."""
    text = (
        "import sys; from pathlib import Path; from lthbench.leaderboard.bundle import archive\n"
        f"b = archive.read(Path({str(house().bundle)!r}))\n"
        "assert archive.tickets(b, b.tasks[0]) and archive.answers(b, b.tasks[0])\n"
        "print([m for m in ('torch', 'scipy.stats') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", text], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.strip() == "[]"


NAMES = st.from_regex(r"[A-Za-z0-9_-]{1,8}(/[A-Za-z0-9_-]{1,8}){0,2}", fullmatch=True)


@given(st.dictionaries(NAMES, st.binary(max_size=50), max_size=6))
def test_a_container_gives_back_its_members(members: dict[str, bytes]) -> None:
    """Whatever they hold; names that collide are refused before anything is written."""
    try:
        data = canonical_zip.write(members)
    except RecordError:
        folded = [name.casefold() for name in members]
        folders = {name.rsplit("/", n)[0] for name in members for n in (1, 2) if "/" in name}
        assert len(set(folded)) < len(folded) or folders & members.keys()
        return
    assert {name: bytes(view) for name, view in canonical_zip.read(data, "x").items()} == members
    assert data == canonical_zip.write(dict(reversed(members.items())))
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        assert {name: file.read(name) for name in file.namelist()} == members


ARRAYS = st.dictionaries(
    st.from_regex(r"[a-z0-9./_-]{1,12}", fullmatch=True),
    st.sampled_from(("<u1", "<i4", "<f4", "<f8")).flatmap(
        lambda kind: npst.arrays(kind, npst.array_shapes(min_dims=0, min_side=0, max_side=4))
    ),
    max_size=4,
)
HEADERS = st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=9), max_size=3)


@given(HEADERS, ARRAYS)
def test_arrays_are_given_back(header: dict[str, Any], given: dict[str, Any]) -> None:
    """Bit by bit, by us and by safetensors' own reader."""
    try:
        data = canonical_tensors.dumps(header, given)
    except UnicodeEncodeError:
        return  # a lone surrogate is no text
    again, back = canonical_tensors.loads(data, "x")
    assert again == header
    assert list(back) == sorted(given)
    theirs = load_safetensors(data)
    for name, array in given.items():
        for read in (back[name], theirs[name]):
            assert read.dtype == array.dtype and read.shape == array.shape
            assert read.tobytes() == array.tobytes()
    assert canonical_tensors.dumps(again, back) == data


def test_another_form_of_safetensors_is_refused() -> None:
    """The same arrays, with another order of keys in the header."""
    data = save_safetensors(
        {"b": np.zeros(2, np.uint8), "a": np.ones(3, np.uint8)}, {"header": "{}"}
    )
    with pytest.raises(RecordError, match="canonical"):
        canonical_tensors.loads(data, "x")


def test_masks_have_the_digest_that_torch_gives() -> None:
    """Of any shapes; a bundle is read without torch."""
    draw = np.random.default_rng(0)
    for shape in ((3,), (4, 5), (2, 3, 4, 1), (1, 1), (64, 9)):
        one = {"b.weight": draw.random(shape) < 0.4, "a": draw.random((7,)) < 0.5}
        theirs = masks.digest({name: torch.from_numpy(mask) for name, mask in one.items()})
        assert ticket_member.mask_digest(one) == theirs


def test_rungs_are_named_as_in_an_evaluation() -> None:
    """Names of files are part of both forms."""
    for density in (1.0, 0.8**23, 0.5, 1e-6, 0.0123456789):
        assert f"{ticket_member.rung_name(density)}.safetensors" == ticket_files.rung_name(density)


# --- start weights ----------------------------------------------------------------------------


def test_start_weights_come_back(whole: Bundle) -> None:
    """Bit by bit those that the record's cell names; of free ones the kept entries."""
    home = house()
    seen = set()
    with at_home(home.share, home.cache):
        for record in home.records:
            task = load_task(record.task.name)
            cells = {(c.seed, c.density): c for c in record.cells if c.kind == "ticket"}
            for seed, density in archive.tickets(whole, task.name):
                header, chosen, stored = archive.ticket(whole, task.name, seed, density)
                start = start_weights.start_of(task, seed, header, chosen, stored)
                assert start is not None
                seen.add(header["origin"])
                if header["origin"] != "free":
                    assert start.digest == cells[seed, density].weights
                    continue
                folder = home.out / task.name / "tickets" / f"seed{seed}"
                _, held, theirs = ticket_files.read_ticket(folder, density)
                for name, tensor in theirs.items():
                    at = held.get(name, torch.ones_like(tensor, dtype=torch.bool))
                    assert torch.equal(start[name][at], tensor[at])
                    assert not start[name][~at].any()
    assert seen == {"init", "signs", "free"}


TASK = load_task(str(ROOT / "tests" / "tasks" / f"{DIGITS}.toml"))
SHAPES = families.shapes(TASK.network, TASK.network.depth)


def ticket_file(weights: dict[str, torch.Tensor] | None, chosen: Any, trained: bool = True) -> Any:
    """Header, masks and stored weights as a search would have them, and the cell's digest."""
    theta = families.initial(TASK.network, 1, 3)
    found, k = origin(Ticket(chosen, 0, weights, trained), {0: theta}, [])
    held = weights if found not in ("init", "rewind") else None
    if held is not None and found in ("signs", "scaled"):
        held = completed(held, theta.tensors(), chosen)
    header = {"origin": found, "start": k}
    stored = start_weights.stored_of(TASK, 3, header, chosen, held or {})
    return header, stored, State(held, k).digest if held else theta.digest


@given(st.integers(0, 99), st.floats(1e-3, 1e3), st.booleans())
@example(0, 0.6, True)  # a product lies in the middle of two float32 numbers
def test_scaled_and_signed_weights_come_back(seed: int, factor: float, exact: bool) -> None:
    """Whatever the factor, and whether it was rounded before it was applied or after."""
    theta = families.initial(TASK.network, 1, 3)
    draw = np.random.default_rng(seed)
    chosen = {n: torch.from_numpy(draw.random(shape) < 0.3) for n, shape in SHAPES.items()}
    for mask in chosen.values():
        mask.view(-1)[0] = True
    scaled, signed = theta.tensors(), theta.tensors()
    for number, name in enumerate(chosen):
        by = factor * (1 + number)
        wide = (theta[name].double() * by).float()
        scaled[name] = wide if exact else theta[name] * by
        signed[name] = theta[name].sign() * by
    for weights, wanted in ((scaled, "scaled"), (signed, "signs")):
        header, stored, cell = ticket_file(weights, chosen, trained=False)
        assert header["origin"] == wanted
        assert {len(values) for values in stored.values()} == {1}
        bits = {name: mask.numpy() for name, mask in chosen.items()}
        start = start_weights.start_of(TASK, 3, header, bits, stored)
        assert start is not None and start.digest == cell


def test_rewound_weights_take_training() -> None:
    """theta_k is k dense steps, which nobody makes here."""
    full = {name: np.ones(shape, bool) for name, shape in SHAPES.items()}
    for found in ("rewind", "signs"):
        assert start_weights.start_of(TASK, 3, {"origin": found, "start": 5}, full, {}) is None


def test_another_networks_masks_are_refused() -> None:
    """And weights of other shapes."""
    full = {name: np.ones(shape, bool) for name, shape in SHAPES.items()}
    few = {name: mask[:1] for name, mask in full.items()}
    with pytest.raises(RecordError, match="masks are not of tiny-digits"):
        start_weights.start_of(TASK, 3, {"origin": "init", "start": 0}, few, {})
    kept = {f"kept/{name}": np.zeros(mask.size, np.float32) for name, mask in full.items()}
    odd = {**kept, "whole/other": np.zeros(3, np.float32)}
    with pytest.raises(RecordError, match="weights are not of tiny-digits"):
        start_weights.start_of(TASK, 3, {"origin": "free", "start": 0}, full, odd)


def test_what_is_missing_is_told() -> None:
    """A record without its cells' answers, or without its tickets, is no bundle."""
    home = house()
    (digits, _) = home.records
    lost = digits.model_copy(
        update={"method": digits.method.model_copy(update={"digest": "0" * 64})}
    )
    with at_home(home.share, home.cache):
        with pytest.raises(RecordError, match="not the source"):
            pack(home.out, [lost])
        with pytest.raises(RecordError, match="run the same"):
            pack(Path("nowhere"), [digits])
    listed = bytes(archive.read(home.bundle).members["environment.json"])
    assert json.loads(listed)["packages"]["torch"]
    assert listed == (home.out / "environment.json").read_bytes()  # as the evaluation left it
    assert record_digest(digits) == record_digest(archive.record(archive.read(home.bundle), DIGITS))


UNTRAINED = """
from lthbench import Ticket, keep_top


def find_tickets(problem):
    theta = problem.theta()
    weights = {n: t * (1.7 if n in problem.prunable else 1.0) for n, t in theta.items()}
    for density in problem.untrained_densities[:1]:
        masks = keep_top({n: theta[n].abs() for n in problem.prunable}, density)
        yield Ticket(masks, weights=weights, trained=False)
"""
REWOUND = """
from lthbench import Ticket, keep_top


def find_tickets(problem):
    for number, density in enumerate(problem.densities):
        early = problem.theta(problem.rewind_limit)
        masks = keep_top({n: early[n].abs() for n in problem.prunable}, density)
        if number == 0:
            yield Ticket(masks, start=problem.rewind_limit)
        elif number == 1:
            weights = {n: t.sign() * 0.1 if n in masks else t for n, t in early.items()}
            yield Ticket(masks, start=problem.rewind_limit, weights=weights)
        else:
            end = problem.train(masks=masks)
            yield Ticket(masks, weights=end.tensors())
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "task", "origins", "known"),
    [
        (UNTRAINED, MODADD, ("scaled", "scaled"), (True, True)),
        (REWOUND, DIGITS, ("rewind", "signs", "final"), (False, False, True)),
    ],
)
def test_other_kinds_of_tickets(
    tmp_path: Path, source: str, task: str, origins: tuple[str, ...], known: tuple[bool, ...]
) -> None:
    """Untrained ones with a rung that is missing, rewound ones, trained weights: all are read."""
    home = house()
    with at_home(home.share, home.cache):
        seeds = 2 if task == MODADD else 1
        out = finished(tmp_path / "out", source, (task,), seeds)
        (record,) = records_of(out)
        path = tmp_path / "bundle.zip"
        path.write_bytes(pack(out, [record]))
        whole = archive.read(path)
        held = [archive.ticket(whole, task, *place) for place in archive.tickets(whole, task)]
        assert tuple(header["origin"] for header, _, _ in held) == origins
        cells = {(c.seed, c.density): c for c in record.cells if c.kind == "ticket"}
        for place, (header, chosen, stored), told in zip(
            archive.tickets(whole, task), held, known, strict=True
        ):
            start = start_weights.start_of(load_task(task), place[0], header, chosen, stored)
            assert (start is not None) == told
            if header["origin"] == "scaled" and start is not None:
                assert start.digest == cells[place].weights


@pytest.mark.slow
def test_carried_tickets_have_their_answers(tmp_path: Path) -> None:
    """Those of other depths are beside the others, under names of their own."""
    home = house()
    with at_home(home.share, home.cache):
        out = finished(tmp_path / "out", tasks=(MODADD,), seeds=1, transfer=True)
        (record,) = records_of(out)
        path = tmp_path / "bundle.zip"
        path.write_bytes(pack(out, [record]))
        whole = archive.read(path)
    assert record.transfer is not None and record.transfer.cells
    carried = {name for name in archive.answers(whole, MODADD) if name.startswith("carried-")}
    assert carried == {name for name, _ in archive.runs(record) if name.startswith("carried-")}
