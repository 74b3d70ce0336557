"""PDR, Predictive Differentiable Rendering: the whole model on one page.

X~ = F_p(X)          (1)  a pixel-space predictor forecasts
Y  = R(F_c(X~))      (2)  an adapter reads Gaussians from the forecast and renders them
X^ = Φ(X~, Y)        (3)  a fusion joins both to the final forecast, which is kept within the bounds of its quantities
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from pdr_cli.models import checks
from pdr_cli.models.bounds import Bounds
from pdr_cli.models.interfaces import Adapter, Batch, Forecast, Fusion, Mode, Predictor, Terms
from pdr_cli.models.layers import rollout


class PDR(nn.Module):
    """A predictor, an adapter that reads its forecast and makes a layer, and the fusion of both.

    `forward` is the only entry, in training too, so that wrappers such as DistributedDataParallel see every pass.

    Args:
        predictor: F_p: a `Predictor`, or any module [B, T, C, H, W] → [B, T, C, H, W].
        adapter: F_c and R together; None for the predictor alone.
        fusion: Φ; one that needs no layer if `adapter` is None.
        anchor: "last": the predictor forecasts the change since the last observed frame; "none": the frames themselves.
    """

    def __init__(
        self,
        predictor: nn.Module,
        adapter: Adapter | None,
        fusion: Fusion,
        anchor: Literal["none", "last"] = "none",
    ) -> None:
        super().__init__()
        if adapter is None and fusion.needs_layer:
            raise ValueError(f"{type(fusion).__name__} needs the layer of an adapter, and adapter is None")
        self.predictor = predictor
        self.adapter = adapter
        self.fusion = fusion
        self.anchor = anchor
        self.bounded: nn.Module = nn.Identity()
        self.frozen = False

    def forward(self, batch: Batch, mode: Mode = "forecast") -> Forecast:
        """Forecast `batch.steps` frames after `batch.observed`.

        In mode "train", predictor and adapter may see the target and return loss terms. A frozen predictor runs as in a
        forecast in either mode. `fused` is within the bounds (`bound`); `coarse` is not, so that its loss has a gradient
        wherever it lies.
        """
        coarse, terms = self._coarse(batch, mode)
        layer, further = self._layer(coarse, batch, mode)
        fused = checks.frames(self.fusion(coarse, layer), coarse, self.fusion, batch.steps)
        return Forecast(self.bounded(fused), coarse, layer, terms | further)

    def _coarse(self, batch: Batch, mode: Mode) -> tuple[Tensor, Terms]:
        """Eq. 1: [B, T, C, H, W] → [B, τ, C, H, W], and the predictor's loss terms."""
        x, anchored = batch.observed, self.anchor == "last"
        if not isinstance(self.predictor, Predictor):
            return rollout(self._pass, x, batch.steps, anchored, self.bounded), {}
        if mode == "train" and not self.frozen:
            made, terms = checks.with_terms(self.predictor.training_forward(batch, anchored), self.predictor)
        else:
            made, terms = self.predictor(x, batch.steps, anchored, batch.covariates, batch.generator), {}
        return checks.frames(made, x, self.predictor, batch.steps), terms

    def _pass(self, seen: Tensor) -> Tensor:
        """One pass of a plain module: [B, T, C, H, W] → the frames that follow, as many as it gives."""
        return checks.frames(self.predictor(seen), seen, self.predictor)

    def _layer(self, coarse: Tensor, batch: Batch, mode: Mode) -> tuple[Tensor | None, Terms]:
        """Eq. 2 for all coarse frames at once: [B, τ, C, H, W] → [B, τ, C, H, W], and the adapter's loss terms."""
        if self.adapter is None:
            return None, {}
        if mode == "train":
            made, terms = checks.with_terms(self.adapter.training_forward(coarse, batch), self.adapter)
        else:
            made, terms = self.adapter(coarse, batch.observed, batch.covariates, batch.generator), {}
        return checks.frames(made, coarse, self.adapter, batch.steps), terms

    def bound(self, low: Tensor, high: Tensor) -> None:
        """Keep forecasts, and frames that are fed back, between a lowest and a highest value: [C], in network units."""
        self.bounded = Bounds(low, high)
        if isinstance(self.predictor, Predictor):
            self.predictor.bounded = Bounds(low, high)

    def freeze_predictor(self) -> None:
        """Freeze the predictor: no gradients; batch norm, dropout and stochastic depth stay in eval mode."""
        self.frozen = True
        self.predictor.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> PDR:
        """Set the training mode of all parts but a frozen predictor."""
        super().train(mode)
        if self.frozen:
            self.predictor.eval()
        return self

    def initialize(self, frame: Tensor) -> None:
        """Place Gaussians that start from the training data, by a frame of them: [C, H, W], in network units."""
        if self.adapter is not None:
            self.adapter.initialize(frame)
