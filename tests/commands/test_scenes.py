"""Files of scenes on the command line: made, described, checked, and refused where a Series is needed."""

import json
from pathlib import Path

import h5py
import pytest

from pdr_cli.data import scene_samples
from pdr_cli.data.formats import scenefile
from pdr_cli.data.scenes import Size
from tests.builders import picture, scenes_file
from tests.cli import pdr
from tests.data.formats.test_frames import COLOURS


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    return scenes_file(tmp_path / "scenes.h5", size=(2, 3, 40, 48))


def test_a_sample_is_written_twice_alike_and_says_that_it_is_synthetic(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scene_samples, "SCENES", 3)
    for name in ("a.h5", "b.hdf5"):
        done = pdr("sample", "scenes", "-o", name, "--seed", "1")
        assert (done.code, done.out) == (0, f"{name}\n")
        assert "100 %  3 of 3 scenes" in done.err
    assert Path("a.h5").read_bytes() == Path("b.hdf5").read_bytes()
    file = scenefile.read(Path("a.h5"))
    assert (len(file), file.size) == (3, Size(views=2, frames=9, height=64, width=64))
    assert file.title == "Synthetic scenes sample, not observations (seed 1)"
    assert b"not observations" in file.handle.attrs["title"]
    assert b"scores on it say nothing about real data" in file.handle.attrs["comment"]
    assert pdr("sample", "scenes", "-o", "c.h5", "--seed", "2", "-q").code == 0
    assert Path("a.h5").read_bytes() != Path("c.h5").read_bytes()


def test_the_default_is_what_the_docs_say() -> None:
    assert scene_samples.SCENES == 240
    assert tuple(scene_samples.SIZE) == (2, 9, 64, 64)


@pytest.mark.parametrize("name", ["scenes.nc", "scenes.json"])
def test_a_sample_of_scenes_is_hdf5(name: str) -> None:
    done = pdr("sample", "scenes", "-o", name)
    assert (done.code, "a scenes sample is written to .h5 or .hdf5" in done.err) == (2, True)


def test_inspect_says_what_the_file_holds(scenes: Path) -> None:
    done = pdr("inspect", scenes, "--json")
    report = json.loads(done.out)
    assert report["format"] == "scenes"
    assert (report["scenes"], report["views"], report["parts"]) == (4, 2, "2 train, 1 val, 1 test")
    assert (report["frames"], report["size"]) == ("3, times 0 to 1", "40 x 48")
    assert report["focal"] == "1.2 half frames, a view of 80 degrees"
    moving = [scene_samples.make(0, n, Size(2, 3, 40, 48)).moving.mean() for n in range(4)]
    assert report["moving"] == f"{100 * sum(moving) / 4:.1f} % of the pixels of first frames"
    assert "half frames" in pdr("inspect", scenes).out


def test_inspect_reads_some_scenes_of_a_large_file(scenes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pdr_cli.inspection.scenes.LOOKED_AT", 2)
    assert json.loads(pdr("inspect", scenes, "--json").out)["moving"].endswith("first frames of 2 scenes")


def test_inspect_describes_files_that_are_too_small_to_be_divided(tmp_path: Path) -> None:
    few = scenes_file(tmp_path / "few.h5", 1)
    assert json.loads(pdr("inspect", few, "--json").out)["parts"].startswith("none: 3 or more")


def test_verify_reads_everything_and_compares_tracks_with_depths(scenes: Path) -> None:
    done = pdr("verify", scenes, "--json")
    assert (done.code, json.loads(done.out)["kind"], json.loads(done.out)["sound"]) == (0, "scenes", True)
    with h5py.File(scenes, "r+") as file:
        file["track"][...] = -file["track"][:]
    done = pdr("verify", scenes)
    assert done.code == 65
    assert "scenes do not fit their depths" in done.last
    with h5py.File(scenes, "r+") as file:
        file["depth"][2, 1, 0, 0, 0] = float("nan")
    done = pdr("verify", scenes, "--json")
    assert (done.code, "scene 2: 1 depths are not positive numbers" in done.last) == (65, True)
    assert json.loads(done.out)["sound"] is False


def test_models_of_today_refuse_scenes(scenes: Path, weather: Path, weather_run: Path) -> None:
    for arguments in (
        ("train", "--preset", "traffic-small", "--data", scenes, "-o", "r"),
        ("predict", scenes, "-m", weather_run, "-o", "f.nc"),
        ("evaluate", scenes, "-m", weather_run),
        ("inspect", scenes, "--for", "traffic-small"),
    ):
        done = pdr(*arguments)
        assert (done.code, "holds scenes (pictures, depths and cameras); expected fields" in done.last) == (65, True)
    done = pdr("evaluate", weather, "-m", weather_run, "-m", scenes)
    assert (done.code, "is a file of scenes" in done.last) == (65, True)


def test_a_picture_is_described_and_refused_by_a_model_of_weather(tmp_path: Path, weather_run: Path) -> None:
    photo = picture(tmp_path / "photo.png", COLOURS[:1, :1].repeat(32, axis=0).repeat(32, axis=1))
    (found,) = json.loads(pdr("inspect", photo, "--json").out)["series"]
    assert (found["grid"], found["times"]) == ("32 x 32", "1, 0 s to 0 s")
    done = pdr("predict", photo, "-m", weather_run, "-o", "f.nc")
    assert (done.code, "photo.png is one picture; expected weather" in done.last) == (65, True)
    assert not list(tmp_path.glob("f.*"))
