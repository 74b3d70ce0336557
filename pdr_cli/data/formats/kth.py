"""KTH actions: the labels in a clip's name, and the official list of its sequences (Schüldt et al., 2004)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from pdr_cli.data.series import Series
from pdr_cli.errors import DataError
from pdr_cli.system.logs import log

ACTIONS = ("boxing", "handclapping", "handwaving", "walking", "jogging", "running")
LAST_TRAINING_PERSON = 16  # persons 01-16 train, 17-25 test
FRAME_RATE = 25.0
SEQUENCES = "00sequences.txt"
NAME = re.compile(rf"(person(\d\d)_({'|'.join(ACTIONS)})_d\d)(_uncomp)?")


def is_clip(path: Path) -> bool:
    """True if a file or folder has a name like `person01_boxing_d1_uncomp.avi`."""
    return NAME.fullmatch(_stem(path)) is not None


def label(series: Series, path: Path) -> Series:
    """The series with its person, action and part of the benchmark in `attrs`, if its path has the name of a KTH clip."""
    match = NAME.fullmatch(_stem(path))
    if match is None:
        return series
    part = "train" if int(match[2]) <= LAST_TRAINING_PERSON else "test"
    return series.assign_attrs(part=part, person=f"person{match[2]}", action=match[3])


def sequences(series: Series, path: Path, listed: dict[str, list[tuple[int, int]]]) -> list[Series]:
    """The sequences of a clip in the list, each as a series; times stay those of the clip.

    The list counts frames from 1 and includes both ends; some of its ends lie a few frames beyond the clip's.
    """
    match = NAME.fullmatch(_stem(path))
    ranges = listed.get(match[1], []) if match else []
    n = int(series.sizes["time"])
    return [series.isel(time=slice(first - 1, min(last, n))) for first, last in ranges if first <= n] or [series]


def find_list(path: Path) -> Path | None:
    """`00sequences.txt` beside a clip, or up to two folders above it."""
    return next((p / SEQUENCES for p in list(path.absolute().parents)[:3] if (p / SEQUENCES).is_file()), None)


def read_list(path: Path) -> dict[str, list[tuple[int, int]]]:
    """{`person01_boxing_d1`: [(first, last), ...]} of the official list; its header and missing clips are skipped.

    Raises:
        DataError: a sequence that ends before it begins, or begins before frame 1.
    """
    found = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        name, rest = [*line.split(maxsplit=1), "", ""][:2]
        ranges = [(int(a), int(b)) for a, b in re.findall(r"(\d+)\s*-\s*(\d+)", rest)]
        wrong = next((r for r in ranges if not 1 <= r[0] <= r[1]), None)
        if NAME.fullmatch(name) and wrong:
            what = f"{path}: {name} has a sequence from frame {wrong[0]} to {wrong[1]}"
            raise DataError(what, "sequences that end after they begin, counted from 1")
        if NAME.fullmatch(name) and ranges:
            found[name] = ranges
    return found


def lists(paths: Sequence[Path]) -> dict[Path, dict[str, list[tuple[int, int]]]]:
    """The list of each folder of clips; logs once if clips have no list or are not in it."""
    known: dict[Path, dict[str, list[tuple[int, int]]]] = {}
    read: dict[Path, dict[str, list[tuple[int, int]]]] = {}
    for folder in dict.fromkeys(p.parent for p in paths):
        found = find_list(folder / "clip")
        if found is not None and found not in read:
            read[found] = read_list(found)
        known[folder] = read[found] if found is not None else {}
    whole = [p for p in paths if _stem(p).removesuffix("_uncomp") not in known[p.parent]]
    if whole:
        log.info(
            "video   %d of %d KTH clips are read whole: %s does not list them or is not beside them",
            len(whole), len(paths), SEQUENCES,
        )  # fmt: skip
    return known


def _stem(path: Path) -> str:
    return path.name if path.is_dir() else path.stem
