"""The shell that every pixel-space predictor shares: frame encoder, translator, frame decoder (SimVP, Gao et al. 2022).

Module names follow OpenSTL's, so that its released weights load as they are.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from pdr_cli.errors import ConfigError, DataError


def rollout(predictor: Callable[[Tensor], Tensor], x: Tensor, out_steps: int) -> Tensor:
    """The first `out_steps` frames, fed back as input where the predictor's own horizon is shorter.

    Gradients flow through every pass. x: [B, T, C, H, W] → [B, τ, C, H, W].
    """
    in_steps = x.shape[1]
    frames = predictor(x)
    while frames.shape[1] < out_steps:
        latest = torch.cat([x, frames], dim=1)[:, -in_steps:]
        frames = torch.cat([frames, predictor(latest)], dim=1)
    return frames[:, :out_steps]


class SimVP(nn.Module):
    """Encoder over single frames, translator over all of them at once, decoder over single frames.

    Args:
        in_steps: T, the frames it takes and gives.
        channels: C.
        translator: maps [B, T·hid_s, H', W'] to the same shape, H' = H / 2^(n_s/2).
        hid_s: channels of a latent frame.
        n_s: units in the encoder and in the decoder; every second one halves or doubles the grid.
        kernels: sides of the convolutions in the encoder and in the decoder, odd.
        periodic: the last column is a neighbour of the first, for every convolution, the translator's too.
    """

    def __init__(
        self,
        in_steps: int,
        channels: int,
        translator: nn.Module,
        hid_s: int,
        n_s: int,
        kernels: tuple[int, int] = (3, 3),
        periodic: bool = False,
    ) -> None:
        super().__init__()
        if n_s < 2 or n_s % 2:
            raise ConfigError(f"n_s is {n_s}; it must be 2 or another even number.")
        if hid_s < 2 or hid_s % 2:
            raise ConfigError(f"hid_s is {hid_s}; it must be even, because channels are normalised in two groups.")
        self.in_steps = in_steps
        self.multiple: int = 2 ** (n_s // 2)
        self.enc = Encoder(channels, hid_s, n_s, kernels[0])
        self.hid = translator
        self.dec = Decoder(hid_s, channels, n_s, kernels[1])
        self.periodic = periodic
        if periodic:
            go_round(self)

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, T, C, H, W] → [B, T, C, H, W], the T frames that follow."""
        B, T, _, H, W = x.shape
        if self.in_steps != T:
            raise DataError(f"The input has {T} frames; this model takes {self.in_steps}.")
        frames = pad_to_multiple(x.flatten(0, 1), self.multiple, self.periodic)  # [B·T, C, H, W]
        latent, skip = self.enc(frames)  # [B·T, hid_S, H', W'], [B·T, hid_S, H, W]
        latent = self.hid(latent.unflatten(0, (B, T)).flatten(1, 2))  # [B, T·hid_S, H', W']
        out = self.dec(latent.unflatten(1, (T, -1)).flatten(0, 1), skip)
        return out[..., :H, :W].unflatten(0, (B, T))


class Encoder(nn.Module):
    """n_s units, every second one with stride 2; the first unit's output is the skip."""

    def __init__(self, channels: int, hid_s: int, n_s: int, kernel_size: int) -> None:
        super().__init__()
        self.enc = nn.ModuleList(
            conv_unit(hid_s if i else channels, hid_s, kernel_size, stride=1 + i % 2) for i in range(n_s)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        skip = latent = self.enc[0](x)
        for unit in self.enc[1:]:
            latent = unit(latent)
        return latent, skip


class Decoder(nn.Module):
    """n_s units, every second one upsampling; the skip is added before the last."""

    def __init__(self, hid_s: int, channels: int, n_s: int, kernel_size: int) -> None:
        super().__init__()
        self.dec = nn.ModuleList(conv_unit(hid_s, hid_s, kernel_size, upsample=i % 2 == 0) for i in range(n_s))
        self.readout = nn.Conv2d(hid_s, channels, 1)

    def forward(self, latent: Tensor, skip: Tensor) -> Tensor:
        *units, last = self.dec
        for unit in units:
            latent = unit(latent)
        return self.readout(last(latent + skip))


def conv_unit(inputs: int, outputs: int, kernel_size: int, stride: int = 1, upsample: bool = False) -> nn.Sequential:
    """Convolution, GroupNorm of two groups, SiLU; with `upsample` the convolution ends in a pixel shuffle by 2."""
    conv = nn.Conv2d(inputs, 4 * outputs if upsample else outputs, kernel_size, stride=stride, padding=kernel_size // 2)
    nn.init.trunc_normal_(conv.weight, std=0.02)
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]  # there is a bias
    convolve = nn.Sequential(conv, nn.PixelShuffle(2)) if upsample else conv
    body = nn.Sequential(OrderedDict(conv=convolve, norm=nn.GroupNorm(2, outputs), act=nn.SiLU()))
    return nn.Sequential(OrderedDict(conv=body))  # the doubled name is OpenSTL's


class RoundConv2d(nn.Conv2d):
    """A convolution that finds the first columns beyond the last ones; rows are padded with zeros."""

    @classmethod
    def of(cls, conv: nn.Conv2d) -> RoundConv2d:
        """One with the weights of `conv`."""
        channels = (conv.in_channels, conv.out_channels)
        shape: dict[str, Any] = {
            k: getattr(conv, k) for k in ("kernel_size", "stride", "padding", "dilation", "groups")
        }
        same = cls(*channels, **shape, bias=conv.bias is not None, device="meta")  # takes no random numbers
        same.weight, same.bias = conv.weight, conv.bias
        return same

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = (int(p) for p in self.padding)
        W = x.shape[-1]
        turns = -(-columns // W)
        around = torch.cat([x] * (2 * turns + 1), dim=-1)[..., turns * W - columns : (turns + 1) * W + columns]
        return nn.functional.conv2d(around, self.weight, self.bias, self.stride, (rows, 0), self.dilation, self.groups)


def go_round(module: nn.Module) -> None:
    """Turn every convolution inside that pads its columns into a `RoundConv2d`; names and weights stay."""
    for name, child in module.named_children():
        if isinstance(child, nn.Conv2d) and not isinstance(child.padding, str) and child.padding[1]:
            setattr(module, name, RoundConv2d.of(child))
        else:
            go_round(child)


def pad_to_multiple(frames: Tensor, multiple: int, periodic: bool = False) -> Tensor:
    """Frames [P, C, H, W] grown at the bottom and right until both sides are multiples.

    To the right of a `periodic` frame lies its beginning.
    """
    frames = extend(frames, -2, -frames.shape[-2] % multiple)
    extra = -frames.shape[-1] % multiple
    if periodic and extra:
        return torch.cat([frames, frames[..., :extra]], -1)
    return extend(frames, -1, extra)


def extend(frames: Tensor, dim: int, extra: int) -> Tensor:
    """`extra` more places at the end of `dim`: mirrored without the edge, or the edge repeated where that is too short.

    Joined from pieces because padding's own gradient is not deterministic on GPUs.
    """
    if extra == 0:
        return frames
    length = frames.shape[dim]
    if extra < length:
        tail = frames.narrow(dim, length - 1 - extra, extra).flip(dim)
    else:
        tail = frames.narrow(dim, length - 1, 1).repeat_interleave(extra, dim)
    return torch.cat([frames, tail], dim)


def where_known(pred: Tensor, target: Tensor, known: Tensor | None) -> Tensor:
    """`pred`, with `target` in its place where nothing is known: a difference from it there is 0 and teaches nothing."""
    return pred if known is None else torch.where(known, pred, target)
