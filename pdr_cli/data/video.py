"""Video: frames in by PyAV, which counts by decoding and reports damage; MP4 and GIF out, never resized silently.

imageio writes GIFs; MP4 needs exact time stamps and odd sizes, which only its engine, PyAV, gives.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np

from pdr_cli.data import kth
from pdr_cli.data import times as time_axis
from pdr_cli.data.series import LazyFrames, Series, make_series
from pdr_cli.errors import DataError, StorageError, TimeError

SUFFIXES = (".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v", ".mpg", ".gif")
CRF = "18"  # x264's "visually lossless"


def read(path: Path, size: Sequence[int] = (), color: str = "gray") -> Series:
    """Open one clip as a Series of values 0..255, lazily.

    The clip is decoded once to count its frames and find damage; pixels are read when asked for.

    Args:
        path: the clip.
        size: (H, W) to resize frames to, bilinear; empty: as they are.
        color: "gray" (one channel) or "rgb" (three).

    Raises:
        DataError: not a video, damaged, or without frames.
        TimeError: frames at irregular times (variable frame rate).
    """
    times, height, width = _scan(path)
    if len(times) == 0:
        raise DataError(f"{path} has no video frames")
    out = (int(size[0]), int(size[1])) if len(size) else (height, width)
    channels = ["gray"] if color == "gray" else ["red", "green", "blue"]
    if len(times) > 2:
        _check_rate(path, times)

    def frames(start: int, stop: int) -> np.ndarray:
        decoded = [_pixels(f, out, color) for f in _decode(path, times[start], stop - start)]
        if len(decoded) < stop - start:
            raise DataError(
                f"{path}: {len(decoded)} of frames {start} to {stop - 1} could be decoded; the file is damaged"
            )
        return np.stack(decoded)

    series = make_series(
        LazyFrames((len(times), len(channels), *out), np.float32, frames),
        times,
        {name: {"units": "1", "long_name": f"{name} level, 0 to 255"} for name in channels},
        {},
        format="video",
        files=[path],
    )
    series.attrs["source_size"] = (height, width)
    return series


def read_all(paths: Sequence[Path], size: Sequence[int] = (), color: str = "gray") -> list[Series]:
    """Each clip as a Series, or as one for each of its sequences if it is KTH's and the list of these is beside it."""
    listed = kth.lists([p for p in paths if kth.is_clip(p)])
    opened = [(p, kth.label(read(p, size, color), p)) for p in paths]
    return [part for path, clip in opened for part in kth.sequences(clip, path, listed.get(path.parent, {}))]


def write(series: Series, path: Path, provenance: Mapping[str, str]) -> None:
    """Write a Series of one or three channels, 0..255, as MP4 (H.264) or GIF at its own frame rate.

    Odd sizes are written as yuv444p, which needs no even sides; nothing is resized.
    """
    frames = _bytes(series)
    step = time_axis.find_step(series.time.values).count if series.sizes["time"] > 1 else 1 / 25
    rate = Fraction(1 / step).limit_denominator(1001)
    if path.suffix.lower() == ".gif":
        import imageio.v3 as iio

        # Repeated frames must stay frames: the GIF writer would otherwise merge them and shorten the clip.
        iio.imwrite(
            path, frames, plugin="pillow", extension=".gif", duration=1000 * step, loop=0, optimize=False,
            comment=_description(provenance),
        )  # fmt: skip
    else:
        _write_mp4(frames, path, rate, provenance)


def description(path: Path) -> str:
    """What a clip says about itself: the `pdr_` part of its provenance as JSON, if `write` made it."""
    if path.suffix.lower() == ".gif":
        from PIL import Image

        with Image.open(path) as picture:
            comment = picture.info.get("comment", b"")
        return comment.decode(errors="replace") if isinstance(comment, bytes) else str(comment)
    with _open(path) as container:
        return str(container.metadata.get("description", ""))


def _description(provenance: Mapping[str, str]) -> str:
    return json.dumps({k: v for k, v in provenance.items() if k.startswith("pdr_")})


def verify(path: Path, series: Series) -> None:
    """Re-open a written clip and count its frames and their size."""
    times, height, width = _scan(path)
    wanted = (series.sizes["time"], series.sizes["y"], series.sizes["x"])
    # GIF viewers and writers merge equal neighbours, so a GIF may hold fewer frames than it shows.
    enough = len(times) == wanted[0] or (path.suffix.lower() == ".gif" and 0 < len(times) <= wanted[0])
    if not enough or (height, width) != wanted[1:]:
        raise StorageError(f"{path.name} reads back as {len(times)} frames of {height} x {width}, not {wanted}")


def _bytes(series: Series) -> np.ndarray:
    """[T, H, W, 3] uint8."""
    values = np.clip(np.round(series.values), 0, 255).astype(np.uint8).transpose(0, 2, 3, 1)
    if values.shape[-1] == 1:
        return np.repeat(values, 3, axis=-1)
    if values.shape[-1] != 3:
        raise DataError(f"a video holds 1 or 3 channels, not {values.shape[-1]}; write to .nc instead")
    return values


def _write_mp4(frames: np.ndarray, path: Path, rate: Fraction, provenance: Mapping[str, str]) -> None:
    import av

    even = frames.shape[1] % 2 == 0 and frames.shape[2] % 2 == 0
    with av.open(os.path.abspath(path), "w", format="mp4", options={"movflags": "+faststart"}) as out:
        out.metadata["title"] = provenance.get("title", "")
        out.metadata["comment"] = provenance.get("source", "")
        out.metadata["description"] = _description(provenance)
        stream = out.add_stream("libx264", rate=rate, options={"crf": CRF})
        stream.width, stream.height = frames.shape[2], frames.shape[1]
        stream.pix_fmt = "yuv420p" if even else "yuv444p"
        for pixels in frames:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        out.mux(stream.encode())


def _check_whole(path: Path) -> None:
    """Refuse an MP4 whose pictures or their index go on behind the end of the file, which decoders may pass over."""
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


def _open(path: Path):  # type: ignore[no-untyped-def]
    import av

    _check_whole(path)
    try:
        container = av.open(os.path.abspath(path))
    except (av.error.FFmpegError, OSError) as error:
        raise DataError(f"{path} ({path.stat().st_size} bytes) cannot be read as video: {error}") from error
    if not container.streams.video:
        container.close()
        raise DataError(f"{path} has no video stream")
    # Without this, damaged packets decode to wrong pictures and no error.
    container.streams.video[0].codec_context.options = {"err_detect": "explode"}
    return container


def _scan(path: Path) -> tuple[np.ndarray, int, int]:
    """Times of all frames in seconds from the first [T], and the frames' height and width."""
    stamps: list[float] = []
    height = width = 0
    for frame in _frames(path):
        if frame.time is None:
            raise TimeError(f"{path}: frame {len(stamps)} has no time stamp")
        stamps.append(float(frame.time))
        height, width = frame.height, frame.width
    times = np.array(stamps)
    return times - (times[0] if len(times) else 0.0), height, width


def _frames(path: Path, seek: float = 0.0) -> Iterator:
    """Decoded frames in order, from the key frame before `seek` seconds."""
    import av

    with _open(path) as container:
        stream = container.streams.video[0]
        if seek > 0:
            container.seek(int(seek / stream.time_base) + (stream.start_time or 0), stream=stream, backward=True)
        try:
            for frame in container.decode(stream):
                if frame.is_corrupt:
                    raise DataError(f"{path} is damaged: the frame at {frame.time:.2f} s cannot be decoded")
                yield frame
        except av.error.FFmpegError as error:
            raise DataError(f"{path} is damaged: {error}") from error


def _decode(path: Path, start: float, count: int) -> Iterator:
    """`count` frames from the one at `start` seconds after the first."""
    import itertools

    def wanted(seek: float) -> Iterator:
        origin = _first_time(path)
        return (f for f in _frames(path, seek) if f.time - origin >= start - 1e-4)

    return itertools.islice(wanted(start), count)


def _first_time(path: Path) -> float:
    return next(float(f.time) for f in _frames(path))


def _pixels(frame, size: tuple[int, int], color: str) -> np.ndarray:  # type: ignore[no-untyped-def]
    """[C, H, W] float32, 0..255."""
    format = "gray" if color == "gray" else "rgb24"
    pixels = frame.reformat(width=size[1], height=size[0], format=format, interpolation="BILINEAR").to_ndarray()
    return np.asarray(pixels[None] if color == "gray" else pixels.transpose(2, 0, 1), dtype=np.float32)


def _check_rate(path: Path, times: np.ndarray) -> None:
    spacing = np.diff(times)
    usual = float(np.median(spacing))
    # Time stamps in milliseconds make 29.97 fps alternate between 33 and 34 ms.
    if np.any(np.abs(spacing - usual) > 0.1 * usual + 1.5e-3):
        raise TimeError(
            f"{path} has a variable frame rate: frames {spacing.min() * 1000:.0f} to {spacing.max() * 1000:.0f} ms apart; "
            f"make it constant first, for example with: ffmpeg -i IN -vf fps={round(1 / usual)} OUT.mp4"
        )
