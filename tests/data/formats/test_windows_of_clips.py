"""Any window of a clip that is read by seeking equals the same frames read from the start, in every codec and container."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pdr_cli.data import times as time_axis
from pdr_cli.data import windows
from pdr_cli.data.formats import ReadOptions, video
from pdr_cli.data.series import read_frames
from tests.data.formats.numbered import COMMON, FRAMES, OTHERS, Recipe, numbers, write

LENGTH = 3  # frames of a window


def check_every_window(recipe: Recipe, folder: Path) -> None:
    path = write(recipe, folder)
    series = video.read(path, ReadOptions(resample_fps=float(recipe.rate) if recipe.ticks else 0))
    count = series.sizes["time"]
    whole = read_frames(series, 0, count)
    ticks = np.array(recipe.ticks or range(FRAMES))
    # At each tick the last frame that began before; without gaps, frame after frame.
    assert numbers(whole) == (np.searchsorted(ticks, np.arange(ticks[-1] + 1), side="right") - 1).tolist()
    for start in range(count - LENGTH + 1):
        window = read_frames(series, start, start + LENGTH)
        assert np.array_equal(window, whole[start : start + LENGTH]), f"window at frame {start}"
    assert series.attrs["rate"] == ("variable" if recipe.ticks else str(recipe.rate))


@pytest.mark.parametrize("recipe", COMMON, ids=lambda recipe: recipe.name)
def test_every_window_equals_the_same_frames_of_the_whole(recipe: Recipe, tmp_path: Path) -> None:
    check_every_window(recipe, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", OTHERS, ids=lambda recipe: recipe.name)
def test_every_window_in_other_codecs_and_containers(recipe: Recipe, tmp_path: Path) -> None:
    check_every_window(recipe, tmp_path)


@pytest.mark.parametrize("recipe", [r for r in COMMON if not r.ticks], ids=lambda recipe: recipe.name)
def test_windows_of_training_equal_the_same_frames_of_the_whole(recipe: Recipe, tmp_path: Path) -> None:
    count = 3 * windows.BLOCK  # the second and the third block of the cache begin behind key frames
    series = video.read(write(recipe, tmp_path, count))
    whole = read_frames(series, 0, count)
    assert numbers(whole) == list(range(count))
    cache = windows.FrameCache([series], limit_mb=1, at_least=1)
    step = time_axis.find_step(series.time.values)
    cut = windows.cut([series], [(0, 0, count)], 4, 2, step, cache)
    assert len(cut) == count - 5
    for number in np.random.default_rng(0).permutation(len(cut))[:20]:
        observed, following = cut.batch([number])
        assert np.array_equal(np.concatenate([observed[0], following[0]]), whole[number : number + 6])
