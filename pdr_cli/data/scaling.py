"""Scaling: data units to network units, and back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pdr_cli.data import kinds
from pdr_cli.data.series import Series, names
from pdr_cli.data.statistics import Statistics
from pdr_cli.errors import DataError


@dataclass(frozen=True)
class Scaling:
    """Network value = (data value - offset) / scale.

    Args:
        offset: of each channel, in data units.
        scale: of each channel, in data units.
        data_range: of each channel, the data range that SSIM assumes, in network units: quantile 99.9 % minus 0.1 % of the
            training data.
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


def fit(name: str, series: Series, statistics: Statistics) -> Scaling:
    """The scaling called `name` ("auto": that of the kind of data), fitted to the training statistics.

    Raises:
        DataError: a channel is constant.
    """
    _refuse_constant(series, statistics)
    name = kinds.of(series).scaling if name == "auto" else name
    offset, scale = FITS[name](statistics)
    spread = np.maximum(statistics.spread, 1e-6 * np.maximum(np.abs(statistics.mean), 1e-12))
    data_range = np.ones_like(scale) if name == "unit" else spread / scale
    return Scaling(tuple(map(float, offset)), tuple(map(float, scale)), tuple(map(float, data_range)))


# Offset and scale of each scaling: [C] each.
FITS: dict[str, Callable[[Statistics], tuple[np.ndarray, np.ndarray]]] = {
    "standard": lambda s: (s.mean, s.sd),
    "minmax": lambda s: (s.minimum, s.maximum - s.minimum),
    "unit": lambda s: (np.zeros_like(s.mean), np.full_like(s.mean, 255.0)),
}


def _refuse_constant(series: Series, statistics: Statistics) -> None:
    constant = np.flatnonzero(statistics.maximum <= statistics.minimum)
    if len(constant):
        channel, value = names(series)[constant[0]], float(statistics.mean[constant[0]])
        raise DataError(
            f"{series.attrs['files'][0]}: {channel} is {value:g} everywhere in the training period",
            "values that change",
            "choose other variables with --var, or another data.train_period",
        )
