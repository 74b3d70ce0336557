"""A trained model: observed windows in data units to forecast frames in data units."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pdr_cli import choices
from pdr_cli.data import kinds
from pdr_cli.data.context import Context, ContextSource
from pdr_cli.data.covariates import CovariateSource
from pdr_cli.data.encoding import Encoding
from pdr_cli.data.kinds import Kind
from pdr_cli.data.missing import Filling
from pdr_cli.data.scenes import KIND
from pdr_cli.errors import CheckpointError, ConfigError, DataError, PdrError, UntrustedCodeError, UsageError
from pdr_cli.runs import inputs, modelfile
from pdr_cli.runs.modelfile import Header, ModelCard, ModelFile
from pdr_cli.system import devices
from pdr_cli.system.logs import log
from pdr_cli.system.memory import Batches, keep_freed_memory
from pdr_cli.system.names import printable
from pdr_cli.trust import Trust

if TYPE_CHECKING:
    import torch

    from pdr_cli.models.interfaces import Batch
    from pdr_cli.models.pdr import PDR

FP32 = devices.PRECISIONS[0]
BATCH_OPTION = "--batch {}"  # of predict and evaluate


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


class ModelHeader:
    """A model without its network: enough to open and check an input, and to identify a request, without torch.

    Args:
        path: of the model file.
        header: of the file.
    """

    def __init__(self, path: Path, header: Header) -> None:
        self.path = path
        self.card, self.climatology, self.sha256 = header.card, header.climatology, header.sha256
        self.calibration = header.calibration

    @property
    def kind(self) -> Kind:
        """Kind of the training data."""
        return kinds.named(self.card.kind)

    @property
    def never_observed(self) -> np.ndarray | None:
        """Cells that were missing in every training frame: [C, H, W]; None if there are none."""
        return None if self.card.land is None else self.card.land.cells

    @property
    def may_lack(self) -> np.ndarray | None:
        """Cells that may be missing in an observed window, [C, H, W]: never observed in training, or of a target.

        None if there are none.
        """
        hidden, cells = self.card.hidden, self.never_observed
        if hidden is None:
            return cells
        every = np.broadcast_to(hidden[:, None, None], (len(hidden), *self.card.size))
        return every if cells is None else every | cells

    def horizon(self, steps: int | None) -> int:
        """The frames to forecast: `steps`, or as many as in training.

        Raises:
            UsageError: more than in training, of a model with targets, whose own forecast it never reads.
        """
        trained, targets = self.card.config.data.out_steps, self.card.config.data.targets
        if targets and (steps or 0) > trained:
            raise UsageError(
                f"{steps} steps: {self.label} forecasts {trained}, and cannot be fed its forecast of {', '.join(targets)}, "
                "which it does not observe",
                way_out=f"take --steps {trained} or fewer, or train for more with --set data.out_steps={steps}",
            )
        return steps or trained

    @property
    def label(self) -> str:
        """The run folder of the model, or its file."""
        return str(self.path.parent if self._is_of_a_run else self.path)

    @property
    def name(self) -> str:
        """The last part of `label`, without a suffix."""
        return printable(self.path.parent.name if self._is_of_a_run else self.path.stem)

    @property
    def _is_of_a_run(self) -> bool:
        return self.path.name == "model.safetensors"

    @property
    def contexts(self) -> ContextSource:
        """What makes the context that the network reads."""
        return self.contexts_filled()

    def contexts_filled(self, fill_missing: str = "none", in_range: bool = False) -> ContextSource:
        """`contexts`, where missing values are filled as in training, or by `fill_missing` if it is not "none".

        `in_range`: see `CovariateSource`.
        """
        card, source = self.card, None
        if card.covariates is not None:
            fill = self._filled_by(fill_missing)
            source = CovariateSource(
                card.covariates, card.grid, card.step, card.scaling, self.climatology, fill, in_range
            )
        return inputs.contexts_of(card.config, self.climatology, card.cycles, source)

    def encoding(self, fill_missing: str = "none") -> Encoding:
        """Data units to network units; missing values are filled as in training, or by `fill_missing` if it is not "none"."""
        card = self.card
        mean = card.scaling.offset if card.limits is None else card.limits.mean
        filling = Filling(np.asarray(mean), self.never_observed, self._filled_by(fill_missing), self.climatology)
        return Encoding(card.scaling, filling)

    def _filled_by(self, fill_missing: str) -> str:
        """How missing values are filled: as in training, or by `fill_missing` if it is not "none"."""
        return self.card.config.data.fill_missing if fill_missing == "none" else fill_missing


class Model(ModelHeader):
    """A trained model, ready to forecast.

    Args:
        path: of the model file.
        file: its contents.
        network: in evaluation mode, on `device`.
        device: of the computation.
        batch: largest number of windows in one pass of the network; None: no limit.
        precision: of the network's arithmetic, "fp32" or "bf16" (convolutions and products of matrices round to 8 bits).
    """

    def __init__(
        self,
        path: Path,
        file: ModelFile,
        network: PDR,
        device: torch.device,
        batch: int | None = None,
        precision: str = FP32,
    ) -> None:
        super().__init__(path, file)
        self._file, self.network, self.device, self.batch_limit = file, network, device, batch
        self.precision = precision
        self.batches = Batches(BATCH_OPTION, batch)

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

    @property
    def stochastic(self) -> bool:
        """True if the model draws members of an ensemble."""
        return self.network.stochastic

    def members(
        self, observed: np.ndarray, seeds: np.ndarray, steps: int | None = None, context: Context | None = None
    ) -> np.ndarray:
        """Members of an ensemble, [M, B, τ, C, H, W], in data units; otherwise as `run`.

        Args:
            observed: see `run`.
            seeds: of each member of each window, int64 [M, B]; see `members.seeds_of`.
            steps: see `run`.
            context: see `run`.
        """
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
        return self._bounded(self._encoding.to_data(fused))

    def batch(self, observed: np.ndarray, steps: int, context: Context) -> Batch:
        """The input of the network: windows [B, T, C, H, W] and their context in data units → network units."""
        from pdr_cli.models.interfaces import Batch

        encoding, device = self._encoding, self.device
        return Batch(encoding.to_network(observed, device), steps)._replace(**encoding.context(context, device))

    def _layers(self, observed: np.ndarray, steps: int, context: Context, times: tuple[float, ...]) -> Layers:
        import torch

        encoding = self._encoding
        with torch.inference_mode(), self.arithmetic():
            out = self.network(self.batch(observed, steps, context)._replace(times=times))
        if not out.fused.isfinite().all():
            raise self._not_finite()
        # A view of a parameter asks for a gradient even here, so a layer may need to be detached.
        layer = None if out.layer is None else out.layer.detach().float().cpu().numpy()
        return Layers(self._bounded(encoding.to_data(out.fused)), encoding.to_data(out.coarse), layer)

    def _not_finite(self) -> PdrError:
        """The error for a forecast with NaN or infinity, from an input without."""
        found = f"{self.path}: the forecast holds NaN or infinity"
        code = ", ".join(choices.others(self.card.config.model))
        if code:
            return ConfigError(f"{found}; the network has code of {code}", way_out="mend that code, or train again")
        return DataError(found, way_out="take another model, or train again with a smaller --set train.lr")

    def _bounded(self, frames: np.ndarray) -> np.ndarray:
        """The network's bounds again, in data units: the scaling rounds."""
        return frames if self.card.bounds is None else self.card.bounds.clip(frames)

    @cached_property
    def _encoding(self) -> Encoding:
        return self.encoding()

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


def read_header(path: Path) -> ModelHeader:
    """Read the header of a model file, without torch.

    Raises:
        CheckpointError: truncated, foreign or too new.
    """
    return ModelHeader(path, modelfile.read_header(path))


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
        UsageError: another precision than fp32 of a model without weights that compute.
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
