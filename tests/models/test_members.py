"""Members: drawn from a window's own seed, by noise in the norms of any predictor that has them."""

from __future__ import annotations

import pytest
import torch

from pdr_cli.choices import PREDICTORS
from pdr_cli.errors import ConfigError
from pdr_cli.models import registry
from pdr_cli.models.interfaces import Batch, Frames
from pdr_cli.models.noise import NormNoise
from pdr_cli.models.pdr import PDR
from tests.models.builders import build_predictor, options

SMALL = {"hid_s": 8, "hid_t": 16, "n_s": 2, "n_t": 2, "mlp_ratio": 2.0, "drop_path": 0.0, "dropout": 0.0}
WITHOUT_NORMS = {
    "deformable",
    "deformable-still",
    "none",
    "convlstm",
    "predrnn",
    "predrnnpp",
    "predrnnv2",
    "mim",
    "prednet",
    "dmvfn",
}
WITHOUT_NORMS |= {"carry", "carry-dense", "carry-grid"}


def network(name: str = "unet", noise: int = 4, **changes: object) -> PDR:
    torch.manual_seed(0)
    made = registry.build(
        options(backbone=name, fusion="none", noise=noise, anchor="persistence", **(SMALL | changes)),
        Frames(3, 1, (16, 16)),
    )
    for parameter in made.predictor.parameters():  # heads that start from zero would hide what the norms give
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return made.eval()


def batch(windows: int = 2, steps: int = 3) -> Batch:
    return Batch(torch.rand(windows, 3, 1, 16, 16, generator=torch.Generator().manual_seed(1)), steps)


@torch.no_grad()
@pytest.mark.parametrize("name", sorted(set(PREDICTORS.own) - {"pvvae"}))  # which draws in its latents
def test_any_predictor_with_norms_draws(name: str) -> None:
    if name in WITHOUT_NORMS:
        with pytest.raises(ConfigError, match="has no norms"):
            NormNoise(build_predictor(name, 3, 1, **SMALL), 4)
        return
    model, plain = network(name), batch()
    drawn = [model(plain._replace(seeds=torch.tensor(seeds))).fused for seeds in ([5, 6], [5, 7], [5, 6])]
    assert torch.equal(drawn[0], drawn[2])
    assert torch.equal(drawn[0][0], drawn[1][0]), "the seed of another window changed this one"
    assert (drawn[0][1] - drawn[1][1]).abs().max() > 1e-6
    alone = model(plain.rows(slice(1, 2))._replace(seeds=torch.tensor([7]))).fused
    torch.testing.assert_close(alone[0], drawn[1][1], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_without_seeds_the_norms_are_as_they_are() -> None:
    model, plain = network(), network(noise=0)
    assert not plain.stochastic
    assert model.stochastic
    plain.load_state_dict(model.state_dict(), strict=False)
    model(batch()._replace(seeds=torch.tensor([1, 2])))  # what it draws is forgotten
    assert torch.equal(model(batch()).fused, plain(batch()).fused)


@torch.no_grad()
def test_each_pass_of_a_roll_out_draws_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    model, steps = network(), []
    monkeypatch.setattr(
        "pdr_cli.models.noise.normal", lambda seeds, step, *shape: steps.append(step) or torch.ones(2, *shape)
    )
    model(batch(steps=8)._replace(seeds=torch.tensor([1, 2])))
    assert sorted({step for step in steps if step >= 0}) == [0, 3, 6]
    local = [step for step in steps if step < 0]
    assert len(set(local)) == len(local), "two norms or two passes share their noise"


@torch.no_grad()
def test_members_are_windows_that_share_the_anchor() -> None:
    model, plain = network(), batch()
    seeds = torch.arange(6)
    drawn = model.members(plain, 3, seeds)
    assert drawn.observed.shape[0] == 6
    assert torch.equal(drawn.observed[:2], drawn.observed[4:])
    assert torch.equal(drawn.anchor, plain.observed[:, -1:].expand(-1, 3, -1, -1, -1).repeat(3, 1, 1, 1, 1))
    first = model(plain._replace(seeds=seeds[:2])).fused
    torch.testing.assert_close(model(drawn).fused[:2], first)


def test_noise_is_trained_and_starts_small() -> None:
    model, plain = network(), batch()
    model(plain._replace(seeds=torch.tensor([1, 2])))
    fused = model.train()(plain._replace(seeds=torch.tensor([1, 2]))).fused
    fused.square().mean().backward()
    assert all(p.grad is not None and p.grad.any() for p in model.noise.parameters())
    with torch.no_grad():
        drawn = torch.stack([model.eval()(batch(1)._replace(seeds=torch.tensor([s]))).fused for s in range(20)])
    assert 1e-4 < float((drawn.std(dim=0) / drawn.std()).mean()) < 0.5
