"""What the verbs take: options that several have, and those that travel together as one value."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from lthbench.errors import UsageError

Debug = Annotated[bool, typer.Option("--debug", help="Show the whole traceback of an error.")]
Json = Annotated[bool, typer.Option("--json", help="Every figure, one line.")]
Method = Annotated[str, typer.Argument(help="A .py file with find_tickets, or a baseline's name.")]
Tasks = Annotated[list[str] | None, typer.Option(help="A task; may be repeated.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", help="An option of the method, as name=value.")
]
Device = Annotated[
    str | None, typer.Option(help="What trains: cpu, cuda, cuda:1 [a GPU where there is one].")
]
Workers = Annotated[
    int | None, typer.Option(help="Processes that train [one a core, or one for a GPU]; 0: none.")
]
AllowPrivate = Annotated[
    bool,
    typer.Option(
        "--allow-private",
        help="Fetch the bundle from this machine or a private network, if its address is there.",
    ),
]


def verb(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command as typer reads it.

    Its options are the fields of the dataclass that it takes, or its own parameters; and --debug,
    which `main` reads from the command line itself.
    """
    own = list(inspect.signature(command, eval_str=True).parameters.values())
    made: Any = own[0].annotation if len(own) == 1 and is_dataclass(own[0].annotation) else None

    def run(**given: Any) -> None:
        given.pop("debug", None)
        command(made(**given)) if made else command(**given)

    shown = list(inspect.signature(made, eval_str=True).parameters.values()) if made else own
    last = inspect.Parameter(
        "debug", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Debug
    )
    run.__signature__ = inspect.Signature([*shown, last])  # type: ignore[attr-defined]
    run.__name__, run.__doc__ = command.__name__, command.__doc__
    return run


@dataclass(frozen=True)
class Work:
    """An evaluation to run or to foresee."""

    method: Method
    suite: Annotated[str | None, typer.Option(help="A suite of tasks [quick].")] = None
    task: Tasks = None
    seeds: Annotated[int | None, typer.Option(help="How many [as the task says].")] = None
    final: Annotated[
        bool, typer.Option("--final", help="Published seeds and the test split; once, to submit.")
    ] = False
    only_seeds: Annotated[
        str | None, typer.Option(help="Some of those seeds: 0,1,2 or 0-2; to divide the work.")
    ] = None
    controls: Annotated[
        str | None, typer.Option(help="On which rungs: all, alternate or one rung [the suite's].")
    ] = None
    settings: Settings = None
    device: Device = None
    workers: Workers = None
    engine: Annotated[
        str | None, typer.Option(help="plain, compact or stacked [the best for each task].")
    ] = None

    def arguments(self) -> dict[str, Any]:
        """Return these options as keyword arguments of `evaluate` and `estimate`."""
        given = {name: value for name, value in vars(self).items() if name not in RENAMED}
        only = parse_numbers(self.only_seeds)
        options = parse_settings(self.settings)
        return {**given, "tasks": self.task or (), "only_seeds": only, "options": options}


RENAMED = ("task", "only_seeds", "settings", "json")


@dataclass(frozen=True)
class Evaluation(Work):
    """An evaluation to run."""

    out: Annotated[
        Path | None,
        typer.Option(help="Folder for results [lthbench-out/METHOD, with --final METHOD-final]."),
    ] = None
    executor: Annotated[str, typer.Option(help="local, or ray: the nodes of a cluster.")] = "local"
    address: Annotated[
        str | None, typer.Option(help="Of a running Ray cluster, host:port [this machine alone].")
    ] = None
    timeout: Annotated[
        float | None, typer.Option(help="Seconds a seed's search may take of its own.")
    ] = None
    memory: Annotated[float, typer.Option(help="Gigabytes a seed's search may use.")] = 8.0
    keep_going: Annotated[
        bool, typer.Option("--keep-going", help="Score a failed seed as chance; do not end.")
    ] = False
    keep: Annotated[bool, typer.Option("--keep", help="Keep the stores of finished seeds.")] = False
    transfer: Annotated[
        bool | None,
        typer.Option("--transfer/--no-transfer", help="Carry tickets to other depths [by suite]."),
    ] = None
    direct: Annotated[
        bool, typer.Option("--direct", help="Search at those depths too, for a reference.")
    ] = False


@dataclass(frozen=True)
class Foreseen(Work):
    """An evaluation to foresee."""

    json: Json = False


@dataclass(frozen=True)
class Verification:
    """A submission to check, and how far."""

    target: Annotated[str, typer.Argument(help="A bundle's file, or an entry of the board.")]
    level: Annotated[
        int, typer.Option(help="0 reported, 1 artefacts, 2 retrained, 3 reproduced.")
    ] = 1
    task: Annotated[list[str] | None, typer.Option(help="Of the bundle [all].")] = None
    cells: Annotated[
        int, typer.Option(help="How many to train again, where the rule draws fewer.")
    ] = 0
    beacon: Annotated[
        str | None, typer.Option(help="What draws the cells [the ledger's head].")
    ] = None
    workers: Annotated[int | None, typer.Option(help="Processes that train [one a core].")] = None
    report: Annotated[
        Path | None, typer.Option(help="Write what was found, for `leaderboard accept`.")
    ] = None
    allow_private: AllowPrivate = False
    json: Json = False


def parse_settings(pairs: list[str] | None) -> dict[str, str]:
    """Parse `name=value` strings to a table."""
    settings = {}
    for pair in pairs or []:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise UsageError(f"--set {pair}: write --set name=value")
        settings[name] = value
    return settings


def parse_numbers(text: str | None) -> tuple[int, ...] | None:
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
