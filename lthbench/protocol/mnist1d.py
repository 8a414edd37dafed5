"""MNIST-1D (Greydanus & Kobak 2024, arXiv:2011.14439): ten templates of 12 points, perturbed.

This is the published set, not a new draw: numpy guarantees that the stream of its legacy generator
never changes, and the draws below are in the order of the authors' code. Their file was written
with another numpy version and differs from what their package produces today by one unit in the
last place of a float64; rounded to 1 / 4096, a fifth of a percent of the noise, the two are equal.
"""

from __future__ import annotations

import numpy as np
from numpy.random import RandomState
from numpy.typing import NDArray

Signal = NDArray[np.float64]

SEED = 42
EXAMPLES, TRAINED = 5000, 4000
POINTS = 40  # of one example
RESOLUTION = 4096  # steps per unit; the largest value, 5.5, fits in 16 bits
PADDING = 36, 60  # zeros after a template, minimum and maximum
SHIFT = 48  # positions that it is shifted by, exclusive
SCALE = 0.4  # its height varies by half of this, up or down
CORRELATED, INDEPENDENT = 0.25, 0.02  # noise: smoothed, outside the template; white, everywhere
SMOOTHING = 2  # points, for the correlated noise
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
    """Generate all 5,000 examples (5000, 40), standardised together, and their labels.

    The training part comes first. Deterministic: the same arrays on every machine, up to the last
    place.
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
    """Return the templates (10, 12), with mean 0 and deviation 1 / 6, shifted to begin at 0."""
    x = np.asarray(TEMPLATES, dtype=np.float64)
    x = (x - x.mean(1, keepdims=True)) / x.std(1, keepdims=True)
    started: Signal = (x - x[:, :1]) / 6.0
    return started


def _disturbed(template: Signal, random: RandomState) -> Signal:
    """Draw one example of a template: padded, stretched, scaled, shifted, noised, sheared."""
    from scipy.ndimage import gaussian_filter

    least, most = PADDING
    zeros = np.zeros(least + int(random.rand() * (most - least + 1)))
    # Raised slightly, so that a template's own zeros differ from the padding's.
    x = _resampled(np.concatenate([template + 1e-8, zeros]), len(template) + most)
    x = x * (1 + SCALE * (random.rand() - 0.5))
    x = np.roll(x, random.choice(SHIFT))
    noise = gaussian_filter(CORRELATED * random.randn(len(x)), SMOOTHING)
    x = np.where(x != 0, x, noise) + INDEPENDENT * random.randn(len(x))
    x = x - SHEAR * (random.rand() - 0.5) * np.linspace(-0.5, 0.5, len(x))
    return _resampled(x, POINTS)


def _resampled(x: Signal, points: int) -> Signal:
    """Interpolate linearly at `points` positions from the first point to the last."""
    return np.interp(np.linspace(0, 1, points), np.linspace(0, 1, len(x)), x)
