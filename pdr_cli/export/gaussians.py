"""The Gaussians of a forecast in cells of a grid: centre, size, rotation and amplitude of each."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import xarray as xr

from pdr_cli.data import times as time_axis
from pdr_cli.data.series import Series, names
from pdr_cli.errors import UsageError
from pdr_cli.inference.intake import Intake
from pdr_cli.inference.model import Model
from pdr_cli.inference.observed import Observed
from pdr_cli.models.gaussians.base import GaussianAdapter, Gaussians, drawing
from pdr_cli.models.gaussians.deform import DeformGS, MovingSet
from pdr_cli.models.interfaces import Batch
from pdr_cli.splat.reference import density

PLANE = ("time", "gaussian")
# Name, dims, long name and units of each variable.
VARIABLES: tuple[tuple[str, tuple[str, ...], str, str], ...] = (
    ("x", PLANE, "centre, columns from the first", "1"),
    ("y", PLANE, "centre, rows from the first", "1"),
    ("sigma_1", PLANE, "standard deviation along the first axis, cells", "1"),
    ("sigma_2", PLANE, "standard deviation along the second axis, cells", "1"),
    ("rotation", PLANE, "first axis from +x towards +y (rows)", "radian"),
    ("amplitude", (*PLANE, "channel"), "value at the centre, in the network's units", "1"),
)
# Of Gaussians that carry the last observed frame, in place of the amplitude.
CARRIERS: tuple[tuple[str, tuple[str, ...], str, str], ...] = (
    ("opacity", PLANE, "weight of the way at the centre", "1"),
    ("start_x", PLANE, "centre at the last observed frame, columns from the first", "1"),
    ("start_y", PLANE, "centre at the last observed frame, rows from the first", "1"),
)
CARRYING = (
    "no picture of their own: the mean of x - start_x and y - start_y, weighted by opacity exp(-q/2), is where the last observed "
    "frame is moved to at each cell; see docs/moving.md"
)
RENDERING = "sum of amplitude exp(-q/2), peak-normalised, on a lattice placed bilinearly; see pdr_cli.splat.render"


def drawn_by(model: Model) -> bool:
    """Whether a model draws Gaussians at all."""
    return drawing(model.network.adapter) is not None


def of_forecast(model: Model, series: Series, window: Observed, steps: int | None = None) -> xr.Dataset:
    """The Gaussians of the forecast after a window: dims (time, gaussian, channel), in cells of the input's grid.

    Raises:
        UsageError: the model draws none (fusion none, or an adapter without Gaussians).
    """
    found, valid = after(model, series, window, steps)
    size = model.card.size
    turn = window.orientation.invert_points
    x, y, angle = turn(found.x, found.y, found.rotation, size)
    values, described = [x, y, found.sigma[..., 0], found.sigma[..., 1], angle, found.amplitudes], VARIABLES
    if found.start is not None:
        x0, y0, _ = turn(found.start[..., 0], found.start[..., 1], found.rotation, size)
        values, described = [*values[:5], found.amplitudes[..., 0], x0, y0], (*VARIABLES[:5], *CARRIERS)
    return xr.Dataset(
        {
            name: (dims, numbers, {"long_name": long_name, "units": units})
            for (name, dims, long_name, units), numbers in zip(described, values, strict=True)
        },
        coords={
            "time": ("time", valid, {"standard_name": "time", "long_name": "valid time"}),
            "channel": names(series),
        },
        attrs={
            "rendering": RENDERING if found.start is None else CARRYING,
            "kernel_size": found.kernel_size,
            "rows": size[0],
            "columns": size[1],
        },
    )


class Found(NamedTuple):
    """The Gaussians of a forecast in cells of the model's grid, [τ, N, ...], and of amplitudes in the network's units.

    start: where those that carry are at the last observed frame, [τ, N, (x, y)]; None of those that paint.
    """

    x: np.ndarray
    y: np.ndarray
    sigma: np.ndarray
    rotation: np.ndarray
    amplitudes: np.ndarray
    start: np.ndarray | None
    kernel_size: int


def after(model: Model, series: Series, window: Observed, steps: int | None = None) -> tuple[Found, np.ndarray]:
    """The Gaussians of the forecast after a window, and its valid times; raises as `of_forecast`."""
    adapter = _adapter(model)
    steps = steps or model.card.config.data.out_steps
    batch = model.batch(window.frames, steps, Intake(model).context(series, window, steps))
    coords, scale, rotation, amplitudes, start = _drawn(model, adapter, batch)
    height, width = model.card.size
    found = Found(
        x=(1 + coords[..., 0]) * (width - 1) / 2,
        y=(1 + coords[..., 1]) * (height - 1) / 2,
        sigma=scale * (adapter.kernel_size - 1) / 10,
        rotation=rotation,
        amplitudes=amplitudes,
        start=None if start is None else np.broadcast_to(start, (steps, *start.shape)),
        kernel_size=adapter.kernel_size,
    )
    return found, time_axis.following(series.time.values[window.stop - 1], model.card.step, steps)


def _adapter(model: Model) -> GaussianAdapter:
    adapter, config = drawing(model.network.adapter), model.card.config.model
    if adapter is not None:
        return adapter
    raise UsageError(
        f"{model.path} draws no Gaussians (fusion {config.fusion}, adapter {config.adapter})",
        "a model with adapter flatten, local or deform",
    )


class _Drawn(NamedTuple):
    """Gaussians of a peak-normalised drawing, in the network's units, [τ, N, ...].

    start: where those that carry are at the last observed frame, pixels, [N, 2]; None of those that paint.
    """

    coords: np.ndarray
    scale: np.ndarray
    rotation: np.ndarray
    amplitudes: np.ndarray
    start: np.ndarray | None = None


def _drawn(model: Model, adapter: GaussianAdapter, batch: Batch) -> _Drawn:
    """The Gaussians of a forecast, without those of a moving set that are drawn at no time."""
    with torch.inference_mode():
        coarse = model.network(batch).coarse
        if isinstance(adapter, DeformGS):
            return _of_set(adapter.moving(coarse, batch.observed), adapter)
        return _arrays(adapter.gaussians(coarse, batch.observed), adapter)


def _of_set(found: MovingSet, adapter: DeformGS) -> _Drawn:
    whole = _arrays(found.drawn, adapter)
    shown = (whole.amplitudes != 0).any(axis=(0, 2))
    coords, scale, rotation, amplitudes = (part[:, shown] for part in whole[:4] if part is not None)
    start = found.start[0].float().cpu().numpy()[shown] if adapter.carries else None
    return _Drawn(coords, scale, rotation, amplitudes, start)


def _arrays(drawn: Gaussians, adapter: GaussianAdapter) -> _Drawn:
    """Those of a single window."""
    if adapter.normalize == "density":
        drawn = drawn._replace(amplitudes=drawn.amplitudes * density(drawn.scale))
    return _Drawn(*(t[0].detach().float().cpu().numpy() for t in drawn))
