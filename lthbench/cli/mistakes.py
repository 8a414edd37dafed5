"""How a mistake is told: one line on standard error, with --debug the traceback before it."""

from __future__ import annotations

import re
import sys
import traceback
from typing import Any

from lthbench.errors import UsageError, nearest
from lthbench.io import system_errors

WIDTH = 199  # of the line that reports a mistake
BUG = 3


def tell_unforeseen(error: Exception, debug: bool) -> int:
    """Report an error that no module of ours raised deliberately; return its exit code."""
    if type(error).__name__ == "NoArgsIsHelpError":  # by name: typer may bundle its own click
        print(error, file=sys.stderr)
    elif hasattr(error, "format_message"):  # an invalid command line
        tell(_usage(error), error, debug)
    elif why := system_errors.refused(error):
        tell(why, error, debug)
    else:
        what = f"a bug in lthbench: {type(error).__name__}: {error} (--debug shows where)"
        tell(what, error, debug)
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


def tell(text: str, error: BaseException | None, debug: bool) -> None:
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
