"""What every frame-by-frame predictor shares: patches, the unrolling in time, and how it is taught."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from pdr_cli.errors import ConfigError
from pdr_cli.models.predictors.simvp import pad_to_multiple, where_known

# OpenSTL stops showing true frames after 50,000 of the 63,900 steps that TaxiBJ's 50 epochs have.
SAMPLING_SPAN = 0.78


class Recurrent(nn.Module, ABC):
    """A predictor that takes one frame, updates its memory and gives the next frame, over any number of steps.

    Args:
        patch: p, side of the squares of pixels that become channels of one cell: [C, H, W] → [C·p², H/p, W/p].
        multiple: what H and W are extended to a multiple of; default p.
    """

    any_horizon = True

    def __init__(self, patch: int, multiple: int | None = None) -> None:
        super().__init__()
        self.patch = patch
        self.multiple = multiple or patch

    @abstractmethod
    def begin(self, frame: Tensor) -> Any:
        """The memory before the first frame, [B, C·p², H', W']."""

    @abstractmethod
    def step(self, frame: Tensor, memory: Any) -> tuple[Tensor, Any]:
        """The next frame and the memory after this one; frames are [B, C·p², H', W']."""

    def training_terms(self, memory: Any) -> dict[str, Tensor]:
        """What training minimises beside the loss of the frames, given the memory at the end."""
        return {}

    def shown(self, batch: int, in_steps: int, out_steps: int, progress: float, device: torch.device) -> Tensor:
        """Which frames are true when they are fed in, the others being the model's own. [B, T + τ − 1], bool.

        Scheduled sampling (Bengio et al. 2015): all observed frames, and later ones with a probability that falls
        linearly from 1 to 0.
        """
        later = torch.rand(batch, out_steps - 1, device=device) < 1 - progress / SAMPLING_SPAN
        return torch.cat([later.new_ones(batch, in_steps), later], dim=1)

    def forward(self, x: Tensor, steps: int | None = None, anchored: bool = False) -> Tensor:
        """The frames that follow: x: [B, T, C, H, W] → [B, steps, C, H, W], default T of them.

        With `anchored`, each step gives the change since the last observed frame.
        """
        T, H, W = x.shape[1], *x.shape[-2:]
        frames, _ = self.unroll(self.fold(x), T, steps or T, None, anchored)
        return self.unfold(frames[:, T - 1 :], H, W)

    def training_forecast(
        self, x: Tensor, target: Tensor, progress: float, anchored: bool = False, known: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The forecast as it is made in training, and what is minimised beside its loss.

        Some true frames stand in for the model's own as `shown` says, and what it made of the observed frames
        counts as much as each forecast frame does.

        Args:
            x: [B, T, C, H, W], observed.
            target: [B, τ, C, H, W].
            progress: share of the training that is done.
            anchored: as in `forward`.
            known: [B, T + τ, C, H, W], True where the data have values, which are filled elsewhere; None: everywhere.

        Returns:
            [B, τ, C, H, W], and terms by name.
        """
        (B, T, _, H, W), steps = x.shape, target.shape[1]
        shown = self.shown(B, T, steps, progress, x.device)
        folded, memory = self.unroll(self.fold(torch.cat([x, target], dim=1)), T, steps, shown, anchored)
        frames = self.unfold(folded, H, W)
        terms = self.training_terms(memory)
        if T > 1:
            made = where_known(frames[:, : T - 1], x[:, 1:], None if known is None else known[:, 1:T])
            terms["observed_loss"] = (T - 1) / steps * nn.functional.mse_loss(made, x[:, 1:])
        return frames[:, T - 1 :], terms

    def unroll(
        self, true: Tensor, in_steps: int, out_steps: int, shown: Tensor | None, anchored: bool
    ) -> tuple[Tensor, Any]:
        """One frame after the other, from the second observed one to the last forecast one.

        Args:
            true: [B, T or T + τ, C·p², H', W'], the latter only with `shown`.
            in_steps: T.
            out_steps: τ.
            shown: [B, T + τ − 1], see `shown`; None: all observed frames and no other.
            anchored: as in `forward`.

        Returns:
            [B, T + τ − 1, C·p², H', W'], and the memory at the end.
        """
        memory = self.begin(true[:, 0])
        latest = anchor = true[:, 0]
        frames = []
        for t in range(in_steps + out_steps - 1):
            if shown is not None and t > 0:
                frame = torch.where(shown[:, t, None, None, None], true[:, t], latest)
            else:
                frame = true[:, t] if t < in_steps else latest
            anchor = frame if t < in_steps else anchor
            latest, memory = self.step(frame, memory)
            latest = anchor + latest if anchored else latest
            frames.append(latest)
        return torch.stack(frames, dim=1), memory

    def fold(self, frames: Tensor) -> Tensor:
        """[B, T, C, H, W] → [B, T, C·p², H', W'], extended to the multiple first."""
        flat = pad_to_multiple(frames.flatten(0, 1), self.multiple)
        return nn.functional.pixel_unshuffle(flat, self.patch).unflatten(0, frames.shape[:2])

    def unfold(self, frames: Tensor, H: int, W: int) -> Tensor:
        """[B, T, C·p², H', W'] → [B, T, C, H, W]."""
        return nn.functional.pixel_shuffle(frames, self.patch)[..., :H, :W]


def patch_size(n_s: int) -> int:
    """The side of a patch on the grid that n_s encoder units would leave: 2^(n_s/2)."""
    if n_s < 2 or n_s % 2:
        raise ConfigError(f"n_s is {n_s}; it must be 2 or another even number.")
    return 2 ** (n_s // 2)


def patched_grid(name: str, size: tuple[int, int] | None, multiple: int) -> tuple[int, int]:
    """(H', W') for predictors whose weights belong to places.

    Raises:
        ConfigError: no size is given.
    """
    if size is None:
        raise ConfigError(f"{name} has weights for each place of the grid; it cannot be built without size=(H, W).")
    return -(-size[0] // multiple), -(-size[1] // multiple)


def same_conv(inputs: int, outputs: int, kernel: int, bias: bool = False) -> nn.Conv2d:
    """A convolution that keeps the grid."""
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=bias)


def zeros(frame: Tensor, channels: int) -> Tensor:
    """[B, channels, H', W'], zero, on the grid and device of `frame`."""
    return frame.new_zeros(frame.shape[0], channels, *frame.shape[2:])
