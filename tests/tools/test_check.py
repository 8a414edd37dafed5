"""Methods that break a rule are told which, where, and what to do; so by `check` as by a search."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lthbench.errors import CheckFailed, LthbenchError, MethodError, TicketError, UsageError
from lthbench.evaluation.search.child_process import Limits
from lthbench.evaluation.search.run import Conditions, find
from lthbench.io.paths import cache
from lthbench.method.source import load_method
from lthbench.method.template import new
from lthbench.tools.check import (
    AGAIN,
    BUDGET,
    CALLS,
    ENTRY,
    LOOPS,
    ORIGIN,
    RULES,
    RUNS,
    TASK,
    TICKETS,
    check,
)
from lthbench.tools.check import Report as CheckReport
from lthbench.training.executors.local import Here
from tests.published import UNPUBLISHABLE
from tests.searching import METHODS, ROOT, search

SEED = 3
SHORT = Limits(seconds=5)  # a child measures its pace in this time too
SMALL = Limits(memory=3 * 2**29)
ROOMY = Limits(seconds=300)
TOGETHER = 2  # children at once


def named(name: str) -> str:
    """A method's path as a user in the checkout would write it."""
    (path,) = METHODS.glob(f"{name}.*")
    return str(path.relative_to(ROOT))


@pytest.fixture(autouse=True)
def _in_the_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


# --- what is refused before anything runs ---------------------------------------------------


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("bad_syntax", "bad_syntax.txt:6: SyntaxError: expected ':'"),
        ("bad_no_find_tickets", "no find_tickets; define `def find_tickets(problem):`"),
    ],
)
def test_a_file_that_is_no_method(name: str, words: str) -> None:
    """Nothing is started for it."""
    with pytest.raises(MethodError) as caught:
        load_method(named(name))
    assert_one_line(caught.value, words)


# --- what the coordinator and the child's own code refuse, in this process -------------------

IN_PROCESS: Mapping[str, tuple[type[Exception], str]] = {
    "bad_mask_name": (TicketError, "head.bias: not prunable; masks need exactly the names"),
    "bad_mask_shape": (TicketError, "mask of head.weight has shape (16, 11), not (11, 16)"),
    "bad_mask_type": (TicketError, "is torch.float32; masks are bool tensors, True = kept"),
    "bad_mask_count": (TicketError, "weights kept, which is no rung; the nearest keeps"),
    "bad_nan_scores": (TicketError, "scores of embed.weight contain NaN (66 of 66 entries)"),
    "bad_rung_twice": (TicketError, "the rung at density 0.64 came twice; yield each rung once"),
    "bad_order": (TicketError, "density 0.4096 after 0.2621; yield the sparsest last"),
    "bad_no_ticket": (TypeError, "find_tickets yielded dict; yield Ticket(masks)"),
    "bad_budget": (LthbenchError, "the budget of 30 dense trainings is spent (30 used"),
    "bad_raises": (KeyError, "embed.weight.weights"),
    "bad_import": (ModuleNotFoundError, "No module named 'a_package_of_no_one'"),
}


@pytest.mark.parametrize("name", IN_PROCESS)
def test_a_ticket_that_breaks_a_rule(name: str, tmp_path: Path) -> None:
    """Each rule names the tensor or rung, what was found, and what is wanted."""
    kind, words = IN_PROCESS[name]
    with pytest.raises(kind) as caught:
        search(load_method(named(name)), TASK, SEED, tmp_path)
    assert_one_line(caught.value, words)


@pytest.mark.parametrize(("name", "call"), [("bad_clock", 1), ("bad_random", 1)])
def test_another_answer_on_replay(name: str, call: int, tmp_path: Path) -> None:
    """A run that is started again must ask for the same, in the same order."""
    method = load_method(named(name))
    search(method, TASK, SEED, tmp_path)
    with pytest.raises(MethodError) as caught:
        search(method, TASK, SEED, tmp_path)
    assert_one_line(caught.value, f"call {call} differs on replay: find_tickets must be determini")


def test_fewer_calls_on_replay(tmp_path: Path) -> None:
    """A run that stops asking before it did is another run too."""
    search(load_method("random"), TASK, SEED, tmp_path)
    with pytest.raises(MethodError, match="call 3 differs on replay"):
        search(load_method(write(tmp_path, "fewer", FEWER)), TASK, SEED, tmp_path)


# --- what only a real child can show ---------------------------------------------------------

IN_CHILD: Mapping[str, tuple[Limits, str]] = {
    "bad_mask_shape": (ROOMY, "bad_mask_shape seed 3: mask of head.weight has shape (16, 11)"),
    "bad_import": (ROOMY, "bad_import.py:3: ModuleNotFoundError: No module named"),
    "bad_socket": (ROOMY, "bad_socket.py:9: "),
    "bad_process": (ROOMY, "bad_process.py:10: PermissionError: a method may not start processes"),
    "bad_fork": (ROOMY, "bad_fork.py:9: PermissionError: a method may not start processes"),
    "bad_write": (ROOMY, "bad_write.py:10: PermissionError: a method may not write outside its"),
    "bad_save": (ROOMY, "bad_save.py:10: PermissionError: a method may not write outside its own"),
    "bad_test_data": (ROOMY, "bad_test_data.py:9: PermissionError: a method may not read test"),
    "bad_cache": (ROOMY, "bad_cache.py:9: PermissionError: a method may not read test data or"),
    "bad_endless": (SHORT, "took more than 5 s of its own time; raise --timeout if it must"),
    "bad_memory": (SMALL, "GB of memory; at most 1.5 GB are allowed (--memory)"),
    "bad_printer": (ROOMY, "printed more than 64 MB; print less"),
    "bad_exit": (ROOMY, "the method's process ended (exit status 3): it printed nothing"),
}


@pytest.fixture(scope="module")
def refusals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, BaseException]:
    """What each method's search ended in, all run at once but for the number of cores."""

    async def one(name: str, free: asyncio.Semaphore) -> None:
        settings = {"path": str(cache() / "any")} if name == "bad_cache" else {}
        method = load_method(named(name), settings)
        async with free:
            folder = tmp_path_factory.mktemp(name)
            await find(method, TASK, (SEED,), folder, Here(), Conditions(IN_CHILD[name][0]))

    async def every() -> list[BaseException | None]:
        free = asyncio.Semaphore(TOGETHER)
        return await asyncio.gather(*(one(name, free) for name in IN_CHILD), return_exceptions=True)

    before = Path.cwd()
    os.chdir(ROOT)
    try:
        ended = asyncio.run(every())
    finally:
        os.chdir(before)
    return {name: error for name, error in zip(IN_CHILD, ended, strict=True) if error is not None}


@pytest.mark.slow
@pytest.mark.parametrize("name", IN_CHILD)
def test_what_a_child_may_not_do(name: str, refusals: dict[str, BaseException]) -> None:
    """One line, with the method's own line where it has one."""
    assert isinstance(refusals.get(name), LthbenchError)
    assert_one_line(refusals[name], IN_CHILD[name][1])


@pytest.mark.slow
def test_sockets_are_named(refusals: dict[str, BaseException]) -> None:
    """urllib wraps the refusal, which must be readable all the same."""
    assert "a method may not open sockets" in str(refusals["bad_socket"])


# --- check ------------------------------------------------------------------------------------


def rows(report: CheckReport) -> dict[str, bool | None]:
    return {row.rule: row.passed for row in report.rows}


def note(report: CheckReport, rule: str) -> str:
    return next(row.note for row in report.rows if row.rule == rule)


BROKEN: Mapping[str, tuple[str, str]] = {
    "bad_raises": (RUNS, "bad_raises.py:7: KeyError"),
    "bad_budget": (BUDGET, "bad_budget.py:11: BudgetExceeded"),
    "bad_nan_scores": (TICKETS, "bad_nan_scores.py:9: TicketError: scores of embed.weight"),
    "bad_missing_rung": (TICKETS, "no ticket at density 0.2621: yield one for each of"),
    "bad_random": (AGAIN, "another mask at density 0.64; let nothing depend on the clock"),
    # What is not passed to problem.loop is lost when a run is killed inside it.
    "bad_local_list": (LOOPS, "at step 80 of loop 1"),
}


@pytest.fixture(scope="module")
def reports() -> dict[str, CheckReport]:
    """Checks of each broken method, some at a time."""
    paths = {name: METHODS / f"{name}.py" for name in BROKEN}
    with ThreadPoolExecutor(TOGETHER) as pool:
        ended = pool.map(lambda path: check(load_method(str(path))), paths.values())
        return dict(zip(paths, ended, strict=True))


def test_the_example_passes_every_rule(tmp_path: Path) -> None:
    """What `lthbench new` writes is a method as it stands."""
    new(tmp_path / "my_method.py")
    report = check(load_method(str(tmp_path / "my_method.py")))
    assert rows(report) == dict.fromkeys(RULES, True)
    assert report.passed
    report.demand()
    assert note(report, TICKETS) == "64.0%, 41.0%, 26.2%"
    assert note(report, BUDGET) == "1 of 30 dense trainings"
    assert note(report, ORIGIN) == "init"
    assert note(report, ENTRY).startswith("METHOD of my_method names no authors and no licence; ")
    assert note(report, CALLS) == "killed after call 1 (train)"
    assert (report.starts, report.kills) == (4, 1)
    assert "8 of 8 rules hold (4 processes, 1 killed, " in report.text()


@pytest.mark.parametrize(("text", "words"), UNPUBLISHABLE)
def test_what_could_not_be_submitted(
    text: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told by `check` in a row of its own, whatever else the method does."""

    async def nothing(*_: object) -> tuple[list[object], list[object]]:
        return [], []

    monkeypatch.setattr("lthbench.tools.check._check", nothing)
    report = check(load_method(write(tmp_path, "mine", f"{text}def find_tickets(problem): ...\n")))
    assert report.rows[0].rule == ENTRY and report.rows[0].passed is False
    assert re.search(words, report.rows[0].note) and "\n" not in report.rows[0].note
    with pytest.raises(CheckFailed, match="a rule is broken: its source and its METHOD are such"):
        report.demand()


@pytest.mark.slow
@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_rule_ends_the_check(name: str, reports: dict[str, CheckReport]) -> None:
    """Rules before it hold, rules after it are not tried, and the command fails."""
    report, (rule, words) = reports[name], BROKEN[name]
    place = RULES.index(rule)
    expected = [*[True] * place, False, *[None] * (len(RULES) - place - 1)]
    assert list(rows(report).values()) == expected
    assert words in note(report, rule)
    assert not report.passed
    with pytest.raises(CheckFailed) as caught:
        report.demand()
    assert str(caught.value) == f"a rule is broken: {rule}"
    assert f"NO  {rule}: {note(report, rule)}" in report.text().splitlines()


@pytest.mark.slow
def test_a_lost_list_is_told_what_to_do(reports: dict[str, CheckReport]) -> None:
    words = "pass to problem.loop everything that its body changes"
    assert words in note(reports["bad_local_list"], LOOPS)


# --- new --------------------------------------------------------------------------------------


def test_the_example_is_short() -> None:
    """It is read in a minute, comments included."""
    from lthbench.method.template import EXAMPLE

    assert len(EXAMPLE.splitlines()) < 40


def test_new_names_nobody_elses_paper(tmp_path: Path) -> None:
    """What is published unedited: no authors, no licence and no paper."""
    path = tmp_path / "mine.py"
    new(path)
    told = {"name": "mine", "authors": "", "licence": "", "paper": ""}
    assert load_method(str(path)).described == told


def test_new_refuses_what_it_cannot_mean(tmp_path: Path) -> None:
    """Nothing is overwritten, not even by the same text."""
    path = tmp_path / "mine.py"
    path.write_text("kept")
    with pytest.raises(UsageError, match="is there already; name another file"):
        new(path)
    assert path.read_text() == "kept"
    with pytest.raises(UsageError, match=r"name one that ends in \.py"):
        new(tmp_path / "mine")
    with pytest.raises(MethodError, match=r"no baseline 'inp' \(did you mean imp\?\)"):
        new(tmp_path / "other.py", "inp")
    assert [p.name for p in tmp_path.iterdir()] == ["mine.py"]


FEWER = """
import torch
from lthbench import Problem, Ticket, keep_top, layer_counts

def find_tickets(problem):
    lots = problem.generator("random")
    scores = {n: torch.rand(shape, generator=lots) for n, shape in problem.shapes.items()}
    for density in problem.densities[:2]:
        yield Ticket(keep_top(scores, layer_counts(problem.shapes, density, "uniform")))
"""


def write(folder: Path, name: str, text: str) -> str:
    path = folder / f"{name}.py"
    path.write_text(text)
    return str(path)


def assert_one_line(error: BaseException, words: str) -> None:
    """The words are in it, and it fits on one line of a terminal."""
    assert words in str(error)
    assert "\n" not in str(error)
    assert len(str(error)) < 200
