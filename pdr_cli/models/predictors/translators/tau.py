"""TAU, the temporal attention unit (Tan et al., CVPR 2023): attention within frames, and a gate across frames."""

from __future__ import annotations

from torch import Tensor, nn

from pdr_cli.models.predictors.translators.large_kernel import LargeKernelGate, large_kernel_translator
from pdr_cli.models.predictors.translators.metaformer import MetaFormer
from pdr_cli.models.predictors.translators.options import TranslatorOptions


class TAUGate(LargeKernelGate):
    """e·f·u: f attends within the plane, e = σ(W2 ReLU(W1 mean u)) weighs the channels, which hold the time steps."""

    fan_out_init = False  # the released models were trained from PyTorch's own initialisation here

    def __init__(self, dim: int) -> None:
        super().__init__(dim, dim)
        squeezed = dim // max(dim // 16, 4)  # 16 for every multiple of 16 from 64 on
        self.fc = nn.Sequential(
            nn.Linear(dim, squeezed, bias=False),
            nn.ReLU(),
            nn.Linear(squeezed, dim, bias=False),
            nn.Sigmoid(),
        )

    def gate(self, u: Tensor, context: Tensor) -> Tensor:
        weights = self.fc(u.mean(dim=(2, 3)))  # [B, d]
        return weights[:, :, None, None] * context * u


def tau_translator(options: TranslatorOptions) -> MetaFormer:
    """The TAU translator."""
    return large_kernel_translator(options, TAUGate)
