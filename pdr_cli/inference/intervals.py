"""Intervals of a request: which, and from which errors of the model they are made."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pdr_cli.data.intervals import Ends
from pdr_cli.errors import CheckpointError, UsageError
from pdr_cli.runs.adaptive import RATE
from pdr_cli.runs.calibration import Calibration, windows_needed

if TYPE_CHECKING:
    from pdr_cli.inference.header import ModelHeader


@dataclass(frozen=True)
class Intervals:
    """Prediction intervals.

    Args:
        shares: of the truths that each is to hold, ascending; none: no interval.
        adaptive: whether those of a hindcast follow how the intervals of earlier inits have held.
    """

    shares: tuple[float, ...] = ()
    adaptive: bool = False

    @classmethod
    def parse(cls, text: str | None, adaptive: bool = False) -> Intervals:
        """The intervals of `--interval`, such as `0.8,0.95`; none for None.

        Raises:
            UsageError: another text, or nothing that could adapt.
        """
        if adaptive and text is None:
            raise UsageError("--adaptive is for prediction intervals", way_out="name them with --interval 0.8,0.95")
        try:
            shares = sorted({float(part) for part in text.split(",")}) if text is not None else []
        except ValueError:
            shares = [0.0]
        if any(not 0 < share < 1 for share in shares):
            raise UsageError(f"--interval {text}", "shares between 0 and 1, such as 0.8,0.95")
        return cls(tuple(shares), adaptive)

    def check(self, model: ModelHeader, steps: int) -> None:
        """Refuse intervals that the model's errors do not give.

        Raises:
            CheckpointError: the model has no calibration.
            UsageError: it has one of too few windows or lead times, or does not observe what they would adapt to.
        """
        if not self.shares:
            return
        found, widest = model.calibration, max(self.shares)
        if found is None:
            way_out = f"pdr calibrate {model.label} DATA adds it, from data that the training has not seen"
            raise CheckpointError(f"{model.label} has no calibration, from which --interval is made", way_out=way_out)
        if not found.holds(widest):
            raise UsageError(
                f"--interval {widest:g} needs {windows_needed(widest)} windows, {model.label} is calibrated on {found.count}",
                f"at most {found.largest:.3g}",
                f"take a smaller one, or calibrate on more data: pdr calibrate {model.label} DATA",
            )
        if steps > found.steps:
            raise UsageError(
                f"{steps} steps, and {model.label} is calibrated for {found.steps}: intervals of later ones would not grow",
                way_out=f"pdr calibrate {model.label} DATA --steps {steps}",
            )
        targets = model.card.config.data.targets
        if self.adaptive and targets:
            raise UsageError(
                f"--adaptive follows the truth, and {model.label} does not read that of {', '.join(targets)}",
                way_out="leave out --adaptive",
            )

    def ends(self, model: ModelHeader, frames: np.ndarray, asked: np.ndarray | None = None) -> np.ndarray:
        """The ends of the intervals around a forecast, in the model's units and within its bounds: [L, 2, τ, C, H, W].

        Args:
            model: that made the forecast.
            frames: [τ, C, H, W] on the model's grid.
            asked: shares to ask the model's errors for, [L, τ]; default: `shares`.
        """
        steps, size = len(frames), (frames.shape[-2], frames.shape[-1])
        self.check(model, steps)
        if asked is None or model.calibration is None:
            offsets = _offsets(model.calibration, self.shares, steps, size)
        else:
            offsets = np.stack([model.calibration.ends(share, steps, size) for share in asked])
        ends = frames + offsets
        return ends if model.card.bounds is None else model.card.bounds.clip(ends)

    def labelled(self, model: ModelHeader, frames: np.ndarray) -> Ends:
        """Ends in the units of a forecast, with how they were found."""
        return Ends(self.shares, frames, method(model.calibration, self.adaptive))

    def identity(self) -> dict[str, Any]:
        """What a request's identity holds of it; nothing without intervals."""
        adaptive = {"adaptive": RATE} if self.adaptive else {}
        return {"intervals": list(self.shares), **adaptive} if self.shares else {}

    def attributes(self, model: ModelHeader) -> dict[str, str]:
        """What a file says of its intervals."""
        if not self.shares or model.calibration is None:
            return {}
        found = model.calibration
        about = {"shares": self.shares, "windows": found.count, "blocks": found.blocks, **found.about}
        about |= {"adaptive": {"rate": RATE}} if self.adaptive else {}
        return {"pdr_intervals": json.dumps(about)}


NONE = Intervals()


@functools.lru_cache(maxsize=2)
def _offsets(calibration: Calibration, shares: tuple[float, ...], steps: int, size: tuple[int, int]) -> np.ndarray:
    return np.stack([calibration.ends(share, steps, size) for share in shares])


def method(calibration: Calibration | None, adaptive: bool = False) -> str:
    """How intervals are found, for readers of a file."""
    if calibration is None:
        return ""
    pooled = (
        f" and block of {calibration.blocks} x {calibration.blocks} cells" if calibration.blocks > 1 else " and cell"
    )
    how = (
        "the forecast plus a quantile of its errors at this lead time"
        f"{pooled} in {calibration.count} windows (split-conformal prediction)"
    )
    if not adaptive:
        return how
    return f"{how}, of a level that follows the truths of earlier inits (adaptive conformal inference, rate {RATE:g})"
