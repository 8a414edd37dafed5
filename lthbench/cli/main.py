"""The command line: verbs and their options; no logic. Heavy imports are inside the verbs."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lthbench.cli import dev, leaderboard, mistakes
from lthbench.cli.options import (
    Device,
    Evaluation,
    Foreseen,
    Json,
    Method,
    Settings,
    Work,
    Workers,
    parse_settings,
    verb,
)
from lthbench.errors import CheckFailed, DataError, LthbenchError, UsageError
from lthbench.io import streams, system_errors
from lthbench.training.executors.environment import without_compiler

if TYPE_CHECKING:
    from lthbench.evaluation.pipeline import Evaluated
    from lthbench.method.source import Method as Loaded

INTERRUPTED = 130

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
    _asked: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    return


data_app = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="Data sets in the cache.")
app.add_typer(data_app, name="data")


@app.command()
@verb
def evaluate(work: Evaluation) -> None:
    """Run a method through the harness and write a record for each task."""
    # Mistakes are reported before torch takes its seconds to load.
    loaded = _named(work)
    from lthbench.cli import progress
    from lthbench.evaluation.options import parts_of
    from lthbench.evaluation.pipeline import evaluate as run
    from lthbench.leaderboard.submission.submit import foreseen

    given = work.arguments()
    if work.final:
        named = parts_of(
            work.suite,
            given["tasks"],
            work.seeds,
            work.final,
            only_seeds=given["only_seeds"],
            controls=work.controls,
        )
        for remark in foreseen(loaded, named):
            typer.echo(f"remark: {remark}", err=True)
    with progress.shown() as told:
        done = run(**given, progress=told)
    _tell_result(done, told.sums())
    if work.final and any(name.endswith(".toml") for name in given["tasks"]):
        typer.echo("not to be submitted: a task of your own has no board")
    elif work.final:
        typer.echo(f"next: lthbench submit {shlex.quote(str(done.out))}")


def _tell_result(done: Evaluated, sums: list[str]) -> None:
    from lthbench.report import formats, summary, terminal
    from lthbench.report.html import write_report

    typer.echo(summary.text(done.records))
    for record in done.records:
        typer.echo(terminal.terminal(record))
        typer.echo()
    for name, reason in done.left_out:
        typer.echo(f"{name}: left out: {formats.plain(reason)}")
    for line in sums:
        typer.echo(line)
    path = write_report(done.out, done.records)
    typer.echo(f"records: {done.out}/<task>/record.json   report: {path}")


@app.command()
@verb
def merge(
    paths: Annotated[
        list[Path], typer.Argument(help="Records, or folders of evaluations, of some seeds each.")
    ],
    out: Annotated[Path, typer.Option(help="A new file for a record, or a new folder.")],
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
@verb
def estimate(work: Foreseen) -> None:
    """Foresee core hours, time and GPU minutes of an evaluation from a short calibration."""
    _named(work)
    from lthbench.io.paths import canonical_json
    from lthbench.tools.estimate import estimate as foresee

    done = foresee(**work.arguments())
    typer.echo(canonical_json(done.table()).decode().rstrip() if work.json else done.text())


@app.command()
@verb
def bench(
    task: Annotated[
        list[str] | None, typer.Option(help="A task; may be repeated [those for the device].")
    ] = None,
    device: Device = None,
    workers: Workers = None,
    seconds: Annotated[float, typer.Option(help="Time a row may take, roughly.")] = 2.0,
    json: Json = False,
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
@verb
def check(method: Method, settings: Settings = None) -> None:
    """Prove in seconds, on a synthetic task, that a method keeps every rule."""
    from lthbench.method.source import load_method
    from lthbench.tools.check import check as run

    done = run(load_method(method, parse_settings(settings)))
    typer.echo(done.text())
    done.demand()


@app.command()
@verb
def new(
    file: Annotated[Path, typer.Argument(help="The file to write.")],
    source: Annotated[str | None, typer.Option("--from", help="A baseline to copy.")] = None,
) -> None:
    """Write a working, commented example of a method."""
    from lthbench.method.template import new as write

    write(file, source)
    typer.echo(f"wrote {file}; next: lthbench check {file}")


@app.command()
@verb
def tasks(
    name: Annotated[str | None, typer.Argument(help="One task, to see it whole.")] = None,
) -> None:
    """List the tasks and suites, or show one task's protocol."""
    from lthbench.cli import listings

    typer.echo(listings.one_task(name) if name else listings.all_tasks())


@app.command()
@verb
def baselines(
    name: Annotated[str | None, typer.Argument(help="One baseline, to read it.")] = None,
) -> None:
    """List the baselines, or print one's source."""
    from lthbench.cli import listings

    typer.echo(listings.one_baseline(name) if name else listings.all_baselines())


@data_app.command("prepare")
@verb
def prepare(
    task: Annotated[list[str] | None, typer.Argument(help="Tasks; all by default.")] = None,
) -> None:
    """Download or copy what tasks need, decode it, and check its fingerprints."""
    from lthbench.protocol import datasets
    from lthbench.protocol.task import task_names
    from lthbench.tickets.sizes import load_sound

    for loaded in [load_sound(name) for name in task or task_names()]:
        datasets.prepare(loaded, download=True)
        typer.echo(f"{loaded.name}: ready")


@data_app.command("verify")
@verb
def verify(
    task: Annotated[list[str] | None, typer.Argument(help="Tasks; all by default.")] = None,
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
@verb
def report(
    out: Annotated[Path, typer.Argument(help="The folder of an evaluation, or a record's file.")],
    latex: Annotated[bool, typer.Option("--latex", help="Tables for a paper's appendix.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Tables in Markdown.")] = False,
    json: Annotated[bool, typer.Option("--json", help="The records, one a line.")] = False,
    html: Annotated[bool, typer.Option("--html", help="Write report.html again.")] = False,
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


def _named(work: Work) -> Loaded:
    """Load the method, refusing unknown methods, options, suites and tasks.

    With `final`, refuse a method that could not be submitted, too.
    """
    from lthbench.method.source import load_method
    from lthbench.protocol.task import load_suite, load_task

    loaded = load_method(work.method, parse_settings(work.settings))
    for name in work.task or ():
        load_task(name)
    if work.suite:
        load_suite(work.suite)
    if work.final:
        from lthbench.method import publishable

        publishable.check(loaded)
    return loaded


leaderboard.add_to(app)
app.add_typer(dev.dev_app, name="dev")


def main() -> None:
    """Run the command line; every mistake ends in one line and its exit code."""
    output = streams.begin()
    debug = "--debug" in sys.argv
    without_compiler()  # before torch is imported
    code = _run(debug)
    if why := streams.lost(output):
        mistakes.tell(why, None, False)
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
        mistakes.tell(str(error), error, debug)
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        mistakes.tell("interrupted; run the same command again to go on", None, False)
        return INTERRUPTED
    except Exception as error:
        return mistakes.tell_unforeseen(error, debug)
    return code or 0
