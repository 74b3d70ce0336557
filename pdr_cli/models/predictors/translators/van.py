"""VAN, the visual attention network (Guo et al., 2023): the context multiplies the features that it was computed from."""

from __future__ import annotations

from torch import Tensor

from pdr_cli.models.predictors.translators.large_kernel import LargeKernelGate, large_kernel_translator
from pdr_cli.models.predictors.translators.metaformer import MetaFormer
from pdr_cli.models.predictors.translators.options import TranslatorOptions


class VANGate(LargeKernelGate):
    """The context times u."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim, dim)

    def gate(self, u: Tensor, context: Tensor) -> Tensor:
        return context * u


def van_translator(options: TranslatorOptions) -> MetaFormer:
    """The VAN translator."""
    return large_kernel_translator(options, VANGate)
