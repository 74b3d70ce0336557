"""MLP-Mixer (Tolstikhin et al., NeurIPS 2021): one MLP over the cells of the plane, one over the channels."""

from __future__ import annotations

from torch import Tensor, nn

from pdr_cli.errors import DataError
from pdr_cli.models.predictors.translators.metaformer import MetaFormer, StagePlan, StochasticDepth, init_truncated
from pdr_cli.models.predictors.translators.options import TranslatorOptions
from pdr_cli.models.predictors.translators.tokens import to_plane, to_tokens, token_mlp


class MixerBlock(nn.Module):
    """t + token mlp(LN t), then t + channel mlp(LN t), t the tokens of x: [B, d, H', W'], N = H'·W'."""

    def __init__(self, dim: int, hidden: int, drop_path: float, tokens: int) -> None:
        super().__init__()
        self.tokens = tokens
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp_tokens = token_mlp(tokens, dim // 2)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp_channels = token_mlp(dim, hidden)
        self.drop_path = StochasticDepth(drop_path)
        init_truncated(self)

    def forward(self, x: Tensor) -> Tensor:
        tokens = to_tokens(x)
        if tokens.shape[1] != self.tokens:
            raise DataError(
                f"the latent plane has {tokens.shape[1]} cells", f"{self.tokens}, which the model was built for"
            )
        mixed = self.mlp_tokens(self.norm1(tokens).transpose(1, 2)).transpose(1, 2)
        tokens = tokens + self.drop_path(mixed)
        tokens = tokens + self.drop_path(self.mlp_channels(self.norm2(tokens)))
        return to_plane(tokens, x.shape[2:])


def mlpmixer_translator(options: TranslatorOptions) -> MetaFormer:
    """The MLP-Mixer translator; its weights are for one grid."""
    rows, columns = options.grid.latent

    def block(plan: StagePlan) -> MixerBlock:
        return MixerBlock(plan.inputs, options.hidden(plan.inputs), plan.drop_path, rows * columns)

    return MetaFormer(options, block)
