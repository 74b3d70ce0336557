"""Video: clips in, never resampled or resized silently; MP4 and GIF out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from pdr_cli.data import kinds
from pdr_cli.data import times as time_axis
from pdr_cli.data.formats import clipfiles, clips, decoding, kth, rates, scans
from pdr_cli.data.formats.base import DEFAULTS, Format, ReadOptions, WriteOptions, beginning
from pdr_cli.data.formats.clips import PICTURES, Clip
from pdr_cli.data.formats.seeking import Reader
from pdr_cli.data.series import LazyFrames, Series, make_series, names
from pdr_cli.errors import DataError, StorageError, UsageError
from pdr_cli.system.logs import log

__all__ = ["PICTURES", "Video", "gray_error", "read"]

MARKS_AT_4 = (b"ftyp", b"moov", b"mdat", b"wide", b"free")  # MP4 and QuickTime
MARKS = (
    *(b"RIFF", b"\x1aE\xdf\xa3", b"GIF8", b"OggS", b"FLV\x01", b"0&\xb2u", b"\0\0\1\xba", b"YUV4"),
)  # AVI, Matroska and WebM, GIF, Ogg, FLV, ASF and WMV, MPEG, YUV4MPEG
ANIMATED = b"acTL"  # behind the header of an animated PNG


class Video(Format):
    """Clips, with the sequences of KTH."""

    name, title = "video", "video"
    suffixes = (
        *(".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v", ".mpg", ".gif", ".mpeg", ".vob", ".3gp", ".3g2"),
        *(".wmv", ".asf", ".flv", ".f4v", ".ogv", ".m2ts", ".mts", ".mxf", ".y4m", ".apng"),
        *(".264", ".h264", ".265", ".h265", ".hevc", ".m1v", ".m2v", ".mjpeg", ".ivf"),
    )
    second = (".ts",)  # also the suffix of programs and translations
    outputs = (".mp4", ".gif")
    takes = frozenset({"size", "color", "resample_fps", "gray_to_rgb"})

    def matches(self, path: Path) -> bool:
        """By the first bytes, or else by the suffix: MPEG has no mark at a fixed place."""
        head = beginning(path)
        marked = head[4:8] in MARKS_AT_4 or head[:4] in MARKS or (head[1:4] == b"PNG" and _is_animated(path))
        return marked or (path.is_file() and path.suffix.lower() in (*self.suffixes, *self.second))

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
        """Refuse what is not pictures, and a rate that GIF cannot hold; log what GIF rounds."""
        if not kinds.of(series).pictures:
            what = f"{suffix} holds 8-bit pictures, not {', '.join(names(series))}"
            raise UsageError(what, way_out="write the numbers to .nc")
        if suffix == ".gif":
            _check_gif(series)

    def write(self, series: Series, path: Path, provenance: Mapping[str, str], options: WriteOptions) -> None:
        """Write one or three channels, 0..255, as MP4 (H.264) or GIF at their own frame rate."""
        frames, step = _bytes(series), _step(series)
        if path.suffix.lower() == ".gif":
            clipfiles.write_gif(frames, path, step, provenance)
        else:
            aspect = series.attrs.get("pixel_aspect", (1, 1))
            clipfiles.write_mp4(frames, path, rates.nearest(step), aspect, provenance)

    def verify(self, path: Path, series: Series, options: WriteOptions) -> None:
        """Compare the number and the size of the frames."""
        clip = clips.scan(path)
        found = (len(clip.times), *clip.size)
        expected = (series.sizes["time"], series.sizes["y"], series.sizes["x"])
        # GIF viewers and writers merge equal neighbours, so a GIF may hold fewer frames than it shows.
        fewer = path.suffix.lower() == ".gif" and 0 < found[0] <= expected[0]
        if found[1:] != expected[1:] or (found[0] != expected[0] and not fewer):
            raise StorageError("{} frames of {} x {} read back".format(*found), "{} of {} x {}".format(*expected))

    def provenance(self, path: Path) -> Mapping[str, str]:
        """The description that `write` puts into a clip."""
        return clips.claims(clipfiles.description(path))


def read(path: Path, options: ReadOptions = DEFAULTS) -> Series:
    """Open one clip as a Series of values 0..255, lazily.

    The clip is decoded once to count its frames and find damage, unless a scan of this very file is in the cache; pixels
    are read when asked for. Gray is the luminance; more than 8 bits are reduced to 8; a rotation by right angles is
    applied, as a player does. Frames are resized bilinearly. Of `resample_fps`, each new frame is the one that is shown
    at its time.

    Raises:
        DataError: not a video, damaged, cut short, without frames, transparent, mirrored, gray where colours are needed,
            or a drawing of a forecast.
        TimeError: frames at irregular times (variable frame rate), or not in order.
    """
    _refuse_webp(path)
    clip = scans.scan(path)
    _refuse_drawing(path)
    color, size, fps = options.color, options.size, options.resample_fps
    if color == "rgb" and clip.gray and not options.gray_to_rgb:
        raise gray_error(path, f"pixel format {clip.format}")
    times, shown = rates.shown(path, clip.times, fps)
    out = (int(size[0]), int(size[1])) if len(size) else clip.size
    about = _about(path, clip, out)
    channels = ["gray"] if color == "gray" else ["red", "green", "blue"]
    pixels = {"pixel_aspect_ratio": "{}:{}".format(*clip.aspect)} if "pixel_aspect" in about else {}
    series = make_series(
        LazyFrames((len(times), len(channels), *out), np.float32, _reader(Reader(path, clip), shown, out, color)),
        times,
        {name: {"units": "1", "long_name": f"{name} level, 0 to 255", **pixels} for name in channels},
        {},
        kind="video",
        files=[path],
    )
    series.attrs |= {"source_size": clip.size, "value_range": (0.0, 255.0), **about}
    return series.assign_attrs(resampled=f"{fps:g} frames a second") if fps else series


def _about(path: Path, clip: Clip, size: tuple[int, int]) -> dict[str, object]:
    """What is known of a clip besides its frames; what a user should know of it is logged."""
    assumed = list(clip.assumed)
    square = clip.aspect == (1, 1)
    if not square and size != clip.size:
        assumed.append("has pixels of {}:{}; resized to {} x {} they are taken as square".format(*clip.aspect, *size))
    for note in assumed:
        log.info("video   %s %s", path, note)
    about: dict[str, object] = {"container": clip.container, "rate": clip.rate or "variable", "assumed": tuple(assumed)}
    return about if square or size != clip.size else {**about, "pixel_aspect": clip.aspect}


def _reader(reader: Reader, shown: np.ndarray, size: tuple[int, int], color: str) -> Callable[[int, int], np.ndarray]:
    """A function that decodes frames [start, stop) of a series.

    Args:
        reader: of the clip.
        shown: number of the frame of the clip that each frame of the series is.
        size: (H, W) of the series.
        color: "gray" or "rgb".
    """

    def frames(start: int, stop: int) -> np.ndarray:
        import av

        numbers = shown[start:stop].tolist()
        reformatter = av.video.reformatter.VideoReformatter()  # a frame's own keeps threads until both are garbage
        found = reader.frames(set(numbers), reformatter)
        pixels = {n: decoding.pixels(frame, size, color, reformatter) for n, frame in found}
        return np.stack([pixels[n] for n in numbers])

    return frames


def gray_error(path: Path, what: str) -> DataError:
    """The error for a gray clip or picture where colours are needed."""
    return DataError(
        f"{path} is gray ({what})",
        "red, green and blue",
        "--gray-to-rgb (in training --set data.gray_to_rgb=true) repeats the gray in each of them",
    )


def _refuse_webp(path: Path) -> None:
    head = beginning(path)
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        code = (
            f"from PIL import Image; i = Image.open('{path}'); d = [(i.seek(k), i.load(), i.info['duration'])[2] "
            "for k in range(i.n_frames)]; i.save('OUT.apng', 'PNG', save_all=True, duration=d)"
        )
        raise DataError(f"{path} is WebP, which is not read", way_out=f'write it as animated PNG: python -c "{code}"')


def _refuse_drawing(path: Path) -> None:
    drawn = clipfiles.drawn(path)
    if drawn:
        raise DataError(
            f"{path} is a drawing of {drawn} by pdr, whose colours are no data",
            way_out="leave it out; for numbers, write the forecast to .nc",
        )


def _is_animated(path: Path) -> bool:
    with path.open("rb") as stream:
        return ANIMATED in stream.read(256)


def _step(series: Series) -> float:
    """Seconds a frame."""
    return time_axis.find_step(series.time.values).count if series.sizes["time"] > 1 else 1 / 25


def _check_gif(series: Series) -> None:
    """Refuse frames that are too short for GIF.

    Raises:
        UsageError: viewers would show them more slowly.
    """
    step = _step(series)
    if step < (1 - 1e-3) / rates.GIF_FASTEST:
        raise UsageError(
            f".gif holds at most {rates.GIF_FASTEST} frames a second, not {1 / step:.4g}",
            way_out="write to .mp4 or .nc",
        )
    if "forecast_reference_time" in series.coords:  # the forecast; the same was logged of its input
        return
    delays = sorted(set(rates.gif_delays(100, step)))
    if len(delays) > 1 or abs(delays[0] / 1000 - step) > 1e-3 * step:
        log.info(
            "video   .gif counts hundredths of a second: frames of %.4g ms are shown for %s ms, together as long as the "
            "forecast; .mp4 holds the rate",
            1000 * step, " or ".join(map(str, delays)),
        )  # fmt: skip
    if "pixel_aspect" in series.attrs:
        log.info(
            "video   .gif has square pixels, the input has pixels of %d:%d; .mp4 holds them",
            *series.attrs["pixel_aspect"],
        )


def _bytes(series: Series) -> np.ndarray:
    """[T, H, W, 3] uint8."""
    values = np.clip(np.round(series.values), 0, 255).astype(np.uint8).transpose(0, 2, 3, 1)
    if values.shape[-1] == 1:
        return np.repeat(values, 3, axis=-1)
    if values.shape[-1] != 3:
        raise DataError(f"a video holds 1 or 3 channels, not {values.shape[-1]}", way_out="write to .nc instead")
    return values
