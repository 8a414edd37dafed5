"""The leaderboard's verbs and their options; no logic. Heavy imports are inside the verbs."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from lthbench.cli.options import AllowPrivate, Json, Verification, verb
from lthbench.errors import UsageError

board_app = typer.Typer(
    rich_markup_mode=None, invoke_without_command=True, help="The leaderboard: see, build, serve."
)
tickets_app = typer.Typer(
    rich_markup_mode=None, no_args_is_help=True, help="Tickets of accepted entries."
)


def submit(
    out: Annotated[Path, typer.Argument(help="The folder of an evaluation with --final.")],
    url: Annotated[
        list[str] | None, typer.Option(help="Where the bundle will lie; may be repeated.")
    ] = None,
    repository: Annotated[
        Path | None,
        typer.Option(
            help="A clone of your fork of the leaderboard's repository, for the branch [none]."
        ),
    ] = None,
) -> None:
    """Check everything that the leaderboard checks, write the bundle, prepare the pull request."""
    from lthbench.leaderboard.submission.submit import submit as run

    typer.echo(run(out, tuple(url or ()), repository).text())


def validate(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(help="Records or bundles, or folders of them [with --since: this folder]."),
    ] = None,
    since: Annotated[
        str | None, typer.Option(help="A git revision: refuse changes of anything but new records.")
    ] = None,
    json: Json = False,
) -> None:
    """Check records as the leaderboard's own CI does; nothing of a submission is run."""
    if not paths and since is None:
        raise UsageError("missing argument PATHS: name records, bundles or folders of them")
    from lthbench.leaderboard.validation.validate import validate as run

    done = run(tuple(paths or [Path()]), since)
    typer.echo(done.json() if json else done.text())
    done.demand()


def verify(asked: Verification) -> None:
    """Check a submission: its artefacts, its tickets trained again, or its search run again."""
    from lthbench.leaderboard.verification.verify import verify as run

    done = run(
        asked.target,
        asked.level,
        tasks=tuple(asked.task or ()),
        cells=asked.cells,
        beacon=asked.beacon,
        workers=asked.workers,
        allow_private=asked.allow_private,
        say=partial(typer.echo, err=True),
    )
    typer.echo(done.json() if asked.json else done.text())
    if asked.report:
        done.write(asked.report)
    done.demand()


@board_app.callback()
@verb
def board(
    context: typer.Context,
    suite: Annotated[str | None, typer.Option(help="One suite [all that have entries].")] = None,
    json: Json = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Tables in Markdown.")] = False,
    latex: Annotated[bool, typer.Option("--latex", help="Tables for a paper.")] = False,
) -> None:
    """Print the boards, or build, serve and keep them: rank intervals, scores, costs, levels."""
    if context.invoked_subcommand is None:
        _show(suite, json, markdown, latex)
    elif suite is not None or json or markdown or latex:
        raise UsageError(
            f"leaderboard: options before `{context.invoked_subcommand}` go nowhere; write them "
            "behind it, as in `lthbench leaderboard show --json`"
        )


@board_app.command("show")
@verb
def show(
    suite: Annotated[str | None, typer.Option(help="One suite [all that have entries].")] = None,
    json: Json = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Tables in Markdown.")] = False,
    latex: Annotated[bool, typer.Option("--latex", help="Tables for a paper.")] = False,
) -> None:
    """Print the boards: rank intervals, scores, costs, levels."""
    _show(suite, json, markdown, latex)


def _show(suite: str | None, json: bool, markdown: bool, latex: bool) -> None:
    if json + markdown + latex > 1:
        raise UsageError("--json, --markdown and --latex exclude each other")
    from lthbench.leaderboard.board import forms

    form = "json" if json else "markdown" if markdown else "latex" if latex else "terminal"
    typer.echo(forms.show(suite, form))


@board_app.command("build")
@verb
def build(
    out: Annotated[Path, typer.Argument(help="A folder for the site.")],
) -> None:
    """Write the whole site as files, anew or only what changed."""
    from lthbench.leaderboard.site.build import build as run

    typer.echo(run(out).text())


@board_app.command("serve")
@verb
def serve(
    out: Annotated[
        Path | None, typer.Argument(help="A folder that was built [a temporary one, built now].")
    ] = None,
    port: Annotated[int, typer.Option(help="On this machine alone; 0: any free one.")] = 8000,
) -> None:
    """Show the site in a browser on this machine."""
    from lthbench.leaderboard.site.serve import serve as run

    run(out, port, typer.echo)


@board_app.command("accept")
@verb
def accept(
    paths: Annotated[list[Path] | None, typer.Argument(help="Records to accept.")] = None,
    supersedes: Annotated[
        str | None, typer.Option(help="The entry that the record takes the place of.")
    ] = None,
    verified: Annotated[
        list[Path] | None, typer.Option(help="A report of `lthbench verify`; may be repeated.")
    ] = None,
    retract: Annotated[str | None, typer.Option(help="An entry to retract, with --why.")] = None,
    challenge: Annotated[
        str | None, typer.Option(help="An entry that the --verified report or record refutes.")
    ] = None,
    why: Annotated[str | None, typer.Option(help="One sentence for the ledger.")] = None,
) -> None:
    """Validate again and write the ledger, on the main branch; its only writer."""
    from lthbench.leaderboard.board.accept import accept as run

    for line in run(
        tuple(paths or ()),
        supersedes=supersedes,
        verified=tuple(verified or ()),
        retract=retract,
        challenge=challenge,
        why=why,
    ):
        typer.echo(line)


def compare(
    a: Annotated[str, typer.Argument(help="An entry, a record's file or an evaluation's folder.")],
    b: Annotated[str, typer.Argument(help="Another.")],
    json: Json = False,
) -> None:
    """Two entries seed by seed: differences with p values, and how far their masks overlap."""
    from lthbench.leaderboard.analysis.compare import compare as run

    done = run(a, b)
    typer.echo(done.json() if json else done.text())


def evidence(
    a: Annotated[str, typer.Argument(help="An entry, a bundle or an evaluation's folder.")],
    b: Annotated[str, typer.Argument(help="Another.")],
    save: Annotated[
        bool, typer.Option("--save", help="Keep it under leaderboard/evidence, for the site.")
    ] = False,
    json: Json = False,
) -> None:
    """Whether two methods find the same subnetworks: overlaps, nulls, verdicts."""
    from lthbench.leaderboard.analysis.evidence import evidence as run

    done = run(a, b, save=save)
    typer.echo(done.json() if json else done.text())


def cite(
    entry: Annotated[str | None, typer.Option(help="An entry of the board.")] = None,
    task: Annotated[str | None, typer.Option(help="A task, with its data set.")] = None,
    data: Annotated[bool, typer.Option("--data", help="Every data set.")] = False,
    format: Annotated[str, typer.Option(help="bibtex, cff or text.")] = "bibtex",
) -> None:
    """Print how to cite the benchmark, an entry, or a task and its data."""
    from lthbench.leaderboard.citation.cite import cite as run

    typer.echo(run(entry, task, data, format).rstrip("\n"))


@tickets_app.command("fetch")
@verb
def fetch(
    entry: Annotated[str, typer.Argument(help="An entry of the board, as imp--4139c785.")],
    out: Annotated[Path | None, typer.Option(help="A folder [tickets/ENTRY].")] = None,
    allow_private: AllowPrivate = False,
) -> None:
    """Fetch an entry's bundle, check its digest, and write each ticket's masks and weights."""
    from lthbench.leaderboard.ticket_folder import fetch as run

    typer.echo(run(entry, out, allow_private=allow_private).text())


def add_to(app: typer.Typer) -> None:
    """Add these verbs to the command line."""
    for command in (submit, validate, verify, compare, evidence, cite):
        app.command()(verb(command))
    app.add_typer(board_app, name="leaderboard")
    app.add_typer(tickets_app, name="tickets")
