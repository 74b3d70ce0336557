"""LPIPS as a term of the loss of video, and where it is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pdr_cli import config
from pdr_cli.data.scaling import Scaling
from pdr_cli.errors import ConfigError
from pdr_cli.models.lpips import LPIPS
from pdr_cli.training.perceptual import Perceptual
from tests.builders import video_file
from tests.cli import pdr
from tests.conftest import tiny_settings


@pytest.fixture(scope="module")
def lpips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of weights, whose heads are positive as the published ones are."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "lpips.safetensors"
    save_file({name: value.abs() if "lin" in name else value for name, value in LPIPS().state_dict().items()}, path)
    return path


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return video_file(tmp_path_factory.mktemp("film") / "film.mp4", 120, size=(32, 48))


def given(weight: float, path: Path | str) -> list[str]:
    return ["--set", f"train.lpips_weight={weight}", "--set", f"train.lpips_weights={path}"]


def test_the_term_is_the_distance_of_pictures_from_0_to_1(lpips: Path) -> None:
    chosen = config.load("video-small", ["train.lpips_weight=0.5", f"train.lpips_weights={lpips}"]).train
    scaling = Scaling((100.0,), (50.0,), (1.0,))  # x in network units is the byte 50·x + 100
    term = Perceptual.of(chosen, scaling, torch.device("cpu"))
    assert term is not None
    torch.manual_seed(0)
    pred, target = torch.randn(2, 2, 3, 1, 32, 48).unbind()
    pred.requires_grad_()
    made, true = ((x.detach().flatten(0, 1) * 50 + 100) / 255 for x in (pred, target))
    found = term(pred, target)
    assert found.item() == pytest.approx(float(LPIPS.load(lpips).eval().distance(made, true).mean()), rel=1e-5)
    found.backward()
    assert pred.grad is not None
    assert pred.grad.any()
    assert term(pred, target, torch.zeros_like(target)).item() == 0, "what is not known is no error"


def test_it_is_added_to_the_loss_and_found_from_another_folder(
    film: Path, lpips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "w.safetensors").write_bytes(lpips.read_bytes())
    small = [
        "--preset",
        "video-small",
        "--data",
        film,
        "--steps",
        2,
        *tiny_settings("data.in_steps=3", "data.out_steps=3"),
    ]
    small += ["--set", "data.size=[32,48]", "--set", "fusion=none"]
    for name, more in (("with", given(5, "w.safetensors")), ("without", [])):
        done = pdr("train", *small, "-o", tmp_path / name, *more, "-q")
        assert done.code == 0, done.err
    steps = {
        name: [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("with", "without")
    }
    first = {name: lines[0] for name, lines in steps.items()}
    assert first["with"]["loss"] == first["without"]["loss"]
    assert first["with"]["lpips"] > 0
    assert "lpips" not in first["without"]
    assert steps["with"][1]["loss"] != steps["without"][1]["loss"]
    monkeypatch.chdir("/")
    again = pdr("train", "--resume", "-o", tmp_path / "with", "--steps", "3", "-q")
    assert again.code == 0, again.err


def test_it_is_refused_where_it_has_no_meaning(weather: Path, clip: Path, film: Path, lpips: Path) -> None:
    video = ["train", "--preset", "video-latent", "-o", "run", "--steps", "2", *given(1, lpips)]
    video += ["--set", "data.in_steps=3", "--set", "data.out_steps=3"]
    cases = [
        (["train", "--preset", "weather-small", "--data", weather, "-o", "run", *given(1, lpips)], "data are weather"),
        ([*video, "--data", clip, "--set", "data.size=[16,16]"], "training has 16 x 16"),
        (
            [*video, "--data", film, "--set", "data.size=[32,48]", "--set", "latent.drop=none"],
            "forecast is not trained",
        ),
    ]
    for arguments, says in cases:
        refused = pdr(*arguments)
        assert (refused.code, says in refused.last) == (78, True), refused.err
    absent = pdr(
        *video, "--set", "train.lpips_weights=nowhere.safetensors", "--data", film, "--set", "data.size=[32,48]"
    )
    assert (absent.code, "no such file" in absent.last) == (66, True), absent.err
    assert not Path("run").exists()


@pytest.mark.parametrize("override", ["train.lpips_weight=0.5", "train.lpips_weights=w.safetensors"])
def test_weight_and_weights_belong_together(override: str) -> None:
    with pytest.raises(ConfigError, match="take both"):
        config.load("video-small", [override])


def test_scenes_name_their_own_weights() -> None:
    with pytest.raises(ConfigError, match=r"scene\.lpips"):
        config.load("scenes-small", ["train.lpips_weight=1", "train.lpips_weights=w.safetensors"])
