"""Scores by season and by region: the same statistics on a part of the windows, or of the cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from pdr_cli.data import places
from pdr_cli.data import times as time_axis
from pdr_cli.data.series import names
from pdr_cli.errors import UsageError, did_you_mean
from pdr_cli.verification.aggregation import Blocks, Tally
from pdr_cli.verification.scores import BoundScore
from pdr_cli.verification.sections import ByLead
from pdr_cli.verification.statistics import Sample
from pdr_cli.verification.task import Task

BY = ("season", "region")
SEASONS = ("DJF", "MAM", "JJA", "SON")
TROPICS = 20.0  # degrees of latitude, as WeatherBench 2 has it


class Strata:
    """The scores of every forecaster in each season of the init times, and in each region.

    Args:
        by: of `BY`.
        task: whose windows and grid are divided.
        scores: by name.
        scale: [C], see `Tally`.

    Raises:
        UsageError: an unknown name; times that are not dates; a grid without latitudes.
    """

    def __init__(self, by: Sequence[str], task: Task, scores: Mapping[str, BoundScore], scale: np.ndarray) -> None:
        for name in by:
            if name not in BY:
                raise UsageError(f"--by {name} is not known.{did_you_mean(name, BY)}", " or ".join(BY))
        self.windows = seasons(task) if "season" in by else {}
        self.cells = regions(task) if "region" in by else {}
        self.scores, self.scale, self.channels = scores, scale, names(task.truth)
        self.one_block = Blocks(np.zeros(len(task.windows), int))
        self.tallies: dict[str, dict[str, Tally]] = {}

    def add(self, name: str, sample: Sample, which: np.ndarray) -> None:
        """Count the windows numbered `which` of one forecaster."""
        for label, chosen in self.windows.items():
            rows = np.flatnonzero(chosen[which])
            if len(rows):
                self._tally(label, name).add(_rows(sample, rows), which[rows])
        for label, mask in self.cells.items():
            self._tally(label, name).add(_inside(sample, mask), which)

    def _tally(self, label: str, name: str) -> Tally:
        row = self.tallies.setdefault(label, {})
        return row.setdefault(name, Tally(self.scores, self.one_block, self.scale))

    def section(self) -> dict[str, dict[str, dict[str, ByLead]]]:
        """{season or region: {forecaster: {score: values}}}, seasons first."""
        order = [label for label in (*self.windows, *self.cells) if label in self.tallies]
        return {label: {n: t.result(self.channels) for n, t in self.tallies[label].items()} for label in order}


def seasons(task: Task) -> dict[str, np.ndarray]:
    """The windows whose init lies in each season, True for them: [n]; seasons without any are left out."""
    windows = task.windows
    if not windows.dated:
        raise UsageError("--by season: times are seconds, not dates", way_out="leave it out")
    inits = [windows.times(i)[windows.in_steps - 1] for i in range(len(windows))]
    month = time_axis.months(np.asarray(inits)) % 12
    season = (month + 1) % 12 // 3
    return {label: season == number for number, label in enumerate(SEASONS) if (season == number).any()}


def several_seasons(task: Task) -> dict[str, np.ndarray]:
    """As `seasons`; nothing where all windows lie in one season, or times are not dates."""
    found = seasons(task) if task.windows.dated else {}
    return found if len(found) > 1 else {}


def regions(task: Task) -> dict[str, np.ndarray]:
    """The cells of the tropics and of both sides of them: [H, W]; regions without any are left out."""
    found = places.latitudes_and_longitudes(places.of(task.truth))
    if found is None:
        raise UsageError("--by region: the grid has no latitudes", "a grid of latitudes and longitudes", "leave it out")
    lat = np.broadcast_to(found[0], places.of(task.truth).size)
    parts = {
        f"north of {TROPICS:g} N": lat > TROPICS,
        "tropics": np.abs(lat) <= TROPICS,
        f"south of {TROPICS:g} S": lat < -TROPICS,
    }
    return {label: mask for label, mask in parts.items() if mask.any()}


def _rows(sample: Sample, rows: np.ndarray) -> Sample:
    """Some windows of a sample."""
    climate = None if sample.climate is None else sample.climate[rows]
    members = None if sample.members is None else sample.members[:, rows]
    return Sample(sample.forecast[rows], sample.truth[rows], climate, sample.masked, members)


def _inside(sample: Sample, mask: np.ndarray) -> Sample:
    """A sample without the cells outside of a region."""

    def within(frames: np.ndarray) -> np.ndarray:
        return np.where(mask, frames, np.float32(np.nan))

    members = None if sample.members is None else within(sample.members)
    return replace(sample, forecast=within(sample.forecast), truth=within(sample.truth), masked=True, members=members)
