"""From data files and a configuration to what the training loop needs: windows, scaling, split."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pdr_cli import files
from pdr_cli.config import Config
from pdr_cli.data import formats, scaling, splits, statistics, windows
from pdr_cli.data import times as time_axis
from pdr_cli.data.scaling import Scaling
from pdr_cli.data.series import Series, names, size
from pdr_cli.data.splits import Seen, Split
from pdr_cli.data.statistics import Climatology
from pdr_cli.data.times import Step
from pdr_cli.data.windows import FrameCache, Windows
from pdr_cli.errors import DataError, GridError

KIND_OF_FORMAT = {"netcdf": "weather", "hdf5": "traffic", "npz": "traffic", "video": "video"}


@dataclass(frozen=True)
class Prepared:
    """Opened and split data; nothing but time axes has been read yet."""

    series: list[Series]
    step: Step
    split: Split
    train: Windows
    val: Windows
    test: Windows

    @property
    def channels(self) -> int:
        """C."""
        return int(self.series[0].sizes["channel"])

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return size(self.series[0])


def prepare(config: Config, paths: Sequence[Path]) -> Prepared:
    """Open the files, check that they belong together, and split them in time.

    Raises:
        DataError: files of another kind than the preset's.
        GridError, TimeError: files that do not belong together, or are too short.
    """
    data = config.data
    series = formats.open_series(paths, variables=data.variables, size=data.size, color=data.color)
    _check_kind(config, series[0])
    step = time_axis.find_step(series[0].time.values, str(series[0].attrs["files"][0]))
    for one in series:
        if names(one) != names(series[0]) or size(one) != size(series[0]):
            here, there = ("{} x {}".format(*size(s)) for s in (one, series[0]))
            raise GridError(
                f"{one.attrs['files'][0]} has frames of {here}, {series[0].attrs['files'][0]} of {there}; "
                "for video, --set data.size=[128,128] brings all to one size"
            )
        windows.check_step(one.time.values, step, str(one.attrs["files"][0]))
    parts = splits.split(series, splits.Rules.of(data))
    cache = FrameCache(series, data.cache_mb)
    train, val, test = (splits.part_windows(series, data, parts, p, step, cache) for p in ("train", "val", "test"))
    prepared = Prepared(series, step, parts, train, val, test)
    _check_windows(prepared, data.in_steps, data.out_steps)
    return prepared


def measure(prepared: Prepared, config: Config) -> tuple[Scaling, Climatology]:
    """Read the training frames once for scaling and climatology."""
    parts = [(prepared.series[n], start, stop) for n, start, stop in prepared.split.train]
    found = statistics.measure(parts, config.data.statistics_mb, config.train.seed)
    return scaling.fit(config.data.scaling, prepared.series[0], found), found.climatology


def first_frame(prepared: Prepared, scaling: Scaling) -> np.ndarray:
    """The last frame observed in the first training window, in network units: [C, H, W]."""
    observed, _ = prepared.train.batch([0])
    return scaling.apply(observed[0, -1])


def identities(series: Sequence[Series]) -> list[str]:
    """What tells series apart in a model's memory: what they bring, or a clip's SHA-256; nothing where times are dates.

    Several sequences of one clip share its hash; their times tell them apart.
    """
    hashed = functools.cache(files.sha256)
    return [
        s.attrs["identity"]
        if "identity" in s.attrs
        else hashed(Path(s.attrs["files"][0]))
        if s.attrs["format"] == "video"
        else ""
        for s in series
    ]


def what_was_read(prepared: Prepared) -> tuple[dict[str, str], ...]:
    """Name and SHA-256 of every file, for the model's header; a folder of pictures counts as one, by its identity."""
    found: dict[str, dict[str, str]] = {}
    for one in prepared.series:
        if "folder" in one.attrs:
            found[one.attrs["files"][0]] = {"name": one.attrs["folder"], "sha256": one.attrs["identity"]}
            continue
        for file in one.attrs["files"]:
            if file not in found:
                found[file] = {"name": Path(file).name, "sha256": files.sha256(Path(file))}
    return tuple(found.values())


def what_was_seen(prepared: Prepared) -> Seen:
    """The periods and clips of training and validation, for the model's header."""
    return splits.seen(prepared.series, identities(prepared.series), prepared.split, prepared.step)


def _check_kind(config: Config, series: Series) -> None:
    kind = KIND_OF_FORMAT.get(series.attrs["format"], config.data.kind)
    if config.data.kind not in ("any", kind):
        raise DataError(
            f"{series.attrs['files'][0]} is {series.attrs['format']}, but preset {config.preset} is for {config.data.kind}; "
            f"take {kind}-small, or see `pdr presets`"
        )


def _check_windows(prepared: Prepared, in_steps: int, out_steps: int) -> None:
    if len(prepared.train) and len(prepared.val):
        return
    part = "training" if not len(prepared.train) else "validation"
    longest = max(
        (high - low for s in prepared.series for low, high in time_axis.segments(s.time.values, prepared.step)),
        default=0,
    )
    raise DataError(
        f"{prepared.series[0].attrs['files'][0]}: no unbroken run of {in_steps + out_steps} steps for {part} "
        f"(the longest of the whole series is {longest}); use shorter windows with --set data.in_steps=..."
    )
