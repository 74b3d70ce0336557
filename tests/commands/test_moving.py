"""Models whose Gaussians move: frames between steps, Gaussians as data, and what their ways are worth."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

import pdr_cli
from pdr_cli import splat
from pdr_cli.data import formats
from pdr_cli.data.formats import stored
from pdr_cli.errors import UsageError
from pdr_cli.export import gaussians
from pdr_cli.inference.forecast import forecast
from pdr_cli.inference.intake import Intake
from pdr_cli.inference.model import load
from pdr_cli.models.gaussians.deform import DeformGS
from tests.cli import pdr
from tests.data.formats.test_cf import findings

MOVING = ["--set", "adapter=deform", "--set", "motion_weight=2", "--set", "opacity_weight=1e-4"]


@pytest.fixture(scope="module")
def painting_run(make_run: Callable[..., Path], weather: Path) -> Path:
    """Gaussians that paint, on a persistence anchor."""
    return make_run(weather, *MOVING, "--set", "fusion=add", "--set", "anchor=persistence")


@pytest.fixture(scope="module")
def carrying_run(make_run: Callable[..., Path], weather: Path) -> Path:
    """Gaussians that carry the last frame, along the optical flow at first."""
    carry = ["--set", "fusion=carry", "--set", "deform_start=flow", "--set", "anchor=persistence"]
    return make_run(weather, *MOVING, *carry, "--set", "inputs=frames")


def predict(out: str, data: Path, run: Path, *arguments: Any) -> xr.Dataset:
    """The forecast that pdr writes."""
    result = pdr("predict", data, "-o", out, "-m", run, *arguments)
    assert result.code == 0, result.err
    with xr.open_dataset(out) as made:
        return made.load()


@pytest.mark.parametrize("run", ["painting_run", "carrying_run"])
def test_frames_between_steps_come_with_those_of_the_steps(
    run: str, weather: Path, request: pytest.FixtureRequest
) -> None:
    path = request.getfixturevalue(run)
    whole = predict("w.nc", weather, path)
    made = predict("f.nc", weather, path, "--every", "0.5")
    assert made.sizes["time"] == 2 * whole.sizes["time"]
    np.testing.assert_array_equal(made.time.values[1::2], whole.time.values)
    assert set(np.diff(made.time.values)) == {np.timedelta64(3, "h")}  # of steps of 6 hours
    np.testing.assert_allclose(made.forecast_period.values, np.arange(1, 2 * len(whole.time) + 1) * 3.0)
    np.testing.assert_allclose(made.t2m.values[1::2], whole.t2m.values, atol=1e-3)
    assert findings(Path("f.nc")) == ""
    assert pdr("verify", "f.nc").code == 0
    with xr.open_dataset(weather) as data:
        again = pdr_cli.load(path).predict(data, every=0.5)
    np.testing.assert_allclose(again.t2m.values, made.t2m.values, atol=1e-4)


def test_between_steps_the_layer_is_drawn_and_not_blended(weather: Path, painting_run: Path) -> None:
    made = predict("f.nc", weather, painting_run, "--every", "0.25").t2m.values
    blended = (made[3] + made[7]) / 2
    assert np.abs(made[5] - blended).max() > 1e-4
    with xr.open_dataset(weather) as data:
        last = data.t2m.values[-1]
    assert np.abs(made[0] - last).max() < np.abs(made[3] - last).max() + 1.0


def test_what_goes_by_whole_steps_is_refused(weather: Path, weather_run: Path, painting_run: Path) -> None:
    for run, arguments, found in (
        (weather_run, ["--every", "0.5"], "could only be blended"),
        (painting_run, ["--every", "0.3"], "--every 0.3"),
        (painting_run, ["--every", "0"], "--every 0"),
        (painting_run, ["--every", "-1"], "--every -1"),
        (painting_run, ["--every", "2"], "--every 2"),
        (painting_run, ["--every", "0.5", "--every-init"], "--every-init goes by whole steps"),
        (painting_run, ["--every", "0.5", "--interval", "0.8"], "--interval goes by whole steps"),
        (painting_run, ["--every", "0.5", "-m", str(weather_run)], "several -m goes by whole steps"),
    ):
        result = pdr("predict", weather, "-o", "x.nc", "-m", run, *arguments)
        assert (result.code, found in result.err, Path("x.nc").exists()) == (2, True, False), result.err
    with pytest.raises(UsageError, match="one direct forecast"), xr.open_dataset(weather) as data:
        pdr_cli.load(painting_run).predict(data, every=0.5, every_init=True)


def test_the_identity_of_a_request_holds_its_parts(weather: Path, painting_run: Path) -> None:
    made = ["predict", weather, "-o", "f.nc", "-m", painting_run, "--skip-existing"]
    assert pdr(*made, "--every", "0.5").code == 0
    assert "up to date" in pdr(*made, "--every", "0.50").out
    assert "up to date" not in pdr(*made).out
    assert "up to date" in pdr(*made, "--every", "1").out, "1 is whole steps"


def test_exported_gaussians_paint_the_layer_without_those_that_are_pruned(weather: Path, painting_run: Path) -> None:
    model, series = load(painting_run / "model.safetensors"), formats.open_series([weather])[0]
    adapter, intake = model.network.adapter, Intake(model)
    assert isinstance(adapter, DeformGS)
    made = forecast(model, intake, series)
    batch = model.batch(made.window.frames, 4, intake.context(made.series, made.window, 4))
    with torch.no_grad():
        opacity = adapter.moving(model.network(batch).coarse, batch.observed).opacity
    adapter.prune = float(opacity.median()) + 1e-6
    made = forecast(model, intake, series)
    drawn = gaussians.of_forecast(model, made.series, made.window)
    assert drawn.sizes["gaussian"] == int((opacity[0, 0] >= adapter.prune).sum()) < adapter.count(model.card.size)
    height, width = drawn.attrs["rows"], drawn.attrs["columns"]
    coords = np.stack([2 * drawn.x / (width - 1) - 1, 2 * drawn.y / (height - 1) - 1], axis=-1)
    scale = np.stack([drawn.sigma_1, drawn.sigma_2], axis=-1) * 10 / (drawn.attrs["kernel_size"] - 1)
    values = (coords, scale, drawn.rotation, drawn.amplitude)
    tensors = [torch.from_numpy(np.asarray(v, np.float32)) for v in values]
    frames = splat.render(*tensors, size=(height, width), kernel_size=int(drawn.attrs["kernel_size"]))
    assert made.layers.layer is not None
    expected = made.window.orientation.invert(made.layers.layer[0])
    np.testing.assert_allclose(frames.numpy(), expected, atol=1e-5)
    assert np.abs(expected).max() > 1e-3


def test_exported_carriers_say_where_they_come_from(weather: Path, carrying_run: Path) -> None:
    assert pdr("export", "-m", carrying_run, "--input", weather, "-o", "g.nc").code == 0
    assert pdr("export", "-m", carrying_run, "--input", weather, "-o", "g.png").code == 0
    with xr.open_dataset("g.nc") as drawn:
        assert not [name for name in drawn if name.startswith("amplitude")]
        with pytest.raises(ValueError, match="carry the last observed frame"):
            splat.render_dataset(drawn)
        assert ((drawn.opacity > 0) & (drawn.opacity < 1)).all()
        assert drawn.start_x.std("time").max() == 0, "one set for all frames"
        assert ((drawn.start_x > 195) & (drawn.start_x < 240)).all(), (
            "longitudes of the grid, 200 to 235, and a little beyond"
        )
        ways = np.hypot(drawn.centre_x - drawn.start_x, drawn.centre_y - drawn.start_y)
        assert ways.isel(time=-1).max() > ways.isel(time=0).max() > 0


def test_ways_are_measured_against_the_flow_of_the_truth(weather: Path, carrying_run: Path) -> None:
    result = pdr(
        "evaluate", weather, "-m", carrying_run, "--metrics", "rmse,ways", "--against", "persistence", "--json"
    )
    assert result.code == 0, result.err
    found = json.loads(result.out)["ways"]["run"]
    assert len(found["error"]["lead"]) == 4
    for key in ("error", "standing_still"):
        assert found[key]["overall"] > 0
    assert 0 < found["moving"] <= 1
    assert found["pruned"] == 0
    table = pdr("evaluate", weather, "-m", carrying_run, "--metrics", "rmse,ways", "--against", "persistence")
    assert "standing still there" in table.out


def test_ways_of_what_does_not_move_are_refused(weather: Path, weather_run: Path) -> None:
    result = pdr("evaluate", weather, "-m", weather_run, "--metrics", "ways")
    assert (result.code, "--adapter deform" in result.err) == (2, True)


def test_video_between_frames_runs_at_a_faster_rate(clip: Path, make_run: Callable[..., Path]) -> None:
    carry = ["--set", "fusion=carry", "--set", "deform_start=flow", "--set", "anchor=flow", "--backbone", "none"]
    run = make_run(clip, *MOVING, *carry, "--set", "inputs=frames", "--set", "amplitude=auto")
    assert pdr("predict", clip, "-o", "f.mp4", "-m", run, "--every", "0.5").code == 0
    assert pdr("verify", "f.mp4").code == 0
    series = formats.open_series([Path("f.mp4")])[0]
    assert series.sizes["time"] == 2 * load(run / "model.safetensors").card.config.data.out_steps
    np.testing.assert_allclose(np.diff(series.time.values), 1 / 50)


def test_a_carrying_fusion_needs_a_carrying_adapter(weather: Path) -> None:
    result = pdr("train", "--preset", "demo", "--data", weather, "--fusion", "carry", "--adapter", "local", "-o", "r")
    assert (result.code, "--adapter deform" in result.err, Path("r").exists()) == (78, True, False), result.err


def test_hashes_of_frames_between_steps_are_those_that_were_written(weather: Path, painting_run: Path) -> None:
    predict("f.nc", weather, painting_run, "--every", "0.5")
    assert stored.provenance(Path("f.nc"))["pdr_data_sha256"] == stored.sha256_of(Path("f.nc"))
