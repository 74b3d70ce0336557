"""A clip as a whole: every frame decoded once, for its stamp and its checksum, and compared with what the container says."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pdr_cli.data.formats import cutoff, decoding, rates
from pdr_cli.errors import DataError, TimeError

if TYPE_CHECKING:
    from av import VideoFrame, VideoStream
    from av.container import InputContainer
    from av.video.format import VideoFormat
    from av.video.reformatter import VideoReformatter

OURS = ("yuv420p", "yuv444p")  # pixel formats of MP4s of pdr: even sides, and others
PICTURES = "pdr_pictures_sha256"
AGAIN = "`ffmpeg -i IN OUT.mp4` writes it as players show it"
NEAR = 3  # frames that stamps of a program stream may lie beside the right ones
TIMED = ("matroska", "avi", "flv", "asf")  # containers whose header says how long they are; that of MP4 has an index


@dataclass(frozen=True)
class Clip:
    """Properties of a whole clip, found by decoding it.

    Args:
        times: of all frames, in seconds from the first: [T].
        stamps: of all frames in units of the stream, by which frames are found again: [T]; empty if there are none.
        sums: checksums of the decoded pictures: [T].
        keys: numbers of the frames at which decoding can begin: [K].
        size: (H, W) as displayed.
        format: name of the pixel format.
        gray: whether that format has no colours.
        aspect: width and height of a pixel as displayed; (1, 1) of square ones.
        rate: frames a second as fitted to all stamps, a fraction; "" of a variable rate.
        container: what the container says of the stream.
        assumed: what the clip does not say, and what is read otherwise than it is stored.
    """

    times: np.ndarray
    stamps: np.ndarray
    sums: np.ndarray
    keys: np.ndarray
    size: tuple[int, int]
    format: str
    gray: bool
    aspect: tuple[int, int]
    rate: str
    container: str
    assumed: tuple[str, ...]


def scan(path: Path) -> Clip:
    """Decode every frame of a clip.

    Raises:
        DataError: damaged, cut short, without frames, transparent, mirrored, or of frames of several sizes.
        TimeError: a frame without a time, or not after the one before.
    """
    import av

    cutoff.check(path)
    with decoding.opened(path) as (container, stream):
        if stream.metadata.get("alpha_mode") == "1":  # which most decoders ignore
            raise _transparent(path, "")
        claimed = claims(container.metadata.get("description", "")).get(PICTURES)
        seen = _Seen(path, claimed, av.video.reformatter.VideoReformatter())
        for frame in decoding.every_frame(path, container, stream):
            seen.add(frame)
        return _clip(path, container, stream, seen)


@dataclass
class _Seen:
    """What the frames of a clip were, one after another."""

    path: Path
    claimed: str | None
    reformatter: VideoReformatter
    pts: list[int | None] = field(default_factory=list)
    dts: list[int | None] = field(default_factory=list)
    durations: set[int] = field(default_factory=set)
    sums: list[int] = field(default_factory=list)
    keys: list[int] = field(default_factory=list)
    sizes: set[tuple[int, int]] = field(default_factory=set)
    formats: list[VideoFormat] = field(default_factory=list)
    turned: bool = False
    interlaced: bool = False
    digest: Any = field(default_factory=hashlib.sha256)

    def add(self, frame: VideoFrame) -> None:
        _refuse_transparent(self.path, frame, self.reformatter)
        if frame.key_frame:
            self.keys.append(len(self.sums))
        self.pts.append(frame.pts)
        self.dts.append(frame.dts)
        self.durations.add(frame.duration)
        self.sums.append(decoding.checksum(frame, self.reformatter))
        self.sizes.add(_displayed(self.path, frame))
        self.formats = [frame.format]
        self.turned = bool((decoding.quarter_turns(frame) or 0) % 2)
        self.interlaced = self.interlaced or bool(frame.interlaced_frame)
        if self.claimed is not None and frame.format.name in OURS:
            self.digest.update(frame.to_ndarray().tobytes())


def _clip(path: Path, container: InputContainer, stream: VideoStream, seen: _Seen) -> Clip:
    if not seen.sums:
        raise DataError(f"{path} has no video frames")
    if seen.claimed not in (None, seen.digest.hexdigest()):
        raise DataError(f"{path} is damaged: its pictures differ from the SHA-256 written with them")
    if len(seen.sizes) > 1:
        sizes = " and ".join("{} x {}".format(*size) for size in sorted(seen.sizes))
        raise DataError(f"{path} has frames of {sizes}", "frames of one size")
    stamps, assumed = _stamps(path, container, stream, seen)
    declared = [r for r in (stream.average_rate, stream.guessed_rate, stream.base_rate) if r]
    raw = _seconds(stamps, stream, len(seen.sums), declared)
    _check_length(path, container, stream, raw)
    tick = float(stream.time_base) if len(stamps) and stream.time_base else rates.STAMP
    rate = rates.fitted(raw, tick, declared)
    format = seen.formats[0]
    return Clip(
        times=raw if rate is None else rates.steps(len(raw), rate),
        stamps=stamps,
        sums=np.array(seen.sums, np.uint32),
        keys=np.array(sorted({0, *seen.keys}), np.int64),
        size=next(iter(seen.sizes)),
        format=format.name,
        gray=_is_gray(format),
        aspect=_aspect(stream, seen.turned),
        rate="" if rate is None else str(rate),
        container=_says(container, stream),
        assumed=(*assumed, *_differences(container, stream, seen)),
    )


def _is_gray(format: VideoFormat) -> bool:
    colors = [c for c in format.components if not c.is_alpha]
    return not format.is_rgb and len(colors) == 1 and not format.has_palette


def _stamps(
    path: Path, container: InputContainer, stream: VideoStream, seen: _Seen
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Increasing stamps of the frames, empty where the file has none; and what that assumes.

    AVI has times of decoding only: of frames that are shown in another order FFmpeg makes up the rest.

    Raises:
        TimeError: a frame without a time, or not after the one before.
    """
    if all(pts is None for pts in seen.pts):
        return np.empty(0, np.int64), (f"has no time stamps: {_per_second(stream)} frames a second are assumed",)
    if _increase(seen.pts):
        return np.array(seen.pts, np.int64), ()
    if container.format.name == "avi" and _increase(counted := _decoded_at(seen.dts)):
        _refuse_packed(path, stream, len(seen.pts))
        return np.array(counted, np.int64), (
            "is an AVI with B-frames, without times of showing: its frames are counted",
        )
    if container.format.name == "mpeg" and len(even := _evenly(seen)):
        return even, ("stores the times of some frames only, which are out of order: its frames are counted",)
    raise _disorder(path, seen.pts, stream)


def _evenly(seen: _Seen) -> np.ndarray:
    """Stamps of frames of one duration, if those that are stored lie within a few frames of them; else none.

    A packet of an MPEG program stream holds several frames and the time of one.
    """
    first, length = seen.pts[0], next(iter(seen.durations))
    if first is None or len(seen.durations) > 1 or not length:
        return np.empty(0, np.int64)
    counted = first + np.arange(len(seen.pts), dtype=np.int64) * length
    near = all(p is None or abs(p - c) <= NEAR * length for p, c in zip(seen.pts, counted.tolist(), strict=True))
    return counted if near else np.empty(0, np.int64)


def _increase(stamps: list[int | None]) -> bool:
    known = [s for s in stamps if s is not None]
    return len(known) == len(stamps) and all(b > a for a, b in pairwise(known))


def _decoded_at(dts: list[int | None]) -> list[int | None]:
    """Times of decoding, counted on for the last frames, which leave the decoder without one."""
    known = [d for d in dts if d is not None]
    if not known or dts[: len(known)] != known:
        return dts
    return [*known, *(known[-1] + 1 + i for i in range(len(dts) - len(known)))]


def _refuse_packed(path: Path, stream: VideoStream, frames: int) -> None:
    if frames != stream.frames:
        raise DataError(
            f"{path}: {frames} of {stream.frames} frames of an AVI with B-frames decode in order; its bitstream is packed",
            way_out="`ffmpeg -bsf:v mpeg4_unpack_bframes -i IN OUT.mp4` writes it as players show it",
        )


def _disorder(path: Path, pts: list[int | None], stream: VideoStream) -> TimeError:
    if None in pts:
        return TimeError(f"{path}: frame {pts.index(None)} has no time stamp", way_out=AGAIN)
    known = [p for p in pts if p is not None]
    at = next(i for i in range(1, len(known)) if known[i] <= known[i - 1])
    when = float(known[at] * (stream.time_base or 1))
    return TimeError(f"{path}: frame {at} is shown at {when:.3f} s, not after the frame before it", way_out=AGAIN)


def _seconds(stamps: np.ndarray, stream: VideoStream, count: int, declared: list[Fraction]) -> np.ndarray:
    """Times of the frames in seconds from the first, as stored: [T]."""
    if len(stamps) and stream.time_base:
        return (stamps - stamps[0]) * float(stream.time_base.numerator) / float(stream.time_base.denominator)
    return rates.steps(count, declared[0] if declared else Fraction(25))


def _per_second(stream: VideoStream) -> str:
    rate = stream.average_rate or stream.guessed_rate or Fraction(25)
    return f"{float(rate):.6g}"


def _check_length(path: Path, container: InputContainer, stream: VideoStream, times: np.ndarray) -> None:
    """Refuse a clip of which less decodes than its header says, or whose index points behind the end of the file."""
    size = path.stat().st_size
    said = _said_seconds(container, stream)
    step = float(times[-1]) / (len(times) - 1) if len(times) > 1 else 1.0
    short = times[-1] + 3 * step + 0.1 < said and not len(times) >= stream.frames > 0
    ends = [entry.pos + entry.size for entry in stream.index_entries] if container.format.name.startswith("mov") else []
    if short or max(ends, default=0) > size:
        found = f"{times[-1] + step:.4g} of {said:.4g} s decode" if short else "its index points behind its end"
        raise DataError(
            f"{path} ({size} bytes) is cut short: {found}",
            way_out="get or record it again; `ffmpeg -i IN OUT.mp4` keeps what there is as a shorter clip",
        )


def _said_seconds(container: InputContainer, stream: VideoStream) -> float:
    """How long the stream is by the header of its container; 0 where that does not say, or edits what it says."""
    if not container.format.name.startswith(TIMED):
        return 0.0
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    hours, _, rest = stream.metadata.get("DURATION", "").partition(":")
    minutes, _, seconds = rest.partition(":")
    if hours.isdigit() and minutes.isdigit() and seconds.replace(".", "").isdigit():
        return 3600 * int(hours) + 60 * int(minutes) + float(seconds) - float(container.start_time or 0) / 1e6
    alone = len(container.streams) == 1
    return float(container.duration or 0) / 1e6 if alone else 0.0


def _aspect(stream: VideoStream, turned: bool) -> tuple[int, int]:
    found = stream.sample_aspect_ratio
    if not found or found <= 0:
        return (1, 1)
    return (found.denominator, found.numerator) if turned else (found.numerator, found.denominator)


def _says(container: InputContainer, stream: VideoStream) -> str:
    """What the container says of the stream, in words."""
    parts = [f"{container.format.name.split(',')[0]} of {stream.codec_context.name}"]
    parts += [f"{_per_second(stream)} frames a second"] if stream.average_rate else []
    parts += [f"{stream.frames} frames"] if stream.frames else []
    parts += [f"{float(stream.duration * stream.time_base):.6g} s"] if stream.duration and stream.time_base else []
    aspect = _aspect(stream, turned=False)
    parts += [f"pixels of {aspect[0]}:{aspect[1]}"] if aspect != (1, 1) else []
    return ", ".join(parts)


def _differences(container: InputContainer, stream: VideoStream, seen: _Seen) -> list[str]:
    """What is read otherwise than it is stored, in words."""
    found = []
    bits = max(c.bits for c in seen.formats[0].components)
    if bits > 8:
        found.append(f"has {bits} bits; they are reduced to 8")
    if seen.interlaced:
        found.append(
            "is interlaced: both fields are read as one picture; `ffmpeg -i IN -vf bwdif OUT.mp4` divides them"
        )
    others = decoding.moving(container)[1:]
    if others:
        sizes = ", ".join(f"{s.height} x {s.width} (stream {s.index})" for s in others)
        found.append(f"has {len(others) + 1} video streams: stream {stream.index} is read, and not {sizes}")
    if container.format.name.startswith("mov") and stream.frames > len(seen.sums):
        found.append(f"shows {len(seen.sums)} of the {stream.frames} frames that it stores, by its edit list")
    return found


def claims(text: str) -> dict[str, Any]:
    """What the description of a clip that pdr wrote says, a JSON object; nothing of any other text."""
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
        raise _transparent(path, f": the frame at {frame.time or 0:.2f} s has pixels that are not opaque")


def _transparent(path: Path, where: str) -> DataError:
    return DataError(f"{path} is transparent{where}", way_out="put it on a background first")


def _displayed(path: Path, frame: VideoFrame) -> tuple[int, int]:
    """(H, W) of a frame as a player shows it."""
    turns = decoding.quarter_turns(frame)
    if turns is None:
        raise DataError(
            f"{path} is to be shown mirrored, or turned by {frame.rotation} degrees, which is not supported",
            way_out="ffmpeg -i IN OUT.mp4 writes it as it is shown",
        )
    return (frame.width, frame.height) if turns % 2 else (frame.height, frame.width)
