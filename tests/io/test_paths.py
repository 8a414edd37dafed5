"""Where files are found, how they are written whole, and the errors that say why not."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lthbench import errors
from lthbench.io import paths

ROOT = Path(__file__).resolve().parents[2]

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner),
)


def tree(error: type[errors.LthbenchError]) -> list[type[errors.LthbenchError]]:
    """An exception and all that descend from it."""
    return [error, *(found for child in error.__subclasses__() for found in tree(child))]


def test_the_drawing_of_the_errors_is_true() -> None:
    """Each exception stands in the docstring beside the exit code it ends in."""
    drawn = {
        words[0]: int(words[1])
        for line in (errors.__doc__ or "").splitlines()
        if len(words := line.lstrip("│├└─ ").split()) > 1 and words[1].isdigit()
    }
    assert drawn == {error.__name__: error.exit_code for error in tree(errors.LthbenchError)}


def test_nearest_suggests_what_was_meant() -> None:
    """A slip of the finger or of the case is put right; a stranger is not."""
    assert errors.nearest("momentun", ["momentum", "rate"]) == " (did you mean momentum?)"
    assert errors.nearest("IMP", ["imp", "snip"]) == " (did you mean imp?)"
    assert errors.nearest("zebra", ["momentum", "rate"]) == ""
    assert errors.nearest("momentum", []) == ""


def test_where_test_examples_may_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Hub's library keeps the test split of all that it loads, from a local copy too."""
    for name in ("HF_HOME", "HF_DATASETS_CACHE", "HF_HUB_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LTHBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LTHBENCH_DATA", str(tmp_path / "gone"))
    cache, hub = paths.data_folders()
    assert (cache, hub) == (tmp_path / "cache", Path.home() / ".cache" / "huggingface")
    monkeypatch.setenv("LTHBENCH_DATA", str(tmp_path))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_DATASETS_CACHE", "kept")
    assert set(paths.data_folders()) == {
        cache, tmp_path, tmp_path / "home", Path.cwd() / "kept"
    }  # fmt: skip


def test_data_files_are_found_in_the_checkout() -> None:
    """Beside pyproject.toml."""
    assert paths.shipped("tasks") == ROOT / "tasks"


def test_data_files_are_found_in_an_installed_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Inside the package, even where a pyproject.toml lies beside it."""
    monkeypatch.setattr(paths, "PACKAGE", tmp_path / "lthbench")
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "lthbench" / "_share" / "tasks").mkdir(parents=True)
    assert paths.shipped("tasks") == tmp_path / "lthbench" / "_share" / "tasks"


def test_a_broken_installation_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither place exists."""
    monkeypatch.setattr(paths, "PACKAGE", tmp_path / "lthbench")
    with pytest.raises(errors.LthbenchError, match="installation is incomplete"):
        paths.shipped("baselines")


def test_the_cache_is_where_the_user_says(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Absolute, since other processes have other working folders; empty means unset."""
    assert paths.cache() == cache
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LTHBENCH_CACHE", "here")
    assert paths.cache() == tmp_path / "here"
    monkeypatch.setenv("LTHBENCH_CACHE", "")
    assert paths.cache().is_absolute()
    assert "lthbench" in paths.cache().parts
    assert not paths.cache().is_relative_to(tmp_path)


def test_the_data_folder_is_named_or_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that leads nowhere is a mistake, not the same as none."""
    monkeypatch.delenv("LTHBENCH_DATA", raising=False)
    assert paths.data_folder() is None
    monkeypatch.setenv("LTHBENCH_DATA", str(tmp_path))
    assert paths.data_folder() == tmp_path
    monkeypatch.setenv("LTHBENCH_DATA", str(tmp_path / "absent"))
    with pytest.raises(errors.ResourceError, match="no such folder; unset it"):
        paths.data_folder()


def test_a_file_is_written_whole(tmp_path: Path) -> None:
    """Folders are made, an old file is replaced, nothing else is left."""
    path = tmp_path / "a" / "b" / "record.json"
    paths.write_whole(path, b"old")
    paths.write_whole(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.skipif(os.name == "nt", reason="permission bits are those of POSIX")
def test_a_written_file_has_ordinary_permissions(tmp_path: Path) -> None:
    """Those that the user's umask gives to any file: a shared folder stays shared."""
    paths.write_whole(tmp_path / "ours", b"")
    (tmp_path / "ordinary").touch()
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "ordinary").stat().st_mode


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (errno.ENOSPC, "the disk is full; free some space"),
        (errno.EDQUOT, "quota is used up; free some space"),
        (errno.EACCES, "permission denied; make the folder writable"),
        (errno.EROFS, "read-only; choose another folder"),
        (errno.EIO, "the device answers with an error; look at the disk"),
        (errno.ENXIO, f"{os.strerror(errno.ENXIO)}; choose another folder"),
    ],
)
def test_a_refusal_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, says: str
) -> None:
    """One line names the path, what happened and what to do; no temporary file stays."""
    path = tmp_path / "record.json"
    path.write_bytes(b"old")

    def refuse(_: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(errors.ResourceError) as caught:
        paths.write_whole(path, b"new")
    assert str(caught.value).startswith(f"{path}: cannot write: ")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("below", ["file/x", "file/deeper/x"])
def test_a_file_in_the_way_is_named(tmp_path: Path, below: str) -> None:
    """A real refusal of the file system."""
    (tmp_path / "file").touch()
    with pytest.raises(errors.ResourceError, match="part of the path is a file"):
        paths.write_whole(tmp_path / below, b"")


@pytest.mark.skipif(os.name == "nt", reason="another error on Windows")
def test_a_folder_in_the_way_is_named(tmp_path: Path) -> None:
    """A real refusal of the file system, after the temporary file was written."""
    (tmp_path / "folder" / "inner").mkdir(parents=True)
    with pytest.raises(errors.ResourceError, match="it is a folder"):
        paths.write_whole(tmp_path / "folder", b"")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


@pytest.mark.skipif(
    os.name == "nt" or os.geteuid() == 0, reason="the superuser may write everywhere"
)
def test_an_unwritable_folder_is_named(tmp_path: Path) -> None:
    """A real refusal of the file system."""
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(errors.ResourceError, match="permission denied"):
            paths.write_whole(tmp_path / "x", b"")
    finally:
        tmp_path.chmod(0o700)


def test_an_interrupt_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Control-C in the middle passes through, and the temporary file is gone."""

    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        paths.write_whole(tmp_path / "x", b"")
    assert list(tmp_path.iterdir()) == []


def test_what_a_kill_leaves_is_swept(tmp_path: Path) -> None:
    """A process that dies in the middle of a write leaves the old file and one to sweep."""
    path = tmp_path / "deep" / "record.json"
    paths.write_whole(path, b"old")
    (path.parent / ".tmp-mine").touch()
    die = (
        "import os, pathlib; from lthbench.io import paths; os.fsync = lambda _: os._exit(9); "
        f"paths.write_whole(pathlib.Path({str(path)!r}), b'new')"
    )
    assert subprocess.run([sys.executable, "-c", die], cwd=ROOT, check=False).returncode == 9
    assert len(list(path.parent.iterdir())) == 3
    assert paths.sweep(tmp_path) == 1
    assert {found.name for found in path.parent.iterdir()} == {"record.json", ".tmp-mine"}
    assert path.read_bytes() == b"old"
    assert paths.sweep(tmp_path / "absent") == 0


def test_old_temporary_files_alone_are_swept_where_others_write(tmp_path: Path) -> None:
    old, new = (tmp_path / f".tmp-{'0' * 15}{end}" for end in "12")
    for path in (old, new):
        path.touch()
        assert paths.TEMPORARY.fullmatch(path.name)
    os.utime(old, (0, 0))
    assert paths.sweep(tmp_path, older=60) == 1
    assert not old.exists() and new.exists()


def test_canonical_json_is_this() -> None:
    """The bytes are part of every digest: they must never change."""
    assert paths.canonical_json({"θ": 1, "b": [0.1, None], "a": {"d": 1e-05, "c": True}}) == (
        '{"a":{"c":true,"d":1e-05},"b":[0.1,null],"θ":1}\n'.encode()
    )


@given(VALUES)
def test_canonical_json_reads_back(value: object) -> None:
    """Nothing is lost, and what is read gives the same bytes again."""
    data = paths.canonical_json(value)
    assert json.loads(data) == value
    assert paths.canonical_json(json.loads(data)) == data
    assert data.count(b"\n") == 1


@given(st.dictionaries(st.text(st.characters(codec="utf-8")), st.integers()))
def test_canonical_json_forgets_the_order(value: dict[str, int]) -> None:
    """The order in which a dictionary was filled is no part of its value."""
    turned = dict(reversed(value.items()))
    assert paths.canonical_json(turned) == paths.canonical_json(value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_canonical_json_refuses_what_json_has_not(value: float) -> None:
    """Our bug wherever it happens, so it is no user's error."""
    with pytest.raises(ValueError, match="Out of range float"):
        paths.canonical_json({"score": value})
