"""PDR, Predictive Differentiable Rendering: the whole model on one page.

X~ = F_p(X)          (1)  a pixel-space predictor forecasts
Y  = R(F_c(X~))      (2)  an adapter reads Gaussians from the forecast and renders them
X^ = Φ(X~, Y)        (3)  a fusion joins both to the final forecast, which is kept within the bounds of its quantities
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

import torch
from torch import Tensor, nn

from pdr_cli.models import checks, layers
from pdr_cli.models.anomalies import Anomalies, Space
from pdr_cli.models.bounds import Bounds
from pdr_cli.models.hidden import Hidden
from pdr_cli.models.interfaces import Adapter, Anchor, Anchoring, Batch, Forecast, Fusion, Mode, Predictor, Terms
from pdr_cli.models.noise import NormNoise
from pdr_cli.models.tiles import Tiles

Bounding = Callable[[Tensor], Tensor]


class PDR(nn.Module):
    """A predictor, an adapter that reads its forecast and makes a layer, and the fusion of both.

    `forward` is the only entry, in training too, so that wrappers such as DistributedDataParallel see every pass.

    Args:
        predictor: F_p: a `Predictor`, or any module [B, T, C, H, W] → [B, T, C, H, W].
        adapter: F_c and R together; None for the predictor alone.
        fusion: Φ; one that needs no layer if `adapter` is None.
        anchor: the simple forecast that the predictor forecasts the change from; None: it forecasts the frames themselves.
        anomalies: in which the predictor runs; None: it runs on frames.
        noise: makes the predictor stochastic by its norms; None: it draws for itself, or nothing.
    """

    def __init__(
        self,
        predictor: nn.Module,
        adapter: Adapter | None,
        fusion: Fusion,
        anchor: Anchor | None = None,
        anomalies: Anomalies | None = None,
        noise: NormNoise | None = None,
    ) -> None:
        super().__init__()
        if adapter is None and fusion.needs_layer:
            raise ValueError(f"{type(fusion).__name__} needs the layer of an adapter, and adapter is None")
        self.predictor = predictor
        self.adapter = adapter
        self.fusion = fusion
        self.anchor = anchor
        self.anomalies = anomalies
        self.noise = noise
        if noise is not None and isinstance(predictor, Predictor):
            predictor.draw = noise.draw
        self.bounded: nn.Module = nn.Identity()
        self.hidden: Hidden | None = None
        self.tiles: Tiles | None = None
        self.frozen = False

    def forward(self, batch: Batch, mode: Mode = "forecast") -> Forecast:
        """Forecast `batch.steps` frames after `batch.observed`.

        In mode "train", predictor and adapter may see the target and return loss terms. A frozen predictor runs as in a
        forecast in either mode. In mode "anchor" the forecast is the anchor's alone. `fused` is within the bounds (`bound`);
        `coarse` is not, so that its loss has a gradient wherever it lies. With `tiles`, a forecast is made tile by tile.
        """
        if self.tiles is not None and mode == "forecast" and not torch.compiler.is_compiling():
            return self.tiles.forecast(batch, partial(self._whole, mode=mode))
        return self._whole(batch, mode)

    def _whole(self, batch: Batch, mode: Mode) -> Forecast:
        """The forecast of the whole grid at once."""
        batch = self._seen(batch)
        if mode == "anchor":
            frames = self._anchor_frames(batch)
            return Forecast(self.bounded(frames), frames, None, {})
        if batch.times:
            return self._between(batch)
        coarse, terms = self._coarse(batch, mode)
        layer, further = self._layer(coarse, batch, mode)
        fused = checks.frames(self.fusion(coarse, layer), coarse, self.fusion, batch.steps)
        return Forecast(self.bounded(fused), coarse, layer, terms | further)

    def _between(self, batch: Batch) -> Forecast:
        """The forecast at `batch.times`; the coarse one at all lead times is blended where the predictor is not continuous."""
        x, times, mover, layer = batch.observed, batch.times, self._mover, None
        if mover is not None:
            between = mover.at(x, times, self._anchoring(batch, Space(batch, None)))
        if mover is None or self.adapter is not None:
            coarse, _ = self._coarse(batch, "forecast")
            if mover is None:
                between = layers.between(torch.cat([x[:, -1:], coarse], dim=1), times)
            layer = None if self.adapter is None else self.adapter.at(coarse, x, times, between)
        fused = checks.frames(self.fusion(between, layer), between, self.fusion, len(times))
        return Forecast(self.bounded(fused), between, layer, {})

    def _seen(self, batch: Batch) -> Batch:
        """The batch without the observed frames of hidden channels."""
        return batch if self.hidden is None else self.hidden(batch)

    def _coarse(self, batch: Batch, mode: Mode) -> tuple[Tensor, Terms]:
        """Eq. 1: [B, T, C, H, W] → [B, τ, C, H, W], and the predictor's loss terms."""
        space = Space(batch, self.anomalies)
        inside = space.batch()
        x, anchor = inside.observed, self._anchoring(batch, space)
        self._draw(batch.seeds, 0)
        if not isinstance(self.predictor, Predictor):
            one_pass = partial(self._pass, seeds=batch.seeds)
            made = layers.rollout(one_pass, x, batch.steps, anchor, self._fed_back(space))
            terms: Terms = {}
        elif mode == "train" and not self.frozen:
            made, terms = checks.with_terms(self.predictor.training_forward(inside, anchor), self.predictor)
        else:
            made, terms = self.predictor(x, batch.steps, anchor, batch.covariates, batch.seeds), {}
        return space.out(checks.frames(made, x, self.predictor, batch.steps), x.shape[1]), terms

    def _draw(self, seeds: Tensor | None, step: int) -> None:
        """Draw the noise of a pass, where it enters by norms."""
        if self.noise is not None:
            self.noise.draw(seeds, step)

    def _pass(self, seen: Tensor, first: int, seeds: Tensor | None) -> Tensor:
        """One pass of a plain module: [B, T, C, H, W] → the frames that follow, as many as it gives."""
        self._draw(seeds, first)
        return checks.frames(self.predictor(seen), seen, self.predictor)

    def _fed_back(self, space: Space) -> Bounding:
        """Bounds of the frames that a plain module is fed back, all from the first forecast frame on."""
        return lambda frames: space.into(self.bounded(space.out(frames, space.in_steps)), space.in_steps)

    def _anchoring(self, batch: Batch, space: Space) -> Anchoring | None:
        """The anchor as predictors are given it; None without one."""
        anchor, T = self.anchor, space.in_steps
        if anchor is None:
            return None

        def frames(seen: Tensor, first: int, n: int) -> Tensor:
            if first == 0 and batch.anchor is not None:
                return space.into(batch.anchor[:, :n], T)
            made = anchor(space.out(seen, first), n, batch.context.after(first))
            return space.into(made, T + first)

        return frames

    def _anchor_frames(self, batch: Batch) -> Tensor:
        """The anchor's forecast: [B, τ, C, H, W].

        Raises:
            ValueError: the network has none.
        """
        if self.anchor is None:
            raise ValueError("the network has no anchor")
        return self.anchor(batch.observed, batch.steps, batch.context)

    def members(self, batch: Batch, members: int, seeds: Tensor) -> Batch:
        """The batch of which each window stands for `members` members, which share the anchor's frames; see `Batch.drawn`."""
        if self.anchor is not None and batch.anchor is None:
            batch = batch._replace(anchor=self._anchor_frames(self._seen(batch)))
        return batch.drawn(members, seeds)

    def _layer(self, coarse: Tensor, batch: Batch, mode: Mode) -> tuple[Tensor | None, Terms]:
        """Eq. 2 for all coarse frames at once: [B, τ, C, H, W] → [B, τ, C, H, W], and the adapter's loss terms."""
        if self.adapter is None:
            return None, {}
        if mode == "train":
            made, terms = checks.with_terms(self.adapter.training_forward(coarse, batch), self.adapter)
        else:
            made, terms = self.adapter(coarse, batch.observed, batch.covariates, batch.seeds), {}
        return checks.frames(made, coarse, self.adapter, batch.steps), terms

    @property
    def stochastic(self) -> bool:
        """True if the network draws members of an ensemble from `Batch.seeds`."""
        return self.noise is not None or (isinstance(self.predictor, Predictor) and self.predictor.stochastic)

    @property
    def keeps(self) -> bool:
        """True if training passes read `Batch.kept`."""
        return isinstance(self.predictor, Predictor) and self.predictor.keeps and not self.frozen

    def keep(self, batch: Batch) -> Tensor:
        """What frozen parts of the predictor make of training windows, [B, K]; see `Batch.kept`.

        Raises:
            ValueError: the predictor keeps nothing.
        """
        if not isinstance(self.predictor, Predictor):
            raise ValueError("the predictor keeps nothing of a window")
        batch = self._seen(batch)
        space = Space(batch, self.anomalies)
        return self.predictor.keep(space.batch(), self._anchoring(batch, space))

    @property
    def scored_by_terms(self) -> bool:
        """True if validation takes the sum of the predictor's loss terms."""
        return isinstance(self.predictor, Predictor) and self.predictor.scored_by_terms and not self.frozen

    @property
    def parts(self) -> tuple[float, ...]:
        """Shares of successive parts of the training; see `Predictor`."""
        return self.predictor.parts if isinstance(self.predictor, Predictor) and not self.frozen else ()

    @property
    def reads_flow(self) -> bool:
        """True if training passes read `Batch.flow`."""
        inside = isinstance(self.predictor, Predictor) and self.predictor.reads_flow and self.anomalies is None
        return self.hidden is None and (inside or (self.adapter is not None and self.adapter.reads_flow))

    @property
    def continuous(self) -> bool:
        """True if the network forecasts between lead times by more than a blend of frames (`Batch.times`)."""
        return self._mover is not None or (self.adapter is not None and self.adapter.continuous)

    @property
    def _mover(self) -> Predictor | None:
        """The predictor, if it forecasts frames between lead times."""
        predictor = self.predictor
        if isinstance(predictor, Predictor) and predictor.continuous and self.anomalies is None:
            return predictor
        return None

    @property
    def reads_tracks(self) -> bool:
        """True if training passes read `Batch.tracks`."""
        return self.adapter is not None and self.adapter.reads_tracks

    def track(self, batch: Batch) -> Tensor:
        """The tracks of training windows, [B, τ, 3, h, w].

        Raises:
            ValueError: the network reads none.
        """
        if self.adapter is None:
            raise ValueError("the network reads no tracks")
        return self.adapter.track(self._seen(batch))

    def bound(self, low: Tensor, high: Tensor) -> None:
        """Keep forecasts, and frames that are fed back, between a lowest and a highest value: [C], in network units."""
        self.bounded = Bounds(low, high)
        if self.anchor is not None:
            self.anchor.bound(low, high)
        if isinstance(self.predictor, Predictor) and self.anomalies is None:
            self.predictor.bounded = Bounds(low, high)

    def hide(self, channels: Tensor) -> None:
        """Forecast some channels, True in `channels` [C], without their observed frames; see `Hidden`."""
        self.hidden = Hidden(channels)

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
            self.adapter.initialize(self._seen(Batch(frame[None, None], 1)).observed[0, 0])

    def measure(self, batches: Iterable[Batch]) -> None:
        """Measure the constants that the predictor keeps of the training windows, before training."""
        if isinstance(self.predictor, Predictor):
            seen = map(self._seen, batches)
            spaces = ((batch, Space(batch, self.anomalies)) for batch in seen)
            self.predictor.measure((space.batch(), self._anchoring(batch, space)) for batch, space in spaces)
