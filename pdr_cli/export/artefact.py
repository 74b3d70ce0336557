"""A model for other runtimes: one graph from data units to data units (ONNX, torch.export), or the weights alone."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from pdr_cli.data.units import quantities
from pdr_cli.errors import CheckpointError, PdrError, UsageError
from pdr_cli.export.examples import Example, arrays, example, forecast
from pdr_cli.export.graph import Graph
from pdr_cli.inference.exported import ExportedModel, opened, rolled
from pdr_cli.inference.header import given_of, reads_times
from pdr_cli.inference.loaded import FP32
from pdr_cli.inference.model import Model
from pdr_cli.inference.scenes import LoadedScenes
from pdr_cli.runs import exported, programs
from pdr_cli.runs.modelfile import Header
from pdr_cli.runs.programs import ONNX, RUNTIMES, Program
from pdr_cli.system import atomic
from pdr_cli.system.atomic import atomic_output

# float32 arithmetic in another order; measured below 1e-5 for the shipped presets.
TOLERANCE = 1e-4
BATCHES = (1, 3)  # verified with both, since the batch is dynamic
Measure = Callable[[ExportedModel], str]  # what a program's precision costs, in words


class MismatchError(PdrError):
    """An exported artefact computes something else than the model."""

    code, name = 1, "E_EXPORT_MISMATCH"


def write(
    model: Model, path: Path, *, verify: bool = True, precision: str = FP32, measure: Measure | None = None
) -> str:
    """Write a program with a dynamic batch and with the header of its model, by its suffix; returns what was found of it.

    Args:
        model: the model.
        path: of the file, .onnx or .pt2.
        verify: run the program and compare it with the model.
        precision: of the weights; another than fp32 of ONNX alone.
        measure: says what the precision costs; None: not measured.

    Raises:
        UsageError: the packages of the `export` extra are missing, or nothing of the network can be rounded.
        MismatchError: the program computes something else; no file is left.
    """
    runtime = path.suffix.lower()
    graph = Graph(model).eval()
    found: list[str] = []

    def check(temporary: Path) -> None:
        try:
            made = opened(temporary.read_bytes(), path)
        except CheckpointError as error:
            raise MismatchError(f"the program does not run: {error}; no file was written") from error
        if verify:
            found.append(_compared(graph, model, made, TOLERANCE if precision == FP32 else np.inf))
        if measure is not None:
            found.append(measure(made))

    with atomic_output(path, verify=check) as temporary:
        program = _onnx(graph, model, precision) if runtime == ONNX else _pt2(graph, model)
        shorter, longer = _lengths(model, graph)
        sha256 = programs.sha256_of(program, runtime)
        about = Program(sha256, model.sha256, precision, shorter, longer)
        header = Header(model.card, model.climatology, model.sha256, model.calibration)
        temporary.write_bytes(exported.joined(header, program, about, runtime))
    return "\n".join(found) if found else "not verified"


def _onnx(graph: Graph, model: Model, precision: str) -> bytes:
    try:
        import onnx
        import onnxruntime  # noqa: F401 - what runs it
        import onnxscript  # noqa: F401 - what torch exports with
    except ImportError as error:
        raise UsageError(f"ONNX needs {error.name}: pip install 'pdr-cli[export]'") from None
    inputs = example(model, 2)
    with _exporters_own_remarks_silenced():
        program = torch.onnx.export(
            graph,
            kwargs=dict(inputs),
            dynamo=True,
            input_names=list(inputs),
            output_names=graph.outputs,
            dynamic_shapes=_any_batch(inputs),
            verbose=False,
        )
    if program is None:
        raise MismatchError("torch.onnx exported no program", way_out="export to .pt2")
    program.model.metadata_props.update(_about(model))
    proto = program.model_proto
    if precision != FP32:
        from pdr_cli.export import rounding

        rounding.round_weights(proto, precision)
    onnx.checker.check_model(proto)
    made: bytes = proto.SerializeToString()
    return made


def _pt2(graph: Graph, model: Model) -> bytes:
    inputs, stream = example(model, 2), io.BytesIO()
    observed, others = (inputs["observed"],), {name: value for name, value in inputs.items() if name != "observed"}
    with torch.no_grad():
        program = torch.export.export(graph, observed, others, dynamic_shapes=_any_batch(inputs))
        torch.export.save(program, stream, extra_files={"pdr.json": json.dumps(_about(model))})
    return stream.getvalue()


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


def _any_batch(inputs: Example) -> dict[str, dict[int, torch.export.Dim]]:
    """Shapes of the graph's inputs: the batch, their first dimension, is free."""
    batch = torch.export.Dim("batch", min=1, max=1024)
    return {name: {0: batch} for name in inputs}


def _compared(graph: Graph, model: Model, made: ExportedModel, tolerance: float) -> str:
    """The largest difference of a program from its model, in words.

    Raises:
        MismatchError: it exceeds the tolerance.
    """
    worst, name = 0.0, RUNTIMES[made.path.suffix.lower()]
    for batch in BATCHES:
        inputs = example(model, batch)
        with torch.inference_mode():
            _, *coarse = (frames.numpy() for frames in graph(**inputs))
        got = made.one_pass({key: value.numpy() for key, value in inputs.items()})
        for one, other in zip(got, [forecast(model, inputs), *coarse], strict=True):
            if one.shape != other.shape:
                found = f"{name} gives {one.shape} for a batch of {batch}, the model {other.shape}; no file was written"
                raise MismatchError(found)
            worst = max(worst, _difference(one, other))
    if not worst <= tolerance:
        raise MismatchError(
            f"{name} differs from the model by {worst:.1e} of the forecast's range; no file was written"
        )
    return f"verified in {name}: largest difference {worst:.1e} of the forecast's range (batches {BATCHES[0]} and {BATCHES[1]})"


def _difference(made: np.ndarray, meant: np.ndarray) -> float:
    """The largest difference, as a share of the range."""
    return float(np.nanmax(np.abs(made - meant)) / (np.nanmax(meant) - np.nanmin(meant)))  # NaN where never observed


def _lengths(model: Model, graph: Graph) -> tuple[bool, bool]:
    """Whether forecasts of fewer and of more steps, made of passes of the graph, are those of the model."""

    def one_pass(feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        with torch.inference_mode():
            return [frames.numpy() for frames in graph(**{n: torch.from_numpy(v) for n, v in feeds.items()})]

    def agree(steps: int) -> bool:
        inputs = example(model, BATCHES[-1], steps)
        observed, context = arrays(inputs)
        made = rolled(one_pass, observed, context, (graph.steps, steps), model.bounded)
        return _difference(made, forecast(model, inputs, steps)) <= TOLERANCE

    longer = not model.card.config.data.targets and agree(2 * graph.steps + 1)
    return graph.steps == 1 or agree((graph.steps + 1) // 2), longer


def _about(model: Model) -> dict[str, str]:
    card = model.card
    T, leads, rows, columns = card.config.data.in_steps, card.config.data.out_steps, *card.size
    about = {
        "pdr_input": f"[batch, {T}, {len(card.variables)}, {rows}, {columns}]",
        "pdr_variables": ", ".join(quantities(card.variables)),
        "pdr_step": str(card.step),
        "pdr_preset": card.config.preset,
    }
    if targets := card.config.data.targets:
        about["pdr_targets"] = (
            f"{', '.join(targets)}: forecast and not observed; the input may hold anything there, even NaN"
        )
    if reads_times(card, model.contexts):
        about["pdr_times"] = f"[batch, {T + leads}] int64, seconds since 1970-01-01 of observed and forecast frames"
    if card.frames.lags:
        cycles = " and ".join(f"{cycle} steps" for cycle in card.cycles)
        about["pdr_earlier"] = (
            f"[batch, {len(card.cycles)}, {leads}, {len(card.variables)}, {rows}, {columns}], the latest observed frames a "
            f"multiple of {cycles} before each forecast frame; NaN where missing"
        )
    if card.covariates is not None and (given := given_of(card)):
        described = card.covariates.described(list(card.variables), card.scaling.scale)
        shape = f"[batch, {T + leads}, {given}, {rows}, {columns}]"
        about["pdr_covariates"] = json.dumps({"shape": shape, "channels": described[card.covariates.dates :]})
    return about
