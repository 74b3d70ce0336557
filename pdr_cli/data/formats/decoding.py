"""Clips decoded by PyAV: frames counted, damage reported, rotations applied.

PyAV is used itself, because imageio's plugin for it hides whether a frame is corrupt, decodes damaged packets without an
error (err_detect does not reach its decoder) and cannot set the quality of the encoder (crf).

H.264 holds no checksums: damage that decodes to another valid picture cannot be told from that picture. MP4s of pdr have
a SHA-256 of their decoded pictures, which is checked whenever they are read.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pdr_cli.errors import DataError, TimeError

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer
    from av.video.reformatter import VideoReformatter

OURS = ("yuv420p", "yuv444p")  # pixel formats of MP4s of pdr: even sides, and others
PICTURES = "pdr_pictures_sha256"


@dataclass(frozen=True)
class Clip:
    """Properties of a whole clip, found by decoding it.

    Args:
        times: of all frames, in seconds from the first: [T].
        size: (H, W) as displayed.
        format: name of the pixel format.
        gray: whether that format has no colours.
        bits: of each component.
    """

    times: np.ndarray
    size: tuple[int, int]
    format: str
    gray: bool
    bits: int


def _check_whole(path: Path) -> None:
    """Refuse an MP4 whose pictures or index end behind the end of the file; decoders may ignore that."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        place = 0
        while place + 8 <= size:
            stream.seek(place)
            header = stream.read(16)
            if place == 0 and header[4:8] != b"ftyp":
                return
            length = int.from_bytes(header[:4])
            length = {0: size - place, 1: int.from_bytes(header[8:])}.get(length, length)
            if header[4:8] in (b"moov", b"mdat") and place + length > size:
                raise DataError(f"{path} ({size} bytes) is cut short: {place + length - size} bytes are missing")
            place += max(length, 8)


def _open(path: Path) -> InputContainer:
    import av

    _check_whole(path)
    try:
        container = av.open(os.path.abspath(path), metadata_errors="replace")
    except (av.error.FFmpegError, OSError) as error:
        raise DataError(f"{path} ({path.stat().st_size} bytes) cannot be read as video: {error}") from error
    if not container.streams.video:
        container.close()
        raise DataError(f"{path} has no video stream")
    # Without this, damaged packets decode to wrong pictures and no error.
    container.streams.video[0].codec_context.options = {"err_detect": "explode"}
    return container


def scan(path: Path) -> Clip:
    """Decode every frame of a clip.

    Raises:
        DataError: damaged, without frames, transparent, mirrored, or of frames of several sizes.
        TimeError: a frame without a time, or not after the one before.
    """
    import av

    claimed, digest, reformatter = _claims(path), hashlib.sha256(), av.video.reformatter.VideoReformatter()
    stamps: list[float] = []
    seen: set[tuple[tuple[int, int], str]] = set()
    for frame in _frames(path):
        if frame.time is None:
            raise TimeError(f"{path}: frame {len(stamps)} has no time stamp")
        if stamps and frame.time <= stamps[-1]:
            raise TimeError(
                f"{path}: frame {len(stamps)} is shown at {frame.time:.3f} s, not after the frame before it"
            )
        _refuse_transparent(path, frame, reformatter)
        stamps.append(float(frame.time))
        seen.add((_displayed(path, frame), frame.format.name))
        format = frame.format
        if claimed is not None and format.name in OURS:
            digest.update(frame.to_ndarray().tobytes())
    if not stamps:
        raise DataError(f"{path} has no video frames")
    if claimed not in (None, digest.hexdigest()):
        raise DataError(f"{path} is damaged: its pictures differ from the SHA-256 written with them")
    sizes = sorted({size for size, _ in seen})
    if len(sizes) > 1:
        raise DataError(
            f"{path} has frames of {' and '.join('{} x {}'.format(*s) for s in sizes)}", "frames of one size"
        )
    gray = not format.is_rgb and len([c for c in format.components if not c.is_alpha]) == 1 and not format.has_palette
    bits = max(c.bits for c in format.components)
    return Clip(np.array(stamps) - stamps[0], sizes[0], format.name, gray, bits)


def _claims(path: Path) -> str | None:
    """The SHA-256 of the pictures in the description of a clip of pdr; None of another clip.

    Raises:
        DataError: the clip is marked as transparent, which most decoders ignore.
    """
    with _open(path) as container:
        if container.streams.video[0].metadata.get("alpha_mode") == "1":
            raise _transparent(path, "")
        return _json(container.metadata.get("description", "")).get(PICTURES)


def _json(text: str) -> dict[str, Any]:
    """A JSON object; an empty one of any other text."""
    try:
        found = json.loads(text or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _refuse_transparent(path: Path, frame: VideoFrame, reformatter: VideoReformatter) -> None:
    """Refuse a frame whose pixels are not all opaque: its background is unknown."""
    if not (frame.format.has_palette or any(c.is_alpha for c in frame.format.components)):
        return
    if (reformatter.reformat(frame, format="rgba").to_ndarray()[..., 3] < 255).any():
        raise _transparent(path, f": the frame at {frame.time:.2f} s has pixels that are not opaque")


def _transparent(path: Path, where: str) -> DataError:
    return DataError(f"{path} is transparent{where}", way_out="put it on a background first")


def _quarter_turns(frame: VideoFrame) -> int | None:
    """Turns of a frame by 90 degrees, counterclockwise; None if it is mirrored or turned by another angle."""
    found: Any = frame.side_data.get("DISPLAYMATRIX")
    if found is None:
        return 0
    a, b, _, c, d, *_ = np.frombuffer(bytes(found), "<i4") / 65536
    turns = {(1, 0, 0, 1): 0, (0, -1, 1, 0): 1, (-1, 0, 0, -1): 2, (0, 1, -1, 0): 3}
    return turns.get((round(a, 3), round(b, 3), round(c, 3), round(d, 3)))


def _displayed(path: Path, frame: VideoFrame) -> tuple[int, int]:
    """(H, W) of a frame as a player shows it."""
    turns = _quarter_turns(frame)
    if turns is None:
        raise DataError(
            f"{path} is to be shown mirrored, or turned by {frame.rotation} degrees, which is not supported",
            way_out="ffmpeg -i IN OUT.mp4 writes it as it is shown",
        )
    return (frame.width, frame.height) if turns % 2 else (frame.height, frame.width)


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    import av

    try:
        yield
    except av.error.FFmpegError as error:
        raise DataError(f"{path} is damaged: {error}") from error


def _frames(path: Path, seek: float = 0.0) -> Iterator[VideoFrame]:
    """Decoded frames in order, from the key frame before `seek` seconds."""
    with _open(path) as container, _reading(path):
        stream = container.streams.video[0]
        if seek > 0 and stream.time_base:
            container.seek(int(seek / stream.time_base) + (stream.start_time or 0), stream=stream, backward=True)
        for frame in container.decode(stream):
            if frame.is_corrupt:
                raise DataError(f"{path} is damaged: frame {frame.pts} cannot be decoded")
            yield frame


def decode(path: Path, start: float, count: int) -> Iterator[VideoFrame]:
    """`count` frames from the one at `start` seconds after the first."""
    origin = next(float(f.time) for f in _frames(path))
    later = (f for f in _frames(path, start) if f.time - origin >= start - 1e-4)
    return itertools.islice(later, count)


def pixels(frame: VideoFrame, size: tuple[int, int], color: str, reformatter: VideoReformatter) -> np.ndarray:
    """[C, H, W] float32, 0..255, as displayed."""
    format = "gray" if color == "gray" else "rgb24"
    turns = _quarter_turns(frame) or 0
    height, width = size[::-1] if turns % 2 else size
    brought = reformatter.reformat(frame, width, height, format, interpolation="BILINEAR")
    turned = np.rot90(brought.to_ndarray(), turns)
    return np.asarray(turned[None] if color == "gray" else turned.transpose(2, 0, 1), dtype=np.float32)
