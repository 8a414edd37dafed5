"""Names that become files and folders, valid on every system that may check them out."""

from __future__ import annotations

import re

METHOD = re.compile("[A-Za-z0-9][A-Za-z0-9_.-]{0,60}")  # as records and folders accept it
# Windows opens a device under these names, in any folder and with any suffix.
DEVICES = frozenset(("con", "prn", "aux", "nul", "conin$", "conout$", "clock$")) | {
    f"{port}{n}" for port in ("com", "lpt") for n in "0123456789"
}


def fault(name: str) -> str:
    """Return why a method may not have this name, as the end of a sentence; "" if it may."""
    if not METHOD.fullmatch(name):
        return "needs a letter or digit, then at most 60 letters, digits, - _ or ."
    return reserved(name)


def reserved(name: str) -> str:
    """Return why some system refuses a file of that name, whatever its suffix; "" if none does."""
    if name.partition(".")[0].casefold() in DEVICES:
        return "is that of a device of Windows, where no file can be called so"
    return "ends in a dot, which Windows leaves out" if name.endswith(".") else ""
