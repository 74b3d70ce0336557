"""Latents of videos: those of the true one, those that are drawn behind a picture, and the rays of both."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pdr_cli import config
from pdr_cli.errors import ConfigError
from pdr_cli.models.interfaces import Frames
from pdr_cli.models.scenes.build import build
from pdr_cli.models.scenes.latents import FrameLatents, NoLatents, VideoLatents

T, SIZE = 6, (16, 24)  # five frames behind the picture, in groups of two: three, and a copy of the last


def source(**latent: Any) -> VideoLatents:
    torch.manual_seed(0)
    loaded = config.load("scenes-small", ["model.hid_s=4", "model.hid_t=8", "model.n_t=2"])
    assert loaded.latent is not None
    options = loaded.latent.model_copy(
        update={"channels": 4, "flow_width": 8, "flow_depth": 2, "flow_steps": 2} | latent
    )
    made = VideoLatents(Frames(1, 3, SIZE, out_steps=T - 1), loaded.model, options)
    for name, parameter in made.members.named_parameters():
        if "leave" in name or "last" in name or "modulate" in name:
            torch.nn.init.normal_(parameter, std=0.1)  # zero at the beginning, when nothing would matter
    return made.eval()


def random(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(2))


VIDEO, RAYS = random(2, T, 3, *SIZE), random(2, T, 6, *SIZE)
SEEDS = torch.tensor([5, 6])


def test_a_video_has_a_latent_of_its_picture_and_one_of_each_group() -> None:
    one = source()
    assert (one.groups, one.channels, one.halvings) == (4, 4, 2)
    assert one.encode(VIDEO).shape == (2, 4, 4, 4, 6)
    assert one.rays(RAYS).shape == (2, 4, 6, 4, 6)


def test_the_rays_of_a_latent_are_the_mean_over_its_frames_and_pixels() -> None:
    found = source().rays(RAYS)
    block = RAYS[:, :, :, :4, :4].mean(dim=(-2, -1))
    torch.testing.assert_close(found[:, 0, :, 0, 0], block[:, 0])
    torch.testing.assert_close(found[:, 1, :, 0, 0], block[:, 1:3].mean(dim=1))
    # The last frame and its copy.
    torch.testing.assert_close(found[:, 3, :, 0, 0], block[:, 5])


def test_without_latents_the_rays_alone_are_those_of_a_video() -> None:
    loaded = config.load("scenes-small", ["scene.latents=none", "scene.parts=[]"])
    none = build(loaded, (64, 64)).source
    assert isinstance(none, NoLatents)
    short = NoLatents(T, loaded.model, source().latent)
    assert short.rays(RAYS).equal(source().rays(RAYS))
    assert short.encode(VIDEO).equal(torch.zeros(2, 4, 1, 4, 6))
    assert not list(none.parameters())


def test_each_seed_draws_a_future_behind_the_pictures_own_latent() -> None:
    one = source()
    drawn, again, other = (one.draw(VIDEO[:, 0], RAYS, SEEDS + shift) for shift in (0, 0, 9))
    assert drawn.equal(again)
    assert drawn[:, :1].equal(other[:, :1])
    assert not drawn[:, 1:].allclose(other[:, 1:], atol=0.1)
    torch.testing.assert_close(drawn[:, :1], one.encode(VIDEO)[:, :1], rtol=1e-4, atol=1e-5)


def test_a_future_depends_on_the_path_and_not_on_its_companions() -> None:
    one = source()
    drawn = one.draw(VIDEO[:, 0], RAYS, SEEDS)
    assert not drawn[:, 1:].allclose(one.draw(VIDEO[:, 0], 1 - RAYS, SEEDS)[:, 1:], atol=1e-3)
    alone = one.draw(VIDEO[1:, 0], RAYS[1:], SEEDS[1:])
    torch.testing.assert_close(alone, drawn[1:], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("generator", ["flow", "crps"])
def test_the_loss_of_the_generator_leaves_the_vae_alone(generator: str) -> None:
    one = source(generator=generator)
    one.generator_loss(VIDEO, RAYS).backward()
    trained = {name.split(".")[0] for name, p in one.named_parameters() if p.grad is not None}
    assert trained == {"members"}
    assert all(p.grad.isfinite().all() for p in one.members.parameters() if p.grad is not None)


def test_the_loss_of_the_vae_leaves_the_generator_alone() -> None:
    one = source()
    sum(one.vae_terms(VIDEO).values()).backward()
    assert {name.split(".")[0] for name, p in one.named_parameters() if p.grad is not None} == {"vae"}


@pytest.mark.parametrize("changes", [{"generator": "none"}, {"guess": "self"}])
def test_a_generator_that_would_draw_the_mean_is_refused(changes: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="expected flow or crps, and guess none"):
        source(**changes)


def test_the_oracle_reads_the_first_the_middle_and_the_last_frame() -> None:
    one = FrameLatents(T, 4)
    found = one.encode(VIDEO)
    assert found.shape == (2, 3, 4, 4, 6)
    changed = VIDEO.clone()
    changed[:, [1, 2, 4]] = 0
    assert one.encode(changed).equal(found)
    for group, frame in enumerate((0, 3, 5)):
        changed = VIDEO.clone()
        changed[:, frame] = 0
        differs = (one.encode(changed) - found).abs().amax(dim=(0, 2, 3, 4)) > 0
        assert differs.tolist() == [group == number for number in range(3)]
        assert one.grouped(RAYS)[:, group].equal(RAYS[:, frame])


def test_a_model_needs_its_tables() -> None:
    loaded = config.load("scenes-small")
    with pytest.raises(ConfigError, match=r"needs the table \[scene\]"):
        build(loaded.model_copy(update={"scene": None}), (16, 16))
    with pytest.raises(ConfigError, match=r"needs the table \[latent\]"):
        build(loaded.model_copy(update={"latent": None}), (16, 16))
