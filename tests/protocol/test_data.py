"""Examples: what is split from what, by which seed, and what a wrong or missing file ends in."""

from __future__ import annotations

import hashlib
import http.server
import itertools
import json
import re
import shutil
import sys
import tarfile
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lthbench import seeds
from lthbench.errors import DataError
from lthbench.evaluation import trainings
from lthbench.io.paths import data_folder, shipped
from lthbench.protocol import datasets, test_split
from lthbench.protocol.datasets import Bytes, Examples
from lthbench.protocol.task import Task, load_task
from tests import commands
from tests.strategies import moderate

DIGITS, MNIST = load_task("mlp-digits"), load_task("lenet300-mnist")
SUMS = [load_task("mlp-modadd59"), load_task("transformer-modadd59")]
CIFAR, IMAGENETTE = load_task("resnet20-cifar10"), load_task("vit-tiny-imagenette")
SIGNALS = load_task("mlp-mnist1d")


NUMBERS = (1440764, 2102040, 2979186, 3000684, 3028079, 3394916, 3417042, 3425413, 3445777, 3888257)
WNIDS = [f"n{number:08d}" for number in NUMBERS]  # Imagenette's classes in WordNet


def cifar10() -> bool:
    """Whether there is a local copy of CIFAR-10."""
    folder = data_folder()
    return folder is not None and (folder / "uoft-cs" / "cifar10").is_dir()


def rows(examples: Examples) -> Counter[bytes]:
    """The examples as a multiset: an image may be there twice."""
    pairs = zip(examples.x, examples.y, strict=True)
    return Counter(x.tobytes() + bytes([y]) for x, y in pairs)


@pytest.fixture(scope="module")
def decoded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with the digits, made once."""
    folder = tmp_path_factory.mktemp("decoded")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LTHBENCH_CACHE", str(folder))
        assert not datasets.prepared(DIGITS)
        datasets.prepare(DIGITS, download=False)
        assert datasets.prepared(DIGITS)
    return folder


@pytest.fixture
def digits(decoded: Path, cache: Path) -> Path:
    """The digits' folder in a cache of this test's own."""
    shutil.copytree(decoded, cache)
    return cache / "data" / "digits"


# --- digits --------------------------------------------------------------------------------


def test_digits_are_the_package_s_own(digits: Path) -> None:
    from sklearn.datasets import load_digits

    loaded: Any = load_digits()
    whole = rows(Examples(loaded.data.astype(np.uint8), loaded.target.astype(np.uint8)))
    tests = [test_split.test_examples(DIGITS, seed) for seed in range(5)]
    assert sum((rows(test) for test in tests), Counter()) == whole
    for fold, test in enumerate(tests):
        train = datasets.read(DIGITS, f"fold{fold}.train")
        assert rows(train) + rows(test) == whole
        assert train.x.dtype == train.y.dtype == np.uint8
        assert train.x.shape == (len(train.y), 64) and train.x.max() == 16


def test_digit_folds_are_stratified(digits: Path) -> None:
    counts = np.array(
        [np.bincount(test_split.test_examples(DIGITS, fold).y, minlength=10) for fold in range(5)]
    )
    assert np.ptp(counts, axis=0).max() <= 1
    assert counts.sum() == 1797


@pytest.mark.parametrize("seed", [0, 3, 8, 1000, 1004])
def test_a_seed_searches_on_the_other_folds_alone(seed: int, digits: Path) -> None:
    search = datasets.search(DIGITS, seed)
    fold = datasets.read(DIGITS, f"fold{seed % 5}.train")
    assert rows(search.train) + rows(search.held_out) == rows(fold)
    assert len(search.held_out.y) == round(0.1 * len(fold.y))
    test = test_split.test_examples(DIGITS, seed)
    assert rows(test) == rows(datasets.read(DIGITS, f"fold{seed % 5}.test"))


def test_seeds_of_one_fold_hold_out_different_digits(digits: Path) -> None:
    first, again, other = (datasets.search(DIGITS, seed) for seed in (0, 0, 5))
    assert np.array_equal(first.held_out.x, again.held_out.x)
    assert np.array_equal(first.train.x, again.train.x)
    assert rows(first.held_out) != rows(other.held_out)


# --- modular addition ----------------------------------------------------------------------


@pytest.mark.parametrize("task", SUMS, ids=lambda task: task.name)
@pytest.mark.parametrize("seed", [0, 1000])
def test_sums_are_split_by_unordered_pairs(task: Task, seed: int) -> None:
    parts = datasets.modular_addition(task, seed)
    pairs = [{tuple(map(int, pair)) for pair in part.x} for part in parts]
    assert [len(p) for p in pairs] == [len(part.y) for part in parts]
    assert sum(len(p) for p in pairs) == len(set.union(*pairs)) == 59 * 59
    assert all((b, a) in p for p in pairs for a, b in p)
    unordered = [len({frozenset(pair) for pair in p}) for p in pairs]
    trained = round(task.data.train_fraction * 1770)
    held = round(0.1 * (1770 - trained))
    assert unordered == [trained, held, 1770 - trained - held]


@pytest.mark.parametrize("task", SUMS, ids=lambda task: task.name)
def test_search_and_test_are_parts_of_one_table(task: Task) -> None:
    train, held_out, test = datasets.modular_addition(task, 7)
    search = datasets.search(task, 7)
    assert rows(search.train) == rows(train) and rows(search.held_out) == rows(held_out)
    assert rows(test_split.test_examples(task, 7)) == rows(test)


def table(seed: int) -> Bytes:
    """Every label by its two tokens."""
    whole = np.zeros((59, 59), dtype=np.uint8)
    for part in datasets.modular_addition(SUMS[0], seed):
        whole[part.x[:, 0], part.x[:, 1]] = part.y
    return whole


@moderate
@given(seed=st.integers(0, 2000))
def test_labels_are_sums_under_hidden_names(seed: int) -> None:
    whole = table(seed)
    tokens = np.argsort(seeds.generator(seed, "split", "tokens").permutation(59))
    labels = np.argsort(seeds.generator(seed, "split", "labels").permutation(59))
    assert np.array_equal(labels[whole], (tokens[:, None] + tokens[None, :]) % 59)
    plain = (np.arange(59)[:, None] + np.arange(59)[None, :]) % 59
    assert np.mean(whole == plain) < 0.1


def test_the_structure_shows_without_the_names() -> None:
    """Going from one row of the table to another is a step around a circle of 59."""
    whole = table(3)
    assert np.array_equal(whole, whole.T)
    for other in range(1, 59):
        step = whole[other][np.argsort(whole[0])]  # label in row 0 to label in this row
        at, length = step[0], 1
        while at != 0:
            at, length = step[at], length + 1
        assert length == 59


def test_seeds_draw_other_sums_and_other_names() -> None:
    first, again, other = (datasets.modular_addition(SUMS[0], seed) for seed in (0, 0, 1))
    assert all(np.array_equal(a.x, b.x) for a, b in zip(first, again, strict=True))
    assert rows(first[0]) != rows(other[0])
    assert not np.array_equal(table(0), table(1))


# --- files that are not there, or not what they should be ----------------------------------


def message(caught: pytest.ExceptionInfo[DataError]) -> str:
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_the_search_needs_no_test_file(digits: Path) -> None:
    (digits / "fold2.test.safetensors").unlink()
    assert len(datasets.search(DIGITS, 2).train.y) > 1000
    with pytest.raises(DataError, match=r"fold2\.test\.safetensors.*data prepare") as caught:
        test_split.test_examples(DIGITS, 2)
    assert message(caught).startswith("mlp-digits")
    assert not datasets.prepared(DIGITS)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def scribble(path: Path) -> None:
    path.write_bytes(b"\xff" * 100)


@pytest.mark.parametrize("damage", [truncate, empty, scribble])
def test_a_damaged_file_is_named_with_what_to_do(
    damage: Callable[[Path], None], digits: Path
) -> None:
    damage(digits / "fold0.train.safetensors")
    with pytest.raises(DataError, match="damaged") as caught:
        datasets.search(DIGITS, 0)
    text = message(caught)
    assert "fold0.train.safetensors" in text and "lthbench data prepare mlp-digits" in text
    with pytest.raises(DataError, match="damaged"):
        datasets.verify(DIGITS)


def test_a_wrong_fingerprint_names_both(digits: Path) -> None:
    path = digits / "fold0.train.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(DataError) as caught:
        datasets.search(DIGITS, 0)
    text = message(caught)
    expected = DIGITS.data.fingerprints["fold0.train.x"]
    swapped = DIGITS.data.fingerprints["fold0.train.y"]
    assert expected[:16] in text or swapped[:16] in text
    assert "has fingerprint" in text and "data prepare mlp-digits" in text


def test_a_file_of_another_part_is_refused(digits: Path) -> None:
    (digits / "fold1.test.safetensors").replace(digits / "fold1.train.safetensors")
    with pytest.raises(DataError) as caught:
        datasets.search(DIGITS, 1)
    fingerprints = DIGITS.data.fingerprints
    assert fingerprints["fold1.train.x"][:16] in message(caught)
    assert fingerprints["fold1.test.x"][:16] in message(caught)


def test_verify_reads_every_part(digits: Path) -> None:
    datasets.verify(DIGITS)
    truncate(digits / "fold4.test.safetensors")
    with pytest.raises(DataError, match=r"fold4\.test"):
        datasets.verify(DIGITS)


def test_prepare_does_nothing_twice(digits: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in digits.iterdir()}
    datasets.prepare(DIGITS, download=False)
    assert {path: path.stat().st_mtime_ns for path in digits.iterdir()} == before
    assert len(before) == len(datasets.parts(DIGITS)) == 10


@pytest.mark.parametrize("task", SUMS, ids=lambda task: task.name)
def test_generated_sources_need_no_file(task: Task, cache: Path) -> None:
    assert datasets.parts(task) == () and datasets.prepared(task)
    datasets.prepare(task, download=False)
    datasets.verify(task)
    datasets.search(task, 0)
    assert not cache.exists()


# --- sources on the Hub --------------------------------------------------------------------


def test_what_was_never_prepared_says_how(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LTHBENCH_DATA", raising=False)
    for call in (
        lambda: datasets.search(MNIST, 0),
        lambda: test_split.test_examples(MNIST, 0),
        lambda: datasets.prepare(MNIST, download=False),
    ):
        with pytest.raises(DataError, match="run `lthbench data prepare lenet300-mnist`") as caught:
            call()
        message(caught)
    assert "datasets" not in sys.modules or not cache.exists()


def test_a_local_copy_that_is_not_there(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LTHBENCH_DATA", str(tmp_path))
    with pytest.raises(DataError, match=r"ylecun/mnist: not there; LTHBENCH_DATA"):
        datasets.prepare(MNIST, download=True)


class BrokenData(Exception):
    """In place of datasets' own, which is no ValueError either."""


class Hub:
    """In place of the `datasets` package: two tiny splits, or an error."""

    def __init__(self, error: Exception | None = None) -> None:
        self.asked: list[str] = []
        self.error = error
        self.splits = {
            part: {"image": [np.full((28, 28), n) for n in range(count)], "label": [3] * count}
            for part, count in (("train", 4), ("test", 2))
        }

    def load_dataset(self, name: str) -> Any:
        self.asked.append(name)
        if self.error:
            raise self.error
        return self.splits

    def install(self, monkeypatch: pytest.MonkeyPatch) -> Hub:
        fake = SimpleNamespace(
            load_dataset=self.load_dataset,
            disable_progress_bars=lambda: None,
            exceptions=SimpleNamespace(DatasetsError=BrokenData),
        )
        monkeypatch.setitem(sys.modules, "datasets", fake)
        monkeypatch.delenv("LTHBENCH_DATA", raising=False)
        return self


def test_without_a_network_the_reason_is_told(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub(ConnectionError("cannot reach the Hub\nfor a long reason")).install(monkeypatch)
    with pytest.raises(DataError, match=r"cannot reach the Hub.*check the network") as caught:
        datasets.prepare(MNIST, download=True)
    assert "long reason" not in message(caught)
    assert hub.asked == ["ylecun/mnist"]


def test_a_damaged_copy_is_told(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Hub(BrokenData("An error occurred while generating the dataset")).install(monkeypatch)
    with pytest.raises(DataError, match=r"cannot be loaded.*while generating"):
        datasets.prepare(MNIST, download=True)


def test_another_data_set_under_the_same_name_is_refused(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Hub().install(monkeypatch)
    with pytest.raises(DataError, match=r"train\.x has fingerprint") as caught:
        datasets.prepare(MNIST, download=True)
    assert MNIST.data.fingerprints["train.x"][:16] in message(caught)
    assert not datasets.prepared(MNIST) and not list(cache.rglob("*.safetensors"))


def test_cifar10_s_images_have_another_column(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub().install(monkeypatch)
    for split in hub.splits.values():
        split["img"] = [np.full((32, 32, 3), n) for n in range(len(split.pop("image")))]
    with pytest.raises(DataError, match=r"train\.x has fingerprint"):
        datasets.prepare(CIFAR, download=True)
    assert hub.asked == ["uoft-cs/cifar10"]


def test_a_hub_source_is_split_once_for_all_seeds(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = Hub().install(monkeypatch)
    prints = {
        f"{part}.{key}": datasets.fingerprint(np.asarray(split[column], dtype=np.uint8))
        for part, split in hub.splits.items()
        for key, column in (("x", "image"), ("y", "label"))
    }
    changed = {"fingerprints": prints, "held_out": 1}
    task = MNIST.model_copy(update={"data": MNIST.data.model_copy(update=changed)})
    datasets.prepare(task, download=True)
    first, other = datasets.search(task, 0), datasets.search(task, 1000)
    assert rows(first.held_out) == rows(other.held_out)
    assert (len(first.train.y), len(first.held_out.y)) == (3, 1)
    assert rows(first.train) + rows(first.held_out) == rows(datasets.read(task, "train"))
    assert len(test_split.test_examples(task, 5).y) == 2


@pytest.mark.skipif(not cifar10(), reason="LTHBENCH_DATA holds no uoft-cs/cifar10")
@pytest.mark.slow
def test_cifar10_is_cifar10(cache: Path) -> None:
    datasets.prepare(CIFAR, download=False)
    search, test = datasets.search(CIFAR, 0), test_split.test_examples(CIFAR, 0)
    assert search.train.x.shape == (45000, 32, 32, 3)
    assert (search.held_out.x.shape, test.x.shape) == ((5000, 32, 32, 3), (10000, 32, 32, 3))
    assert np.bincount(np.concatenate([search.train.y, search.held_out.y])).tolist() == [5000] * 10
    means = search.train.x.mean((0, 1, 2)) / 255
    assert means == pytest.approx([0.4914, 0.4822, 0.4465], abs=0.002)


# --- Imagenette ----------------------------------------------------------------------------


def imagenette(folder: Path, each: int = 1) -> Path:
    """A folder of Imagenette's layout: pictures of one colour a class, of several sizes."""
    from PIL import Image

    sizes = itertools.cycle([(160, 213), (240, 160), (160, 160), (81, 80)])
    for split, number in itertools.product(("train", "val"), range(each)):
        for label, wnid in enumerate(WNIDS):
            place = folder / "imagenette2-160" / split / wnid
            place.mkdir(parents=True, exist_ok=True)
            colour = (20 * label, 255 - 20 * label, 100 + number)
            name = f"ILSVRC2012_{split}_{number:08d}.JPEG"
            Image.new("RGB", next(sizes), colour).save(place / name, quality=95)
    return folder


def test_pictures_are_squares_in_the_order_of_their_classes(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LTHBENCH_DATA", str(imagenette(tmp_path / "data", 2)))
    datasets.prepare(IMAGENETTE, download=False)
    train, test = datasets.read(IMAGENETTE, "train"), datasets.read(IMAGENETTE, "test")
    assert train.x.shape == test.x.shape == (20, 160, 160, 3)
    assert train.y.tolist() == [label for label in range(10) for _ in range(2)]
    assert np.abs(train.x[:, ..., 0].mean((1, 2)) - 20.0 * train.y).max() < 4
    search = datasets.search(IMAGENETTE, 0)
    assert (len(search.train.y), len(search.held_out.y)) == (18, 2)
    assert len(test_split.test_examples(IMAGENETTE, 0).y) == 20


def test_the_middle_square_is_kept() -> None:
    from PIL import Image

    wide = np.zeros((160, 320, 3), dtype=np.uint8)
    wide[:, 80:240] = 200  # the middle
    assert (datasets._square(Image.fromarray(wide)) == 200).all()
    assert (datasets._square(Image.fromarray(wide.transpose(1, 0, 2))) == 200).all()
    assert datasets._square(Image.fromarray(wide[:81, :100])).shape == (160, 160, 3)


def test_without_fingerprints_the_first_preparation_is_the_measure(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = imagenette(tmp_path / "data", 2)
    monkeypatch.setenv("LTHBENCH_DATA", str(folder))
    datasets.prepare(IMAGENETTE, download=False)
    datasets.verify(IMAGENETTE)
    place = cache / "data" / "imagenette"
    (place / "test.safetensors").unlink()
    next((folder / "imagenette2-160" / "val" / WNIDS[3]).iterdir()).unlink()
    with pytest.raises(DataError, match=r"test\.x has fingerprint") as caught:
        datasets.prepare(IMAGENETTE, download=False)
    message(caught)
    (place / "train.safetensors").write_bytes((place / "train.safetensors").read_bytes()[:-1])
    with pytest.raises(DataError, match="damaged"):
        datasets.read(IMAGENETTE, "train")
    (place / "first-fingerprints.json").write_text("[")
    with pytest.raises(DataError, match=r"first-fingerprints\.json: damaged"):
        datasets.prepare(IMAGENETTE, download=False)


class Silent(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Nothing: the default writes to standard error."""


def test_the_archive_of_imagenette_is_fetched_and_unpacked(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From this machine, by its own server; what it was unpacked into is gone afterwards."""
    from torchvision.datasets import Imagenette

    packed = tmp_path / "imagenette2-160.tgz"
    with tarfile.open(packed, "w:gz") as archive:
        archive.add(imagenette(tmp_path / "whole") / "imagenette2-160", "imagenette2-160")
    monkeypatch.delenv("LTHBENCH_DATA", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with pytest.raises(DataError, match="not prepared"):
        datasets.prepare(IMAGENETTE, download=False)
    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(Silent, directory=tmp_path)
    ) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/{packed.name}"
        monkeypatch.setitem(Imagenette._ARCHIVES, "160px", (address, "0" * 32))
        try:
            with pytest.raises(DataError, match=r"cannot be loaded \(File not found or corrupted"):
                datasets.prepare(IMAGENETTE, download=True)
            right = hashlib.md5(packed.read_bytes()).hexdigest()
            monkeypatch.setitem(Imagenette._ARCHIVES, "160px", (address, right))
            datasets.prepare(IMAGENETTE, download=True)
        finally:
            server.shutdown()
    assert datasets.read(IMAGENETTE, "train").x.shape == (10, 160, 160, 3)
    assert len(datasets.read(IMAGENETTE, "test").y) == 10
    assert not list((cache / "data").rglob(".tmp-*"))
    assert not list((cache / "data").rglob("*.JPEG"))


def test_a_copy_of_imagenette_that_is_not_there(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LTHBENCH_DATA", str(tmp_path))
    with pytest.raises(DataError, match=r"imagenette2-160: not there.*n01440764") as caught:
        datasets.prepare(IMAGENETTE, download=True)
    message(caught)
    monkeypatch.delenv("LTHBENCH_DATA")
    with pytest.raises(DataError, match="run `lthbench data prepare vit-tiny-imagenette`"):
        datasets.prepare(IMAGENETTE, download=False)
    (tmp_path / "imagenette2-160").mkdir()
    monkeypatch.setenv("LTHBENCH_DATA", str(tmp_path))
    with pytest.raises(DataError, match="Imagenette cannot be loaded"):
        datasets.prepare(IMAGENETTE, download=False)


@pytest.mark.slow
def test_five_steps_on_pictures_through_the_command(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twenty pictures, a small transformer, five steps: find, score and report."""
    small = {
        'name = "vit-tiny-imagenette"': 'name = "mine"',
        "depth = 12": "depth = 1",
        "width = 192": "width = 12",
        "hidden = 768": "hidden = 12",
        "warm_up = 99": "warm_up = 1",
        "steps = 1980": "steps = 5",
        "batch = 256": "batch = 4",
        "every = 99": "every = 5",
        "rewind_limit = 99": "rewind_limit = 0",
    }
    text = (shipped("tasks") / "vit-tiny-imagenette.toml").read_text()
    for old, new in small.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    text = text.partition("[transfer]")[0]  # the last table
    text = re.sub(r"^trained = .*", "trained = [0.2097152]", text, flags=re.M)
    (tmp_path / "mine.toml").write_text(text)
    monkeypatch.setenv("LTHBENCH_DATA", str(imagenette(tmp_path / "data")))
    arguments = ["evaluate", "random", "--seeds", "1", "--task", "mine.toml", "--out", "out"]
    done = commands.run(*arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    cells = json.loads((tmp_path / "out" / "mine" / "record.json").read_text())["cells"]
    assert {"dense", "ticket"} <= {cell["kind"] for cell in cells}
    assert all("status" not in cell for cell in cells)  # left out where it is "ok"


# --- the real files ------------------------------------------------------------------------


@pytest.mark.mnist
@pytest.mark.slow
def test_mnist_is_mnist(cache: Path) -> None:
    datasets.prepare(MNIST, download=False)
    search, test = datasets.search(MNIST, 0), test_split.test_examples(MNIST, 0)
    assert search.train.x.shape == (55000, 28, 28)
    assert (search.held_out.x.shape, test.x.shape) == ((5000, 28, 28), (10000, 28, 28))
    labels = np.concatenate([search.train.y, search.held_out.y])
    published = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.bincount(labels).tolist() == published
    assert np.bincount(test.y).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    whole = rows(search.train) + rows(search.held_out)
    assert whole == rows(datasets.read(MNIST, "train"))
    assert search.train.x.mean() / 255 == pytest.approx(0.1307, abs=0.001)


def test_mnist1d_is_what_its_authors_published() -> None:
    """Digests of their file (github.com/greydanus/mnist1d, mnist1d_data.pkl), rounded to 1/4096."""
    parts = dict(datasets._mnist1d(SIGNALS, False))
    assert {part: (e.x.shape, e.x.dtype.name) for part, e in parts.items()} == {
        "train": ((4000, 40), "int16"),
        "test": ((1000, 40), "int16"),
    }
    found = {
        f"{part}.{name}": datasets.fingerprint(getattr(examples, name))
        for part, examples in parts.items()
        for name in ("x", "y")
    }
    assert found == SIGNALS.data.fingerprints
    labels = np.concatenate([examples.y for examples in parts.values()])
    assert np.bincount(labels).tolist() == [500] * 10


def test_mnist1d_is_read_as_real_numbers_of_deviation_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LTHBENCH_CACHE", str(tmp_path))
    datasets.prepare(SIGNALS, download=False)
    search = datasets.search(SIGNALS, 1000)
    assert len(search.train.y) + len(search.held_out.y) == 4000
    seen = trainings.examples(SIGNALS, search.train).inputs(slice(None))
    assert seen.shape == (3600, 40) and seen.dtype == torch.float32
    assert abs(float(seen.mean())) < 0.02 and abs(float(seen.std()) - 1) < 0.02


@moderate
@given(pool=st.integers(1, 4), seed=st.integers(0, 100))
def test_pooled_images_are_rounded_means(pool: int, seed: int) -> None:
    images = np.random.default_rng(seed).integers(0, 256, (2, 12, 12, 3)).astype(np.uint8)
    found = datasets.pooled(images, pool)
    assert found.dtype == np.uint8 and found.shape == (2, 12 // pool, 12 // pool, 3)
    for i, j in itertools.product(range(12 // pool), repeat=2):
        square = images[:, i * pool : (i + 1) * pool, j * pool : (j + 1) * pool]
        assert np.array_equal(found[:, i, j], np.floor(square.mean((1, 2)) + 0.5))
