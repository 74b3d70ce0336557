"""Members of an ensemble: the seeds that they are drawn from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np


def seeds_of(seed: int, members: int, windows: Iterable[str]) -> np.ndarray:
    """The seeds of `members` members of each window, int64 [M, B].

    A member depends on `seed`, its number and the name of its window alone: the first members of more are the same, and so
    are those of a window in any batch and any process.

    Args:
        seed: of the request.
        members: M.
        windows: names of the windows, such as their init times.
    """
    names = list(windows)
    return np.array([[_seed(f"{seed}/{m}/{name}") for name in names] for m in range(members)], np.int64)


def _seed(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode(errors="surrogateescape")).digest()[:8], "big") >> 1
