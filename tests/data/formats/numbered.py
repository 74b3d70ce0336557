"""Clips whose frames show their own number, in the codecs and containers that PyAV can write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

FRAMES = 30
BITS = (2, 4)  # rows and columns of fields, each black or white


@dataclass(frozen=True)
class Recipe:
    """How a clip is encoded.

    Args:
        name: of the file; its suffix chooses the container unless `container` does.
        codec: of PyAV.
        pixels: pixel format.
        options: of the encoder.
        rate: frames a second.
        size: (H, W).
        container: name of a muxer; "": by the suffix.
        muxing: options of the muxer.
        ticks: when the frames are shown, in units of 1/`rate`; empty: one after another.
    """

    name: str
    codec: str
    pixels: str = "yuv420p"
    options: Mapping[str, str] = field(default_factory=dict)
    rate: Fraction = Fraction(25)
    size: tuple[int, int] = (64, 64)
    container: str = ""
    muxing: Mapping[str, str] = field(default_factory=dict)
    ticks: Sequence[int] = ()


def picture(number: int, size: tuple[int, int] = (64, 64)) -> np.ndarray:
    """[H, W] uint8 in which eight fields are the bits of a number."""
    bits = np.array([(number >> b) & 1 for b in range(8)], np.uint8).reshape(BITS)
    return np.kron(255 * bits, np.ones((size[0] // BITS[0], size[1] // BITS[1]), np.uint8))


def numbers(frames: np.ndarray) -> list[int]:
    """The numbers that frames [T, 1, H, W] show."""
    height, width = frames.shape[2] // BITS[0], frames.shape[3] // BITS[1]
    fields = frames[:, 0].reshape(len(frames), BITS[0], height, BITS[1], width)
    inner = fields[:, :, height // 4 : -height // 4, :, width // 4 : -width // 4].mean(axis=(2, 4)) > 128
    return [int(sum(1 << b for b, on in enumerate(frame.ravel()) if on)) for frame in inner]


def write(recipe: Recipe, folder: Path, frames: int = FRAMES) -> Path:
    """Encode frames 0, 1, 2, ... by a recipe."""
    path = folder / recipe.name
    with av.open(str(path), "w", format=recipe.container or None, options=dict(recipe.muxing)) as out:
        stream = out.add_stream(recipe.codec, rate=recipe.rate, options=dict(recipe.options))
        stream.height, stream.width = recipe.size
        stream.pix_fmt = recipe.pixels
        for number in range(frames):
            frame = _frame(picture(number, recipe.size), recipe.pixels)
            frame.time_base = 1 / recipe.rate
            frame.pts = recipe.ticks[number] if recipe.ticks else number
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return path


def _frame(pixels: np.ndarray, format: str) -> av.VideoFrame:
    """[H, W] of gray in a pixel format."""
    if format != "pal8":
        return av.VideoFrame.from_ndarray(pixels, format="gray").reformat(format=format)
    palette = np.full((256, 4), 255, np.uint8)  # alpha, red, green, blue
    palette[:, 1:] = np.arange(256)[:, None]
    return av.VideoFrame.from_ndarray((pixels, palette), format="pal8")


GOP = {"g": "12"}
B2 = {**GOP, "bf": "2", "q": "2", "flags": "+qscale", "global_quality": "236"}
X264 = {**GOP, "bf": "3"}
X265 = {"x265-params": "log-level=none:pools=1:frame-threads=1:keyint=12:bframes=3:open-gop=1"}
VP9 = {**GOP, "auto-alt-ref": "1", "lag-in-frames": "25", "cpu-used": "8", "deadline": "realtime", "b": "1M"}
AV1 = {**GOP, "preset": "8", "crf": "10", "svtav1-params": "lp=1"}
FILM, NTSC, THIRTY, SIXTY = Fraction(24), Fraction(30000, 1001), Fraction(30), Fraction(60)
VARIABLE = tuple(n + n // 5 + n // 9 for n in range(FRAMES))

# The codecs and containers in which a seek has been seen to go wrong, and the most common ones.
COMMON = (
    Recipe("h264.mp4", "libx264", options=X264, rate=FILM),
    Recipe("h264.mkv", "libx264", options={**X264, "x264-params": "open-gop=1"}, rate=FILM),
    Recipe("h264.avi", "libx264", options=X264),
    Recipe("fragmented.mp4", "libx264", options=X264, muxing={"movflags": "frag_keyframe+empty_moov"}),
    Recipe("transport.mpg", "libx264", options=X264, container="mpegts"),
    Recipe("hevc.mp4", "libx265", options=X265, rate=NTSC),
    Recipe("asp.avi", "mpeg4", options=B2),
    Recipe("asp.mp4", "mpeg4", options=B2, rate=SIXTY),
    Recipe("program.mpg", "mpeg2video", options=B2, container="vob"),
    Recipe("palette.avi", "rawvideo", "pal8"),
    Recipe("vp9.webm", "libvpx-vp9", options=VP9, rate=THIRTY),
    Recipe("a.gif", "gif", "gray"),
    Recipe("variable.mkv", "libx264", options=X264, ticks=VARIABLE),
)
OTHERS = (
    Recipe("h264.mov", "libx264", options=X264, rate=NTSC),
    Recipe("h264.flv", "libx264", options=X264, rate=THIRTY),
    Recipe("h264.ts", "libx264", options=X264, rate=SIXTY),
    Recipe("h264.m2ts", "libx264", options=X264),
    Recipe("h264.3gp", "libx264", options=X264),
    Recipe("h264.264", "libx264", options=X264, container="h264"),
    Recipe("h264_2997.mkv", "libx264", options=X264, rate=NTSC),
    Recipe("h264_60.mkv", "libx264", options=X264, rate=SIXTY),
    Recipe("h264_open.mp4", "libx264", options={**X264, "x264-params": "open-gop=1:b-pyramid=normal"}),
    Recipe("h264_refresh.mp4", "libx264", options={"x264-params": "keyint=infinite:intra-refresh=1"}),
    Recipe("h264_every.mp4", "libx264", options=X264, muxing={"movflags": "frag_every_frame+empty_moov"}),
    Recipe("h264_444.mp4", "libx264", "yuv444p", X264),
    Recipe("h264_10.mp4", "libx264", "yuv420p10le", X264),
    Recipe("h264_fields.mp4", "libx264", options={**X264, "flags": "+ildct+ilme", "x264-params": "tff=1"}),
    Recipe("h264_live.mkv", "libx264", options=X264, muxing={"live": "1"}),
    Recipe("h264_vfr.mp4", "libx264", options=X264, ticks=VARIABLE),
    Recipe("h264rgb.mp4", "libx264rgb", "rgb24", X264),
    Recipe("hevc.mkv", "libx265", options=X265, rate=FILM),
    Recipe("hevc_10.mov", "libx265", "yuv420p10le", X265),
    Recipe("hevc.ts", "libx265", options=X265),
    Recipe(
        "vp8.webm", "libvpx", options={**GOP, "auto-alt-ref": "1", "lag-in-frames": "16", "b": "1M", "cpu-used": "8"}
    ),
    Recipe("vp9_2997.webm", "libvpx-vp9", options=VP9, rate=NTSC),
    Recipe("vp9.mkv", "libvpx-vp9", options=VP9, rate=FILM),
    Recipe("vp9.mp4", "libvpx-vp9", options=VP9),
    Recipe("vp9.ivf", "libvpx-vp9", options=VP9),
    Recipe("av1.mp4", "libsvtav1", options=AV1, rate=FILM),
    Recipe("av1.webm", "libsvtav1", options=AV1),
    Recipe("mpeg2.mpg", "mpeg2video", options=B2),
    Recipe("mpeg2.ts", "mpeg2video", options=B2, rate=NTSC),
    Recipe("mpeg2.mkv", "mpeg2video", options=B2, rate=FILM),
    Recipe("mpeg2.m2v", "mpeg2video", options=B2, container="mpeg2video"),
    Recipe("mpeg1.mpg", "mpeg1video", options=B2),
    Recipe("mpeg2.mxf", "mpeg2video", "yuv422p", GOP),
    Recipe("asp.mkv", "mpeg4", options=B2, rate=FILM),
    Recipe("asp.mov", "mpeg4", options=B2),
    Recipe("asp_p.avi", "mpeg4", options={**B2, "bf": "0"}, rate=NTSC),
    Recipe("asp.3gp", "mpeg4", options={**B2, "bf": "0"}),
    Recipe("msmpeg4.avi", "msmpeg4", options={**B2, "bf": "0"}),
    Recipe("msmpeg4v2.avi", "msmpeg4v2", options={**B2, "bf": "0"}),
    Recipe("h263.3gp", "h263", options={**B2, "bf": "0"}, size=(144, 176)),
    Recipe("h263p.avi", "h263p", options={**B2, "bf": "0"}, size=(144, 176)),
    Recipe("wmv1.wmv", "wmv1", options={**B2, "bf": "0"}),
    Recipe("wmv2.wmv", "wmv2", options={**B2, "bf": "0"}, rate=THIRTY),
    Recipe("flv1.flv", "flv", options={**B2, "bf": "0"}),
    Recipe("flashsv.flv", "flashsv", "bgr24", GOP),
    Recipe("mjpeg.avi", "mjpeg", "yuvj420p"),
    Recipe("mjpeg.mov", "mjpeg", "yuvj420p"),
    Recipe("mjpeg.mkv", "mjpeg", "yuvj420p", rate=SIXTY),
    Recipe("mjpeg.mjpeg", "mjpeg", "yuvj420p"),
    Recipe("huffyuv.avi", "huffyuv", "rgb24"),
    Recipe("ffvhuff.avi", "ffvhuff"),
    Recipe("utvideo.avi", "utvideo"),
    Recipe("magicyuv.avi", "magicyuv"),
    Recipe("ffv1.avi", "ffv1", "gray", {"g": "1"}),
    Recipe("ffv1.mkv", "ffv1", "gray", GOP),
    Recipe("rawgray.avi", "rawvideo", "gray"),
    Recipe("rawbgr.avi", "rawvideo", "bgr24"),
    Recipe("rawyuv.mov", "rawvideo", "yuyv422"),
    Recipe("raw.y4m", "wrapped_avframe"),
    Recipe("prores.mov", "prores_ks", "yuv422p10le"),
    Recipe("dnxhr.mov", "dnxhd", "yuv422p", {"profile": "dnxhr_lb"}, size=(128, 256)),
    Recipe("jpeg2000.mov", "jpeg2000", "rgb24"),
    Recipe("png.mov", "png", "rgb24"),
    Recipe("qtrle.mov", "qtrle", "rgb24", GOP),
    Recipe("svq1.mov", "svq1", "yuv410p", GOP),
    Recipe("cinepak.avi", "cinepak", "rgb24", GOP),
    Recipe("msvideo1.avi", "msvideo1", "rgb555le", GOP),
    Recipe("zmbv.avi", "zmbv", "bgr0", GOP),
    Recipe("asv1.avi", "asv1"),
    Recipe("snow.avi", "snow", options={**GOP, "strict": "-2"}),
    Recipe("a.apng", "apng", "rgb24"),
    Recipe("gif_variable.gif", "gif", "gray", ticks=VARIABLE),
)
