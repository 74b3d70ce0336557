"""The Python API gives what the commands write: the same numbers, in datasets as xarray opens them from the files."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import pdr_cli
from pdr_cli.errors import InputNotFoundError, UsageError
from pdr_cli.inference.policy import InputPolicy
from pdr_cli.runs import modelfile
from pdr_cli.verification.evaluation import Options
from tests.builders import weather_file
from tests.cli import pdr
from tests.conftest import BASELINES, TINY

OF_THE_CALL = {"date_created", "history"}  # attributes that name the time and the command


def opened(path: Path | str) -> xr.Dataset:
    with xr.open_dataset(path) as data:
        return data.load()


def assert_same(made: xr.Dataset, file: xr.Dataset) -> None:
    """Values, dims, coordinates and attributes; the command in the history is another."""
    for data in (made, file):
        assert {"history", "date_created"} <= data.attrs.keys()
        data.attrs = {k: v for k, v in data.attrs.items() if k not in OF_THE_CALL | {"pdr_request_id"}}
    xr.testing.assert_identical(made, file)
    assert {n: v.dtype for n, v in made.variables.items()} == {n: v.dtype for n, v in file.variables.items()}


def test_import_is_light() -> None:
    script = (
        "import sys, pdr_cli\n"
        "assert pdr_cli.__version__ and 'predict' in dir(pdr_cli)\n"
        "heavy = {'torch', 'numpy', 'xarray', 'pydantic'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_name_of_the_face_can_be_used() -> None:
    assert all(getattr(pdr_cli, name) is not None for name in pdr_cli.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'predcit'"):
        pdr_cli.predcit  # noqa: B018


def test_a_forecast_is_the_dataset_of_the_file(weather: Path, weather_run: Path, capsys: pytest.CaptureFixture) -> None:
    assert (
        pdr("predict", weather, "-o", "f.nc", "-m", weather_run, "--init", "2020-01-10T12:00", "--steps", "6").code == 0
    )
    capsys.readouterr()
    made = pdr_cli.predict(weather, weather_run, init="2020-01-10T12:00", steps=6)
    assert capsys.readouterr().out == ""
    assert made.t2m.dims == ("time", "lat", "lon")
    assert_same(made, opened("f.nc"))


def test_a_dataset_gives_what_its_file_gives(weather: Path, weather_run: Path) -> None:
    model = pdr_cli.load(weather_run)
    with xr.open_dataset(weather) as data:
        from_memory = model.predict(data.load(), init=data.time.values[40])
        from_file = model.predict(weather, init=data.time.values[40])
    assert from_memory.attrs.pop("comment") == "from dataset"
    assert from_file.attrs.pop("comment") == "from air.nc"
    assert_same(from_memory, from_file)


def test_a_renamed_variable_keeps_the_models_name(weather: Path, weather_run: Path) -> None:
    with xr.open_dataset(weather) as data:
        made = pdr_cli.predict(data.rename(t2m="temp"), weather_run, rename={"t2m": "temp"})
        assert np.array_equal(made.t2m.values, pdr_cli.predict(data, weather_run).t2m.values)


def test_a_hindcast_is_the_dataset_of_the_file(weather: Path, weather_run: Path) -> None:
    with xr.open_dataset(weather) as data:
        data.isel(time=slice(0, 30)).to_netcdf("start.nc")
    assert pdr("predict", "start.nc", "-o", "h.nc", "-m", weather_run, "--every-init").code == 0
    made = pdr_cli.predict("start.nc", weather_run, every_init=True)
    assert made.t2m.dims == ("forecast_reference_time", "forecast_period", "lat", "lon")
    file = opened("h.nc")
    del file.attrs["pdr_data_sha256"]  # noted when the file is finished
    assert_same(made, file)
    with pytest.raises(UsageError, match="leave out one"):
        pdr_cli.predict("start.nc", weather_run, every_init=True, init="2020-01-02")


@pytest.mark.parametrize("kind", ["traffic", "clip"])
def test_traffic_and_clips_are_datasets_of_their_variables(kind: str, request: pytest.FixtureRequest) -> None:
    data, run = request.getfixturevalue(kind), request.getfixturevalue({"clip": "video_run"}.get(kind, f"{kind}_run"))
    assert pdr("predict", data, "-o", "f.nc", "-m", run).code == 0
    made = pdr_cli.predict(data, run)
    assert {made[n].dims for n in made.data_vars} == {("time", "y", "x")}
    assert_same(made, opened("f.nc"))


def test_scores_are_those_of_the_command(weather: Path, weather_run: Path) -> None:
    assert (
        pdr("evaluate", weather, "-m", weather_run, "--metrics", "rmse,acc", "--steps", "3", "-o", "scores.json").code
        == 0
    )
    expected = json.loads(Path("scores.json").read_text())
    options, model = Options(metrics=("rmse", "acc")), pdr_cli.load(weather_run)
    with xr.open_dataset(weather) as data:
        documents = [pdr_cli.evaluate(given, model, steps=3, options=options) for given in (weather, data)]
    documents.append(pdr_cli.evaluate([weather], [weather_run], steps=3, options=options))
    for document in documents:
        found = json.loads(json.dumps(document.to_json()))
        assert {k: v for k, v in found.items() if k != "card"} == {k: v for k, v in expected.items() if k != "card"}
    assert document.scores["run"]["rmse"].overall == expected["scores"]["run"]["rmse"]["overall"]


def test_intervals_are_those_of_the_command(longer_weather: Path, calibrated_run: Path) -> None:
    made = pdr_cli.predict(longer_weather, calibrated_run, interval=(0.8, 0.95))
    assert pdr("predict", longer_weather, "-o", "f.nc", "-m", calibrated_run, "--interval", "0.8,0.95").code == 0
    for name in ("t2m", "t2m_lower_80", "t2m_upper_95"):
        assert np.array_equal(made[name].values, opened("f.nc")[name].values)
    for wrong in ({"interval": (0.99,)}, {"interval": (80,)}, {"interval": (0.8,), "members": 3}):
        with pytest.raises(UsageError):
            pdr_cli.predict(longer_weather, calibrated_run, **wrong)
    with pytest.raises(TypeError, match="intervals"):
        pdr_cli.predict(longer_weather, calibrated_run, intervals=(0.8,))


def value_of(text: str) -> object:
    """The value of a setting: JSON, or a bare word."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def test_training_gives_the_weights_of_the_command(weather: Path, weather_run: Path) -> None:
    settings = [*TINY, BASELINES[1]]
    tiny = {key: value_of(value) for key, value in (setting.split("=") for setting in settings)}
    folder = pdr_cli.train(weather, preset="demo", settings={**tiny, "steps": 3}, out="run")
    assert folder.path == Path("run")
    expected, found = (modelfile.read(path / "model.safetensors") for path in (weather_run, folder.path))
    assert found.weights.keys() == expected.weights.keys()
    assert all(found.weights[name].equal(expected.weights[name]) for name in found.weights)
    assert found.card.config.train == expected.card.config.train
    assert found.card.config.model == expected.card.config.model


def test_a_run_is_continued(weather_run: Path) -> None:
    shutil.copytree(weather_run, "run")
    folder = pdr_cli.train(settings={"train.steps": 4}, out="run", resume=True)
    assert json.loads(folder.metrics.read_text().splitlines()[-1])["step"] == 4
    with pytest.raises(UsageError, match="--preset"):
        pdr_cli.train("air.nc")


def test_fine_tuning_gives_the_weights_of_the_command(weather_run: Path, tmp_path: Path) -> None:
    other = weather_file(tmp_path / "other.nc", start="2021-03-01")
    assert pdr("train", "--fine-tune", weather_run, "--data", other, "--steps", "2", "-o", "theirs").code == 0
    with xr.open_dataset(other) as data:
        from_memory = pdr_cli.fine_tune(weather_run, data.load(), settings={"steps": 2}, out="memory")
    from_file = pdr_cli.fine_tune(str(weather_run), other, settings={"steps": 2}, out="file")
    expected, *found = (modelfile.read(Path(name) / "model.safetensors") for name in ("theirs", "memory", "file"))
    for made in found:
        assert all(made.weights[name].equal(expected.weights[name]) for name in expected.weights)
        assert made.card.config.train == expected.card.config.train
    assert found[0].card.config.data.paths == []
    assert found[1].card.config.data.paths == expected.card.config.data.paths == [str(other)]
    start = json.loads((from_memory.path / "state" / "start.json").read_text())
    assert start == json.loads((from_file.path / "state" / "start.json").read_text())


def test_forecast_files_are_scored_beside_models(weather: Path, weather_run: Path) -> None:
    pdr_cli.predict(weather, weather_run, every_init=True).to_netcdf("theirs.nc")
    scores = pdr_cli.evaluate(weather, [weather_run, "theirs.nc"]).scores
    assert scores["theirs"]["rmse"].overall == pytest.approx(scores["run"]["rmse"].overall, rel=1e-4)
    with xr.open_dataset(weather) as data:
        alone = pdr_cli.evaluate(data[["t2m"]], "theirs.nc")
    assert set(alone.scores) == {"theirs", "persistence"}


def test_missing_values_follow_the_policy(weather: Path, weather_run: Path) -> None:
    with xr.open_dataset(weather) as data:
        holed = data.load().copy(deep=True)
    holed.t2m[-1, 2, 3] = np.nan
    holed.to_netcdf("holed.nc")
    assert pdr("predict", "holed.nc", "-o", "f.nc", "-m", weather_run, "--fill-missing", "persist").code == 0
    made = pdr_cli.predict(holed, weather_run, policy=InputPolicy(fill_missing="persist"))
    assert np.array_equal(made.t2m.values, opened("f.nc").t2m.values)


def test_a_saved_dataset_is_verified_like_the_commands_file(weather: Path, weather_run: Path) -> None:
    pdr_cli.predict(weather, weather_run).to_netcdf("f.nc")
    result = pdr("verify", "f.nc")
    assert (result.code, "those that were written (SHA-256)" in result.out) == (0, True), result.out


def test_failures_are_those_of_the_commands(weather_run: Path) -> None:
    with pytest.raises(InputNotFoundError, match="no file nowhere"):
        pdr_cli.predict("nowhere.nc", weather_run)
    with pytest.raises(InputNotFoundError, match="no model nowhere"):
        pdr_cli.load("nowhere")
