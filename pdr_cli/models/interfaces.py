"""The faces that predictors and adapters share with the network around them, and what passes between them.

Everything here is a tuple or a module, so that DistributedDataParallel, torch.compile, torch.export and checkpointing can
pass it through `PDR.forward`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from pdr_cli.models.layers import rollout

Mode = Literal["forecast", "train", "anchor"]
Terms = dict[str, Tensor]  # further losses by name, scalars
# (seen [B, T, C, H, W], first, n) -> [B, n, C, H, W]: the anchor's frames first + 1 ... first + n after the last observed
# one, made from the window `seen`, which ends at step `first`.
Anchoring = Callable[[Tensor, int, int], Tensor]
Draw = Callable[
    [Tensor | None, int], None
]  # (seeds [B], steps from the last observed frame): draws the noise of a pass


class Frames(NamedTuple):
    """The frames that a network is built for.

    Args:
        in_steps: T, observed frames.
        channels: C.
        size: (H, W).
        periodic: True if the last column is a neighbour of the first, as on a circle of longitudes.
        out_steps: τ of training; 0: T.
        covariates: F, further fields that are given at observed and forecast times.
        lags: L, frames of the same time in earlier cycles, such as a day and a week before.
    """

    in_steps: int
    channels: int
    size: tuple[int, int]
    periodic: bool = False
    out_steps: int = 0
    covariates: int = 0
    lags: int = 0

    def blank(self, steps: int = 0, batch: int = 1, device: torch.device | None = None) -> Batch:
        """A batch of zeros that a network for these frames can forecast `steps` frames from; default: τ."""
        T, C, F, L = self.in_steps, self.channels, self.covariates, self.lags
        steps = steps or self.out_steps or T

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(batch, *shape, *self.size, device=device)

        return Batch(
            zeros(T, C),
            steps,
            covariates=zeros(T + steps, F) if F else None,
            normal=zeros(T + steps, C),
            earlier=zeros(L, steps, C) if L else None,
        )


class Batch(NamedTuple):
    """The input of the network, in network units and finite everywhere but in the observed frames of hidden channels.

    Args:
        observed: [B, T, C, H, W].
        steps: τ, frames to forecast; may be smaller or larger than T.
        target: the frames that follow, [B, τ, C, H, W]; required in training.
        known: False where values of `observed` and `target` were missing and are filled, [B, T + τ, C, H, W]; None: no
            value is missing.
        progress: share of the training that is done, 0 to 1.
        covariates: further fields at observed and forecast times, [B, T + τ, F, H, W]; a variable that is not given ahead
            keeps its last observed value.
        seeds: the seed of each window's member, from which a stochastic predictor draws (`noise.normal`), int64 [B]; None:
            the direct forecast.
        normal: the climatology at observed and forecast times, [B, T + τ, C, H, W].
        earlier: the frame of the same time in earlier cycles, such as a day before each forecast frame,
            [B, L, τ, C, H, W]; NaN where it is missing.
        anchor: the anchor's frames, [B, τ, C, H, W], where training has computed them without the window's own data;
            None: the network computes them.
        flow: from the last observed frame back to the one before it, [B, 2, H, W]; None: a predictor that reads it computes
            it.
        kept: what `Predictor.keep` made of the window earlier in training, [B, K]; None: a predictor that reads it computes
            it.
        tracks: where the places of the last observed frame go in the target, see `tracking.tracks`, [B, τ, 3, h, w]; None:
            ways of Gaussians are not compared with them.
        still: True in the stages of training in which Gaussians do not move.
        times: in steps after the last observed frame, ascending, at most `steps`: the forecast is made at these times, by a
            network that is continuous in time; (): at 1 ... τ.
    """

    observed: Tensor
    steps: int
    target: Tensor | None = None
    known: Tensor | None = None
    progress: float = 0.0
    covariates: Tensor | None = None
    seeds: Tensor | None = None
    normal: Tensor | None = None
    earlier: Tensor | None = None
    anchor: Tensor | None = None
    flow: Tensor | None = None
    kept: Tensor | None = None
    tracks: Tensor | None = None
    still: bool = False
    times: tuple[float, ...] = ()

    @property
    def context(self) -> Context:
        """What an anchor reads beside the observed frames."""
        return Context(self.normal, self.earlier, self.covariates)

    def rows(self, which: Tensor | slice) -> Batch:
        """The windows numbered `which`, which may name one several times."""
        tensors: dict[str, Any] = {name: value for name, value in self._asdict().items() if isinstance(value, Tensor)}
        return self._replace(**{name: value[which] for name, value in tensors.items()})

    def drawn(self, members: int, seeds: Tensor) -> Batch:
        """Each window as often as it has members, the first members of all windows first; seeds: [members · B]."""
        windows = torch.arange(len(self.observed), device=self.observed.device).repeat(members)
        return self.rows(windows)._replace(seeds=seeds)


class Context(NamedTuple):
    """What an anchor reads beside the observed frames; see `Batch`.

    Args:
        normal: [B, T + τ, C, H, W].
        earlier: [B, L, τ, C, H, W].
        covariates: [B, T + τ, F, H, W].
    """

    normal: Tensor | None = None
    earlier: Tensor | None = None
    covariates: Tensor | None = None

    def after(self, first: int) -> Context:
        """The context of a window that ends `first` steps after the last observed frame."""
        normal, covariates = (None if t is None else t[:, first:] for t in (self.normal, self.covariates))
        return Context(normal, None if self.earlier is None else self.earlier[:, :, first:], covariates)


def target_of(batch: Batch) -> Tensor:
    """The target of a training batch, [B, τ, C, H, W].

    Raises:
        ValueError: the batch has none.
    """
    if batch.target is None:
        raise ValueError('a batch in mode "train" needs a target')
    return batch.target


class Forecast(NamedTuple):
    """The output of the network.

    Args:
        fused: X^, the forecast, [B, τ, C, H, W].
        coarse: X~, the predictor's forecast, [B, τ, C, H, W].
        layer: Y, the adapter's layer, [B, τ, C, H, W]; None without an adapter.
        terms: losses of predictor and adapter, which training adds to its own; empty outside training.
    """

    fused: Tensor
    coarse: Tensor
    layer: Tensor | None
    terms: Terms


def draw_nothing(seeds: Tensor | None, step: int) -> None:
    """The draw of a predictor without noise."""


class Predictor(nn.Module, ABC):
    """F_p: a predictor that gives any number of frames and may train in its own way.

    Unrolling in time and teacher forcing belong to the predictor, not to the loop: a recurrent network feeds back single
    frames inside its memory, and only it can say which true frames it sees in training. The same holds for its loss terms.
    A predictor that maps T frames to T frames and needs none of this is a plain `nn.Module`: `PDR` anchors it and feeds its
    forecast back (`layers.rollout`).

    Attributes:
        reads_covariates: True if the predictor reads covariates; others are refused where there are any.
        reads_flow: True if the predictor reads `Batch.flow` in training.
        stochastic: True if the predictor draws a member of an ensemble from `seeds`; without seeds it makes its direct
            forecast.
        continuous: True if `at` makes frames at any time.
        keeps: True: `keep` gives what is the same in every epoch of a training, and training passes read it.
        scored_by_terms: True: validation takes the sum of the predictor's loss terms, because its forecast is not trained, or
            no longer.
        parts: shares of successive parts of the training, each with a learning rate schedule of its own; the model is chosen in
            the last one; (): the training is one.
        added: beginnings of the names of weights that a file of --init-from may lack; they then start as new.
        of_cells: names of weights that belong to the cells of a grid; those of a file of --init-from with another grid stay as
            new.
        bounded: keeps frames [..., C, H, W] within the bounds of their quantities; for the frames that are fed back. The
            network bounds the forecast itself.
        draw: draws the noise that enters by the predictor's norms, anew for each pass; nothing where there is none.
    """

    reads_covariates = False
    reads_flow = False
    stochastic = False
    continuous = False
    keeps = False
    scored_by_terms = False
    parts: tuple[float, ...] = ()
    added: tuple[str, ...] = ()
    of_cells: tuple[str, ...] = ()

    def __init__(self) -> None:
        super().__init__()
        self.bounded: nn.Module = nn.Identity()
        self.draw: Draw = draw_nothing

    @abstractmethod
    def forward(
        self,
        x: Tensor,
        steps: int | None = None,
        anchor: Anchoring | None = None,
        covariates: Tensor | None = None,
        seeds: Tensor | None = None,
    ) -> Tensor:
        """Forecast: x: [B, T, C, H, W] → [B, steps, C, H, W]; T steps by default.

        With `anchor`, the network's output is the change from the anchor's frames, which the predictor adds. `seeds`: see
        `Batch`.
        """

    def at(self, x: Tensor, times: Sequence[float], anchor: Anchoring | None = None) -> Tensor:
        """The forecast at any times, in frames after the last observed one, ascending: [B, T, C, H, W] → [B, times, C, H, W].

        Raises:
            NotImplementedError: the predictor is not `continuous`.
        """
        raise NotImplementedError(f"{type(self).__name__} forecasts whole steps")

    def training_forward(self, batch: Batch, anchor: Anchoring | None = None) -> tuple[Tensor, Terms]:
        """The forward pass for training: the frames [B, τ, C, H, W] and the predictor's loss terms.

        The default is the forecast, and no terms.
        """
        return self(batch.observed, batch.steps, anchor, batch.covariates, batch.seeds), {}

    def stages(self) -> list[nn.Module]:
        """Parts that `train.recompute` runs again one by one, each from tensors to tensors; none: the predictor as a whole."""
        return []

    def keep(self, batch: Batch, anchor: Anchoring | None = None) -> Tensor:
        """What frozen parts make of training windows, [B, K], which training computes once for each; see `keeps`."""
        return batch.observed[:, :0, 0, 0, 0]

    def measure(self, windows: Iterable[tuple[Batch, Anchoring | None]]) -> None:
        """Measure constants of the training windows before training, if a file has not given them; none by default."""


class OnePass(Predictor):
    """A predictor that gives some frames in one pass, and is fed its own forecast for more.

    Args:
        gives: n, the frames of a pass.
    """

    reads_covariates = True

    def __init__(self, gives: int) -> None:
        super().__init__()
        self.gives = gives

    @abstractmethod
    def one_pass(self, seen: Tensor, covariates: Tensor | None) -> Tensor:
        """[B, T, C, H, W] and covariates [B, T + n, F, H, W] → the n frames that follow, [B, n, C, H, W]."""

    def forward(
        self,
        x: Tensor,
        steps: int | None = None,
        anchor: Anchoring | None = None,
        covariates: Tensor | None = None,
        seeds: Tensor | None = None,
    ) -> Tensor:
        """See `Predictor.forward`; n steps by default."""
        length = x.shape[1] + self.gives

        def one_pass(seen: Tensor, first: int) -> Tensor:
            self.draw(seeds, first)
            if covariates is None:
                return self.one_pass(seen, None)
            given = covariates[:, first : first + length]
            beyond = length - given.shape[1]  # the last frames of a pass may not be needed
            return self.one_pass(seen, torch.cat([given, given[:, -1:].expand(-1, beyond, -1, -1, -1)], dim=1))

        return rollout(one_pass, x, steps or self.gives, anchor, self.bounded)


class Anchor(nn.Module, ABC):
    """A simple forecast, fitted to the training data, from which the predictor forecasts the change.

    Its fitted numbers are buffers, so that they are saved, moved and exported with the network. What is fitted determines
    their shapes, which are therefore taken from the file when they are loaded.
    """

    @property
    def gives(self) -> int:
        """n, the frames of a pass; 0: any number."""
        return 0

    def bound(self, low: Tensor, high: Tensor) -> None:
        """Keep frames that the anchor feeds back between these values, [C]; nothing by default."""

    @abstractmethod
    def ahead(self, seen: Tensor, steps: int, context: Context) -> Tensor:
        """The `steps` frames that follow: [B, T, C, H, W] → [B, steps, C, H, W], at most n."""

    def forward(self, observed: Tensor, steps: int, context: Context) -> Tensor:
        """The forecast: [B, T, C, H, W] → [B, steps, C, H, W]; beyond n steps the anchor is fed its own forecast."""

        def one_pass(seen: Tensor, first: int) -> Tensor:
            return self.ahead(seen, min(steps - first, self.gives or steps), context.after(first))

        return rollout(one_pass, observed, steps)

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *rest: Any) -> None:
        for name, buffer in self.named_buffers(recurse=False):
            if (stored := state_dict.get(prefix + name)) is not None and stored.shape != buffer.shape:
                setattr(self, name, torch.empty_like(stored, device=buffer.device))
        super()._load_from_state_dict(state_dict, prefix, *rest)


class Adapter(nn.Module, ABC):
    """F_c and R: reads the coarse forecast and makes the layer Y of the same shape, which the fusion adds to it.

    It sees the whole observed window and not the last frame only, because motion, and with it where a structure goes,
    shows in several frames. Its losses are its own for the same reason as a predictor's: a prior on positions or a distance
    of distributions can only be computed where the Gaussians are.

    Attributes:
        continuous: True if the layer moves between the lead times (`at`).
        reads_flow: True if the adapter reads `Batch.flow` in training.
        reads_tracks: True if the adapter compares ways with `Batch.tracks` in training, which `track` makes.
        carries: True if the layer is the change that carried frames make, for fusion carry.
    """

    continuous = False
    reads_flow = False
    reads_tracks = False
    carries = False

    @abstractmethod
    def forward(
        self,
        coarse: Tensor,
        observed: Tensor,
        covariates: Tensor | None = None,
        seeds: Tensor | None = None,
    ) -> Tensor:
        """The layer: coarse: [B, τ, C, H, W]; observed: [B, T, C, H, W] → [B, τ, C, H, W]."""

    def training_forward(self, coarse: Tensor, batch: Batch) -> tuple[Tensor, Terms]:
        """The forward pass for training: the layer [B, τ, C, H, W] and the adapter's loss terms.

        The default is the layer of a forecast, and no terms.
        """
        return self(coarse, batch.observed, batch.covariates, batch.seeds), {}

    def at(self, coarse: Tensor, observed: Tensor, times: Sequence[float], between: Tensor) -> Tensor:
        """The layer at any times, in frames after the last observed one, ascending; by default that of `between`.

        Args:
            coarse: at all lead times, [B, τ, C, H, W].
            observed: [B, T, C, H, W].
            times: up to τ.
            between: the coarse forecast at these times, [B, times, C, H, W].
        """
        made: Tensor = self(between, observed)
        return made

    def track(self, batch: Batch) -> Tensor:
        """The tracks of training windows, [B, τ, 3, h, w]; see `Batch.tracks`.

        Raises:
            NotImplementedError: the adapter does not read them.
        """
        raise NotImplementedError(f"{type(self).__name__} reads no tracks")

    def initialize(self, frame: Tensor) -> None:
        """Start from a frame of the training data, [C, H, W], in network units; nothing by default."""


class Fusion(nn.Module, ABC):
    """Φ of Eq. 3: joins the coarse forecast X~ and the layer Y, all [B, τ, C, H, W].

    Args:
        channels: C.
    """

    needs_layer = True  # False: no adapter is built
    needs_carrier = False  # True: the adapter has to be one that `carries`

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    @abstractmethod
    def forward(self, coarse: Tensor, layer: Tensor) -> Tensor:
        """X^ = Φ(X~, Y); without an adapter, `layer` is None."""

    def begin_with_coarse(self) -> None:
        """Initialise so that the first forecast is X~ and a small share of Y; nothing to do without parameters."""
