"""A stack of residual blocks of one kind, narrow in the middle (OpenSTL's MetaFormer)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor, nn

from pdr_cli.models.predictors.translators.options import TranslatorOptions


class StagePlan(NamedTuple):
    """The place of a block: its stage from 0, the widths of this stage and of the next, and its drop probability."""

    stage: int
    inputs: int
    outputs: int
    drop_path: float


# Builds a residual block [B, d, H', W'] → [B, d, H', W'], d = `inputs`, from its plan.
BlockFactory = Callable[[StagePlan], nn.Module]


class MetaFormer(nn.Module):
    """n_t stages: the first works on T·hid_S channels and narrows to hid_t, the last widens hid_t back.

    Stochastic depth rises from 0.01 in the first stage to drop_path in the last.

    Args:
        options: widths, stages and stochastic depth.
        block: builds the block of a stage.
    """

    def __init__(self, options: TranslatorOptions, block: BlockFactory) -> None:
        super().__init__()
        self.enc = nn.ModuleList(Stage(block(plan), plan.inputs, plan.outputs) for plan in stage_plans(options))

    def forward(self, latent: Tensor) -> Tensor:
        """latent: [B, T·hid_S, H', W'] → the same shape."""
        for stage in self.enc:
            latent = stage(latent)
        return latent


def stage_plans(options: TranslatorOptions) -> list[StagePlan]:
    """The stages in order."""
    widths = [options.channels, *[options.hid_t] * (options.n_t - 1), options.channels]
    # The first is 0.01 even without drop_path, as in the released models.
    rise = (options.drop_path - 0.01) / (options.n_t - 1)
    return [StagePlan(i, widths[i], widths[i + 1], 0.01 + rise * i) for i in range(options.n_t)]


class Stage(nn.Module):
    """A block at its input's width, then a 1×1 "reduction" where the next width differs."""

    def __init__(self, block: nn.Module, inputs: int, outputs: int) -> None:
        super().__init__()
        self.block = block
        self.reduction = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.reduction(self.block(x))


class StochasticDepth(nn.Module):
    """Drops a sample's residual branch with probability p, in training only; kept branches are divided by 1 − p."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, branch: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return branch
        keep = 1 - self.p
        one_a_sample = [branch.shape[0], *[1] * (branch.ndim - 1)]
        return branch * branch.new_empty(one_a_sample).bernoulli_(keep).div_(keep)


def pointwise_mlp(dim: int, hidden: int) -> nn.Sequential:
    """1×1 to `hidden`, GELU, 1×1 back."""
    return nn.Sequential(OrderedDict(fc1=nn.Conv2d(dim, hidden, 1), act=nn.GELU(), fc2=nn.Conv2d(hidden, dim, 1)))


def init_fan_out(module: nn.Module) -> None:
    """Every convolution inside: weights N(0, √(2 / (k·k·out / groups))), bias 0."""
    for conv in module.modules():
        if isinstance(conv, nn.Conv2d):
            fan_out = conv.kernel_size[0] * conv.kernel_size[1] * conv.out_channels / conv.groups
            nn.init.normal_(conv.weight, std=(2 / fan_out) ** 0.5)
            if conv.bias is not None:
                nn.init.zeros_(conv.bias)


def init_truncated(module: nn.Module, kind: type[nn.Linear] | type[nn.Conv2d] = nn.Linear) -> None:
    """Every layer of that kind inside: weights normal with standard deviation 0.02, truncated, bias 0."""
    for layer in module.modules():
        if isinstance(layer, kind):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
