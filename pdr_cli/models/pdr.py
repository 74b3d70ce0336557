"""PDR, Predictive Differentiable Rendering: the whole model on one page.

X~ = F_p(X)          (1)  a pixel-space predictor forecasts
Y  = R(F_c(X~))      (2)  the forecast is read as Gaussians, and they are rendered
X^ = Φ(X~, Y)        (3)  both become the forecast
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from torch import Tensor, nn

from pdr_cli.models.adapters import build_adapter
from pdr_cli.models.fusion import Fusion, build_fusion
from pdr_cli.models.gaussians.base import Adapter
from pdr_cli.models.predictors.simvp import rollout
from pdr_cli.models.registry import build_predictor


class Forecast(NamedTuple):
    """All [B, τ, C, H, W]; `gaussians_image` is None where the fusion does without it."""

    fused: Tensor
    coarse: Tensor
    gaussians_image: Tensor | None


class PDR(nn.Module):
    """A predictor, what reads its forecast as Gaussians and renders them, and what joins the two.

    Args:
        predictor: F_p, [B, T, C, H, W] → [B, T, C, H, W].
        adapter: F_c and R together; None for the predictor alone.
        fusion: Φ, one that does without Y where there is no adapter.
        anchor: "none", or "last": the predictor forecasts the change since the last observed frame.
    """

    def __init__(
        self,
        predictor: nn.Module,
        adapter: Adapter | None,
        fusion: Fusion,
        anchor: Literal["none", "last"] = "none",
    ) -> None:
        super().__init__()
        if adapter is None and fusion.needs_rendered:
            raise ValueError(f"{type(fusion).__name__} fuses what an adapter renders, and there is none.")
        self.predictor = predictor
        self.adapter = adapter
        self.fusion = fusion
        self.anchor = anchor
        self.frozen = False

    def forward(self, x: Tensor, out_steps: int) -> Forecast:
        """x: [B, T, C, H, W], the observed frames; `out_steps` is τ, shorter or longer than T."""
        return self.paint(self.coarse_forecast(x, out_steps), x[:, -1])

    def rehearse(
        self, x: Tensor, target: Tensor, progress: float, known: Tensor | None = None
    ) -> tuple[Forecast, dict[str, Tensor]]:
        """A forecast as training makes it, and what it minimises beside its loss.

        Predictors with a `training_forecast` are taught with the target [B, τ, C, H, W]; others, and one that is frozen,
        do as always. `progress` is the share of the training that is done; where x and target are not `known`,
        [B, T + τ, C, H, W], they are filled, and nothing is minimised there.
        """
        lesson: Any = getattr(self.predictor, "training_forecast", None)
        if lesson is None or self.frozen:
            return self(x, target.shape[1]), {}
        coarse, terms = lesson(x, target, progress, self.anchor == "last", known)
        return self.paint(coarse, x[:, -1]), terms

    def coarse_forecast(self, x: Tensor, out_steps: int) -> Tensor:
        """F_p: [B, T, C, H, W] → [B, τ, C, H, W], fed back by `rollout` where the predictor itself has one horizon."""
        if getattr(self.predictor, "any_horizon", False):
            return self.predictor(x, out_steps, self.anchor == "last")
        return rollout(self.predict, x, out_steps)

    def paint(self, coarse: Tensor, last: Tensor) -> Forecast:
        """R(F_c(X~)) and Φ for the whole coarse forecast at once, [B, τ, C, H, W]; `last` [B, C, H, W] was observed."""
        rendered = None if self.adapter is None else self.adapter(coarse, last)
        return Forecast(self.fusion(coarse, rendered), coarse, rendered)

    def predict(self, x: Tensor) -> Tensor:
        """One pass of the predictor: [B, T, C, H, W] → [B, T, C, H, W]."""
        frames = self.predictor(x)
        return frames if self.anchor == "none" else x[:, -1:] + frames

    def freeze_predictor(self) -> None:
        """Hold the predictor still: no gradients, and in training too its norms and chances are as in a forecast."""
        self.frozen = True
        self.predictor.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> PDR:
        """As for every module, but a frozen predictor stays in evaluation."""
        super().train(mode)
        if self.frozen:
            self.predictor.eval()
        return self

    def initialize(self, frame: Tensor) -> None:
        """Place what starts from the training data by a frame of it, [C, H, W], in network units."""
        if self.adapter is not None:
            self.adapter.initialize(frame)


def build_pdr(
    *,
    backbone: str,
    in_steps: int,
    channels: int,
    size: tuple[int, int],
    hid_s: int,
    hid_t: int,
    n_s: int,
    n_t: int,
    mlp_ratio: float,
    drop_path: float,
    anchor: Literal["none", "last"],
    fusion: str,
    fusion_init: Literal["residual", "random"],
    adapter: str,
    adapter_input: str,
    gaussians: int,
    kernel_size: int | Literal["auto"],
    downsample: float | Literal["auto"],
    hidden: int,
    mlp_depth: int,
    init: str,
    coords: Literal["absolute", "offset"],
    cell_stride: int,
    per_cell: int,
    conv_width: int,
    conv_depth: int,
    sigma_min: float,
    normalize: Literal["peak", "density"],
    amplitude: Literal["auto", "tanh", "sigmoid", "linear"],
    periodic: bool = False,
) -> PDR:
    """The model that a preset describes; `build_predictor`, `build_adapter` and `build_fusion` say what each value means."""
    predictor = build_predictor(
        backbone,
        in_steps,
        channels,
        hid_s=hid_s,
        hid_t=hid_t,
        n_s=n_s,
        n_t=n_t,
        mlp_ratio=mlp_ratio,
        drop_path=drop_path,
        size=size,
        periodic=periodic,
    )
    phi = build_fusion(fusion, channels, fusion_init)
    if not phi.needs_rendered:
        return PDR(predictor, None, phi, anchor)
    painter = build_adapter(
        adapter,
        channels,
        size,
        adapter_input=adapter_input,
        gaussians=gaussians,
        kernel_size=kernel_size,
        downsample=downsample,
        hidden=hidden,
        mlp_depth=mlp_depth,
        init=init,
        coords=coords,
        cell_stride=cell_stride,
        per_cell=per_cell,
        conv_width=conv_width,
        conv_depth=conv_depth,
        sigma_min=sigma_min,
        normalize=normalize,
        amplitude=amplitude,
    )
    return PDR(predictor, painter, phi, anchor)
