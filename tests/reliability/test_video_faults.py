"""Clips that are not what they seem: refused with the reason, or converted in a way that is said. Never wrong frames."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import av
import numpy as np
import pytest

from pdr_cli import config
from pdr_cli.data import formats
from pdr_cli.data.formats import ReadOptions, frames, video
from pdr_cli.data.series import Series, make_series, read_frames
from pdr_cli.errors import DataError, TimeError, UsageError
from pdr_cli.training.prepare import prepare
from tests.builders import kth_video, moving_square, picture, video_file
from tests.cli import pdr
from tests.conftest import tiny_settings

TICKS = [0, 1, 2, 7, 8, 20]  # when frames of a clip of variable rate are shown, in 25ths of a second
# At each 25th of a second the last frame that began before: frame 2 stands still from 2 to 6, and so on.
SHOWN = [0, 1, 2, 2, 2, 2, 2, 3, *[4] * 12, 5]


def encoded(
    path: Path, pictures: Sequence[np.ndarray], ticks: Sequence[int], *, of: str, codec: str = "ffv1", stored: str = ""
) -> Path:
    """A clip of pictures in the pixel format `of`, shown at these 25ths of a second."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=25)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = stored or of
        for pixels, at in zip(pictures, ticks, strict=True):
            frame = av.VideoFrame.from_ndarray(pixels, format=of)
            frame.pts = at
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return path


def variable_rate(path: Path, ticks: Sequence[int] = TICKS, size: tuple[int, int] = (32, 32)) -> Path:
    """H.264 whose frame i is of the gray 30 i."""
    pictures = [np.full((*size, 3), 30 * (i % 8), np.uint8) for i in range(len(ticks))]
    return encoded(path, pictures, ticks, of="rgb24", codec="libx264", stored="yuv420p")


def rewritten(source: Path, target: Path, change: Callable[[bytearray], None]) -> Path:
    content = bytearray(source.read_bytes())
    change(content)
    target.write_bytes(content)
    return target


# -- 16: damage


def without_moov(content: bytearray) -> None:
    at = content.index(b"moov")
    content[at : at + 4] = b"none"  # as "free" it would be found all the same


def test_a_clip_without_its_index_is_refused(tmp_path: Path) -> None:
    path = rewritten(video_file(tmp_path / "a.mp4", 20), tmp_path / "bad.mp4", without_moov)
    with pytest.raises(DataError, match=r"bad\.mp4 \(\d+ bytes\) cannot be read as video"):
        formats.open_series([path])


@pytest.mark.parametrize(("name", "codec"), [("none.mp4", "libx264"), ("none.avi", "mpeg4")])
def test_a_clip_without_frames_is_refused(tmp_path: Path, name: str, codec: str) -> None:
    with av.open(str(tmp_path / name), "w") as out:
        stream = out.add_stream(codec, rate=25)
        stream.height = stream.width = 32
        stream.pix_fmt = "yuv420p"
        out.start_encoding()
    with pytest.raises(DataError, match=f"{name} has no video (stream|frames)"):
        formats.open_series([tmp_path / name])


def test_a_clip_of_sound_alone_is_refused(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "sound.mp4"), "w") as out:
        stream = out.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.rate = 8000
        out.mux(stream.encode(frame))
        out.mux(stream.encode())
    with pytest.raises(DataError, match=r"sound\.mp4 has no video stream"):
        formats.open_series([tmp_path / "sound.mp4"])


def test_a_damaged_clip_of_ours_never_gives_wrong_frames(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    noisy = np.clip(128 + 40 * rng.standard_normal((12, 1, 32, 32)), 0, 255).astype(np.float32)
    formats.write(make_series(noisy, np.arange(12) / 25, {"gray": {}}, {}, kind="video"), tmp_path / "ours.mp4", {})
    whole = read_frames(video.read(tmp_path / "ours.mp4"), 0, 12)
    content = (tmp_path / "ours.mp4").read_bytes()
    refused = 0
    # One bit anywhere in the pictures, of which H.264 itself notices about every third.
    for at in rng.integers(content.index(b"mdat") + 4, len(content), 30):
        path = rewritten(tmp_path / "ours.mp4", tmp_path / "bad.mp4", lambda c, at=at: c.__setitem__(at, c[at] ^ 16))
        try:
            assert np.array_equal(read_frames(video.read(path), 0, 12), whole)
        except DataError:
            refused += 1
    assert refused >= 20


def test_a_clip_of_others_in_which_much_is_overwritten_is_refused(tmp_path: Path) -> None:
    source = video_file(tmp_path / "a.mp4", 100, size=(64, 64))
    refused = 0
    for part in range(10):

        def overwrite(content: bytearray, part: int = part) -> None:
            start = content.index(b"mdat") + 4
            at = start + (len(content) - start) * part // 10
            content[at : at + 600] = bytes(len(content[at : at + 600]))

        path = rewritten(source, tmp_path / "bad.mp4", overwrite)
        try:
            video.read(path)
        except DataError:
            refused += 1
    assert refused == 10


def test_frames_of_another_size_are_not_brought_to_the_first(tmp_path: Path) -> None:
    # Two streams of Motion JPEG end to end: every picture is of its own size.
    parts = [video_of_jpegs(tmp_path / f"{n}.mjpeg", (n, n)).read_bytes() for n in (32, 48)]
    (tmp_path / "both.avi").write_bytes(b"".join(parts))
    with pytest.raises(DataError, match="frames of 32 x 32 and 48 x 48"):
        video.read(tmp_path / "both.avi")


def video_of_jpegs(path: Path, size: tuple[int, int]) -> Path:
    pictures = [np.full((*size, 3), 40 * i, np.uint8) for i in range(3)]
    return encoded(path, pictures, range(3), of="rgb24", codec="mjpeg", stored="yuvj420p")


# -- 17: variable rate


def test_a_variable_rate_is_refused_with_the_option(tmp_path: Path) -> None:
    with pytest.raises(TimeError, match="variable frame rate: frames 40 to 480 ms apart; --resample-fps 25 takes"):
        video.read(variable_rate(tmp_path / "vfr.mp4"))


def test_a_resampled_clip_shows_at_each_time_the_frame_that_is_shown(tmp_path: Path) -> None:
    path = variable_rate(tmp_path / "vfr.mp4")
    series = video.read(path, ReadOptions(resample_fps=25))
    assert np.allclose(series.time.values, np.arange(21) / 25)
    # The gray of frame i is 30 i, to a level or two of what H.264 keeps; a blend would lie between.
    levels = read_frames(series, 0, 21)[:, 0].mean(axis=(1, 2))
    assert np.abs(levels - 30 * np.array(SHOWN)).max() < 4
    assert np.array_equal(read_frames(series, 9, 21), read_frames(series, 0, 21)[9:])


@pytest.mark.parametrize(("fps", "kept"), [(25, range(30)), (12.5, range(0, 30, 2)), (50, [i // 2 for i in range(59)])])
def test_a_constant_rate_is_resampled_alike(tmp_path: Path, fps: float, kept: Sequence[int]) -> None:
    path = video_file(tmp_path / "a.mp4", 30)
    expected = read_frames(video.read(path), 0, 30)[list(kept)]
    series = video.read(path, ReadOptions(resample_fps=fps))
    assert np.array_equal(read_frames(series, 0, len(expected)), expected)
    assert series.sizes["time"] == len(expected)


def test_stamps_rounded_to_milliseconds_are_resampled_to_their_own_frames(tmp_path: Path) -> None:
    # Matroska's: 30 frames a second are at 33, 67 and 100 ms.
    pictures = [np.full((16, 16), 8 * i, np.uint8) for i in range(25)]
    with av.open(str(tmp_path / "a.mkv"), "w") as out:
        stream = out.add_stream("ffv1", rate=30)
        stream.height = stream.width = 16
        stream.pix_fmt = "gray"
        for pixels in pictures:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="gray")))
        out.mux(stream.encode())
    series = video.read(tmp_path / "a.mkv", ReadOptions(resample_fps=30))
    assert read_frames(series, 0, 25)[:, 0, 0, 0].tolist() == [8.0 * i for i in range(25)]


def test_predict_resamples_as_asked_and_the_request_says_so(tmp_path: Path, video_run: Path) -> None:
    ticks = [t for t in range(60) if t % 7]
    path = variable_rate(tmp_path / "vfr.mp4", ticks)
    refused = pdr("predict", path, "-o", "f.mp4", "-m", video_run)
    assert (refused.code, "--resample-fps 25" in refused.last) == (65, True)
    command = ["predict", path, "-o", "f.mp4", "-m", video_run, "--resample-fps", "25", "--skip-existing"]
    assert pdr(*command).code == 0
    assert "up to date" in pdr(*command).out
    assert video.read(Path("f.mp4")).sizes["time"] > 0


def test_resampling_is_part_of_the_request(clip: Path, video_run: Path) -> None:
    command = ["predict", clip, "-o", "f.mp4", "-m", video_run, "--skip-existing"]
    assert pdr(*command).code == 0
    assert "up to date" not in pdr(*command, "--resample-fps", "25").out


def test_another_rate_than_the_models_is_refused(clip: Path, video_run: Path) -> None:
    result = pdr("predict", clip, "-o", "f.mp4", "-m", video_run, "--resample-fps", "5")
    assert (result.code, "steps of 0.2 s" in result.last) == (65, True)


def test_evaluate_resamples(tmp_path: Path, video_run: Path) -> None:
    path = variable_rate(tmp_path / "vfr.mp4", [t for t in range(60) if t % 7])
    assert pdr("evaluate", path, "-m", video_run).code == 65
    result = pdr("evaluate", path, "-m", video_run, "--resample-fps", "25")
    assert result.code == 0, result.err


def test_a_model_that_was_trained_on_resampled_clips_resamples_by_itself(
    tmp_path: Path, make_run: Callable[..., Path]
) -> None:
    path = variable_rate(tmp_path / "vfr.mp4", [t for t in range(160) if t % 7])
    run = make_run(path, "--resample-fps", "25")
    assert pdr("predict", path, "-o", "f.mp4", "-m", run).code == 0


def test_resampling_is_for_video_files(weather: Path, weather_run: Path) -> None:
    result = pdr("predict", weather, "-o", "f.nc", "-m", weather_run, "--resample-fps", "25")
    assert (result.code, "--resample-fps is for video files" in result.last) == (2, True)


def test_resampling_does_not_go_with_a_list_of_frames(tmp_path: Path) -> None:
    path = kth_video(tmp_path, "person01_boxing_d1", 20)
    (tmp_path / "00sequences.txt").write_text("person01_boxing_d1 frames 1-9, 11-20\n")
    with pytest.raises(UsageError, match="counts the frames of clips at their own rate"):
        formats.open_series([path], ReadOptions(resample_fps=25))


def test_time_stamps_that_no_film_has_are_not_filled_with_frames(tmp_path: Path) -> None:
    path = variable_rate(tmp_path / "still.mp4", [0, 1, 25 * 40000])
    with pytest.raises(TimeError, match="3 frames in 40000 s cannot be a clip of 25 frames a second"):
        video.read(path, ReadOptions(resample_fps=25))


# -- 18: odd sizes


@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
def test_a_clip_of_odd_sides_is_forecast_at_its_size(odd: tuple[Path, Path], suffix: str) -> None:
    path, run = odd
    result = pdr("predict", path, "-o", f"f{suffix}", "-m", run)
    assert result.code == 0, result.err
    forecast = video.read(Path(f"f{suffix}"))
    assert forecast.shape[2:] == (47, 63)


def test_pixels_of_odd_sides_stay_where_they_are(odd: tuple[Path, Path]) -> None:
    # The square of `video_file` is in rows 8 to 15 whatever the size; resized to 48 x 64 its edges would blur and move.
    rows = read_frames(video.read(odd[0]), 0, 1)[0, 0, :, 4]
    assert np.flatnonzero(rows > 128).tolist() == list(range(8, 16))


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory, make_run: Callable[..., Path]) -> tuple[Path, Path]:
    """A clip of 47 x 63 and a run trained on it."""
    path = video_file(tmp_path_factory.mktemp("odd") / "odd.mp4", 180, size=(47, 63))
    return path, make_run(path)


# -- 19: colours, depth, transparency, rotation


def gray_clip(path: Path, count: int = 3) -> Path:
    return encoded(path, [np.full((16, 24), 50 * i % 250, np.uint8) for i in range(count)], range(count), of="gray")


def test_gray_is_not_taken_for_colours_unless_asked(tmp_path: Path) -> None:
    path = gray_clip(tmp_path / "g.mkv")
    with pytest.raises(DataError, match=r"g\.mkv is gray .* --gray-to-rgb"):
        video.read(path, ReadOptions(color="rgb"))
    pixels = read_frames(video.read(path, ReadOptions(color="rgb", gray_to_rgb=True)), 0, 3)
    assert np.array_equal(pixels[:, 0], pixels[:, 2])
    assert pixels[:, 1, 0, 0].tolist() == [0, 50, 100]


def test_training_takes_gray_for_colours_only_when_asked(tmp_path: Path) -> None:
    path = gray_clip(tmp_path / "g.mkv", 180)
    settings = [*tiny_settings()[1::2], "data.color=rgb", "data.kind=video"]
    with pytest.raises(DataError, match=r"data\.gray_to_rgb=true"):
        prepare(config.load("demo", settings), [path])
    assert prepare(config.load("demo", [*settings, "data.gray_to_rgb=true"]), [path]).channels == 3


def test_colours_are_read_as_their_luminance_by_a_model_of_gray(tmp_path: Path) -> None:
    green = np.zeros((16, 16, 3), np.uint8)
    green[..., 1] = 255
    path = encoded(tmp_path / "c.mkv", [green] * 3, range(3), of="rgb24", stored="bgr0")
    # Rec. 601: Y = 0.299 R + 0.587 G + 0.114 B.
    assert read_frames(video.read(path), 0, 1).mean() == pytest.approx(0.587 * 255, abs=1.5)


def test_ten_bits_are_reduced_to_eight(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pictures = [np.full((16, 16), level, np.uint16) for level in (0, 512, 1023)]
    path = encoded(tmp_path / "ten.mkv", pictures, range(3), of="gray10le")
    with caplog.at_level("INFO", logger="pdr"):
        series = video.read(path)
    # 512 of 1023 is 127.6 of 255.
    assert np.abs(read_frames(series, 0, 3)[:, 0, 0, 0] - [0, 127.6, 255]).max() < 1
    assert "has 10 bits; they are reduced to 8" in caplog.text


def test_transparent_pixels_are_refused_and_opaque_ones_read(tmp_path: Path) -> None:
    opaque = np.full((16, 16, 4), 255, np.uint8)
    assert video.read(encoded(tmp_path / "o.mkv", [opaque] * 3, range(3), of="bgra")).sizes["time"] == 3
    clear = opaque.copy()
    clear[3, 4, 3] = 128
    path = encoded(tmp_path / "t.mkv", [opaque, opaque, clear], range(3), of="bgra")
    with pytest.raises(DataError, match=r"t\.mkv is transparent: the frame at 0\.08 s has pixels that are not opaque"):
        video.read(path)


# The upper left of a track header's matrix [a b; c d], in 16.16: where a player turns the picture to, (x, y) -> (ax + cy,
# bx + dy) with y downwards; and where it puts the corner that is stored at the upper left.
TURNS = {
    "clockwise": ((0, 1, -1, 0), (0, -1)),
    "half": ((-1, 0, 0, -1), (-1, -1)),
    "counterclockwise": ((0, -1, 1, 0), (-1, 0)),
}


def turned(path: Path, matrix: tuple[int, ...]) -> Path:
    corner = np.full((24, 32, 3), 30, np.uint8)
    corner[:6, :6] = 230
    source = encoded(path.with_name("plain.mp4"), [corner] * 3, range(3), of="rgb24", codec="libx264", stored="yuv420p")

    def change(content: bytearray) -> None:
        at = content.index(b"tkhd") + 44  # behind the name: version, times, track, length, layer, volume (ISO 14496-12)
        for place, value in zip((0, 4, 12, 16), matrix, strict=True):
            content[at + place : at + place + 4] = (value * 65536).to_bytes(4, signed=True)

    return rewritten(source, path, change)


@pytest.mark.parametrize(("matrix", "corner"), TURNS.values(), ids=TURNS.keys())
def test_a_rotation_is_applied_as_a_player_does(
    tmp_path: Path, matrix: tuple[int, ...], corner: tuple[int, int]
) -> None:
    series = video.read(turned(tmp_path / "turned.mp4", matrix))
    assert series.shape[2:] == ((32, 24) if matrix[0] == 0 else (24, 32))
    frame = read_frames(series, 0, 1)[0, 0]
    assert [(y, x) for y in (0, -1) for x in (0, -1) if frame[y, x] > 128] == [corner]


def test_a_turned_clip_is_resized_as_it_is_shown(tmp_path: Path) -> None:
    series = video.read(turned(tmp_path / "turned.mp4", (0, 1, -1, 0)), ReadOptions(size=(16, 12)))
    assert read_frames(series, 0, 3).shape == (3, 1, 16, 12)


def test_a_mirrored_clip_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="to be shown mirrored"):
        video.read(turned(tmp_path / "mirrored.mp4", (-1, 0, 0, 1)))


def pictures_of(folder: Path, pixels: np.ndarray) -> Path:
    for number in (1, 2):
        picture(folder / f"p_{number:02d}.png", pixels)
    return folder


def first_of(series: Series) -> np.ndarray:
    return read_frames(series, 0, 1)[0]


def test_gray_pictures_are_not_taken_for_colours_unless_asked(tmp_path: Path) -> None:
    folder = pictures_of(tmp_path / "f", moving_square(3))
    with pytest.raises(DataError, match=r"is gray \(mode L\)"):
        first_of(frames.read(folder, ReadOptions(color="rgb")))
    pixels = first_of(frames.read(folder, ReadOptions(color="rgb", gray_to_rgb=True)))
    assert np.array_equal(pixels, np.stack([moving_square(3)] * 3))


def test_pictures_of_16_bits_are_brought_to_8(tmp_path: Path) -> None:
    pixels = np.array([[0, 257], [32896, 65535]], np.uint16)  # 257 v is v of 255
    assert first_of(frames.read(pictures_of(tmp_path / "f", pixels))).tolist() == [[[0, 1], [128, 255]]]


def test_transparent_pictures_are_refused(tmp_path: Path) -> None:
    pixels = np.full((16, 16, 4), 255, np.uint8)
    assert first_of(frames.read(pictures_of(tmp_path / "opaque", pixels))).min() == 255
    pixels[2, 3, 3] = 0
    with pytest.raises(DataError, match="is transparent"):
        first_of(frames.read(pictures_of(tmp_path / "clear", pixels)))


def test_pictures_that_a_viewer_turns_are_refused(tmp_path: Path) -> None:
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6
    for number in (1, 2):
        Image.fromarray(moving_square(number)).save(tmp_path / f"p_{number}.jpg", exif=exif)
    with pytest.raises(DataError, match="to be shown turned"):
        first_of(frames.read(tmp_path))


def test_a_picture_is_too_short_for_a_model_of_clips(tmp_path: Path, video_run: Path) -> None:
    photo = picture(tmp_path / "photo.png", moving_square(3, (32, 32)))
    done = pdr("predict", photo, "-o", "f.mp4", "-m", video_run)
    assert (done.code, "photo.png: the model needs" in done.last, "found 1" in done.last) == (65, True, True)


def test_verify_says_by_what_the_pictures_are_known(clip: Path, video_run: Path) -> None:
    assert pdr("predict", clip, "-o", "f.mp4", "-m", video_run).code == 0
    assert "pictures are those that were written (SHA-256)" in pdr("verify", "f.mp4").out
    assert "hold no hash" in pdr("verify", clip).out
