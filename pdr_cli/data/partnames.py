"""Parts of a data set by the names of folders and files, such as `train/a.avi`, `val/b.avi` and `test/c.avi`."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from pdr_cli.data import kinds
from pdr_cli.data.series import Series
from pdr_cli.system.logs import log

NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
FILLERS = ("set", "data", "clips", "videos", "frames", "images", "split")  # beside the part in the name of a folder
WORD = re.compile(r"[a-z]+")


def of(paths: Sequence[Path]) -> list[str]:
    """The part of each of several files or folders, "" where their names do not say; all "" if all would be of one part.

    The names of folders below the common one count. If none of them names a part, the first words of the files' names do,
    where each has one and one of them is "train".
    """
    absolute = [Path(os.path.abspath(p)) for p in paths]
    if len(set(absolute)) < 2:
        return [""] * len(paths)
    root = os.path.commonpath(absolute)
    below = [p.relative_to(root).parts for p in absolute]
    found = [_of_folders(parts if p.is_dir() else parts[:-1]) for p, parts in zip(absolute, below, strict=True)]
    if not any(found):
        found = [_of_file(parts[-1]) for parts in below]
        found = found if all(found) and "train" in found else [""] * len(paths)
    return found if len(set(found)) > 1 else [""] * len(paths)


def labelled(series: list[Series]) -> list[Series]:
    """Series of which several are clips, with `part` and `named_part` where the names of their folders give a part."""
    if len(series) < 2 or any(kinds.of(one).parts != "clip" for one in series):
        return series
    places = [Path(one.attrs["files"][0]) for one in series]
    places = [p.parent if "folder" in one.attrs else p for p, one in zip(places, series, strict=True)]
    parts = of(places)
    _warn_of_other_parts(series, parts)
    return [
        _in_part(one, part) if part and "part" not in one.attrs else one
        for one, part in zip(series, parts, strict=True)
    ]


def _warn_of_other_parts(series: Sequence[Series], parts: Sequence[str]) -> None:
    """Log that clips whose part a benchmark defines lie in folders of another one."""
    pairs = zip(series, parts, strict=True)
    others = [one for one, part in pairs if part and one.attrs.get("part", part) != part]
    if others:
        log.warning(
            "split   %s is %s data by its benchmark, whatever the name of its folder, and so are %d more clips",
            others[0].attrs["files"][0], others[0].attrs["part"], len(others) - 1,
        )  # fmt: skip


def _in_part(series: Series, part: str) -> Series:
    words = f"part {part}, by the names of folders or files"
    return series.assign_attrs(part=part, named_part=True, assumed=(*series.attrs.get("assumed", ()), words))


def _of_folders(names: Sequence[str]) -> str:
    """The part that the uppermost of several nested folders names."""
    return next(filter(None, map(_of_folder, names)), "")


def _of_folder(name: str) -> str:
    words = WORD.findall(name.lower())
    parts = [NAMES[w] for w in words if w in NAMES]
    return parts[0] if len(parts) == 1 and all(w in NAMES or w in FILLERS for w in words) else ""


def _of_file(name: str) -> str:
    return NAMES.get(next(iter(WORD.findall(name.lower())), ""), "")
