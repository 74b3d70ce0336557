"""Video: frames in, counted by decoding, damage reported; MP4 and GIF out, never resized silently.

imageio writes GIFs and reads what clips say of themselves. Frames come and MP4 goes through the engine of its plugin,
PyAV, because the plugin's own interface hides whether a frame is corrupt, decodes damaged packets without an error
(err_detect does not reach its decoder) and has no place for the quality of the encoder (crf).

H.264 holds no checksums: damage that decodes to another valid picture is not to be told from that picture. MP4s of
ours have a SHA-256 of their decoded pictures, which is checked whenever they are read.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pdr_cli.data import times as time_axis
from pdr_cli.data.formats import kth
from pdr_cli.data.series import LazyFrames, Series, make_series
from pdr_cli.errors import DataError, StorageError, TimeError, UsageError
from pdr_cli.system.logs import log

if TYPE_CHECKING:
    from av import Packet, VideoCodecContext, VideoFrame
    from av.container import InputContainer
    from av.video.reformatter import VideoReformatter

SUFFIXES = (".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v", ".mpg", ".gif")
OURS = ("yuv420p", "yuv444p")  # pixel formats of MP4s of ours: sides that are even, and others
CRF = "18"  # x264's "visually lossless"
PICTURES = "pdr_pictures_sha256"
STAMP = 1e-3  # seconds that time stamps are rounded to in some containers
LONGEST_STILL = 10_000  # new frames for each of a clip's, beyond which its time stamps are not believed


@dataclass(frozen=True)
class Clip:
    """What decoding a whole clip has told.

    Args:
        times: of all frames, in seconds from the first: [T].
        size: (H, W) as displayed.
        format: name of the pixel format.
        gray: whether that has no colours.
        bits: of each component.
    """

    times: np.ndarray
    size: tuple[int, int]
    format: str
    gray: bool
    bits: int


def read(
    path: Path,
    size: Sequence[int] = (),
    color: str = "gray",
    *,
    resample_fps: float = 0,
    gray_to_rgb: bool = False,
) -> Series:
    """Open one clip as a Series of values 0..255, lazily.

    The clip is decoded once to count its frames and find damage; pixels are read when asked for. Gray is the luminance;
    more than 8 bits are brought to 8; a rotation by right angles is applied, as a player does.

    Args:
        path: the clip.
        size: (H, W) to resize frames to, bilinear; empty: as they are.
        color: "gray" (one channel) or "rgb" (three).
        resample_fps: frames a second that the clip is brought to, each the one shown at that time; 0: its own.
        gray_to_rgb: whether a clip without colours may be read as rgb, its channels alike.

    Raises:
        DataError: not a video, damaged, without frames, transparent, mirrored, or gray where colours are wanted.
        TimeError: frames at irregular times (variable frame rate), or not in order.
    """
    import av

    clip = _scan(path)
    if color == "rgb" and clip.gray and not gray_to_rgb:
        raise gray_error(path, f"pixel format {clip.format}")
    if clip.bits > 8:
        log.info("video   %s has %d bits; they are brought to 8", path, clip.bits)
    times, shown = _shown(path, clip.times, resample_fps)
    out = (int(size[0]), int(size[1])) if len(size) else clip.size
    channels = ["gray"] if color == "gray" else ["red", "green", "blue"]

    def frames(start: int, stop: int) -> np.ndarray:
        wanted = shown[start:stop]
        first, count = int(wanted[0]), int(wanted[-1] - wanted[0]) + 1
        needed = set(wanted.tolist())
        decoded = enumerate(_decode(path, clip.times[first], count), first)
        reformatter = av.video.reformatter.VideoReformatter()  # a frame's own keeps threads until both are garbage
        pixels = {n: _pixels(f, out, color, reformatter) for n, f in decoded if n in needed}
        if len(pixels) < len(needed):
            raise DataError(
                f"{path}: {len(pixels)} of frames {first} to {first + count - 1} could be decoded; the file is damaged"
            )
        return np.stack([pixels[n] for n in wanted.tolist()])

    series = make_series(
        LazyFrames((len(times), len(channels), *out), np.float32, frames),
        times,
        {name: {"units": "1", "long_name": f"{name} level, 0 to 255"} for name in channels},
        {},
        kind="video",
        files=[path],
    )
    series.attrs |= {"source_size": clip.size, "value_range": (0.0, 255.0)}
    if resample_fps:
        series.attrs["resampled"] = f"{resample_fps:g} frames a second"
    return series


def gray_error(path: Path, what: str) -> DataError:
    """A gray clip or picture where colours are wanted."""
    return DataError(
        f"{path} is gray ({what}), but red, green and blue are wanted; --gray-to-rgb (in training "
        "--set data.gray_to_rgb=true) takes its gray for each of them"
    )


def read_all(
    paths: Sequence[Path],
    size: Sequence[int] = (),
    color: str = "gray",
    *,
    resample_fps: float = 0,
    gray_to_rgb: bool = False,
) -> list[Series]:
    """Each clip as a Series, or as one for each of its sequences if it is KTH's and the list of these is beside it.

    Raises:
        UsageError: such a list, which counts frames as they are, and `resample_fps`.
        DataError, TimeError: see `read`.
    """
    listed = kth.lists([p for p in paths if kth.is_clip(p)])
    if resample_fps and any(listed.values()):
        raise UsageError(f"--resample-fps: {kth.SEQUENCES} counts the frames of clips as they are; move it elsewhere")
    how = {"resample_fps": resample_fps, "gray_to_rgb": gray_to_rgb}
    opened = [(p, kth.label(read(p, size, color, **how), p)) for p in paths]  # type: ignore[arg-type]
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
    import imageio.v3 as iio

    gif = path.suffix.lower() == ".gif"
    try:
        about = iio.immeta(path, plugin="pillow" if gif else "pyav")
    except Exception as error:  # of either library, for a file that is none of theirs
        raise DataError(f"{path} ({path.stat().st_size} bytes) does not say what it is: {error}") from error
    text = about.get("comment" if gif else "description", "")
    return text.decode(errors="replace") if isinstance(text, bytes) else str(text)


def _description(provenance: Mapping[str, str]) -> str:
    return json.dumps({k: v for k, v in provenance.items() if k.startswith("pdr_")})


def verify(path: Path, series: Series) -> None:
    """Re-open a written clip and count its frames and their size."""
    clip = _scan(path)
    times, (height, width) = clip.times, clip.size
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
        stream = out.add_stream("libx264", rate=rate, options={"crf": CRF})
        stream.width, stream.height = frames.shape[2], frames.shape[1]
        stream.pix_fmt = OURS[0] if even else OURS[1]
        packets = [p for f in frames for p in stream.encode(av.VideoFrame.from_ndarray(f, format="rgb24"))]
        packets += stream.encode()
        # What a clip says of itself is written with its first packet.
        out.metadata["title"] = provenance.get("title", "")
        out.metadata["comment"] = provenance.get("source", "")
        out.metadata["description"] = _description(
            {**provenance, PICTURES: _decoded_sha256(stream.codec_context, packets)}
        )
        out.mux(packets)


def _decoded_sha256(encoder: VideoCodecContext, packets: Sequence[Packet]) -> str:
    """SHA-256 of the pictures that a decoder will make of packets, which H.264 defines to the last bit."""
    import av

    decoder = av.CodecContext.create("h264", "r")
    decoder.extradata = encoder.extradata
    digest = hashlib.sha256()
    for packet in (*packets, None):
        for frame in decoder.decode(packet):
            digest.update(frame.to_ndarray().tobytes())
    return digest.hexdigest()


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


def _scan(path: Path) -> Clip:
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
            raise TimeError(f"{path}: frame {len(stamps)} is shown at {frame.time:.3f} s, not after the one before it")
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
        raise DataError(f"{path} has frames of {' and '.join('{} x {}'.format(*s) for s in sizes)}; one size is wanted")
    gray = not format.is_rgb and len([c for c in format.components if not c.is_alpha]) == 1 and not format.has_palette
    bits = max(c.bits for c in format.components)
    return Clip(np.array(stamps) - stamps[0], sizes[0], format.name, gray, bits)


def _claims(path: Path) -> str | None:
    """The SHA-256 that a clip of ours says its pictures have; None of another clip.

    Raises:
        DataError: it says that it is transparent, in a way that most decoders leave out.
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
    """Refuse a frame of which not every pixel is opaque: what is behind it is not known."""
    if not (frame.format.has_palette or any(c.is_alpha for c in frame.format.components)):
        return
    if (reformatter.reformat(frame, format="rgba").to_ndarray()[..., 3] < 255).any():
        raise _transparent(path, f": the frame at {frame.time:.2f} s has pixels that are not opaque")


def _transparent(path: Path, where: str) -> DataError:
    return DataError(f"{path} is transparent{where}; put it on a background first, of the colour that is meant")


def _quarter_turns(frame: VideoFrame) -> int | None:
    """How often a frame is to be turned by 90 degrees, counterclockwise; None if it is mirrored or turned otherwise."""
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
            f"{path} is to be shown mirrored, or turned by {frame.rotation} degrees, which is not done here; "
            "ffmpeg -i IN OUT.mp4 writes it as it is shown"
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


def _decode(path: Path, start: float, count: int) -> Iterator[VideoFrame]:
    """`count` frames from the one at `start` seconds after the first."""
    origin = next(float(f.time) for f in _frames(path))
    wanted = (f for f in _frames(path, start) if f.time - origin >= start - 1e-4)
    return itertools.islice(wanted, count)


def _pixels(frame: VideoFrame, size: tuple[int, int], color: str, reformatter: VideoReformatter) -> np.ndarray:
    """[C, H, W] float32, 0..255, as displayed."""
    format = "gray" if color == "gray" else "rgb24"
    turns = _quarter_turns(frame) or 0
    height, width = size[::-1] if turns % 2 else size
    brought = reformatter.reformat(frame, width, height, format, interpolation="BILINEAR")
    pixels = np.rot90(brought.to_ndarray(), turns)
    return np.asarray(pixels[None] if color == "gray" else pixels.transpose(2, 0, 1), dtype=np.float32)


def _shown(path: Path, times: np.ndarray, fps: float) -> tuple[np.ndarray, np.ndarray]:
    """Times of a constant rate [n], and the number of the frame that is shown at each [n].

    Args:
        path: for messages.
        times: [T] seconds from the first.
        fps: the rate; 0: the clip's own, which must be constant.

    Raises:
        TimeError: a variable rate, or a frame that stands still for long.
    """
    if not fps:
        if len(times) > 2:
            _check_rate(path, times)
        return times, np.arange(len(times))
    count = int((times[-1] + STAMP) * fps) + 1
    if count > LONGEST_STILL * len(times):
        raise TimeError(f"{path}: {len(times)} frames in {times[-1]:.0f} s are no film of {fps:g} frames a second")
    resampled = np.arange(count) / fps
    return resampled, np.searchsorted(times, resampled + STAMP, side="right") - 1


def _check_rate(path: Path, times: np.ndarray) -> None:
    spacing = np.diff(times)
    usual = float(np.median(spacing))
    # Time stamps in milliseconds make 29.97 fps alternate between 33 and 34 ms.
    if np.any(np.abs(spacing - usual) > 0.1 * usual + 1.5 * STAMP):
        raise TimeError(
            f"{path} has a variable frame rate: frames {spacing.min() * 1000:.0f} to {spacing.max() * 1000:.0f} ms apart; "
            f"--resample-fps {1 / usual:.4g} takes the frame that is shown at each time of a constant rate"
        )
