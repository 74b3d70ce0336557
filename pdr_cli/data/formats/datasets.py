"""From open datasets to a Series: channels chosen, levels taken, files joined along time or stacked as channels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import xarray as xr

from pdr_cli.data.formats import joining, selection
from pdr_cli.data.formats.channels import Opened, choose
from pdr_cli.data.formats.parts import Channel, part
from pdr_cli.data.series import Series
from pdr_cli.system.logs import log

Datasets = Sequence[tuple[xr.Dataset, Path]]


def from_datasets(
    datasets: Datasets,
    variables: Sequence[str] = (),
    rename: Mapping[str, str] | None = None,
    missing_values: Sequence[str] = (),
) -> Series:
    """One lazy Series of open files.

    Args:
        datasets: of one grid, and their paths for messages. Those that hold the same variable are joined along time in the
            order of their first times; other variables are stacked as channels.
        variables: names to read as channels, `t@850` for the level 850 of t; "all": see `selection.chosen`; empty: the only
            gridded variable.
        rename: {channel: name in the files}.
        missing_values: see `ReadOptions`.

    Raises:
        DataError: damaged.
        VariableError: a variable is missing, or must be chosen among several.
        TimeError: no usable time axis, a repeated time, or variables at different times.
        GridError: the files or the variables have different grids.
        UnitsError: the files have units that cannot be converted to each other.
    """
    opened = [Opened.of(dataset, path) for dataset, path in datasets]
    sources = choose(opened, selection.chosen(opened, variables), dict(rename or {}))
    files: dict[str, list[tuple[int, Channel]]] = {
        name: [(i, Channel.of(one, name, s)) for i, one in enumerate(opened) if s.name in one.finder.gridded]
        for name, s in sources.items()
    }
    used = {i for held in files.values() for i, _ in held}
    if len(used) < len(opened):
        log.info("fields  %d of %d files hold none of %s", len(opened) - len(used), len(opened), ", ".join(sources))
    together: dict[object, list[str]] = {}
    for name, held in files.items():
        together.setdefault(tuple((i, channel.signature) for i, channel in held), []).append(name)
    joined = [_joined(opened, [files[name] for name in chosen], missing_values) for chosen in together.values()]
    made = joined[0] if len(joined) == 1 else joining.stack(joined, list(sources))
    return made.assign_attrs(missing_values=tuple(missing_values)) if missing_values else made


def _joined(
    opened: Sequence[Opened], held: Sequence[Sequence[tuple[int, Channel]]], missing_values: Sequence[str]
) -> Series:
    """Channels that the same files hold on the same axes, joined along time."""
    parts = (part(opened[of[0][0]], [channel for _, channel in of], missing_values) for of in zip(*held, strict=True))
    return joining.join(list(parts))
