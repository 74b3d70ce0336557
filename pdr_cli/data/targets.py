"""Targets: channels that are forecast and not observed. Their frames are missing in every observed window."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pdr_cli.data.series import LazyFrames, Series, make_like, names, read_frames, shape

OF_CHANNELS = ("scalars", "labels")  # attributes of a Series by channel


def mask_of(channels: Sequence[str], targets: Sequence[str]) -> np.ndarray | None:
    """True for the channels that are targets, [C]; None if none is."""
    mask = np.isin(list(channels), list(targets))
    return mask if mask.any() else None


def with_blank(series: Series, variables: Mapping[str, Mapping[str, Any]]) -> Series:
    """A series of other channels, `variables`, on the times and the grid of `series`.

    Channels that `series` has too keep their frames and attributes; the frames of all others are NaN.
    """
    here, (T, _, height, width) = names(series), shape(series)
    rows = [row for row, name in enumerate(variables) if name in here]
    columns = [here.index(name) for name in variables if name in here]

    def frames(start: int, stop: int) -> np.ndarray:
        made = np.full((stop - start, len(variables), height, width), np.nan, np.float32)
        if rows:
            made[:, rows] = read_frames(series, start, stop)[:, columns]
        return made

    attrs = {name: series.attrs["variables"].get(name, about) for name, about in variables.items()}
    lazy = LazyFrames((T, len(variables), height, width), np.float32, frames)
    kept = {key: _only(series.attrs.get(key, {}), variables) for key in OF_CHANNELS}
    return make_like(series, lazy, variables=attrs).assign_attrs(kept)


def _only(of_channels: Mapping[str, Any], variables: Mapping[str, Any]) -> dict[str, Any]:
    return {name: found for name, found in of_channels.items() if name in variables}
