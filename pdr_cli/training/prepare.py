"""From data files and a configuration to what the training loop needs: windows, scaling, split."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pdr_cli.config import Config
from pdr_cli.data import formats, kinds, scaling, seen, splits, statistics, windows
from pdr_cli.data import times as time_axis
from pdr_cli.data.limits import Limits
from pdr_cli.data.missing import Filling
from pdr_cli.data.rules import Rules
from pdr_cli.data.scaling import Scaling
from pdr_cli.data.seen import Seen
from pdr_cli.data.series import Series, names, size
from pdr_cli.data.splits import Split
from pdr_cli.data.statistics import Climatology, Survey
from pdr_cli.data.times import Step
from pdr_cli.data.windows import FrameCache, Windows
from pdr_cli.errors import DataError, GridError, InputNotFoundError, MissingValuesError
from pdr_cli.system import hashes
from pdr_cli.system.logs import log


@dataclass(frozen=True)
class Prepared:
    """Opened and split data. Of other formats than NetCDF, nothing but time axes has been read yet.

    Args:
        missing: where values are missing; None if none are. Windows whose observed frames lack more than land are left
            out, unless `data.fill_missing` says how to fill them.
    """

    series: list[Series]
    step: Step
    split: Split
    train: Windows
    val: Windows
    test: Windows
    missing: Survey | None = None

    @property
    def channels(self) -> int:
        """C."""
        return int(self.series[0].sizes["channel"])

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return size(self.series[0])


def find_files(config: Config) -> list[Path]:
    """The files of `data.paths`: absolute paths, or the matches under $PDR_DATA of the first glob that has any.

    Raises:
        InputNotFoundError: none; names the files of the preset, their layout and where they are published.
    """
    data = config.data
    if all(os.path.isabs(p) for p in data.paths):
        return formats.find_inputs(data.paths)
    root = Path(os.environ.get("PDR_DATA", "data"))
    found = next(filter(None, (_matches(root, pattern) for pattern in data.paths)), [])
    if not found:
        raise InputNotFoundError(
            f"preset {config.preset} found no {' or '.join(data.paths)} under {root}/ ($PDR_DATA)",
            data.layout,
            f"published: {data.source}; or name your own files with --data",
        )
    return found


def _matches(root: Path, pattern: str) -> list[Path]:
    """Files that match a glob, or else the data files inside the folders that do."""
    matches = sorted(root.glob(pattern))
    try:
        return [p for p in matches if p.is_file()] or formats.find_inputs(matches)
    except InputNotFoundError:
        return []


def prepare(config: Config, paths: Sequence[Path]) -> Prepared:
    """Open the files, check that they belong together, and split them in time.

    Raises:
        DataError: files of another kind than the preset's.
        GridError, TimeError: files that do not belong together, or are too short.
    """
    data = config.data
    series = formats.open_series(
        paths,
        variables=data.variables,
        size=data.size,
        color=data.color,
        resample_fps=data.resample_fps,
        gray_to_rgb=data.gray_to_rgb,
    )
    series = [kinds.with_kind(one, data.kind) for one in series]
    step = time_axis.find_step(series[0].time.values, str(series[0].attrs["files"][0]))
    for one in series:
        if names(one) != names(series[0]) or size(one) != size(series[0]):
            here, there = ("{} x {}".format(*size(s)) for s in (one, series[0]))
            raise GridError(
                f"{one.attrs['files'][0]} has frames of {here}, {series[0].attrs['files'][0]} of {there}; "
                "for video, --set data.size=[128,128] brings all to one size"
            )
        windows.check_step(one.time.values, step, str(one.attrs["files"][0]))
    parts = splits.split(series, Rules.of(data))
    cache = FrameCache(series, data.cache_mb)
    train, val, test = (splits.part_windows(series, data, parts, p, step, cache) for p in ("train", "val", "test"))
    found = _survey(config, series, parts)
    if found is not None:
        train, val, test = (_with_missing(w, found, data.fill_missing) for w in (train, val, test))
    prepared = Prepared(series, step, parts, train, val, test, found)
    _check_windows(prepared, data.in_steps, data.out_steps)
    return prepared


def _survey(config: Config, series: Sequence[Series], parts: Split) -> Survey | None:
    """Where values are missing, in files that know such values."""
    if not series[0].attrs.get("may_lack"):
        return None
    found = statistics.survey(series, parts.train, parts.val + parts.test, config.data.statistics_mb, config.train.seed)
    if found is not None:
        log.info(
            "missing %.1f %% of the values; %.1f %% of the cells are land, never known in training; %d of %d frames lack more",
            100 * found.share, 100 * found.never_observed.mean(), sum(int(b.sum()) for b in found.broken),
            sum(len(b) for b in found.broken),
        )  # fmt: skip
    return found


def _with_missing(windows: Windows, found: Survey, fill_missing: str) -> Windows:
    windows = windows.with_never_observed(found.never_observed)
    return windows if fill_missing != "none" else windows.unbroken(found.broken)


class Measured(NamedTuple):
    """What a pass over the training frames tells."""

    scaling: Scaling
    climatology: Climatology
    limits: Limits
    filling: Filling


def measure(prepared: Prepared, config: Config) -> Measured:
    """Read the training frames once for scaling, climatology, limits, and what stands for missing values."""
    parts = [(prepared.series[n], start, stop) for n, start, stop in prepared.split.train]
    never_observed = None if prepared.missing is None else prepared.missing.never_observed
    found = statistics.measure(parts, config.data.statistics_mb, config.train.seed, never_observed)
    return Measured(
        scaling.fit(config.data.scaling, prepared.series[0], found),
        found.climatology,
        found.limits,
        Filling(found.mean, never_observed, config.data.fill_missing, found.climatology),
    )


def first_frame(prepared: Prepared, measured: Measured) -> np.ndarray:
    """The last frame observed in the first training window, in network units: [C, H, W]."""
    observed, _ = prepared.train.batch([0], missing="all" if prepared.missing is not None else "none")
    times = prepared.train.times(0)[: prepared.train.in_steps]
    return measured.scaling.apply(measured.filling.apply(observed, [times])[0, -1])


def what_was_read(prepared: Prepared) -> tuple[dict[str, str], ...]:
    """Name and SHA-256 of every file, for the model's header; a folder of pictures counts as one, by its identity."""
    found: dict[str, dict[str, str]] = {}
    for one in prepared.series:
        if "folder" in one.attrs:
            found[one.attrs["files"][0]] = {"name": one.attrs["folder"], "sha256": one.attrs["identity"]}
            continue
        for file in one.attrs["files"]:
            if file not in found:
                found[file] = {"name": Path(file).name, "sha256": hashes.sha256(Path(file))}
    return tuple(found.values())


def what_was_seen(prepared: Prepared) -> Seen:
    """The periods and clips of training and validation, for the model's header."""
    return seen.of(prepared.series, seen.identities(prepared.series, hashes.sha256), prepared.split, prepared.step)


def _check_windows(prepared: Prepared, in_steps: int, out_steps: int) -> None:
    if len(prepared.train) and len(prepared.val):
        return
    part = "training" if not len(prepared.train) else "validation"
    where = prepared.series[0].attrs["files"][0]
    if prepared.missing is not None and _any_run(prepared, in_steps + out_steps):
        raise MissingValuesError(
            f"{where}: every window for {part} lacks more values than land; fill them with "
            "--set data.fill_missing=persist, mean or interp"
        )
    longest = max(
        (high - low for s in prepared.series for low, high in time_axis.segments(s.time.values, prepared.step)),
        default=0,
    )
    raise DataError(
        f"{where}: no unbroken run of {in_steps + out_steps} steps for {part} "
        f"(the longest of the whole series is {longest}); use shorter windows with --set data.in_steps=..."
    )


def _any_run(prepared: Prepared, length: int) -> bool:
    parts = prepared.split.val if len(prepared.train) else prepared.split.train
    times = (prepared.series[n].time.values[start:stop] for n, start, stop in parts)
    return any(high - low >= length for t in times for low, high in time_axis.segments(t, prepared.step))
