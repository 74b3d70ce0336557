"""Attention and MLP of the translators that treat the latent plane as a sequence of tokens."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn

from pdr_cli.models.predictors.translators.options import PARTS


def to_tokens(x: Tensor) -> Tensor:
    """[B, d, H', W'] → [B, H'·W', d], row by row."""
    return x.flatten(2).transpose(1, 2)


def to_plane(tokens: Tensor, size: Sequence[int]) -> Tensor:
    """[B, H'·W', d] → [B, d, H', W'], `size` = (H', W')."""
    return tokens.transpose(1, 2).unflatten(2, size)


def token_mlp(dim: int, hidden: int) -> nn.Sequential:
    """Linear to `hidden`, GELU, linear back, over the last axis."""
    return nn.Sequential(OrderedDict(fc1=nn.Linear(dim, hidden), act=nn.GELU(), fc2=nn.Linear(hidden, dim)))


class SelfAttention(nn.Module):
    """Attention of every token to every token, with eight heads."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens: [B, N, d] → [B, N, d]."""
        heads = self.qkv(tokens).unflatten(2, (3, PARTS, -1))  # [B, N, 3, heads, d/heads]
        q, k, v = heads.permute(2, 0, 3, 1, 4).unbind(0)
        bias = self.bias()
        if bias is not None:
            bias = bias.to(q.dtype)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=bias)  # [B, heads, N, d/heads]
        return self.proj(mixed.transpose(1, 2).flatten(2))

    def bias(self) -> Tensor | None:
        """A term of the attention scores, [heads, N, N]; None without one."""
        return None
