import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pdr_cli import config
from pdr_cli.runs import modelfile
from tests.builders import field, traffic_file, weather_file
from tests.cli import Result, pdr
from tests.conftest import tiny_settings


def lines_of(run: Path) -> list[dict]:  # type: ignore[type-arg]
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_a_run_folder_holds_what_the_contract_says(weather_run: Path) -> None:
    assert {p.name for p in weather_run.iterdir()} == {
        "config.toml",
        "model.safetensors",
        "state",
        "metrics.jsonl",
        "curves.png",
        "README.md",
    }
    assert config.load(str(weather_run / "config.toml")).train.steps == 3
    events = [line["event"] for line in lines_of(weather_run)]
    assert events == ["step", "step", "step", "validation", "finished"]
    card = modelfile.read(weather_run / "model.safetensors").card
    assert (list(card.variables), card.size, str(card.step)) == (["t2m"], (13, 15), "6 h")
    assert card.training["best_step"] == 3


def test_the_run_is_printed_for_scripts(weather: Path, tmp_path: Path) -> None:
    result = pdr("train", "--preset", "demo", "--data", weather, "--steps", "1", "-q", *tiny_settings())
    assert result.code == 0
    assert (tmp_path / result.out.strip() / "model.safetensors").is_file()
    assert result.out.startswith("runs/demo-")


def test_a_preset_fits_any_data_of_its_kind(tmp_path: Path) -> None:
    narrow = traffic_file(tmp_path / "bikes.h5", 14)
    result = pdr(
        "train",
        "--preset",
        "taxibj",
        "--data",
        narrow,
        "--dry-run",
        "--set",
        "gaussians=16",
        "--set",
        "kernel_size=auto",
    )
    assert result.code == 0, result.err
    assert "inflow, outflow 336 x 8 x 8, every 1 h" in result.out
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--preset", "taxi"], 78, "Did you mean 'taxibj'"),
        (["--preset", "demo", "--set", "train.lrr=1"], 78, "Did you mean 'train.lr'"),
        (["--preset", "demo", "--backbone", "tua"], 78, "Did you mean 'tau'"),
        (["--preset", "demo", "--fusion", "conact"], 78, "Did you mean 'concat'"),
        (["--preset", "demo", "--device", "cuda:9"], 69, "use --device cpu"),
        (["--preset", "demo", "--data", "nowhere.nc"], 66, "nowhere.nc"),
        ([], 2, "--preset"),
        (["--preset", "weatherbench"], 66, "mediatum.ub.tum.de"),
        (["--preset", "demo", "--resume"], 2, "name its folder"),
        (["--preset", "demo", "--resume", "-o", "nowhere"], 66, "nothing to resume"),
    ],
)
def test_mistakes_are_one_line_with_their_code(weather: Path, arguments: list[str], code: int, says: str) -> None:
    given = arguments if {"--data", "weatherbench"} & set(arguments) else [*arguments, "--data", str(weather)]
    result = pdr("train", *given)
    assert (result.code, result.out) == (code, "")
    assert says in result.last
    assert result.last.endswith(f"exit {code}]")
    assert not Path("runs").exists(), "a mistake leaves no empty run"


def test_operations_of_attention_are_counted(tmp_path: Path) -> None:
    weather = weather_file(tmp_path / "a.nc", size=(32, 32))
    wide = tiny_settings("hid_s=8", "hid_t=32", "n_t=8", "fusion=none")
    result = pdr("train", "--preset", "demo", "--data", weather, "--backbone", "vit", "--dry-run", *wide)
    counted = float(result.out.split("# FLOPs")[1].split()[0])
    # Stages of width d = 32 on N = 256 places: 2·N·d·(4 + 2·2)·d for the linears and 4·N²·d for attention, 8 times.
    linears, attention = 8 * 2 * 256 * 32 * 8 * 32, 8 * 4 * 256**2 * 32
    # Encoder and decoder, 4 frames of 8 channels: 3×3 kernels, of which the upsampling one has four times the outputs.
    shell = 4 * 2 * 9 * 8 * (1024 + 256 * 8 + 256 * 4 * 8 + 1024 * 8) + 4 * 2 * 1024 * 8
    assert counted == pytest.approx((linears + attention + shell) / 1e9, abs=0.005)  # printed with two decimals


def test_another_kind_of_data_names_the_preset_to_take(weather: Path) -> None:
    result = pdr("train", "--preset", "traffic-small", "--data", weather)
    assert (result.code, "take weather-small" in result.last) == (65, True)


def test_a_wrong_variable_names_the_nearest(weather: Path) -> None:
    result = pdr("train", "--preset", "demo", "--data", weather, "--var", "t2")
    assert (result.code, "Did you mean 't2m'" in result.last) == (65, True)


def test_too_few_steps_are_refused(tmp_path: Path) -> None:
    result = pdr("train", "--preset", "demo", "--data", weather_file(tmp_path / "short.nc", 20))
    assert (result.code, "20 steps are too few" in result.last) == (65, True)


def train_with(tmp_path: Path, step: int, value: float) -> Result:
    """Train for a step on 160 frames, of which one has `value` in one cell; so few validate that all their windows share some."""
    values = field(160)
    values[step, 2, 3] = value
    holed = weather_file(tmp_path / "holed.nc", values=values)
    return pdr("train", "--preset", "demo", "--data", holed, "--steps", "1", "-o", "run", *tiny_settings())


def test_a_missing_value_in_training_costs_the_windows_that_observe_it(tmp_path: Path) -> None:
    result = train_with(tmp_path, 30, np.nan)
    assert (result.code, "1 of 160 frames lack more" in result.err) == (0, True), result.err


def test_a_missing_value_that_leaves_no_window_to_validate_is_refused(tmp_path: Path) -> None:
    result = train_with(tmp_path, 130, np.nan)
    assert (result.code, "E_MISSING_VALUES" in result.last) == (65, True), result.last
    assert "every window for validation has missing values" in result.last


@pytest.mark.parametrize("step", [30, 130])
def test_a_value_that_cannot_be_is_refused_in_training_and_in_validation(tmp_path: Path, step: int) -> None:
    result = train_with(tmp_path, step, np.inf)
    assert (result.code, "E_MISSING_VALUES" in result.last, " 1 of " in result.last) == (65, True, True), result.last


def test_an_existing_run_is_not_overwritten(weather_run: Path, weather: Path) -> None:
    before = (weather_run / "model.safetensors").read_bytes()
    result = pdr("train", "--preset", "demo", "--data", weather, "-o", weather_run)
    assert (result.code, "--resume" in result.last) == (73, True)
    assert (weather_run / "model.safetensors").read_bytes() == before


def test_a_loss_that_is_no_number_stops_the_run_at_once(weather: Path, tmp_path: Path) -> None:
    arguments = ["--preset", "demo", "--data", str(weather), "-o", str(tmp_path / "run"), "--steps", "50", "-q"]
    result = pdr("train", *arguments, *tiny_settings("train.lr=1e30", "train.schedule=constant"))
    assert (result.code, "E_NON_FINITE_LOSS" in result.last) == (65, True)


# The larger grid trains in another memory layout.
@pytest.mark.parametrize(
    ("signal_number", "size"),
    [(signal.SIGTERM, (32, 33)), pytest.param(signal.SIGINT, (13, 15), marks=pytest.mark.slow)],
)
def test_an_interrupted_run_resumes_to_the_same_weights(
    tmp_path: Path, signal_number: signal.Signals, size: tuple[int, int]
) -> None:
    weather = weather_file(tmp_path / "a.nc", size=size)

    def arguments(folder: str) -> list[str]:
        length = ["--steps", "60", "--set", "model.drop_path=0.2"]
        return ["train", "--preset", "demo", "--data", str(weather), "-o", folder, "-q", *length, *tiny_settings()]

    assert pdr(*arguments("whole")).code == 0
    started = subprocess.Popen(
        [sys.executable, "-m", "pdr_cli", *arguments("cut")], stderr=subprocess.PIPE, text=True, env=os.environ
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "cut" / "metrics.jsonl").is_file() and time.monotonic() < deadline:
        time.sleep(0.02)
    started.send_signal(signal_number)
    _, err = started.communicate(timeout=60)
    assert started.returncode == 128 + signal_number, err
    assert "--resume" in err
    assert 0 < lines_of(tmp_path / "cut")[-1]["step"] < 60, "the signal came too late for this test to mean anything"
    assert pdr("train", "--resume", "-o", "cut", "-q").code == 0, "the run knows how it was started"
    whole = modelfile.read(Path("whole/model.safetensors")).weights
    cut = modelfile.read(Path("cut/model.safetensors")).weights
    assert all(whole[k].equal(cut[k]) for k in whole)
    steps = [line["step"] for line in lines_of(tmp_path / "cut") if line["event"] == "step"]
    assert steps == list(range(1, 61)), "each step is logged once"


def test_a_saved_configuration_trains_the_same_again(weather_run: Path, tmp_path: Path) -> None:
    assert pdr("train", "--preset", weather_run / "config.toml", "-o", "again", "-q").code == 0
    first, again = (modelfile.read(p / "model.safetensors") for p in (weather_run, tmp_path / "again"))
    assert all(first.weights[k].equal(again.weights[k]) for k in first.weights)
    assert again.card.config.preset == "demo"


def test_the_coarse_forecast_may_have_a_loss_of_its_own(make_run: Callable[..., Path], weather: Path) -> None:
    runs = [make_run(weather, "--steps", "8", "--set", f"train.coarse_weight={weight}") for weight in (0, 1)]
    without, beside = (lines_of(run) for run in runs)
    assert without[0]["loss"] == beside[0]["loss"], (
        "what is logged as the loss is that of the forecast, with or without"
    )
    assert without[7]["loss"] != beside[7]["loss"]
    # At the first step the fused forecast is the coarse one and a little more, so their losses are nearly equal.
    assert beside[0]["coarse_loss"] == pytest.approx(beside[0]["loss"], rel=0.05)


def test_a_finished_budget_can_be_continued(weather: Path, tmp_path: Path) -> None:
    base = ["train", "--preset", "demo", "--data", str(weather), "-o", str(tmp_path / "run"), "-q", *tiny_settings()]
    assert pdr(*base, "--budget", "2s").code == 0
    first = lines_of(tmp_path / "run")[-1]
    assert pdr(*base, "--budget", "4s", "--resume").code == 0
    second = lines_of(tmp_path / "run")[-1]
    assert second["step"] > first["step"] > 0
    assert 3 < second["seconds"] < 15
