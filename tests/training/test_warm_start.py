"""`--init-from` and `--freeze-backbone`, as a user types them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pdr_cli.runs import modelfile
from pdr_cli.runs.modelfile import ModelCard
from pdr_cli.system import hashes
from tests.builders import traffic_file
from tests.cli import Result, pdr
from tests.conftest import tiny_settings
from tests.models.builders import build_predictor
from tests.models.openstl_layouts import Shapes, met2net_shapes, pfgnet_shapes, state_of

MakeRun = Callable[..., Path]
STILL = ("--set", "train.lr=1e-12")  # a step this small moves no weight that can be seen


def load(run: Path) -> tuple[ModelCard, dict[str, Tensor]]:
    read = modelfile.read(run / "model.safetensors")
    return read.card, read.weights


def predictor_of(run: Path) -> dict[str, Tensor]:
    return {k: v for k, v in load(run)[1].items() if k.startswith("predictor.")}


def parameters(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without the statistics of norms, which move however small a step is."""
    return {k: v for k, v in weights.items() if "running_" not in k and "num_batches" not in k}


def try_to_start(data: Path, *arguments: str | Path) -> Result:
    return pdr(
        "train", "--preset", "demo", "--data", data, "-o", "run", "--steps", "1", "-q", *tiny_settings(), *arguments
    )


@pytest.fixture(scope="module")
def openstl_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file as the toolbox writes it, of the tiny network."""
    torch.manual_seed(7)
    model = build_predictor("tau", 4, 1, hid_s=4, hid_t=8, n_s=2, n_t=2, mlp_ratio=2, drop_path=0.0)
    path = tmp_path_factory.mktemp("openstl") / "best.ckpt"
    torch.save({"state_dict": {f"model.{k}": v for k, v in model.state_dict().items()}}, path)
    return path


def test_run_starts_from_another(make_run: MakeRun, weather: Path, weather_run: Path) -> None:
    run = make_run(weather, "--init-from", str(weather_run), *STILL)
    card, weights = load(run)
    for name, tensor in parameters(load(weather_run)[1]).items():
        torch.testing.assert_close(weights[name], tensor, rtol=0, atol=1e-9)
    model = weather_run / "model.safetensors"
    origin = {"name": model.name, "sha256": hashes.sha256(model), "kind": "pdr", "adapter": True}
    assert card.training["init_from"] == origin
    assert "freeze_backbone" not in card.training


def test_gaussians_of_a_trained_adapter_stay_where_they_are(make_run: MakeRun, weather: Path) -> None:
    corners = make_run(weather, "--set", "model.init=corner")
    bright = make_run(weather, "--set", "model.init=color")
    started = make_run(weather, "--set", "model.init=color", "--init-from", str(corners), *STILL)
    places = [load(run)[1]["adapter.anchors"] for run in (corners, bright, started)]
    assert not torch.equal(places[0], places[1])
    assert torch.equal(places[0], places[2])


def test_adapter_of_another_size_starts_anew(make_run: MakeRun, weather: Path, weather_run: Path) -> None:
    run = make_run(weather, "--init-from", str(weather_run / "model.safetensors"), "--set", "gaussians=16", *STILL)
    before, after = parameters(load(weather_run)[1]), load(run)[1]
    differing = {k for k, v in before.items() if v.shape != after[k].shape}
    assert differing
    assert all(k.startswith("adapter.") for k in differing)
    for name in before.keys() - differing:
        torch.testing.assert_close(after[name], before[name], rtol=0, atol=1e-9)


def test_frozen_predictor_stays_to_the_last_bit(make_run: MakeRun, weather: Path, weather_run: Path) -> None:
    run = make_run(weather, "--init-from", str(weather_run), "--freeze-backbone")
    before, after = predictor_of(weather_run), predictor_of(run)
    assert all(torch.equal(before[k], after[k]) for k in before), "statistics of norms included"
    card, weights = load(run)
    assert any(not torch.equal(v, weights[k]) for k, v in load(weather_run)[1].items() if k.startswith("adapter."))
    assert card.training["freeze_backbone"] is True


def test_resumed_run_goes_on_as_it_was_started(make_run: MakeRun, weather: Path, weather_run: Path) -> None:
    run = make_run(weather, "--init-from", str(weather_run), "--freeze-backbone")
    assert pdr("train", "--resume", "-o", run, "--steps", "6", "-q").code == 0
    events = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert events[-1]["step"] == 6
    before, after = predictor_of(weather_run), predictor_of(run)
    assert all(torch.equal(before[k], after[k]) for k in before)
    card, _ = load(run)
    assert (card.training["freeze_backbone"], card.training["init_from"]["kind"]) == (True, "pdr")
    result = pdr("train", "--resume", "-o", run, "--init-from", weather_run)
    assert (result.code, "leave out --init-from" in result.last) == (2, True)


def test_predictor_of_openstl_is_taken_over(make_run: MakeRun, weather: Path, openstl_file: Path) -> None:
    run = make_run(weather, "--init-from", str(openstl_file), "--freeze-backbone", "--set", "anchor=none")
    theirs = torch.load(openstl_file, weights_only=True)["state_dict"]
    mine = predictor_of(run)
    assert len(mine) == len(theirs)
    assert all(torch.equal(mine[k.replace("model.", "predictor.", 1)], v) for k, v in theirs.items())
    assert load(run)[0].training["init_from"]["kind"] == "OpenSTL"


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        ("pfgnet", pfgnet_shapes(channels=1, hid_s=4, n_t=2)),
        ("met2net", met2net_shapes(channels=1, hid_s=4, hid_t=8, n_t=2)),
    ],
)
def test_predictors_that_descend_from_openstl_are_taken_over(
    make_run: MakeRun, weather: Path, tmp_path: Path, name: str, shapes: Shapes
) -> None:
    theirs = state_of(shapes)
    torch.save(theirs, tmp_path / "theirs.pth")
    settings = ["--set", "anchor=none", "--set", "mlp_ratio=4"]
    run = make_run(
        weather, "--backbone", name, "--init-from", str(tmp_path / "theirs.pth"), "--freeze-backbone", *settings
    )
    mine = predictor_of(run)
    assert mine.keys() == {f"predictor.{k}" for k in theirs}
    assert all(torch.equal(mine[f"predictor.{k}"], v) for k, v in theirs.items())


def test_every_setting_that_differs_is_named(weather: Path, weather_run: Path) -> None:
    result = try_to_start(weather, "--init-from", weather_run, "--set", "hid_s=6", "--set", "n_t=3")
    assert result.code == 65
    assert "hid_s 4, not 6, n_t 2, not 3; train with --set model.hid_s=4 --set model.n_t=2" in result.last
    assert not Path("run").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--backbone", "van", "--set", "anchor=none"], 65, "backbone tau, not van"),
        (["--set", "hid_s=6", "--set", "anchor=none"], 65, "hid_s 4, not 6; train with --set model.hid_s=4"),
        # What it says of the change of a frame would be read as a frame.
        ([], 65, "anchor none, not persistence"),
    ],
)
def test_openstl_file_of_another_model_is_refused(
    weather: Path, openstl_file: Path, arguments: list[str], code: int, says: str
) -> None:
    result = try_to_start(weather, "--init-from", openstl_file, *arguments)
    assert (result.code, says in result.last) == (code, True), result.last
    assert not Path("run").exists()


def test_other_channels_are_refused(tmp_path: Path, weather_run: Path, openstl_file: Path) -> None:
    city = traffic_file(tmp_path / "city.h5")
    for origin, anchor in ((weather_run, "last"), (openstl_file, "none")):
        result = try_to_start(city, "--init-from", origin, "--set", f"anchor={anchor}")
        assert (result.code, "of a model of 1 channels; the data have 2" in result.last) == (65, True), result.last


def test_file_of_something_else_is_named(weather: Path, tmp_path: Path) -> None:
    torch.save({"cell_list.0.weight": torch.zeros(3, 2)}, tmp_path / "convlstm.pth")
    result = try_to_start(weather, "--init-from", tmp_path / "convlstm.pth")
    assert (result.code, "not of a model of OpenSTL's SimVP family" in result.last) == (65, True)


@pytest.mark.parametrize("name", ["nowhere.pth", "nowhere"])
def test_file_that_is_not_there_is_said_to_be(weather: Path, name: str) -> None:
    result = try_to_start(weather, "--init-from", name)
    assert (result.code, name in result.last) == (66, True)


def test_frozen_predictor_without_weights_is_warned_of(weather: Path) -> None:
    result = pdr("train", "--preset", "demo", "--data", weather, "--freeze-backbone", "--dry-run", *tiny_settings())
    assert result.code == 0
    assert "never trained" in result.err


def test_what_is_fitted_to_the_data_is_fitted_anew(make_run: MakeRun, weather: Path) -> None:
    ridge = ("--set", "anchor=ridge", "--set", "inputs=anomalies", "--fusion", "none", *STILL)
    first = make_run(weather, *ridge)
    second = make_run(weather, *ridge, "--init-from", str(first))
    before, after = load(first)[1], load(second)[1]
    fitted = [name for name in before if name.startswith(("anchor.", "anomalies."))]
    assert len(fitted) > 3
    for name in fitted:
        torch.testing.assert_close(after[name], before[name], rtol=0, atol=0)
