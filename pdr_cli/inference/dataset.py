"""Forecasts as an `xarray.Dataset`: the Dataset that xarray opens from the file of the same layout."""

from __future__ import annotations

import numpy as np
import xarray as xr

from pdr_cli.data.formats import cf
from pdr_cli.data.formats.cf import Layout


def of_layout(layout: Layout, frames: np.ndarray) -> xr.Dataset:
    """The Dataset of a layout and the numbers of its fields, in memory.

    Args:
        layout: coordinates, dimensions, names and attributes.
        frames: [n, ..., C, H, W], NaN where values are missing.
    """
    variables = {c.name: xr.Variable(c.dims, c.values, c.attrs) for c in layout.coordinates}
    for index, (name, attrs) in enumerate(layout.fields.items()):
        values = cf.filled(frames[..., index, :, :])
        variables[name] = xr.Variable(layout.dims, values, {"_FillValue": cf.FILL, **attrs})
    # Decoded like the file, so that times, coordinates and encoding are the file's.
    return xr.decode_cf(xr.Dataset(variables, attrs=layout.attrs)).load()
