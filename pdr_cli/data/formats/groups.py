"""Groups of NetCDF and Zarr: the one that holds the fields, with the coordinates that it inherits from its parents."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import xarray as xr

from pdr_cli.data.formats import axes
from pdr_cli.errors import VariableError, did_you_mean
from pdr_cli.system.logs import log

ROOT = "/"
Open = Callable[[str], xr.Dataset]  # one group by its path, "" for the root, as it is stored


def fields(path: Path, group: str, groups: Callable[[], list[str]], read: Open) -> xr.Dataset:
    """The dataset of the group that holds the fields of a file.

    Args:
        path: of the file, for messages.
        group: path of the group; "": the root if it has fields, or else the only group that has some.
        groups: paths of all groups but the root, such as "/observed/hourly"; called where they are needed.
        read: opens one group.

    Raises:
        VariableError: no such group, or fields in several of them.
    """
    chosen = "/".join(["", *filter(None, group.split("/"))])
    if chosen:
        _check_exists(path, chosen, groups())
        return _inherited(chosen, read)
    root = read("")
    return root if group == ROOT or axes.gridded(root) else _found(path, root, groups(), read)


def _found(path: Path, root: xr.Dataset, groups: list[str], read: Open) -> xr.Dataset:
    """The dataset of the only group with fields; the root if no group has any."""
    holders = {name: dataset for name in groups if axes.gridded(dataset := _inherited(name, read))}
    if len(holders) > 1:
        raise VariableError(
            f"{path} has fields in {len(holders)} groups: {', '.join(holders)}",
            way_out=f"choose one with --group {next(iter(holders))}",
        )
    for name, dataset in holders.items():
        log.info("group   %s of %s holds the fields", name, path)
        return dataset
    return root


def _check_exists(path: Path, group: str, groups: list[str]) -> None:
    if group not in groups:
        has = f"its groups are {', '.join(groups)}" if groups else "it has no groups"
        raise VariableError(
            f"{path} has no group {group}; {has}.{did_you_mean(group, groups)}",
            way_out=f"--group {ROOT} reads the variables outside of groups",
        )


def _inherited(group: str, read: Open) -> xr.Dataset:
    """A group with the coordinates of its parents that lie along its dimensions, and the variables that it refers to."""
    dataset, parent = read(group), group
    while parent:
        parent = parent.rpartition("/")[0]
        above = read(parent)
        for name in [*above.coords, *_referred(dataset)]:
            if name not in dataset.variables and name in above.variables and _fits(dataset, above[name]):
                dataset = dataset.assign_coords({name: above[name].variable})
    return dataset


def _referred(dataset: xr.Dataset) -> list[str]:
    """Names in the attributes of variables: auxiliary coordinates, grid mappings and bounds."""
    every = [{**v.encoding, **v.attrs} for v in dataset.variables.values()]
    texts = (str(about.get(key, "")) for about in every for key in ("coordinates", "grid_mapping", "bounds"))
    return [name for text in texts for name in text.replace(":", " ").split()]


def _fits(dataset: xr.Dataset, variable: xr.DataArray) -> bool:
    """Whether a variable of a parent has no other dimensions than a group, of the same lengths."""
    return all(dataset.sizes.get(dim) == size for dim, size in variable.sizes.items())
