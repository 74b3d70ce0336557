"""Frame rates: of stamps that a container rounds, of frames taken at another rate, and of GIF, which counts hundredths."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np

from pdr_cli.errors import TimeError

STAMP = 1e-3  # seconds that time stamps are rounded to in some containers
NEAREST = 0.35  # of a frame: stamps rounded more coarsely than this do not tell the rate
STANDARD = tuple(
    Fraction(n, d)
    for n, d in (
        *((24000, 1001), (24, 1), (25, 1), (30000, 1001), (30, 1), (48, 1), (50, 1), (60000, 1001), (60, 1), (100, 1)),
        *((120000, 1001), (120, 1), (240, 1), (5, 1), (10, 1), (12, 1), (15, 1), (20, 1), (1, 1)),
    )
)
LONGEST_STILL = 10_000  # resampled frames for each frame of a clip, beyond which its time stamps must be wrong
GIF_TICK = 0.01  # seconds
GIF_FASTEST = 50  # frames a second; viewers show shorter delays as a tenth of a second


def fitted(times: np.ndarray, tick: float, declared: Sequence[Fraction]) -> Fraction | None:
    """The constant rate of a clip; None where its stamps do not lie on one to their rounding. That of one frame is declared.

    A rate on which all stamps lie exactly is taken as it is. Of the rates within the rounding of the stamps, taken is a
    standard one that the container declares, else the standard one nearest to the least-squares fit (a whole one first), else
    a declared one, else the fit.

    Args:
        times: stamps in seconds from the first: [T].
        tick: unit of the stamps, in seconds.
        declared: rates that the container declares.
    """
    if len(times) < 2:
        return next(iter(declared), None)
    fit = _slope(times)
    uniform = len(np.unique(np.round(np.diff(times) / tick))) == 1
    exact = (r for r in (*declared, *_simple(fit)) if uniform and tick < STAMP / 2 and _lies_on(times, r, 1e-9))
    standard = () if uniform else sorted(STANDARD, key=lambda rate: (rate.denominator, abs(float(rate) * fit - 1)))
    # FFmpeg finds the rate of a GIF, whose stamps are coarse, from these stamps: it declares nothing.
    likely = [r for r in declared if r in STANDARD] if tick < 2 * STAMP else []
    room = min(1.05 * max(tick, STAMP), NEAREST * fit)
    rounded = (r for r in (*likely, *standard, *declared, *_simple(fit)) if _lies_on(times, r, room))
    return next(exact, None) or next(rounded, None)


def _slope(times: np.ndarray) -> float:
    """Seconds a frame, by least squares."""
    count = np.arange(len(times)) - (len(times) - 1) / 2
    return float((count * times).sum() / (count**2).sum())


def _simple(fit: float) -> Iterator[Fraction]:
    """Rates with small denominators near a fit, for frames of at most an hour."""
    if 0 < fit <= 3600:
        yield nearest(fit)


def _lies_on(times: np.ndarray, rate: Fraction, room: float) -> bool:
    residual = times - steps(len(times), rate)
    return bool(residual.max() - residual.min() <= 2 * room and np.abs(np.diff(residual)).max() <= 2 * room)


def nearest(step: float) -> Fraction:
    """The rate of frames of `step` seconds, with a small denominator."""
    return Fraction(1 / step).limit_denominator(1001) or Fraction(1, round(step))


def steps(count: int, rate: Fraction) -> np.ndarray:
    """Times of `count` frames of a rate, in seconds from the first: [count]."""
    return np.arange(count) * float(rate.denominator) / float(rate.numerator)


def shown(path: Path, times: np.ndarray, fps: float) -> tuple[np.ndarray, np.ndarray]:
    """Times of a constant rate [n], and the number of the frame shown at each time [n].

    Args:
        path: for messages.
        times: [T] seconds from the first.
        fps: the rate; 0: the clip's own, which must be constant.

    Raises:
        TimeError: a variable rate, or a frame that is shown for very long.
    """
    if not fps:
        if len(times) > 2:
            _check_constant(path, times)
        return times, np.arange(len(times))
    count = int((times[-1] + STAMP) * fps) + 1
    if count > LONGEST_STILL * len(times):
        raise TimeError(f"{path}: {len(times)} frames in {times[-1]:.0f} s cannot be a clip of {fps:g} frames a second")
    resampled = np.arange(count) / fps
    return resampled, np.searchsorted(times, resampled + STAMP, side="right") - 1


def _check_constant(path: Path, times: np.ndarray) -> None:
    spacing = np.diff(times)
    median = float(np.median(spacing))
    # Time stamps in milliseconds make 29.97 fps alternate between 33 and 34 ms.
    if np.any(np.abs(spacing - median) > 0.1 * median + 1.5 * STAMP):
        raise TimeError(
            f"{path} has a variable frame rate: frames {spacing.min() * 1000:.0f} to {spacing.max() * 1000:.0f} ms apart",
            way_out=f"--resample-fps {1 / median:.4g} takes the frame shown at each time of a constant rate",
        )


def gif_delays(count: int, step: float) -> list[int]:
    """Milliseconds that each frame of a GIF is shown for, together as long as the frames: [count].

    Each is a multiple of 10, the unit of GIF, so that of 24 frames a second some last 40 ms and others 50.
    """
    ends = np.floor(np.arange(count + 1) * step / GIF_TICK + 0.5).astype(int)
    return [int(n) * 10 for n in np.diff(ends)]
