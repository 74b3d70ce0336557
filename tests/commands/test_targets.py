"""Targets: variables that are forecast and not observed, in training, prediction, evaluation and export."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

import pdr_cli
from pdr_cli.inference.header import read_header
from pdr_cli.inference.intake import Intake
from pdr_cli.runs import modelfile
from tests.cli import Result, pdr
from tests.conftest import tiny_settings

FRAMES, SIZE = 160, (8, 10)
START = np.datetime64("2020-01-01", "ns")
SIDES = {
    "lat": ("lat", np.linspace(60, 42.5, 8, dtype="f4"), {"units": "degrees_north"}),
    "lon": ("lon", np.linspace(0, 22.5, 10, dtype="f4"), {"units": "degrees_east"}),
}
SMALL = [
    "--backbone",
    "unet",
    "--fusion",
    "none",
    *tiny_settings("n_s=2", "train.baselines=true", "anchor=climatology"),
]


def dataset() -> xr.Dataset:
    """Two winds, and a temperature that follows the first, measured at another height, with a cell that is never observed."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:8, 0:10]
    waves = np.stack([np.sin(x), np.cos(x + y), np.sin(y)])
    u10, v10 = (np.einsum("tk,kyx->tyx", rng.standard_normal((FRAMES, 3)), waves) for _ in range(2))
    t2m = 280 - 3 * u10 + 0.1 * rng.standard_normal((FRAMES, *SIZE))
    t2m[:, 0, 0] = np.nan
    dims, times = ("time", "lat", "lon"), START + np.arange(FRAMES) * np.timedelta64(6, "h")
    height = {"positive": "up", "units": "m"}
    data = xr.Dataset(
        {
            "t2m": (dims, t2m.astype("f4"), {"units": "K", "coordinates": "h2"}),
            "u10": (dims, u10.astype("f4"), {"units": "m s-1", "coordinates": "h10"}),
            "v10": (dims, v10.astype("f4"), {"units": "m s-1", "coordinates": "h10"}),
        },
        {"time": times, **SIDES},
    )
    for name, metres in (("h2", 2.0), ("h10", 10.0)):
        data[name] = ((), metres, {"standard_name": "height", **height})
    return data


def train(data: Path, out: Path, *arguments: str) -> Result:
    return pdr("train", "--preset", "demo", "--data", data, "-o", out, "--steps", "3", *SMALL,
               *arguments)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`all.nc`, `winds.nc` without the temperature, and two runs: `blind` forecasts t2m from both winds that it does not
    forecast; `both` forecasts u10 and t2m, runs on anomalies, and observes u10 alone.
    """
    root = tmp_path_factory.mktemp("targets")
    dataset().to_netcdf(root / "all.nc")
    dataset().drop_vars(["t2m", "h2"]).to_netcdf(root / "winds.nc")
    dataset().drop_vars(["t2m", "h2", "v10"]).to_netcdf(root / "u10.nc")
    for name, arguments in {
        "blind": ["--target", "t2m", "--input", "u10,v10"],
        "both": ["--var", "u10", "--target", "t2m", "--set", "model.inputs=anomalies"],
    }.items():
        trained = train(root / "all.nc", root / name, *arguments)
        assert trained.code == 0, trained.err
    return root


def changed(name: str) -> xr.Dataset:
    """The data with other past temperatures: other values, none, another unit, or no such variable."""
    data = dataset()
    return {
        "other": lambda: data.assign(t2m=data.t2m * 0 + 400),
        "missing": lambda: data.assign(t2m=data.t2m.where(False)),
        "unit": lambda: data.assign(t2m=data.t2m.assign_attrs(units="m")),
        "absent": lambda: data.drop_vars("t2m"),
    }[name]()


@pytest.mark.parametrize("run", ["blind", "both"])
@pytest.mark.parametrize("change", ["other", "missing", "unit", "absent"])
def test_a_forecast_does_not_depend_on_the_past_of_a_target(folder: Path, run: str, change: str) -> None:
    first, second = (pdr_cli.predict(data, folder / run) for data in (dataset(), changed(change)))
    assert (
        first.t2m.notnull().sum() == first.t2m.size - first.sizes["time"]
    )  # but the cell that training never observed
    for name in first.data_vars:
        np.testing.assert_array_equal(second[name].values, first[name].values)
    assert second.pdr_input_sha256 == first.pdr_input_sha256


def test_a_forecast_depends_on_what_is_observed(folder: Path) -> None:
    data = dataset()
    windy = data.assign(u10=data.u10 + 1)
    for run in ("blind", "both"):
        assert not pdr_cli.predict(windy, folder / run).t2m.equals(pdr_cli.predict(data, folder / run).t2m)


def test_an_evaluation_does_not_depend_on_the_past_of_a_target(folder: Path, tmp_path: Path) -> None:
    """Every second frame lacks the target: scored are the same windows, of which the past is not read."""
    data = dataset()
    data["t2m"] = data.t2m.where(xr.DataArray(np.arange(FRAMES) % 2 == 0, dims="time"))
    data.to_netcdf(tmp_path / "half.nc")
    for run in ("blind", "both"):
        whole, half = (
            json.loads(pdr("evaluate", file, "-m", folder / run, "--split", "all", "--json").out)
            for file in (folder / "all.nc", tmp_path / "half.nc")
        )
        assert half["n_windows"] == whole["n_windows"]
        assert list(whole["scores"]) == [run, "climatology"]
    refused = pdr("evaluate", folder / "winds.nc", "-m", folder / "blind")
    assert refused.code == 65
    assert "t2m" in refused.last  # the truth needs it


def test_persistence_of_a_target_is_scored_only_if_it_is_named(folder: Path) -> None:
    request = ["evaluate", folder / "all.nc", "-m", folder / "blind"]
    shown = pdr(*request)
    assert "persistence" not in shown.out
    assert "persistence reads the past of t2m, which blind does not observe" in shown.err
    assert "persistence" in pdr(*request, "--against", "persistence").out


def test_training_does_not_read_the_past_of_a_target(folder: Path, tmp_path: Path) -> None:
    """The gaps lie in observed frames of the first windows alone, of which no window is left out."""
    data = dataset()
    data["t2m"][:3] = np.nan
    data.to_netcdf(tmp_path / "late.nc")
    request = ["--target", "t2m", "--input", "u10,v10", "--dry-run"]
    whole, late = (train(file, tmp_path / "run", *request) for file in (folder / "all.nc", tmp_path / "late.nc"))
    windows = [next(line for line in one.out.splitlines() if "# windows" in line) for one in (whole, late)]
    assert windows[0] == windows[1]
    trained = train(
        tmp_path / "late.nc", tmp_path / "run", "--var", "u10", "--target", "t2m", "--set", "inputs=anomalies"
    )
    assert trained.code == 0, trained.err


def test_a_file_without_the_target_gives_a_forecast_of_it(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "f.nc"
    request = ["predict", folder / "winds.nc", "-m", folder / "blind", "-o", output, "--preview", tmp_path / "f.png"]
    made = pdr(*request)
    assert made.code == 0, made.err
    written = xr.load_dataset(output)
    assert not {"u10", "v10"} & set(written.data_vars)
    assert written.t2m.units == "K"
    assert not {"h2", "h10"} & set(written.variables)  # the height of the winds is not that of the temperature
    assert pdr("verify", output).code == 0
    assert "up to date" in pdr(*request, "--skip-existing").out
    again = pdr(*["predict", folder / "all.nc", *request[2:]], "--skip-existing")
    assert "up to date" in again.out


@pytest.mark.parametrize(("run", "file"), [("blind", "winds.nc"), ("both", "u10.nc")])
def test_a_hindcast_needs_no_target(folder: Path, tmp_path: Path, run: str, file: str) -> None:
    request = ["predict", folder / file, "-m", folder / run, "-o", tmp_path / "h.nc", "--every-init"]
    made = pdr(*request)
    assert made.code == 0, made.err
    last = pdr_cli.predict(dataset(), folder / run).t2m
    np.testing.assert_allclose(xr.load_dataset(tmp_path / "h.nc").t2m[-1], last, rtol=1e-6)
    assert "up to date" in pdr(*request, "--skip-existing").out


def test_a_forecast_of_a_target_is_not_fed_back(folder: Path, tmp_path: Path) -> None:
    for more in ([], ["--every-init"]):
        refused = pdr(
            "predict", folder / "winds.nc", "-m", folder / "blind", "-o", tmp_path / "f.nc", "--steps", "9", *more
        )
        assert refused.code == 2
        assert "take --steps 4 or fewer" in refused.last
    assert pdr("evaluate", folder / "all.nc", "-m", folder / "blind", "--steps", "9").code == 2
    assert (
        pdr("predict", folder / "winds.nc", "-m", folder / "blind", "-o", tmp_path / "f.nc", "--steps", "2").code == 0
    )


def test_inspect_names_the_targets(folder: Path) -> None:
    report = json.loads(pdr("inspect", folder / "both", "--json").out)
    assert report["targets"] == "t2m"
    assert pdr("inspect", folder / "winds.nc", "--for", folder / "blind").code == 0


def graph_of(path: Path) -> Callable[..., np.ndarray]:
    """An exported graph as a function of its inputs."""
    if path.suffix == ".pt2":
        program = torch.export.load(path).module()
        return lambda observed, **others: program(observed, **others)[0].detach().numpy()
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda **inputs: session.run(None, {name: value.numpy() for name, value in inputs.items()})[0]


@pytest.mark.parametrize("suffix", [".pt2", pytest.param(".onnx", marks=pytest.mark.slow)])
def test_an_exported_graph_ignores_the_past_of_a_target(folder: Path, tmp_path: Path, suffix: str) -> None:
    if suffix == ".onnx":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    made = pdr("export", "-o", tmp_path / f"m{suffix}", "-m", folder / "both")
    assert made.code == 0, made.err
    graph = graph_of(tmp_path / f"m{suffix}")
    card = modelfile.read(folder / "both" / "model.safetensors").card
    T, steps = card.config.data.in_steps, card.config.data.out_steps
    observed = torch.randn(1, T, 2, *card.size)
    times = 1_577_836_800 + 21_600 * torch.arange(T + steps)[None]
    unseen = torch.where(torch.tensor([False, True])[:, None, None], torch.nan, observed)
    np.testing.assert_array_equal(graph(observed=unseen, times=times), graph(observed=observed, times=times))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--target", "t2m"], "--input or --known"),
        (["--var", "u10", "--target", "t2", "--input", "v10"], "Did you mean 't2m'?"),
        (["--target", "t2m", "--input", "u10,t2m"], "t2m has two roles"),
        (["--target", "t2m", "--input", "u10", "--set", "anchor=persistence"], "--anchor climatology"),
        (["--target", "t2m", "--input", "u10", "--set", "data.lagged=1d"], "data.lagged=[]"),
        (["--target", "t2m", "--input", "u10", "--set", "train.rollout=2"], "train.rollout=1"),
        (["--target", "t2m", "--input", "u10", "--backbone", "convlstm"], "reads no covariates"),
    ],
)
def test_what_cannot_be_is_refused_with_a_way_out(folder: Path, arguments: list[str], words: str) -> None:
    refused = train(folder / "all.nc", folder / "refused", *arguments, "--dry-run")
    assert refused.code in (65, 78), refused.err
    assert words in refused.last


def test_the_anchor_of_targets_is_the_climatology(folder: Path) -> None:
    shown = train(
        folder / "all.nc", folder / "dry", "--target", "t2m", "--input", "u10", "--set", "anchor=auto", "--dry-run"
    )
    assert 'anchor = "climatology"' in shown.out
    assert not modelfile.read(folder / "blind" / "model.safetensors").baselines


def test_a_model_that_knows_the_future_alone_starts_before_its_last_frames(folder: Path, tmp_path: Path) -> None:
    assert train(folder / "all.nc", tmp_path / "run", "--target", "t2m", "--known", "u10").code == 0
    made = pdr("predict", folder / "winds.nc", "-m", tmp_path / "run", "-o", tmp_path / "f.nc")
    assert made.code == 0, made.err
    assert "valid 2020-02-09 00:00 to 2020-02-09 18:00" in made.out  # the last 4 frames of the file


def test_the_last_observation_is_that_of_the_inputs(folder: Path, tmp_path: Path) -> None:
    """The known wind goes on for 6 frames after the observed one."""
    assert train(folder / "all.nc", tmp_path / "run", "--target", "t2m", "--known", "u10", "--input", "v10").code == 0
    data = dataset()
    data["v10"][-6:] = np.nan
    intake = Intake(read_header(tmp_path / "run" / "model.safetensors"))
    assert intake.default_init(intake.from_dataset(data)) == FRAMES - 7
