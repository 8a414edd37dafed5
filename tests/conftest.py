"""What all tests share: no network, one thread, a cache of their own."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import settings

from lthbench.io import paths
from tests import forking

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports datasets; children inherit it

# A busy machine is no failure.
settings.register_profile("lthbench", deadline=None)
settings.load_profile("lthbench")


LONGEST = (
    "test_kills.py", "test_verify.py", "test_replay.py", "test_bad_input.py", "test_findings.py",
    "test_site_browser.py", "test_check.py", "test_carry.py", "test_speed_scripts.py",
)  # fmt: skip


def mnist_folder() -> Path | None:
    """The local copy of MNIST, if there is one."""
    data = paths.data_folder()
    folder = data / "ylecun" / "mnist" if data else None
    return folder if folder and folder.is_dir() else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files that take longest begin first, so that all who run tests end together."""
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))


def pytest_runtest_setup(item: pytest.Item) -> None:
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)
    if item.get_closest_marker("mnist") and mnist_folder() is None:
        pytest.skip("LTHBENCH_DATA names no folder that holds ylecun/mnist")


def pytest_runtest_call() -> None:
    """A test that trained in this process has left denormals off; hypothesis draws them."""
    if torch := sys.modules.get("torch"):
        torch.set_flush_denormal(False)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, used by this test and the processes it starts; not created yet."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("LTHBENCH_CACHE", str(folder))
    return folder


@pytest.fixture
def said(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """What a script prints, run in this process with a cache of its own."""
    monkeypatch.delenv("LTHBENCH_DATA", raising=False)

    def run(script: ModuleType, *arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", [script.__name__, *arguments])
        script.main()
        return capsys.readouterr().out

    return run


@pytest.fixture(scope="module", autouse=True)
def _forks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Processes of lthbench are forks of this one, which saves each the import of torch.

    A module whose tests are about starting, or about what a process has not imported, says
    `REAL_PROCESSES = True`.
    """
    if not forking.POSSIBLE or getattr(request.module, "REAL_PROCESSES", False):
        yield
        return
    with forking.forked():
        yield


@pytest.fixture(scope="module")
def small_lite() -> Iterator[None]:
    """The suite `lite` of boards that tests draw."""
    from tests import boards

    with boards.small_lite():
        yield
