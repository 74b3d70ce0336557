"""What a container says of a clip is compared with its frames, passed on, or logged; rates and durations are kept."""

from __future__ import annotations

import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import xarray as xr

from pdr_cli.data import formats
from pdr_cli.data import times as time_axis
from pdr_cli.data.formats import ReadOptions, clips, frames, scans, video
from pdr_cli.data.series import Series, make_series, read_frames
from pdr_cli.errors import DataError, UsageError
from tests.builders import moving_square
from tests.builders import picture as picture_file
from tests.data.formats.numbered import B2, COMMON, OTHERS, VP9, X264, Recipe, numbers, picture, write

FLAT = 30  # frames of a clip whose rate is tested
RATES = (Fraction(24), Fraction(25), Fraction(30000, 1001), Fraction(30), Fraction(60))


def recipe(name: str) -> Recipe:
    return next(r for r in (*COMMON, *OTHERS) if r.name == name)


def step_of(series: Series) -> float:
    return time_axis.find_step(series.time.values).count


# -- rates


@pytest.mark.parametrize("rate", RATES, ids=str)
@pytest.mark.parametrize("suffix", ["mkv", "webm", "flv", "wmv", "mp4"])
def test_a_rate_is_that_of_the_encoder_however_stamps_are_rounded(rate: Fraction, suffix: str, tmp_path: Path) -> None:
    codecs = {"webm": ("libvpx-vp9", VP9), "wmv": ("wmv2", {"g": "12"})}
    codec, options = codecs.get(suffix, ("libx264", X264))
    series = video.read(write(Recipe(f"a.{suffix}", codec, options=options, rate=rate), tmp_path))
    assert series.attrs["rate"] == str(rate)
    assert step_of(series) == pytest.approx(float(1 / rate), rel=1e-9)
    # The 240th frame of 24 a second is 239 / 24 s after the first, whatever its own stamp would be.
    assert time_axis.following(series.time.values[0], time_axis.find_step(series.time.values), 239)[
        -1
    ] == pytest.approx(239 / float(rate), abs=1e-6)


@pytest.mark.parametrize("rate", RATES, ids=str)
@pytest.mark.parametrize("suffix", [".mp4", ".gif", ".nc"])
def test_a_written_clip_lasts_as_long_as_its_frames(rate: Fraction, suffix: str, tmp_path: Path) -> None:
    if suffix == ".gif" and rate > 50:
        pytest.skip("refused, see below")
    path = tmp_path / f"a{suffix}"
    # Neighbours differ, because GIF merges equal ones.
    values = (np.arange(FLAT) % 7 * 30.0)[:, None, None, None] * np.ones((1, 1, 16, 16))
    clip = make_series(values.astype(np.float32), np.arange(FLAT) / float(rate), {"gray": {}}, {}, kind="video")
    formats.write(clip, path, {})
    if suffix == ".nc":
        with xr.open_dataset(path, decode_times=False) as dataset:
            assert step_of(dataset["gray"]) == pytest.approx(float(1 / rate), rel=1e-9)
        return
    with av.open(str(path)) as container:
        # A GIF counts hundredths of a second, of all frames together.
        assert container.duration / 1e6 == pytest.approx(FLAT / float(rate), abs=0.0051 if suffix == ".gif" else 1e-3)
    # Those of 30 frames are equal for 29.97 and 30 a second.
    assert Fraction(video.read(path).attrs["rate"]) == (round(rate) if suffix == ".gif" else rate)


def test_a_rate_that_gif_rounds_is_logged_and_one_that_it_lacks_is_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def clip(rate: int) -> Series:
        return make_series(np.zeros((9, 1, 8, 8), np.float32), np.arange(9) / rate, {"gray": {}}, {}, kind="video")

    with caplog.at_level("INFO", logger="pdr"):
        formats.check_output_format(tmp_path / "a.gif", clip(25))
        assert caplog.text == ""
        formats.check_output_format(tmp_path / "a.gif", clip(24))
    assert "frames of 41.67 ms are shown for 40 or 50 ms" in caplog.text
    with pytest.raises(UsageError, match=r"\.gif holds at most 50 frames a second, not 60; write to \.mp4"):
        formats.check_output_format(tmp_path / "a.gif", clip(60))


# -- clips that were cut off

CUT = ("h264.mp4", "h264.mov", "fragmented.mp4", "h264.mkv", "vp9.webm", "a.gif", "h264.avi", "huffyuv.avi", "asp.avi")
CUT = (
    *CUT,
    "h264.flv",
    "wmv2.wmv",
    "program.mpg",
    "transport.mpg",
    "h264.m2ts",
    "a.apng",
    "raw.y4m",
    "mjpeg.mov",
    "vp9.ivf",
    "mpeg2.mxf",
)


@pytest.mark.parametrize("name", CUT)
def test_a_clip_that_was_cut_off_is_refused(name: str, tmp_path: Path) -> None:
    whole = write(recipe(name), tmp_path)
    content = whole.read_bytes()
    cut = whole.with_name(f"cut_{name}")
    for share in (0.5, 0.7, 0.9):
        # Packets of MPEG are of 188 or 2048 bytes: a cut between two of them leaves no trace.
        cut.write_bytes(content[: int(len(content) * share) // 16 * 16 + 3])
        with pytest.raises(DataError, match=rf"cut_{name} \(\d+ bytes\)") as refused:
            formats.open_series([cut])
        assert name.endswith("mp4") or "is cut short" in str(refused.value)


def test_a_stream_of_unknown_length_is_not_called_cut(tmp_path: Path) -> None:
    assert video.read(write(recipe("h264_live.mkv"), tmp_path)).sizes["time"] == 30


def test_a_header_that_names_more_seconds_than_decode_is_refused(tmp_path: Path) -> None:
    path = write(recipe("h264.flv"), tmp_path)
    content = bytearray(path.read_bytes())
    at = content.index(b"duration") + len("duration") + 1  # behind the type of a number
    content[at : at + 8] = np.array([9.0], ">f8").tobytes()
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"is cut short: 1(\.0\d+)? of 9 s decode"):
        video.read(path)


# -- what a container says of its pictures


def squeezed(path: Path) -> Path:
    """A clip whose pixels are 16:11, as of PAL for wide screens."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25)
        stream.height = stream.width = 32
        stream.pix_fmt = "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(16, 11)
        for number in range(40):
            frame = np.repeat(moving_square(number)[:32, :32, None], 3, axis=2)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(np.resize(frame, (32, 32, 3)), format="rgb24")))
        out.mux(stream.encode())
    return path


def test_pixels_that_are_not_square_stay_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    series = video.read(squeezed(tmp_path / "a.mp4"))
    assert series.attrs["pixel_aspect"] == (16, 11)
    formats.write(series.load(), tmp_path / "b.mp4", {})
    assert video.read(tmp_path / "b.mp4").attrs["pixel_aspect"] == (16, 11)
    formats.write(series, tmp_path / "b.nc", {})
    with xr.open_dataset(tmp_path / "b.nc", decode_times=False) as dataset:
        assert dataset["gray"].attrs["pixel_aspect_ratio"] == "16:11"
    with caplog.at_level("INFO", logger="pdr"):
        formats.check_output_format(tmp_path / "b.gif", series)
        resized = video.read(tmp_path / "a.mp4", ReadOptions(size=(16, 16)))
    assert ".gif has square pixels, the input has pixels of 16:11" in caplog.text
    assert "has pixels of 16:11; resized to 16 x 16 they are taken as square" in caplog.text
    assert "pixel_aspect" not in resized.attrs


def test_fields_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="pdr"):
        video.read(write(recipe("h264_fields.mp4"), tmp_path))
    assert "is interlaced: both fields are read as one picture" in caplog.text


def two_streams(path: Path, first: str) -> Path:
    """A small clip or a cover, and the clip of numbers."""
    from av.stream import Disposition

    with av.open(str(path), "w") as out:
        small, large = (
            out.add_stream("mjpeg" if first == "cover" else "libx264", rate=25),
            out.add_stream("libx264", rate=25),
        )
        small.height = small.width = 32
        large.height = large.width = 64
        small.pix_fmt, large.pix_fmt = "yuvj420p" if first == "cover" else "yuv420p", "yuv420p"
        if first == "cover":
            small.disposition = Disposition.attached_pic
        for number in range(20):
            if first == "clip" or number == 0:
                gray = av.VideoFrame.from_ndarray(np.full((32, 32), 90, np.uint8), format="gray")
                out.mux(small.encode(gray.reformat(format=small.pix_fmt)))
            gray = av.VideoFrame.from_ndarray(picture(number), format="gray")
            out.mux(large.encode(gray.reformat(format="yuv420p")))
        out.mux(small.encode())
        out.mux(large.encode())
    return path


def test_a_cover_is_not_taken_for_the_clip(tmp_path: Path) -> None:
    series = video.read(two_streams(tmp_path / "a.mp4", "cover"))
    assert numbers(read_frames(series, 0, 20)) == list(range(20))
    assert series.attrs["assumed"] == ()


def test_which_of_several_streams_is_read_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="pdr"):
        assert video.read(two_streams(tmp_path / "a.mp4", "clip")).shape == (20, 1, 32, 32)
    assert "has 2 video streams: stream 0 is read, and not 64 x 64 (stream 1)" in caplog.text


def test_an_edit_list_is_followed_and_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(Recipe("a.mp4", "libx264", options=X264), tmp_path)
    content = bytearray(path.read_bytes())
    at = content.index(b"elst") + 16  # name, version, count, duration
    begin = int.from_bytes(content[at : at + 4])
    content[at : at + 4] = (begin + 5 * 512).to_bytes(4)  # five frames of 512 ticks
    path.write_bytes(content)
    with caplog.at_level("INFO", logger="pdr"):
        series = video.read(path)
    whole = read_frames(series, 0, series.sizes["time"])
    assert numbers(whole) == list(range(5, 30))
    assert all(np.array_equal(read_frames(series, t, t + 2), whole[t : t + 2]) for t in range(len(whole) - 2))
    assert "shows 25 of the 30 frames that it stores, by its edit list" in caplog.text


def test_frames_of_an_avi_with_b_frames_are_counted(tmp_path: Path) -> None:
    series = video.read(write(recipe("h264.avi"), tmp_path))
    assert numbers(read_frames(series, 0, 30)) == list(range(30))
    assert series.attrs["assumed"] == ("is an AVI with B-frames, without times of showing: its frames are counted",)


def test_an_avi_with_b_frames_of_which_some_do_not_decode_is_refused(tmp_path: Path) -> None:
    path = write(recipe("h264.avi"), tmp_path)
    content = bytearray(path.read_bytes())
    # Lengths in the header of the file (avih) and of its stream (strh), which come at 16 and 32 bytes behind their sizes.
    for name, place in ((b"avih", 16), (b"strh", 32)):
        at = content.index(name) + 8 + place
        assert int.from_bytes(content[at : at + 4], "little") == 30
        content[at : at + 4] = (32).to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"30 of 32 frames of an AVI with B-frames decode.*mpeg4_unpack_bframes"):
        video.read(path)


def test_a_rate_that_no_time_stamp_tells_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="pdr"):
        video.read(write(recipe("h264.264"), tmp_path))
        for number in (1, 2):
            picture_file(tmp_path / "f" / f"p_{number}.png", moving_square(number))
        series = formats.open_series([tmp_path / "f"])[0]
    assert "has no time stamps: 25 frames a second are assumed" in caplog.text
    assert "pictures have no times: 25 frames a second are assumed" in caplog.text
    assert series.attrs["assumed"] == frames.UNTIMED


def test_an_animated_webp_is_refused_with_the_way_to_a_file_that_is_read(tmp_path: Path) -> None:
    from PIL import Image

    pictures = [Image.fromarray(picture(n)).convert("RGB") for n in range(5)]
    pictures[0].save(tmp_path / "a.webp", save_all=True, append_images=pictures[1:], duration=40, lossless=True)
    with pytest.raises(DataError, match=r"is WebP, which is not read; write it as animated PNG: python -c") as refused:
        formats.open_series([tmp_path / "a.webp"])
    exec(str(refused.value).split('python -c "')[1].rstrip('"'), {})
    assert numbers(read_frames(formats.open_series([Path("OUT.apng")])[0], 0, 5)) == list(range(5))


def test_a_folder_of_clips_is_found_whatever_their_container(tmp_path: Path) -> None:
    for name in ("wmv2.wmv", "h264.flv", "h264.3gp"):
        write(recipe(name), tmp_path)
    assert len(formats.open_series(formats.find_inputs([tmp_path]))) == 3


# -- scans that are kept


def kept(path: Path) -> Path:
    """The same clip as an old file, whose scan is kept."""
    os.utime(path, (1e9, 1e9))
    return path


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Clips that were decoded as a whole."""
    decoded: list[Path] = []
    scan = clips.scan

    def count(path: Path) -> clips.Clip:
        decoded.append(path)
        return scan(path)

    monkeypatch.setattr(clips, "scan", count)
    return decoded


def test_a_clip_is_decoded_as_a_whole_once(tmp_path: Path, counted: list[Path]) -> None:
    path = kept(write(recipe("h264.mp4"), tmp_path))
    first, second = video.read(path), video.read(path)
    assert len(counted) == 1
    assert np.array_equal(read_frames(second, 13, 16), read_frames(first, 13, 16))
    assert second.attrs == first.attrs
    assert np.array_equal(second.time.values, first.time.values)


@pytest.mark.parametrize(
    "change",
    [
        lambda path: os.utime(path, (2e9 - 1e9 + 5, 1e9 + 5)),
        lambda path: path.write_bytes(path.read_bytes() + b"\0\0\0\x08free"),
        lambda path: os.replace(copied(path), path),
    ],
    ids=["time", "size", "inode"],
)
def test_a_file_that_changed_is_decoded_again(
    change: Callable[[Path], None], tmp_path: Path, counted: list[Path]
) -> None:
    path = kept(write(recipe("h264.mp4"), tmp_path))
    video.read(path)
    change(path)
    video.read(path)
    assert len(counted) == 2


def copied(path: Path) -> Path:
    copy = path.with_name("copy.mp4")
    copy.write_bytes(path.read_bytes())
    return kept(copy)


def test_a_clip_that_has_just_been_written_is_not_kept(tmp_path: Path, counted: list[Path]) -> None:
    path = write(recipe("h264.mp4"), tmp_path)
    video.read(path)
    video.read(path)
    assert len(counted) == 2


@pytest.mark.parametrize("damage", [lambda b: b[:20], lambda b: b"", lambda b: b[:-1] + bytes([b[-1] ^ 1])])
def test_a_damaged_scan_is_made_again(
    damage: Callable[[bytes], bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counted: list[Path]
) -> None:
    monkeypatch.setenv("PDR_CACHE", str(tmp_path / "cache"))
    path = kept(write(recipe("h264.mp4"), tmp_path))
    video.read(path)
    (scan,) = scans.folder().iterdir()
    scan.write_bytes(damage(scan.read_bytes()))
    assert video.read(path).sizes["time"] == 30
    assert len(counted) == 2
    video.read(path)
    assert len(counted) == 2


def test_a_cache_that_cannot_be_written_does_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cache").write_text("a file")
    monkeypatch.setenv("PDR_CACHE", str(tmp_path / "cache"))
    assert video.read(kept(write(recipe("h264.mp4"), tmp_path))).sizes["time"] == 30


def test_pictures_that_changed_behind_a_kept_scan_are_not_read(tmp_path: Path) -> None:
    path = kept(write(Recipe("a.avi", "rawvideo", "gray"), tmp_path))
    series = video.read(path)
    content = bytearray(path.read_bytes())
    at = content.index(b"movi") + 4000 * 14
    with path.open("r+b") as stream:  # in place: the same inode and size
        stream.seek(at)
        stream.write(bytes(b ^ 255 for b in content[at : at + 4]))
    kept(path)
    for opened in (series, video.read(path)):
        with pytest.raises(DataError, match="are not those that were decoded when it was opened"):
            read_frames(opened, 0, 30)
    # The message advises to start again, which decodes the clip anew.
    assert read_frames(video.read(path), 14, 15).shape == (1, 1, 64, 64)


def test_scans_are_of_one_version_of_the_decoder(
    tmp_path: Path, counted: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = kept(write(Recipe("b.mp4", "mpeg4", options=B2), tmp_path))
    video.read(path)
    monkeypatch.setattr(scans, "VERSION", scans.VERSION + 1)
    video.read(path)
    assert len(counted) == 2
