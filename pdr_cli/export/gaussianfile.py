"""The Gaussians of a forecast as a CF NetCDF file, in the data's own coordinates and units.

`pdr_cli.splat.render_dataset` draws them again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from pdr_cli.data.formats import cf, gaussianset
from pdr_cli.data.grid import Axis, geographic, is_longitude, unwrapped
from pdr_cli.data.series import Series
from pdr_cli.export import gaussians
from pdr_cli.export.gaussians import CARRYING, PLANE, Found
from pdr_cli.inference.model import Model
from pdr_cli.inference.observed import Observed
from pdr_cli.runs.modelfile import ModelCard
from pdr_cli.splat.datasets import AMPLITUDE, COORDINATES, stretched

RENDERING = (
    "sum over gaussian of amplitude_NAME exp(-q/2), q = (u/sigma_1)^2 + (v/sigma_2)^2, where u and v are the offsets from the "
    "centre along both axes; pdr_cli.splat.render_dataset draws them as the model does"
)
SIZES = ("standard deviation along the first axis", "standard deviation along the second axis")
ROTATION = "first axis, from the direction of growing centre_x towards that of growing centre_y"
Variables = dict[str, tuple[tuple[str, ...], np.ndarray, dict[str, Any]]]


class Plane:
    """The coordinates of the grid that Gaussians are drawn on; cells from the first one on a grid without any.

    Args:
        card: of the model, whose grid it is.
    """

    def __init__(self, card: ModelCard) -> None:
        height, width = card.size
        self.axes = {"x": _Side(card.x, "x", width), "y": _Side(card.y, "y", height)}
        alike = {_unit(side.attrs) for side in self.axes.values()}
        self.sizes_in = COORDINATES if len(alike) == 1 else "cells"
        self.units = alike.pop() if len(alike) == 1 else "1"

    def ellipses(self, sigma: np.ndarray, rotation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Sizes [..., 2] in cells, and rotations from +column towards +row, as those of the plane."""
        factors = [s.spacing if self.sizes_in == COORDINATES else np.sign(s.spacing) for s in self.axes.values()]
        made = stretched(torch.from_numpy(sigma).double(), torch.from_numpy(rotation).double(), *map(float, factors))
        return made[0].numpy(), made[1].numpy()


class _Side:
    """One side of the grid: its coordinate, [n], and the attributes of a place along it."""

    def __init__(self, axis: Axis | None, dim: str, cells: int) -> None:
        self.name = "" if axis is None else str(axis.name)
        own = (
            {}
            if axis is None
            else {k: v for k, v in axis.attrs.items() if k in ("units", "standard_name", "long_name")}
        )
        self.attrs = cf.axis_attributes(self.name or dim, dim, own)
        values = np.arange(cells, dtype=float) if axis is None else np.asarray(axis.values, np.float64)
        turns = axis is not None and is_longitude(self.name, axis.attrs)
        self.values = unwrapped(values) if turns else values
        self.spacing = float(self.values[-1] - self.values[0]) / max(cells - 1, 1)

    def at(self, index: np.ndarray) -> np.ndarray:
        """Coordinates at fractional cells; beyond the last one its spacing goes on."""
        if len(self.values) == 1:
            return self.values[0] + index
        before = np.clip(np.floor(index).astype(int), 0, len(self.values) - 2)
        first = self.values[before]
        return np.asarray(first + (index - before) * (self.values[before + 1] - first))

    def place(self, long_name: str) -> dict[str, Any]:
        """Attributes of places along this side."""
        kept = {k: v for k, v in self.attrs.items() if k in ("units", "standard_name")}
        return {"long_name": long_name, "units": "1"} | kept


def _unit(attrs: Mapping[str, Any]) -> str:
    """The unit of sizes along a side: degrees in either direction are the same."""
    unit = str(attrs.get("units", "1"))
    return "degrees" if geographic("", attrs) else unit


def to_dataset(model: Model, series: Series, window: Observed, steps: int | None = None) -> xr.Dataset:
    """The Gaussians of the forecast after a window: dims (gaussian, time), times not decoded.

    Args:
        model: that draws Gaussians.
        series: the input.
        window: of the series.
        steps: τ; default: the horizon of the training.

    Raises:
        UsageError: the model draws none.
    """
    found, valid = gaussians.after(model, series, window, steps)
    plane, time = Plane(model.card), cf.valid_time(valid)
    height, width = model.card.size
    coords: Variables = {"time": (time.dims, time.values, time.attrs)}
    for dim, side in plane.axes.items():
        coords[f"centre_{dim}"] = (
            PLANE,
            side.at(getattr(found, dim).astype(np.float64)),
            side.place(f"centre along {dim}"),
        )
        if side.name:
            coords[side.name] = ((side.name,), side.values, side.attrs)
    named = {f"grid_{dim}": side.name for dim, side in plane.axes.items() if side.name}
    about = {
        "rendering": RENDERING if found.start is None else CARRYING,
        "sizes_in": plane.sizes_in,
        "kernel_size": found.kernel_size,
        "rows": height,
        "columns": width,
    }
    made = xr.Dataset(dict(_variables(model.card, found, plane)), coords=coords, attrs=about | named)
    return made.transpose("gaussian", ...)  # CF recommends other dimensions before that of time


def _variables(card: ModelCard, found: Found, plane: Plane) -> Iterator[tuple[str, Any]]:
    sigma, rotation = plane.ellipses(found.sigma, found.rotation)
    for index, long_name in enumerate(SIZES):
        yield f"sigma_{index + 1}", _plain(sigma[..., index], long_name, plane.units)
    yield "rotation", _plain(rotation, ROTATION, "radian")
    if found.start is None:
        for index, (name, attrs) in enumerate(card.variables.items()):
            yield AMPLITUDE + cf.legal_name(name), _amplitude(card, found, index, name, attrs)
        return
    yield "opacity", _plain(found.amplitudes[..., 0], "weight of the way at the centre", "1")
    for index, (dim, side) in enumerate(plane.axes.items()):
        start = side.at(found.start[..., index].astype(np.float64))
        yield f"start_{dim}", (PLANE, start, side.place(f"centre along {dim} at the last observed frame"))


def _plain(values: np.ndarray, long_name: str, units: str) -> tuple[Any, ...]:
    return PLANE, values.astype(np.float32), {"long_name": long_name, "units": units}


def _amplitude(card: ModelCard, found: Found, index: int, name: str, attrs: Mapping[str, Any]) -> tuple[Any, ...]:
    """What a Gaussian adds to a variable at its centre, in the units of the training data."""
    scale, units = np.float64(card.scaling.scale[index]), str(attrs.get("units", "") or "1")
    about: dict[str, Any] = {
        "long_name": f"what the Gaussian layer has of {attrs.get('long_name', name)} at the centre"
    }
    about |= {"units": units, "network_unit": scale}
    if units.lower() in cf.TEMPERATURES:
        about["units_metadata"] = "temperature: difference"
    return PLANE, (found.amplitudes[..., index] * scale).astype(np.float32), about


def write(model: Model, series: Series, window: Observed, path: Path, attributes: Mapping[str, str]) -> int:
    """Write `to_dataset` as NetCDF with global attributes; returns the number of Gaussians in a frame.

    Raises:
        StorageError: see `gaussianset.write`.
    """
    return gaussianset.write(to_dataset(model, series, window), path, attributes)
