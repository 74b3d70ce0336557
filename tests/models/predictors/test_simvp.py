"""The shell: any grid, any horizon."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pdr_cli.errors import DataError
from pdr_cli.models.layers import pad_to_multiple, rollout

Build = Callable[..., Any]


class Doubling(nn.Module):
    """Gives back as many frames as it is asked for, each twice the corresponding input frame."""

    def __init__(self, out_steps: int) -> None:
        super().__init__()
        self.out_steps = out_steps
        self.passes = 0

    def forward(self, x: Tensor) -> Tensor:
        self.passes += 1
        return 2 * x[:, : self.out_steps]


@pytest.mark.parametrize(("H", "W", "n_s"), [(25, 53, 2), (25, 53, 4), (8, 12, 4), (3, 5, 4)])
def test_shape_is_kept_on_any_grid(small_tau: Build, H: int, W: int, n_s: int) -> None:
    x = torch.rand(2, 3, 2, H, W)
    assert small_tau(n_s=n_s)(x).shape == x.shape


def test_odd_grid_is_the_mirrored_grid_cropped(small_tau: Build) -> None:
    model = small_tau(n_s=4).eval()
    x = torch.rand(1, 3, 2, 25, 53)  # to multiples of 4: 3 more rows, 3 more columns
    mirrored = torch.cat([x, x[..., [23, 22, 21], :]], dim=-2)
    mirrored = torch.cat([mirrored, mirrored[..., [51, 50, 49]]], dim=-1)
    assert torch.equal(model(x), model(mirrored)[..., :25, :53])


def test_side_too_small_to_mirror_repeats_its_edge() -> None:
    frames = torch.tensor([[1.0, 2.0, 3.0, 4.0]]).view(1, 1, 1, 4)
    assert torch.equal(pad_to_multiple(frames, 4), frames.expand(1, 1, 4, 4))


def test_divisible_grid_is_not_padded() -> None:
    frames = torch.rand(1, 1, 8, 12)
    assert pad_to_multiple(frames, 4) is frames


def test_skip_reaches_the_last_decoder_unit(small_tau: Build) -> None:
    model = small_tau().eval()
    x = torch.rand(1, 3, 2, 8, 8)
    for unit in list(model.dec.dec)[:-1]:
        unit.register_forward_hook(lambda module, args, out: torch.zeros_like(out))
    changed = x + torch.rand_like(x)
    assert not torch.equal(model(x), model(changed))


def test_shell_starts_from_small_truncated_normal_weights(small_tau: Build) -> None:
    torch.manual_seed(0)
    model = small_tau(hid_s=32)
    upsampling = model.dec.dec[0].conv.conv[0]  # 32·128·9 weights
    assert upsampling.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert upsampling.bias.abs().max() == 0


def test_wrong_number_of_frames_is_refused(small_tau: Build) -> None:
    with pytest.raises(DataError, match="4 frames; expected 3"):
        small_tau(in_steps=3)(torch.rand(1, 4, 2, 8, 8))


@pytest.mark.parametrize(
    ("out_steps", "passes", "expected"),
    [
        (2, 1, [2, 4]),
        (3, 1, [2, 4, 8]),
        (6, 2, [2, 4, 8, 4, 8, 16]),
        (7, 3, [2, 4, 8, 4, 8, 16, 8]),
    ],
    ids=["shorter", "equal", "two passes", "two passes and a remainder"],
)
def test_rollout_feeds_the_output_back(out_steps: int, passes: int, expected: list[float]) -> None:
    predictor = Doubling(out_steps=3)
    x = torch.tensor([1.0, 2.0, 4.0]).view(1, 3, 1, 1, 1)
    assert rollout(lambda seen, first: predictor(seen), x, out_steps).flatten().tolist() == expected
    assert predictor.passes == passes


def test_rollout_of_a_shorter_predictor_keeps_the_latest_input() -> None:
    # 1 frame out of 3: the next input is (2, 4, 2), then (4, 2, 4).
    x = torch.tensor([1.0, 2.0, 4.0]).view(1, 3, 1, 1, 1)
    assert rollout(lambda seen, first: Doubling(out_steps=1)(seen), x, 3).flatten().tolist() == [2, 4, 8]


def test_rollout_passes_gradients_through_every_pass() -> None:
    x = torch.ones(1, 2, 1, 1, 1, requires_grad=True)
    rollout(lambda seen, first: Doubling(out_steps=2)(seen), x, 6)[:, -1].sum().backward()
    assert x.grad is not None
    assert x.grad.flatten().tolist() == [0, 8]  # three doublings of the second frame
