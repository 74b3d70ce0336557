"""Units in, network units out, and back: the only place that scales."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pdr_cli.data import kinds
from pdr_cli.data.series import Series
from pdr_cli.data.statistics import Statistics
from pdr_cli.errors import DataError


@dataclass(frozen=True)
class Scaling:
    """Network value = (data value - offset) / scale, for each channel.

    `data_range` is the range that SSIM is told, in network units: quantile 99.9 % minus 0.1 % of the training data.
    """

    offset: tuple[float, ...]
    scale: tuple[float, ...]
    data_range: tuple[float, ...]

    def apply(self, frames: np.ndarray) -> np.ndarray:
        """Data units to network units: [..., C, H, W]."""
        return ((frames - self._shaped(self.offset)) / self._shaped(self.scale)).astype(np.float32)

    def invert(self, frames: np.ndarray) -> np.ndarray:
        """Network units to data units: [..., C, H, W]."""
        return (frames * self._shaped(self.scale) + self._shaped(self.offset)).astype(np.float32)

    @staticmethod
    def _shaped(values: tuple[float, ...]) -> np.ndarray:
        return np.asarray(values, dtype=np.float32)[:, None, None]


def fit(kind: str, series: Series, statistics: Statistics) -> Scaling:
    """The scaling named `kind` ("auto" goes by the kind of data) from the training statistics.

    Raises:
        DataError: the data never change.
    """
    kind = kinds.of(series).scaling if kind == "auto" else kind
    spread = np.maximum(statistics.spread, 1e-6 * np.maximum(np.abs(statistics.mean), 1e-12))
    if np.any(statistics.maximum <= statistics.minimum):
        channel = str(series.channel.values[int(np.argmax(statistics.maximum <= statistics.minimum))])
        raise DataError(
            f"{channel} is {float(statistics.mean[0]):g} everywhere in the training period; nothing to learn"
        )
    if kind == "standard":
        offset, scale = statistics.mean, statistics.sd
    elif kind == "minmax":
        offset, scale = statistics.minimum, statistics.maximum - statistics.minimum
    else:
        offset, scale = np.zeros_like(statistics.mean), np.full_like(statistics.mean, 255.0)
    data_range = np.ones_like(scale) if kind == "unit" else spread / scale
    return Scaling(tuple(map(float, offset)), tuple(map(float, scale)), tuple(map(float, data_range)))
