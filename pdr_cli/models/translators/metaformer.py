"""A stack of residual blocks of one kind, narrowed on the way in and widened on the way out (OpenSTL's MetaFormer)."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from pdr_cli.errors import ConfigError

# From a width and a drop probability to a residual block [B, d, H', W'] → [B, d, H', W'].
BlockFactory = Callable[[int, float], nn.Module]


class MetaFormer(nn.Module):
    """n_t stages: the first works on `channels` and narrows to hid_t, the last widens hid_t back to `channels`.

    Args:
        channels: T·hid_S of the shell.
        hid_t: width of the stages between.
        n_t: number of stages, at least 2.
        drop_path: stochastic depth of the last stage; the first has 0.01 whatever this is.
        block: builds the block of a stage.
    """

    def __init__(self, channels: int, hid_t: int, n_t: int, drop_path: float, block: BlockFactory) -> None:
        super().__init__()
        if n_t < 2:
            raise ConfigError(f"n_t is {n_t}; a translator needs at least 2 stages.")
        if not 0 <= drop_path < 1:
            raise ConfigError(f"drop_path is {drop_path}; it is a probability below 1.")
        widths = [channels, *[hid_t] * (n_t - 1), channels]
        # The first is 0.01 even without drop_path, as in the released models.
        probabilities = [0.01 + (drop_path - 0.01) * stage / (n_t - 1) for stage in range(n_t)]
        self.enc = nn.ModuleList(
            Stage(block(inputs, p), inputs, outputs)
            for inputs, outputs, p in zip(widths[:-1], widths[1:], probabilities, strict=True)
        )

    def forward(self, latent: Tensor) -> Tensor:
        """latent: [B, T·hid_S, H', W'] → the same shape."""
        for stage in self.enc:
            latent = stage(latent)
        return latent


class Stage(nn.Module):
    """A block at its input's width, then a 1×1 "reduction" where the next width differs."""

    def __init__(self, block: nn.Module, inputs: int, outputs: int) -> None:
        super().__init__()
        self.block = block
        self.reduction = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.reduction(self.block(x))


class StochasticDepth(nn.Module):
    """Drops a residual branch for a sample with probability p, in training only; survivors are divided by 1 − p."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, branch: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return branch
        keep = 1 - self.p
        return branch * branch.new_empty(branch.shape[0], 1, 1, 1).bernoulli_(keep).div_(keep)


def init_fan_out(module: nn.Module) -> None:
    """Every convolution inside: weights N(0, √(2 / (k·k·out / groups))), bias 0."""
    for conv in module.modules():
        if isinstance(conv, nn.Conv2d):
            fan_out = conv.kernel_size[0] * conv.kernel_size[1] * conv.out_channels / conv.groups
            nn.init.normal_(conv.weight, std=(2 / fan_out) ** 0.5)
            if conv.bias is not None:
                nn.init.zeros_(conv.bias)
