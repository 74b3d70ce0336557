"""The shell of the SimVP family: frame encoder, translator, frame decoder (SimVP, Gao et al. 2022).

Module names follow OpenSTL's, so that its released weights load as they are.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from pdr_cli.errors import ConfigError, DataError
from pdr_cli.models.interfaces import Frames, OnePass
from pdr_cli.models.layers import NormedSiLU, pad_to_multiple
from pdr_cli.models.predictors.translators.depthwise import depthwise
from pdr_cli.models.predictors.translators.metaformer import MetaFormer
from pdr_cli.models.predictors.translators.options import TranslatorOptions

if TYPE_CHECKING:
    from pdr_cli.schema import ModelConfig


class SimVP(OnePass):
    """Encoder for single frames, translator for all frames together, decoder for single frames.

    Args:
        frames: T, C, F, and whether the last column is a neighbour of the first for every convolution, the translator's
            too. The covariates of each observed frame, and of the frame T steps later, are further channels of it.
        translator: maps [B, T·hid_s, H', W'] to the same shape, H' = H / 2^(n_s/2).
        hid_s: channels of a latent frame.
        n_s: units in the encoder and in the decoder; every second one halves or doubles the grid.
        kernels: sides of the convolutions in the encoder and in the decoder, odd.
    """

    def __init__(
        self, frames: Frames, translator: nn.Module, hid_s: int, n_s: int, kernels: tuple[int, int] = (3, 3)
    ) -> None:
        super().__init__(frames.in_steps)
        check_shell(hid_s, n_s)
        self.in_steps = frames.in_steps
        self.multiple: int = 2 ** (n_s // 2)
        self.enc = Encoder(frames.channels + 2 * frames.covariates, hid_s, n_s, kernels[0])
        self.hid = translator
        self.dec = Decoder(hid_s, frames.channels, n_s, kernels[1])
        self.periodic = frames.periodic
        if frames.periodic:
            go_round(self)

    @classmethod
    def with_translator(
        cls, translator: Callable[[TranslatorOptions], nn.Module], frames: Frames, options: ModelConfig
    ) -> SimVP:
        """The predictor of the [model] table around a translator."""
        return cls(frames, translator(TranslatorOptions.of(frames, options)), options.hid_s, options.n_s)

    def one_pass(self, seen: Tensor, covariates: Tensor | None = None) -> Tensor:
        """See `OnePass.one_pass`; n = T."""
        B, T, _, H, W = seen.shape
        if self.in_steps != T:
            raise DataError(f"the input has {T} frames", f"{self.in_steps}, which the model takes")
        x = seen if covariates is None else torch.cat([seen, covariates[:, :T], covariates[:, T:]], dim=2)
        frames = pad_to_multiple(x.flatten(0, 1), self.multiple, self.periodic)  # [B·T, C, H, W]
        latent, skip = self.enc(frames)  # [B·T, hid_S, H', W'], [B·T, hid_S, H, W]
        latent = self.hid(latent.unflatten(0, (B, T)).flatten(1, 2))  # [B, T·hid_S, H', W']
        out = self.dec(latent.unflatten(1, (T, -1)).flatten(0, 1), skip)
        return out[..., :H, :W].unflatten(0, (B, T))

    def stages(self) -> list[nn.Module]:
        """See `Predictor.stages`: each unit of encoder and decoder, and each stage of the translator."""
        inside = self.hid.enc if isinstance(self.hid, MetaFormer) else [self.hid]
        return [*self.enc.enc, *inside, *self.dec.dec]


def check_shell(hid_s: int, n_s: int) -> None:
    """Refuse sizes from which no encoder and decoder can be built.

    Raises:
        ConfigError: names the size.
    """
    if n_s < 2 or n_s % 2:
        raise ConfigError(f"model.n_s is {n_s}", "2 or another even number")
    if hid_s < 2 or hid_s % 2:
        raise ConfigError(f"model.hid_s is {hid_s}", "an even number, because channels are normalised in two groups")


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
    """n_s units, every second one upsampling; a skip is added before the last."""

    def __init__(self, hid_s: int, channels: int, n_s: int, kernel_size: int) -> None:
        super().__init__()
        self.dec = nn.ModuleList(conv_unit(hid_s, hid_s, kernel_size, upsample=i % 2 == 0) for i in range(n_s))
        self.readout = nn.Conv2d(hid_s, channels, 1)

    def forward(self, latent: Tensor, skip: Tensor | None = None) -> Tensor:
        *units, last = self.dec
        for unit in units:
            latent = unit(latent)
        return self.readout(last(latent if skip is None else latent + skip))


def conv_unit(inputs: int, outputs: int, kernel_size: int, stride: int = 1, upsample: bool = False) -> nn.Sequential:
    """Convolution, GroupNorm of two groups, SiLU; with `upsample` the convolution ends in a pixel shuffle by 2."""
    conv = nn.Conv2d(inputs, 4 * outputs if upsample else outputs, kernel_size, stride=stride, padding=kernel_size // 2)
    nn.init.trunc_normal_(conv.weight, std=0.02)
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]  # there is a bias
    convolve = nn.Sequential(conv, nn.PixelShuffle(2)) if upsample else conv
    body = NormedSiLU(OrderedDict(conv=convolve, norm=nn.GroupNorm(2, outputs), act=nn.SiLU()))
    return nn.Sequential(OrderedDict(conv=body))  # the doubled name is OpenSTL's


class RoundConv2d(nn.Conv2d):
    """A convolution whose columns are periodic; rows are padded with zeros."""

    @classmethod
    def of(cls, conv: nn.Conv2d) -> RoundConv2d:
        """A periodic convolution with the weights of `conv`."""
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
        if self.groups == self.in_channels == self.out_channels and self.stride == (1, 1):
            return depthwise(around, self.weight, self.bias, (rows, 0), self.dilation[0])
        return nn.functional.conv2d(around, self.weight, self.bias, self.stride, (rows, 0), self.dilation, self.groups)


def go_round(module: nn.Module) -> None:
    """Replace every convolution inside that pads its columns by a `RoundConv2d`; names and weights stay."""
    for name, child in module.named_children():
        if isinstance(child, nn.Conv2d) and not isinstance(child.padding, str) and child.padding[1]:
            setattr(module, name, RoundConv2d.of(child))
        else:
            go_round(child)
