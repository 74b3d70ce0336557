"""What a file of Gaussians holds, and whether its numbers can be drawn and are those that were written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from pdr_cli.data.formats import gaussianset
from pdr_cli.data.formats.gaussianset import GAUSSIAN, RENDERING
from pdr_cli.data.formats.stored import HASH
from pdr_cli.errors import PdrError
from pdr_cli.inspection.findings import Finding

AGAIN = "make it again with pdr export"
SIZES = "sigma_"  # before the number of an axis


def describe(path: Path) -> dict[str, Any]:
    """What a file of Gaussians holds, in words.

    Raises:
        DataError: damaged.
    """
    data = gaussianset.read(path)
    rows, columns = (data.attrs.get(name) for name in ("rows", "columns"))
    return {
        **({"title": data.attrs["title"]} if "title" in data.attrs else {}),
        "gaussians": data.sizes[GAUSSIAN],
        **({"times": _times(data)} if "time" in data.dims else {}),
        **({} if rows is None else {"grid": f"{rows} x {columns}"}),
        "numbers": {
            str(name): _range(variable) for name, variable in data.variables.items() if GAUSSIAN in variable.dims
        },
        "drawn": data.attrs[RENDERING],
    }


def findings(path: Path) -> Iterator[Finding]:
    """Everything found in a file of Gaussians, read completely."""
    try:
        data = gaussianset.read(path)
    except PdrError as error:
        yield Finding("problem", str(error), AGAIN)
        return
    yield Finding.of_hash(data.attrs.get(HASH), lambda: gaussianset.sha256(data), AGAIN)
    bad = {name: int((~np.isfinite(v.values)).sum()) for name, v in data.variables.items()}
    flat = {name: int((v.values <= 0).sum()) for name, v in data.data_vars.items() if str(name).startswith(SIZES)}
    for counts, what in ((bad, "not finite"), (flat, "not positive")):
        for name, count in counts.items():
            if count:
                yield Finding("problem", f"{count} values of {name} are {what}", AGAIN)
    if not any((*bad.values(), *flat.values())):
        yield Finding("ok", f"{data.sizes[GAUSSIAN]} Gaussians, all finite, with sizes above 0")


def _times(data: xr.Dataset) -> str:
    first, last = (str(t)[:16].replace("T", " ") for t in xr.decode_cf(data).time.values[[0, -1]])
    return f"{data.sizes['time']}, {first} to {last}"


def _range(variable: xr.Variable) -> str:
    known = variable.values[np.isfinite(variable.values)]
    units = str(variable.attrs.get("units", "1"))
    return f"{known.min(initial=np.inf):.4g} to {known.max(initial=-np.inf):.4g}" + (
        "" if units == "1" else f" {units}"
    )
