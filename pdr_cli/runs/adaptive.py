"""Adaptive conformal inference: the shares that a calibration is asked for follow how earlier intervals have held."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np

RATE = 0.05


class Adaptive:
    """The shares to ask a calibration for, so that the intervals of successive inits hold `shares` on average.

    Gibbs and Candès (2021, arXiv:2106.00170), at each lead time by itself: once the truth of an init is known, which is its
    lead time later, the share asked for grows by `rate` times the truths missed beyond 1 - share, and falls where fewer are
    missed. As long as it stays below `largest`, its mean miss over n inits differs from 1 - share by at most about
    1 / (rate · n), whatever the data. It does not grow beyond: the truths missed there would be made up for by intervals that
    stay wide long after errors have become smaller.

    Args:
        shares: of the truths that the intervals are to hold, ascending.
        leads: τ.
        largest: share that can be asked for, see `Calibration.largest`.
        rate: of the adaptation.

    Attributes:
        nominal: the shares to hold at each lead time, [L, τ].
    """

    def __init__(self, shares: Sequence[float], leads: int, largest: float = 1.0, rate: float = RATE) -> None:
        self.shares, self.largest, self.rate = np.asarray(shares, np.float64), largest, rate
        self.nominal = np.repeat(self.shares[:, None], leads, axis=1)
        self._asked = self.nominal.copy()
        self._waiting: list[deque[tuple[int, np.ndarray]]] = [deque() for _ in range(leads)]
        self._last: int | None = None

    def asked(self, init: int) -> np.ndarray:
        """The shares to ask for at an init, from the truths known at its time: [L, τ]; a larger share is never the smaller.

        Args:
            init: its time in steps.

        Raises:
            ValueError: a later init was asked for before.
        """
        if self._last is not None and init < self._last:
            raise ValueError(f"init {init} comes after {self._last}, whose truths it cannot know")
        self._last = init
        for lead, waiting in enumerate(self._waiting):
            while waiting and waiting[0][0] + lead + 1 <= init:
                self._adapt(lead, waiting.popleft()[1])
        return np.maximum.accumulate(self._asked, axis=0)

    def learn(self, init: int, inside: np.ndarray) -> None:
        """Take in how an init's intervals hold, of which `asked` uses what is known at its time.

        Args:
            init: its time in steps.
            inside: share of the truths that lie in each interval, [L, τ]; NaN where there is no truth.
        """
        for lead, waiting in enumerate(self._waiting):
            waiting.append((init, inside[:, lead]))

    def _adapt(self, lead: int, inside: np.ndarray) -> None:
        miss = np.where(np.isfinite(inside), self.shares - inside, 0.0)
        self._asked[:, lead] = np.clip(self._asked[:, lead] + self.rate * miss, 0.0, self.largest)
