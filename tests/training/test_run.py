"""A run from Python: what is checked before it, and what data it takes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import xarray as xr

from pdr_cli.errors import OutputError, UsageError
from pdr_cli.runs import modelfile
from pdr_cli.training import run as training
from pdr_cli.training.request import Experiment
from pdr_cli.training.run import TrainingRequest
from tests.builders import weather_file
from tests.cli import Result, pdr
from tests.conftest import TINY, tiny_settings


def experiment(*data: Path, **options: object) -> Experiment:
    named = {f"train.{key}": value for key, value in options.items()}
    return Experiment("demo", data, options={"train.steps": 2} | named, settings=TINY)


def test_a_dataset_in_memory_trains_the_same_network_as_its_file(weather: Path) -> None:
    training.train(TrainingRequest(experiment(weather).resolve(), Path("file")))
    with xr.open_dataset(weather) as dataset:
        training.train(TrainingRequest(experiment().resolve(), Path("memory"), dataset=dataset))
    file, memory = (modelfile.read(Path(run, "model.safetensors")) for run in ("file", "memory"))
    assert all(file.weights[name].equal(memory.weights[name]) for name in file.weights)
    assert [one["name"] for one in memory.card.data] == ["dataset"]
    assert memory.card.data[0]["sha256"] != file.card.data[0]["sha256"], "of the numbers, not of the file"


def test_a_plan_writes_nothing_and_trains_nothing(weather: Path) -> None:
    planned = training.plan(TrainingRequest(experiment(weather).resolve(), Path("run")))
    again = training.build(planned.config, planned.prepared)
    assert all(torch.equal(a, b) for a, b in zip(planned.network.parameters(), again.parameters(), strict=True))
    assert list(Path().iterdir()) == []


def test_a_folder_with_other_files_is_refused_before_the_data_are_read(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").touch()
    with pytest.raises(OutputError, match="is not empty; continue it with --resume"):
        training.plan(TrainingRequest(experiment(tmp_path / "nowhere.nc").resolve(), tmp_path / "run"))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"steps": 5}, (1000000, 5, "", "")),
        ({"steps": None, "epochs": 2}, (2, 0, "", "")),
        ({"steps": None, "budget": "1m"}, (7, 0, "1m", "")),
        ({"steps": None, "cpu_budget": "1m"}, (7, 0, "", "1m")),
        ({"steps": 5, "cpu_budget": "1m"}, (1000000, 5, "", "1m")),
        ({"steps": None}, (7, 9, "9s", "8s")),
    ],
)
def test_a_length_replaces_all_limits_of_the_preset(
    tmp_path: Path, options: dict[str, object], expected: tuple[int, int, str, str]
) -> None:
    preset = tmp_path / "mine.toml"
    preset.write_text(
        'extends = "demo"\n[train]\nepochs = 7\nsteps = 9\nbudget = "9s"\ncpu_budget = "8s"\npatience = 6\n'
    )
    train = replace(experiment(**options), preset=str(preset)).resolve().train
    assert expected == (train.epochs, train.steps, train.budget, train.cpu_budget)
    assert train.patience == 6, "patience is no length"


def test_a_run_needs_a_preset_or_a_folder_to_resume() -> None:
    with pytest.raises(UsageError, match="name one with --preset"):
        Experiment(None).resolve()
    with pytest.raises(UsageError, match="name its folder with -o"):
        Experiment("demo").resolve(resume=True)


def test_gaussians_of_the_whole_frame_are_refused_on_large_grids(tmp_path: Path) -> None:
    data = weather_file(tmp_path / "a.nc", 120, size=(250, 263))  # 214 cells more than 256 x 256

    short = ["batch=1", "in_steps=2", "out_steps=2"]

    def train(*more: str) -> Result:
        return pdr("train", "--preset", "demo", "--data", data, "--dry-run", "-q", *tiny_settings(*short, *more))

    refused = train("adapter=flatten", "kernel_size=auto")
    assert (refused.code, "--adapter local" in refused.last) == (78, True)
    assert train("adapter=flatten", "kernel_size=auto", "fusion=none").code == 0
    assert train("adapter=flatten", "kernel_size=51").code == 0
