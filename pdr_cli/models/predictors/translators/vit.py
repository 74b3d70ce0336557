"""ViT (Dosovitskiy et al., ICLR 2021): attention over the whole plane, without a positional embedding."""

from __future__ import annotations

from torch import Tensor, nn

from pdr_cli.models.predictors.translators.metaformer import MetaFormer, StagePlan, StochasticDepth, init_truncated
from pdr_cli.models.predictors.translators.options import TranslatorOptions
from pdr_cli.models.predictors.translators.tokens import SelfAttention, to_plane, to_tokens, token_mlp


class ViTBlock(nn.Module):
    """t + attention(LN t), then t + mlp(LN t), t the tokens of x: [B, d, H', W']."""

    def __init__(self, dim: int, hidden: int, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = SelfAttention(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = token_mlp(dim, hidden)
        self.drop_path = StochasticDepth(drop_path)
        init_truncated(self)

    def forward(self, x: Tensor) -> Tensor:
        tokens = to_tokens(x)
        tokens = tokens + self.drop_path(self.attn(self.norm1(tokens)))
        tokens = tokens + self.drop_path(self.mlp(self.norm2(tokens)))
        return to_plane(tokens, x.shape[2:])


def vit_translator(options: TranslatorOptions) -> MetaFormer:
    """The ViT translator; widths must be multiples of 8."""
    options.check_widths("vit")

    def block(plan: StagePlan) -> ViTBlock:
        return ViTBlock(plan.inputs, options.hidden(plan.inputs), plan.drop_path)

    return MetaFormer(options, block)
