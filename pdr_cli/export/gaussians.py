"""The Gaussians of a forecast as numbers: which one is where, how large, how turned, how strong."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import xarray as xr

from pdr_cli.data import times as time_axis
from pdr_cli.data.series import Series, names
from pdr_cli.errors import UsageError
from pdr_cli.inference.model import Model, Observed
from pdr_cli.models.gaussians.base import GaussianAdapter
from pdr_cli.models.interfaces import Batch
from pdr_cli.splat.reference import density
from pdr_cli.system.atomic import atomic_output


def drawn_by(model: Model) -> bool:
    """Whether a model draws Gaussians at all."""
    return isinstance(model.network.adapter, GaussianAdapter)


def of_forecast(model: Model, series: Series, window: Observed, steps: int | None = None) -> xr.Dataset:
    """The Gaussians drawn for the forecast after a window: dims (time, gaussian, channel), in pixels.

    Raises:
        UsageError: the model has none (fusion none, or an adapter without).
    """
    adapter = model.network.adapter
    if not isinstance(adapter, GaussianAdapter):
        wanted = model.card.config.model
        raise UsageError(
            f"{model.path} draws no Gaussians (fusion {wanted.fusion}, adapter {wanted.adapter}); "
            "a model with adapter flatten or local does"
        )
    steps = steps or model.card.config.data.out_steps
    with torch.inference_mode():
        x = torch.from_numpy(model.card.scaling.apply(window.frames)).to(model.device)
        drawn = adapter.gaussians(model.network(Batch(x, steps)).coarse, x)
    if adapter.normalize == "density":
        drawn = drawn._replace(amplitudes=drawn.amplitudes * density(drawn.scale))
    coords, scale, rotation, amplitudes = (t[0].float().cpu().numpy() for t in drawn)
    height, width = model.card.size
    sigma = scale * (adapter.kernel_size - 1) / 10
    columns, rows = (1 + coords[..., 0]) * (width - 1) / 2, (1 + coords[..., 1]) * (height - 1) / 2
    x_pixel, y_pixel, rotation = window.turn.invert_points(columns, rows, rotation, (height, width))
    valid = time_axis.following(series.time.values[window.stop - 1], model.card.step, steps)
    plane = ("time", "gaussian")
    return xr.Dataset(
        {
            "x": (plane, x_pixel, {"long_name": "centre, columns from the first", "units": "1"}),
            "y": (plane, y_pixel, {"long_name": "centre, rows from the first", "units": "1"}),
            "sigma_1": (plane, sigma[..., 0], {"long_name": "standard deviation along the first axis, cells", "units": "1"}),
            "sigma_2": (plane, sigma[..., 1], {"long_name": "standard deviation along the second axis, cells", "units": "1"}),
            "rotation": (plane, rotation, {"long_name": "first axis from +x towards +y (rows)", "units": "radian"}),
            "amplitude": (
                (*plane, "channel"), amplitudes, {"long_name": "value at the centre, in the network's units", "units": "1"},
            ),
        },
        coords={
            "time": ("time", valid, {"standard_name": "time", "long_name": "valid time"}),
            "channel": names(series),
        },
        attrs={
            "rendering": "sum of amplitude exp(-q/2), peak-normalised, on a lattice placed bilinearly; see pdr_cli.splat.render",
            "kernel_size": adapter.kernel_size,
            "rows": height,
            "columns": width,
        },
    )  # fmt: skip


def write(model: Model, series: Series, window: Observed, path: Path, provenance: Mapping[str, str]) -> int:
    """Write `of_forecast` as NetCDF; returns how many Gaussians a frame has."""
    dataset = of_forecast(model, series, window)
    dataset.attrs |= {k: v for k, v in provenance.items() if v}
    encoding = {str(n): {"zlib": True, "dtype": "float32"} for n in dataset.data_vars}
    with atomic_output(path, verify=_reopen) as temporary:
        dataset.to_netcdf(temporary, engine="netcdf4", encoding=encoding)
    return dataset.sizes["gaussian"]


def _reopen(path: Path) -> None:
    with xr.open_dataset(path, engine="netcdf4") as back:
        assert all(np.isfinite(back[n].values).all() for n in back.data_vars)
