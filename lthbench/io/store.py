"""Costly results on disk, addressed by their inputs, and the calls that asked for them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from lthbench.errors import MethodError, ResourceError
from lthbench.io import messages
from lthbench.io.paths import canonical_json, digest, write_whole


def key(**parts: object) -> str:
    """Return the address of a result: sha256 of everything that it depends on."""
    return digest(canonical_json(parts))


class Store:
    """A folder of results, each written atomically under its key."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, name: str) -> Path:
        """Return the file of a result."""
        return self.folder / f"{name}.safetensors"

    def get(self, name: str) -> messages.Message | None:
        """Return the result stored under a key, or None."""
        try:
            return messages.loads(self.path(name).read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, messages.WireError) as error:
            raise ResourceError(
                f"{self.path(name)}: damaged ({error}); delete it and run the same command again"
            ) from error

    def put(self, name: str, header: object, tensors: messages.Tensors | None = None) -> None:
        """Store a result atomically."""
        write_whole(self.path(name), messages.dumps(header, tensors))

    def drop(self, name: str) -> None:
        """Delete one result."""
        self.path(name).unlink(missing_ok=True)


class Log:
    """The sequence of a seed's calls, by key; a re-run must repeat it.

    Calls are held in memory and written by `save`, always before anything that depends on them.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.keys = self._read()
        self.position = 0

    def _read(self) -> list[str]:
        try:
            return [str(name) for name in json.loads(self.path.read_bytes())]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, TypeError) as error:
            raise ResourceError(
                f"{self.path}: damaged ({error}); delete it and run the same command again"
            ) from error

    def call(self, name: str) -> None:
        """Record the next call; MethodError if the first run made a different one here."""
        if self.position < len(self.keys):
            if self.keys[self.position] != name:
                raise self._differs()
        else:
            self.keys.append(name)
        self.position += 1

    def end(self) -> None:
        """Record that no call follows; MethodError if the first run made more."""
        if self.position < len(self.keys):
            raise self._differs()
        self.save()

    def _differs(self) -> MethodError:
        return MethodError(
            f"call {self.position + 1} differs on replay: find_tickets must be deterministic; "
            "draw from problem.generator(name), pass to problem.loop what its body changes, and on "
            "a GPU use deterministic operations"
        )

    def save(self) -> None:
        """Write the sequence atomically."""
        write_whole(self.path, canonical_json(self.keys))


def discard(folder: Path) -> None:
    """Delete a folder of results that are no longer needed."""
    shutil.rmtree(folder, ignore_errors=True)
