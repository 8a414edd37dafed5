"""Names that become files and folders, on every system that a checkout or a result may reach."""

from __future__ import annotations

import re

METHOD = re.compile("[A-Za-z0-9][A-Za-z0-9_.-]{0,60}")  # as a record and a folder take it
# Windows opens a device where one of these is asked for, in any folder and with any ending.
DEVICES = frozenset(("con", "prn", "aux", "nul", "conin$", "conout$", "clock$")) | {
    f"{port}{n}" for port in ("com", "lpt") for n in "0123456789"
}


def fault(name: str) -> str:
    """Why no method may be called so, as the end of a sentence; "" if one may."""
    if not METHOD.fullmatch(name):
        return "needs a letter or digit, then at most 60 letters, digits, - _ or ."
    return reserved(name)


def reserved(name: str) -> str:
    """Why a system takes no file of that name, whatever its ending; "" if all do."""
    if name.partition(".")[0].casefold() in DEVICES:
        return "is that of a device of Windows, where no file can be called so"
    return "ends in a dot, which Windows leaves out" if name.endswith(".") else ""
