"""PV-VAE: a causal VAE that forecasts from tokens, its objective, and the members that are drawn in its latents."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from pdr_cli import config
from pdr_cli.errors import ConfigError
from pdr_cli.models import registry
from pdr_cli.models.interfaces import Batch, Frames
from pdr_cli.models.latent import objective
from pdr_cli.models.latent.generator import Condition, LatentCRPS, LatentFlow, SpaceAttention
from pdr_cli.models.latent.vae import Groups, halvings, whole
from pdr_cli.models.pdr import PDR
from pdr_cli.models.predictors.pvvae import PVVAE
from pdr_cli.optional_tables import LatentConfig
from tests.models.builders import options

SMALL: dict[str, Any] = {"hid_s": 4, "hid_t": 8, "n_s": 4, "n_t": 2, "anchor": "persistence", "fusion": "none"}
FRAMES = Frames(4, 1, (8, 12), out_steps=4)
FLOW = {"generator": "flow", "flow_width": 8, "flow_depth": 2, "flow_steps": 2}


def table(**changes: Any) -> LatentConfig:
    """The [latent] table of weather-latent with 3 channels and changes."""
    latent = config.load("weather-latent").latent
    assert latent is not None
    return latent.model_copy(update={"channels": 3} | changes)


def network(frames: Frames = FRAMES, *, model: dict[str, Any] | None = None, **latent: Any) -> PDR:
    """A small network whose blocks, which begin as the identity, have weights."""
    torch.manual_seed(0)
    built = registry.build(options(backbone="pvvae", **SMALL | (model or {})), frames, None, table(**latent))
    for parameter in built.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return built.eval()


def predictor(frames: Frames = FRAMES, **latent: Any) -> PVVAE:
    built = network(frames, **latent).predictor
    assert isinstance(built, PVVAE)
    return built


def window(frames: Frames = FRAMES, batch: int = 2, steps: int = 0) -> Batch:
    """A training batch of noise."""
    generator = torch.Generator().manual_seed(1)
    shape = (frames.channels, *frames.size)
    observed = torch.randn(batch, frames.in_steps, *shape, generator=generator)
    following = torch.randn(batch, steps or frames.out_steps, *shape, generator=generator)
    return Batch(observed, following.shape[1], following)


def clip(model: PVVAE, batch: Batch) -> Tensor:
    assert batch.target is not None
    return model.groups.clip(batch.observed, batch.target)


@pytest.mark.parametrize("group", [2, 4])
@pytest.mark.parametrize(("conv3d", "attention"), [(False, False), (True, False), (False, True)])
@torch.no_grad()
def test_a_frame_changes_no_latent_before_it(group: int, conv3d: bool, attention: bool) -> None:
    model = predictor(group=group, conv3d=conv3d, attention=attention)
    if isinstance(model.vae.encoder.attention, SpaceAttention):
        torch.nn.init.normal_(model.vae.encoder.attention.leave.weight)
    frames = clip(model, window())
    before = model.vae.encode(frames)[0]
    for t in range(frames.shape[1]):
        changed = frames.clone()
        changed[:, t] += 1
        after, place = model.vae.encode(changed)[0], -(-t // group)
        assert torch.equal(before[:, :place], after[:, :place])
        assert not torch.equal(before[:, place], after[:, place])


@torch.no_grad()
def test_latents_of_a_clip_that_was_cut_are_those_cut_from_the_clips() -> None:
    model = predictor()
    frames = clip(model, window())
    whole = model.vae.encode(frames)[0]
    for kept in range(1, whole.shape[1] + 1):
        alone = model.vae.encode(frames[:, : 1 + 2 * (kept - 1)])[0]
        torch.testing.assert_close(alone, whole[:, :kept], rtol=0, atol=1e-6)  # float32, in another batch


@torch.no_grad()
def test_tokens_change_no_frame_that_is_observed() -> None:
    model = predictor()
    latents = model.vae.encode(clip(model, window()))[0]
    kept = model.vae.decode(model.vae.fill(latents, torch.tensor([3, 3])))
    torch.testing.assert_close(kept[:, :5], model.vae.decode_all(latents)[:, :5], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("frames", "group"),
    [
        (Frames(3, 1, (8, 12), out_steps=4), 2),
        (Frames(4, 2, (8, 12), out_steps=3), 2),
        (Frames(1, 1, (8, 12), out_steps=8), 2),
        (Frames(12, 1, (8, 12), out_steps=12), 4),
        (Frames(5, 69, (8, 12), out_steps=2), 4),
        (Frames(4, 1, (25, 53), out_steps=4), 2),
        (Frames(4, 1, (9, 14), True, out_steps=4), 2),
        (Frames(2, 1, (9, 14)), 2),
    ],
    ids=str,
)
def test_any_frames_are_forecast_and_trained(frames: Frames, group: int) -> None:
    model, batch = network(frames, group=group).train(), window(frames, steps=frames.out_steps or frames.in_steps)
    out = model(batch, "train")
    assert out.fused.shape == batch.target.shape  # type: ignore[union-attr]
    assert set(out.terms) == {"reconstruction", "difference", "kl"}
    (out.fused.square().mean() + sum(out.terms.values())).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    with torch.no_grad():
        assert model.eval()(Batch(batch.observed, 11)).fused.shape[1] == 11


def test_groups_of_the_presets() -> None:
    counts = {
        (sizes, group): (g.front, g.observed, g.following, g.surplus)
        for sizes, group in (((4, 4), 2), ((10, 10), 2), ((12, 12), 4), ((1, 8), 2), ((4, 3), 2))
        for g in (Groups(*sizes, group),)
    }
    assert counts == {
        ((4, 4), 2): (1, 3, 2, 0),
        ((10, 10), 2): (1, 6, 5, 0),
        ((12, 12), 4): (1, 4, 3, 0),
        ((1, 8), 2): (0, 1, 4, 0),
        ((4, 3), 2): (1, 3, 2, 1),
    }


def test_time_is_halved_at_the_coarsest_levels() -> None:
    assert halvings(2, 2) == [0, 1]
    assert halvings(3, 4) == [0, 1, 1]
    assert halvings(2, 4) == [0, 2]
    assert halvings(1, 4) == [2]


def test_a_map_cut_elsewhere_gives_the_same_forecast_cut_there() -> None:
    model = network(Frames(4, 1, (8, 16), True, out_steps=4)).double()
    x = torch.rand(1, 4, 1, 8, 16, dtype=torch.float64)
    made, rolled = (model(Batch(frames, 4)).fused for frames in (x, x.roll(4, -1)))
    # The decoder's frames are float32.
    torch.testing.assert_close(rolled, made.roll(4, -1), rtol=0, atol=1e-5)


def test_tokens_that_cannot_see_two_observed_latents_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"model\.n_t is 2"):
        network(Frames(4, 1, (8, 8), out_steps=14))
    network(Frames(4, 1, (8, 8), out_steps=10))


def test_an_odd_n_s_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"model\.n_s is 3"):
        network(model={"n_s": 3})


def gradients(model: PDR, batch: Batch) -> list[Tensor]:
    model.train().zero_grad()
    torch.manual_seed(2)
    out = model(batch, "train")
    assert batch.known is not None
    error = (out.fused - batch.target).square() * batch.known[:, batch.observed.shape[1] :]
    (error.mean() + sum(out.terms.values())).backward()
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


@pytest.mark.parametrize("drop", ["mix", "uniform", "none"])
def test_a_value_that_is_missing_changes_no_gradient(drop: str) -> None:
    model, batch = network(drop=drop), window()
    known = torch.ones(2, 8, 1, 8, 12, dtype=torch.bool)
    known[:, 5, :, 2:4, 3:6] = False
    batch = batch._replace(known=known)
    before = gradients(model, batch)
    assert batch.target is not None
    changed = torch.where(known[:, 4:], batch.target, 100.0)
    assert all(map(torch.equal, before, gradients(model, batch._replace(target=changed))))


def test_copies_of_frames_weigh_nothing() -> None:
    weight = objective.weight_of(Groups(4, 3, 2), None, torch.device("cpu")).flatten()
    assert weight.tolist() == [0, 1, 1, 1, 1, 1, 1, 1, 0]


def draws(drop: str, max_drop: float = 1.0) -> Tensor:
    torch.manual_seed(0)
    return objective.kept(table(drop=drop, max_drop=max_drop), Groups(4, 4, 2), 4000, torch.device("cpu"))


def test_what_is_dropped() -> None:
    assert set(draws("none").tolist()) == {5}
    assert set(draws("forecast").tolist()) == {3}
    assert set(draws("uniform").tolist()) == {1, 2, 3, 4, 5}
    assert set(draws("uniform", max_drop=0.5).tolist()) == {3, 4, 5}
    # Half of the windows, and a fifth of the others: 0.6, with a standard error of 0.008.
    assert float((draws("mix") == 3).float().mean()) == pytest.approx(0.6, abs=0.03)


def test_frames_from_tokens_are_changes_from_the_anchor_or_from_the_last_kept_frame() -> None:
    model = predictor()
    batch = window()
    for parameter in model.vae.decoder.leave.parameters():
        torch.nn.init.zeros_(parameter)
    model.vae.mean.fill_(7)
    frames, base = clip(model, batch), torch.full((2, 4, 1, 8, 12), 9.0)
    made = objective.restored(
        model.vae,
        model.vae.encode(frames)[0],
        torch.tensor([3, 2]),
        objective.Clip(frames, torch.ones(()), base),
    )
    assert (made[0, :5] == 7).all()
    assert (made[0, 5:] == 9).all()
    assert (made[1, :3] == 7).all()
    assert (made[1, 3:] == frames[1, 2]).all()


def test_a_plain_vae_does_not_train_its_forecast_and_is_validated_by_its_terms() -> None:
    model = network(drop="none")
    out = model.train()(window(), "train")
    assert not out.fused.requires_grad
    assert out.terms["reconstruction"].requires_grad
    assert model.scored_by_terms
    assert not network().scored_by_terms


@pytest.mark.parametrize("pad", ["lead", "shared", "noise"])
@torch.no_grad()
def test_a_forecast_is_the_same_twice(pad: str) -> None:
    model, batch = network(pad=pad), Batch(window().observed, 6)
    assert torch.equal(model(batch).fused, model(batch).fused)


@torch.no_grad()
def test_the_first_frames_of_a_longer_forecast_are_those_of_a_shorter_one() -> None:
    for latent in ({}, FLOW):
        model, x = network(**latent), window().observed
        seeds = torch.tensor([3, 4]) if latent else None
        longest = model(Batch(x, 9, seeds=seeds)).fused
        for steps in (1, 4, 6):
            torch.testing.assert_close(model(Batch(x, steps, seeds=seeds)).fused, longest[:, :steps], rtol=0, atol=1e-5)


def test_the_mean_of_the_cells_is_measured_once() -> None:
    model, batch = network(), window()
    model.measure([batch])
    assert isinstance(model.predictor, PVVAE)
    frames = torch.cat([batch.observed, batch.target], dim=1)  # type: ignore[list-item]
    torch.testing.assert_close(model.predictor.vae.mean, frames.mean((0, 1)))
    model.measure([batch._replace(observed=batch.observed + 5)])
    torch.testing.assert_close(model.predictor.vae.mean, frames.mean((0, 1)))


@pytest.mark.parametrize("guess", ["self", "none"])
@pytest.mark.parametrize("generator", ["flow", "crps"])
@torch.no_grad()
def test_members_are_drawn_by_their_seeds_alone(generator: str, guess: str) -> None:
    model, x = network(**FLOW | {"generator": generator, "guess": guess}), window(batch=3).observed
    assert model.stochastic
    seeds = torch.tensor([5, 6, 7])
    made = model(Batch(x, 4, seeds=seeds)).fused
    assert torch.equal(made, model(Batch(x, 4, seeds=seeds)).fused)
    alone = torch.cat([model(Batch(x[i : i + 1], 4, seeds=seeds[i : i + 1])).fused for i in range(3)])
    torch.testing.assert_close(alone, made, rtol=0, atol=1e-5)  # float32, in another batch
    other = model(Batch(x, 4, seeds=torch.tensor([5, 6, 8]))).fused
    assert not torch.allclose(other[2], made[2], atol=1e-3)


@torch.no_grad()
def test_without_seeds_the_forecast_is_that_of_the_vae_alone() -> None:
    alone, batch = network(), Batch(window().observed, 6)
    model = network(**FLOW)
    model.predictor.vae.load_state_dict(alone.predictor.vae.state_dict())  # type: ignore[union-attr]
    assert torch.equal(model(batch).fused, alone(batch).fused)


@torch.no_grad()
def test_a_member_without_departure_is_the_direct_forecast() -> None:
    model, x = network(**FLOW), window().observed
    model.predictor.members.departure.zero_()  # type: ignore[union-attr]
    made = model(Batch(x, 4, seeds=torch.tensor([1, 2]))).fused
    assert torch.equal(made, model(Batch(x, 4)).fused)


@pytest.mark.parametrize("guess", ["self", "none"])
@pytest.mark.parametrize("generator", ["flow", "crps"])
def test_only_the_generator_is_trained(generator: str, guess: str) -> None:
    model, batch = network(**FLOW | {"generator": generator, "guess": guess}).train(), window()
    model.measure([batch])
    out = model(batch, "train")
    assert list(out.terms) == [f"{generator}_loss"]
    sum(out.terms.values()).backward()  # type: ignore[union-attr]
    trained = {name for name, p in model.named_parameters() if p.grad is not None}
    assert trained == {name for name, _ in model.named_parameters() if name.startswith("predictor.members.")}


def test_latents_are_standardised_by_the_training_windows() -> None:
    model, batch = predictor(**FLOW), window(batch=8)
    model.measure([(batch, None)])
    members = model.members
    assert members is not None
    latents = model.vae.encode(clip(model, batch))[0]
    standard = (latents - members.mean) / members.spread
    torch.testing.assert_close(standard.mean((0, 1, 3, 4)), torch.zeros(3), rtol=0, atol=1e-5)
    torch.testing.assert_close(standard.std((0, 1, 3, 4)), torch.ones(3), rtol=0, atol=1e-2)
    guess = model.vae.encode(model.groups.clip(batch.observed, model(batch.observed, 4)))[0][:, 3:]
    departure = (latents[:, 3:] - guess) / (members.spread * members.departure)
    torch.testing.assert_close(departure.square().mean((0, 1, 3, 4)), torch.ones(3), rtol=0, atol=1e-3)


class Straight(LatentFlow):
    """The exact velocity towards one point."""

    def forward(self, x: Tensor, s: Tensor, condition: Condition) -> Tensor:
        return (2.0 - x) / (1 - s[:, None, None, None, None])


def test_euler_steps_of_the_exact_velocity_end_at_the_point() -> None:
    model = Straight(table(**FLOW), Groups(4, 4, 2))
    start = torch.randn(2, 2, 3, 2, 3)
    torch.testing.assert_close(model.draw(start, Condition(start, None)), torch.full_like(start, 2.0))


class TwoPoints(LatentCRPS):
    """Members at 1 and -1 in turn."""

    def draw(self, start: Tensor, condition: Condition) -> Tensor:
        self.sign = -getattr(self, "sign", -1.0)
        return torch.full_like(start, self.sign)


def test_the_crps_of_two_members() -> None:
    future = torch.zeros(1, 2, 3, 2, 3)
    # Both errors are 1, the members are 2 apart: 1 - (1 - 0.025) / 2 * 2.
    assert float(TwoPoints(table(**FLOW), Groups(4, 4, 2)).loss(future, Condition(future, None))) == pytest.approx(
        0.025
    )


def test_a_predictor_of_latents_needs_its_table() -> None:
    with pytest.raises(ConfigError, match="reads the table"):
        registry.build(options(backbone="pvvae", **SMALL), FRAMES)


def test_a_generator_without_latents_is_refused() -> None:
    with pytest.raises(ConfigError, match="has no latents"):
        registry.build(options(backbone="tau", **SMALL), FRAMES, None, table(generator="flow"))


@pytest.mark.parametrize("inputs", ["frames", "anomalies"])
@pytest.mark.parametrize("anchor", ["none", "climatology", "persistence"])
def test_it_runs_with_any_anchor_and_on_anomalies(anchor: str, inputs: str) -> None:
    for latent in ({}, FLOW):
        model, batch = network(model={"anchor": anchor, "inputs": inputs}, **latent), window()
        batch = batch._replace(normal=torch.rand(2, 8, 1, 8, 12))
        model.measure([batch])
        assert model(batch, "train").fused.isfinite().all()
        with torch.no_grad():
            made = model(batch._replace(target=None, steps=3, normal=batch.normal[:, :7], seeds=torch.tensor([1, 2])))  # type: ignore[index]
        assert made.fused.shape == (2, 3, 1, 8, 12)


@torch.no_grad()
def test_inflated_members_depart_further_from_the_direct_forecast_and_stay_within_the_bounds() -> None:
    plain, built = network(**FLOW), network(**FLOW, inflate="val")
    assert "predictor.inflation" not in plain.state_dict()
    inflation = built.predictor.inflation
    assert isinstance(inflation, Tensor)
    inflation.copy_(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    batch, seeds = window()._replace(target=None), torch.tensor([1, 2])
    direct, member = plain(batch).fused, plain(batch._replace(seeds=seeds)).fused
    made = built(batch._replace(seeds=seeds)).fused
    torch.testing.assert_close(made, direct + inflation[:, None, None, None] * (member - direct))
    assert torch.equal(built(batch).fused, direct)
    alone = built(batch.rows(slice(1, 2))._replace(seeds=seeds[1:])).fused
    torch.testing.assert_close(alone, made[1:])
    low, high = direct.amin()[None], direct.amax()[None]
    assert made.amax() > high
    built.bound(low, high)
    bounded = built(batch._replace(seeds=seeds)).fused
    assert torch.equal(bounded, made.clamp(low, high))


STAGES = [0.5, 0.25, 0.25]


@pytest.mark.parametrize(
    ("progress", "taught"),
    [(0.0, {"encoder", "decoder"}), (0.5, {"encoder", "decoder", "tokens"}), (0.75, {"second"}), (1.0, {"second"})],
)
def test_each_stage_teaches_its_own_parts(progress: float, taught: set[str]) -> None:
    built = network(stages=STAGES).train()
    out = built(window()._replace(progress=progress), "train")
    assert out.fused.requires_grad == (progress == 0.5)
    total = sum(out.terms.values(), torch.zeros(())) + out.fused.square().sum()
    total.backward()
    trained = {n.split(".")[2] for n, p in built.named_parameters() if p.grad is not None and p.grad.any()}
    assert trained == taught
    assert ("difference" in out.terms) == (progress > 0)


@torch.no_grad()
def test_the_second_decoder_begins_as_a_copy_and_restores_what_is_whole() -> None:
    torch.manual_seed(0)
    built = registry.build(options(backbone="pvvae", **SMALL), FRAMES, None, table(stages=STAGES)).eval()
    model = built.predictor
    assert isinstance(model, PVVAE)
    batch, latents = window(), model.latents(window())
    direct, restored = built(batch).fused, model.reconstruct(batch)
    assert torch.equal(model.vae.decode_all(latents), model.vae.decode(whole(latents)))
    assert model.vae.second is not None
    torch.nn.init.normal_(model.vae.second.leave.bias)
    assert torch.equal(built(batch).fused, direct)
    assert not torch.equal(model.reconstruct(batch), restored)
    assert built.parts == tuple(STAGES)
    assert not any("second" in name for name in predictor().state_dict())
    assert predictor().parts == ()


@torch.no_grad()
def test_images_are_clips_of_their_own() -> None:
    """The terms of images are the same whatever their order, and those of a frame that is missing are not counted."""
    model = predictor(stages=STAGES)
    batch = window()
    frames = torch.cat([batch.observed, batch.target], dim=1)  # type: ignore[list-item]  # it has a target

    def found(frames: Tensor, known: Tensor | None = None) -> dict[str, Tensor]:
        given = Batch(frames[:, :4], 4, frames[:, 4:], known)
        return model.training_forward(given)[1]

    expected = found(frames)
    mixed = found(frames.flatten(0, 1)[torch.randperm(16)].unflatten(0, (2, 8)))
    torch.testing.assert_close(mixed, expected)
    known = torch.ones_like(frames, dtype=torch.bool)
    known[0, 3] = False
    changed = frames.clone()
    changed[0, 3] = frames[0, 2]
    assert not torch.equal(found(changed)["reconstruction"], expected["reconstruction"])
    counted = found(frames, known)["reconstruction"]
    each = torch.stack([found(f[None, None].expand(1, 8, -1, -1, -1))["reconstruction"] for f in frames.flatten(0, 1)])
    torch.testing.assert_close(expected["reconstruction"], each.mean())
    torch.testing.assert_close(counted, torch.cat([each[:3], each[4:]]).mean())


@pytest.mark.parametrize("size", [(1, 1), (3, 5)])
def test_attention_sees_every_place_and_begins_as_the_identity(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    attention = SpaceAttention(192)
    assert attention.heads == 3
    x = torch.randn(2, 192, *size, requires_grad=True)
    assert torch.equal(attention(x), x)
    torch.nn.init.normal_(attention.leave.weight)
    made = attention(x)
    made[0, :, 0, 0].sum().backward()
    assert x.grad is not None
    assert x.grad[0].abs().amax(0).all(), "of its group"
    assert not x.grad[1].any(), "of no other"
    # softmax(qk'/√d)v of each head, place by place.
    q, k, v = attention.inputs(attention.norm(x))[0].flatten(1).unflatten(0, (3, 3, 64)).unbind()
    mixed = torch.stack([v[h] @ torch.softmax(q[h].T @ k[h] / 8, dim=1).T for h in range(3)]).flatten(0, 1)
    expected = x[0] + attention.leave(mixed.unflatten(1, size)[None])[0]
    torch.testing.assert_close(made[0], expected)


@torch.no_grad()
def test_encoder_and_decoder_attend_at_the_latents() -> None:
    model = predictor(attention=True)
    frames = clip(model, window())

    def made() -> tuple[Tensor, Tensor]:
        latents = model.vae.encode(frames)[0]
        return latents, model.vae.decode_all(latents)

    before = made()
    for part in (model.vae.encoder, model.vae.decoder):
        assert isinstance(part.attention, SpaceAttention)
    torch.nn.init.normal_(model.vae.decoder.attention.leave.weight)  # type: ignore[union-attr,arg-type]
    assert torch.equal(before[0], made()[0])
    assert not torch.equal(before[1], made()[1])
    torch.nn.init.normal_(model.vae.encoder.attention.leave.weight)  # type: ignore[union-attr,arg-type]
    assert not torch.equal(before[0], made()[0])


def test_every_second_block_attends_where_it_is_asked_for() -> None:
    def attends(**latent: Any) -> list[bool]:
        built = predictor(**FLOW | {"flow_depth": 5} | latent)
        assert built.members is not None
        return [block.attention is not None for block in built.members.generator.blocks]  # type: ignore[union-attr]

    assert attends(attention=True) == [False, True, False, True, False]
    assert not any(attends())
    model = predictor(**FLOW, attention=True)
    made = model(window().observed, 4, seeds=torch.tensor([1, 2]))
    alone = model(window().observed[1:], 4, seeds=torch.tensor([2]))
    torch.testing.assert_close(made[1:], alone)
