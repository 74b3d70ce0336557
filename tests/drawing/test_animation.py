"""Animations: every frame once, named by its time, on one scale, the truth beside the forecast."""

from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from pdr_cli.data.series import Series, make_series
from pdr_cli.drawing import animation, panels
from pdr_cli.errors import OutputError
from tests.drawing.test_pictures import windows


def frames_of(path) -> list[np.ndarray]:
    """Every frame of a GIF: [height, width, 3]."""
    with Image.open(path) as image:
        found = []
        for number in range(image.n_frames):
            image.seek(number)
            found.append(np.asarray(image.convert("RGB"), dtype=int))
    return found


@pytest.mark.parametrize("kind", ["weather", "traffic", "video"])
def test_every_observed_and_every_forecast_frame_is_shown_once(tmp_path, kind):
    past, predicted, truth = windows(kind, observed=2, ahead=3)
    animation.write(tmp_path / "a.gif", past, predicted, truth, model="runs/a")
    frames = frames_of(tmp_path / "a.gif")
    assert len(frames) == 2 + 3
    assert all(np.abs(a - b).max() > 100 for a, b in pairwise(frames))
    assert [p.name for p in tmp_path.iterdir()] == ["a.gif"]


def test_the_truth_takes_a_second_column(tmp_path):
    past, predicted, truth = windows("weather")
    animation.write(tmp_path / "with.gif", past, predicted, truth)
    animation.write(tmp_path / "without.gif", past, predicted)
    assert frames_of(tmp_path / "with.gif")[0].shape[1] > 1.3 * frames_of(tmp_path / "without.gif")[0].shape[1]


def test_moments_are_named_by_valid_time_and_lead():
    """Two steps of 6 hours were observed, the forecast goes on from the second; the truth is in the second column."""
    past, predicted, truth = windows("weather", observed=2, ahead=2)
    moments = animation._moments(past, predicted, truth)
    assert [m.ahead for m in moments] == ["", "", "+6 h", "+12 h"]
    first = np.datetime64(moments[0].time.replace(" ", "T"))
    assert [np.datetime64(m.time.replace(" ", "T")) - first for m in moments] == [
        np.timedelta64(6 * n, "h") for n in range(4)
    ]
    assert np.array_equal(moments[0].panels[0], moments[0].panels[1])
    assert np.array_equal(moments[3].panels[0], predicted.values[1])
    assert np.array_equal(moments[3].panels[1], truth.values[1])


def gray(frames: list[float], ascending: bool = False) -> Series:
    """Frames of 8 x 8 whose northern half has these values and whose southern half is 0."""
    values = np.zeros((len(frames), 1, 8, 8), np.float32)
    values[:, 0, :4] = np.array(frames)[:, None, None]
    coords = {"lat": ("y", np.linspace(50, 43, 8), {}), "lon": ("x", np.linspace(0, 7, 8), {})}
    series = make_series(values, np.arange(len(frames), dtype=float), {"a": {}}, coords, kind="video")
    return series.isel(y=slice(None, None, -1)) if ascending else series


@pytest.mark.parametrize("ascending", [True, False])
def test_a_value_has_the_same_colour_in_every_frame_and_the_north_is_at_the_top(tmp_path, ascending):
    """Video's scale is 0 to 255, so 200 is drawn as gray 200 at every time, whatever else the frame holds."""
    past, ahead = gray([100, 200], ascending), gray([100, 200, 200, 50], ascending).isel(time=slice(2, None))
    animation.write(tmp_path / "a.gif", past, ahead)
    frames = frames_of(tmp_path / "a.gif")
    sheet = panels.Sheet(1, 1, panels.grid_of(past), "", "")
    left, bottom, width, height = (round(v * animation.DPI) for v in sheet.box(0, 0))
    column, middle = left + width // 2, frames[0].shape[0] - bottom - height // 2
    north = [f[middle - height // 4, column, 0] for f in frames]
    south = [f[middle + height // 4, column, 0] for f in frames]
    assert north == pytest.approx([100, 200, 200, 50], abs=4)  # 255 colours for all frames: a few levels off
    assert south == pytest.approx([0] * 4, abs=4)


def test_the_page_is_white(tmp_path):
    past, predicted, _ = windows("weather")
    animation.write(tmp_path / "a.gif", past, predicted)
    assert all((f[0, 0] == 255).all() for f in frames_of(tmp_path / "a.gif"))


def test_colour_video_is_shown_in_colour(tmp_path):
    """A red frame stays red: far more red than blue in the middle of the panel."""
    past, predicted, _ = windows("video")
    red = [
        make_series(
            np.concatenate([np.full_like(s.values, 220), np.zeros_like(s.values), np.zeros_like(s.values)], axis=1),
            s.time.values, {n: {} for n in ("red", "green", "blue")}, {}, kind="video",
        )
        for s in (past, predicted)
    ]  # fmt: skip
    animation.write(tmp_path / "a.gif", *red)
    frame = frames_of(tmp_path / "a.gif")[-1]
    assert ((frame[..., 0] > 180) & (frame[..., 1] < 60) & (frame[..., 2] < 60)).mean() > 0.1


def test_an_animation_that_cannot_be_written_is_refused(tmp_path):
    past, predicted, _ = windows("video")
    with pytest.raises(OutputError, match="mkdir"):
        animation.write(tmp_path / "none" / "a.gif", past, predicted)
