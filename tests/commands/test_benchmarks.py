"""Each benchmark as it lies on disk, from its files to a trained model, a forecast and a report of `pdr inspect`."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pdr_cli.runs import modelfile
from tests.builders import (
    human36m_folder,
    kth_folder,
    kth_video,
    taxibj_files,
    taxibj_npz,
    weather_file,
    weatherbench_folders,
)
from tests.cli import pdr
from tests.conftest import tiny_settings

SMALL = ["kernel_size=auto", "downsample=auto", "n_s=2", "batch=2", "in_steps=4", "out_steps=4"]
YEARS = ["data.train_period=2015", "data.val_period=2016", "data.test_period=2017"]
LINES = [f"images/{clip}.1_,{first},{first + 70}" for clip in ("S1_Eating", "S5_Walking") for first in (1, 26, 51)]


def kth_frames(root: Path) -> Path:
    for name in ("person01_walking_d1", "person02_jogging_d1", "person17_walking_d1"):
        kth_folder(root, name, [*range(1, 21), *range(25, 41)])
    return root


def kth_videos(root: Path) -> Path:
    for name in ("person01_walking_d1", "person02_boxing_d1", "person17_walking_d1"):
        kth_video(root, name, 40)
    listed = [f"person{n}_d1\t\tframes\t1-16, 17-40" for n in ("01_walking", "02_boxing", "17_walking")]
    (root / "00sequences.txt").write_text("The sequences are:\n\n" + "\n".join(listed) + "\n")
    return root


Case = tuple[str, Callable[[Path], Path], list[str], str, str]
CASES: list[Case] = [
    # Test 28d of 4 x 24 days: the 24 days of 2016 and none before it, a year lies between; 24 x 48 - 7 windows.
    # Before are 3 x 1152 = 3456 slots, the last tenth from round(3110.4) on validates; both earlier parts give up 8
    # slots: 338 to validate, 331 windows; 1152 + 1152 + 798 to train, 1145 + 1145 + 791 windows.
    ("taxibj", lambda r: taxibj_files(r, 24), ["data.size=[]"], "3081 / 331 / 1145", "BJ16_M32x32_T30_InOut.h5"),
    # 60 % of 30 windows, 8 left out, 4 to validate; 3 to test.
    ("taxibj", lambda r: taxibj_npz(r / "dataset.npz"), ["data.val_fraction=0.4"], "18 / 4 / 3", "."),
    # 72 hours of each year, the first two 8 fewer: 72 - 8 - 7 = 57 windows of 8; the test has 72 - 7 = 65.
    (
        "weatherbench",
        lambda r: weatherbench_folders(r, ("t2m",), (2015, 2016, 2017)),
        YEARS,
        "57 / 57 / 65",
        "2m_temperature",
    ),
    # Runs of 20 and 16 frames: 13 + 9 windows at every step; one after another, 2 + 2.
    ("kth", kth_frames, ["data.size=[24,32]"], "22 / 22 / 4", "walking/person17_walking_d1_uncomp"),
    # Sequences of 16 and 24 frames: 9 + 17 windows at every step; one after another, 2 + 3.
    ("kth", kth_videos, ["data.size=[32,32]"], "26 / 26 / 5", "walking/person17_walking_d1_uncomp.avi"),
    # Two clips of three windows, the second validates.
    (
        "human36m",
        lambda r: human36m_folder(r, LINES, ["images/S1_Eating.1_,76,146"]),
        ["data.size=[16,16]"],
        "3 / 3 / 1",
        "test.txt",
    ),
]
IDS = ["taxibj", "taxibj-npz", "weatherbench", "kth-frames", "kth-avi", "human36m"]


@pytest.mark.parametrize(("preset", "make", "settings", "windows", "forecast"), CASES, ids=IDS)
def test_a_benchmark_trains_forecasts_and_is_evaluated_from_its_own_layout(
    tmp_path: Path,
    preset: str,
    make: Callable[[Path], Path],
    settings: list[str],
    windows: str,
    forecast: str,
) -> None:
    root = make(tmp_path / "files")
    folder = root if root.is_dir() else root.parent
    base = ["train", "--preset", preset, "--data", root, "-o", "run", "--steps", "2", *tiny_settings(*SMALL, *settings)]
    trained = pdr(*base)
    assert trained.code == 0, trained.err
    assert f"{windows} windows to train / validate / test" in trained.err
    card = modelfile.read(Path("run/model.safetensors")).card
    assert {part for part, *_ in card.seen.entries} == {"train", "val"}
    assert len({d["sha256"] for d in card.data}) == len(card.data), "several sequences of one file are one entry"
    done = pdr("predict", folder / forecast, "-m", "run", "-o", "out.nc")
    assert done.code == 0, done.err
    scored = pdr("evaluate", root, "-m", "run", "--json", "-q")
    assert scored.code == 0, scored.err
    document = json.loads(scored.out)
    assert document["n_windows"] > 0
    assert document["lead_units"] == ("seconds" if preset in ("kth", "human36m") else "hours")


@pytest.mark.parametrize(("preset", "make", "settings", "windows", "forecast"), CASES, ids=IDS)
def test_the_published_protocol_trains_too(
    tmp_path: Path,
    preset: str,
    make: Callable[[Path], Path],
    settings: list[str],
    windows: str,
    forecast: str,
) -> None:
    root = make(tmp_path / "files")
    every = tiny_settings(*SMALL, *settings, "data.protocol=openstl")
    result = pdr("train", "--preset", preset, "--data", root, "--dry-run", *every)
    assert result.code == 0, result.err
    train, val, test = result.err.split("split   ")[1].split(" windows")[0].split(" / ")
    assert int(train) > 0
    assert val == test != "0"


def test_the_last_window_of_a_file_of_several_parts_is_that_of_its_test(tmp_path: Path) -> None:
    data = taxibj_npz(tmp_path / "taxibj" / "dataset.npz", 30, 3)
    settings = tiny_settings(*SMALL, "data.val_fraction=0.4")
    assert pdr("train", "--preset", "taxibj", "--data", data, "-o", "run", "--steps", "1", "-q", *settings).code == 0
    done = pdr("predict", data, "-m", "run", "-o", "out.nc")
    # The third window of the test ends with frame 2 * 9 + 7 = 25 of half an hour: 45000 s.
    assert "init 4.5e+04 s" in done.out
    assert pdr("predict", data.parent, "-m", "run", "-o", "again.nc").code == 0


def test_data_are_found_where_the_presets_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PDR_DATA", str(tmp_path / "data"))
    kth_frames(tmp_path / "data" / "kth")
    human36m_folder(tmp_path / "data" / "human", LINES, ["images/S1_Eating.1_,76,146"])
    taxibj_npz(tmp_path / "data" / "taxibj" / "dataset.npz")
    for preset, more in (
        ("kth", ["data.size=[24,32]"]),
        ("human36m", ["data.size=[16,16]"]),
        ("taxibj", ["data.val_fraction=0.4"]),
    ):
        result = pdr("train", "--preset", preset, "--dry-run", *tiny_settings(*SMALL, *more))
        assert result.code == 0, result.err


def findings(path: Path, preset: str, *more: str) -> tuple[int, list[dict[str, str]]]:
    result = pdr("inspect", path, "--for", preset, "--json", *more)
    return result.code, json.loads(result.out)["findings"]


def said(rows: list[dict[str, str]], level: str) -> str:
    return "\n".join(f"{r['what']} -> {r['fix']}" for r in rows if r["level"] == level)


def test_inspect_names_missing_years_and_an_incomplete_one(tmp_path: Path) -> None:
    root = weatherbench_folders(tmp_path / "w", ("t2m",), (2015, 2016, 2017))
    code, rows = findings(root, "weatherbench")
    assert code == 0
    assert "6 years are missing: 2010, 2011, 2012, 2013, 2014, 2018" in said(rows, "warning")
    assert "2m_temperature_2010_5.625deg.nc" in said(rows, "warning")
    assert "2016 (72 of 8784 hours)" in said(rows, "warning")
    assert "frames of 8 x 16, published are 32 x 64" in said(rows, "warning")
    assert "variable t2m" in said(rows, "ok")
    # 12 + 12 hours: 72 - 24 - 23 = 25 windows, and 72 - 23 = 49 in the test; published 72 - 25 = 47.
    assert "25 / 25 / 49 windows to train / validate / test" in said(rows, "ok")
    assert "47 / 47 windows to train / test under protocol openstl" in said(rows, "ok")


def test_inspect_says_how_to_mend_a_wrong_variable_or_year(tmp_path: Path) -> None:
    code, rows = findings(weather_file(tmp_path / "own.nc", 600, hours=1, name="tas"), "weatherbench")
    assert code == 0
    assert "no time of 2010 to 2018, the data run from 2020-01-01 to 2020-01-25; the fractions" in said(rows, "warning")
    assert "windows to train / validate / test (in time, 24 steps between parts)" in said(rows, "ok")
    code, rows = findings(weatherbench_folders(tmp_path / "last", ("t2m",), (2018,)), "weatherbench")
    assert code == 65
    assert "no data for train_period 2010/2015" in said(rows, "problem")
    assert "--set data.train_period=" in said(rows, "problem")
    code, rows = findings(weather_file(tmp_path / "other.nc", 60, name="tas"), "weatherbench", "--var", "t2m")
    assert code == 65
    assert "'t2m' is not there" in said(rows, "problem")
    assert "--var t2m=NAME" in said(rows, "problem")


def test_inspect_counts_the_files_and_short_days_of_taxibj(tmp_path: Path) -> None:
    root = taxibj_files(tmp_path / "b", 24, short=[(13, 2), (16, 6)])
    (root / "BJ15_M32x32_T30_InOut.h5").unlink()
    code, rows = findings(root, "taxibj")
    assert code == 0
    assert "3 of the four files BJ13 to BJ16 -> put BJ15_M32x32_T30_InOut.h5" in said(rows, "warning")
    assert "72 days, 2 of them with fewer than 48 slots; 5 unbroken runs" in said(rows, "ok")
    assert "frames of 8 x 8, published are 32 x 32" in said(rows, "warning")


def test_inspect_compares_an_npz_with_the_published_one(tmp_path: Path) -> None:
    code, rows = findings(taxibj_npz(tmp_path / "dataset.npz", 100, 3), "taxibj")
    assert code == 0
    assert "100 train windows of 4 + 4 -> take the published file, which has 20461" in said(rows, "warning")
    assert "100 / 3 windows to train / test under protocol openstl" in said(rows, "ok")
    assert "windows      100 of 8 frames, cut beforehand" in pdr("inspect", tmp_path / "dataset.npz").out


def test_inspect_names_the_arrays_of_another_npz(tmp_path: Path) -> None:
    np.savez(tmp_path / "forecast.npz", data=np.zeros((3, 2, 8, 8)), time=np.zeros(3))
    code, rows = findings(tmp_path / "forecast.npz", "taxibj")
    assert code == 65
    assert "data [3, 2, 8, 8], time [3]" in said(rows, "problem")


def test_inspect_misses_the_sequence_list_and_the_other_persons(tmp_path: Path) -> None:
    root = kth_videos(tmp_path / "k")
    _, rows = findings(root, "kth")
    assert "sequence list 00sequences.txt" in said(rows, "ok")
    assert "3 of 599 clips; no person 03, 04" in said(rows, "warning")
    assert "no handclapping, handwaving, jogging, running" in said(rows, "warning")
    (root / "00sequences.txt").unlink()
    code, rows = findings(root, "kth")
    assert "put 00sequences.txt from csc.kth.se/cvap/actions" in said(rows, "warning")
    # Clips of 40 frames hold 11 windows of 10 + 20, and one of those that follow one another.
    assert (code, "11 / 11 / 1 windows to train" in said(rows, "ok")) == (0, True)
    assert "frames of 128 x 128, resized from 32 x 32" in said(rows, "ok")


def test_inspect_counts_folders_with_gaps(tmp_path: Path) -> None:
    code, rows = findings(kth_frames(tmp_path / "k"), "kth")
    # Runs of 20 and 16 frames hold no window of 30.
    assert (code, "no unbroken run of 30 steps" in said(rows, "problem")) == (65, True)
    for name in ("person01_walking_d1", "person02_jogging_d1"):
        kth_folder(tmp_path / "k", name, range(1, 41))
    code, rows = findings(tmp_path / "k", "kth")
    assert (code, "1 of 3 folders have gaps" in said(rows, "ok")) == (0, True)
    assert "no window to test on" in said(rows, "warning")


def test_inspect_names_missing_pictures(tmp_path: Path) -> None:
    root = human36m_folder(tmp_path / "h", LINES, ["images/S1_Eating.1_,76,146"])
    code, rows = findings(root, "human36m")
    assert code == 0
    assert "train.txt lists 6 windows, the published list 73404" in said(rows, "warning")
    (root / "images" / "S5_Walking.1_000036.jpg").unlink()
    code, rows = findings(root, "human36m")
    assert code == 65
    assert "train.txt: pictures missing: 1, first images/S5_Walking.1_000036.jpg" in said(rows, "problem")
    text = pdr("inspect", root, "--for", "human36m")
    assert text.code == 65
    assert "→ extract the pictures again beside train.txt" in text.out
