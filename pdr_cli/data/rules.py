"""Rules: how series are divided into training, validation and test."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import NamedTuple

from pdr_cli.schema import DataConfig


class Periods(NamedTuple):
    """Dates of each part, such as "2010/2015", or its last days, such as "28d"; "" leaves it to the fractions."""

    train: str = ""
    val: str = ""
    test: str = ""


@dataclass(frozen=True)
class Rules:
    """How a series is divided.

    Args:
        val_fraction: share of the time axis, or of the clips, for validation.
        test_fraction: the same for the test.
        in_steps: observed frames of a window, T.
        out_steps: following frames of a window, τ.
        periods: of the parts; they take precedence over the fractions.
        protocol: "honest", or "openstl": windows and validation are those of published results.
    """

    val_fraction: float
    test_fraction: float
    in_steps: int
    out_steps: int
    periods: Periods = field(default_factory=Periods)
    protocol: str = "honest"

    @classmethod
    def of(cls, data: DataConfig) -> Rules:
        """The rules of a configuration."""
        periods = Periods(data.train_period, data.val_period, data.test_period)
        return cls(data.val_fraction, data.test_fraction, data.in_steps, data.out_steps, periods, data.protocol)

    @property
    def length(self) -> int:
        """Frames of a window, observed and following."""
        return self.in_steps + self.out_steps

    @property
    def published(self) -> bool:
        """True where windows and validation are those of published results."""
        return self.protocol == "openstl"

    def without(self, *parts: str) -> Rules:
        """The same rules, with these parts left to the fractions."""
        return replace(self, periods=self.periods._replace(**dict.fromkeys(parts, "")))
