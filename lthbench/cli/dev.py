"""Verbs for maintainers and their options; no logic. Heavy imports are inside the verbs."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from lthbench.cli.options import Json, verb

Rest = Annotated[list[str] | None, typer.Argument(help="As of the module; --help shows them.")]
PASSED = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}

dev_app = typer.Typer(
    rich_markup_mode=None, no_args_is_help=True, help="For maintainers: tasks, references, power."
)


@dev_app.command("power")
@verb
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
) -> None:
    """For maintainers: how many pairs of methods a suite separates, and with how many seeds."""
    from lthbench.leaderboard.analysis import power as module

    names = [name.strip() for name in baselines.split(",")] if baselines else []
    found = module.of_suite(suite, names, records or ())
    typer.echo(module.as_json(found) if json else module.text(found, suite))


def _pass_on(module: str) -> Callable[..., None]:
    def run(arguments: Rest = None) -> None:
        import_module(f"lthbench.tools.{module}").main(arguments or [])

    return run


PASSED_ON = (
    ("calibrate", "calibrate", "dense training under changed recipes, on the held-out part."),
    ("stability", "stability", "from which step on IMP's tickets of a task are stable."),
    ("noise", "noise_floor", "the noise floor of IMP's final evaluation of a task."),
    ("reference", "freeze_reference", "a task's frozen reference from IMP's final evaluation."),
    ("rescore", "rescore", "write records anew where the scorer has changed."),
)
for _name, _module, _help in PASSED_ON:
    dev_app.command(_name, context_settings=PASSED, help=f"For maintainers: {_help}")(
        _pass_on(_module)
    )
