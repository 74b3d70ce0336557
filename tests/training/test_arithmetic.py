"""`train.precision` auto: bf16 where the device computes in it, decided once and saved."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pdr_cli import config
from pdr_cli.runs import modelfile
from pdr_cli.system import devices
from tests.cli import pdr
from tests.conftest import tiny_settings

HERE = torch.device("cpu")
# What Linux says of processors: two of x86, one of Arm, and one of Arm without.
TOLD = {
    "flags\t\t: fpu fma avx2 avx512f avx512_bf16 amx_tile": "bf16",
    "flags\t\t: fpu fma avx2 avx512f": "fp32",
    "Features\t: fp asimd i8mm bf16": "bf16",
    "Features\t: fp asimd": "fp32",
    "": "fp32",
}


@pytest.fixture(params=list(TOLD))
def told(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A processor; the precision that fits it."""
    file = tmp_path / "cpuinfo"
    file.write_text(f"processor\t: 0\nmodel name\t: A  Processor\n{request.param}\n\nprocessor\t: 1\n")
    monkeypatch.setattr(devices, "CPUINFO", file)
    return TOLD[str(request.param)]


def test_bf16_is_what_the_first_processor_has(told: str) -> None:
    assert devices.computes_bf16(HERE) == (told == "bf16")
    assert devices.cpu_name() == "A Processor"


def test_another_system_is_not_known_to_compute_in_bf16(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(devices, "CPUINFO", tmp_path / "none")
    assert not devices.computes_bf16(HERE)


def test_a_run_saves_what_it_computed_in_and_resumes_in_it(
    told: str, weather: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = pdr(
        "train",
        "--preset",
        "demo",
        "--data",
        weather,
        "--steps",
        "2",
        "-o",
        "run",
        "--precision",
        "auto",
        *tiny_settings(),
    )
    assert done.code == 0, done.err
    has = "has" if told == "bf16" else "has no"
    assert f"compute {told} (train.precision auto: this device {has} instructions for bf16)" in done.err
    assert config.load("run/config.toml").train.precision == told
    assert modelfile.read_header(Path("run/model.safetensors")).card.config.train.precision == told
    (tmp_path / "cpuinfo").write_text("flags : avx512_bf16\n" if told == "fp32" else "flags : fma\n")
    assert pdr("train", "--resume", "-o", "run", "--steps", "3").code == 0
    assert config.load("run/config.toml").train.precision == told


@pytest.mark.parametrize("told", [next(iter(TOLD)), ""], indirect=True)
def test_emulated_bf16_is_warned_of(told: str, weather: Path, weather_run: Path) -> None:
    done = pdr("predict", weather, "-m", weather_run, "-o", "f.nc", "--precision", "bf16")
    assert done.code == 0
    assert ("no instructions for bf16" in done.err) == (told == "fp32")


def test_no_preset_asks_every_processor_for_bf16() -> None:
    assert {config.load(name).train.precision for name in config.preset_names()} == {"fp32", "auto"}
