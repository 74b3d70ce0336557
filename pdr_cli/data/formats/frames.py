"""Clips as folders of numbered pictures, such as `walking/person01_walking_d1_uncomp/image_0001.jpg`, and single pictures."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pdr_cli.data.formats import kth
from pdr_cli.data.formats.base import DEFAULTS, Format, ReadOptions, beginning
from pdr_cli.data.formats.video import gray_error
from pdr_cli.data.series import LazyFrames, Series, make_series
from pdr_cli.errors import DataError, GridError
from pdr_cli.system import damage
from pdr_cli.system.logs import log

SUFFIXES = (".jpg", ".jpeg", ".png")
MARKS = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")  # of PNG and JPEG
GRAY = ("1", "L", "LA", "I", "I;16", "I;16B", "I;16L", "F")  # modes of pictures without colours
PROGRAM = "EPS"  # which Pillow has Ghostscript run
ORIENTATION = 0x0112  # the EXIF tag
UNTIMED = (f"pictures have no times: {kth.FRAME_RATE:g} frames a second are assumed",)


class Frames(Format):
    """Folders of numbered pictures, and a picture by itself."""

    name, title = "frames", "a picture or a folder of pictures"
    takes = frozenset({"size", "color", "gray_to_rgb"})

    def matches(self, path: Path) -> bool:
        """A PNG or JPEG, or a folder that holds numbered pictures itself, not in folders below it."""
        if path.is_dir():
            return any(_number(p.name) is not None for p in os.scandir(path))
        return is_picture(path)

    def open(self, paths: Sequence[Path], options: ReadOptions) -> list[Series]:
        """Each folder as a clip, see `read`, or one picture; see `read_picture`.

        Raises:
            DataError: several pictures, which do not say whether they are one clip.
        """
        if pictures := [p for p in paths if not p.is_dir()]:
            _refuse_several(pictures, paths)
            return [read_picture(pictures[0], options)]
        if not all(kth.is_clip(p) for p in paths):
            log.info("frames  %s%s: %s", paths[0], f" and {len(paths) - 1} more" if paths[1:] else "", *UNTIMED)
        return [read(path, options) for path in paths]

    def inside(self, folder: Path, files: Sequence[Path]) -> list[Path]:
        """Every folder of numbered pictures at or below `folder`, sorted."""
        walked = os.walk(folder)
        return sorted(Path(top) for top, _, names in walked if any(_number(n) is not None for n in names))


def is_picture(path: Path) -> bool:
    """Whether a path is a PNG or JPEG by its first bytes; an animated PNG is one too."""
    return not path.is_dir() and beginning(path).startswith(MARKS)


def read(folder: Path, options: ReadOptions = DEFAULTS) -> Series:
    """Open one folder as a clip of values 0..255, lazily.

    Times are the numbers in the files' names over 25 frames a second, so that a missing number is a gap. Gray is the
    red channel of a KTH clip, as published, and the luminance of any other. Frames are resized bilinearly without
    smoothing, as published.

    Raises:
        DataError: a picture that cannot be read, one with more than its pixels show, or two of one number.
    """
    files = _numbered(folder)
    if not files:
        raise DataError(f"{folder} holds no numbered pictures ({', '.join(SUFFIXES)})")
    numbers = np.array([n for n, _ in files])
    if len(np.unique(numbers)) < len(numbers):
        twice = int(numbers[np.flatnonzero(np.diff(numbers) == 0)[0]])
        raise DataError(f"{folder} holds two pictures numbered {twice}", way_out="keep one of each")
    paths = [folder / name for _, name in files]
    source = picture_size(paths[0])
    series = pictures_series(paths.__getitem__, numbers / kth.FRAME_RATE, source, options, red=kth.is_clip(folder))
    about = {"identity": _identity(folder), "folder": folder.name, "assumed": UNTIMED}
    return kth.label(series.assign_attrs(about), folder)


def read_picture(path: Path, options: ReadOptions = DEFAULTS) -> Series:
    """Open a PNG or JPEG as a Series of one frame at time 0, with values 0..255; see `pictures_series`."""
    return pictures_series(lambda _: path, np.zeros(1), picture_size(path), options)


def _refuse_several(pictures: Sequence[Path], paths: Sequence[Path]) -> None:
    if len(paths) > 1:
        raise DataError(
            f"{pictures[0]} is one of {len(paths)} inputs",
            "one picture, or a folder of numbered pictures",
            f"name the folder: {pictures[0].parent}",
        )


def pictures_series(
    path_of: Callable[[int], Path],
    times: np.ndarray,
    source: tuple[int, int],
    options: ReadOptions,
    *,
    red: bool = False,
    resample: str = "bilinear",
) -> Series:
    """A Series whose frames are picture files, opened when the frames are read.

    Pictures of 16 bits are reduced to 8. Refused are transparent ones, those that a viewer would turn, and gray ones
    where colours are needed.

    Args:
        path_of: the file of frame k.
        times: [T] seconds.
        source: (H, W) that all of them have.
        options: `size`, `color` and `gray_to_rgb` of the frames.
        red: gray is the red channel, not the luminance.
        resample: "bilinear" or "bicubic".
    """
    size, color = options.size, options.color
    out = (int(size[0]), int(size[1])) if len(size) else source
    channels = ["gray"] if color == "gray" else ["red", "green", "blue"]
    bands = "red" if red and color == "gray" else "any" if options.gray_to_rgb and color == "rgb" else color
    read_one = partial(_pixels, source=source if not len(size) else None, out=out, bands=bands, resample=resample)

    def frames(start: int, stop: int) -> np.ndarray:
        return np.stack([read_one(path_of(k)) for k in range(start, stop)])

    series = make_series(
        LazyFrames((len(times), len(channels), *out), np.float32, frames),
        times,
        {name: {"units": "1", "long_name": f"{name} level, 0 to 255"} for name in channels},
        {},
        kind="video",
        files=[path_of(0)],
    )
    return series.assign_attrs(source_size=source, value_range=(0.0, 255.0))


def picture_size(path: Path) -> tuple[int, int]:
    """(H, W) of a picture, by its header."""
    with _open(path) as picture:
        return int(picture.height), int(picture.width)


def _number(name: str) -> int | None:
    match = re.search(r"(\d+)\)?\.\w+$", name)  # `frame (1).png` is how some systems number copies
    return int(match[1]) if match and name.lower().endswith(SUFFIXES) and not name.startswith(".") else None


def _numbered(folder: Path) -> list[tuple[int, str]]:
    return sorted((n, p.name) for p in os.scandir(folder) if (n := _number(p.name)) is not None)


def _identity(folder: Path) -> str:
    """A hash of the pictures' names and sizes: stable where the folder is copied, and quick."""
    entries = sorted((p.name, p.stat().st_size) for p in os.scandir(folder) if _number(p.name) is not None)
    return hashlib.sha256(repr((folder.name, entries)).encode()).hexdigest()


def _open(path: Path) -> Any:
    from PIL import Image, UnidentifiedImageError

    try:
        picture = Image.open(path)
    except FileNotFoundError:
        raise DataError(f"{path} was removed while it was read") from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path} ({path.stat().st_size} bytes) is not a picture or damaged: {error}") from error
    if picture.format == PROGRAM:
        picture.close()
        raise DataError(f"{path} is PostScript, a program that draws a picture", "a picture of pixels")
    return picture


def _pixels(path: Path, source: tuple[int, int] | None, out: tuple[int, int], bands: str, resample: str) -> np.ndarray:
    """[C, H, W] float32, 0..255."""
    _check_sums(path)
    with _open(path) as picture:
        if source is not None and (picture.height, picture.width) != source:
            raise GridError(
                f"{path} is {picture.height} x {picture.width}, others are {source[0]} x {source[1]}",
                way_out="--set data.size=[128,128] resizes all to one size",
            )
        with damage.reading(path):
            _refuse_guesses(path, picture, bands)
            planes = _planes(picture, bands)
        return np.stack([_resized(p, out, resample) for p in planes])


def _check_sums(path: Path) -> None:
    """Refuse a PNG whose checksums are wrong; reading its pixels does not check them."""
    with _open(path) as picture:
        if picture.format == "PNG":
            with damage.reading(path):
                picture.verify()


def _refuse_guesses(path: Path, picture: Any, bands: str) -> None:
    """Refuse a picture that a viewer would show differently from its pixels.

    Raises:
        DataError: transparent, turned by a viewer, or gray where red, green and blue are needed.
    """
    if picture.has_transparency_data and picture.convert("RGBA").getchannel("A").getextrema()[0] < 255:
        raise DataError(f"{path} is transparent", way_out="put it on a background first")
    if picture.getexif().get(ORIENTATION, 1) != 1:
        raise DataError(f"{path} is to be shown turned (EXIF orientation)", way_out="write it as it is shown first")
    if bands == "rgb" and picture.mode in GRAY:
        raise gray_error(path, f"mode {picture.mode}")


def _planes(picture: Any, bands: str) -> list[Any]:
    if picture.mode.startswith("I"):  # 16 bits, which `convert` would cut off at 255
        picture = picture.point(lambda v: v * (1 / 257)).convert("L")
    if bands in ("rgb", "any"):
        return list(picture.convert("RGB").split())
    return [picture.convert("RGB").getchannel("R") if bands == "red" else picture.convert("L")]


def _resized(plane: Any, out: tuple[int, int], resample: str) -> np.ndarray:
    """[H, W] float32 of one 8-bit plane; in floats, so that resizing does not round."""
    from PIL import Image

    if (plane.height, plane.width) == out:
        return np.asarray(plane, dtype=np.float32)
    plane = plane.convert("F")
    if resample == "bicubic":
        # A bicubic kernel overshoots; 8-bit readers clip it.
        return np.clip(np.asarray(plane.resize(out[::-1], Image.Resampling.BICUBIC), dtype=np.float32), 0, 255)
    box = (0, 0, plane.width, plane.height)
    # Sampled at the new pixels' centres without smoothing, as the published frames were.
    turned = plane.transform(out[::-1], Image.Transform.EXTENT, box, Image.Resampling.BILINEAR)
    return np.asarray(turned, dtype=np.float32)
