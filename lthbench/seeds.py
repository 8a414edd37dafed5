"""Named random streams: every number that lthbench draws comes from one seed and a name.

Streams in use (protocol, section 11):

====================== =============================================================
names                  what is drawn from it
====================== =============================================================
``init``               initial weights, float64 and then rounded to float32
``data``               splits, renamings and the orders of the search
``augment``            crops, flips and other tables of augmentation
``method/<name>``      what a method draws by ``problem.generator(name)``
``score/data``         the orders of scoring, apart from those of the search
``control/<kind>``     the masks and signs of controls, further names for the tensor
                       and the attempt
``noise``              one-ulp moves of the start weights (noise floor)
``level2``             what noise does to honest records, under seed 0
``stability``          the orders of two trainings of one ticket (rewind limit)
``bench``              random examples, masks and orders of runs that are only timed
``ranks``              sign flips of a board's units, under seed 0
``power``              residuals of planned seeds, under seed 0, further names
                       for the suite or task and the numbers of seeds
``evidence/pairings``  which seeds are paired, under seed 0
====================== =============================================================

A stream's name may be written in parts, ``generator(3, "control", "shuffled", "fc1.weight", 0)``;
parts are not joined, so ``("a/b",)`` and ``("a", "b")`` are two streams.
Streams are independent: draws from one never affect another.
"""

from __future__ import annotations

import hashlib
import json
import operator

import numpy as np

__all__ = ["generator", "torch_seed"]

_KEY_BYTES = 16
_TORCH_BYTES = 8


def generator(seed: int, *names: str | int) -> np.random.Generator:
    """Return a fresh generator for the stream ``names`` under ``seed``.

    Its bit generator is Philox (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3")
    with the first 16 bytes, little-endian, of sha256 of the canonical JSON of ``[seed, *names]``
    as its 128-bit key and counter 0. ``seed`` is any integer, a name a string or an integer
    (``1`` and ``"1"`` are two names). Equal arguments give equal draws; each call starts anew.

    Raises TypeError for a seed or name of another type (bool and float included).
    """
    digest = _digest(seed, names)
    key = int.from_bytes(digest[:_KEY_BYTES], "little")
    return np.random.Generator(np.random.Philox(key=key))


def torch_seed(seed: int, *names: str | int) -> int:
    """Return a seed for ``torch.Generator.manual_seed``, in [0, 2**63), for the named stream.

    Taken from bytes 16 to 23 of the digest whose first 16 are ``generator``'s key, so the two
    streams of one name share no key. Raises TypeError as ``generator`` does.
    """
    digest = _digest(seed, names)
    word = int.from_bytes(digest[_KEY_BYTES : _KEY_BYTES + _TORCH_BYTES], "little")
    return word >> 1  # manual_seed takes at most 63 bits as a non-negative number


def _digest(seed: int, names: tuple[str | int, ...]) -> bytes:
    """Return sha256 of the canonical JSON of ``[seed, *names]``."""
    parts = [_integer(seed), *(name if isinstance(name, str) else _integer(name) for name in names)]
    text = json.dumps(parts, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).digest()


def _integer(value: int) -> int:
    """Return ``value`` as a plain int, numpy's integers included; TypeError for anything else."""
    # JSON writes True as `true`: a flag passed by mistake would silently get its own stream.
    if isinstance(value, (bool, np.bool_)):
        raise TypeError(f"a random stream is named by strings and integers, not by {value!r}")
    return operator.index(value)
