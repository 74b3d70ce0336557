"""gSTA, the gated attention of SimVP v2 (Tan et al., 2022)."""

from __future__ import annotations

import torch
from torch import Tensor

from pdr_cli.models.predictors.translators.large_kernel import LargeKernelGate, large_kernel_translator
from pdr_cli.models.predictors.translators.metaformer import MetaFormer
from pdr_cli.models.predictors.translators.options import TranslatorOptions


class GSTAGate(LargeKernelGate):
    """σ(g)·f: one half of the context gates the other; u is not used."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim, 2 * dim)

    def gate(self, u: Tensor, context: Tensor) -> Tensor:
        f, g = context.chunk(2, dim=1)
        return torch.sigmoid(g) * f


def gsta_translator(options: TranslatorOptions) -> MetaFormer:
    """The gSTA translator."""
    return large_kernel_translator(options, GSTAGate)
