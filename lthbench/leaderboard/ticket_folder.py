"""The folder that `lthbench tickets fetch` writes: every ticket of an entry, for use elsewhere."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lthbench.errors import UsageError
from lthbench.io.paths import canonical_json, write_whole
from lthbench.leaderboard.board import entries
from lthbench.leaderboard.board.entries import Entry
from lthbench.leaderboard.bundle import archive, ticket_member
from lthbench.leaderboard.bundle.archive import Bundle
from lthbench.leaderboard.tickets import LoadedTicket, Zoo, allowed, opened
from lthbench.records.schema import Cell
from lthbench.report import formats, terms

OURS = re.compile(r"(seed\d+/)?\.tmp-[0-9a-f]+|seed\d+(/\d{7}\.safetensors)?")  # before the README
README = """# Tickets of {id}

{method} on {task}, from the bundle with sha256
{sha256}.

One file a ticket, `seed<k>/<density in millionths>.safetensors`: the starting weights under the
names of the network's own `state_dict` (float32), and under `mask/<name>` the masks of the prunable
ones (bool, true = kept). Weights of pruned places are there where they follow from the seed, else
they are zero. `index.json` lists the tickets with their origins, counts and digests.

```python
from safetensors.torch import load_file
from torch.nn.utils import prune

tensors = load_file("{first}")
weights = {{n: t for n, t in tensors.items() if not n.startswith("mask/")}}
network.load_state_dict(weights)
for name, mask in ((n.removeprefix("mask/"), t) for n, t in tensors.items() if n not in weights):
    module, _, parameter = name.rpartition(".")
    prune.custom_from_mask(network.get_submodule(module), parameter, mask)
```

With lthbench: `lthbench.load_ticket("{id}", seed={seed}, density={density:.4g}).network()`.
"""


@dataclass(frozen=True)
class Fetched:
    """The output of `lthbench tickets fetch`.

    Attributes:
        notes: Caveats on the entry or on some weights.
    """

    id: str
    folder: Path
    tickets: int
    seeds: tuple[int, ...]
    densities: tuple[float, ...]
    notes: tuple[str, ...]

    def text(self) -> str:
        """Return the printed text."""
        rungs = ", ".join(formats.percent(density) for density in self.densities)
        lines = [
            f"{self.id}: {self.tickets} tickets in {self.folder}",
            f"seeds {terms.listing(self.seeds)}; densities {rungs} %; README.md tells their form",
            *(f"Note: {note}" for note in self.notes),
        ]
        return "\n".join(lines)


def fetch(entry_name: str, out: Path | None = None, *, allow_private: bool = False) -> Fetched:
    """Write masks and starting weights of every ticket of an accepted entry into a folder.

    Args:
        entry_name: An entry of the board.
        out: The folder; tickets/ENTRY by default.
        allow_private: Whether its bundle may be on this machine or in a private network.

    Raises:
        UsageError: If the folder holds anything other than an earlier fetch.
        RecordError: If the entry does not exist or is not accepted, or no bundle has its digest.
        DataError: If weights of a later step require training, and the data are not prepared.
    """
    entry = entries.find(entries.load(), entry_name)
    notes = list(allowed(entry))
    folder = out or Path("tickets") / entry.id
    _check_folder(folder)
    found = opened(entry, allow_private=allow_private)
    zoo, name = Zoo(found, entry.record), entry.record.task.name
    places, rows = archive.tickets(found, name), []
    for seed, density in places:
        ticket = zoo.load(seed, density)
        file = f"seed{seed}/{ticket_member.rung_name(density)}.safetensors"
        rows.append(_write(folder / file, file, zoo.cell(seed, density), ticket))
        notes += [ticket.note] if ticket.note and ticket.note not in notes else []
    _write_index(folder, entry, found, rows, notes)
    seeds = tuple(sorted({seed for seed, _ in places}))
    densities = tuple(sorted({density for _, density in places}, reverse=True))
    return Fetched(entry.id, folder, len(rows), seeds, densities, tuple(notes))


def _check_folder(folder: Path) -> None:
    """Check that no other files are overwritten: absent, empty, or a complete or partial fetch."""
    if not folder.is_dir():
        if folder.exists() or folder.is_symlink():
            raise UsageError(f"--out {folder}: is a file; name another folder")
        return
    if _is_fetch(folder / "index.json"):
        return
    for path in folder.rglob("*"):
        if not OURS.fullmatch(path.relative_to(folder).as_posix()):
            raise UsageError(
                f"--out {folder}: holds {path.relative_to(folder)}, which no fetch wrote; name an "
                "empty or a new folder"
            )


def _is_fetch(index: Path) -> bool:
    try:
        table = json.loads(index.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(table, dict) and {"entry", "bundle", "tickets"} <= table.keys()


def _write(path: Path, file: str, cell: Cell, ticket: LoadedTicket) -> dict[str, Any]:
    """Write one ticket's file and return its line of the index."""
    from lthbench.io import messages

    row = {
        "task": ticket.task,
        "seed": ticket.seed,
        "density": ticket.density,
        "kept": cell.kept,
        "origin": ticket.origin,
        "start": ticket.start,
        "trained": ticket.trained,
        "masks": cell.masks,
        "weights": cell.weights,
        "note": ticket.note,
    }
    tensors = {**ticket.state_dict, **messages.prefixed("mask", ticket.masks)}
    write_whole(path, messages.dumps(row, tensors))
    return {"file": file, **row}


def _write_index(
    folder: Path,
    entry: Entry,
    found: Bundle,
    rows: Sequence[Mapping[str, Any]],
    notes: Sequence[str],
) -> None:
    """Write README and index; the index comes last, as the sign of completeness."""
    last = rows[-1]
    told = README.format(
        id=entry.id,
        method=entry.record.method.name,
        task=entry.record.task.name,
        sha256=found.sha256,
        first=last["file"],
        seed=last["seed"],
        density=last["density"],
    )
    write_whole(folder / "README.md", told.encode())
    index = {
        "entry": entry.id,
        "record": entry.digest,
        "bundle": found.sha256,
        "task": entry.record.task.name,
        "task_digest": entry.record.task.digest,
        "notes": list(notes),
        "tickets": list(rows),
    }
    write_whole(folder / "index.json", canonical_json(index))
