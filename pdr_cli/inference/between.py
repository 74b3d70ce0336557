"""Forecasts between the steps of a model, which networks make that are continuous in time."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pdr_cli.data import times as time_axis
from pdr_cli.data.series import Series
from pdr_cli.errors import UsageError

if TYPE_CHECKING:
    from pdr_cli.data.times import Step
    from pdr_cli.inference.loaded import LoadedModel

MOST = 100  # frames in a step


@dataclass(frozen=True)
class Between:
    """How finely a forecast divides the steps of its model.

    Args:
        parts: frames in a step; 1: the steps themselves.
    """

    parts: int = 1

    @classmethod
    def parse(cls, every: float | None) -> Between:
        """The parts of `--every`, such as 0.5; None: whole steps.

        Raises:
            UsageError: a number that is not 1/n.
        """
        parts = 1 if every is None else round(1 / every) if every > 0 else 0
        if every is not None and (not 1 <= parts <= MOST or abs(parts * every - 1) > 1e-3):
            raise UsageError(
                f"--every {every:g}", f"a step divided by a whole number up to {MOST}, such as 0.5 or 0.25"
            )
        return cls(parts)

    def check(self, model: LoadedModel) -> None:
        """Refuse a model that forecasts whole steps only: in between, its frames could only be blended.

        Raises:
            UsageError: such a model, an exported program, or steps of calendar months.
        """
        if self.parts == 1:
            return
        model.needs_network("--every")
        if model.card.step.unit == "month":
            raise UsageError(f"--every: the steps of {model.label} are months, which differ in length")
        if not model.continuous:
            raise UsageError(
                f"--every: {model.label} forecasts whole steps, and between them its frames could only be blended",
                "a model that moves, such as one of the presets video-small, video-deform or weather-deform",
            )

    def times(self, steps: int) -> tuple[float, ...]:
        """The times of the frames of so many steps, in steps; () for whole steps."""
        return () if self.parts == 1 else tuple((i + 1) / self.parts for i in range(steps * self.parts))

    def dated(self, made: Series, init: Any, step: Step) -> Series:
        """A forecast of these frames with its times: the frames follow each other by a part of a step."""
        if self.parts == 1:
            return made
        valid = time_axis.following(init, replace(step, count=step.count / self.parts), made.sizes["time"])
        lead = made.forecast_period.values / self.parts
        period = ("time", lead, made.forecast_period.attrs)
        return made.assign_coords(time=("time", valid, made.time.attrs)).assign_coords(forecast_period=period)

    def identity(self) -> dict[str, Any]:
        """What a request's identity holds of it; nothing for whole steps."""
        return {} if self.parts == 1 else {"parts": self.parts}


WHOLE = Between()
