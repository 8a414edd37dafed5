"""Verbs for maintainers and their options; no logic. Heavy imports are inside the verbs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lthbench.cli.leaderboard import Debug, Json

Rest = Annotated[list[str] | None, typer.Argument(help="As of the module; --help shows them.")]
PASSED = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}

dev_app = typer.Typer(
    rich_markup_mode=None, no_args_is_help=True, help="For maintainers: tasks, references, power."
)


@dev_app.command("power")
def power(
    suite: Annotated[str, typer.Argument(help="A suite of tasks.")],
    baselines: Annotated[
        str | None, typer.Option(help="Methods by name, as imp,snip [all trained ones].")
    ] = None,
    records: Annotated[
        list[Path] | None,
        typer.Option(help="A folder of records or of evaluations; may be repeated [the board]."),
    ] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """For maintainers: how many pairs of methods a suite separates, and with how many seeds."""
    from lthbench.leaderboard.analysis import power as module

    names = [name.strip() for name in baselines.split(",")] if baselines else []
    found = module.of_suite(suite, names, records or ())
    typer.echo(module.as_json(found) if json else module.text(found, suite))


@dev_app.command("calibrate", context_settings=PASSED)
def calibrate(arguments: Rest = None) -> None:
    """For maintainers: dense training under changed recipes, on the held-out part."""
    from lthbench.tools.calibrate import main

    main(arguments or [])


@dev_app.command("stability", context_settings=PASSED)
def stability(arguments: Rest = None) -> None:
    """For maintainers: from which step on IMP's tickets of a task are stable."""
    from lthbench.tools.stability import main

    main(arguments or [])


@dev_app.command("noise", context_settings=PASSED)
def noise(arguments: Rest = None) -> None:
    """For maintainers: the noise floor of IMP's final evaluation of a task."""
    from lthbench.tools.noise_floor import main

    main(arguments or [])


@dev_app.command("reference", context_settings=PASSED)
def reference(arguments: Rest = None) -> None:
    """For maintainers: a task's frozen reference from IMP's final evaluation of it."""
    from lthbench.tools.freeze_reference import main

    main(arguments or [])


@dev_app.command("rescore", context_settings=PASSED)
def rescore(arguments: Rest = None) -> None:
    """For maintainers: write records anew where the scorer has changed."""
    from lthbench.tools.rescore import main

    main(arguments or [])
