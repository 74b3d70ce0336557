"""What every epoch needs again of a training window, kept in memory."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch


class Kept:
    """A tensor of each training window, computed once as far as memory allows, and else each time.

    Args:
        limit_mb: of the kept tensors.
    """

    def __init__(self, limit_mb: int = 256) -> None:
        self.limit = limit_mb * 1e6
        self._kept: dict[int, torch.Tensor] = {}

    def of(self, which: np.ndarray, make: Callable[[int], torch.Tensor]) -> torch.Tensor:
        """The tensors of the windows numbered `which`, [B, ...].

        Each window is computed alone, because rounding depends on the windows that are computed together: a resumed run meets
        a window for the first time in another batch than an uninterrupted one.

        Args:
            which: numbers of windows, [B].
            make: row of `which` → the tensor of its window, [...].
        """
        return torch.stack([self._one(int(number), row, make) for row, number in enumerate(which)])

    def _one(self, number: int, row: int, make: Callable[[int], torch.Tensor]) -> torch.Tensor:
        if number in self._kept:
            return self._kept[number]
        made = make(row)
        if made.nbytes * (len(self._kept) + 1) <= self.limit:
            self._kept[number] = made.clone()  # a row would keep the memory of its whole batch
        return made
