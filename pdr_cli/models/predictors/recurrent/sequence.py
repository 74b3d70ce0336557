"""What the recurrent predictors share: patches, unrolling in time, and training."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from pdr_cli.errors import ConfigError
from pdr_cli.models.interfaces import Anchoring, Batch, Predictor, Terms, target_of
from pdr_cli.models.layers import pad_to_multiple, where_known

# OpenSTL stops feeding in true frames after 50,000 of the 63,900 steps that TaxiBJ's 50 epochs have.
SAMPLING_SPAN = 0.78


class Recurrent(Predictor):
    """A predictor that reads one frame, updates its memory and predicts the next frame, for any number of steps.

    Args:
        patch: p, side of the squares of pixels that become channels of one cell: [C, H, W] → [C·p², H/p, W/p].
        multiple: H and W are extended to multiples of this; default p.
    """

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

    def training_terms(self, memory: Any) -> Terms:
        """Loss terms of the memory at the end of a training sequence."""
        return {}

    def teacher_mask(self, batch: Batch) -> Tensor:
        """True where the network's input is the true frame, False where it is its own. [B, T + τ − 1].

        Scheduled sampling (Bengio et al. 2015): all observed frames are true, later ones with a probability that falls
        linearly from 1 to 0.
        """
        B, T = batch.observed.shape[:2]
        later = torch.rand(B, batch.steps - 1, device=batch.observed.device) < 1 - batch.progress / SAMPLING_SPAN
        return torch.cat([later.new_ones(B, T), later], dim=1)

    def forward(
        self,
        x: Tensor,
        steps: int | None = None,
        anchor: Anchoring | None = None,
        covariates: Tensor | None = None,
        seeds: Tensor | None = None,
    ) -> Tensor:
        """See `Predictor.forward`; a step among the observed frames gives the change from the frame before it."""
        T, H, W = x.shape[1], *x.shape[-2:]
        frames, _ = self.unroll(self.fold(x), T, steps or T, None, self._anchors(x, steps or T, anchor))
        return self.unfold(frames[:, T - 1 :], H, W)

    def training_forward(self, batch: Batch, anchor: Anchoring | None = None) -> tuple[Tensor, Terms]:
        """The forecast with teacher forcing as in `teacher_mask`, and the predictor's loss terms.

        What the network predicts for observed frames counts as much as each forecast frame ("observed_loss").
        """
        x, known = batch.observed, batch.known
        _, T, _, H, W = x.shape
        true = self.fold(torch.cat([x, target_of(batch)], dim=1))
        anchors = self._anchors(x, batch.steps, anchor)
        folded, memory = self.unroll(true, T, batch.steps, self.teacher_mask(batch), anchors)
        frames = self.unfold(folded, H, W)
        terms = self.training_terms(memory)
        if T > 1:
            made = where_known(frames[:, : T - 1], x[:, 1:], None if known is None else known[:, 1:T])
            terms["observed_loss"] = (T - 1) / batch.steps * nn.functional.mse_loss(made, x[:, 1:])
        return frames[:, T - 1 :], terms

    def unroll(
        self, true: Tensor, in_steps: int, steps: int, mask: Tensor | None, anchors: Tensor | None
    ) -> tuple[Tensor, Any]:
        """Predict frame by frame, from the second observed frame to the last forecast one.

        Args:
            true: [B, T, C·p², H', W'], or with `mask` [B, T + τ, C·p², H', W'].
            in_steps: T.
            steps: τ.
            mask: [B, T + τ − 1], see `teacher_mask`; None: the observed frames are true, all others the network's own.
            anchors: the frames that the output of each step is the change from, [B, T + τ − 1, C·p², H', W'].

        Returns:
            [B, T + τ − 1, C·p², H', W'], and the memory at the end.
        """
        memory = self.begin(true[:, 0])
        latest = true[:, 0]
        frames = []
        for t in range(in_steps + steps - 1):
            if mask is not None and t > 0:
                frame = torch.where(mask[:, t, None, None, None], true[:, t], latest)
            else:
                frame = true[:, t] if t < in_steps else latest
            latest, memory = self.step(frame, memory)
            latest = latest if anchors is None else anchors[:, t] + latest
            frames.append(latest)
            latest = self.bounded(latest)
        return torch.stack(frames, dim=1), memory

    def _anchors(self, x: Tensor, steps: int, anchor: Anchoring | None) -> Tensor | None:
        """The observed frames but the last, then the anchor's, folded: [B, T + τ − 1, C·p², H', W']."""
        return None if anchor is None else self.fold(torch.cat([x[:, :-1], anchor(x, 0, steps)], dim=1))

    def fold(self, frames: Tensor) -> Tensor:
        """[B, T, C, H, W] → [B, T, C·p², H', W'], extended to the multiple first."""
        flat = pad_to_multiple(frames.flatten(0, 1), self.multiple)
        return nn.functional.pixel_unshuffle(flat, self.patch).unflatten(0, frames.shape[:2])

    def unfold(self, frames: Tensor, H: int, W: int) -> Tensor:
        """[B, T, C·p², H', W'] → [B, T, C, H, W]."""
        return nn.functional.pixel_shuffle(frames, self.patch)[..., :H, :W]


def patch_size(n_s: int) -> int:
    """Side of a patch, 2^(n_s/2): the grid of patches is the one that n_s encoder units would leave.

    Raises:
        ConfigError: n_s is not even.
    """
    if n_s < 2 or n_s % 2:
        raise ConfigError(f"model.n_s is {n_s}", "2 or another even number")
    return 2 ** (n_s // 2)


def patched_grid(size: tuple[int, int], multiple: int) -> tuple[int, int]:
    """(H', W') of frames (H, W), for predictors with weights for each cell."""
    return -(-size[0] // multiple), -(-size[1] // multiple)


def same_conv(inputs: int, outputs: int, kernel: int, bias: bool = False) -> nn.Conv2d:
    """A convolution that keeps the grid."""
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=bias)


def zeros(frame: Tensor, channels: int) -> Tensor:
    """[B, channels, H', W'], zero, on the grid and device of `frame`."""
    return frame.new_zeros(frame.shape[0], channels, *frame.shape[2:])
