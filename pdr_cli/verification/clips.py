"""How far drawn clips are from real ones, by features that need no weights: an honest stand-in for FVD, and never called so.

The features are those of whole clips, so that two sets of clips are compared and not each forecast with its truth. They are not
learned, and distances on different data are not comparable.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np

Flow = Callable[[np.ndarray], np.ndarray]  # clips [N, τ, H, W] -> flow of each frame to the next, [N, τ - 1, 2, H, W]

RADII = (0.0, 0.125, 0.25, 0.5, 2.0)  # edges of the bands of spatial frequency, as shares of the finest along an axis
TEMPORAL = 3  # bands of temporal frequency
SPREAD = (0.1, 0.5, 0.9)  # quantiles of values
TAIL = (0.5, 0.9, 0.99)  # quantiles of changes and speeds
STILL = 0.05  # cells a frame: below it a flow has no direction
TINY = 1e-12


def features(clips: np.ndarray, flow: Flow) -> np.ndarray:
    """The features of clips [N, τ, C, H, W]: [N, C · k], k = 24 from three frames on, fewer of shorter clips."""
    return np.concatenate([_of_channel(clips[:, :, c], flow) for c in range(clips.shape[2])], axis=1)


def _of_channel(clips: np.ndarray, flow: Flow) -> np.ndarray:
    parts = [_powers(clips), _quantiles(clips, SPREAD)]
    if clips.shape[1] > 1:
        moved = flow(clips)
        speed = np.hypot(moved[:, :, 0], moved[:, :, 1])
        parts += [_quantiles(np.abs(np.diff(clips, axis=1)), TAIL), _quantiles(speed, TAIL)]
        if clips.shape[1] > 2:
            parts.append(_turning(moved, speed))
    return np.concatenate(parts, axis=1)


def _powers(clips: np.ndarray) -> np.ndarray:
    """Log power in bands of the discrete cosine transform in time and space: [N, 4 · bands]."""
    steps, height, width = clips.shape[1:]
    t, y, x = (_cosines(n) for n in (steps, height, width))
    spectrum = np.einsum("ntyx,at,by,cx->nabc", clips.astype(np.float64), t, y, x, optimize=True) ** 2
    radius = np.hypot(np.arange(height)[:, None] / height, np.arange(width) / width)
    bands = np.arange(steps) * min(TEMPORAL, steps) // steps
    found = []
    for band in range(min(TEMPORAL, steps)):
        power = spectrum[:, bands == band].mean(axis=1)
        for low, high in itertools.pairwise(RADII):
            inside = (radius >= low) & (radius < high)
            found.append(np.log(power[:, inside].mean(axis=1) + TINY) if inside.any() else np.zeros(len(clips)))
    return np.stack(found, axis=1)


def _cosines(n: int) -> np.ndarray:
    """The orthonormal discrete cosine transform (type II): [n, n]."""
    k = np.arange(n)
    matrix = np.cos(np.pi * k[:, None] * (2 * k + 1) / (2 * n)) * np.sqrt(2 / n)
    matrix[0] /= np.sqrt(2)
    return np.asarray(matrix)


def _turning(moved: np.ndarray, speed: np.ndarray) -> np.ndarray:
    """Quantiles of the angle by which the flow at a cell turns from one frame to the next, where it moves: [N, 3]."""
    angle = np.arctan2(moved[:, :, 1], moved[:, :, 0])
    turn = np.abs((np.diff(angle, axis=1) + np.pi) % (2 * np.pi) - np.pi)
    moving = (speed[:, 1:] > STILL) & (speed[:, :-1] > STILL)
    rows = [np.quantile(t[m], SPREAD) if m.any() else np.zeros(len(SPREAD)) for t, m in zip(turn, moving, strict=True)]
    return np.stack(rows)


def _quantiles(values: np.ndarray, levels: tuple[float, ...]) -> np.ndarray:
    return np.asarray(np.quantile(values.reshape(len(values), -1), levels, axis=1).T)


def distance(one: np.ndarray, other: np.ndarray) -> float:
    """The unbiased squared maximum mean discrepancy of two sets of features [N, k], [M, k] by the cubic kernel.

    0 on average for two sets of one distribution, below 0 by chance (Binkowski et al., 2018, who use it on learned features).
    """
    n, m, k = len(one), len(other), one.shape[1]

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.asarray((a @ b.T / k + 1) ** 3)

    within = [(kernel(a, a).sum() - np.trace(kernel(a, a))) / (len(a) * (len(a) - 1)) for a in (one, other)]
    return float(sum(within) - 2 * kernel(one, other).sum() / (n * m))


def standardised(features_of: np.ndarray, real: np.ndarray) -> np.ndarray:
    """Features less the mean of the real ones, over their standard deviation."""
    spread = real.std(axis=0)
    return (features_of - real.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
