"""A model for other runtimes: one graph from data units to data units (ONNX, torch.export), or the weights alone."""

from __future__ import annotations

import contextlib
import json
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from pdr_cli.errors import PdrError, UsageError
from pdr_cli.inference.model import Model
from pdr_cli.models.bounds import Bounds
from pdr_cli.models.interfaces import Batch
from pdr_cli.system import atomic
from pdr_cli.system.atomic import atomic_output
from pdr_cli.system.scratch import plainly_named

# float32 arithmetic in another order; measured below 1e-5 for the shipped presets.
TOLERANCE = 1e-4
BATCHES = (1, 3)  # verified with both, since the batch is dynamic


class MismatchError(PdrError):
    """An exported artefact computes something else than the model."""

    code, name = 1, "E_EXPORT_MISMATCH"


class Graph(nn.Module):
    """Observed frames [B, T, C, H, W] in data units to the forecast [B, τ, C, H, W] in data units."""

    offset: torch.Tensor
    scale: torch.Tensor

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.network = model.network
        self.steps = model.card.config.data.out_steps
        for name in ("offset", "scale"):
            values = torch.tensor(getattr(model.card.scaling, name), dtype=torch.float32)
            self.register_buffer(name, values[:, None, None])
        bounds = model.card.bounds
        self.bounded: nn.Module = (
            nn.Identity() if bounds is None else Bounds(*(torch.from_numpy(e[:, 0, 0]) for e in bounds.ends()))
        )

    def forward(self, observed: torch.Tensor) -> torch.Tensor:
        """Scale, forecast, scale back, and bound again, because scaling rounds."""
        fused = self.network(Batch((observed - self.offset) / self.scale, self.steps)).fused
        bounded: torch.Tensor = self.bounded(fused * self.scale + self.offset)
        return bounded


def write_onnx(model: Model, path: Path, verify: bool) -> str:
    """Write ONNX with a dynamic batch; returns what verification found.

    Raises:
        UsageError: the packages of the `export` extra are missing.
        MismatchError: ONNX Runtime computes something else; no file is left.
    """
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401 - what torch exports with
    except ImportError as error:
        raise UsageError(f"ONNX needs {error.name}: pip install 'pdr-cli[export]'") from None
    graph = Graph(model).eval()

    def check(temporary: Path) -> None:
        named = str(plainly_named(temporary))
        onnx.checker.check_model(named)
        session = onnxruntime.InferenceSession(named, providers=["CPUExecutionProvider"])
        found.append(_compare(model, graph, lambda x: session.run(None, {"observed": x})[0], "ONNX Runtime"))

    found: list[str] = []
    with atomic_output(path, verify=check if verify else None) as temporary, _exporters_own_remarks_silenced():
        program = torch.onnx.export(
            graph,
            (_example(model, 2),),
            dynamo=True,
            input_names=["observed"],
            output_names=["forecast"],
            dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=1024)},),
            verbose=False,
        )
        if program is None:
            raise MismatchError("torch.onnx exported no program", way_out="export to .pt2")
        program.model.metadata_props.update(_about(model))
        program.save(str(plainly_named(temporary)))
    return found[0] if found else "not verified"


def write_pt2(model: Model, path: Path, verify: bool) -> str:
    """Write a torch.export program with a dynamic batch; returns what verification found.

    Raises:
        MismatchError: the program computes something else; no file is left.
    """
    graph = Graph(model).eval()
    found: list[str] = []

    def check(temporary: Path) -> None:
        program = torch.export.load(temporary).module()
        found.append(_compare(model, graph, lambda x: program(torch.from_numpy(x)).detach().numpy(), "torch.export"))

    shapes = ({0: torch.export.Dim("batch", min=1, max=1024)},)
    with atomic_output(path, verify=check if verify else None) as temporary, torch.no_grad():
        program = torch.export.export(graph, (_example(model, 2),), dynamic_shapes=shapes)
        torch.export.save(program, temporary, extra_files={"pdr.json": json.dumps(_about(model))})
    return found[0] if found else "not verified"


def write_weights(model: Model, path: Path) -> int:
    """Write the network's weights as safetensors; returns how many numbers they are."""
    from safetensors.torch import save

    weights = {k: v.contiguous() for k, v in model.network.state_dict().items()}
    atomic.write_bytes(path, save(weights))
    return sum(w.numel() for w in weights.values())


@contextlib.contextmanager
def _exporters_own_remarks_silenced() -> Iterator[None]:
    """The exporter warns of torchvision operators it cannot register and of its own deprecations; users can mend neither."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        logger.setLevel(level)


def _example(model: Model, batch: int) -> torch.Tensor:
    """Observed frames as the model expects them: climatology plus noise of its own size."""
    card = model.card
    generator = torch.Generator().manual_seed(0)
    shape = (batch, card.config.data.in_steps, len(card.variables), *card.size)
    noise = torch.randn(shape, generator=generator).numpy()
    return torch.from_numpy(
        model.climatology.coefficients[0] + 0.3 * card.scaling.invert(noise) - 0.3 * card.scaling.invert(0 * noise)
    )


def _compare(model: Model, graph: Graph, artefact: Any, name: str) -> str:
    worst = 0.0
    for batch in BATCHES:
        x = _example(model, batch)
        with torch.inference_mode():
            meant = graph(x).numpy()
        got = artefact(x.numpy())
        if got.shape != meant.shape:
            raise MismatchError(
                f"{name} gives {got.shape} for a batch of {batch}, the model {meant.shape}; no file was written"
            )
        worst = max(worst, float(np.abs(got - meant).max() / (meant.max() - meant.min())))
    if not worst <= TOLERANCE:
        raise MismatchError(
            f"{name} differs from the model by {worst:.1e} of the forecast's range; no file was written"
        )
    return f"verified in {name}: largest difference {worst:.1e} of the forecast's range (batches {BATCHES[0]} and {BATCHES[1]})"


def _about(model: Model) -> dict[str, str]:
    card = model.card
    return {
        "pdr_input": f"[batch, {card.config.data.in_steps}, {len(card.variables)}, {card.size[0]}, {card.size[1]}]",
        "pdr_variables": ", ".join(f"{n} [{a.get('units', '1')}]" for n, a in card.variables.items()),
        "pdr_step": str(card.step),
        "pdr_preset": card.config.preset,
    }
