"""Video: clips in, never resampled or resized silently; MP4 and GIF out. imageio writes GIFs and reads descriptions."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pdr_cli.data import kinds
from pdr_cli.data import times as time_axis
from pdr_cli.data.formats import decoding, kth
from pdr_cli.data.formats.base import DEFAULTS, Format, ReadOptions, WriteOptions, beginning
from pdr_cli.data.formats.decoding import OURS, PICTURES
from pdr_cli.data.series import LazyFrames, Series, make_series, names
from pdr_cli.errors import DataError, StorageError, TimeError, UsageError
from pdr_cli.system.logs import log

if TYPE_CHECKING:
    from av import Packet, VideoCodecContext

MARKS_AT_4 = (b"ftyp", b"moov", b"mdat", b"wide", b"free")  # MP4 and QuickTime
MARKS = (b"RIFF", b"\x1aE\xdf\xa3", b"GIF8")  # AVI, Matroska and WebM, GIF
CRF = "18"  # x264's "visually lossless"
STAMP = 1e-3  # seconds that time stamps are rounded to in some containers
LONGEST_STILL = 10_000  # resampled frames for each frame of a clip, beyond which its time stamps must be wrong


class Video(Format):
    """Clips, with the sequences of KTH."""

    name, title = "video", "video"
    suffixes = (".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v", ".mpg", ".gif")
    outputs = (".mp4", ".gif")
    takes = frozenset({"size", "color", "resample_fps", "gray_to_rgb"})

    def matches(self, path: Path) -> bool:
        """By the first bytes, or else by the suffix: MPEG has no mark at a fixed place."""
        head = beginning(path)
        marked = head[4:8] in MARKS_AT_4 or head[:4] in MARKS
        return marked or (path.is_file() and path.suffix.lower() in self.suffixes)

    def open(self, paths: Sequence[Path], options: ReadOptions) -> list[Series]:
        """Each clip as a Series, or as one for each of its sequences if a list of KTH beside it names them.

        Raises:
            UsageError: such a list, which counts frames at the clip's own rate, and `resample_fps`.
            DataError, TimeError: see `read`.
        """
        listed = kth.lists([p for p in paths if kth.is_clip(p)])
        if options.resample_fps and any(listed.values()):
            raise UsageError(
                f"--resample-fps: {kth.SEQUENCES} counts the frames of clips at their own rate",
                way_out="move it elsewhere",
            )
        opened = [(p, kth.label(read(p, options), p)) for p in paths]
        return [part for path, clip in opened for part in kth.sequences(clip, path, listed.get(path.parent, {}))]

    def check(self, series: Series, suffix: str) -> None:
        """Refuse what is not pictures."""
        if not kinds.of(series).pictures:
            what = f"{suffix} holds 8-bit pictures, not {', '.join(names(series))}"
            raise UsageError(what, way_out="write the numbers to .nc")

    def write(self, series: Series, path: Path, provenance: Mapping[str, str], options: WriteOptions) -> None:
        """Write one or three channels, 0..255, as MP4 (H.264) or GIF at their own frame rate.

        Odd sizes are written as yuv444p, which needs no even sides; nothing is resized.
        """
        frames = _bytes(series)
        step = time_axis.find_step(series.time.values).count if series.sizes["time"] > 1 else 1 / 25
        if path.suffix.lower() == ".gif":
            _write_gif(frames, path, step, provenance)
        else:
            _write_mp4(frames, path, Fraction(1 / step).limit_denominator(1001), provenance)

    def verify(self, path: Path, series: Series, options: WriteOptions) -> None:
        """Compare the number and the size of the frames."""
        clip = decoding.scan(path)
        found = (len(clip.times), *clip.size)
        expected = (series.sizes["time"], series.sizes["y"], series.sizes["x"])
        # GIF viewers and writers merge equal neighbours, so a GIF may hold fewer frames than it shows.
        fewer = path.suffix.lower() == ".gif" and 0 < found[0] <= expected[0]
        if found[1:] != expected[1:] or (found[0] != expected[0] and not fewer):
            raise StorageError("{} frames of {} x {} read back".format(*found), "{} of {} x {}".format(*expected))

    def provenance(self, path: Path) -> Mapping[str, str]:
        """The description that `write` puts into a clip."""
        return dict(json.loads(description(path) or "{}"))


def read(path: Path, options: ReadOptions = DEFAULTS) -> Series:
    """Open one clip as a Series of values 0..255, lazily.

    The clip is decoded once to count its frames and find damage; pixels are read when asked for. Gray is the luminance;
    more than 8 bits are reduced to 8; a rotation by right angles is applied, as a player does. Frames are resized
    bilinearly. Of `resample_fps`, each new frame is the one that is shown at its time.

    Raises:
        DataError: not a video, damaged, without frames, transparent, mirrored, or gray where colours are needed.
        TimeError: frames at irregular times (variable frame rate), or not in order.
    """
    clip = decoding.scan(path)
    color, size, fps = options.color, options.size, options.resample_fps
    if color == "rgb" and clip.gray and not options.gray_to_rgb:
        raise gray_error(path, f"pixel format {clip.format}")
    if clip.bits > 8:
        log.info("video   %s has %d bits; they are reduced to 8", path, clip.bits)
    times, shown = _shown(path, clip.times, fps)
    out = (int(size[0]), int(size[1])) if len(size) else clip.size
    channels = ["gray"] if color == "gray" else ["red", "green", "blue"]
    series = make_series(
        LazyFrames((len(times), len(channels), *out), np.float32, _reader(path, clip.times, shown, out, color)),
        times,
        {name: {"units": "1", "long_name": f"{name} level, 0 to 255"} for name in channels},
        {},
        kind="video",
        files=[path],
    )
    series.attrs |= {"source_size": clip.size, "value_range": (0.0, 255.0)}
    return series.assign_attrs(resampled=f"{fps:g} frames a second") if fps else series


def _reader(
    path: Path, times: np.ndarray, shown: np.ndarray, size: tuple[int, int], color: str
) -> Callable[[int, int], np.ndarray]:
    """A function that decodes frames [start, stop) of a series.

    Args:
        path: the clip.
        times: of its frames, in seconds: [T].
        shown: number of the frame of the clip that each frame of the series is.
        size: (H, W) of the series.
        color: "gray" or "rgb".
    """

    def frames(start: int, stop: int) -> np.ndarray:
        import av

        numbers = shown[start:stop].tolist()
        first, count = numbers[0], numbers[-1] - numbers[0] + 1
        needed = set(numbers)
        decoded = enumerate(decoding.decode(path, times[first], count), first)
        reformatter = av.video.reformatter.VideoReformatter()  # a frame's own keeps threads until both are garbage
        pixels = {n: decoding.pixels(f, size, color, reformatter) for n, f in decoded if n in needed}
        if len(pixels) < len(needed):
            what = f"{len(pixels)} of frames {first} to {first + count - 1} could be decoded; the file is damaged"
            raise DataError(f"{path}: {what}")
        return np.stack([pixels[n] for n in numbers])

    return frames


def gray_error(path: Path, what: str) -> DataError:
    """The error for a gray clip or picture where colours are needed."""
    return DataError(
        f"{path} is gray ({what})",
        "red, green and blue",
        "--gray-to-rgb (in training --set data.gray_to_rgb=true) repeats the gray in each of them",
    )


def description(path: Path) -> str:
    """The description of a clip: the `pdr_` part of its provenance as JSON, if pdr wrote it."""
    import imageio.v3 as iio

    gif = path.suffix.lower() == ".gif"
    try:
        about = iio.immeta(path, plugin="pillow" if gif else "pyav")
    except Exception as error:  # of either library, for a file of another format
        raise DataError(f"{path} ({path.stat().st_size} bytes) has no description that can be read: {error}") from error
    text = about.get("comment" if gif else "description", "")
    return text.decode(errors="replace") if isinstance(text, bytes) else str(text)


def _description(provenance: Mapping[str, str]) -> str:
    return json.dumps({k: v for k, v in provenance.items() if k.startswith("pdr_")})


def _bytes(series: Series) -> np.ndarray:
    """[T, H, W, 3] uint8."""
    values = np.clip(np.round(series.values), 0, 255).astype(np.uint8).transpose(0, 2, 3, 1)
    if values.shape[-1] == 1:
        return np.repeat(values, 3, axis=-1)
    if values.shape[-1] != 3:
        raise DataError(f"a video holds 1 or 3 channels, not {values.shape[-1]}", way_out="write to .nc instead")
    return values


def _write_gif(frames: np.ndarray, path: Path, step: float, provenance: Mapping[str, str]) -> None:
    import imageio.v3 as iio

    # Repeated frames must stay frames: the GIF writer would otherwise merge them and shorten the clip.
    iio.imwrite(
        path, frames, plugin="pillow", extension=".gif", duration=1000 * step, loop=0, optimize=False,
        comment=_description(provenance),
    )  # fmt: skip


def _write_mp4(frames: np.ndarray, path: Path, rate: Fraction, provenance: Mapping[str, str]) -> None:
    import av

    even = frames.shape[1] % 2 == 0 and frames.shape[2] % 2 == 0
    with av.open(os.path.abspath(path), "w", format="mp4", options={"movflags": "+faststart"}) as out:
        stream = out.add_stream("libx264", rate=rate, options={"crf": CRF})
        stream.width, stream.height = frames.shape[2], frames.shape[1]
        stream.pix_fmt = OURS[0] if even else OURS[1]
        packets = [p for f in frames for p in stream.encode(av.VideoFrame.from_ndarray(f, format="rgb24"))]
        packets += stream.encode()
        # The description of a clip is written with its first packet.
        out.metadata["title"] = provenance.get("title", "")
        out.metadata["comment"] = provenance.get("source", "")
        out.metadata["description"] = _description(
            {**provenance, PICTURES: _decoded_sha256(stream.codec_context, packets)}
        )
        out.mux(packets)


def _decoded_sha256(encoder: VideoCodecContext, packets: Sequence[Packet]) -> str:
    """SHA-256 of the decoded pictures, which H.264 defines to the last bit."""
    import av

    decoder = av.CodecContext.create("h264", "r")
    decoder.extradata = encoder.extradata
    digest = hashlib.sha256()
    for packet in (*packets, None):
        for frame in decoder.decode(packet):
            digest.update(frame.to_ndarray().tobytes())
    return digest.hexdigest()


def _shown(path: Path, times: np.ndarray, fps: float) -> tuple[np.ndarray, np.ndarray]:
    """Times of a constant rate [n], and the number of the frame shown at each time [n].

    Args:
        path: for messages.
        times: [T] seconds from the first.
        fps: the rate; 0: the clip's own, which must be constant.

    Raises:
        TimeError: a variable rate, or a frame that is shown for very long.
    """
    if not fps:
        if len(times) > 2:
            _check_rate(path, times)
        return times, np.arange(len(times))
    count = int((times[-1] + STAMP) * fps) + 1
    if count > LONGEST_STILL * len(times):
        raise TimeError(f"{path}: {len(times)} frames in {times[-1]:.0f} s cannot be a clip of {fps:g} frames a second")
    resampled = np.arange(count) / fps
    return resampled, np.searchsorted(times, resampled + STAMP, side="right") - 1


def _check_rate(path: Path, times: np.ndarray) -> None:
    spacing = np.diff(times)
    usual = float(np.median(spacing))
    # Time stamps in milliseconds make 29.97 fps alternate between 33 and 34 ms.
    if np.any(np.abs(spacing - usual) > 0.1 * usual + 1.5 * STAMP):
        raise TimeError(
            f"{path} has a variable frame rate: frames {spacing.min() * 1000:.0f} to {spacing.max() * 1000:.0f} ms apart",
            way_out=f"--resample-fps {1 / usual:.4g} takes the frame shown at each time of a constant rate",
        )
