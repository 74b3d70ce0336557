"""The U-Net: frames and covariates in, all leads out at once."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pdr_cli.errors import ConfigError, DataError
from pdr_cli.models import registry
from pdr_cli.models.interfaces import Frames
from pdr_cli.models.predictors import unet
from pdr_cli.models.predictors.unet import UNet
from tests.models.builders import options

FRAMES = Frames(3, 2, (9, 14), out_steps=5)


def small(frames: Frames = FRAMES, *, started: bool = True, **changes: Any) -> UNet:
    """A small network; `started`: its last convolution, which begins at zero, has weights."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"hid_s": 6, "hid_t": 8, "n_s": 4, "n_t": 3, "dropout": 0.0}
    built = registry.build_predictor(options(backbone="unet", **sizes | changes), frames)
    assert isinstance(built, UNet)
    if started:
        nn.init.normal_(built.head.weight)
    return built


def window(frames: Frames = FRAMES, batch: int = 2) -> Tensor:
    return torch.rand(batch, frames.in_steps, frames.channels, *frames.size)


@pytest.mark.parametrize("size", [(9, 14), (3, 5), (8, 8)])
@pytest.mark.parametrize("out_steps", [0, 2, 5])
def test_one_pass_gives_the_frames_of_training_on_any_grid(size: tuple[int, int], out_steps: int) -> None:
    frames = Frames(3, 2, size, out_steps=out_steps)
    assert small(frames).one_pass(window(frames), None).shape == (2, out_steps or 3, 2, *size)


def test_the_first_forecast_is_zero_so_that_it_is_the_anchors() -> None:
    assert not small(started=False).one_pass(window(), None).any()


def test_more_frames_are_forecast_from_its_own_forecast() -> None:
    model, x = small(), window()
    first = model.one_pass(x, None)
    seen = torch.cat([x, first], dim=1)[:, -3:]
    assert torch.equal(model(x, steps=7), torch.cat([first, model.one_pass(seen, None)[:, :2]], dim=1))


def test_every_frame_depends_on_every_frame() -> None:
    x = window(batch=1).requires_grad_()
    for frame in small().one_pass(x, None)[0]:
        (gradient,) = torch.autograd.grad(frame.sum(), x, retain_graph=True)
        assert (gradient[0].abs().amax(dim=(1, 2, 3)) > 0).all()


@pytest.mark.parametrize("features", [1, 7])  # fewer and more channels than the layer that mixes them lets through
def test_covariates_of_every_time_are_read(features: int) -> None:
    frames = FRAMES._replace(covariates=features)
    given = torch.rand(1, 8, features, 9, 14, requires_grad=True)
    (gradient,) = torch.autograd.grad(small(frames).one_pass(window(batch=1), given).square().sum(), given)
    assert (gradient[0].abs().amax(dim=(2, 3)) > 0).all()


def test_the_learned_map_has_values_of_each_cell() -> None:
    model = small()
    model.one_pass(window(), None).square().sum().backward()
    assert model.static.grad is not None
    assert (model.static.grad.abs().sum(dim=0) > 0).all()


def test_longitudes_go_round() -> None:
    frames = Frames(3, 2, (8, 16), periodic=True)
    model, x = small(frames).double().eval(), window(frames).double()
    model.static.data.zero_()  # it belongs to the cells and does not turn with the map
    turned = model.one_pass(x.roll(4, -1), None)
    # Sums of a norm go in another order: equal up to the rounding of float64.
    assert torch.allclose(turned, model.one_pass(x, None).roll(4, -1), rtol=0, atol=1e-12)


def test_every_parameter_learns() -> None:
    frames = FRAMES._replace(covariates=2)
    model = small(frames).train()
    model.one_pass(window(), torch.rand(2, 8, 2, 9, 14)).square().mean().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_two_sequences_are_learned_in_a_few_steps() -> None:
    torch.manual_seed(0)
    model, x, y = small(started=False).train(), window(), torch.rand(2, 5, 2, 9, 14)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(40):
        losses.append(nn.functional.mse_loss(model.one_pass(x, None), y))
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < losses[0] / 4


def test_dropout_is_of_training_alone() -> None:
    model, x = small(dropout=0.5), window()
    assert not torch.equal(model.train().one_pass(x, None), model.one_pass(x, None))
    assert torch.equal(model.eval().one_pass(x, None), model.one_pass(x, None))


def test_dropout_leaves_the_weights_and_the_forecast_alone() -> None:
    x = window()
    plain, dropping = small().eval(), small(dropout=0.5).eval()
    assert torch.equal(plain.one_pass(x, None), dropping.one_pass(x, None))


def test_parameters_are_counted_by_hand() -> None:
    # 4 frames of one channel, 2 covariates of 8 times, a map of 4 channels; widths 32 and 48 on two coarser grids.
    def conv(inputs: int, outputs: int, side: int = 3) -> int:
        return side * side * inputs * outputs + outputs

    def unit(inputs: int, outputs: int) -> int:
        return conv(inputs, outputs) + 2 * outputs  # with the scale and shift of its norm

    mix, enter = conv(16, 16, 1), unit(4 + 16 + 4, 32)
    fine = 2 * unit(32, 32) + unit(32, 48) + conv(48, 4 * 32, 1)
    middle = 2 * unit(48, 48) + unit(48, 48) + conv(48, 4 * 48, 1)
    expected = 4 * 25 * 53 + mix + enter + fine + middle + 2 * unit(48, 48) + conv(32, 4, 1)
    model = small(Frames(4, 1, (25, 53), covariates=2), hid_s=32, hid_t=48, n_t=2)
    assert sum(p.numel() for p in model.parameters()) == expected


@pytest.mark.parametrize(
    ("shape", "found"), [((2, 4, 2, 9, 14), "4 x 2 x 9 x 14"), ((2, 3, 2, 9, 15), "3 x 2 x 9 x 15")]
)
def test_other_frames_are_refused(shape: tuple[int, ...], found: str) -> None:
    with pytest.raises(DataError, match=f"{found}; expected 3 x 2 x 9 x 14"):
        small().one_pass(torch.rand(shape), None)


@pytest.mark.parametrize(("features", "given"), [(2, None), (2, 3), (0, 1)])
def test_other_covariates_are_refused(features: int, given: int | None) -> None:
    covariates = None if given is None else torch.rand(2, 8, given, 9, 14)
    with pytest.raises(DataError, match=f"{given or 0} covariates; expected {features}"):
        small(FRAMES._replace(covariates=features)).one_pass(window(), covariates)


def test_an_odd_number_of_encoder_units_is_refused() -> None:
    with pytest.raises(ConfigError, match="n_s is 3"):
        small(n_s=3)


@pytest.mark.parametrize("size", [(25, 53), (4, 40), (33, 6)])
@pytest.mark.parametrize("periodic", [False, True])
def test_the_level_is_the_mean_of_the_square_around_a_cell(size: tuple[int, int], periodic: bool) -> None:
    H, W = size
    frames = torch.randn(2, 3, 2, H, W, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = unet.without_level(frames, periodic)
    last, reach = frames[:, -1], unet.AROUND // 2
    for y, x in [(0, 0), (H - 1, W - 1), (H // 2, W // 2), (1, W - 2)]:
        rows = range(max(0, y - reach), min(H, y + reach + 1))
        columns = [c % W for c in range(x - reach, x + reach + 1) if periodic or 0 <= c < W]
        square = last[:, :, list(rows)][..., columns]
        torch.testing.assert_close(found[:, -1, :, y, x], last[..., y, x] - square.mean(dim=(-2, -1)))
    torch.testing.assert_close(found[:, :-1], frames[:, :-1] - frames[:, -1:])
