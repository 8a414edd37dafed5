"""A user's mistakes, through the command line: exit 2, one line on standard error, nothing lost."""

from __future__ import annotations

import errno
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import commands

ROOT = Path(__file__).resolve().parents[2]
METHODS = ROOT / "tests" / "methods"
TASK = ROOT / "tests" / "tasks" / "tiny-digits.toml"
ONE_LINE = 200
DISK = 12 * 2**20  # room for a report and its script


def run(*arguments: str, cwd: Path, **environment: str) -> commands.Done:
    """The command line with a cache of its own."""
    return commands.run(*arguments, cwd=cwd, LTHBENCH_CACHE=str(cwd / "cache"), **environment)


def refused(done: commands.Done, pattern: str) -> None:
    """Exit 2, and exactly one line on standard error, which names the mistake."""
    assert done.returncode == 2, done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert len(lines[0]) < ONE_LINE, lines[0]
    assert re.search(pattern, lines[0]), f"{lines[0]!r} lacks {pattern!r}"


COMMAND_LINES = {
    "a missing file": (("evaluate", "absent.py"), r"absent\.py: no such file"),
    "no such baseline": (("evaluate", "inp"), r"did you mean imp\?"),
    "no such task": (("evaluate", "imp", "--task", "lenet300-mnst"), r"mean lenet300-mnist\?"),
    "no such suite": (("evaluate", "imp", "--suite", "quik"), r"mean quick\?"),
    "no such option": (("evaluate", "imp", "--sede", "3"), r"--sede.*--seeds"),
    "no such verb": (("evalaute", "imp"), r"evaluate"),
    "no argument": (("evaluate",), r"(?i)missing argument"),
    "seeds of nothing": (("evaluate", "imp", "--seeds", "0"), r"--seeds 0: at least 1"),
    "workers below 0": (("evaluate", "imp", "--workers", "-1"), r"--workers -1: 0 or more"),
    "memory of nothing": (("evaluate", "imp", "--memory", "nan"), r"--memory nan: gigabytes"),
    "no time": (("evaluate", "imp", "--timeout", "0"), r"--timeout 0(\.0)?: seconds, above 0"),
    "seeds in words": (("evaluate", "imp", "--seeds", "two"), r"--seeds.*integer"),
    "suite and task": (("evaluate", "imp", "--suite", "lite", "--task", "mlp-digits"), "exclude"),
    "set without value": (("evaluate", "imp", "--set", "rate"), r"name=value"),
    "set of unknown option": (("evaluate", "imp", "--set", "rat=0.1"), r"did you mean rate\?"),
    "set of wrong type": (("evaluate", "imp", "--set", "rate=fast"), r"rate=fast.*float"),
    "a folder as method": (("evaluate", "."), r"no such file"),
    "no record": (("report", "nowhere"), r"nowhere"),
    "no such baseline to copy": (("new", "mine.py", "--from", "inp"), r"did you mean imp\?"),
    "no such device": (("evaluate", "imp", "--device", "gpu"), r"--device gpu.*cpu or cuda"),
    "a device that is not here": (
        ("evaluate", "imp", "--device", "cuda:64"),
        r"--device cuda:64: not on this machine; there is cpu",
    ),
    "no such engine": (("evaluate", "imp", "--engine", "stack"), r"did you mean stacked\?"),
    "no such executor": (("evaluate", "imp", "--executor", "rya"), r"did you mean ray\?"),
    "an address of nothing": (("evaluate", "imp", "--address", "h:1"), r"add --executor ray"),
    "workers of a cluster": (
        ("evaluate", "imp", "--executor", "ray", "--workers", "2"),
        r"--workers is for --executor local",
    ),
    "a cluster that is not there": (
        ("evaluate", "imp", "--executor", "ray", "--address", "127.0.0.1:9"),
        r"--address 127\.0\.0\.1:9: no Ray cluster answers.*ray start --head",
    ),
    "no address at all": (
        ("evaluate", "imp", "--executor", "ray", "--address", "here"),
        r"--address here: write HOST:PORT",
    ),
    "a bench of nothing": (("bench", "--task", "lenet300"), r"did you mean lenet300-mnist\?"),
    "a value that is no text": (
        ("evaluate", "imp", "--set", "rate=\udcff"),
        r"rate=\\udcff: bytes that are no text.*UTF-8",
    ),
    "an option that is no text": (
        ("estimate", "imp", "--set", "r\udcff=1"),
        r"r\\udcff=1: bytes that are no text",
    ),
    "a method's file that is no text": (("check", "m\udcff.py"), r"m\\udcff\.py: .*no text"),
    "a folder that is no text": (("report", "o\udcff"), r"o\\udcff: .*no text"),
    "a task that is no text": (("tasks", "t\udcff.toml"), r"t\\udcff\.toml: .*no text"),
    "unprepared data": (("evaluate", "erk", "--task", "lenet300-mnist"), r"data prepare"),
}


@pytest.mark.parametrize("case", COMMAND_LINES)
def test_command_lines(case: str, tmp_path: Path) -> None:
    arguments, pattern = COMMAND_LINES[case]
    refused(run(*arguments, cwd=tmp_path, LTHBENCH_DATA=""), pattern)


def test_a_process_of_its_own_says_the_same(tmp_path: Path) -> None:
    arguments, pattern = COMMAND_LINES["a missing file"]
    refused(commands.spawn(*arguments, cwd=tmp_path), pattern)


# --- outputs that take nothing, and machines that give nothing ---------------------------------


def shell(line: str, cwd: Path) -> commands.Done:
    """A line of bash in which `lthbench` is the command line in a process of its own."""
    command = f'lthbench() {{ {shlex.quote(sys.executable)} -m lthbench "$@"; }}; {line}'
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        cwd=cwd,
        env=os.environ | {"LTHBENCH_CACHE": str(cwd / "cache")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )


full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")


@pytest.mark.slow
@full
@pytest.mark.parametrize("arguments", ["tasks", "--help", "tasks lenet300-mnist"])
def test_standard_output_on_a_full_disk(arguments: str, tmp_path: Path) -> None:
    refused(
        shell(f"lthbench {arguments} >/dev/full", tmp_path),
        r"^lthbench: standard output: cannot write: the disk is full; free some space",
    )


@pytest.mark.slow
@full
def test_a_mistake_keeps_its_exit_code_where_nobody_can_be_told(tmp_path: Path) -> None:
    for line in ("tasks nothing 2>/dev/full", "tasks nothing >/dev/full 2>&1"):
        done = shell(f"lthbench {line}", tmp_path)
        assert (done.returncode, done.stdout, done.stderr) == (2, "", "")


@pytest.mark.slow
def test_a_reader_that_leaves_is_no_mistake(tmp_path: Path) -> None:
    for line in ("lthbench tasks | head -1", "lthbench tasks lenet300-mnist | true"):
        done = shell(line, tmp_path)
        assert (done.returncode, done.stderr) == (0, ""), line


@pytest.mark.slow
def test_an_evaluation_goes_on_when_its_reader_leaves(tmp_path: Path) -> None:
    task = shlex.quote(str(TASK))
    done = shell(f"lthbench evaluate erk --task {task} --seeds 1 --out out | head -1", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "out" / "tiny-digits" / "record.json").is_file()
    assert (tmp_path / "out" / "report.html").is_file()


@full
@pytest.mark.slow
def test_what_was_computed_is_kept_where_nothing_can_be_printed(tmp_path: Path) -> None:
    arguments = f"evaluate erk --task {shlex.quote(str(TASK))} --seeds 1 --out out"
    refused(shell(f"lthbench {arguments} >/dev/full", tmp_path), "standard output: cannot write")
    assert (tmp_path / "out" / "tiny-digits" / "record.json").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("closed", ["2>&-", "<&- >&- 2>&-"])
def test_closed_outputs(closed: str, tmp_path: Path) -> None:
    """No file that is opened later takes the place of an output, and no mistake that of a table."""
    done = shell(f"lthbench tasks {closed}", tmp_path)
    assert done.returncode == 0 and done.stderr == ""
    wrong = shell(f"lthbench tasks nothing {closed}", tmp_path)
    assert wrong.returncode == 2 and wrong.stdout == ""


@pytest.mark.slow
def test_an_evaluation_with_closed_outputs(tmp_path: Path) -> None:
    arguments = f"evaluate erk --task {shlex.quote(str(TASK))} --seeds 1 --out out"
    assert shell(f"lthbench {arguments} <&- >&- 2>&-", tmp_path).returncode == 0
    assert (tmp_path / "out" / "tiny-digits" / "record.json").is_file()


def test_an_output_that_lacks_letters(tmp_path: Path) -> None:
    """What the terminal's code page cannot show is written by its number."""
    done = commands.spawn("tasks", "lenet300-mnist", cwd=tmp_path, PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux keeps to that limit")
@pytest.mark.parametrize("kilobytes", [400_000, 3_200_000])
def test_too_little_address_space(kilobytes: int, tmp_path: Path) -> None:
    """Torch cannot be loaded, or loads and gets no memory."""
    refused(
        shell(f"ulimit -v {kilobytes}; lthbench check imp", tmp_path),
        r"too little memory: .*ulimit -v.*raise it",
    )


def test_what_a_machine_refuses_is_no_bug(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever it comes from: it is told with its next step."""
    from lthbench.cli import listings
    from lthbench.io import system_errors

    def raising(error: BaseException) -> commands.Done:
        def listed() -> str:
            raise error

        monkeypatch.setattr(listings, "all_tasks", listed)
        return run("tasks", cwd=tmp_path)

    refused(raising(MemoryError()), r"too little memory")
    refused(raising(RuntimeError("[enforce fail] can't allocate memory: 8 GB")), r"little memory")
    silent = SystemError("error return without exception set")
    assert raising(silent).returncode == 3  # nothing limits this process
    with monkeypatch.context() as limited:
        limited.setattr(system_errors, "_address_space", lambda: 2**31)
        refused(raising(silent), r"too little memory")
    refused(raising(OSError(errno.ENOMEM, "Cannot allocate memory")), r"too little memory")
    refused(raising(OSError(errno.ENOSPC, "No space left", "a/b")), r"a/b: the disk is full; free")
    refused(raising(OSError(errno.EMFILE, "Too many open files")), r"too many .*ulimit -n")
    refused(raising(RuntimeError("can't start new thread")), r"process.*ulimit -u")
    refused(
        raising(UnicodeEncodeError("utf-8", "/a\udcff/b", 2, 3, "no")), r"/a\\udcff/b: .*no text"
    )
    done = raising(RuntimeError("what nobody thought of"))
    assert done.returncode == 3 and "a bug in lthbench" in done.stderr


SOURCES = {
    "a syntax error": (METHODS / "bad_syntax.txt", r"method\.py:\d+: SyntaxError"),
    "no find_tickets": (METHODS / "bad_no_find_tickets.py", r"no find_tickets"),
}


@pytest.mark.parametrize("case", SOURCES)
def test_files_that_are_no_method(case: str, tmp_path: Path) -> None:
    source, pattern = SOURCES[case]
    shutil.copy(source, tmp_path / "method.py")
    refused(run("evaluate", "method.py", "--task", str(TASK), cwd=tmp_path), pattern)


BEHAVIOUR = {
    "bad_raises": r"bad_raises\.py:\d+: \w+",
    "bad_import": r"bad_import\.py:\d+: ModuleNotFoundError",
    "bad_mask_name": r"prunable",
    "bad_mask_shape": r"shape",
    "bad_mask_type": r"bool",
    "bad_mask_count": r"no rung",
    "bad_nan_scores": r"(?i)nan",
    "bad_rung_twice": r"twice",
    "bad_order": r"sparsest last",
    "bad_budget": r"budget",
    "bad_printer": r"printed more than",
    "bad_endless": r"--timeout",
    "bad_chatty": r"--timeout",
    "bad_memory": r"memory",
    "bad_socket": r"sockets",
    "bad_test_data": r"test data",
    "bad_write": r"write|folder",
    "bad_process": r"processes",
    "bad_no_ticket": r"Ticket",
}
LIMITS = {
    "bad_endless": ("--timeout", "3"),
    "bad_chatty": ("--timeout", "3"),
    "bad_memory": ("--memory", "2"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", BEHAVIOUR)
def test_methods_that_break_a_rule(name: str, tmp_path: Path) -> None:
    arguments = ["evaluate", str(METHODS / f"{name}.py"), "--task", str(TASK), "--seeds", "1"]
    arguments += ["--out", "out", *LIMITS.get(name, ())]
    refused(run(*arguments, cwd=tmp_path), BEHAVIOUR[name])
    assert not list(tmp_path.rglob("record.json"))


CARRYING = """from lthbench import Ticket, elastic, keep_top


def find_tickets(problem):
    theta = problem.theta()
    for density in problem.densities:
        yield Ticket(keep_top({n: theta[n].abs() for n in problem.prunable}, density))


def transfer_ticket(ticket, source, target):
    masks = elastic(ticket, source, target).masks
    BODY
"""
RULES = {
    "a depth without network": (
        "source.at_depth(0)",
        r"at_depth\(0\): mlp networks have",
    ),
    "the source's own ticket": ("return ticket", r"to depth 1: .*hidden\.1\.weight"),
    "a tensor without a source": (
        "return Ticket({n: m for n, m in masks.items() if n != 'neck.weight'})",
        r"to depth 1: .*neck\.weight",
    ),
    "a tensor of another shape": (
        "return Ticket(masks | {'head.weight': masks['head.weight'].T})",
        r"to depth 1: .*head\.weight",
    ),
    "too few weights": (
        "return Ticket({n: m & (n == 'head.weight') for n, m in masks.items()})",
        r"to depth 1: hidden\.0\.weight: .*off by more than a factor of 2",
    ),
    "no ticket": ("return 3", r"transfer_ticket returned int"),
    "training": ("return target.train()", r"budget of 0\.01"),
}


@pytest.mark.slow
@pytest.mark.parametrize("rule", RULES)
def test_rules_of_transfer_that_do_not_fit(rule: str, tmp_path: Path) -> None:
    body, pattern = RULES[rule]
    (tmp_path / "own.py").write_text(CARRYING.replace("BODY", body))
    arguments = ["evaluate", "own.py", "--task", str(TASK), "--seeds", "1", "--transfer"]
    refused(run(*arguments, cwd=tmp_path), pattern)
    assert not list(tmp_path.rglob("record.json"))


@pytest.mark.slow
def test_a_method_that_answers_differently_on_replay(tmp_path: Path) -> None:
    """Its first run is killed by another seed's error or a limit; its second run differs."""
    arguments = ["evaluate", str(METHODS / "bad_clock.py"), "--task", str(TASK), "--seeds", "1"]
    arguments += ["--out", "out", "--keep"]
    first = run(*arguments, cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    (tmp_path / "out" / "tiny-digits" / "tickets" / "seed1000" / "search.json").unlink()
    refused(run(*arguments, cwd=tmp_path), r"differs on replay")


TASKS = {
    "unknown key": ("momentum", "momentun", r"momentun: unknown key \(did you mean momentum\?\)"),
    "wrong type": ("steps = 120", 'steps = "many"', r"\[recipe\] steps"),
    "no TOML": ("[recipe]", "[recipe", r"not valid TOML"),
    "tables without end": ("steps = 120", f"steps = {'[' * 10**5}", r"not valid TOML"),
    "a number without end": ("steps = 120", f"steps = {'9' * 5000}", r"not valid TOML"),
    "a file of megabytes": (
        "steps = 120",
        f"steps = 120  #{' ' * 2**20}",
        r"1,\d+,\d+ bytes; .*at most",
    ),
    "a name that a system reserves": ('"tiny-digits"', '"con"', r"the name con is that of a dev"),
    "rising ladder": ("[0.5, 0.2, 0.1]", "[0.1, 0.5]", r"densities must fall"),
    "no depth": ("targets = [1, 3]", "targets = [0, 3]", r"\[transfer\.targets\] 0"),
    "its own depth": ("targets = [1, 3]", "targets = [2, 3]", r"targets: two depths, neither"),
    "rising rungs": ("densities = [0.5, 0.2]", "densities = [0.2, 0.5]", r"two densities .* fall"),
    "no rung": (
        "source = 2\ntargets = [1, 3]\ndensities = [0.5, 0.2]",
        "source = 1\ntargets = [2, 3]\ndensities = [0.5, 0.3]",
        r"transfer\.densities 0\.3: not a rung",
    ),
    "a pattern that is misspelt": (
        'prunable = ["hidden.*.weight"',
        'prunable = ["hiden.*.weight"',
        r'^lthbench: tiny-digits\.toml \[network\] prunable: "hiden\.\*\.weight" matches no tensor '
        r"\(did you mean hidden\.0\.weight\?\)",
    ),
    "biases": (
        'prunable = ["hidden.*.weight"',
        'prunable = ["*"',
        r'"\*" matches hidden\.0\.bias; only',
    ),
    "percents": ("[0.5, 0.2, 0.1]", "[50.0, 20.0, 10.0]", r"for 50 % write 0\.5, not 50\.0"),
    "no weight left": (
        "[0.5, 0.2, 0.1]",
        "[0.5, 0.2, 0.0001]",
        r"0\.0001 keeps none of 2,080 weights",
    ),
    "one count": (
        "[0.5, 0.2, 0.1]",
        "[0.5, 0.2, 0.19999]",
        r"0\.2 and 0\.19999 keep the same 416 of",
    ),
    "a large batch": (
        "batch = 60",
        "batch = 1291",
        r"1,291 is more than the 1,290 training examples",
    ),
}


def test_a_long_path_does_not_hide_the_line(tmp_path: Path) -> None:
    place = tmp_path / ("a-very-long-name-of-a-folder-" * 4) / "and-another-one"
    place.mkdir(parents=True)
    (place / "mine.py").write_text(
        "def find_tickets(problem):\n    raise ValueError('why ' * 60)\n    yield\n"
    )
    arguments = ["evaluate", str(place / "mine.py"), "--task", str(TASK), "--seeds", "1"]
    refused(run(*arguments, cwd=tmp_path), r"^lthbench: …/mine\.py:2: ValueError: why")
    arguments[1] = str((place / "mine.py").relative_to(tmp_path))
    refused(run(*arguments, cwd=tmp_path), r"^lthbench: …/mine\.py:2: ValueError: why")
    arguments[1] = str(place / "mine.py")
    (place / "mine.py").write_text("def find_tickets(problem):\n    raise ValueError('why')\n")
    short = run(*arguments, "--out", "other", cwd=tmp_path)  # no more is cut than must be
    refused(short, r"^lthbench: …\S*folder-/and-another-one/mine\.py:2: ValueError: why")


@pytest.mark.parametrize("arguments", [(), ("data",)])
def test_a_command_alone_is_answered_with_its_help(
    arguments: tuple[str, ...], tmp_path: Path
) -> None:
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert "Usage: " in done.stderr and len(done.stderr.splitlines()) > 5


@pytest.mark.parametrize("case", TASKS)
def test_task_files(case: str, tmp_path: Path) -> None:
    old, new, pattern = TASKS[case]
    text = TASK.read_text().replace("batch = 60", "batch = 60\nmomentum = 0.0")
    assert old in text
    (tmp_path / "tiny-digits.toml").write_text(text.replace(old, new, 1))
    refused(run("tasks", "tiny-digits.toml", cwd=tmp_path), pattern)


@pytest.mark.slow
def test_one_seed_s_error_ends_the_others(tmp_path: Path) -> None:
    """Even of a method that is never silent; with --keep-going that seed's rungs score chance."""
    source = (METHODS / "bad_one_seed.py").read_text()
    (tmp_path / "method.py").write_text(source)
    arguments = ["evaluate", "method.py", "--task", str(TASK), "--seeds", "2"]
    refused(run(*arguments, "--timeout", "60", cwd=tmp_path), r"method\.py:\d+: RuntimeError")
    (tmp_path / "method.py").write_text(source.replace("while True", "while False"))
    arguments += ["--out", "on", "--keep-going"]
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "on" / "tiny-digits" / "record.json").read_text())
    assert [search["status"] for search in record["searches"]] == ["failed", "ok"]
    tickets = [cell for cell in record["cells"] if cell["kind"] == "ticket"]
    assert {c.get("status", "ok") for c in tickets if c["seed"] == 1000} == {"missing"}
    assert {c.get("status", "ok") for c in tickets if c["seed"] == 1001} == {"ok"}


@pytest.mark.slow
def test_a_damaged_cache_and_an_edited_record(tmp_path: Path) -> None:
    """Each is refused, and nothing else is lost: what is put right goes on."""
    arguments = ("evaluate", "erk", "--task", str(TASK), "--seeds", "1", "--out", "out")
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    cached = tmp_path / "cache" / "data" / "digits" / "fold0.train.safetensors"
    data = bytearray(cached.read_bytes())
    data[-1] ^= 1
    cached.write_bytes(data)
    other = (*arguments[:-1], "other")
    refused(run(*other, cwd=tmp_path), r"fingerprint \w+.*expects \w+")
    cached.write_bytes(data[:100])
    refused(run(*other, cwd=tmp_path), r"damaged")
    verified = run("data", "verify", "mlp-digits", cwd=tmp_path)
    assert verified.returncode == 1 and "damaged" in verified.stdout, verified.stderr
    record = tmp_path / "out" / "tiny-digits" / "record.json"
    text = record.read_text()
    assert '"mean":' in text
    edited = re.sub(r'"dense":\{"high":null,"low":null,"mean":0\.\d', "\\g<0>9", text, count=1)
    assert edited != text
    record.write_text(edited)
    refused(run("report", "out", cwd=tmp_path), r"does not follow from the cells")
    data[-1] ^= 1
    cached.write_bytes(data)
    place = tmp_path / "out" / "tiny-digits"
    for damaged in (place / "tickets" / "seed1000" / "search.json", place / "task.json"):
        whole = damaged.read_bytes()
        damaged.write_bytes(whole[:-9])
        refused(run(*arguments, cwd=tmp_path), rf"{damaged.name}: damaged")
        damaged.write_bytes(whole)
    rung = next((place / "tickets" / "seed1000").glob("*.safetensors"))
    rung.write_bytes(rung.read_bytes()[:-9])
    record.unlink()
    refused(run(*arguments, cwd=tmp_path), rf"{rung.name}: damaged")


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    done = run("evaluate", "absent.py", "--debug", cwd=tmp_path)
    assert done.returncode == 2 and "Traceback" in done.stderr


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("in the way")
    arguments = ("evaluate", "erk", "--task", str(TASK), "--seeds", "1", "--out", "out")
    refused(run(*arguments, cwd=tmp_path), r"out: File exists.*--out")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own that can be filled; only the super-user may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(folder)]
    if sys.platform != "linux" or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no file system may be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.slow
def test_a_full_disk(small_disk: Path, tmp_path: Path) -> None:
    """A clear error, nothing half-written; with space again the same command ends well."""
    filler = small_disk / "filler"
    filler.write_bytes(b"0" * (DISK - 60_000))
    arguments = ["evaluate", "imp", "--task", str(TASK), "--seeds", "1"]
    arguments += ["--out", str(small_disk / "out")]
    refused(run(*arguments, cwd=tmp_path), r"disk is full.*free some space")
    assert not list((small_disk / "out").rglob(".tmp-*"))
    filler.unlink()
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_two_evaluations_in_one_folder(tmp_path: Path) -> None:
    """The second is refused at once, and the first goes on to its end."""
    arguments = ["evaluate", "imp", "--task", str(TASK), "--seeds", "1", "--out", "out"]
    first = subprocess.Popen(
        [sys.executable, "-m", "lthbench", *arguments],
        cwd=tmp_path,
        env=os.environ | {"LTHBENCH_CACHE": str(tmp_path / "cache")},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    claimed = tmp_path / "out" / "evaluation.json"
    while first.poll() is None and not claimed.is_file():
        time.sleep(0.05)
    refused(run(*arguments, cwd=tmp_path), r"another evaluation is using this folder")
    _, errors = first.communicate(timeout=300)
    assert first.returncode == 0, errors.decode()
