"""One evaluation from end to end, and what is refused before one begins."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from lthbench.cli import main
from lthbench.cli.options import parse_numbers
from lthbench.errors import LthbenchError, MethodError, ResourceError, TaskError, UsageError
from lthbench.evaluation import options, pipeline
from lthbench.evaluation.pipeline import Evaluated, evaluate
from lthbench.io.paths import canonical_json
from lthbench.method.template import new
from lthbench.protocol import datasets
from lthbench.protocol.design import Part, Plan
from lthbench.protocol.task import Suite, load_suite, load_task
from lthbench.records.schema import Record, comparable, read_record
from lthbench.report import html
from lthbench.training.executors import local
from tests import tiny
from tests.commands import run
from tests.published import UNPUBLISHABLE
from tests.searching import ROOT

TASK = ROOT / "tests" / "tasks" / "tiny-digits.toml"
RUNS = 1 + 3 * (1 + 5)  # dense, and on each rung a ticket and its controls
METHOD = (
    "import torch\n"
    "from lthbench import Ticket, keep_top\n"
    "def find_tickets(problem, *, rate: float = 0.5):\n"
    "    lots = problem.generator('mine')\n"
    "    scores = {n: torch.rand(s, generator=lots) for n, s in problem.shapes.items()}\n"
    "    for density in problem.densities:\n"
    "        yield Ticket(keep_top(scores, density))\n"
)


@dataclass
class Told:
    """Notes all that is told."""

    what: list[tuple[str, tuple[Any, ...]]] = field(default_factory=list)

    def __getattr__(self, name: str) -> Any:
        return lambda *args: self.what.append((name, args))

    def of(self, name: str) -> list[tuple[Any, ...]]:
        return [args for called, args in self.what if called == name]


def go(method: Path, out: Path, **changes: Any) -> Evaluated:
    """The evaluation that all tests here look at: one seed, in this process but for the child."""
    given = {"tasks": [str(TASK)], "seeds": 1, "workers": 0, "out": out, **changes}
    return evaluate(str(method), **given)


@dataclass(frozen=True)
class Done:
    """An evaluation that has ended."""

    method: Path
    out: Path
    record: Record
    told: Told


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Done]:
    """Run once, inside an event loop, as in a notebook."""
    folder = tmp_path_factory.mktemp("evaluate")
    method = folder / "mine.py"
    method.write_text(METHOD)
    told = Told()

    async def inside() -> Evaluated:
        return go(method, folder / "out", progress=told)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LTHBENCH_CACHE", str(folder / "cache"))
        ended = asyncio.run(inside())
        assert ended.out == folder / "out"
        (record,) = ended.records
        yield Done(method, folder / "out", record, told)


@pytest.fixture
def nothing_runs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is trained, and which processes are started, from here on."""
    began: list[str] = []

    async def start(*args: Any, **kwargs: Any) -> Any:
        began.append(args[2])
        raise AssertionError("a process was started")

    def run(jobs: Any, *args: Any) -> Iterator[Any]:
        began.extend(job.key for job in jobs)
        return iter(())

    tiny.trained_by(monkeypatch, run)
    monkeypatch.setattr(asyncio, "create_subprocess_exec", start)
    return began


def test_the_record_is_on_disk(done: Done) -> None:
    """Whole, valid, and of what was asked for: the held-out part, a development seed."""
    assert read_record(done.out / "tiny-digits" / "record.json") == done.record
    record = done.record
    assert (record.final, record.shown, record.seeds) == (False, "held_out", (1000,))
    assert (record.method.name, record.method.options) == ("mine", {"rate": 0.5})
    assert record.task.digest == load_task(str(TASK)).digest
    assert record.sizes == {"1000": {"held_out": 143, "train": 1290}}
    assert [cell.status for cell in record.cells] == ["ok"] * RUNS
    assert record.aggregates["complete"] is True
    assert record.searches[0].cost == 0
    assert record.reference is None


def test_nothing_else_is_left(done: Done) -> None:
    """Tickets and cells; the store of a finished search and temporary files are gone."""
    names = {path.name for path in (done.out / "tiny-digits").iterdir()}
    assert {"record.json", "task.json", "tickets", "cells"} <= names
    assert not list(done.out.rglob("store/seed*"))
    assert not list(done.out.rglob(".tmp-*"))
    assert not list(done.out.rglob("*test*"))


def test_everything_is_told(done: Done) -> None:
    """Each ticket, and every run of the scoring with its steps."""
    told = done.told
    assert [name for name, _ in told.what][:2] == ["plan", "begin"]
    assert sum(event.what == "ticket" for _, event in told.of("search")) == 3
    planned, *runs = told.of("scoring")
    assert planned[1:] == ("planned", RUNS * 120, False)
    assert [args[2:] for args in runs] == [(120, True)] * RUNS
    assert told.of("done") == [(done.record,)]


def test_a_second_call_trains_nothing(done: Done, nothing_runs: list[str]) -> None:
    """And ends in the same record, outside of any loop."""
    (again,) = go(done.method, done.out).records
    assert nothing_runs == []
    assert comparable(again) == comparable(done.record)


def test_a_spoilt_record_is_written_again(done: Done, nothing_runs: list[str]) -> None:
    path = done.out / "tiny-digits" / "record.json"
    path.write_text("{")
    go(done.method, done.out)
    assert nothing_runs == []
    assert comparable(read_record(path)) == comparable(done.record)


# --- one folder, one evaluation --------------------------------------------------------------


@pytest.fixture
def untouched(done: Done) -> Iterator[None]:
    """Whatever is refused changes nothing that was there."""
    paths = sorted(path for path in done.out.rglob("*") if path.is_file())
    before = [(path, path.read_bytes()) for path in paths]
    yield
    after = sorted(path for path in done.out.rglob("*") if path.is_file())
    assert [(path, path.read_bytes()) for path in after] == before


def refused(kind: type[LthbenchError], done: Done, **changes: Any) -> str:
    method = changes.pop("method", done.method)
    with pytest.raises(kind) as caught:
        go(method, changes.pop("out", done.out), **changes)
    said = str(caught.value)
    assert "\n" not in said
    return said


@pytest.mark.usefixtures("untouched", "nothing_runs")
def test_other_options_are_refused(done: Done) -> None:
    said = refused(MethodError, done, options={"rate": 0.25})
    assert 'holds results of options {"rate": 0.5}, not {"rate": 0.25}; --out another' in said


@pytest.mark.usefixtures("untouched", "nothing_runs")
def test_another_source_is_refused_with_both_digests(done: Done, tmp_path: Path) -> None:
    other = tmp_path / "mine.py"
    other.write_text(f"{METHOD}# changed\n")
    said = refused(MethodError, done, method=other)
    from lthbench.method.source import load_method

    for path in (done.method, other):
        assert load_method(str(path)).digest[:12] in said


@pytest.mark.usefixtures("untouched", "nothing_runs")
def test_another_task_of_the_same_name_is_refused(done: Done, tmp_path: Path) -> None:
    other = tmp_path / "tiny-digits.toml"
    other.write_text(TASK.read_text().replace("rate = 1.2e-3", "rate = 1.3e-3"))
    said = refused(MethodError, done, tasks=[str(other)])
    for path in (TASK, other):
        assert load_task(str(path)).digest[:12] in said


@pytest.mark.usefixtures("untouched", "nothing_runs")
def test_a_final_run_wants_a_folder_of_its_own(done: Done) -> None:
    assert "holds results of final false, not true" in refused(MethodError, done, final=True)


@pytest.mark.usefixtures("untouched", "nothing_runs")
def test_two_evaluations_in_one_folder(done: Done) -> None:
    """The second ends at once and says why."""
    text = "import sys\nfrom filelock import FileLock\nlock = FileLock(sys.argv[1])\n"
    text += "lock.acquire()\nprint('held', flush=True)\nsys.stdin.read()\n"
    other = subprocess.Popen(
        [sys.executable, "-c", text, str(done.out / "lock")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert other.stdout is not None
    try:
        assert other.stdout.readline() == b"held\n"
        said = refused(ResourceError, done)
        assert "another evaluation is using this folder; wait for it or give --out" in said
    finally:
        other.communicate()
    with FileLock(done.out / "lock").acquire(timeout=0):
        pass


@pytest.mark.usefixtures("nothing_runs")
def test_a_file_in_the_way(done: Done, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "out"):
        said = refused(ResourceError, done, out=out)
        assert said.startswith(f"{out}: ")
        assert "--out" in said


@pytest.fixture
def closed(tmp_path: Path) -> Iterator[Path]:
    """A folder that cannot be written: by its mode, or for root by its disk."""
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o500)
    if os.geteuid():
        yield folder
        return
    mount = ["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(folder)]
    if sys.platform != "linux" or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("root may write anywhere, and no file system may be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.usefixtures("nothing_runs")
def test_a_folder_that_cannot_be_written(done: Done, closed: Path) -> None:
    said = refused(ResourceError, done, out=closed)
    assert "Permission denied" in said or "Read-only file system" in said


# --- what is asked for -----------------------------------------------------------------------


@pytest.mark.usefixtures("nothing_runs")
@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"suite": "quick"}, UsageError, "--suite and --task exclude each other"),
        ({"seeds": 0}, UsageError, "--seeds 0: at least 1"),
        ({"tasks": ["mlp-digit"]}, TaskError, "no task 'mlp-digit' (did you mean mlp-digits?)"),
        ({"tasks": [], "suite": "quik"}, TaskError, "no suite 'quik' (did you mean quick?)"),
        ({"options": {"rat": 1}}, UsageError, "--set rat: mine.py has no such option (did you"),
        ({"options": {"rate": "x"}}, UsageError, "--set rate=x: the option wants float"),
        ({"method": "imb"}, MethodError, "no baseline 'imb' and no such file (did you mean imp?)"),
    ],
)
def test_mistakes_are_told_before_anything_runs(
    changes: dict[str, Any], kind: type[LthbenchError], words: str, done: Done, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert words in refused(kind, done, out=out, **changes)
    assert not out.exists()


class Stopped(Exception):
    """The plan was told; nothing more is wanted."""


class Planned(Told):
    """Ends an evaluation as soon as its plan is known."""

    def plan(self, parts: Sequence[Part], workers: int) -> None:
        raise Stopped(parts, workers)


WHOLE = load_suite("quick").model_copy(update={"seeds": None, "compressed": True})


@pytest.mark.parametrize(
    ("changes", "tasks", "suite"),
    [
        ({}, None, load_suite("quick")),
        ({"seeds": 2}, None, load_suite("quick").model_copy(update={"seeds": 2})),
        ({"final": True}, None, load_suite("quick")),
        ({"tasks": ["mlp-modadd59"]}, ["mlp-modadd59"], load_suite("quick")),
        ({"tasks": ["mlp-modadd59"], "final": True}, ["mlp-modadd59"], load_suite("lite")),
        ({"tasks": ["mlp-digits"], "final": True}, ["mlp-digits"], WHOLE),
        ({"suite": "lite"}, None, load_suite("lite")),
    ],
)
def test_what_is_run_where_little_is_said(
    changes: dict[str, Any], tasks: list[str] | None, suite: Suite,
    done: Done, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Suite quick on development seeds; a final run of a task as its ranked suite has it, and whole
    where none has it."""
    monkeypatch.setattr(datasets, "prepare", lambda task, **kwargs: None)
    with pytest.raises(Stopped) as caught:
        evaluate(str(done.method), out=tmp_path, workers=1, progress=Planned(), **changes)
    parts, workers = caught.value.args
    assert [part.task.name for part in parts] == (tasks or list(suite.tasks)) and workers == 1
    final = bool(changes.get("final"))
    first = 0 if final else 1000
    for part in parts:
        assert part.seeds == tuple(range(first, first + (suite.seeds or part.task.seeds)))
        carried = part.task.name in suite.transfer
        assert part.plan == Plan(final, suite.controls, suite.compressed, carried)


def test_a_first_look_is_short_and_whole() -> None:
    """Suite quick: three seeds and every control, nothing at other depths or in fewer steps."""
    quick = load_suite("quick")
    assert (quick.seeds, quick.controls) == (3, "all")
    assert not (quick.ranked or quick.compressed or quick.transfer)


def test_a_misspelt_argument_is_told() -> None:
    with pytest.raises(TypeError, match="'taks'"):
        evaluate("erk", taks=["mlp-digits"])  # type: ignore[call-arg]


def parts_of(done: Done, folder: Path, **changes: Any) -> dict[str, Part]:
    """What an evaluation would be made of, by task."""
    with pytest.raises(Stopped) as caught:
        evaluate(str(done.method), out=folder, workers=1, progress=Planned(), **changes)
    return {part.task.name: part for part in caught.value.args[0]}


def test_each_task_has_its_own_seeds(
    done: Done, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many as its file names, unless a suite or --seeds says otherwise; or some of them."""
    monkeypatch.setattr(datasets, "prepare", lambda task, **kwargs: None)
    ten = tmp_path / "ten.toml"
    text = TASK.read_text().replace('name = "tiny-digits"', 'name = "ten"')
    ten.write_text(text.replace("version = 1", "version = 1\nseeds = 10", 1))
    named: dict[str, Any] = {"tasks": [str(ten), str(TASK)], "final": True}
    found = parts_of(done, tmp_path / "a", **named)
    assert found["ten"].seeds == tuple(range(10)) and found["tiny-digits"].seeds == (0, 1, 2, 3, 4)
    found = parts_of(done, tmp_path / "a", **named, seeds=3)
    assert {part.seeds for part in found.values()} == {(0, 1, 2)}
    found = parts_of(done, tmp_path / "a", **named, only_seeds=[3, 1])
    assert {part.seeds for part in found.values()} == {(1, 3)}
    found = parts_of(done, tmp_path / "b", tasks=[str(ten)], seeds=10, only_seeds=[1009])
    assert found["ten"].seeds == (1009,)
    for only, words in (([1, 7], "--only-seeds 7: tiny-digits has 0-4 here"), ([], "of none")):
        with pytest.raises(UsageError, match=words):
            evaluate(str(done.method), out=tmp_path, workers=1, **named, only_seeds=only)


@pytest.mark.parametrize(
    ("text", "seeds"), [("0,1,2", (0, 1, 2)), ("0-2,7", (0, 1, 2, 7)), ("1000", (1000,))]
)
def test_seeds_are_named_one_by_one_or_by_ranges(text: str, seeds: tuple[int, ...]) -> None:
    assert parse_numbers(text) == seeds and parse_numbers(None) is None
    for wrong in ("", "a", "1-", "-3", "1;2", "0-2-4"):
        with pytest.raises(UsageError, match="write numbers and ranges"):
            parse_numbers(wrong)


def test_controls_and_transfer_are_the_suites_or_as_asked(
    done: Done, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reference asks for all controls; a suite names the tasks that are carried."""
    monkeypatch.setattr(datasets, "prepare", lambda task, **kwargs: None)
    known = load_suite("lite")
    carried = known.tasks[0]
    changed = known.model_copy(update={"controls": "alternate", "transfer": (carried,)})
    monkeypatch.setattr(options, "load_suite", lambda name: changed)
    found = parts_of(done, tmp_path, suite="lite", final=True)
    assert {part.plan.controls for part in found.values()} == {"alternate"}
    assert [name for name, part in found.items() if part.plan.transfer] == [carried]
    found = parts_of(done, tmp_path, suite="lite", final=True, controls="all", transfer=False)
    assert {part.plan.controls for part in found.values()} == {"all"}
    assert not any(part.plan.transfer for part in found.values())
    found = parts_of(done, tmp_path, suite="lite", final=True, direct=True)
    assert all(part.plan.transfer and part.plan.direct for part in found.values())
    with pytest.raises(UsageError, match=r"--controls alternat: all, alternate, one rung \(did"):
        evaluate(str(done.method), suite="lite", controls="alternat")


def test_where_results_go(done: Done, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the working folder, by the method's name, a final run beside."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets, "prepare", lambda task, **kwargs: None)
    monkeypatch.setattr(local, "default_workers", lambda means: 3)
    for final in (False, True):
        with pytest.raises(Stopped) as caught:
            evaluate(str(done.method), final=final, progress=Planned())
        assert caught.value.args[1] == 3
    names = sorted(path.name for path in (tmp_path / "lthbench-out").iterdir())
    assert names == ["mine", "mine-final"]
    claim = json.loads((tmp_path / "lthbench-out" / "mine" / "evaluation.json").read_bytes())
    assert canonical_json(claim["options"]) == b'{"rate":0.5}\n'


@pytest.mark.parametrize(
    ("final", "own", "last"),
    [
        (False, False, "records: "),
        (True, False, "next: lthbench submit '"),
        (True, True, "not to be submitted: a task of your own has no board"),
    ],
)
def test_the_next_step_is_the_last_line(
    final: bool,
    own: bool,
    last: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Of what can be submitted; and that nobody is named is told before anything is trained."""
    out = tmp_path / "an out"
    monkeypatch.setattr(pipeline, "evaluate", lambda *a, **k: pipeline.Evaluated((), out))
    monkeypatch.setattr(html, "write_report", lambda *a: out / "report.html")
    new(tmp_path / "mine.py", "erk")
    mine = str(tmp_path / "mine.py")
    arguments = ["lthbench", "evaluate", mine, "--out", str(out), *["--final"] * final]
    arguments += ["--task", str(TASK)] * own
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit) as ended:
        main.main()
    said = capsys.readouterr()
    assert ended.value.code == 0
    assert said.out.splitlines()[-1].startswith(last)
    remarks = [line for line in said.err.splitlines() if line.startswith("remark: ")]
    own_task = "remark: tiny-digits is a task of your own: no board takes its record"
    assert remarks[:1] == final * [
        "remark: METHOD of mine names no authors and no licence; add what you will submit before "
        "you evaluate: with another source it is another method"
    ]
    assert (own_task in remarks) == own


@pytest.mark.parametrize(("text", "words"), UNPUBLISHABLE)
def test_what_would_be_refused_is_refused_before_anything_is_trained(
    text: str, words: str, tmp_path: Path
) -> None:
    """After days `submit` would say the same; development runs are nobody else's."""
    path = tmp_path / "mine.py"
    path.write_text(text + METHOD)
    given: dict[str, Any] = {"tasks": [str(TASK)], "out": tmp_path / "out", "workers": 0}
    with pytest.raises(MethodError, match=words) as caught:
        evaluate(str(path), final=True, progress=Planned(), **given)
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()
    with pytest.raises(Stopped):
        evaluate(str(path), progress=Planned(), **given)
    done = run("evaluate", str(path), "--final", "--task", str(TASK), cwd=tmp_path)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
