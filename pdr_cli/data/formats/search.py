"""Inputs that files, folders and globs name."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from pdr_cli.data.formats import foreign, registry
from pdr_cli.data.formats.base import Format
from pdr_cli.errors import InputNotFoundError, did_you_mean
from pdr_cli.system import urls
from pdr_cli.system.logs import log

PICTURES = (".tif", ".tiff", ".bmp", ".webp", ".gif")  # suffixes of pictures that are not read as frames


def find_inputs(arguments: Sequence[str | Path]) -> list[Path]:
    """The data files that files, folders, globs and URLs name, sorted within each argument.

    Raises:
        InputNotFoundError: an argument names nothing.
    """
    found = [path for argument in arguments for path in _named(argument)]
    return list(dict.fromkeys(found))


def _named(argument: str | Path) -> list[Path]:
    path = Path(argument)
    if not path.exists() and (url := urls.remote(str(argument))) is not None:
        return [url]
    matches = [path] if path.exists() else sorted(Path(p) for p in glob.glob(str(argument), recursive=True))
    if not matches:
        raise _nothing(str(argument))
    return [p for match in matches for p in (inside(match) if match.is_dir() and not _is_store(match) else [match])]


def _nothing(argument: str) -> InputNotFoundError:
    """The error for an argument that names nothing."""
    folder = Path(argument).parent
    if not folder.is_dir():
        return InputNotFoundError(f"no file {argument}: there is no folder {folder}")
    return InputNotFoundError(f"no file {argument}.{did_you_mean(Path(argument).name, os.listdir(folder))}")


def inside(folder: Path) -> list[Path]:
    """Inputs in a folder: data files at any depth, or else lists of windows, arrays, or folders of pictures.

    Raises:
        InputNotFoundError: none of these.
    """
    if (error := foreign.recognised(folder)) is not None:
        raise error
    known = registry.suffixes()
    every = tuple(dict.fromkeys((*known, *registry.outputs())))
    under = sorted(_under(folder))
    second = [p for p in under if p.name.lower().endswith(registry.second())]
    files = [p for p in under if p.suffix.lower() in every and p not in second]
    found = [p for p in files if p.suffix.lower() in known]
    others = (member.inside(folder, files) for member in registry.members())
    found = found or next((paths for paths in others if paths), [])
    if found and second:
        log.info(
            "inputs  %d of %d files in %s: %s is left out", len(found), len(found) + len(second), folder, _few(second)
        )
    found = found or second
    if not found:
        raise _no_inputs(folder, under, every)
    return found


def _no_inputs(folder: Path, under: Sequence[Path], every: Sequence[str]) -> InputNotFoundError:
    """The error for a folder without inputs; names what else it holds, and the way out if that is known."""
    plain = [p for p in under if p.is_file()]
    counts = Counter(p.suffix.lower() or "no suffix" for p in plain)
    held = ", ".join(f"{count} of {suffix}" for suffix, count in counts.most_common(3))
    pictures = next((s for s in counts if s in PICTURES), "")
    first = {p.suffix.lower(): p for p in reversed(plain)}.values()
    way_out = next((error.way_out for p in first if (error := foreign.recognised(p)) is not None), "")
    way_out = f"write the pictures as .png, for example with mogrify -format png *{pictures}" if pictures else way_out
    kinds = f"data files ({', '.join(every)}), folders of numbered pictures (0001.png, 0002.png, ...) or train.txt"
    return InputNotFoundError(
        f"folder {folder} holds no inputs" + (f", but files: {held}" if held else ""), kinds, way_out
    )


def _few(paths: Sequence[Path]) -> str:
    return paths[0].name + (f" and {len(paths) - 1} more" if len(paths) > 1 else "")


def _under(folder: Path) -> Iterator[Path]:
    """Files and stores at any depth, without hidden ones; the files of a store are skipped."""
    formats = _of_stores()
    for root, folders, plain in os.walk(folder):
        stores = [f for f in folders if any(member.matches(Path(root, f)) for member in formats)]
        folders[:] = [f for f in folders if f not in stores and not f.startswith(".")]
        yield from (Path(root, name) for name in (*plain, *stores) if not name.startswith("."))


def _is_store(folder: Path) -> bool:
    """Whether a folder is one input as a whole, such as a Zarr store."""
    return any(member.matches(folder) for member in _of_stores())


def _of_stores() -> list[Format]:
    return [member for member in registry.members() if member.store]
