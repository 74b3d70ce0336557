"""Clips decoded by PyAV: the stream that is read, damage reported, rotations applied, pictures as pixels or as a checksum.

PyAV is used itself, because imageio's plugin for it hides whether a frame is corrupt, decodes damaged packets without an
error (err_detect does not reach its decoder) and cannot set the quality of the encoder (crf).

H.264 holds no checksums: damage that decodes to another valid picture cannot be told from that picture. MP4s of pdr have
a SHA-256 of their decoded pictures, which is checked whenever they are scanned.
"""

from __future__ import annotations

import contextlib
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pdr_cli.errors import DataError

if TYPE_CHECKING:
    from av import VideoFrame, VideoStream
    from av.container import InputContainer
    from av.video.reformatter import VideoReformatter


@contextlib.contextmanager
def opened(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """A clip and the stream of it that is read.

    Raises:
        DataError: not a video.
    """
    import av

    try:
        container = av.open(os.path.abspath(path), metadata_errors="replace")
    except (av.error.FFmpegError, OSError) as error:
        raise DataError(f"{path} ({path.stat().st_size} bytes) cannot be read as video: {error}") from error
    with container:
        streams = moving(container)
        if not streams:
            raise DataError(f"{path} has no video stream of a known codec")
        # Without this, damaged packets decode to wrong pictures and no error.
        streams[0].codec_context.options = {"err_detect": "explode"}
        yield container, streams[0]


def moving(container: InputContainer) -> list[VideoStream]:
    """The video streams of a clip, without covers and thumbnails; those that players show by default first."""
    from av.stream import Disposition

    covers = Disposition.attached_pic | Disposition.timed_thumbnails
    # A stream of an unknown codec has no context.
    found = [s for s in container.streams.video if s.codec_context is not None and not s.disposition & covers]
    return sorted(found, key=lambda stream: not stream.disposition & Disposition.default)


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Failures of FFmpeg in the block as a DataError that names the file."""
    import av

    try:
        yield
    except av.error.FFmpegError as error:
        raise DataError(f"{path} is damaged: {error}") from error


def every_frame(path: Path, container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
    """All frames in the order in which they are shown.

    Raises:
        DataError: damage that the decoder notices.
    """
    with reading(path):
        for frame in container.decode(stream):
            if frame.is_corrupt:
                raise DataError(f"{path} is damaged: frame {frame.pts} cannot be decoded")
            yield frame


def frames_behind(container: InputContainer, stream: VideoStream, stamp: int) -> Iterator[VideoFrame]:
    """Frames from about the key frame before a stamp on, without those that cannot be decoded from there.

    Which frames these are depends on the container's index and on the codec: their stamps may be wrong, and pictures that
    refer to frames before the key frame are wrong or missing. The caller compares checksums.
    """
    import av

    with contextlib.suppress(av.error.FFmpegError):
        container.seek(stamp, stream=stream, backward=True)
        for packet in container.demux(stream):
            decoded: list[Any] = []
            with contextlib.suppress(av.error.InvalidDataError):
                decoded = packet.decode()
            yield from decoded


def checksum(frame: VideoFrame, reformatter: VideoReformatter) -> int:
    """CRC-32 of a decoded picture, without the padding of its rows."""
    sums = 0
    for rows in _rows(frame) or [reformatter.reformat(frame, format="rgba").to_ndarray()]:
        sums = zlib.crc32(np.ascontiguousarray(rows).data, sums)
    return sums


def _rows(frame: VideoFrame) -> list[np.ndarray] | None:
    """The bytes of each plane [H, W × bytes] of a frame with a plane for each component; None of any other."""
    components = frame.format.components
    if frame.format.has_palette or len(frame.planes) != len(components) or min(c.bits for c in components) < 8:
        return None
    found = []
    for plane, component in zip(frame.planes, components, strict=True):
        stored = np.frombuffer(memoryview(plane), np.uint8)
        lines = stored[: len(stored) // plane.line_size * plane.line_size].reshape(-1, plane.line_size)
        found.append(lines[: component.height, : component.width * ((component.bits + 7) // 8)])
    return found


def quarter_turns(frame: VideoFrame) -> int | None:
    """Turns of a frame by 90 degrees, counterclockwise; None if it is mirrored or turned by another angle."""
    found: Any = frame.side_data.get("DISPLAYMATRIX")
    if found is None:
        return 0
    a, b, _, c, d, *_ = np.frombuffer(bytes(found), "<i4") / 65536
    turns = {(1, 0, 0, 1): 0, (0, -1, 1, 0): 1, (-1, 0, 0, -1): 2, (0, 1, -1, 0): 3}
    return turns.get((round(a, 3), round(b, 3), round(c, 3), round(d, 3)))


def pixels(frame: VideoFrame, size: tuple[int, int], color: str, reformatter: VideoReformatter) -> np.ndarray:
    """[C, H, W] float32, 0..255, as displayed."""
    format = "gray" if color == "gray" else "rgb24"
    turns = quarter_turns(frame) or 0
    height, width = size[::-1] if turns % 2 else size
    brought = reformatter.reformat(frame, width, height, format, interpolation="BILINEAR")
    turned = np.rot90(brought.to_ndarray(), turns)
    return np.asarray(turned[None] if color == "gray" else turned.transpose(2, 0, 1), dtype=np.float32)
