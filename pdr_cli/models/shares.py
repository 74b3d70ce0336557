"""Successive shares of a training, such as its stages and parts."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate


def place(shares: Sequence[float], progress: float) -> tuple[int, float]:
    """Which of successive shares of a whole `progress` lies in, and the part of that share that is done."""
    ends = list(accumulate(shares))
    number = min(sum(progress >= end for end in ends), len(shares) - 1)
    while not shares[number]:
        number -= 1
    return number, min(1.0, (progress - (ends[number] - shares[number])) / shares[number])
