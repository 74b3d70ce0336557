"""A model for other runtimes: one graph from data units to data units (ONNX, torch.export), or the weights alone."""

from __future__ import annotations

import contextlib
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pdr_cli.errors import PdrError, UsageError
from pdr_cli.export.graph import Graph
from pdr_cli.inference.model import Model
from pdr_cli.inference.scenes import LoadedScenes
from pdr_cli.system import atomic
from pdr_cli.system.atomic import atomic_output
from pdr_cli.system.scratch import plainly_named

# float32 arithmetic in another order; measured below 1e-5 for the shipped presets.
TOLERANCE = 1e-4
FIRST_TIME = 946_684_800  # 2000-01-01, in seconds since 1970, of the example
BATCHES = (1, 3)  # verified with both, since the batch is dynamic

Example = dict[str, torch.Tensor]  # inputs of the graph by name


class MismatchError(PdrError):
    """An exported artefact computes something else than the model."""

    code, name = 1, "E_EXPORT_MISMATCH"


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

        def run(example: Example) -> np.ndarray:
            made: np.ndarray = session.run(None, {name: value.numpy() for name, value in example.items()})[0]
            return made

        found.append(_compare(model, graph, run, "ONNX Runtime"))

    found: list[str] = []
    with atomic_output(path, verify=check if verify else None) as temporary, _exporters_own_remarks_silenced():
        example = _example(model, 2)
        program = torch.onnx.export(
            graph,
            kwargs=dict(example),
            dynamo=True,
            input_names=list(example),
            output_names=["forecast"],
            dynamic_shapes=_any_batch(example),
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

        def run(example: Example) -> np.ndarray:
            observed, others = _arguments(example)
            made: np.ndarray = program(*observed, **others).detach().numpy()
            return made

        found.append(_compare(model, graph, run, "torch.export"))

    example = _example(model, 2)
    with atomic_output(path, verify=check if verify else None) as temporary, torch.no_grad():
        program = torch.export.export(graph, *_arguments(example), dynamic_shapes=_any_batch(example))
        torch.export.save(program, temporary, extra_files={"pdr.json": json.dumps(_about(model))})
    return found[0] if found else "not verified"


def write_weights(model: Model | LoadedScenes, path: Path) -> int:
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
            warnings.filterwarnings("ignore", "# The axis name: batch will not be used", UserWarning)
            yield
    finally:
        logger.setLevel(level)


def _arguments(example: Example) -> tuple[tuple[torch.Tensor], Example]:
    """The observed frames, which a program takes by position, and its other inputs, which it takes by name."""
    return (example["observed"],), {name: value for name, value in example.items() if name != "observed"}


def _any_batch(example: Example) -> dict[str, dict[int, torch.export.Dim]]:
    """Shapes of the graph's inputs: the batch, their first dimension, is free."""
    batch = torch.export.Dim("batch", min=1, max=1024)
    return {name: {0: batch} for name in example}


def _example(model: Model, batch: int) -> Example:
    """Inputs as the model expects them: climatology plus noise of its own size."""
    card, contexts = model.card, model.contexts
    T, leads = card.config.data.in_steps, card.config.data.out_steps
    generator = torch.Generator().manual_seed(0)

    def frames(*shape: int) -> torch.Tensor:
        noise = torch.randn((batch, *shape, len(card.variables), *card.size), generator=generator).numpy()
        around = 0.3 * card.scaling.invert(noise) - 0.3 * card.scaling.invert(0 * noise)
        return torch.from_numpy(model.climatology.coefficients[0] + around)

    example = {"observed": frames(T)}
    if contexts.climatology is not None:
        step = round(3600 * card.step.hours)
        first = FIRST_TIME + 1_234_567 * torch.arange(batch)[:, None]
        example["times"] = first - first % step + step * torch.arange(T + leads)
    if card.frames.lags:
        example["earlier"] = frames(card.frames.lags, leads)
        example["earlier"][:, 0, 0] = torch.nan
    if fields := card.frames.covariates:
        example["covariates"] = torch.randn((batch, T + leads, fields, *card.size), generator=generator)
    return example


def _compare(model: Model, graph: Graph, artefact: Callable[[Example], Any], name: str) -> str:
    worst = 0.0
    for batch in BATCHES:
        example = _example(model, batch)
        with torch.inference_mode():
            meant = graph(**example).numpy()
        got = artefact(example)
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
    T, leads, rows, columns = card.config.data.in_steps, card.config.data.out_steps, *card.size
    about = {
        "pdr_input": f"[batch, {T}, {len(card.variables)}, {rows}, {columns}]",
        "pdr_variables": ", ".join(f"{n} [{a.get('units', '1')}]" for n, a in card.variables.items()),
        "pdr_step": str(card.step),
        "pdr_preset": card.config.preset,
    }
    if targets := card.config.data.targets:
        about["pdr_targets"] = (
            f"{', '.join(targets)}: forecast and not observed; the input may hold anything there, even NaN"
        )
    if model.contexts.climatology is not None:
        about["pdr_times"] = f"[batch, {T + leads}] int64, seconds since 1970-01-01 of observed and forecast frames"
    if card.frames.lags:
        cycles = " and ".join(f"{cycle} steps" for cycle in card.cycles)
        about["pdr_earlier"] = (
            f"[batch, {len(card.cycles)}, {leads}, {len(card.variables)}, {rows}, {columns}], the latest observed frames a "
            f"multiple of {cycles} before each forecast frame; NaN where missing"
        )
    if card.covariates is not None:
        about["pdr_covariates"] = json.dumps(
            {
                "shape": f"[batch, {T + leads}, {card.frames.covariates}, {rows}, {columns}]",
                "channels": card.covariates.described(list(card.variables), card.scaling.scale),
            }
        )
    return about
