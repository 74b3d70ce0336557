"""A model that forecasts: frames in data units in and out, whatever computes between."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np

from pdr_cli import choices
from pdr_cli.data.context import Context
from pdr_cli.data.encoding import Encoding
from pdr_cli.errors import ConfigError, DataError, PdrError
from pdr_cli.inference.header import ModelHeader
from pdr_cli.runs.modelfile import Header
from pdr_cli.system.devices import PRECISIONS
from pdr_cli.system.memory import Batches

FP32 = PRECISIONS[0]
BATCH_OPTION = "--batch {}"  # of predict and evaluate


class Device(Protocol):
    """A device, as torch has them."""

    @property
    def type(self) -> str:
        """ "cpu" or "cuda"."""


@dataclass(frozen=True)
class Layers:
    """The parts of a forecast, each [B, τ, C, H, W].

    Args:
        fused: the forecast, in data units, within the model's bounds.
        coarse: the predictor's forecast, in data units.
        layer: the adapter's layer, in network units; None if the model has no adapter.
    """

    fused: np.ndarray
    coarse: np.ndarray
    layer: np.ndarray | None

    @classmethod
    def joined(cls, parts: list[Layers]) -> Layers:
        """The layers of several batches, one after the other."""
        layer = [p.layer for p in parts if p.layer is not None]
        return cls(
            np.concatenate([p.fused for p in parts]),
            np.concatenate([p.coarse for p in parts]),
            np.concatenate(layer) if layer else None,
        )


class LoadedModel(ModelHeader, ABC):
    """A trained model, ready to forecast; `run` is the only way through it.

    Args:
        path: of its file.
        header: of the file.
        batch: largest number of windows in one pass; None: no limit.
        precision: of the arithmetic, or of a program's weights.
    """

    device: Device

    def __init__(self, path: Path, header: Header, batch: int | None, precision: str) -> None:
        super().__init__(path, header)
        self.batch_limit, self.precision = batch, precision
        self.batches = Batches(BATCH_OPTION, batch)

    def run(
        self,
        observed: np.ndarray,
        steps: int | None = None,
        context: Context | None = None,
        times: tuple[float, ...] = (),
    ) -> Layers:
        """Forecast from windows; cells that training never observed are NaN in `fused` and `coarse`.

        Args:
            observed: [B, T, C, H, W] in data units on the model's grid, filled.
            steps: τ; default: the horizon of the training.
            context: of the windows and for these steps, from `contexts`; None for a network that reads none.
            times: of the frames, see `interfaces.Batch`; (): the steps.

        Raises:
            MemoryShortageError: neither all windows nor half of them fit into memory.
        """
        horizon, n = self.horizon(steps), len(observed)
        context = context or Context()

        def in_batches(of: int) -> list[Layers]:
            parts = ((observed[i : i + of], context.part(i, i + of)) for i in range(0, n, of))
            return [self._layers(part, horizon, given, times) for part, given in parts]

        return Layers.joined(self.batches.attempt(in_batches, n))

    @abstractmethod
    def _layers(self, observed: np.ndarray, steps: int, context: Context, times: tuple[float, ...]) -> Layers:
        """The layers of one batch of windows; see `run`."""

    def members(
        self, observed: np.ndarray, seeds: np.ndarray, steps: int | None = None, context: Context | None = None
    ) -> np.ndarray:
        """Members of an ensemble, [M, B, τ, C, H, W], in data units, of a model that is `stochastic`; otherwise as `run`.

        Args:
            observed: see `run`.
            seeds: of each member of each window, int64 [M, B]; see `members.seeds_of`.
            steps: see `run`.
            context: see `run`.
        """
        raise NotImplementedError(f"{self.label} draws no members")

    @abstractmethod
    def numerics(self) -> dict[str, str]:
        """What changes the last digits of a forecast on this machine, by name."""

    @property
    def stochastic(self) -> bool:
        """True if the model draws members of an ensemble."""
        return False

    @property
    def continuous(self) -> bool:
        """True if the model forecasts between its steps by more than a blend of frames."""
        return False

    @property
    def parameters(self) -> int | None:
        """Number of weights; None where it is not known."""
        return None

    @property
    def baselines(self) -> Mapping[str, LoadedModel]:
        """The simple forecasts that training fitted for `pdr evaluate`, by name."""
        return {}

    @property
    def attributes(self) -> dict[str, str]:
        """What a forecast's file says of the program that made it; nothing of a network of torch."""
        return {}

    def _not_finite(self) -> PdrError:
        """The error for a forecast with NaN or infinity, from an input without."""
        found = f"{self.path}: the forecast holds NaN or infinity"
        code = ", ".join(choices.others(self.card.config.model))
        if code:
            return ConfigError(f"{found}; the network has code of {code}", way_out="mend that code, or train again")
        return DataError(found, way_out="take another model, or train again with a smaller --set train.lr")

    def bounded(self, frames: np.ndarray) -> np.ndarray:
        """The network's bounds again, in data units: the scaling rounds."""
        return frames if self.card.bounds is None else self.card.bounds.clip(frames)

    @cached_property
    def _encoding(self) -> Encoding:
        return self.encoding()
