"""The command line: verbs and their options; no logic. Heavy imports are inside the verbs."""

from __future__ import annotations

import re
import shlex
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lthbench.cli import dev, leaderboard
from lthbench.cli.leaderboard import Debug
from lthbench.errors import CheckFailed, DataError, LthbenchError, UsageError, nearest
from lthbench.io import streams, system_errors
from lthbench.training.executors.environment import without_compiler

if TYPE_CHECKING:
    from lthbench.method.source import Method as Loaded

WIDTH = 199  # of the line that reports a mistake
INTERRUPTED, BUG = 130, 3

app = typer.Typer(
    name="lthbench",
    help="A benchmark for methods that find lottery tickets in neural networks.",
    rich_markup_mode=None,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"lthbench {version('lthbench')}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    return


data_app = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="Data sets in the cache.")
app.add_typer(data_app, name="data")

Method = Annotated[str, typer.Argument(help="A .py file with find_tickets, or a baseline's name.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", help="An option of the method, as name=value.")
]
Device = Annotated[
    str | None, typer.Option(help="What trains: cpu, cuda, cuda:1 [a GPU where there is one].")
]
Workers = Annotated[
    int | None, typer.Option(help="Processes that train [one a core, or one for a GPU]; 0: none.")
]
Engine = Annotated[
    str | None, typer.Option(help="plain, compact or stacked [the best for each task].")
]
Controls = Annotated[
    str | None, typer.Option(help="On which rungs: all, alternate or one rung [the suite's].")
]
OnlySeeds = Annotated[
    str | None, typer.Option(help="Some of those seeds: 0,1,2 or 0-2; to divide the work.")
]


@app.command()
def evaluate(
    method: Method,
    suite: Annotated[str | None, typer.Option(help="A suite of tasks [quick].")] = None,
    task: Annotated[list[str] | None, typer.Option(help="A task; may be repeated.")] = None,
    seeds: Annotated[int | None, typer.Option(help="How many [as the task says].")] = None,
    final: Annotated[
        bool, typer.Option("--final", help="Published seeds and the test split; once, to submit.")
    ] = False,
    only_seeds: OnlySeeds = None,
    controls: Controls = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for results [lthbench-out/METHOD, with --final METHOD-final]."),
    ] = None,
    settings: Settings = None,
    device: Device = None,
    workers: Workers = None,
    engine: Engine = None,
    executor: Annotated[str, typer.Option(help="local, or ray: the nodes of a cluster.")] = "local",
    address: Annotated[
        str | None, typer.Option(help="Of a running Ray cluster, host:port [this machine alone].")
    ] = None,
    timeout: Annotated[
        float | None, typer.Option(help="Seconds a seed's search may take of its own.")
    ] = None,
    memory: Annotated[float, typer.Option(help="Gigabytes a seed's search may use.")] = 8.0,
    keep_going: Annotated[
        bool, typer.Option("--keep-going", help="Score a failed seed as chance; do not end.")
    ] = False,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep the stores of finished seeds.")
    ] = False,
    transfer: Annotated[
        bool | None,
        typer.Option("--transfer/--no-transfer", help="Carry tickets to other depths [by suite]."),
    ] = None,
    direct: Annotated[
        bool, typer.Option("--direct", help="Search at those depths too, for a reference.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Run a method through the harness and write a record for each task."""
    # Mistakes are reported before torch takes its seconds to load.
    loaded = _named(method, settings, suite, task, final)
    from lthbench.cli import progress
    from lthbench.evaluation.options import parts_of
    from lthbench.evaluation.pipeline import evaluate as run
    from lthbench.report import formats, summary, terminal
    from lthbench.report.html import write_report

    only = _numbers(only_seeds)
    if final:
        from lthbench.leaderboard.submission.submit import foreseen

        named = parts_of(suite, task or (), seeds, final, only_seeds=only, controls=controls)
        for remark in foreseen(loaded, named):
            typer.echo(f"remark: {remark}", err=True)
    with progress.shown() as told:
        done = run(
            method,
            suite=suite,
            tasks=task or (),
            seeds=seeds,
            only_seeds=only,
            final=final,
            controls=controls,
            out=out,
            options=_settings(settings),
            device=device,
            workers=workers,
            engine=engine,
            executor=executor,
            address=address,
            timeout=timeout,
            memory=memory,
            keep_going=keep_going,
            keep=keep,
            transfer=transfer,
            direct=direct,
            progress=told,
        )
    typer.echo(summary.text(done.records))
    for record in done.records:
        typer.echo(terminal.terminal(record))
        typer.echo()
    for name, reason in done.left_out:
        typer.echo(f"{name}: left out: {formats.plain(reason)}")
    for line in told.sums():
        typer.echo(line)
    path = write_report(done.out, done.records)
    typer.echo(f"records: {done.out}/<task>/record.json   report: {path}")
    if final and any(name.endswith(".toml") for name in task or ()):
        typer.echo("not to be submitted: a task of your own has no board")
    elif final:
        typer.echo(f"next: lthbench submit {shlex.quote(str(done.out))}")


@app.command()
def merge(
    paths: Annotated[
        list[Path], typer.Argument(help="Records, or folders of evaluations, of some seeds each.")
    ],
    out: Annotated[Path, typer.Option(help="A new file for a record, or a new folder.")],
    debug: Debug = False,
) -> None:
    """Join evaluations of one method on disjoint seeds, made by --only-seeds, into one."""
    from lthbench.leaderboard.submission.merge import merge as run
    from lthbench.report.formats import plain

    records = run(paths, out)
    for record in records:
        seeds = ", ".join(map(str, record.seeds))
        typer.echo(f"{plain(record.task.name)}: {plain(record.method.name)}, seeds {seeds}")
    typer.echo(f"wrote {out}")
    if out.is_dir() and records[0].final:
        typer.echo(f"next: lthbench submit {shlex.quote(str(out))}")


@app.command()
def estimate(
    method: Method,
    suite: Annotated[str | None, typer.Option(help="A suite of tasks [quick].")] = None,
    task: Annotated[list[str] | None, typer.Option(help="A task; may be repeated.")] = None,
    seeds: Annotated[int | None, typer.Option(help="How many [as the task says].")] = None,
    final: Annotated[
        bool, typer.Option("--final", help="Published seeds and the test split.")
    ] = False,
    only_seeds: OnlySeeds = None,
    controls: Controls = None,
    settings: Settings = None,
    device: Device = None,
    workers: Workers = None,
    engine: Engine = None,
    json: Annotated[bool, typer.Option("--json", help="Every figure, one line.")] = False,
    debug: Debug = False,
) -> None:
    """Foresee core hours, time and GPU minutes of an evaluation from a short calibration."""
    _named(method, settings, suite, task, final)
    from lthbench.io.paths import canonical_json
    from lthbench.tools.estimate import estimate as foresee

    done = foresee(
        method,
        suite=suite,
        tasks=task or (),
        seeds=seeds,
        only_seeds=_numbers(only_seeds),
        final=final,
        controls=controls,
        options=_settings(settings),
        device=device,
        workers=workers,
        engine=engine,
    )
    typer.echo(canonical_json(done.table()).decode().rstrip() if json else done.text())


@app.command()
def bench(
    task: Annotated[
        list[str] | None, typer.Option(help="A task; may be repeated [those for the device].")
    ] = None,
    device: Device = None,
    workers: Workers = None,
    seconds: Annotated[float, typer.Option(help="Time a row may take, roughly.")] = 2.0,
    json: Annotated[bool, typer.Option("--json", help="Every figure, one line.")] = False,
    debug: Debug = False,
) -> None:
    """Time each engine on each task, beside what this machine's arithmetic and memory allow."""
    from lthbench.io.paths import canonical_json
    from lthbench.tools.bench import bench as run
    from lthbench.training.dispatch import means_of
    from lthbench.training.executors.local import default_workers

    means = means_of(device, None)
    crew = default_workers(means) if workers is None else workers
    done = run(task or (), means.device, seconds, crew)
    typer.echo(canonical_json(done.table()).decode().rstrip() if json else done.text())


@app.command()
def check(method: Method, settings: Settings = None, debug: Debug = False) -> None:
    """Prove in seconds, on a synthetic task, that a method keeps every rule."""
    from lthbench.method.source import load_method
    from lthbench.tools.check import check as run

    done = run(load_method(method, _settings(settings)))
    typer.echo(done.text())
    done.demand()


@app.command()
def new(
    file: Annotated[Path, typer.Argument(help="The file to write.")],
    source: Annotated[str | None, typer.Option("--from", help="A baseline to copy.")] = None,
    debug: Debug = False,
) -> None:
    """Write a working, commented example of a method."""
    from lthbench.method.template import new as write

    write(file, source)
    typer.echo(f"wrote {file}; next: lthbench check {file}")


@app.command()
def tasks(
    name: Annotated[str | None, typer.Argument(help="One task, to see it whole.")] = None,
    debug: Debug = False,
) -> None:
    """List the tasks and suites, or show one task's protocol."""
    from lthbench.cli import listings

    typer.echo(listings.one_task(name) if name else listings.all_tasks())


@app.command()
def baselines(
    name: Annotated[str | None, typer.Argument(help="One baseline, to read it.")] = None,
    debug: Debug = False,
) -> None:
    """List the baselines, or print one's source."""
    from lthbench.cli import listings

    typer.echo(listings.one_baseline(name) if name else listings.all_baselines())


@data_app.command("prepare")
def prepare(
    task: Annotated[list[str] | None, typer.Argument(help="Tasks; all by default.")] = None,
    debug: Debug = False,
) -> None:
    """Download or copy what tasks need, decode it, and check its fingerprints."""
    from lthbench.protocol import datasets
    from lthbench.protocol.task import task_names
    from lthbench.tickets.sizes import load_sound

    for loaded in [load_sound(name) for name in task or task_names()]:
        datasets.prepare(loaded, download=True)
        typer.echo(f"{loaded.name}: ready")


@data_app.command("verify")
def verify(
    task: Annotated[list[str] | None, typer.Argument(help="Tasks; all by default.")] = None,
    debug: Debug = False,
) -> None:
    """Read prepared data again and compare its fingerprints."""
    from lthbench.protocol import datasets
    from lthbench.protocol.task import load_task, task_names

    wrong = 0
    for loaded in [load_task(name) for name in task or task_names()]:
        try:
            datasets.verify(loaded)
            typer.echo(f"{loaded.name}: {'whole' if datasets.parts(loaded) else 'needs no files'}")
        except DataError as error:
            wrong += 1
            typer.echo(f"{loaded.name}: {error}")
    if wrong:
        raise CheckFailed(f"{wrong} of the tasks cannot run; their lines above say why")


@app.command()
def report(
    out: Annotated[Path, typer.Argument(help="The folder of an evaluation, or a record's file.")],
    latex: Annotated[bool, typer.Option("--latex", help="Tables for a paper's appendix.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Tables in Markdown.")] = False,
    json: Annotated[bool, typer.Option("--json", help="The records, one a line.")] = False,
    html: Annotated[bool, typer.Option("--html", help="Write report.html again.")] = False,
    debug: Debug = False,
) -> None:
    """Print the tables of an evaluation again, in another form, or write its report.html."""
    from lthbench.records.schema import read_records
    from lthbench.report import html as page
    from lthbench.report import latex as latex_form
    from lthbench.report import markdown as markdown_form
    from lthbench.report import summary, terminal

    if latex + markdown + json + html > 1:
        raise UsageError("--latex, --markdown, --json and --html exclude each other")
    if html and out.is_file():
        raise UsageError(f"--html {out}: name a folder; report.html is written into it")
    records = read_records(out)
    if html:
        typer.echo(page.write_report(out, records))
        return
    if json:
        for record in records:
            typer.echo(page.as_json(record).rstrip("\n"))
        return
    forms = {
        "latex": latex_form.latex,
        "markdown": markdown_form.markdown,
        "terminal": terminal.terminal,
    }
    form = "latex" if latex else "markdown" if markdown else "terminal"
    typer.echo(summary.text(records, form))
    for record in records:
        typer.echo(forms[form](record))


def _named(
    method: str,
    settings: list[str] | None,
    suite: str | None,
    tasks: list[str] | None,
    final: bool,
) -> Loaded:
    """Load the method, refusing unknown methods, options, suites and tasks.

    With `final`, refuse a method that could not be submitted, too.
    """
    from lthbench.method.source import load_method
    from lthbench.protocol.task import load_suite, load_task

    loaded = load_method(method, _settings(settings))
    for name in tasks or ():
        load_task(name)
    if suite:
        load_suite(suite)
    if final:
        from lthbench.method import publishable

        publishable.check(loaded)
    return loaded


def _settings(pairs: list[str] | None) -> dict[str, str]:
    """Parse `name=value` strings to a table."""
    settings = {}
    for pair in pairs or []:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise UsageError(f"--set {pair}: write --set name=value")
        settings[name] = value
    return settings


def _numbers(text: str | None) -> tuple[int, ...] | None:
    """Parse seeds: 0,1,2 or 0-2."""
    if text is None:
        return None
    numbers: list[int] = []
    for part in text.split(","):
        if not re.fullmatch(r"\d{1,6}(-\d{1,6})?", part.strip()):
            raise UsageError(f"--only-seeds {text}: write numbers and ranges, as 0,1,2 or 0-2")
        first, _, last = part.partition("-")
        numbers += range(int(first), int(last or first) + 1)
    return tuple(numbers)


leaderboard.add_to(app)
app.add_typer(dev.dev_app, name="dev")


def main() -> None:
    """Run the command line; every mistake ends in one line and its exit code."""
    output = streams.begin()
    debug = "--debug" in sys.argv
    without_compiler()  # before torch is imported
    code = _run(debug)
    if why := streams.lost(output):
        _tell(why, None, False)
        code = code or UsageError.exit_code
    sys.exit(code)


def _run(debug: bool) -> int:
    """Run the command line, report its mistakes, and return the exit code."""
    try:
        for argument in sys.argv[1:]:
            if why := system_errors.no_text(argument):
                raise UsageError(why)
        code = app(standalone_mode=False)
        if code == INTERRUPTED:  # typer has caught it
            raise KeyboardInterrupt
    except LthbenchError as error:
        _tell(str(error), error, debug)
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        _tell("interrupted; run the same command again to go on", None, False)
        return INTERRUPTED
    except Exception as error:
        return _unforeseen(error, debug)
    return code or 0


def _unforeseen(error: Exception, debug: bool) -> int:
    """Report an error that no module of ours raised deliberately; return its exit code."""
    if type(error).__name__ == "NoArgsIsHelpError":  # by name: typer may bundle its own click
        print(error, file=sys.stderr)
    elif hasattr(error, "format_message"):  # an invalid command line
        _tell(_usage(error), error, debug)
    elif why := system_errors.refused(error):
        _tell(why, error, debug)
    else:
        what = f"a bug in lthbench: {type(error).__name__}: {error} (--debug shows where)"
        _tell(what, error, debug)
        return BUG
    return UsageError.exit_code


def _usage(error: Any) -> str:
    """Describe what is wrong with a command line, with the nearest name."""
    text = str(error.format_message()).rstrip(".")
    context = getattr(error, "ctx", None)
    option = getattr(error, "option_name", None)
    if option and context and "mean" not in text and "ossible" not in text:
        names = [name for p in context.command.params for name in p.opts]
        text += nearest(option, names)
    command = getattr(context, "command", None)
    if text.startswith("No such command") and "mean" not in text:
        text += nearest(text.split("'")[1], getattr(command, "commands", {}))
    path = getattr(context, "command_path", "lthbench")
    return f"{text}; see `{path} --help`"


def _tell(text: str, error: BaseException | None, debug: bool) -> None:
    """Print one line on standard error; with --debug the traceback before it."""
    if debug and error is not None:
        traceback.print_exception(error)
        for note in getattr(error, "__notes__", ()):
            print(note, file=sys.stderr)
    line = "lthbench: " + " ".join(text.split())
    if len(line) > WIDTH:  # a path is shortened at its beginning, never in the file's name
        surplus = len(line) - WIDTH + 1
        line = re.sub(
            r"(?<=^lthbench: )(?:/[^:]*|[^:\s]*)(?=/[^/:]+:)",
            lambda path: "…" + path[0][surplus:],
            line,
        )
    if len(line) > WIDTH:  # the place is at the beginning, the next step at the end
        line = f"{line[: WIDTH // 3]}…{line[-(WIDTH - WIDTH // 3 - 1) :]}"
    print(line, file=sys.stderr)
