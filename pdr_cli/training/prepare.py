"""From data and a configuration to windows, scaling and split."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import xarray as xr

from pdr_cli.data import bounds, formats, kinds, scaling, seen, splits, statistics, suspects, targets, windows
from pdr_cli.data import times as time_axis
from pdr_cli.data.arrays import Conventions
from pdr_cli.data.bounds import Bounds
from pdr_cli.data.covariates import Covariates
from pdr_cli.data.encoding import Encoding
from pdr_cli.data.formats import ReadOptions, datasets, staticmaps
from pdr_cli.data.limits import Limits
from pdr_cli.data.missing import Filling
from pdr_cli.data.rules import Rules
from pdr_cli.data.scaling import Scaling
from pdr_cli.data.seen import Seen
from pdr_cli.data.series import Series, names, read_frames, size
from pdr_cli.data.splits import Split
from pdr_cli.data.statistics import Climatology, Survey
from pdr_cli.data.times import Step
from pdr_cli.data.windows import FrameCache, Windows
from pdr_cli.errors import DataError, GridError, InputNotFoundError, MissingValuesError
from pdr_cli.schema import Config
from pdr_cli.system import hashes, urls
from pdr_cli.system.logs import log
from pdr_cli.training import covariates
from pdr_cli.training.ranks import ALONE, Ranks

DATASET = "dataset"  # stands for the file of a dataset in memory
BLOCK = 256  # frames hashed at once
HASHED = 16  # frames behind a URL that are hashed, evenly spaced


@dataclass(frozen=True)
class Prepared:
    """Opened and split data. Only time axes have been read, and the values of formats with missing values.

    Args:
        missing: the missing values; None if none are. Windows whose observed frames have missing values, beyond
            the cells that training never observed, are left out, unless `data.fill_missing` names a way to fill them.
        covariates: of the network, before their variables are measured; None if there are none.
        hidden: True for channels that are targets, [C]; None if none is.
    """

    series: list[Series]
    step: Step
    split: Split
    train: Windows
    val: Windows
    test: Windows
    missing: Survey | None = None
    covariates: Covariates | None = None
    hidden: np.ndarray | None = None

    @property
    def frames(self) -> int:
        """Training frames."""
        return sum(stop - start for _, start, stop in self.split.train)

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
    if all(os.path.isabs(p) or urls.remote(p) is not None for p in data.paths):
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


def open_files(config: Config, paths: Sequence[Path]) -> list[Series]:
    """Open data files as series of the preset's kind.

    Raises:
        DataError: files of another kind, or that cannot be read.
    """
    data = config.data
    options = ReadOptions(data.variables, {}, data.size, data.color, data.resample_fps, data.gray_to_rgb, data.group,
                          data.missing_value, Conventions.parse(data.assume))  # fmt: skip

    def of_variables(chosen: Sequence[str]) -> list[Series]:
        return formats.open_series(paths, replace(options, variables=chosen))

    def of_maps(like: Series) -> dict[str, np.ndarray]:
        opened = lambda: [(formats.open_fields(path, data.group), path) for path in paths]  # noqa: E731
        return staticmaps.of_entries(data.static, like, opened, data.group)

    series = covariates.opened(data, of_variables, of_maps)
    return [kinds.with_kind(one, data.kind) for one in series]


def open_dataset(config: Config, dataset: xr.Dataset) -> list[Series]:
    """A dataset in memory as a series of the preset's kind.

    Raises:
        VariableError, DataError: a dataset without the preset's variables, or of another kind.
    """
    data, here = config.data, [(dataset, Path(DATASET))]

    def of_variables(chosen: Sequence[str]) -> list[Series]:
        return [datasets.from_datasets(here, chosen, missing_values=data.missing_value)]

    def of_maps(like: Series) -> dict[str, np.ndarray]:
        return staticmaps.of_entries(data.static, like, lambda: here, data.group)

    series = covariates.opened(data, of_variables, of_maps)
    return [kinds.with_kind(one, data.kind) for one in series]


def prepare(config: Config, paths: Sequence[Path], ranks: Ranks = ALONE) -> Prepared:
    """Open files and split them; see `open_files` and `split`."""
    return split(config, open_files(config, paths), ranks)


def split(config: Config, series: list[Series], ranks: Ranks = ALONE) -> Prepared:
    """Check that series belong together, and split them in time, or clips as wholes.

    Raises:
        GridError, TimeError: series that do not belong together, or are too short.
        MissingValuesError: too few windows without missing values.
        ConfigError: `data.bounds` names a variable that the data do not have.
    """
    data, step = config.data, _common_step(series)
    bounds.check_names(data.bounds, series[0])
    parts = splits.split(series, Rules.of(data))
    cache = FrameCache(series, data.cache_mb)
    rolled = data.model_copy(update={"out_steps": data.out_steps * config.train.rollout})
    train = splits.part_windows(series, rolled, parts, "train", step, cache)
    val, test = (splits.part_windows(series, data, parts, p, step, cache) for p in ("val", "test"))
    found, hidden = ranks.once(lambda: _survey(config, series, parts)), targets.mask_of(names(series[0]), data.targets)
    if found is not None:
        train, val, test = (_with_missing(w, found, data.fill_missing, hidden) for w in (train, val, test))
    described = covariates.describe(series[0], data, step, parts.train)
    prepared = Prepared(series, step, parts, train, val, test, found, described, hidden)
    _check_windows(prepared, config.train.rollout)
    return prepared


def _common_step(series: Sequence[Series]) -> Step:
    """The time step of series with the same channels and grid."""
    first = series[0]
    step = time_axis.find_step(first.time.values, str(first.attrs["files"][0]))
    for one in series:
        if names(one) != names(first) or size(one) != size(first):
            mine, theirs = ("{} x {}".format(*size(s)) for s in (one, first))
            raise GridError(
                f"{one.attrs['files'][0]} has frames of {mine}, {first.attrs['files'][0]} of {theirs}",
                way_out="for video, --set data.size=[128,128] resizes all to one size",
            )
        windows.check_step(one.time.values, step, str(one.attrs["files"][0]))
    return step


def _survey(config: Config, series: Sequence[Series], parts: Split) -> Survey | None:
    """Missing values, of formats that have such values; None if none are missing."""
    if not series[0].attrs.get("may_lack"):
        return None
    for one in series:
        suspects.check(suspects.sample(one), one)
        suspects.warn_of_restarts(one)
    hidden = targets.mask_of(names(series[0]), config.data.targets)
    budget, seed = config.data.statistics_mb, config.train.seed
    found = statistics.survey(series, parts.train, parts.val + parts.test, budget, seed, hidden)
    if found is not None:
        log.info(
            "missing %.1f %% of the values; %.1f %% of the cells never observed in training; %d of %d frames lack more",
            100 * found.share, 100 * found.never_observed.mean(), sum(int(b.sum()) for b in found.broken),
            sum(len(b) for b in found.broken),
        )  # fmt: skip
    return found


def _with_missing(windows: Windows, found: Survey, fill_missing: str, hidden: np.ndarray | None) -> Windows:
    """The windows that lack no observed values, but in cells that training never observed and in hidden channels, [C]."""
    cells = found.never_observed
    windows = windows.with_never_observed(cells if hidden is None else cells | hidden[:, None, None])
    return windows if fill_missing != "none" else windows.unbroken(found.broken)


class Measured(NamedTuple):
    """The results of one pass over the training frames."""

    scaling: Scaling
    climatology: Climatology
    limits: Limits
    filling: Filling
    bounds: Bounds | None
    covariates: Covariates | None = None

    @property
    def encoding(self) -> Encoding:
        """Data units to network units."""
        return Encoding(self.scaling, self.filling)


def measure(prepared: Prepared, config: Config) -> Measured:
    """Read the training frames once for scaling, climatology, limits, bounds and the filling of missing values.

    Raises:
        DataError: a channel that is constant, or beyond the bounds that `data.bounds` gives it.
    """
    parts = [(prepared.series[n], start, stop) for n, start, stop in prepared.split.train]
    never_observed = None if prepared.missing is None else prepared.missing.never_observed
    found = statistics.measure(parts, config.data.statistics_mb, config.train.seed, never_observed)
    suspects.check_extremes(prepared.series[0], found.minimum, found.maximum, found.mean, found.sd)
    return Measured(
        scaling.fit(config.data.scaling, prepared.series[0], found),
        found.climatology,
        found.limits,
        Filling(found.mean, never_observed, config.data.fill_missing, found.climatology),
        bounds.resolve(config.data.bounds, prepared.series[0], found.limits, partial(statistics.count_outside, parts)),
        prepared.covariates
        and covariates.fitted(prepared.covariates, prepared.series[0], config.data, prepared.split.train),
    )


def first_frame(prepared: Prepared, measured: Measured) -> np.ndarray:
    """The last frame observed in the first training window, in network units: [C, H, W]."""
    observed, _ = prepared.train.batch([0], missing="all" if prepared.missing is not None else "none")
    times = prepared.train.times(0)[: prepared.train.in_steps]
    return measured.scaling.apply(measured.filling.apply(observed, [times])[0, -1])


def files_read(prepared: Prepared) -> tuple[dict[str, str], ...]:
    """Name and SHA-256 of every file, for the model's header; a folder of pictures counts as one, by its identity."""
    found: dict[str, dict[str, str]] = {}
    for one in prepared.series:
        files = one.attrs["files"]
        for file in files[:1] if "folder" in one.attrs else files:
            if file not in found:
                found[file] = _source(one, file)
    return tuple(found.values())


def _source(series: Series, file: str) -> dict[str, str]:
    if "folder" in series.attrs:
        return {"name": series.attrs["folder"], "sha256": series.attrs["identity"]}
    if urls.remote(file) is not None:
        return {"name": Path(file).name, "sha256": _sha256_of_some(series)}
    sha256 = _sha256_of_frames(series) if file == DATASET else hashes.sha256(Path(file))
    return {"name": Path(file).name, "sha256": sha256}


def _sha256_of_frames(series: Series) -> str:
    """Of the numbers of a dataset in memory."""
    blocks = range(0, series.sizes["time"], BLOCK)
    return hashes.sha256_of_blocks(
        read_frames(series, i, min(i + BLOCK, series.sizes["time"])).tobytes() for i in blocks
    )


def _sha256_of_some(series: Series) -> str:
    """Of the times and of a few frames: data behind a URL are not read once more for their hash."""
    times = time_axis.seconds(series.time.values)
    chosen = np.unique(np.linspace(0, len(times) - 1, HASHED).round().astype(int))
    frames = (read_frames(series, i, i + 1).tobytes() for i in chosen)
    return hashes.sha256_of_blocks(itertools.chain([times.tobytes()], frames))


def periods_seen(prepared: Prepared) -> Seen:
    """The periods and clips of training and validation, for the model's header."""
    return seen.of(prepared.series, seen.identities(prepared.series, hashes.sha256), prepared.split, prepared.step)


def _check_windows(prepared: Prepared, rollout: int) -> None:
    if len(prepared.train) and len(prepared.val):
        return
    part, windows = ("validation", prepared.val) if len(prepared.train) else ("training", prepared.train)
    length, where = windows.in_steps + windows.out_steps, prepared.series[0].attrs["files"][0]
    if prepared.missing is not None and _any_run(prepared, length):
        raise MissingValuesError(
            f"{where}: every window for {part} has missing values, beyond the cells that training never observed",
            way_out="fill them with --set data.fill_missing=persist, mean or interp",
        )
    rolled = rollout > 1 and part == "training"
    why = (
        f", of which {windows.out_steps} follow the observed ones because train.rollout is {rollout}" if rolled else ""
    )
    raise DataError(
        f"{where}: no unbroken run of {length} steps for {part}{why} "
        f"(the longest of the whole series is {_longest_run(prepared)})",
        way_out=f"use shorter windows with --set {'train.rollout=1' if rolled else 'data.in_steps=...'}",
    )


def _longest_run(prepared: Prepared) -> int:
    runs = (time_axis.segments(s.time.values, prepared.step) for s in prepared.series)
    return max((high - low for segments in runs for low, high in segments), default=0)


def _any_run(prepared: Prepared, length: int) -> bool:
    parts = prepared.split.val if len(prepared.train) else prepared.split.train
    times = (prepared.series[n].time.values[start:stop] for n, start, stop in parts)
    return any(high - low >= length for t in times for low, high in time_axis.segments(t, prepared.step))
