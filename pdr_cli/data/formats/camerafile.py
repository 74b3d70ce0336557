"""Camera files: JSON {"focal": f, "frames": [{"time": t, "world_to_camera": 4 x 4}, ...]}.

`data/cameras.py` says what the numbers mean.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from pdr_cli.data import cameras
from pdr_cli.data.cameras import CameraPath
from pdr_cli.errors import DataError, InputNotFoundError
from pdr_cli.system import damage

LAYOUT = '{"focal": f, "frames": [{"time": 0..1, "world_to_camera": 4 x 4 numbers}, ...]}'
SUFFIX = ".json"


def names_file(text: str) -> bool:
    """Whether the argument of `--camera` or `--view` is a file, and not the name of a path."""
    return Path(text).suffix.lower() == SUFFIX or Path(text).exists()


def read(path: Path, first: bool = True) -> CameraPath:
    """Read a camera file. Keys that it does not know are passed over.

    Args:
        path: of the file.
        first: the first camera is to be the world's, as that of the path of a video; not of the cameras of a view.

    Raises:
        InputNotFoundError: no such file.
        DataError: not JSON, another layout, or a path that is not sound (`cameras.check`).
    """
    if not path.exists():
        raise InputNotFoundError(f"no camera file {path}")
    document = _json(path)
    if not isinstance(document, dict) or not isinstance(document.get("frames"), list):
        raise DataError(f"{path} is JSON, but not a camera file: {_keys(document)}", LAYOUT)
    focal = _numbers(document.get("focal"), (), f"{path}: focal")
    frames = list(enumerate(document["frames"]))
    times = [_numbers(_entry(f, "time"), (), f"{path}: time of frame {k}") for k, f in frames]
    poses = [_numbers(_entry(f, "world_to_camera"), (4, 4), f"{path}: world_to_camera of frame {k}") for k, f in frames]
    found = CameraPath(float(focal), np.array(times), np.array(poses).reshape(-1, 4, 4))
    cameras.check(found, str(path), first)
    return found


def _json(path: Path) -> Any:
    with damage.reading(path):
        content = path.read_bytes()
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        what = f"{path} ({len(content)} bytes) is not JSON: {damage.first_line(error)}"
        raise DataError(what, f"a camera file, {LAYOUT}") from error


def _keys(document: Any) -> str:
    """What a document holds in place of frames."""
    if not isinstance(document, dict):
        return f"it holds a {type(document).__name__}"
    if "frames" in document:
        return f"its frames are a {type(document['frames']).__name__}, not a list"
    return f"it has the keys {', '.join(map(repr, list(document)[:5]))}" if document else "it is empty"


def _entry(frame: Any, key: str) -> Any:
    return frame.get(key) if isinstance(frame, dict) else None


def _numbers(value: Any, shape: tuple[int, ...], what: str) -> np.ndarray:
    """Numbers of a JSON document as float64 of a shape; text and truth values are none.

    Raises:
        DataError: missing, of another shape, or no numbers.
    """
    wanted = " x ".join(map(str, shape)) + " numbers" if shape else "a number"
    if value is None:
        raise DataError(f"{what} is missing", wanted)
    try:
        found = np.array(value)
        if found.shape == shape and found.dtype.kind in "iuf":
            return found.astype(np.float64)
    except ValueError:  # rows of different lengths
        raise DataError(f"{what} has rows of different lengths", wanted) from None
    shown = (
        f"is {str(value)[:40]!r}"
        if found.shape in (shape, ())
        else f"has the shape {' x '.join(map(str, found.shape))}"
    )
    raise DataError(f"{what} {shown}", wanted)
