"""The graph that is exported: from data units to data units, with the climatology of the times that it is given."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from pdr_cli.data.climatology import HARMONICS, Climatology
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
    """Observed frames [B, T, C, H, W] in data units to the forecast [B, τ, C, H, W] in data units.

    Args:
        model: that is exported.
        steps: τ; None: the horizon of the training.
    """

    offset: Tensor
    scale: Tensor

    def __init__(self, model: Model, steps: int | None = None) -> None:
        super().__init__()
        layout.contiguous(model.network)
        self.network = model.network
        self.steps = steps or model.card.config.data.out_steps
        for name in ("offset", "scale"):
            values = torch.tensor(getattr(model.card.scaling, name), dtype=torch.float32)
            self.register_buffer(name, values[:, None, None])
        climatology = model.contexts.climatology
        self.calendar = None if climatology is None else Calendar(climatology)
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
            covariates: in network units, [B, T + τ, F, H, W].

        Returns:
            The forecast, and where an adapter has made it from a coarse one, the coarse one, which is fed back for more steps.
        """
        normal = None if self.calendar is None or times is None else self._into(self.calendar(times))
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
        return waves(day, daily) + waves(self._year_share(seconds), annual)

    def _year_share(self, seconds: Tensor) -> Tensor:
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
