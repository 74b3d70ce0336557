"""Clips in and out. What is wrong with a clip, and what is done about it, is in tests/reliability/test_video_faults.py."""

from pathlib import Path

import numpy as np
import pytest

from pdr_cli.data import formats
from pdr_cli.data.formats import ReadOptions, stored, video
from pdr_cli.data.series import make_series, read_frames
from pdr_cli.errors import DataError, UsageError
from tests.builders import video_file, weather_file


def test_frames_are_counted_and_in_order(tmp_path: Path) -> None:
    series = video.read(video_file(tmp_path / "a.mp4", 30, fps=25))
    assert series.sizes["time"] == 30
    assert np.allclose(np.diff(series.time.values), 1 / 25)
    # The square's left edge is at column i of frame i.
    edges = [int(np.argmax(frame[0, 12] > 128)) for frame in read_frames(series, 0, 10)]
    assert np.abs(np.array(edges) - np.arange(10)).max() <= 1


def test_a_late_window_equals_the_same_frames_read_from_the_start(tmp_path: Path) -> None:
    series = video.read(video_file(tmp_path / "a.mp4", 300))
    whole = read_frames(series, 0, 300)
    assert np.array_equal(read_frames(series, 270, 280), whole[270:280])


def test_frames_are_resized_only_when_asked(tmp_path: Path) -> None:
    path = video_file(tmp_path / "a.mp4", 4, size=(24, 32))
    assert video.read(path).shape == (4, 1, 24, 32)
    assert video.read(path, ReadOptions(size=(16, 16), color="rgb")).shape == (4, 3, 16, 16)


@pytest.mark.parametrize("size", [(32, 32), (31, 47)])
def test_written_video_keeps_its_size_and_nearly_its_values(tmp_path: Path, size: tuple[int, int]) -> None:
    smooth = 128 + 60 * np.sin(np.linspace(0, 6, size[0]))[:, None] * np.cos(np.linspace(0, 6, size[1]))
    frames = np.repeat(smooth[None, None], 5, axis=0).astype(np.float32)
    clip = make_series(frames, np.arange(5) / 25, {"gray": {}}, {}, kind="video")
    formats.write(clip, tmp_path / "out.mp4", {})
    back = video.read(tmp_path / "out.mp4")
    assert back.shape == (5, 1, *size)
    # 8 bits and limited-range YUV: a smooth picture comes back within a few levels.
    assert np.abs(read_frames(back, 0, 5) - frames).max() < 8


def test_damage_is_found_not_decoded_to_wrong_frames(tmp_path: Path) -> None:
    content = bytearray(video_file(tmp_path / "a.mp4", 200, size=(64, 64)).read_bytes())
    start = content.index(b"mdat") + 1000
    content[start : start + 400] = bytes(400)
    (tmp_path / "bad.mp4").write_bytes(content)
    with pytest.raises(DataError, match="damaged"):
        video.read(tmp_path / "bad.mp4")


def test_truncated_video_is_refused(tmp_path: Path) -> None:
    whole = video_file(tmp_path / "a.mp4", 20).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"cut\.mp4 \(\d+ bytes\)"):
        formats.open_series([tmp_path / "cut.mp4"])


def test_physical_fields_are_not_written_as_video(tmp_path: Path) -> None:
    series = formats.open_series([weather_file(tmp_path / "a.nc", 5)])[0].load()
    with pytest.raises(UsageError, match="8-bit"):
        formats.write(series, tmp_path / "out.mp4", {})
    assert list(tmp_path.iterdir()) == [tmp_path / "a.nc"]


def test_gif_of_still_frames_is_accepted(tmp_path: Path) -> None:
    clip = make_series(np.full((5, 1, 16, 16), 90, np.float32), np.arange(5) / 10, {"gray": {}}, {}, kind="video")
    formats.write(clip, tmp_path / "still.gif", {})
    assert (tmp_path / "still.gif").stat().st_size > 0


@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
def test_a_clip_says_where_it_comes_from(tmp_path: Path, suffix: str) -> None:
    clip = make_series(np.zeros((3, 1, 16, 16), np.float32), np.arange(3) / 10, {"gray": {}}, {}, kind="video")
    formats.write(clip, tmp_path / f"a{suffix}", {"title": "kept apart", "pdr_version": "7"})
    about = stored.provenance(tmp_path / f"a{suffix}")
    assert about["pdr_version"] == "7"
    assert about.keys() <= {"pdr_version", "pdr_pictures_sha256"}
