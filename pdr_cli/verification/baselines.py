"""What a forecast has to beat: forecasts that need no model."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from pdr_cli.data.climatology import Climatology
from pdr_cli.errors import UsageError, did_you_mean

# (observed [B, T, C, H, W], times of the following frames, each [τ]) -> forecast [B, τ, C, H, W]
Baseline = Callable[[np.ndarray, Sequence[np.ndarray]], np.ndarray]


def persistence(observed: np.ndarray, following: Sequence[np.ndarray]) -> np.ndarray:
    """Nothing changes: the last observed frame, for every lead time."""
    return np.repeat(observed[:, -1:], len(following[0]), axis=1)


def climatology(known: Climatology) -> Baseline:
    """The training period's mean for the time of day, or its mean frame."""

    def forecast(observed: np.ndarray, following: Sequence[np.ndarray]) -> np.ndarray:
        return np.stack([known.at(times) for times in following])

    return forecast


def build(names: Sequence[str], known: Climatology) -> dict[str, Baseline]:
    """Baselines by name.

    Raises:
        UsageError: an unknown name, with the nearest.
    """
    there: dict[str, Baseline] = {"persistence": persistence, "climatology": climatology(known)}
    for name in names:
        if name not in there:
            raise UsageError(
                f"--against {name}: no such baseline.{did_you_mean(name, there)} There are {', '.join(there)}"
            )
    return {name: there[name] for name in names}
