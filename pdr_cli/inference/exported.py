"""Exported programs as models: ONNX by ONNX Runtime, without torch, and torch.export by torch."""

from __future__ import annotations

import dataclasses
import os
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pdr_cli.data.context import Context
from pdr_cli.errors import CheckpointError, DeviceError, UsageError
from pdr_cli.inference.loaded import FP32, Layers, LoadedModel
from pdr_cli.runs import container, exported
from pdr_cli.runs.modelfile import Header
from pdr_cli.runs.programs import ONNX, PT2
from pdr_cli.system.damage import first_line
from pdr_cli.system.devices import cpu_name
from pdr_cli.system.memory import SHORTAGE

FORECAST, COARSE = "forecast", "coarse"  # outputs of a program; the second where an adapter makes the first from it
Feeds = dict[str, np.ndarray]  # inputs of a program by name
Pass = Callable[[Feeds], list[np.ndarray]]  # forecast, and where there is one, coarse forecast, [B, τ, C, H, W] each


@dataclass(frozen=True)
class Processor:
    """The device of a program."""

    type: str = "cpu"


class ExportedModel(LoadedModel):
    """A model whose program another runtime runs, from data units to data units.

    Args:
        path: of the file.
        header: of the model.
        batch: see `LoadedModel`.
    """

    device = Processor()

    def __init__(self, path: Path, header: Header, batch: int | None) -> None:
        super().__init__(path, header, batch, FP32 if header.program is None else header.program.precision)

    @property
    def attributes(self) -> dict[str, str]:
        """The runtime, and the hash of the model file that the program was exported from."""
        source = {} if self.program is None else {"pdr_exported_from_sha256": self.program.model_sha256}
        return {"pdr_runtime": self.runtime, **source}

    @property
    @abstractmethod
    def runtime(self) -> str:
        """Name and version of what runs the program."""

    @abstractmethod
    def one_pass(self, feeds: Feeds) -> list[np.ndarray]:
        """See `Pass`."""

    def _layers(self, observed: np.ndarray, steps: int, context: Context, times: tuple[float, ...]) -> Layers:
        card, absent = self.card, self.never_observed
        if context.covariates is not None and card.covariates is not None:
            context = dataclasses.replace(context, covariates=context.covariates[:, :, card.covariates.dates :])
        fused = rolled(self.one_pass, observed, context, (card.config.data.out_steps, steps), self.bounded)
        if not np.isfinite(fused).all():
            raise self._not_finite()
        fused = fused if absent is None else np.where(absent, np.float32(np.nan), fused)
        return Layers(fused, fused, None)


def rolled(
    one_pass: Pass,
    observed: np.ndarray,
    context: Context,
    steps: tuple[int, int],
    bounded: Callable[[np.ndarray], np.ndarray],
) -> np.ndarray:
    """The forecast of a program, which is fed its own coarse forecast where a pass gives fewer frames: [B, steps, C, H, W].

    Args:
        one_pass: of the program.
        observed: [B, T, C, H, W] in data units.
        context: for all steps; beyond them the last one stands for those that a pass reads and nobody sees.
        steps: of a pass, and of the forecast.
        bounded: keeps frames that are fed back within their bounds.
    """
    T, (leads, wanted) = observed.shape[1], steps
    seen, made = observed, 0
    frames: list[np.ndarray] = []
    while made < wanted:
        feeds = {"observed": np.ascontiguousarray(seen, np.float32), **_part(context, made, T, leads)}
        forecast, *coarse = one_pass(feeds)
        frames.append(forecast[:, : wanted - made])
        fed_back = bounded(coarse[0] if coarse else forecast)
        seen, made = np.concatenate([seen, fed_back], axis=1)[:, -T:], made + leads
    return np.concatenate(frames, axis=1)


def _part(context: Context, first: int, in_steps: int, leads: int) -> Feeds:
    """The context of a pass whose window ends `first` steps after the last observed frame."""
    found = {}
    for name, values in context.arrays().items():
        axis, length = (2, leads) if name == "earlier" else (1, in_steps + leads)
        places = np.minimum(np.arange(first, first + length), values.shape[axis] - 1)
        found[name] = np.ascontiguousarray(np.take(values, places, axis=axis))
    return found


class OnnxModel(ExportedModel):
    """A model that ONNX Runtime runs.

    Args:
        path: of the file.
        header: of the model.
        content: of the file.
        batch: see `LoadedModel`.

    Raises:
        UsageError: ONNX Runtime is not installed.
        CheckpointError: it cannot run the program.
    """

    def __init__(self, path: Path, header: Header, content: bytes, batch: int | None) -> None:
        super().__init__(path, header, batch)
        self._library = _onnxruntime()
        options = self._library.SessionOptions()
        options.intra_op_num_threads = self._threads = threads()
        options.log_severity_level = 4  # its errors are raised too
        # Threads that wait by spinning take the time of others, and this one waits for files more than for them.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = self._library.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its exceptions have no common class
            raise CheckpointError(f"{path}: ONNX Runtime cannot run it: {first_line(error)}") from error
        self._inputs = {entry.name for entry in self._session.get_inputs()}

    def one_pass(self, feeds: Feeds) -> list[np.ndarray]:
        """See `Pass`."""
        try:
            made: list[np.ndarray] = self._session.run(None, {n: v for n, v in feeds.items() if n in self._inputs})
        except Exception as error:
            if SHORTAGE.search(str(error)):
                raise MemoryError(first_line(error)) from error
            raise
        return made

    @property
    def runtime(self) -> str:
        """Name and version of what runs the program."""
        return f"onnxruntime {self._library.__version__}"

    def numerics(self) -> dict[str, str]:
        """See `LoadedModel.numerics`."""
        return {"runtime": self.runtime, "processor": cpu_name(), "number of threads": str(self._threads)}


class Pt2Model(ExportedModel):
    """A model that torch runs from the graph of torch.export.

    Args:
        path: of the file.
        header: of the model.
        content: of the file.
        batch: see `LoadedModel`.

    Raises:
        CheckpointError: torch cannot run the program, or would have to run code of the file to read it.
    """

    def __init__(self, path: Path, header: Header, content: bytes, batch: int | None) -> None:
        super().__init__(path, header, batch)
        from pdr_cli.inference import pt2

        self._module = pt2.load(content, path)

    def one_pass(self, feeds: Feeds) -> list[np.ndarray]:
        """See `Pass`."""
        import torch

        tensors = {name: torch.from_numpy(values) for name, values in feeds.items()}
        with torch.inference_mode():
            made = self._module(tensors.pop("observed"), **tensors)
        return [one.numpy() for one in (made if isinstance(made, tuple) else (made,))]

    @property
    def runtime(self) -> str:
        """Name and version of what runs the program."""
        import torch

        return f"torch {torch.__version__}"

    def numerics(self) -> dict[str, str]:
        """See `LoadedModel.numerics`."""
        import torch

        count, level = str(torch.get_num_threads()), torch.backends.cpu.get_cpu_capability()
        return {"runtime": self.runtime, "processor": level, "number of threads": count}


KINDS: Mapping[str, Callable[[Path, Header, bytes, int | None], ExportedModel]] = {ONNX: OnnxModel, PT2: Pt2Model}


def load(path: Path, device: str = "auto", batch: int | None = None, precision: str = FP32) -> ExportedModel:
    """Load an exported program.

    Args:
        path: of the file.
        device: "auto" or "cpu".
        batch: see `LoadedModel`.
        precision: of the arithmetic; a program has its own.

    Raises:
        CheckpointError: truncated, altered, foreign or too new.
        DeviceError: a GPU.
        UsageError: another precision, or the runtime is not installed.
    """
    if device not in ("auto", "cpu"):
        found = f"--device {device}: {path} is an exported program, which runs on the CPU"
        raise DeviceError(found, way_out="use --device cpu, or name the model that it was exported from")
    content = container.content_of(path)
    model = opened(content, path, batch)
    if precision != FP32:
        found = f"--precision {precision}: {path} is an exported program, whose precision is its own"
        raise UsageError(found, way_out="leave it out; pdr export --precision writes others")
    return model


def opened(content: bytes, path: Path, batch: int | None = None) -> ExportedModel:
    """The model in the bytes of an exported program; errors as of `load`.

    Args:
        content: of the file.
        path: of the file; its suffix names the runtime.
        batch: see `LoadedModel`.
    """
    return KINDS[path.suffix.lower()](path, exported.checked(content, path), content, batch)


def threads() -> int:
    """The threads that a program runs on: $OMP_NUM_THREADS, as of torch, or those of the processors that it may use."""
    chosen = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    if chosen.isdigit() and int(chosen):
        return int(chosen)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _onnxruntime() -> Any:
    """The library.

    Raises:
        UsageError: it is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise UsageError("a .onnx model needs onnxruntime", way_out="pip install 'pdr-cli[export]'") from error
    return onnxruntime
