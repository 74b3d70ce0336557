"""The setting of scores: units, ranges, areas and scales, from the truth's kind, its grid and the first model's training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pdr_cli.data import grid, kinds
from pdr_cli.data.series import Series, names, read_frames, units
from pdr_cli.errors import UsageError, VariableError

if TYPE_CHECKING:
    from pdr_cli.inference.loaded import LoadedModel

SAMPLED = 64  # frames read for the range of values, where no model's training has measured it
FULL_RANGE = 255.0  # of an 8-bit picture

OffsetScale = tuple[np.ndarray, np.ndarray]  # [C] each; (x - offset) / scale is on the scale of [0, 1]


@dataclass(frozen=True)
class Setting:
    """What scores depend on beside frames.

    Args:
        data_range: [C], the full range for SSIM and PSNR, in data units.
        area: [H, W], cell weights of a geographic grid; None on another.
        unit: brings frames to [0, 1]; None where the data have no such scale, as weather.
        units: of the data, as text.
        lpips: weights of LPIPS, a file.
        climate: whether a climatology exists.
        video: whether frames are pictures.
    """

    data_range: np.ndarray
    area: np.ndarray | None = None
    unit: OffsetScale | None = None
    units: str = ""
    lpips: Path | None = None
    climate: bool = True
    video: bool = False


def setting_of(series: Series, model: LoadedModel | None, convention: str, lpips: Path | None = None) -> Setting:
    """The setting for a truth.

    Args:
        series: the truth.
        model: whose training measured ranges and climatology; None without a model.
        convention: of the scores.
        lpips: weights of LPIPS, a file.
    """
    video = kinds.of(series).pictures
    return Setting(
        data_range=data_range(series, model),
        area=grid.areas(series),
        unit=_unit_scale(series, model) if convention == "openstl" or video else None,
        units=_units(series, convention),
        lpips=lpips,
        climate=model is not None,
        video=video,
    )


def data_range(series: Series, model: LoadedModel | None) -> np.ndarray:
    """The full range for SSIM and PSNR, in data units: [C]."""
    if kinds.of(series).pictures:
        return np.full(series.sizes["channel"], FULL_RANGE)
    if model is not None:
        return np.asarray(model.card.scaling.data_range) * np.asarray(model.card.scaling.scale)
    chosen = np.unique(np.linspace(0, series.sizes["time"] - 1, SAMPLED).round().astype(int))
    frames = np.concatenate([read_frames(series, int(i), int(i) + 1) for i in chosen])
    low, high = np.nanquantile(frames, [0.001, 0.999], axis=(0, 2, 3))
    return np.maximum(high - low, 1e-12)


def channel_scale(series: Series, model: LoadedModel | None) -> np.ndarray:
    """Divisor of errors before channels of different units are averaged, their sd in training: [C]; 1 with one unit.

    Raises:
        VariableError: different units without a model.
    """
    if len(set(units(series))) == 1:
        return np.ones(int(series.sizes["channel"]))
    if model is None:
        raise VariableError(
            f"{', '.join(names(series))} have different units",
            "one unit, or a model with -m, whose training has measured their spread",
            "score them one at a time, with --var NAME",
        )
    return np.asarray(model.card.scaling.scale)


def bounded_scale(series: Series, model: LoadedModel | None, setting: Setting) -> OffsetScale:
    """Lowest value and span of the data, for analyses of values between 0 and 1: [C] each."""
    if setting.unit is not None:
        return setting.unit
    span = data_range(series, model)
    if model is None:
        return np.zeros_like(span), span
    scaling = model.card.scaling
    if model.card.config.data.scaling == "minmax" or kinds.of(series) is kinds.TRAFFIC:
        return np.asarray(scaling.offset), np.asarray(scaling.scale)
    middle = np.asarray(model.climatology.at(series.time.values[:1])).mean(axis=(0, 2, 3))
    return middle - span / 2, span


def one_unit(series: Series) -> slice:
    """Channels that share a unit: all, or the first where units differ."""
    return slice(None) if len(set(units(series))) == 1 else slice(0, 1)


def ssim_definition(convention: str, setting: Setting, series: Series) -> str:
    """The definition of the SSIM, for the card."""
    if convention == "openstl":
        return "uniform 7 x 7, range 2 on values of [0, 1]"
    span = ", ".join(f"{r:.4g}" for r in setting.data_range)
    return f"Gaussian 11 x 11, range {span} {' / '.join(dict.fromkeys(units(series)))}".strip()


def _unit_scale(series: Series, model: LoadedModel | None) -> OffsetScale | None:
    """Offset and scale to [0, 1] as in published tables: [C] each; None for fields."""
    channels = int(series.sizes["channel"])
    if "value_range" in series.attrs:
        low, high = series.attrs["value_range"]
        return np.full(channels, low), np.full(channels, high - low)
    if kinds.of(series) is kinds.WEATHER:
        return None
    if model is None or model.card.config.data.scaling not in ("minmax", "auto"):
        raise UsageError(
            "--convention openstl scores traffic on the scale of [0, 1] that its model was trained on",
            "a model whose data.scaling is minmax",
            "name one with -m",
        )
    return np.asarray(model.card.scaling.offset), np.asarray(model.card.scaling.scale)


def _units(series: Series, convention: str) -> str:
    if convention == "openstl" and kinds.of(series) is not kinds.WEATHER:
        return "1"
    known = list(dict.fromkeys(units(series)))
    return known[0] if len(known) == 1 else "sd"
