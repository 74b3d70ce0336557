"""Values and axes of arrays without a description: stated, told by their numbers, taken from a model, or assumed and said so."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pdr_cli.data.arrays import CHANNELS_FIRST, CHANNELS_LAST, COUNTS, OPTION, PLAIN, SIGNED, UNIT, Conventions
from pdr_cli.errors import DataError
from pdr_cli.system.logs import log

TOLERANCE = 1e-3  # beyond the ends of a range
FEW = 4  # channels at most, where axes are told apart by their lengths
ATTRIBUTES = {
    SIGNED: ("1", "{}, scaled to 0 to 1"),
    UNIT: ("1", "{}, scaled to 0 to 1"),
    COUNTS: ("count", "{} per cell and interval"),
    PLAIN: ("", "{}"),
}


@dataclass(frozen=True)
class Ends:
    """Lowest and highest value, and whether all are whole numbers."""

    low: float
    high: float
    whole: bool

    @classmethod
    def of(cls, values: np.ndarray) -> Ends:
        """The ends of an array; (0, 0) if nothing in it is finite."""
        finite = values[np.isfinite(values)]
        if not finite.size:
            return cls(0.0, 0.0, whole=True)
        return cls(float(finite.min()), float(finite.max()), bool((finite == np.round(finite)).all()))

    def fit(self, values: str) -> bool:
        """True if the numbers can be of a convention."""
        ranges = {SIGNED: (-1, 1), UNIT: (0, 1), COUNTS: (0, np.inf), PLAIN: (-np.inf, np.inf)}
        low, high = ranges[values]
        return low - TOLERANCE <= self.low and self.high <= high + TOLERANCE

    def __str__(self) -> str:
        return f"{self.low:.4g} to {self.high:.4g}"


def values_of(path: Path, ends: Ends, given: tuple[str, str, str], *, scaled: bool) -> str:
    """The convention of a file's values.

    Args:
        path: of the file, for messages.
        ends: of a sample of the values.
        given: the convention by the option, by the file itself and by the model, "" where they leave it open.
        scaled: whether such files hold values from -1 to 1 by custom; otherwise counts.

    Raises:
        DataError: values that the option or the file's own statement excludes, or others than in the model's training.
    """
    option, stated, learned = given
    found, custom = option or stated, SIGNED if scaled else COUNTS
    if found:
        return _checked(path, ends, found, learned)
    if learned == PLAIN or (learned == COUNTS and ends.whole and ends.fit(COUNTS)):
        return learned
    found = _by_range(ends, scaled or learned == SIGNED)
    if learned and found != learned:
        raise _mismatch(path, ends, found, learned)
    if not learned and found != custom:
        log.warning(
            "values  %s: %s, where such files hold %s: kept as they are, taken as %s; %s values=... states others",
            path, ends, custom, found, OPTION,
        )  # fmt: skip
    return found


def _by_range(ends: Ends, scaled: bool) -> str:
    """The convention that the range of the numbers shows."""
    if ends.low < 0:
        return SIGNED if scaled and ends.fit(SIGNED) else PLAIN
    return UNIT if ends.fit(UNIT) and (scaled or not ends.whole) else COUNTS


def _checked(path: Path, ends: Ends, found: str, learned: str) -> str:
    """The convention that an option or a file states, if values and model allow it."""
    if not ends.fit(found):
        raise DataError(f"{path}: values from {ends} are not {found}", way_out=f"{OPTION} values={PLAIN} keeps them")
    if learned and ATTRIBUTES[found] != ATTRIBUTES[learned]:
        raise _mismatch(path, ends, found, learned)
    return found


def _mismatch(path: Path, ends: Ends, found: str, learned: str) -> DataError:
    """The error for values of another convention than those of a model's training."""
    way_out = "bring them to the range of the training, or train a model on them"
    if ends.fit(learned) and learned != PLAIN:
        way_out = f"if they are {learned} too, {OPTION} values={learned}; otherwise {way_out}"
    return DataError(
        f"{path}: values from {ends} are taken as {found}", f"{learned}, as the model was trained on", way_out
    )


def refuse_others(path: Path, frames: np.ndarray, values: str) -> None:
    """Refuse frames that do not have the convention that a sample of their file has.

    Raises:
        DataError: names the range.
    """
    ends = Ends.of(frames)
    if not ends.fit(values):
        what = f"values from {ends} among values taken as {values}"
        raise DataError(f"{path}: {what}", way_out=f"{OPTION} values={PLAIN} keeps all as they are")


def axes_of(path: Path, shape: tuple[int, int, int], assume: Conventions, learned: Conventions) -> str:
    """The order of the axes of frames of a shape, channels first or last.

    The option decides, else the lengths of the axes, else the model; an order that is not the usual one is logged.
    """
    if assume.axes:
        return assume.axes
    first, last = (_is_plausible(*s) for s in (shape, (shape[2], *shape[:2])))
    if first or not last:
        return CHANNELS_FIRST if first else learned.axes or CHANNELS_FIRST
    log.log(
        logging.INFO if learned.axes == CHANNELS_LAST else logging.WARNING,
        "axes    %s: frames of %s are taken as %s; if not, state it: %s axes=%s",
        path, " x ".join(map(str, shape)), CHANNELS_LAST, OPTION, CHANNELS_FIRST,
    )  # fmt: skip
    return CHANNELS_LAST


def _is_plausible(channels: int, height: int, width: int) -> bool:
    """True for frames whose channels are few beside their sides."""
    return channels <= FEW and 2 * channels <= min(height, width)


def unusual(values: str, axes: str, custom: str) -> tuple[str, ...]:
    """The conventions of a file that differ from those of its format, in words."""
    found = [] if values == custom else [f"values taken as {values}"]
    return tuple(found + ([] if axes == CHANNELS_FIRST else ["the last axis taken as channels"]))


def channel_attributes(values: str, channels: list[str]) -> dict[str, dict[str, Any]]:
    """Attributes of channels whose values have a convention."""
    units, name_of = ATTRIBUTES[values]
    return {name: {"units": units, "long_name": name_of.format(name)} for name in channels}
