"""A trained model whose network torch runs: observed windows in data units to forecast frames in data units."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pdr_cli import choices
from pdr_cli.data.context import Context
from pdr_cli.data.scenes import KIND
from pdr_cli.errors import CheckpointError, ConfigError, UntrustedCodeError, UsageError
from pdr_cli.inference.loaded import FP32, Layers, LoadedModel
from pdr_cli.runs import inputs, modelfile
from pdr_cli.runs.modelfile import ModelCard, ModelFile
from pdr_cli.system import devices
from pdr_cli.system.logs import log
from pdr_cli.system.memory import keep_freed_memory
from pdr_cli.trust import Trust

if TYPE_CHECKING:
    import torch

    from pdr_cli.models.interfaces import Batch, Forecast
    from pdr_cli.models.pdr import PDR


class Model(LoadedModel):
    """A trained model whose network torch runs.

    Args:
        path: of the model file.
        file: its contents.
        network: in evaluation mode, on `device`.
        device: of the computation.
        batch: largest number of windows in one pass of the network; None: no limit.
        precision: of the network's arithmetic, "fp32" or "bf16" (convolutions and products of matrices round to 8 bits).
    """

    device: torch.device

    def __init__(
        self,
        path: Path,
        file: ModelFile,
        network: PDR,
        device: torch.device,
        batch: int | None = None,
        precision: str = FP32,
    ) -> None:
        super().__init__(path, file, batch, precision)
        self._file, self.network, self.device = file, network, device

    def numerics(self) -> dict[str, str]:
        """What changes the last digits of a forecast on this machine, by name."""
        import torch

        from pdr_cli.splat import ENVIRONMENT

        return {
            "version of torch": torch.__version__,
            "device": torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else self.device.type,
            "processor": torch.backends.cpu.get_cpu_capability(),
            "number of threads": str(torch.get_num_threads()),
            "--precision": self.precision,
            "renderer": os.environ.get(ENVIRONMENT, ""),
        }

    def arithmetic(self) -> AbstractContextManager[object]:
        """The context in which the network computes in this model's precision."""
        import torch

        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision != FP32)

    @property
    def stochastic(self) -> bool:
        """True if the model draws members of an ensemble."""
        return self.network.stochastic

    @property
    def continuous(self) -> bool:
        """See `PDR.continuous`."""
        return self.network.continuous

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return sum(p.numel() for p in self.network.parameters())

    def members(
        self, observed: np.ndarray, seeds: np.ndarray, steps: int | None = None, context: Context | None = None
    ) -> np.ndarray:
        """See `LoadedModel.members`."""
        import torch

        horizon, (M, B) = self.horizon(steps), seeds.shape
        with torch.inference_mode(), self.arithmetic():
            batch = self.batch(observed, horizon, context or Context())
            drawn = self.network.members(batch, M, torch.from_numpy(seeds.reshape(-1)).to(self.device))

        def in_batches(of: int) -> list[np.ndarray]:
            return [self._fused(drawn.rows(slice(i, i + of))) for i in range(0, M * B, of)]

        frames = np.concatenate(self.batches.attempt(in_batches, M * B))
        return frames.reshape(M, B, *frames.shape[1:])

    def _fused(self, batch: Batch) -> np.ndarray:
        """The forecast of a batch in data units, within the bounds."""
        import torch

        with torch.inference_mode(), self.arithmetic():
            fused = self.network(batch).fused
        if not fused.isfinite().all():
            raise self._not_finite()
        return self.bounded(self._encoding.to_data(fused))

    def batch(self, observed: np.ndarray, steps: int, context: Context) -> Batch:
        """The input of the network: windows [B, T, C, H, W] and their context in data units → network units."""
        from pdr_cli.models.interfaces import Batch

        encoding, device = self._encoding, self.device
        return Batch(encoding.to_network(observed, device), steps)._replace(**encoding.context(context, device))

    def _layers(self, observed: np.ndarray, steps: int, context: Context, times: tuple[float, ...]) -> Layers:
        import torch

        with torch.inference_mode(), self.arithmetic():
            return self.layers(self.network(self.batch(observed, steps, context)._replace(times=times)))

    def layers(self, out: Forecast) -> Layers:
        """What the network has made, in data units.

        Raises:
            DataError, ConfigError: a forecast that is not finite.
        """
        encoding = self._encoding
        if not out.fused.isfinite().all():
            raise self._not_finite()
        # A view of a parameter asks for a gradient even here, so a layer may need to be detached.
        layer = None if out.layer is None else out.layer.detach().float().cpu().numpy()
        return Layers(self.bounded(encoding.to_data(out.fused)), encoding.to_data(out.coarse), layer)

    @cached_property
    def baselines(self) -> dict[str, Model]:
        """The simple forecasts that training fitted for `pdr evaluate`, by name: each a model that is an anchor alone."""
        return {name: self._baseline(name) for name in inputs.BASELINES if name in self._file.baselines}

    def _baseline(self, name: str) -> Model:
        # Anchors read no covariates, which take longer to make than a forecast.
        card = replace(self.card, config=inputs.alone(self.card.config, inputs.BASELINES[name]), covariates=None)
        weights = {modelfile.ANCHOR + buffer: value for buffer, value in self._file.baselines[name].items()}
        file = replace(self._file, card=card, weights=weights, baselines={})
        return _built(self.path, file, self.device, self.batch_limit)


def load(
    path: Path,
    device: str = "auto",
    batch: int | None = None,
    trust: Trust | None = None,
    precision: str = FP32,
) -> Model:
    """Load a model file.

    Args:
        path: of the model file.
        device: see `devices.pick`.
        batch: see `Model`.
        trust: see `families.Family.find`.
        precision: see `Model`.

    Raises:
        CheckpointError: truncated, altered, foreign or too new.
        UntrustedCodeError: the model names code that may not run.
        DeviceError: the device is not available, or does not compute in this precision.
        UsageError: another precision than fp32 of a model without weights that compute, or an exported program.
    """
    where = devices.pick(device)
    devices.check_precision(precision, where)
    file = modelfile.read(path)
    model = _built(path, file, where, batch, trust, precision)
    if precision != FP32 and not any(True for _ in model.network.parameters()):
        found = f"--precision {precision}: {model.label} has no network; its forecast is that of its anchor"
        raise UsageError(found, way_out="leave it out")
    _warn_of_changed_code(file.card)
    return model


def with_network(model: LoadedModel, option: str) -> Model:
    """A model that torch runs, for an option that looks into its network.

    Raises:
        UsageError: an exported program.
    """
    if isinstance(model, Model):
        return model
    raise model.without_network(option)


def _built(
    path: Path,
    file: ModelFile,
    device: torch.device,
    batch: int | None,
    trust: Trust | None = None,
    precision: str = FP32,
) -> Model:
    """The model of a file's contents."""
    import torch

    from pdr_cli.models import layout, registry
    from pdr_cli.runs import tensors

    card = file.card
    refuse_scenes(path, card)
    try:
        network = registry.of(card.config, card.frames, trust)
    except (ConfigError, UntrustedCodeError) as error:
        raise error.at(path) from error
    try:
        tensors.restore(network, file.weights)
    except RuntimeError as error:
        raise CheckpointError(f"{path}: its weights are not those of the network it describes: {error}") from error
    model = Model(path, file, network, device, batch, precision)
    if card.bounds is not None:
        network.bound(*model.encoding().bounds(card.bounds))
    if card.hidden is not None:
        network.hide(torch.from_numpy(card.hidden))
    network.eval().to(device)
    layout.lay_out(network, card.size, device)
    if layout.keeps_freed_memory(card.size, device):
        keep_freed_memory()
    return model


def refuse_scenes(path: Path, card: ModelCard) -> None:
    """Refuse a model of scenes, which films a picture (UsageError)."""
    if card.kind == KIND:
        raise UsageError(
            f"{path} is a model of moving scenes in space",
            "one that forecasts fields, traffic or clips",
            "with --camera orbit:20 it films a picture",
        )


def _warn_of_changed_code(card: ModelCard) -> None:
    """Warn where the code of others is not that of the training; models that were written before it was kept have none."""
    trained_with = card.training.get("code", {})
    for name, sha256 in choices.sources(card.config.model).items():
        if trained_with.get(name, sha256) != sha256:
            log.warning("the source of %s is not the code that the model was trained with", name)
