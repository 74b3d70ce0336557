"""Forecasts of clips whose rate, pixels or container are not the usual ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import pytest
import xarray as xr

from tests.builders import video_file
from tests.cli import pdr
from tests.data.formats.numbered import X264, Recipe, write


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """180 frames of 24 a second in Matroska, whose stamps are whole milliseconds, 41 or 42 apart."""
    recipe = Recipe("film.mkv", "libx264", options=X264, rate=Fraction(24), size=(32, 32))
    return write(recipe, tmp_path_factory.mktemp("film"), 180)


@pytest.fixture(scope="module")
def film_run(make_run: Callable[..., Path], film: Path) -> Path:
    return make_run(film)


@pytest.mark.parametrize("suffix", [".mp4", ".gif", ".nc"])
def test_a_forecast_lasts_as_long_as_its_frames(suffix: str, film: Path, film_run: Path) -> None:
    result = pdr("predict", film, "-o", f"f{suffix}", "-m", film_run, "--steps", "48")
    assert result.code == 0, result.err
    if suffix == ".nc":
        with xr.open_dataset("f.nc", decode_times=False) as dataset:
            # The 180 frames end at 179 / 24 s; 48 frames later are 2 s later.
            assert dataset["time"].values[[0, -1]] == pytest.approx([180 / 24, 179 / 24 + 2], abs=1e-6)
        return
    with av.open(f"f{suffix}") as container:
        assert container.duration == pytest.approx(2e6, abs=5001 if suffix == ".gif" else 1)
    assert ("frames of 41.67 ms are shown for 40 or 50 ms" in result.err) == (suffix == ".gif")


def test_a_rate_that_gif_lacks_is_refused_before_the_work(tmp_path: Path, make_run: Callable[..., Path]) -> None:
    path = video_file(tmp_path / "a.mp4", 180, fps=60)
    result = pdr("predict", path, "-o", "f.gif", "-m", make_run(path))
    assert (result.code, ".gif holds at most 50 frames a second, not 60; write to .mp4" in result.last) == (2, True)
    assert not Path("f.gif").exists()


def test_inspect_names_what_the_container_says_and_what_is_assumed(film: Path, tmp_path: Path) -> None:
    (series,) = json.loads(pdr("inspect", film, "--json").out)["series"]
    assert series["container"].startswith("matroska of h264, 24 frames a second")
    assert (series["rate"], "assumed" in series) == ("24 frames a second", False)
    bare = write(Recipe("a.264", "libx264", options=X264, container="h264"), tmp_path)
    (series,) = json.loads(pdr("inspect", bare, "--json").out)["series"]
    assert series["assumed"] == "has no time stamps: 25 frames a second are assumed"


def test_a_clip_that_was_cut_off_ends_with_65(film: Path, film_run: Path) -> None:
    content = film.read_bytes()
    Path("cut.mkv").write_bytes(content[: len(content) // 2])
    for command in (("inspect", "cut.mkv"), ("predict", "cut.mkv", "-o", "f.mp4", "-m", film_run)):
        result = pdr(*command)
        assert (result.code, "is cut short" in result.last) == (65, True)


def test_frames_of_24_a_second_are_not_forecast_as_25(film: Path, video_run: Path) -> None:
    result = pdr("predict", film, "-o", "f.mp4", "-m", video_run)
    assert (result.code, "steps of 0.04167 s, but the model was trained on steps of 0.04 s" in result.last) == (
        65,
        True,
    )
    assert "--resample-fps 25 takes frames at the model's rate" in result.last
    assert pdr("predict", film, "-o", "f.mp4", "-m", video_run, "--resample-fps", "25").code == 0
    assert pdr("evaluate", film, "-m", video_run).code == 65
