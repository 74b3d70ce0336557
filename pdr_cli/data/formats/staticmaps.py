"""Static maps: variables without a time axis, such as orography and a land mask, on the grid of a Series."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from pdr_cli.data import places
from pdr_cli.data.formats.datasets import Datasets, from_datasets
from pdr_cli.data.formats.registry import open_fields
from pdr_cli.data.series import Series, read_frames
from pdr_cli.errors import DataError, VariableError, did_you_mean


def split_name(text: str) -> tuple[str, str]:
    """File and name of an entry of `data.static`: `FILE:NAME`, or `NAME` alone, with file ""."""
    file, _, name = text.rpartition(":")
    return file, name


def of_entries(
    entries: Sequence[str], like: Series, here: Callable[[], Datasets], group: str = ""
) -> dict[str, np.ndarray]:
    """The maps that entries of `data.static` name, [H, W] by name.

    Args:
        entries: NAME or FILE:NAME.
        like: a series, whose grid the maps are brought to.
        here: opens the data, for entries without a file.
        group: of files, see `ReadOptions`.

    Raises:
        VariableError: no such map.
        GridError: another grid.
        DataError: a map that is constant or without values.
    """
    found = {}
    for entry in entries:
        file, name = split_name(entry)
        found[name] = of_datasets([(open_fields(Path(file), group), Path(file))] if file else here(), name, like)
    return found


def of_datasets(opened: Datasets, name: str, like: Series) -> np.ndarray:
    """The map `name` of open datasets, [H, W]; errors as for `of_entries`."""
    dataset, path = next(((d, p) for d, p in opened if name in d.variables), opened[0])
    if name not in dataset.variables:
        maps = [str(n) for n, v in dataset.variables.items() if v.ndim >= 2]
        raise VariableError(f"{path} has no variable {name!r}.{did_you_mean(name, maps)}", way_out="see pdr inspect")
    found = from_datasets([(_as_frame(dataset, name, path, like), path)], [name])
    turn = places.aligned(found, like, name, "the data")
    values = turn.apply(read_frames(found, 0, 1)[0, 0])
    if not np.isfinite(values).any() or np.nanmin(values) == np.nanmax(values):
        raise DataError(f"{path}: {name} is the same everywhere", "a map whose values differ", "leave it out")
    return values


def _as_frame(dataset: xr.Dataset, name: str, path: Path, like: Series) -> xr.Dataset:
    """A dataset of the map alone, dated as the first frame of `like`.

    Raises:
        VariableError: it has a time axis.
    """
    whole = dataset.reset_coords(name) if name in dataset.coords else dataset
    short = [str(d) for d, n in whole[name].sizes.items() if n == 1]
    field = whole[name].isel(dict.fromkeys(short, 0))
    if field.ndim != 2:
        dims = ", ".join(f"{d} ({n})" for d, n in field.sizes.items())
        raise VariableError(
            f"{path}: {name} has the dimensions {dims}", "a map on y and x", f"for frames in time use --input {name}"
        )
    beside = [str(n) for n, v in whole.variables.items() if n != name and v.dims and set(v.dims) <= set(field.dims)]
    alone = whole[beside].assign({name: field.reset_coords(drop=True).variable})
    alone[name] = alone[name].expand_dims("time")
    return alone.assign_coords(time=like.time.values[:1])
