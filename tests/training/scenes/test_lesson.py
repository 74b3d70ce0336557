"""What a step on scenes learns: its parts and stages, its frames and latents, and the scores of its validation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pdr_cli import config
from pdr_cli.data.formats import scenefile
from pdr_cli.models.scenes.build import build
from pdr_cli.models.scenes.latents import VideoLatents
from pdr_cli.runs.films import SceneData
from pdr_cli.schema import Config
from pdr_cli.system.memory import Batches
from pdr_cli.training.randomness import Randomness
from pdr_cli.training.scenes.lesson import SceneLesson
from pdr_cli.training.stages import HALF, MOVING, STILL, place

TINY = ["data.out_steps=4", "scene.width=8", "scene.blocks=2", "model.hid_s=4", "model.hid_t=8", "model.n_t=2"]
TINY += ["latent.flow_width=8", "latent.flow_depth=1", "latent.flow_steps=2", "latent.channels=4"]
ORACLE = ["scene.latents=oracle", "scene.parts=[]"]
PARTS = "scene.parts=[0.25, 0.25, 0.5]"
PASSES = Batches("--batch {}")


def lesson(path: Path, *settings: str) -> SceneLesson:
    torch.manual_seed(0)
    loaded: Config = config.load("scenes-small", [*TINY, *settings])
    assert loaded.scene is not None
    file = scenefile.read(path)
    data = SceneData(file, file.parts["train"], file.parts["val"], 100)
    return SceneLesson(build(loaded, data.size), data, loaded.scene, loaded.train, torch.device("cpu"))


def learned(one: SceneLesson, progress: float, at_once: int = 4) -> dict[str, torch.Tensor]:
    """Gradients by name, after a step at this share of the training."""
    torch.manual_seed(1)
    batch = one.batch(np.arange(4), progress)
    one.network.zero_grad(set_to_none=True)
    one.learn(batch, at_once, Randomness(one.network, one.device)).total.backward()
    return {name: p.grad for name, p in one.network.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(
    ("shares", "progress", "expected"),
    [
        ([0.25, 0.25, 0.5], 0.0, (0, 0.0)),
        ([0.25, 0.25, 0.5], 0.375, (1, 0.5)),
        ([0.25, 0.25, 0.5], 0.75, (2, 0.5)),
        ([0.25, 0.25, 0.5], 1.0, (2, 1.0)),
        ([0.0, 0.0, 1.0], 0.3, (2, 0.3)),
        ([0.5, 0.5, 0.0], 1.0, (1, 1.0)),
    ],
)
def test_a_share_of_the_training_has_a_place(shares: list[float], progress: float, expected: tuple[int, float]) -> None:
    assert place(shares, progress) == (expected[0], pytest.approx(expected[1]))


def test_each_part_trains_its_network_alone_and_has_a_schedule_of_its_own(scenes: Path) -> None:
    one = lesson(scenes, "scene.latents=mixed", PARTS)
    trained = [{name.split(".")[1] for name in learned(one, at)} for at in (0.1, 0.3)]
    assert trained == [{"vae"}, {"members"}]
    assert {name.split(".")[0] for name in learned(one, 0.9)} == {"reconstructor"}
    assert [one.scheduled(at) for at in (0.125, 0.375, 0.75)] == [0.5, 0.5, 0.5]
    assert [one.is_validated(at) for at in (0.1, 0.3, 0.9)] == [False, False, True]


def test_with_oracle_the_stem_and_the_reconstructor_are_trained_together(scenes: Path) -> None:
    gradients = learned(lesson(scenes, *ORACLE), 0.9)
    assert {name.split(".")[0] for name in gradients} == {"source", "reconstructor"}
    assert all(gradient.isfinite().all() for gradient in gradients.values())


def test_gaussians_stand_still_on_pictures_of_half_the_size_then_stand_still_then_move(scenes: Path) -> None:
    one = lesson(scenes, *ORACLE, "train.stages=[0.25, 0.25, 0.5]")
    terms = {}
    for at, stage in ((0.1, HALF), (0.3, STILL), (0.9, MOVING)):
        batch = one.batch(np.arange(2), at)
        assert batch.stage == stage
        terms[stage] = one.learn(batch, 2, Randomness(one.network, one.device)).terms
    assert ["motion" in terms[stage] for stage in (HALF, STILL, MOVING)] == [False, False, True]
    # The mean opacity is that of the pixels of the stage's size; the weights are those of the beginning in all of them.
    assert terms[HALF]["opacity"] != terms[STILL]["opacity"]
    whole = lesson(scenes, *ORACLE, "train.stages=[]")
    assert whole.batch(np.arange(2), 0.0).stage == MOVING


@pytest.mark.parametrize("seed", range(3))
def test_the_frames_of_a_step_are_by_the_cameras_in_turn(scenes: Path, seed: int) -> None:
    one = lesson(scenes, *ORACLE, "scene.frames=4")
    torch.manual_seed(seed)
    films, scene = one.batch(np.array([3]), 0.9).films, one.data.scene(3)
    frames = [round(4 * time) for time in films.times]
    assert len(set(frames)) == 4
    views = []
    for number, frame in enumerate(frames):
        picture = 255 * films.truth.frames[0, number].movedim(0, -1).numpy()
        views.append([view for view in (0, 1) if np.allclose(picture, scene.image[view, frame], atol=1e-3)])
        camera, view = films.cameras.world_to_camera[0, number].numpy(), views[-1][0]
        assert np.array_equal(camera, scene.poses[view, frame])
        assert np.array_equal(films.truth.depth[0, number].numpy(), scene.depth[view, frame])
        assert np.array_equal(films.truth.track[0, number].numpy(), scene.track[frame])
    # At time 0 both cameras see the same.
    turns = [(number, view[0]) for number, view in enumerate(views) if len(view) == 1]
    assert len(turns) >= 3
    assert len({(number + view) % 2 for number, view in turns}) == 1


def test_a_batch_in_halves_has_the_same_loss_and_gradients(scenes: Path) -> None:
    one = lesson(scenes, *ORACLE)
    whole, halves = learned(one, 0.9), learned(one, 0.9, at_once=2)
    assert whole.keys() == halves.keys()
    for name, gradient in whole.items():
        torch.testing.assert_close(halves[name], gradient, rtol=1e-3, atol=1e-6)


def test_latents_of_a_step_are_true_drawn_or_either(scenes: Path) -> None:
    made = {}
    for kind in ("true", "drawn", "mixed"):
        one = lesson(scenes, f"scene.latents={kind}", PARTS)
        torch.manual_seed(3)
        made[kind] = one.batch(np.arange(8), 0.9).latents
        assert made[kind].equal(one.batch(np.arange(8), 0.95).latents) or kind == "mixed"
    of_true = [bool(row.equal(true)) for row, true in zip(made["mixed"], made["true"], strict=True)]
    of_drawn = [bool(row.equal(drawn)) for row, drawn in zip(made["mixed"], made["drawn"], strict=True)]
    assert [a or b for a, b in zip(of_true, of_drawn, strict=True)] == [True] * 8
    assert 0 < sum(of_true) < 8
    first = made["true"][:, 0]
    (
        torch.testing.assert_close(made["drawn"][:, 0], first, rtol=1e-4, atol=1e-5),
        "the picture's own latent is not drawn",
    )
    assert not made["drawn"][:, 1:].allclose(made["true"][:, 1:])


def test_the_latents_are_measured_once_before_the_generator_learns_them(scenes: Path) -> None:
    one = lesson(scenes, "scene.latents=true", PARTS)
    source = one.network.source
    assert isinstance(source, VideoLatents)
    one.batch(np.arange(2), 0.1)
    assert not source.members.measured
    one.batch(np.arange(2), 0.3)
    latents = torch.cat([source.encode(video) for video in one.data.videos(one.data.train, one.device)])
    torch.testing.assert_close(latents.mean(dim=(0, 1, 3, 4)), torch.zeros(4), rtol=0, atol=1e-3)
    torch.testing.assert_close(latents.std(dim=(0, 1, 3, 4), unbiased=False), torch.ones(4), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("settings", [ORACLE, ["scene.latents=mixed", PARTS]])
def test_validation_draws_no_numbers_and_is_the_same_twice(scenes: Path, settings: list[str]) -> None:
    one = lesson(scenes, *settings)
    before = torch.get_rng_state()
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=False)
    first, second = (one.validate(PASSES, autocast) for _ in range(2))
    assert first == second
    assert before.equal(torch.get_rng_state())


def test_the_copied_picture_is_scored_on_the_frames_after_it(scenes: Path) -> None:
    one = lesson(scenes, *ORACLE)
    scores = one.validate_anchor(PASSES, torch.autocast("cpu", torch.bfloat16, enabled=False))
    assert scores is not None
    scene = one.data.scene(one.data.val[0])
    image = scene.image.astype(np.float64) / 255
    expected = np.sqrt(np.square(image[1, 1:] - image[0, 0]).mean(axis=(0, 1, 2)))
    np.testing.assert_allclose(scores.rmse, expected, rtol=1e-5)
