from pathlib import Path

import numpy as np
import pytest

from pdr_cli.data import formats, seen, splits, statistics, times, windows
from pdr_cli.data.formats import ReadOptions, npz
from pdr_cli.data.formats.npz import NPZ
from pdr_cli.data.rules import Rules
from pdr_cli.data.series import names, read_frames
from pdr_cli.data.windows import FrameCache
from pdr_cli.errors import DataError, VariableError
from tests.builders import taxibj_npz


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_parts_are_series_of_values_from_0_to_1(tmp_path: Path, compressed: bool, dtype: str) -> None:
    path = taxibj_npz(tmp_path / "dataset.npz", 30, 3, compressed=compressed, dtype=dtype)
    train, test = formats.open_series([path])
    assert (train.attrs["part"], test.attrs["part"], train.attrs["kind"]) == ("train", "test", "traffic")
    assert (train.shape, test.shape) == ((240, 2, 8, 8), (24, 2, 8, 8))
    assert names(train) == ["inflow", "outflow"]
    # Frame j of window n holds v = (n mod 10 + j / 10) / 10 - 0.5; read is (v + 1) / 2 = 0.25 + (n mod 10 + j / 10) / 20.
    expected = [0.25 + (n % 10 + j / 10) / 20 for n in (11, 12, 13) for j in range(8)]
    assert np.allclose(read_frames(train, 88, 112)[:, 0, 0, 0], expected, atol=1e-6)
    # A read that begins and ends inside windows: frames 5 to 9 are 5, 6, 7 of window 0 and 0, 1 of window 1.
    assert np.allclose(
        read_frames(train, 5, 10)[:, 1, 3, 3], 0.25 + np.array([0.5, 0.6, 0.7, 1.0, 1.1]) / 20, atol=1e-6
    )


def test_an_uncompressed_array_is_mapped_not_held(tmp_path: Path) -> None:
    stored = npz.members(taxibj_npz(tmp_path / "a.npz"))["X_train"].load()
    packed = npz.members(taxibj_npz(tmp_path / "b.npz", compressed=True))["X_train"].load()
    assert isinstance(stored, np.memmap)
    assert (packed.dtype, np.array_equal(stored.astype("f4"), packed)) == (np.float32, True)


def test_the_window_cutter_finds_the_windows_that_were_cut_and_no_others(tmp_path: Path) -> None:
    train, _ = NPZ().open([taxibj_npz(tmp_path / "dataset.npz", 30)], ReadOptions())
    step = times.find_step(train.time.values)
    assert str(step) == "30 min"
    known = statistics.measure([(train, 0, 240)], 100, 0).climatology
    assert known.kind == "mean", "without real times there is no daily cycle"
    cut = windows.cut([train], [(0, 0, 240)], 4, 4, step, FrameCache([train], 1))
    assert [int(s) for _, s in cut.places] == list(range(0, 240, 8))


def test_windows_that_may_overlap_validation_are_left_out_of_training(tmp_path: Path) -> None:
    series = NPZ().open([taxibj_npz(tmp_path / "dataset.npz", 30, 3)], ReadOptions())
    parts = splits.split(series, Rules(0.4, 0.15, 4, 4))
    # 60 % of 30 windows are 18, or 144 frames; windows of 8 frames may overlap 7 neighbours, 8 are left out: 208.
    assert (parts.train, parts.val, parts.test) == ([(0, 0, 144)], [(0, 208, 240)], [(1, 0, 24)])
    ids = [s.attrs["identity"] for s in series]
    step = times.find_step(series[0].time.values)
    known = seen.of(series, ids, parts, step)
    cut = windows.cut(series, [(0, 0, 240), (1, 0, 24)], 4, 4, step, FrameCache(series, 1))
    assert seen.select(cut, ids, known, "test").places.tolist() == [[1, 0], [1, 8], [1, 16]]
    assert len(seen.select(cut, ids, known, "train")) == 18
    assert len(seen.select(cut, ids, known, "val")) == 4


def test_other_arrays_are_named_with_their_shapes(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", data=np.zeros((3, 2, 8, 8)), time=np.zeros(3))
    with pytest.raises(DataError, match=r"data \[3, 2, 8, 8\], time \[3\]; expected X_train"):
        formats.open_series([tmp_path / "a.npz"])
    arrays = {f"{side}_{part}": np.zeros((3, 4, 2, 8, 8)) for side in "XY" for part in ("train", "test")}
    np.savez(tmp_path / "b.npz", **arrays | {"Y_test": np.zeros((2, 4, 2, 8, 8))})
    with pytest.raises(DataError, match=r"Y_test \[2, 4, 2, 8, 8\]"):
        formats.open_series([tmp_path / "b.npz"])


def test_one_channel_may_be_chosen(tmp_path: Path) -> None:
    path = taxibj_npz(tmp_path / "dataset.npz")
    assert names(NPZ().open([path], ReadOptions(["outflow"]))[0]) == ["outflow"]
    with pytest.raises(VariableError, match="it has inflow, outflow"):
        NPZ().open([path], ReadOptions(["speed"]))
