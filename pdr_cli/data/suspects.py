"""Numbers that are probably not what they seem: undeclared missing values, and sums that start again each day."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pdr_cli.data import times as time_axis
from pdr_cli.data.missing import without_absurd
from pdr_cli.data.series import Series, bytes_per_frame, names, read_frames
from pdr_cli.errors import MissingValuesError
from pdr_cli.system.logs import log

# What people write for "no value", in either sign; the largest of some types are among them.
TYPICAL = (9.0, 99.0, 999.0, 9999.0, 99999.0, 999999.0, 99.9, 999.9, 9999.9, 99.99, 999.99, 9999.99, 888.0, 777.0, 32767.0,
           32768.0, 65535.0, 1e10, 1e15, 1e20)  # fmt: skip
CLOSE = 1e-6  # of a typical number: the rounding of float32
LOOKED_AT = 64  # frames, evenly spaced
LOOKED_AT_BYTES = 2**28  # of them, of which large frames make fewer
SHARE = 1e-3  # of the values: a rarer number that is not typical may be a single wild value
DISTINCT = 16  # other values: fewer are classes, not measurements
FAR = 10  # standard deviations
NONE = "none"  # in place of a value: none of the numbers stands for a missing value
FALL = 0.05  # of its mean: where a sum that starts again falls to
DAYS = 2  # on which it must fall at the same hour


@dataclass(frozen=True)
class Suspect:
    """A number that probably stands for missing values.

    Args:
        channel: number of the channel.
        value: the number.
        share: of the channel's values.
        nearest: the next value.
    """

    channel: int
    value: float
    share: float
    nearest: float


def sample(series: Series, start: int = 0, stop: int | None = None) -> np.ndarray:
    """Frames of a series between two steps, evenly spaced, 64 at most and fewer of more than 4 MB: [T, C, H, W]."""
    end = series.sizes["time"] if stop is None else stop
    most = max(2, min(LOOKED_AT, LOOKED_AT_BYTES // bytes_per_frame(series)))
    chosen = np.unique(np.linspace(start, end - 1, most).round().astype(int))
    return np.concatenate([read_frames(series, int(i), int(i) + 1) for i in chosen])


def undeclared(frames: np.ndarray) -> list[Suspect]:
    """The numbers in frames [T, C, H, W] that probably stand for missing values."""
    found = []
    for channel in range(frames.shape[1]):
        values = frames[:, channel]
        while (one := _suspect(values, channel)) is not None:
            found.append(one)
            values = np.where(values == np.float32(one.value), np.float32(np.nan), values)
    return found


def _suspect(values: np.ndarray, channel: int) -> Suspect | None:
    """The lowest or highest number of a channel [T, H, W], if it is further from the others than these are from each other."""
    finite = values[np.isfinite(values)]
    ends = (finite.min(), finite.max()) if finite.size else ()
    for value, other in zip(ends, ends[::-1], strict=True):
        rest = finite[finite != value]
        among = rest[rest != other] if is_typical(float(other)) else rest
        if not among.size:
            continue
        nearest = float(rest.min() if value < rest.min() else rest.max())
        apart, span = abs(nearest - float(value)), float(among.max() - among.min())
        # Few numbers come as far as this, so that a window of a hindcast is not sorted.
        if apart <= span or len(np.unique(among[:100_000])) < DISTINCT:
            continue
        share = 1 - rest.size / finite.size
        if is_typical(float(value)) or _is_marker(values, value, share, apart / span):
            return Suspect(channel, float(value), share, nearest)
    return None


def _is_marker(values: np.ndarray, value: np.floating, share: float, ratio: float) -> bool:
    """True for a number that is not typical, but far from all others and frequent, or the only one that its cells ever have."""
    if share < SHARE:
        return False
    equal = values == value
    return ratio > FAR or bool(
        (equal.any(axis=0) == (equal | ~np.isfinite(values)).all(axis=0)).all() and len(values) > 1
    )


def is_typical(value: float) -> bool:
    """True for a number that people write for missing values, such as -9999."""
    return any(abs(abs(value) - number) <= CLOSE * number for number in TYPICAL)


def is_trusted(series: Series) -> bool:
    """True where all numbers are values: by an option, or because the format has no missing values."""
    return not series.attrs.get("may_lack") or NONE in series.attrs.get("missing_values", ())


def check(frames: np.ndarray, series: Series) -> None:
    """Refuse frames [T, C, H, W] of a series in which a number probably stands for missing values.

    Raises:
        MissingValuesError: names the number, its share and the next value.
    """
    found = [] if is_trusted(series) else undeclared(without_absurd(frames))
    if not found:
        return
    first = found[0]
    name, value = names(series)[first.channel], f"{first.value:.7g}"
    others = "".join(f", {100 * s.share:.2g} % {s.value:.7g}" for s in found[1:])
    raise MissingValuesError(
        f"{series.attrs['files'][0]}: {100 * first.share:.2g} % of the values of {name} are {value}{others}, and the next is "
        f"{found[-1].nearest:.4g}: probably missing values that are not declared",
        way_out=" ".join(f"--missing-value={s.value:.7g}" for s in found)
        + f" reads them as missing; --missing-value {NONE} reads them as they are",
    )


def check_extremes(series: Series, low: np.ndarray, high: np.ndarray, mean: np.ndarray, sd: np.ndarray) -> None:
    """Refuse channels whose lowest or highest value of all, [C] each, is a typical missing value far from the mean.

    Raises:
        MissingValuesError: names the number.
    """
    for channel, ends in enumerate([] if is_trusted(series) else zip(low, high, strict=True)):
        for value in ends:
            if is_typical(float(value)) and abs(value - mean[channel]) > FAR * sd[channel] > 0:
                raise MissingValuesError(
                    f"{series.attrs['files'][0]}: some values of {names(series)[channel]} are {value:.7g}, "
                    f"{abs(value - mean[channel]) / sd[channel]:.0f} standard deviations from the mean: probably missing "
                    "values that are not declared",
                    way_out=f"--missing-value={value:.7g} reads them as missing; --missing-value {NONE} reads them as they are",
                )


def restarts(series: Series) -> list[str]:
    """Channels whose mean over the grid grows through the day and falls to almost nothing at one hour: sums since that hour."""
    times = series.time.values
    if len(times) < 3 or np.issubdtype(times.dtype, np.floating):
        return []
    step = time_axis.find_step(times)
    in_a_day = round(time_axis.DAY / step.count) if step.unit == "s" else 0
    length = min(len(times), 4 * in_a_day + 1)
    if in_a_day < 3 or length < (DAYS * in_a_day) + 1:
        return []
    means = np.nanmean(read_frames(series, 0, length).astype(np.float64), axis=(2, 3))
    hours = np.round(time_axis.seconds(times[:length]) % time_axis.DAY)
    return [name for name, course in zip(names(series), means.T, strict=True) if _restarts(course, hours)]


def _restarts(course: np.ndarray, hours: np.ndarray) -> bool:
    """True if a course [T] never falls but at one hour of the day, where it falls to a small share of what it was."""
    falls = np.flatnonzero(np.diff(course) < -1e-6 * np.abs(course).max())
    if len(falls) < DAYS or len(np.unique(hours[falls + 1])) != 1 or course.min() < 0:
        return False
    return bool(np.all(course[falls + 1] <= np.maximum(FALL, 2 / len(np.unique(hours))) * course[falls]))


def warn_of_restarts(series: Series) -> list[str]:
    """Log a warning for sums that start again each day; returns the names of these channels."""
    found = restarts(series)
    for name in found:
        attrs = series.attrs["variables"][name]
        said = " (GRIB_stepType accum)" if attrs.get("GRIB_stepType") == "accum" else ""
        log.warning("values  %s is a sum that starts again each day%s; a forecast across that hour is poor. %s",
                    name, said, DEACCUMULATE)  # fmt: skip
    return found


DEACCUMULATE = "Take differences between the hours first, for example with xarray's diff('time')"
