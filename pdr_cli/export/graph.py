"""The graph that is exported: from data units to data units, with the climatology of the times that it is given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from pdr_cli.data import almanac
from pdr_cli.data.climatology import HARMONICS, Climatology
from pdr_cli.data.covariates import Covariates
from pdr_cli.data.places import Grid, latitudes_and_longitudes
from pdr_cli.data.times import DAY, WEEK
from pdr_cli.inference.exported import COARSE, FORECAST
from pdr_cli.inference.model import Model
from pdr_cli.models import layout
from pdr_cli.models.bounds import Bounds
from pdr_cli.models.interfaces import Batch

MONDAY = 4 * int(DAY)  # 1970-01-05, in seconds
CYCLE = 146_097  # days of the 400 years after which the calendar and the days of the week repeat
CYCLES = 5  # added, so that times before 1970 are positive
EPOCH = 719_468  # days from 0000-03-01 to 1970-01-01


class Graph(nn.Module):
    """Observed frames [B, T, C, H, W] in data units to the forecast [B, τ, C, H, W] in data units."""

    offset: Tensor
    scale: Tensor

    def __init__(self, model: Model) -> None:
        super().__init__()
        layout.contiguous(model.network)
        self.network = model.network
        self.steps = model.card.config.data.out_steps
        for name in ("offset", "scale"):
            values = torch.tensor(getattr(model.card.scaling, name), dtype=torch.float32)
            self.register_buffer(name, values[:, None, None])
        climatology = model.contexts.climatology
        self.calendar = None if climatology is None else Calendar(climatology)
        covariates = model.card.covariates
        self.dates = None if covariates is None or not covariates.dates else Dates(covariates, model.card.grid)
        bounds = model.card.bounds
        self.bounded: nn.Module = (
            nn.Identity() if bounds is None else Bounds(*(torch.from_numpy(e[:, 0, 0]) for e in bounds.ends()))
        )

    def forward(
        self,
        observed: Tensor,
        times: Tensor | None = None,
        earlier: Tensor | None = None,
        covariates: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """Scale, forecast, scale back, and bound again, because scaling rounds.

        Args:
            observed: [B, T, C, H, W].
            times: of observed and forecast frames, [B, T + τ] int64 seconds since 1970-01-01 of the standard calendar.
            earlier: the frame of the same time in earlier cycles, [B, L, τ, C, H, W]; NaN where it is missing.
            covariates: those that do not follow from times and places, in network units, [B, T + τ, F - D, H, W].

        Returns:
            The forecast, and where an adapter has made it from a coarse one, the coarse one, which is fed back for more steps.
        """
        normal = None if self.calendar is None or times is None else self._into(self.calendar(times))
        if self.dates is not None:
            dates = self.dates(times, (observed.shape[0], observed.shape[1] + self.steps))
            covariates = dates if covariates is None else torch.cat([dates, covariates], dim=2)
        batch = Batch(self._into(observed), self.steps, normal=normal, covariates=covariates)
        made = self.network(batch._replace(earlier=None if earlier is None else self._into(earlier)))
        forecast: Tensor = self.bounded(self._back(made.fused))
        return (forecast,) if self.network.adapter is None else (forecast, self._back(made.coarse))

    @property
    def outputs(self) -> list[str]:
        """Names of what `forward` returns."""
        return [FORECAST] if self.network.adapter is None else [FORECAST, COARSE]

    def _back(self, frames: Tensor) -> Tensor:
        return frames * self.scale + self.offset

    def _into(self, frames: Tensor) -> Tensor:
        return (frames - self.offset) / self.scale


class Calendar(nn.Module):
    """The climatology of times in the standard calendar: [B, n] int64 seconds since 1970 → [B, n, C, H, W].

    It computes what `Climatology.at` does, in operations that other runtimes have.
    """

    coefficients: Tensor

    def __init__(self, climatology: Climatology) -> None:
        super().__init__()
        self.design = climatology.design
        self.register_buffer("coefficients", torch.from_numpy(np.ascontiguousarray(climatology.coefficients)))

    def forward(self, times: Tensor) -> Tensor:
        flat = times.flatten() + CYCLES * CYCLE * int(DAY)
        first = self._group(flat) * self.design.terms
        frames = self.coefficients[first]
        if self.design.terms > 1:
            for term, share in enumerate(self._waves(flat), 1):
                frames = frames + share.to(frames.dtype)[:, None, None, None] * self.coefficients[first + term]
        return frames.unflatten(0, times.shape)

    def _group(self, seconds: Tensor) -> Tensor:
        groups = self.design.groups
        if groups == 1:
            return torch.zeros_like(seconds)
        if self.design.kind == "month":
            return date_of(seconds // int(DAY)).month - 1
        period, start = (int(WEEK), MONDAY) if "week" in self.design.kind else (int(DAY), 0)
        phase = torch.remainder(seconds - start, period).double() / period
        return torch.remainder(torch.round(phase * groups).long(), groups)

    def _waves(self, seconds: Tensor) -> list[Tensor]:
        """Cosines and sines of the elapsed share of the calendar year, of harmonics those of the day before."""
        daily, annual = self.design.harmonics or (0, HARMONICS)
        day = torch.remainder(seconds, int(DAY)).double() / int(DAY)
        return waves(day, daily) + waves(year_share(seconds), annual)


class Dates(nn.Module):
    """Calendar terms and maps: times [B, n] int64 seconds since 1970 → [B, n, D, H, W], in network units.

    It computes what `CovariateSource.dates` does, in operations that other runtimes have.
    """

    holidays: Tensor | None
    maps: Tensor | None
    north: Tensor
    east: Tensor

    def __init__(self, covariates: Covariates, grid: Grid) -> None:
        super().__init__()
        self.names, self.size = covariates.calendar, grid.size
        days = np.array(covariates.holidays, "datetime64[D]").astype(np.int64)
        maps = np.array([packed.values for packed in covariates.static.values()], np.float32)
        places = latitudes_and_longitudes(grid) if almanac.SUN in self.names else None
        for name, values in (("holidays", days), ("maps", maps)):
            # A program of torch.export cannot hold two empty tensors.
            self.register_buffer(name, torch.from_numpy(values) if len(values) else None)
        for name, degrees in zip(("north", "east"), places or (np.zeros(1), np.zeros(1)), strict=True):
            radians = np.deg2rad(np.broadcast_to(degrees, grid.size if places else (1,)))
            self.register_buffer(name, torch.from_numpy(np.array(radians, np.float64)))

    def forward(self, times: Tensor | None, shape: tuple[int, int]) -> Tensor:
        """`shape`: (B, n)."""
        found = [] if times is None else [field for name in self.names for field in self._fields(name, times)]
        fields = [field.float().expand(*shape, *self.size)[:, :, None] for field in found]
        return torch.cat(fields if self.maps is None else [*fields, self.maps.expand(*shape, *self.maps.shape)], dim=2)

    def _fields(self, name: str, times: Tensor) -> list[Tensor]:
        """The fields of a calendar term, each [B, n, 1 or H, 1 or W]."""
        if name == almanac.SUN:
            return [self._sun(times)]
        if name == almanac.HOLIDAYS:
            holidays = torch.zeros(0, dtype=torch.int64) if self.holidays is None else self.holidays
            days = times // int(DAY)
            return [(days[..., None] == holidays).any(dim=-1).double()[..., None, None]]
        if name == "hour":
            phase = torch.remainder(times, int(DAY)).double() / DAY
        elif name == "weekday":
            phase = (torch.remainder(times - MONDAY, int(WEEK)) // int(DAY)).double() / 7
        else:
            phase = year_share(times + CYCLES * CYCLE * int(DAY))
        angle = (2 * torch.pi * phase)[..., None, None]
        return [torch.sin(angle), torch.cos(angle)]

    def _sun(self, times: Tensor) -> Tensor:
        """See `almanac.sine_of_elevation`: [B, n, H, W]."""
        year = (2 * torch.pi * year_share(times + CYCLES * CYCLE * int(DAY)))[..., None, None]
        noon = (torch.remainder(times, int(DAY)).double() / DAY - 0.5)[..., None, None]
        sun = series(almanac.DECLINATION, year)
        angle = 2 * torch.pi * noon + self.east + series(almanac.EQUATION_OF_TIME, year)
        high = torch.sin(self.north) * torch.sin(sun)
        return high + torch.cos(self.north) * torch.cos(sun) * torch.cos(angle)


def series(coefficients: Sequence[tuple[float, float]], angle: Tensor) -> Tensor:
    """The Fourier series with the coefficients of cos(n angle) and sin(n angle), n from 0."""
    found = torch.zeros_like(angle)
    for n, (cosine, sine) in enumerate(coefficients):
        found = found + cosine * torch.cos(n * angle) + sine * torch.sin(n * angle)
    return found


def year_share(seconds: Tensor) -> Tensor:
    """The elapsed share of the calendar year; seconds: since 1970, positive."""
    date = date_of(seconds // int(DAY))
    began, length = first_day(date.year), first_day(date.year + 1) - first_day(date.year)
    return (seconds - began * int(DAY)).double() / (length * int(DAY)).double()


def waves(phase: Tensor, harmonics: int) -> list[Tensor]:
    """Cosines of 1 to `harmonics` times a phase in [0, 1), and then the sines."""
    angles = [2 * torch.pi * phase * n for n in range(1, harmonics + 1)]
    return [torch.cos(a) for a in angles] + [torch.sin(a) for a in angles]


@dataclass(frozen=True)
class Date:
    """Year and month, 1 to 12, of days."""

    year: Tensor
    month: Tensor


def date_of(days: Tensor) -> Date:
    """The dates of days since 1970-01-01 in the proleptic Gregorian calendar, in whole numbers (Richards, 2013)."""
    from_march = days + EPOCH
    era = from_march // CYCLE
    day = from_march - era * CYCLE
    year = (day - day // 1460 + day // 36524 - day // 146096) // 365
    month = (5 * (day - (365 * year + year // 4 - year // 100)) + 2) // 153  # 0 is March
    late = (month >= 10).long()
    return Date(year + era * 400 + late, month + 3 - 12 * late)


def first_day(year: Tensor) -> Tensor:
    """Days from 1970-01-01 to the first of January of a year."""
    before = year - 1
    return 365 * (year - 1970) + before // 4 - before // 100 + before // 400 - 477
