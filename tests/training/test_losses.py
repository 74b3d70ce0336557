"""Losses: each option does what it says."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from scores.probability import crps_for_ensemble
from torch import Tensor

from pdr_cli.errors import ConfigError
from pdr_cli.models.similarity import ssim, ssim_map, window_size
from pdr_cli.training.losses import (
    L1SSIM,
    LossOptions,
    build_loss,
    differential_divergence,
    fair_crps,
)
from pdr_cli.trust import USER


def pair(*shape: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    target = torch.rand(shape, generator=generator)
    return target + 0.2 * torch.randn(shape, generator=generator), target


@pytest.mark.parametrize("l1_weight", [0.0, 0.3, 1.0])
def test_l1ssim_weighs_its_two_terms(l1_weight: float) -> None:
    pred, target = pair(2, 3, 1, 24, 24)
    loss, terms = build_loss("l1ssim", LossOptions(l1_weight, torch.ones(1)))(pred, target)
    l1, similarity = (pred - target).abs().mean(), ssim(pred, target, torch.ones(1)).mean()
    assert loss.item() == pytest.approx((l1_weight * l1 + (1 - l1_weight) * (1 - similarity)).item())
    assert terms["l1"].item() == pytest.approx(l1.item())
    assert terms["ssim"].item() == pytest.approx(similarity.item())


def test_terms_hold_no_graph() -> None:
    pred, target = pair(1, 3, 1, 12, 12)
    for name in ("l1ssim", "mse", "l1", "l2reg"):
        loss, terms = build_loss(name, LossOptions(0.5, torch.ones(1)))(pred.requires_grad_(), target)
        assert loss.requires_grad
        assert terms
        assert not any(term.requires_grad for term in terms.values())


def test_mse_and_l1_are_means_over_everything() -> None:
    pred, target = torch.zeros(1, 2, 1, 1, 2), torch.tensor([[1.0, 2.0], [3.0, -4.0]]).view(1, 2, 1, 1, 2)
    options = LossOptions(0.5, torch.ones(1))
    assert build_loss("mse", options)(pred, target)[0].item() == 7.5  # (1 + 4 + 9 + 16) / 4
    assert build_loss("l1", options)(pred, target)[0].item() == 2.5  # (1 + 2 + 3 + 4) / 4


@pytest.mark.shared
def test_l2reg_is_the_toolbox_loss(shared: Path) -> None:
    golden = torch.load(shared / "golden" / "tiny_tau.pt", weights_only=True)
    pred, target = golden["y_train"], golden["target"]
    loss, terms = build_loss("l2reg", LossOptions(0.5, torch.ones(2)))(pred, target)
    assert terms["divergence"].item() == pytest.approx(golden["diff_div_reg"], rel=1e-5)
    assert loss.item() == pytest.approx(golden["loss_tau_alpha0.1"], rel=1e-6)


@pytest.mark.parametrize("l1_weight", [0.0, 1.0])
def test_ssim_alone_has_no_share_of_l1_whatever_the_weight(l1_weight: float) -> None:
    pred, target = pair(2, 3, 1, 24, 24)
    loss, _ = build_loss("ssim", LossOptions(l1_weight, torch.ones(1)))(pred, target)
    assert loss.item() == pytest.approx(1 - ssim(pred, target, torch.ones(1)).mean().item())


@pytest.mark.parametrize("name", ["ssim", "l1ssim"])
def test_data_range_reaches_the_similarity(name: str) -> None:
    pred, target = pair(1, 2, 1, 24, 24)
    spans = torch.tensor([0.5])
    _, terms = build_loss(name, LossOptions(0.5, spans))(pred, target)
    assert terms["ssim"].item() == pytest.approx(ssim(pred, target, spans).mean().item())
    assert terms["ssim"].item() != pytest.approx(ssim(pred, target, 2 * spans).mean().item())


def test_l2reg_is_mse_and_a_tenth_of_the_divergence_of_changes() -> None:
    # One pixel rises by ln 3 / 10 a frame, the other and the target rest: over the temperature of 0.1 the changes are
    # (ln 3, 0), whose softmax is (3/4, 1/4), against (1/2, 1/2). The squares are (0 + 1 + 4)·(ln 3 / 10)² in 6 values.
    pred = torch.tensor([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0]], dtype=torch.float64).view(1, 3, 1, 1, 2) * np.log(3) / 10
    loss, terms = build_loss("l2reg", LossOptions(0.5, torch.ones(1)))(pred, torch.zeros_like(pred))
    divergence = (0.75 * np.log(1.5) + 0.25 * np.log(0.5)) / 2
    squares = 5 * (np.log(3) / 10) ** 2 / 6
    assert terms["divergence"].item() == pytest.approx(divergence)
    assert loss.item() == pytest.approx(squares + 0.1 * divergence)


def test_divergence_needs_two_differences() -> None:
    pred, target = pair(1, 3, 1, 4, 4)
    assert differential_divergence(pred, target) > 0
    assert differential_divergence(pred[:, :2], target[:, :2]) == 0


def test_misspelt_loss_gets_a_suggestion() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'l1ssim'"):
        build_loss("l1sim", LossOptions(0.5, torch.ones(1)))


MINE = """
from pdr_cli.trust import USER
from pdr_cli.training.losses import LossOptions
from pdr_cli.trust import USER

class Quartic:
    def __init__(self, options: LossOptions) -> None:
        self.span = options.data_range
    def __call__(self, pred, target, weight=None):
        loss = (((pred - target) / self.span) ** 4).mean()
        return loss, {"quartic": loss.detach()}

def nothing(options):
    return 3
"""


@pytest.fixture
def my_losses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_losses.py").write_text(MINE)
    monkeypatch.syspath_prepend(str(tmp_path))
    announced = EntryPoints([EntryPoint("quartic", "my_losses:Quartic", "pdr.losses")])
    monkeypatch.setattr("importlib.metadata.entry_points", announced.select)


@pytest.mark.usefixtures("my_losses")
@pytest.mark.parametrize("name", ["quartic", "my_losses:Quartic"])
def test_loss_of_another_package_is_built_from_the_options(name: str) -> None:
    loss, terms = build_loss(name, LossOptions(0.5, torch.tensor(2.0)), USER)(torch.tensor(6.0), torch.tensor(2.0))
    assert (loss.item(), list(terms)) == (16, ["quartic"])  # ((6 - 2) / 2)^4


@pytest.mark.usefixtures("my_losses")
def test_network_is_trained_with_a_loss_of_another_package(make_run: Callable[..., Path], weather: Path) -> None:
    run = make_run(weather, "--set", "train.loss=my_losses:Quartic")
    assert "quartic" in json.loads((run / "metrics.jsonl").read_text().splitlines()[0])


@pytest.mark.usefixtures("my_losses")
@pytest.mark.parametrize(("name", "says"), [("my_losses:nothing", "builds a int"), ("my_losses:MINE", "MINE")])
def test_object_that_is_not_a_loss_is_refused(name: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        build_loss(name, LossOptions(0.5, torch.ones(1)), USER)


def test_weight_outside_its_range_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"l1_weight is 1\.5"):
        L1SSIM(LossOptions(1.5, torch.ones(1)))


NAMES = ("l1ssim", "ssim", "l1", "mse", "l2reg")


def masked(name: str, pred: Tensor, target: Tensor, weight: Tensor | None) -> Tensor:
    return build_loss(name, LossOptions(0.5, torch.ones(2)))(pred, target, weight)[0]


@pytest.mark.parametrize("name", NAMES)
def test_a_cell_without_truth_moves_neither_loss_nor_gradient(name: str) -> None:
    pred, target = pair(1, 4, 2, 24, 26)
    known = torch.ones_like(target)
    known[..., 5:9, 14:20] = 0
    known[:, 2, 0, 20:] = 0
    pred.requires_grad_()
    loss = masked(name, pred, target, known)
    (gradient,) = torch.autograd.grad(loss, pred)
    assert gradient.isfinite().all()
    assert (gradient[known == 0] == 0).all()
    assert gradient[known > 0].abs().max() > 0
    elsewhere = torch.where(known > 0, pred, pred + 1e3), torch.where(known > 0, target, target - 1e3)
    assert masked(name, *elsewhere, known).item() == pytest.approx(loss.item(), rel=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_weights_of_one_change_nothing(name: str) -> None:
    pred, target = pair(2, 3, 2, 24, 26)
    plain = masked(name, pred, target, None).item()
    assert masked(name, pred, target, torch.ones_like(target)).item() == pytest.approx(plain, rel=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_without_any_truth_teaches_nothing(name: str) -> None:
    pred, target = pair(1, 3, 2, 12, 12)
    loss = masked(name, pred.requires_grad_(), target, torch.zeros_like(target))
    (gradient,) = torch.autograd.grad(loss, pred)
    assert (loss.item(), gradient.abs().max().item()) == (0, 0)


def test_weights_are_those_of_a_mean() -> None:
    pred, target = torch.zeros(1, 1, 1, 2, 2), torch.tensor([[1.0, 1.0], [3.0, 5.0]]).view(1, 1, 1, 2, 2)
    rows = torch.tensor([[3.0], [1.0]])  # of two rows
    # (3·1 + 3·1 + 1·3 + 1·5) / 8 and (3·1 + 3·1 + 1·9 + 1·25) / 8
    options = LossOptions(0.5, torch.ones(1))
    assert build_loss("l1", options)(pred, target, rows)[0].item() == pytest.approx(1.75)
    assert build_loss("mse", options)(pred, target, rows)[0].item() == pytest.approx(5.0)


def test_windows_of_ssim_that_touch_a_missing_cell_are_left_out() -> None:
    pred, target = pair(1, 1, 1, 12, 24)
    known = torch.ones_like(target)
    known[..., 11] = 0  # 5 x 5 windows: those of columns 7 to 11 hold it, so columns 0 to 10 and 12 to 23 stay
    left, right = (
        ssim_map(pred[..., half], target[..., half], torch.ones(1)) for half in (slice(0, 11), slice(12, 24))
    )
    assert window_size(12, 11) == window_size(12, 24) == 5
    expected = torch.cat([left.flatten(), right.flatten()]).mean().item()
    loss = build_loss("ssim", LossOptions(0.0, torch.ones(1)))(pred, target, known)[0]
    assert 1 - loss.item() == pytest.approx(expected, abs=1e-6)


def test_ssim_goes_round_a_periodic_frame() -> None:
    pred, target = pair(1, 1, 1, 24, 26)
    here, there = (
        build_loss("ssim", LossOptions(0.0, torch.ones(1), periodic=True))(*frames)[0].item()
        for frames in ((pred, target), (pred.roll(7, -1), target.roll(7, -1)))
    )
    assert here == pytest.approx(there, abs=1e-6)
    plain = build_loss("ssim", LossOptions(0.0, torch.ones(1)))
    assert plain(pred, target)[0].item() != pytest.approx(
        plain(pred.roll(7, -1), target.roll(7, -1))[0].item(), abs=1e-4
    )


@pytest.mark.parametrize("M", [1, 2, 5])
@pytest.mark.parametrize("masked", [False, True])
def test_crps_of_members_is_that_of_scores(M: int, masked: bool) -> None:
    random = np.random.default_rng(0)
    members, target = random.normal(size=(M, 3, 2, 1, 4, 5)), random.normal(size=(3, 2, 1, 4, 5))
    weight = (random.random(target.shape) > 0.3).astype(float) if masked else None
    found = fair_crps(*map(torch.from_numpy, (members, target)), None if weight is None else torch.from_numpy(weight))
    dims = ("m", "b", "t", "c", "y", "x")
    method = "fair" if M > 1 else "ecdf"
    values = crps_for_ensemble(
        xr.DataArray(members, dims=dims), xr.DataArray(target, dims=dims[1:]), "m", method=method, preserve_dims="all"
    )
    expected = np.average(values.transpose(*dims[1:]).values, weights=weight)
    assert float(found) == pytest.approx(expected, rel=1e-6)


def test_fair_crps_does_not_depend_on_the_number_of_members() -> None:
    drawn = torch.randn(8, 40_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    truth = torch.randn(40_000, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for M in (2, 8):
        assert float(fair_crps(drawn[:M], truth)) == pytest.approx(1 / np.sqrt(np.pi), rel=0.01)


def test_the_almost_fair_crps_sees_a_single_member_that_is_wrong() -> None:
    """With one of two members at the truth, the fair CRPS is 0 wherever the other is; the almost fair one is not."""
    target = torch.zeros(1, 1, 1, 2, 2)
    pred = torch.cat([target, target + 3]).requires_grad_()
    loss, terms = build_loss("crps", LossOptions(0.5, torch.ones(1)))(pred, target)
    assert float(fair_crps(pred.detach().unflatten(0, (2, 1)), target)) == pytest.approx(0)
    assert float(loss) == pytest.approx(3 * 0.05 / 4, rel=1e-4)
    assert float(terms["spread"]) == pytest.approx(1.5)
    (gradient,) = torch.autograd.grad(loss, pred)
    assert (gradient[1] > 0).all()
