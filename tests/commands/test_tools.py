import json
from pathlib import Path

import pytest
import torch

from pdr_cli import config, splat
from tests.builders import weather_file
from tests.cli import pdr


def test_version_is_one_line() -> None:
    import pdr_cli

    result = pdr("--version")
    assert (result.code, result.out) == (0, f"pdr {pdr_cli.__version__}\n")


def test_presets_lists_all_and_prints_one_to_copy(tmp_path: Path) -> None:
    listed = pdr("presets").out
    assert all(name in listed for name in config.preset_names())
    printed = pdr("presets", "taxibj").out
    (tmp_path / "mine.toml").write_text(printed)
    assert config.load("mine.toml").model == config.load("taxibj").model
    assert pdr("presets", "taxibi").code == 78


@pytest.mark.parametrize("asked", ["", "reference"])
def test_doctor_names_the_renderer_and_why(asked: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREDGSPLAT_BACKEND", asked)
    report = json.loads(pdr("doctor", "--json").out)
    name, reason = splat.active_backend("cuda" if torch.cuda.is_available() else "cpu")
    assert (report["renderer"]["active"], report["renderer"]["because"]) == (name, reason)
    assert name == "reference" or not asked
    assert report["renderer"]["library"] == "none" if asked else Path(report["renderer"]["library"]).is_file()
    assert "torch" in report["packages"]
    assert pdr("doctor").code == 0


def test_inspect_tells_what_a_file_holds(weather: Path, traffic: Path, clip: Path) -> None:
    report = json.loads(pdr("inspect", weather, "--json").out)
    (series,) = report["series"]
    assert report["variables"]["t2m"]["gridded"] == "yes"
    assert (series["grid"], series["step"], series["gaps"]) == ("13 x 15", "6 h", 0)
    assert json.loads(pdr("inspect", traffic, "--json").out)["series"][0]["gaps"] == 1
    assert json.loads(pdr("inspect", clip, "--json").out)["series"][0]["step"] == "0.04 s"
    assert "13 x 15" in pdr("inspect", weather).out


def test_inspect_says_whether_a_preset_or_a_model_can_use_a_file(
    weather: Path, weather_run: Path, tmp_path: Path
) -> None:
    assert "windows to train" in pdr("inspect", weather, "--for", "weather-small").out
    assert "forecasts 4 steps of 6 h" in pdr("inspect", weather, "--for", weather_run).out
    small = weather_file(tmp_path / "small.nc", 20)
    refused = pdr("inspect", small, "--for", weather_run)
    assert (refused.code, "12 x 14" in refused.last) == (65, True)
    refused = pdr("inspect", small, "--for", "weather-small")
    assert (refused.code, "too few" in refused.last) == (65, True)


def test_inspect_reads_models(weather_run: Path) -> None:
    report = json.loads(pdr("inspect", weather_run, "--json").out)
    assert report["frames"] == "4 → 4, every 6 h"
    assert report["variables"] == {"t2m": "K"}
    assert report["trained on"] == "air.nc"


@pytest.mark.parametrize("flag", ["--log-json", "-q"])
def test_logs_obey_their_flags(weather: Path, flag: str) -> None:
    result = pdr("train", "--preset", "demo", "--data", weather, "--dry-run", flag)
    assert result.code == 0
    lines = result.err.splitlines()
    if flag == "-q":
        assert lines == []
    else:
        assert [json.loads(line)["level"] for line in lines] == ["info"] * len(lines) != []


def test_a_failure_in_json_logs_carries_code_and_name() -> None:
    result = pdr("predict", "nowhere.nc", "-o", "f.nc", "--log-json")
    last = json.loads(result.last)
    assert (last["code"], last["name"], last["level"]) == (66, "E_NOT_FOUND", "error")


def test_bench_render_is_reached_from_the_command_line(tmp_path: Path) -> None:
    result = pdr(
        "bench-render",
        "--res",
        "16",
        "32x20",
        "--gaussians",
        "5",
        "--kernel-size",
        "7",
        "--repeats",
        "5",
        "--channels",
        "1",
        "3",
        "--batch",
        "2",
        "-o",
        "bench.json",
    )
    assert result.code == 0, result.err
    rows = json.loads((tmp_path / "bench.json").read_text())["rows"]
    assert {(row["height"], row["width"]) for row in rows} == {(16, 16), (20, 32)}
    assert {(row["channels"], row["batch"]) for row in rows} == {(1, 2), (3, 2)}
    assert {row["variant"] for row in rows} >= {"base", "base_grid", "reference"}
    assert pdr("bench-render", "--paper", "--res", "16").code == 2
    assert pdr("bench-render", "--variants", "bsae").code == 2
    assert pdr("bench-render", "--device", "cuda").code == 69
