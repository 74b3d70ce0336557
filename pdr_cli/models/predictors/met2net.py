"""Met²Net (Li et al., ICCV 2025, arXiv 2507.17189): an encoder and a decoder for each variable, attention between variables."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor, nn

from pdr_cli.errors import ConfigError, DataError
from pdr_cli.models.interfaces import Anchoring, Batch, Frames, OnePass, Terms, target_of
from pdr_cli.models.layers import pad_to_multiple, rollout
from pdr_cli.models.predictors.simvp import Decoder, Encoder, check_shell, go_round
from pdr_cli.models.predictors.translators.large_kernel import LargeKernelBlock
from pdr_cli.models.predictors.translators.options import PARTS, TranslatorOptions
from pdr_cli.models.predictors.translators.tau import TAUGate

if TYPE_CHECKING:
    from pdr_cli.schema import ModelConfig

M = TypeVar("M", bound=nn.Module)
MOMENTUM = 0.9  # share of a copy that stays at each step (the authors' for ERA5)


class Met2Net(OnePass):
    """Encoders, translator and decoders, each with a slow copy; forecasts use slow encoders, translator, slow decoders.

    A training step has two stages, each of which trains some parts through slow copies of the others. First, encoders and
    decoders learn to forecast through the slow translator. Second, the translator learns to forecast the latent frames
    that the slow encoders make of the target. The loss is that of the first stage's forecast plus the mean squared error
    of the second stage's latent frames.

    Module names follow the authors' code, so that weights with its lists of encoders load as they are. What they leave
    open, or what is different here:

    * The copies follow at the start of a step, the authors' in its middle, where it would change numbers that the
      gradient still needs; so they are one step ahead of the authors'.
    * In the authors' latest code the slow encoders and decoders are plain copies; here all have the paper's momentum.
    * The forecast's loss is the one that the preset chooses; the authors' is the mean squared error.
    * With an anchor the network forecasts the change from it, so the target of the second stage is that change too.
    * Missing values of the target are replaced by the forecast before it is encoded.

    Args:
        frames: T and C, and whether the last column is a neighbour of the first.
        options: of the translator: `hid_t` width, a multiple of its heads (the authors': 256), `n_t` layers (8),
            `mlp_ratio` (4) and `drop_path` of each layer (0.1).
        hid_s: channels of a latent frame of one variable (32).
        n_s: units in each encoder and decoder (2).
        kernels: sides of the convolutions in encoders and decoders, odd.
    """

    reads_covariates = False

    def __init__(
        self, frames: Frames, options: TranslatorOptions, hid_s: int, n_s: int, kernels: tuple[int, int] = (3, 3)
    ) -> None:
        super().__init__(frames.in_steps)
        check_shell(hid_s, n_s)
        self.frames, self.hid_s = frames, hid_s
        self.multiple: int = 2 ** (n_s // 2)
        each = range(frames.channels)
        self.enc_q_list = nn.ModuleList(Encoder(1, hid_s, n_s, kernels[0]) for _ in each)
        self.dec_q_list = nn.ModuleList(Decoder(hid_s, 1, n_s, kernels[1]) for _ in each)
        self.hid_q = Translator(options)
        if frames.periodic:
            go_round(self)
        self.enc_k_list, self.dec_k_list = slow_copy(self.enc_q_list), slow_copy(self.dec_q_list)
        self.hid_k = slow_copy(self.hid_q)

    @classmethod
    def of(cls, frames: Frames, options: ModelConfig) -> Met2Net:
        """The predictor of the [model] table."""
        return cls(frames, TranslatorOptions.of(frames, options), options.hid_s, options.n_s)

    def one_pass(self, seen: Tensor, covariates: Tensor | None = None) -> Tensor:
        """See `OnePass.one_pass`; n = T."""
        if seen.shape[1:3] != (self.gives, self.frames.channels):
            found = f"the input has {seen.shape[1]} frames of {seen.shape[2]} variables"
            raise DataError(found, f"{self.gives} of {self.frames.channels}, which the model takes")
        return self._decode(self.dec_k_list, self.hid_q(self._encode(self.enc_k_list, seen)), seen)

    def training_forward(self, batch: Batch, anchor: Anchoring | None = None) -> tuple[Tensor, Terms]:
        """The first stage's forecast, and the second stage's loss."""
        self._let_copies_follow()
        losses: list[Tensor] = []

        def one_pass(seen: Tensor, first: int) -> Tensor:
            latent = self.hid_k(self._encode(self.enc_q_list, seen))
            made = self._decode(self.dec_q_list, latent, seen)
            losses.append(self._latent_loss(seen.detach(), self._target(batch, seen, made, first, anchor)))
            return made

        frames = rollout(one_pass, batch.observed, batch.steps, anchor, self.bounded)
        return frames, {"latent_loss": torch.stack(losses).mean()}

    @torch.no_grad()
    def _target(self, batch: Batch, seen: Tensor, made: Tensor, first: int, anchor: Anchoring | None) -> Tensor:
        """What the output of a pass should be: the next frames of the target, or their change from the anchor."""
        target = target_of(batch)[:, first : first + self.gives]
        n = target.shape[1]
        wanted = target if anchor is None else target - anchor(seen, first, n)
        if batch.known is None:
            return wanted
        known = batch.known[:, batch.observed.shape[1] + first :][:, :n]
        return torch.where(known, wanted, made[:, :n])

    def _latent_loss(self, seen: Tensor, wanted: Tensor) -> Tensor:
        """Mean squared error of the latent frames of the second stage; wanted: [B, n, C, H, W], n up to T."""
        with torch.no_grad():
            latent, target = self._encode(self.enc_k_list, seen), self._encode(self.enc_k_list, wanted)
        return nn.functional.mse_loss(self.hid_q(latent)[:, :, : target.shape[2]], target)

    @torch.no_grad()
    def _let_copies_follow(self) -> None:
        """Move each weight of the slow copies toward the one that is trained."""
        pairs = (
            (self.enc_k_list, self.enc_q_list),
            (self.dec_k_list, self.dec_q_list),
            (self.hid_k, self.hid_q),
        )
        for slow, trained in pairs:
            for weight, goal in zip(slow.parameters(), trained.parameters(), strict=True):
                weight.lerp_(goal, 1 - MOMENTUM)

    def _encode(self, encoders: nn.ModuleList, frames: Tensor) -> Tensor:
        """[B, T, C, H, W] → [B, C, T·hid_s, H', W'], each variable by its own encoder."""
        B, periodic = frames.shape[0], self.frames.periodic
        padded = pad_to_multiple(frames.flatten(0, 1), self.multiple, periodic)  # [B·T, C, H, W]
        each = zip(encoders, padded.split(1, dim=1), strict=True)
        return torch.stack([encoder(one)[0].unflatten(0, (B, -1)).flatten(1, 2) for encoder, one in each], dim=1)

    def _decode(self, decoders: nn.ModuleList, latent: Tensor, like: Tensor) -> Tensor:
        """[B, C, T·hid_s, H', W'] → [B, T, C, H, W], each variable by its own decoder; (H, W) as in `like`."""
        (B, T), (H, W) = like.shape[:2], like.shape[-2:]
        each = zip(decoders, latent.unflatten(2, (T, self.hid_s)).unbind(1), strict=True)
        frames = torch.cat([decoder(one.flatten(0, 1)) for decoder, one in each], dim=1)  # [B·T, C, H, W]
        return frames[..., :H, :W].unflatten(0, (B, T))


class Translator(nn.Module):
    """n_t layers at the width hid_t, between 1×1 convolutions. [B, C, T·hid_s, H', W'] → the same shape."""

    def __init__(self, options: TranslatorOptions) -> None:
        super().__init__()
        if options.hid_t % PARTS:
            raise ConfigError(f"model.hid_t is {options.hid_t}", f"a multiple of {PARTS}, its heads")
        self.conv1 = nn.Conv2d(options.channels, options.hid_t, 1)
        self.layers = nn.ModuleList(Layer(options) for _ in range(options.n_t))
        self.conv2 = nn.Conv2d(options.hid_t, options.channels, 1)

    def forward(self, latent: Tensor) -> Tensor:
        B, C = latent.shape[:2]
        x = self.conv1(latent.flatten(0, 1)).unflatten(0, (B, C))
        for layer in self.layers:
            x = layer(x)
        return self.conv2(x.flatten(0, 1)).unflatten(0, (B, C))


class Layer(nn.Module):
    """Attention between variables, then a TAU block within each; both residual, normalised afterwards."""

    def __init__(self, options: TranslatorOptions) -> None:
        super().__init__()
        self.norm_1, self.norm_2 = nn.GroupNorm(1, options.hid_t), nn.GroupNorm(1, options.hid_t)
        self.attn_1 = VariableAttention(options.hid_t)
        self.ff = FeedForward(options)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, d, H', W'] → the same shape."""
        B, C = x.shape[:2]
        x = self.norm_1((x + self.attn_1(x)).flatten(0, 1))
        return self.norm_2(x + self.ff(x)).unflatten(0, (B, C))


class FeedForward(nn.Module):
    """x + a TAU block, which is residual itself."""

    def __init__(self, options: TranslatorOptions) -> None:
        super().__init__()
        dim = options.hid_t
        self.ff1 = LargeKernelBlock(dim, options.hidden(dim), options.drop_path, TAUGate(dim))

    def forward(self, x: Tensor) -> Tensor:
        """[B·C, d, H', W'] → the same shape."""
        return x + self.ff1(x)


class VariableAttention(nn.Module):
    """Attention of every variable to every other; a head's share of the channels of the whole plane is one token."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.q_Conv, self.k_Conv, self.v_Conv = (mix_and_norm(dim) for _ in range(3))
        self.v_post_f = mix_and_norm(dim).append(nn.SiLU())

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, d, H', W'] → the same shape."""
        B, C, _, H, W = x.shape
        each = x.flatten(0, 1)
        q, k, v = (self._heads(conv(each), B) for conv in (self.q_Conv, self.k_Conv, self.v_Conv))
        mixed = nn.functional.scaled_dot_product_attention(q, k, v)  # [B, heads, C, d/heads·H'·W']
        plane = mixed.transpose(1, 2).unflatten(3, (-1, H, W)).flatten(2, 3)  # [B, C, d, H', W']
        return self.v_post_f(plane.flatten(0, 1)).unflatten(0, (B, C))

    @staticmethod
    def _heads(each: Tensor, batch: int) -> Tensor:
        """[B·C, d, H', W'] → [B, heads, C, d/heads·H'·W']."""
        return each.unflatten(1, (PARTS, -1)).unflatten(0, (batch, -1)).flatten(3).transpose(1, 2)


def mix_and_norm(dim: int) -> nn.Sequential:
    """1×1 convolution without bias, normalised over channels and grid."""
    return nn.Sequential(nn.Conv2d(dim, dim, 1, bias=False), nn.GroupNorm(1, dim))


def slow_copy(part: M) -> M:
    """A copy of a part that no gradient changes."""
    return copy.deepcopy(part).requires_grad_(False)
