"""Examples for the search: decoded once into fingerprinted integers, then read from the cache.

A source is split before anything else sees it: the file that the search reads holds no test
example. Test files are written here, by `prepare`, and opened by `test_split` alone.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lthbench import seeds
from lthbench.errors import DataError
from lthbench.io.paths import cache, data_folder, digest, sweep, write_whole
from lthbench.protocol.task import Task

Bytes = NDArray[np.uint8]
Inputs = NDArray[np.uint8] | NDArray[np.int16]
HUB = {"mnist": ("ylecun/mnist", "image"), "cifar10": ("uoft-cs/cifar10", "img")}
FIRST = "first-fingerprints.json"  # beside a source's files, if a task lists no fingerprints
DAY = 86_400.0  # seconds
DIGITS = (178, 182, 177, 183, 181, 182, 181, 179, 174, 180)  # examples of each class
TRAINING = {  # examples of a source's training part
    "digits": sum(DIGITS),
    "mnist1d": 4_000,
    "mnist": 60_000,
    "cifar10": 50_000,
    "imagenette": 9_469,
}
IMAGENETTE = 160  # side in pixels of the square images that are kept


@dataclass(frozen=True)
class Examples:
    """Inputs (n, ...), uint8 or (signals) int16, and labels (n,), uint8."""

    x: Inputs
    y: Bytes


@dataclass(frozen=True)
class Search:
    """All that a search may see of a task at a seed: the training part and the held-out part."""

    train: Examples
    held_out: Examples


def search(task: Task, seed: int) -> Search:
    """Return the search's examples for a seed; the test split is not read."""
    if task.data.source == "modular-addition":
        train, held_out, _ = modular_addition(task, seed)
        return Search(train, held_out)
    folds = task.data.folds
    part = f"fold{seed % folds}.train" if folds else "train"
    examples = read(task, part)
    order = seeds.generator(seed if folds else 0, "split", "held-out").permutation(len(examples.y))
    held = _held_out(task, len(examples.y))
    return Search(_take(examples, np.sort(order[held:])), _take(examples, np.sort(order[:held])))


def modular_addition(task: Task, seed: int) -> tuple[Examples, Examples, Examples]:
    """Draw the training, held-out and test pairs of a + b mod p, and rename tokens, by the seed.

    A pair and its mirror image are in the same part. Two permutations rename tokens and labels, so
    that the rule cannot be hard-coded.
    """
    p = task.data.modulus
    unordered = np.array([(a, b) for a in range(p) for b in range(a, p)])
    order = seeds.generator(seed, "split", "pairs").permutation(len(unordered))
    trained = round(task.data.train_fraction * len(order))
    held = round(task.data.held_out_fraction * (len(order) - trained))
    tokens = seeds.generator(seed, "split", "tokens").permutation(p)
    labels = seeds.generator(seed, "split", "labels").permutation(p)

    def both_ways(chosen: NDArray[np.int64]) -> Examples:
        pairs = unordered[np.sort(chosen)]
        mirrored = pairs[pairs[:, 0] != pairs[:, 1]][:, ::-1]
        pairs = np.concatenate([pairs, mirrored])
        sums = labels[pairs.sum(1) % p]
        return Examples(tokens[pairs].astype(np.uint8), sums.astype(np.uint8))

    parts = np.split(order, [trained, trained + held])
    return both_ways(parts[0]), both_ways(parts[1]), both_ways(parts[2])


def training_examples(task: Task) -> int:
    """Return the least number of examples that a seed trains on; with folds and pairs it varies.

    Known without the data, so that a task can be refused before any download.
    """
    if task.data.source == "modular-addition":
        p = task.data.modulus
        trained = round(task.data.train_fraction * (p * (p + 1) // 2))
        return 2 * trained - min(p, trained)  # a + a is its own mirror image
    count, folds = TRAINING[task.data.source], task.data.folds
    if folds:
        count -= sum(-(-examples // folds) for examples in DIGITS)  # the largest fold is tested on
    return count - _held_out(task, count)


def _held_out(task: Task, count: int) -> int:
    """Return how many examples of the training part are held out."""
    return task.data.held_out or round(task.data.held_out_fraction * count)


def prepared(task: Task, *, test: bool = True) -> bool:
    """Return whether the task's files are in the cache, with or without the test split."""
    needed = [part for part in parts(task) if test or not part.endswith("test")]
    return all(_file(task, part).is_file() for part in needed)


def parts(task: Task) -> tuple[str, ...]:
    """Return the names of the task's files, one for each part of its source."""
    if task.data.source == "modular-addition":
        return ()
    folds = [f"fold{fold}." for fold in range(task.data.folds)] or [""]
    return tuple(fold + split for fold in folds for split in ("train", "test"))


def prepare(task: Task, *, download: bool, test: bool = True) -> None:
    """Decode the task's source into the cache, atomically and verified, unless it is already there.

    Args:
        task: the task whose data are needed.
        download: whether the network may be used if there is no local copy.
        test: whether the test split is needed too; a search does not need it.
    """
    if prepared(task, test=test):
        return
    sweep(cache() / "data", older=DAY)  # left by killed processes; running ones are younger
    own = {"digits": _digits, "mnist1d": _mnist1d, "imagenette": _imagenette}
    decode = own.get(task.data.source, _from_hub)
    for part, examples in decode(task, download):
        for name, array in (("x", examples.x), ("y", examples.y)):
            if not task.data.fingerprints:
                _record(task, f"{part}.{name}", array)
            step = "the source is not the one that the task was made with"
            _check(task, f"{part}.{name}", array, task.data.source, step)
        _write(_file(task, part), examples)


def verify(task: Task) -> None:
    """Read every file of the task again and compare its fingerprints."""
    for part in parts(task):
        read(task, part)


def read(task: Task, part: str) -> Examples:
    """Read one part from the cache and compare its fingerprints with the task's."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    path = _file(task, part)
    again = f"run `lthbench data prepare {task.name}`"
    try:
        arrays = load(path.read_bytes())
        examples = Examples(arrays["x"], arrays["y"])
    except FileNotFoundError as error:
        raise DataError(f"{task.name}: {path} is not there; {again}") from error
    except (OSError, SafetensorError, KeyError) as error:
        raise DataError(f"{path}: damaged ({error}); delete it and {again}") from error
    for name, array in (("x", examples.x), ("y", examples.y)):
        _check(task, f"{part}.{name}", array, str(path), f"delete it and {again}")
    return replace(examples, x=pooled(examples.x, task.data.pool))


def pooled(images: Inputs, pool: int) -> Inputs:
    """Average images (n, height, width, channels) over squares of `pool` pixels, rounding half up.

    Integer arithmetic only, so that every machine sees the same bytes.
    """
    if pool == 1:
        return images
    n, height, width, channels = images.shape
    squares = images.reshape(n, height // pool, pool, width // pool, pool, channels)
    sums = squares.sum((2, 4), dtype=np.int64)
    means: Bytes = ((sums + pool**2 // 2) // pool**2).astype(np.uint8)
    return means


def count(task: Task, part: str) -> int:
    """Return how many examples a part in the cache has, without reading them."""
    from safetensors import safe_open

    with safe_open(_file(task, part), framework="numpy") as file:
        return int(file.get_slice("y").get_shape()[0])


def fingerprint(array: Inputs) -> str:
    """Return the sha256 of the array's bytes in C order."""
    return digest(np.ascontiguousarray(array).tobytes())


def _check(task: Task, name: str, array: Inputs, place: str, step: str) -> None:
    known = task.data.fingerprints or _recorded(task)
    expected, found = known.get(name, "none"), fingerprint(array)
    if found != expected:
        raise DataError(
            f"{place}: {name} has fingerprint {found[:16]}, but {task.name} expects "
            f"{expected[:16]}; {step}"
        )


def _record(task: Task, name: str, array: Inputs) -> None:
    """Store the fingerprint of an array's first preparation, for a task that lists none."""
    known = _recorded(task)
    if name not in known:
        text = json.dumps(known | {name: fingerprint(array)}, indent=1)
        write_whole(_file(task, "").parent / FIRST, text.encode())


def _recorded(task: Task) -> dict[str, str]:
    """Return the fingerprints of the source's first preparation in this cache."""
    path = _file(task, "").parent / FIRST
    if not path.is_file():
        return {}
    try:
        known = json.loads(path.read_bytes())
        return {str(name): str(value) for name, value in known.items()}
    except (ValueError, AttributeError) as error:
        again = f"delete its folder and run `lthbench data prepare {task.name}`"
        raise DataError(f"{path}: damaged ({error}); {again}") from error


def _file(task: Task, part: str) -> Path:
    return cache() / "data" / task.data.source / f"{part}.safetensors"


def _write(path: Path, examples: Examples) -> None:
    from safetensors.numpy import save

    arrays = {"x": np.ascontiguousarray(examples.x), "y": np.ascontiguousarray(examples.y)}
    write_whole(path, save(arrays))


def _take(examples: Examples, rows: NDArray[np.int64]) -> Examples:
    return Examples(examples.x[rows], examples.y[rows])


def _digits(task: Task, _download: bool) -> Iterator[tuple[str, Examples]]:
    """Yield scikit-learn's digits in stratified folds, each of which is the test part once."""
    from sklearn.datasets import load_digits

    loaded: Any = load_digits()
    examples = Examples(loaded.data.astype(np.uint8), loaded.target.astype(np.uint8))
    fold_of = np.empty(len(examples.y), dtype=np.int64)
    for label in range(task.data.classes):
        rows = np.flatnonzero(examples.y == label)
        rows = rows[seeds.generator(0, "split", "folds", label).permutation(len(rows))]
        fold_of[rows] = np.arange(len(rows)) % task.data.folds
    for fold in range(task.data.folds):
        yield f"fold{fold}.train", _take(examples, np.flatnonzero(fold_of != fold))
        yield f"fold{fold}.test", _take(examples, np.flatnonzero(fold_of == fold))


def _mnist1d(_task: Task, _download: bool) -> Iterator[tuple[str, Examples]]:
    """Yield MNIST-1D as published (seed 42), in multiples of 1 / 4096: int16, (n, 40)."""
    from lthbench.protocol import mnist1d

    signals, labels = mnist1d.generate()
    x = np.rint(signals * mnist1d.RESOLUTION).astype(np.int16)
    y = labels.astype(np.uint8)
    yield "train", Examples(x[: mnist1d.TRAINED], y[: mnist1d.TRAINED])
    yield "test", Examples(x[mnist1d.TRAINED :], y[mnist1d.TRAINED :])


def _from_hub(task: Task, download: bool) -> Iterator[tuple[str, Examples]]:
    """Yield a Hub data set, from the copy under LTHBENCH_DATA or, if allowed, from the Hub."""
    name, column = HUB[task.data.source]
    folder = data_folder()
    local = folder / name if folder else None
    if local is not None and not local.is_dir():
        raise DataError(
            f"{local}: not there; LTHBENCH_DATA must hold copies laid out as on the Hub"
        )
    if local is None and not download:
        raise DataError(
            f"{task.name}: {name} is not prepared; run `lthbench data prepare {task.name}`"
        )
    import datasets

    datasets.disable_progress_bars()
    try:
        loaded: Any = datasets.load_dataset(str(local or name))
        for part in ("train", "test"):
            split = loaded[part]
            x = np.stack([np.asarray(image, dtype=np.uint8) for image in split[column]])
            yield part, Examples(x, np.asarray(split["label"], dtype=np.uint8))
    except (OSError, ValueError, KeyError, datasets.exceptions.DatasetsError) as error:
        reason = str(error).splitlines()[0][:80] if str(error) else type(error).__name__
        raise DataError(
            f"{name}: cannot be loaded ({reason}); "
            "check the network, or name a copy in LTHBENCH_DATA"
        ) from error


def _imagenette(task: Task, download: bool) -> Iterator[tuple[str, Examples]]:
    """Yield Imagenette's 160-pixel images, from a local copy or, if allowed, by download.

    Its "val" is the test part. Each image is resized to a shorter side of 160 pixels and cropped to
    the central square (train: 9,469 images, val: 3,925).
    """
    folder = data_folder()
    if folder is not None:
        if not (folder / "imagenette2-160").is_dir():
            raise DataError(
                f"{folder / 'imagenette2-160'}: not there; LTHBENCH_DATA must hold the unpacked "
                "archive imagenette2-160.tgz: imagenette2-160/{train,val}/n01440764/*.JPEG, ..."
            )
        yield from _pictures(folder, download=False)
        return
    if not download:
        raise DataError(
            f"{task.name}: Imagenette is not prepared; run `lthbench data prepare {task.name}`"
        )
    place = _file(task, "").parent
    place.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place, prefix=".tmp-") as archive:
        yield from _pictures(Path(archive), download=True)


def _pictures(folder: Path, download: bool) -> Iterator[tuple[str, Examples]]:
    """Yield the two parts of Imagenette in torchvision's order: by class, then by file name."""
    from torchvision.datasets import Imagenette

    try:
        for part, split in (("train", "train"), ("test", "val")):
            loaded: Any = Imagenette(folder, split, "160px", download=download and part == "train")
            x = np.empty((len(loaded), IMAGENETTE, IMAGENETTE, 3), dtype=np.uint8)
            y = np.empty(len(loaded), dtype=np.uint8)
            for row, (image, label) in enumerate(loaded):
                x[row], y[row] = _square(image), label
            yield part, Examples(x, y)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = str(error).splitlines()[0][:80] if str(error) else type(error).__name__
        raise DataError(
            f"{folder}: Imagenette cannot be loaded ({reason}); check the network, or name a "
            "folder with imagenette2-160/{train,val} in LTHBENCH_DATA"
        ) from error


def _square(image: Any) -> Bytes:
    """Resize an image to a shorter side of 160 pixels and crop the central square: RGB bytes."""
    short = min(image.size)
    if short != IMAGENETTE:
        size = (max(IMAGENETTE, round(n * IMAGENETTE / short)) for n in image.size)
        image = image.resize(tuple(size), resample=2)  # bilinear
    left, top = ((n - IMAGENETTE) // 2 for n in image.size)
    box = (left, top, left + IMAGENETTE, top + IMAGENETTE)
    return np.asarray(image.convert("RGB").crop(box), dtype=np.uint8)
