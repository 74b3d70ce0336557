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

    def of(self, which: np.ndarray, make: Callable[[np.ndarray], torch.Tensor]) -> torch.Tensor:
        """The tensors of the windows numbered `which`, [B, ...].

        Args:
            which: numbers of windows, [B].
            make: (rows of `which`) → their tensors, [rows, ...].
        """
        found = {row: self._kept[int(i)] for row, i in enumerate(which) if int(i) in self._kept}
        lacking = np.array([row for row in range(len(which)) if row not in found], int)
        if len(lacking):
            found |= zip(lacking.tolist(), make(lacking).unbind(), strict=True)
        for row in lacking.tolist():
            self._keep(int(which[row]), found[row])
        return torch.stack([found[row] for row in range(len(which))])

    def _keep(self, number: int, tensor: torch.Tensor) -> None:
        if tensor.nbytes * (len(self._kept) + 1) <= self.limit:
            self._kept[number] = tensor.clone()  # a row would keep the memory of its whole batch
