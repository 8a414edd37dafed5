"""What ships is what git tracks, and it works far from the checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

from lthbench.io import paths

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SHIPPED = ("tasks", "baselines", "leaderboard")

# What an installed lthbench must do, from a folder of its own.
COMMANDS = (
    ("tasks",),
    ("cite",),
    ("evaluate", "erk", "--task", "tiny-digits.toml", "--seeds", "1", "--out", "out"),
)


def run(*command: object, cwd: Path, **environment: str) -> str:
    """Run a command to its end, without the checkout on its import path; returns its output."""
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**inherited, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def tracked() -> set[str]:
    """The files of this checkout that git tracks."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout: nothing to compare with")
    return set(run("git", "ls-files", "-z", cwd=ROOT).split("\0")) - {""}


def place(file: str) -> str:
    """Where a file of the checkout lies in the wheel."""
    return f"lthbench/_share/{file}" if file.split("/")[0] in SHIPPED else file


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The wheel built from the tree, the sdist, and the wheel built from that sdist."""
    folder = tmp_path_factory.mktemp("built")
    build = (sys.executable, "-m", "build", "--no-isolation", "--outdir")
    run(*build, folder / "tree", "--wheel", ROOT, cwd=folder)
    run(*build, folder / "sdist", ROOT, cwd=folder)
    return {
        "tree": next((folder / "tree").glob("*.whl")),
        "archive": next((folder / "sdist").glob("*.tar.gz")),
        "sdist": next((folder / "sdist").glob("*.whl")),
    }


@pytest.mark.slow
def test_the_wheel_holds_what_git_tracks(built: dict[str, Path]) -> None:
    """No file is forgotten, and none that lay about in the tree goes along."""
    with zipfile.ZipFile(built["tree"]) as wheel:
        members = {name for name in wheel.namelist() if ".dist-info/" not in name}
    shipped = {f for f in tracked() if f.split("/")[0] in ("lthbench", *SHIPPED)}
    expected = {place(f) for f in shipped if not f.startswith("leaderboard/archive/")}
    assert sorted(members ^ expected) == []


@pytest.mark.slow
def test_the_sdist_holds_what_git_tracks(built: dict[str, Path]) -> None:
    """From it the wheel can be built and the tests can be run."""
    with tarfile.open(built["archive"]) as archive:
        members = {member.name.partition("/")[2] for member in archive if member.isfile()}
    assert sorted(members ^ (tracked() | {"PKG-INFO"})) == []


@pytest.mark.slow
def test_the_wheel_of_the_sdist_is_that_of_the_tree(built: dict[str, Path]) -> None:
    """Every file of it; what one does when it is installed, the other does."""
    with zipfile.ZipFile(built["tree"]) as tree, zipfile.ZipFile(built["sdist"]) as sdist:
        assert [(m.filename, m.CRC) for m in tree.infolist()] == [
            (m.filename, m.CRC) for m in sdist.infolist()
        ]


@pytest.mark.slow
def test_an_installed_wheel_works_from_anywhere(built: dict[str, Path], tmp_path: Path) -> None:
    """Installed alone; only its dependencies come from the environment of the tests."""
    home, away = tmp_path / "venv", tmp_path / "away"
    away.mkdir()
    shutil.copy(ROOT / "tests" / "tasks" / "tiny-digits.toml", away)
    venv.create(home, with_pip=False, symlinks=os.name != "nt")
    base = {"base": str(home), "platbase": str(home), "installed_base": sys.base_prefix}
    scripts = Path(sysconfig.get_path("scripts", "venv", base))
    site = Path(sysconfig.get_path("purelib", "venv", base))
    pip = (sys.executable, "-m", "pip", "--python", scripts / "python", "install")
    run(*pip, "--quiet", "--no-index", "--no-deps", built["tree"], cwd=away)

    # Last, so that pip does not see an editable lthbench there.
    lenders = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (site / "dependencies.pth").write_text("\n".join(sorted(lenders)) + "\n", encoding="utf-8")

    find = "from lthbench.io.paths import shipped; print(shipped('tasks'))"
    assert Path(run(scripts / "python", "-c", find, cwd=away).strip()).is_relative_to(site)
    for command in COMMANDS:
        run(scripts / "lthbench", *command, cwd=away, LTHBENCH_CACHE=str(tmp_path / "cache"))


def test_an_editable_install_sees_the_checkout(tmp_path: Path) -> None:
    """Without ``dev-mode-dirs`` hatchling refuses to make one, because of the remapped folders."""
    make = f"from hatchling.build import build_editable; build_editable({str(tmp_path)!r})"
    run(sys.executable, "-c", make, cwd=ROOT)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        pointers = [name for name in wheel.namelist() if name.endswith(".pth")]
        assert [wheel.read(name).decode().strip() for name in pointers] == [str(ROOT)]


def test_every_remapped_folder_is_one_that_shipped_finds() -> None:
    """The packaging and the resolver tell the same places."""
    remap = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["sources"]
    assert remap == {kind: f"lthbench/_share/{kind}" for kind in SHIPPED}
    for kind in ("tasks", "baselines", "leaderboard"):
        assert paths.shipped(kind) == ROOT / kind


def test_the_citation_names_the_version() -> None:
    """Two files tell the version; they agree."""
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {PROJECT['project']['version']}\n" in citation
