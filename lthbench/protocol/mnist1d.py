"""MNIST-1D (Greydanus & Kobak 2024, arXiv:2011.14439): ten templates of 12 points, disturbed.

The published set itself, not another draw: numpy promises that the stream of its old generator
never changes, and the order of the draws below is that of the authors' code. Their file was written
with another numpy and differs from what their package makes today by one unit in the last place of
a float64; rounded to 1 / 4096, which is a fifth of a percent of the noise in it, the two are equal.
"""

from __future__ import annotations

import numpy as np
from numpy.random import RandomState
from numpy.typing import NDArray

Signal = NDArray[np.float64]

SEED = 42
EXAMPLES, TRAINED = 5000, 4000
POINTS = 40  # of an example
RESOLUTION = 4096  # steps of 1; the largest value, 5.5, stays within 16 bits
PADDING = 36, 60  # zeros behind a template, at least and at most
SHIFT = 48  # places that it is moved by, below this
SCALE = 0.4  # its height varies by half of this, up and down
CORRELATED, INDEPENDENT = 0.25, 0.02  # noise: of what is not template, smoothed; of everything
SMOOTHING = 2  # points, of the correlated noise
SHEAR = 0.75

TEMPLATES = (
    (5, 6, 6.5, 6.75, 7, 7, 7, 7, 6.75, 6.5, 6, 5),
    (5, 3, 3, 3.4, 3.8, 4.2, 4.6, 5, 5.4, 5.8, 5, 5),
    (5, 6, 6.5, 6.5, 6, 5.25, 4.75, 4, 3.5, 3.5, 4, 5),
    (5, 6, 6.5, 6.5, 6, 5, 5, 6, 6.5, 6.5, 6, 5),
    (5, 4.4, 3.8, 3.2, 2.6, 2.6, 5, 5, 5, 5, 5, 5),
    (5, 3, 3, 3, 3, 5, 6, 6.5, 6.5, 6, 4.5, 5),
    (5, 4, 3.5, 3.25, 3, 3, 3, 3, 3.25, 3.5, 4, 5),
    (5, 7, 7, 6.6, 6.2, 5.8, 5.4, 5, 4.6, 4.2, 5, 5),
    (5, 4, 3.5, 3.5, 4, 5, 5, 4, 3.5, 3.5, 4, 5),
    (5, 4, 3.5, 3.5, 4, 5, 5, 5, 5, 4.7, 4.3, 5),
)


def generate() -> tuple[Signal, NDArray[np.int64]]:
    """All 5,000 examples (5000, 40), standardised together, and their labels; training part first.

    Raises nothing and reads nothing: the same arrays on every machine, up to the last place.
    """
    random = RandomState(SEED)
    templates = _standardised()
    each = EXAMPLES // len(templates)
    signals = np.stack([_disturbed(t, random) for t in templates for _ in range(each)])
    labels = np.repeat(np.arange(len(templates)), each)
    order = random.permutation(EXAMPLES)
    signals = signals[order]
    whole: Signal = (signals - signals.mean()) / signals.std()
    return whole, labels[order]


def _standardised() -> Signal:
    """Templates of mean 0 and deviation 1 / 6 that begin at 0, (10, 12)."""
    x = np.asarray(TEMPLATES, dtype=np.float64)
    x = (x - x.mean(1, keepdims=True)) / x.std(1, keepdims=True)
    started: Signal = (x - x[:, :1]) / 6.0
    return started


def _disturbed(template: Signal, random: RandomState) -> Signal:
    """One example of a template: padded, stretched, scaled, moved, noised, sheared; 40 points."""
    from scipy.ndimage import gaussian_filter

    least, most = PADDING
    zeros = np.zeros(least + int(random.rand() * (most - least + 1)))
    # Lifted by a hair, so that a template's own zeros are told from the padding's.
    x = _resampled(np.concatenate([template + 1e-8, zeros]), len(template) + most)
    x = x * (1 + SCALE * (random.rand() - 0.5))
    x = np.roll(x, random.choice(SHIFT))
    noise = gaussian_filter(CORRELATED * random.randn(len(x)), SMOOTHING)
    x = np.where(x != 0, x, noise) + INDEPENDENT * random.randn(len(x))
    x = x - SHEAR * (random.rand() - 0.5) * np.linspace(-0.5, 0.5, len(x))
    return _resampled(x, POINTS)


def _resampled(x: Signal, points: int) -> Signal:
    """Linear interpolation at that many places from the first point to the last."""
    return np.interp(np.linspace(0, 1, points), np.linspace(0, 1, len(x)), x)
