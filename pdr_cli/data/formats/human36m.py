"""Human3.6M as it is published for video prediction: lists of windows, `train.txt` and `test.txt`, beside pictures.

A list `val.txt`, which is not published, validates.

A line `images/S1_Directions.54138969_,226,296` is a window: eight pictures, every fifth from number 226 on, called
`images/S1_Directions.54138969_000226.jpg` and so on. The last number of a line is not used.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pdr_cli.data.formats import frames
from pdr_cli.data.formats.base import Format, ReadOptions
from pdr_cli.data.series import Series, precut_times
from pdr_cli.errors import DataError

WINDOW, EVERY, STEP = 8, 5, 0.1  # frames of a window, pictures between two of them, seconds between two of them
LISTS = {"train.txt": "train", "val.txt": "val", "test.txt": "test"}
LINE = re.compile(r"(?P<prefix>[^,]+),\s*(?P<first>\d+)\s*,\s*(?P<last>\d+)\s*")


class WindowLists(Format):
    """Lists of windows beside folders of pictures."""

    name, title = "windows", "a list of windows"
    takes = frozenset({"size", "color", "gray_to_rgb"})

    def matches(self, path: Path) -> bool:
        """A text file whose first line is a window."""
        if path.suffix.lower() != ".txt" or not path.is_file():
            return False
        with path.open(encoding="utf-8", errors="replace") as stream:
            return LINE.fullmatch(stream.readline().strip("\n")) is not None

    def open(self, paths: Sequence[Path], options: ReadOptions) -> list[Series]:
        """Each list as one Series; see `read`."""
        return [read(path, options) for path in paths]

    def inside(self, folder: Path, files: Sequence[Path]) -> list[Path]:
        """The lists in a folder, training first."""
        return [folder / name for name in LISTS if self.matches(folder / name)]


def read(path: Path, options: ReadOptions) -> Series:
    """Open a list as one Series of windows end to end, 0.1 s between frames and one step left out between windows.

    Windows are sorted by clip and number. Channels are red, green, blue; the published loader leaves them in the order
    blue, green, red, which of the usual scores changes only LPIPS. Frames of another size are resized bicubically.

    Raises:
        DataError: a line that is not a window, or missing pictures: the first and their number.
    """
    entries = sorted(_entries(path))
    refuse_missing(path)

    def path_of(frame: int) -> Path:
        return path.parent / _name(*entries[frame // WINDOW], frame % WINDOW)

    times = precut_times(len(entries), WINDOW, STEP)
    source = frames.picture_size(path_of(0))
    series = frames.pictures_series(path_of, times, source, options, resample="bicubic")
    clips = np.flatnonzero([i == 0 or entries[i][0] != entries[i - 1][0] for i in range(len(entries))])
    series = series.assign_attrs(
        files=[str(path)],
        identity=hashlib.sha256(path.read_bytes()).hexdigest(),
        window=WINDOW,
        clip_starts=[int(c) * WINDOW for c in clips],
    )
    part = LISTS.get(path.name)
    return series.assign_attrs(part=part) if part else series


def missing(path: Path) -> list[str]:
    """Pictures of a list that do not exist, in order."""
    names = (_name(prefix, first, k) for prefix, first in sorted(_entries(path)) for k in range(WINDOW))
    return _absent(path.parent, list(dict.fromkeys(names)))


def refuse_missing(path: Path) -> None:
    """Refuse a list with missing pictures.

    Raises:
        DataError: names the first and their number.
    """
    absent = missing(path)
    if absent:
        raise DataError(
            f"{path} names {len(absent)} pictures that are not there, first {path.parent / absent[0]}",
            way_out="put the complete folder of pictures beside the list, or remove their lines",
        )


def _name(prefix: str, first: int, k: int) -> str:
    """The picture of frame k of a window, as its list names it."""
    return f"{prefix}{first + EVERY * k:06d}.jpg"


def _absent(root: Path, names: list[str]) -> list[str]:
    """Each folder is listed once: asking for half a million files one by one takes long."""
    found: dict[str, set[str]] = {}
    absent = []
    for name in names:
        folder, _, file = name.rpartition("/")
        if folder not in found:
            found[folder] = set(os.listdir(root / folder)) if (root / folder).is_dir() else set()
        if file not in found[folder]:
            absent.append(name)
    return absent


def _entries(path: Path) -> list[tuple[str, int]]:
    """(prefix, first number) of each line."""
    entries = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        match = LINE.fullmatch(line.strip())
        if match is None:
            raise DataError(f"{path}, line {number}: {line!r} is not a window", "prefix,first,last")
        entries.append((match["prefix"], int(match["first"])))
    if not entries:
        raise DataError(f"{path} lists no windows")
    return entries
