"""`pdr predict` and `pdr export` with a model of scenes, as a user would type them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from PIL import Image

from pdr_cli.data import cameras
from pdr_cli.data.formats import clips, frames, stored
from pdr_cli.drawing import pictures
from pdr_cli.export import scenes as exported
from pdr_cli.inference import filming
from pdr_cli.inference.filming import Filming
from pdr_cli.inference.policy import InputPolicy
from pdr_cli.inference.scenes import load
from pdr_cli.models.gaussians.moving import curves
from tests.builders import scenes_file
from tests.cli import Result, pdr
from tests.data.formats.test_cf import findings
from tests.training.scenes.test_lesson import ORACLE, TINY

LEADS = 4
TIME = {
    "* Coordinate variable 'time' should have standard_name='time', found: 'None'",
    "* time does not have correct time units",
}
ORBIT = ["--camera", "orbit:20"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of scenes of 5 frames of 16 x 16, after a few steps of each part."""
    return run_of(tmp_path_factory.mktemp("films"))


def run_of(folder: Path, *settings: str) -> Path:
    data, run = scenes_file(folder / "scenes.h5", 12, size=(2, 1 + LEADS, 16, 16)), folder / "run"
    given = ["train.stages=[0,0,1]", "train.motion_weight=2", *TINY, *settings]
    options = [word for setting in given for word in ("--set", setting)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pictures, "curves", lambda path, metrics: None)
        done = pdr("train", "--preset", "scenes-small", "--data", data, "-o", run, "--steps", "12", *options)
    assert done.code == 0, done.err
    return run


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """A picture that no training has seen."""
    return drawn(tmp_path / "picture.png")


def drawn(path: Path, height: int = 16, width: int = 16) -> Path:
    down, right = np.mgrid[:height, :width] / 16
    Image.fromarray((255 * np.stack([down, right, (down + right) / 2], -1) % 256).astype(np.uint8)).save(path)
    return path


def camera_file(path: Path, times: Sequence[float], poses: Sequence[Any], focal: float = 1.2) -> Path:
    each = [{"time": t, "world_to_camera": np.asarray(p).tolist()} for t, p in zip(times, poses, strict=True)]
    path.write_text(json.dumps({"focal": focal, "frames": each}))
    return path


def predict(picture: Path, run: Path, out: str, *arguments: Any) -> Result:
    return pdr("predict", picture, "-m", run, "-o", out, *arguments)


def film(picture: Path, run: Path, out: str, *arguments: Any) -> xr.Dataset:
    """The film that pdr writes, which it verifies."""
    result = predict(picture, run, out, *arguments)
    assert result.code == 0, result.err
    assert pdr("verify", out).code == 0
    with xr.open_dataset(out) as made:
        return made.load()


def complaints(name: str) -> set[str]:
    return {line for line in findings(Path(name)).splitlines() if line.startswith("*")}


def values(made: xr.Dataset) -> np.ndarray:
    return np.stack([made[name].values for name in ("red", "green", "blue")], axis=-3)


def test_a_picture_becomes_a_film_with_depth_twice_the_same(picture: Path, trained: Path) -> None:
    made = film(picture, trained, "a.nc", *ORBIT, "--depth", "depth.nc")
    again = film(picture, trained, "b.nc", *ORBIT)
    assert made.sizes == {"time": 1 + LEADS, "y": 16, "x": 16}
    np.testing.assert_allclose(made.time.values, np.linspace(0, LEADS / 8, 1 + LEADS))
    np.testing.assert_array_equal(values(made), values(again))
    assert values(made).min() >= 0
    assert values(made).max() <= 255
    # The seconds of clips have no date that they are counted from, which CF asks of a coordinate called time.
    assert {said for name in ("a.nc", "depth.nc") for said in complaints(name)} == TIME
    assert pdr("verify", "depth.nc").code == 0
    with xr.open_dataset("depth.nc") as opened:
        far = opened.depth.values
    assert np.isfinite(far[0]).mean() > 0.9
    assert np.nanmin(far) > 0.5
    # The camera that turns sees something else than one that stands.
    still = film(picture, trained, "c.nc", "--camera", "still")
    assert np.abs(values(still)[-1] - values(made)[-1]).max() > 1


def test_a_view_of_the_path_itself_is_the_film(picture: Path, trained: Path, tmp_path: Path) -> None:
    made = film(picture, trained, "a.nc", *ORBIT)
    same = film(picture, trained, "b.nc", *ORBIT, "--view", "orbit:20")
    np.testing.assert_array_equal(values(made), values(same))
    times = cameras.even_times(1 + LEADS)
    path = camera_file(tmp_path / "path.json", times, cameras.orbit(20, times).poses)
    by_file = film(picture, trained, "d.nc", "--camera", path)
    np.testing.assert_allclose(values(made), values(by_file), atol=0.05)
    # Seen from the right, what is near has gone to the left; a view may begin anywhere.
    aside = np.eye(4)
    aside[0, 3] = -0.5
    other = film(picture, trained, "c.nc", *ORBIT, "--view", camera_file(tmp_path / "left.json", [0.5], [aside]))
    assert other.sizes["time"] == 1
    assert float(other.time[0]) == 0.5 * LEADS / 8
    assert np.abs(values(other)[0] - values(made)[2]).max() > 1


def test_the_depth_of_a_camera_that_goes_far_back_is_sound(picture: Path, trained: Path) -> None:
    film(picture, trained, "a.nc", "--camera", "dolly:-30", "--depth", "depth.nc")
    assert pdr("verify", "depth.nc").code == 0


def test_frames_in_between_and_fewer_steps_are_frames_of_the_same_film(picture: Path, trained: Path) -> None:
    made = film(picture, trained, "a.nc", *ORBIT)
    twice = film(picture, trained, "b.nc", *ORBIT, "--every", "0.5")
    assert twice.sizes["time"] == 1 + 2 * LEADS
    np.testing.assert_allclose(values(twice)[::2], values(made), atol=1e-3)
    first = film(picture, trained, "c.nc", *ORBIT, "--steps", "2")
    np.testing.assert_allclose(values(first), values(made)[:3], atol=1e-3)


def test_members_are_different_futures_side_by_side_in_a_video(picture: Path, trained: Path) -> None:
    made = film(picture, trained, "a.nc", *ORBIT, "--members", "2", "--seed", "3", "--depth", "depth.nc")
    assert made.sizes["realization"] == 2
    assert np.abs(values(made)[0] - values(made)[1]).max() > 1e-3
    alone = film(picture, trained, "b.nc", *ORBIT, "--seed", "3")
    np.testing.assert_array_equal(values(alone), values(made)[0])
    mean = film(picture, trained, "c.nc", *ORBIT, "--seed", "3", "--members", "mean:2")
    np.testing.assert_allclose(values(mean), values(made).mean(axis=0), atol=1e-3)
    assert predict(picture, trained, "a.mp4", *ORBIT, "--members", "2").code == 0
    clip = clips.scan(Path("a.mp4"))
    assert (len(clip.times), clip.size) == (1 + LEADS, (16, 32))
    with xr.open_dataset("depth.nc") as opened:
        assert opened.depth.dims[0] == "realization"


def test_a_larger_picture_is_refused_or_made_smaller_on_request(trained: Path, tmp_path: Path) -> None:
    large = drawn(tmp_path / "large.png", 32, 32)
    refused = predict(large, trained, "a.nc", *ORBIT)
    assert (refused.code, "--regrid conservative" in refused.last) == (65, True)
    made = filming.picture_of([large], (16, 16), InputPolicy(regrid="conservative"))
    true = frames.read_picture(large, frames.ReadOptions(color="rgb")).values
    np.testing.assert_allclose(made.values, true.reshape(1, 3, 16, 2, 16, 2).mean(axis=(3, 5)), atol=1e-3)
    assert film(large, trained, "a.nc", *ORBIT, "--regrid", "conservative").sizes["x"] == 16
    for height, width, what in ((32, 48, "cut it to that shape"), (8, 8, "take a larger picture")):
        odd = predict(drawn(tmp_path / "odd.png", height, width), trained, "a.nc", *ORBIT, "--regrid", "bilinear")
        assert (odd.code, what in odd.last) == (65, True), odd.err


def test_what_a_film_cannot_be_is_refused_in_a_line(picture: Path, trained: Path, tmp_path: Path) -> None:
    eye, mirrored = np.eye(4), np.diag([1.0, 1, -1, 1])
    for name, times, poses in (
        ("mirror", [0, 1], [eye, mirrored]),
        ("back", [0, 0.5, 0.25], [eye] * 3),
        ("first", [0, 1], [cameras.orbit(5, cameras.even_times(2)).poses[1], eye]),
    ):
        path = camera_file(tmp_path / f"{name}.json", times, poses)
        assert predict(picture, trained, "a.nc", "--camera", path).code == 65, name
    uneven = camera_file(tmp_path / "uneven.json", [0, 0.25, 1], [eye] * 3)
    cases: list[tuple[list[Any], int, str]] = [
        ([], 2, "add --camera"),
        (["--camera", "orbitt:20"], 2, "Did you mean 'orbit'"),
        (["--camera", "none.json"], 66, "no camera file"),
        ([*ORBIT, "--view", "orbit:x"], 2, "--view orbit:x"),
        ([*ORBIT, "--steps", str(LEADS + 1)], 2, "end after 4 steps"),
        (["--camera", uneven, "--every", "0.5"], 2, "leave out --steps and --every"),
        ([*ORBIT, "--every-init"], 2, "films have no --every-init"),
        ([*ORBIT, "--fill-missing", "mean"], 2, "films have no --fill-missing"),
        ([*ORBIT, "--depth", "depth.mp4"], 2, "depth is numbers"),
        ([*ORBIT, "--depth", "a.nc"], 2, "a.nc"),
    ]
    for arguments, code, what in cases:
        result = predict(picture, trained, "a.nc", *arguments)
        assert (result.code, what in result.last) == (code, True), (arguments, result.err)
    shown = predict(picture, trained, "a.mp4", "--camera", uneven)
    assert (shown.code, "evenly" in shown.last) == (2, True)
    assert predict(picture, trained, "a.nc", "--camera", uneven).code == 0


def test_other_models_and_other_inputs_are_refused(
    picture: Path, trained: Path, weather: Path, weather_run: Path
) -> None:
    assert predict(picture, weather_run, "a.nc", *ORBIT).code == 2
    assert "films a picture" in predict(weather, trained, "a.nc").last
    refused = predict(weather, trained, "a.nc", *ORBIT)
    assert (refused.code, "one picture" in refused.last) == (65, True)
    exported_too = pdr("export", "-m", weather_run, "--input", weather, "-o", "a.ply")
    assert (exported_too.code, "moving scenes" in exported_too.last) == (2, True)


def test_a_model_that_reads_true_videos_draws_none(picture: Path, tmp_path: Path) -> None:
    result = predict(picture, run_of(tmp_path, *ORACLE), "a.nc", *ORBIT)
    assert (result.code, "oracle" in result.last) == (2, True)


def test_a_model_without_latents_has_one_future(picture: Path, tmp_path: Path) -> None:
    run = run_of(tmp_path, "scene.latents=none", "scene.parts=[]")
    made, other = (values(film(picture, run, f"{seed}.nc", *ORBIT, "--seed", seed)) for seed in (1, 2))
    np.testing.assert_array_equal(made, other)
    result = predict(picture, run, "m.nc", *ORBIT, "--members", "2")
    assert (result.code, "one future" in result.last) == (2, True)


def test_an_output_that_answers_is_left_and_another_path_renews_it(picture: Path, trained: Path) -> None:
    ask = [*ORBIT, "--depth", "depth.nc", "--skip-existing"]
    assert predict(picture, trained, "a.mp4", *ask).code == 0
    assert "up to date" in predict(picture, trained, "a.mp4", *ask).out
    for other in (["--seed", "1"], ["--view", "still"], ["--every", "0.5"]):
        assert "up to date" not in predict(picture, trained, "a.mp4", *ask, *other).out
    Path("depth.nc").unlink()
    assert "up to date" not in predict(picture, trained, "a.mp4", *ask).out
    about = stored.provenance(Path("depth.nc"))
    assert about["pdr_camera"] == "orbit:20"
    assert len(json.loads(about["pdr_cameras"])["frames"]) == 1 + LEADS


@pytest.mark.parametrize("name", ["a.png", "a.gif"])
def test_a_preview_shows_the_film(picture: Path, trained: Path, name: str) -> None:
    assert predict(picture, trained, "a.nc", *ORBIT, "--preview", name).code == 0
    with Image.open(name) as shown:
        assert min(shown.size) > 200


def test_a_ply_holds_the_gaussians_at_a_time_as_viewers_read_them(picture: Path, trained: Path) -> None:
    assert pdr("export", "-m", trained, "--input", picture, "-o", "a.ply", "--at", "0.5").code == 0
    header, body = Path("a.ply").read_bytes().split(b"end_header\n", 1)
    names = [line.split()[-1] for line in header.decode().splitlines() if line.startswith("property float ")]
    table = np.frombuffer(body, "<f4").reshape(-1, len(names))
    found = dict(zip(names, table.T, strict=True))
    model, shown = load(trained / "model.safetensors"), filming.picture_of([picture], (16, 16), InputPolicy())
    stage = Filming("orbit:20").stage(model.card)
    made = filming.film(model, shown, stage, filming.Drawing())
    # Looked at from the picture's camera, these Gaussians are where those of the film are.
    at = np.stack([1.2 * 8 * found["x"] / found["z"] + 7.5, 1.2 * 8 * found["y"] / found["z"] + 7.5], axis=-1)
    half = 0.5 * (made.ways[:, 0] + made.ways[:, 1])
    assert np.abs(at - half).mean() < np.abs(made.ways[:, 1] - made.ways[:, 0]).mean() + 0.5
    assert len(at) == len(made.ways)
    np.testing.assert_allclose(np.linalg.norm([found[f"rot_{k}"] for k in range(4)], axis=0), 1, atol=1e-5)
    colours = 0.5 + 0.28209479 * np.stack([found[f"f_dc_{k}"] for k in range(3)])
    assert colours.min() > -1e-5
    assert colours.max() < 1 + 1e-5
    assert (1 / (1 + np.exp(-found["opacity"]))).min() > 0


def test_the_curves_of_an_export_give_the_gaussians_at_any_time(picture: Path, trained: Path) -> None:
    assert pdr("export", "-m", trained, "--input", picture, "-o", "a.nc").code == 0
    assert pdr("verify", "a.nc").code == 0
    model, shown = load(trained / "model.safetensors"), filming.picture_of([picture], (16, 16), InputPolicy())
    stage = Filming("orbit:20").stage(model.card)
    scene = filming.scene_of(model, shown, stage.path, filming.seeds_of(0, 1, [filming.PICTURED])[0, 0])
    with xr.open_dataset("a.nc") as opened:
        data = opened.load()
    u = 0.7
    at, powers = scene.at([u]), np.array([u, u**2, u**3])
    kept = (at.opacity[0, 0] > 0).numpy()
    for axis, name in enumerate("xyz"):
        place = data[name].values + data[f"way_{name}"].values @ powers
        np.testing.assert_allclose(place, at.mean[0, 0, kept, axis].numpy(), atol=1e-5)
        size = data[f"sigma_{axis + 1}"].values * np.exp(data[f"grow_{axis + 1}"].values @ powers)
        np.testing.assert_allclose(size, at.scale[0, 0, kept, axis].numpy(), rtol=1e-4)
    for index, name in enumerate("wxyz"):
        turned = data[f"quaternion_{name}"].values + data[f"turn_{name}"].values @ powers
        np.testing.assert_allclose(turned, at.quaternion[0, 0, kept, index].numpy(), atol=1e-5)
    # What the attribute says of the other bases is what they are.
    assert set(exported.BASIS) == {"poly3", "dct4", "free"}
    weights = torch.tensor([[[[0.0, 2.0, 0.0]]]])
    assert float(curves(weights, "free", [2.0], 3)) == 2 * max(0, 1 - abs(3 * (2 / 3) - 2))


def test_exports_that_scenes_have_not_are_refused(picture: Path, trained: Path) -> None:
    for arguments in (["-o", "a.onnx"], ["-o", "a.nc", "--at", "0.5"], ["-o", "a.nc", "--init", "3"]):
        result = pdr("export", "-m", trained, "--input", picture, *arguments)
        assert result.code == 2, result.err
    assert pdr("export", "-m", trained, "-o", "a.ply").code == 2
    assert pdr("export", "-m", trained, "--input", picture, "-o", "a.png").code == 0
    assert pdr("export", "-m", trained, "-o", "a.safetensors").code == 0
