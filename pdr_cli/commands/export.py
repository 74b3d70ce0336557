"""`pdr export`: a model for another runtime, its Gaussians as numbers, or a picture of its layers."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pdr_cli.data import formats
from pdr_cli.data import times as time_axis
from pdr_cli.data.scenes import KIND
from pdr_cli.data.series import Series
from pdr_cli.errors import UsageError
from pdr_cli.inference import forecast
from pdr_cli.inference import intake as intakes
from pdr_cli.inference import model as models
from pdr_cli.inference.filming import Filming
from pdr_cli.inference.intake import Intake
from pdr_cli.inference.loaded import FP32, LoadedModel
from pdr_cli.inference.members import Drawing, seeds_of
from pdr_cli.inference.model import Model
from pdr_cli.inference.policy import InputPolicy
from pdr_cli.inference.provenance import command_line, provenance
from pdr_cli.runs import folder as runs
from pdr_cli.runs import modelfile
from pdr_cli.runs.programs import ONNX, PRECISIONS
from pdr_cli.system import atomic
from pdr_cli.trust import Trust
from pdr_cli.verification.sources import Reading

OF_SCENES = (".ply", ".nc", ".png")
NEEDS_INPUT = (".nc", ".png", ".ply")
OUTPUTS = (".onnx", ".pt2", ".safetensors", *NEEDS_INPUT)
CAMERA = "orbit:20"  # as the paths of training


@dataclass(frozen=True)
class Shot:
    """Which scene is exported of a model of scenes.

    Args:
        camera: path along which the future is drawn; None: `CAMERA`.
        at: time from 0 to 1 of the Gaussians in a .ply; None: 0.
        seed: of the future; None: 0.
    """

    camera: str | None = None
    at: float | None = None
    seed: int | None = None

    @property
    def given(self) -> list[str]:
        """The options that are given."""
        return [f"--{f.name}" for f in dataclasses.fields(self) if getattr(self, f.name) is not None]


@dataclass(frozen=True)
class Writing:
    """How a program is written.

    Args:
        verify: run it and compare it with the model.
        precision: of its weights: "fp32", "fp16" or "int8".
    """

    verify: bool = True
    precision: str = FP32

    def check(self, suffix: str, inputs: Sequence[str]) -> None:
        """Refuse a precision that the output cannot have, or whose cost cannot be measured.

        Raises:
            UsageError: such a precision.
        """
        if self.precision == FP32:
            return
        if self.precision not in PRECISIONS:
            raise UsageError(f"--precision {self.precision}", " or ".join(PRECISIONS))
        if suffix != ONNX:
            raise UsageError(f"--precision {self.precision} is for .onnx, not {suffix}", way_out="leave it out")
        if not inputs:
            raise UsageError(
                f"--precision {self.precision} costs skill, which is measured on data before the file is written",
                way_out="name data that the model has not seen with --input DATA",
            )


def run(
    output: Path,
    *,
    model: str | None,
    inputs: Sequence[str],
    init: str | None,
    rename: Sequence[str],
    writing: Writing,
    trust: Trust,
    shot: Shot = Shot(),
) -> None:
    """Export; see `pdr export --help` for the options."""
    suffix = output.suffix.lower()
    if suffix not in OUTPUTS:
        raise UsageError(f"output {output} has a suffix that names no export", f"one of {', '.join(OUTPUTS)}")
    if suffix in NEEDS_INPUT and not inputs:
        raise UsageError(f"{suffix} shows a forecast", way_out="name the data with --input FILE")
    writing.check(suffix, inputs)
    paths = formats.find_inputs(inputs) if inputs else []
    source = runs.find_model(model)
    atomic.check_output(output, [source, *paths])
    if modelfile.read_header(source).card.kind == KIND:
        refused = {"--init": init is not None, "--var": bool(rename)}
        print(f"{output}  {_scene(source, output, paths, shot, [name for name, given in refused.items() if given])}")
        return
    if suffix == ".ply" or shot.given:
        what = shot.given[0] if shot.given else ".ply"
        raise UsageError(f"{what} is for models of moving scenes in space, and {source} is not one")
    loaded = models.load(source, "cpu", trust=trust)
    if suffix in NEEDS_INPUT:
        intake = Intake(loaded)
        series = intakes.only_series(intake.open(paths, intakes.renames(rename, loaded.card)))
        at = None if init is None else time_axis.parse(init, series.time.values)
        described = (_gaussians if suffix == ".nc" else _picture)(intake, loaded, series, at, output)
    else:
        described = _artefact(loaded, output, writing, Reading(rename=rename), paths)
    print(f"{output}  {described}")


def _scene(source: Path, output: Path, paths: Sequence[Path], shot: Shot, refused: Sequence[str]) -> str:
    """Export the scene of a picture."""
    from pdr_cli.drawing import films
    from pdr_cli.export import artefact, scenes
    from pdr_cli.inference import filming
    from pdr_cli.inference import scenes as models

    suffix, seed = output.suffix.lower(), shot.seed or 0
    if refused:
        raise UsageError(f"{refused[0]} is for models of fields, traffic or clips", way_out="leave it out")
    if shot.at is not None and suffix != ".ply":
        raise UsageError(
            "--at is the time of the Gaussians in a .ply", way_out="leave it out: the others hold all times"
        )
    model = models.load(source, "cpu")
    if suffix == ".safetensors":
        return f"weights only, {artefact.write_weights(model, output):,} numbers"
    if suffix not in OF_SCENES:
        found = f"{source} is a model of moving scenes in space, whose renderer sorts: it has no graph for {suffix}"
        raise UsageError(found, f"one of {', '.join(OF_SCENES)}")
    stage = Filming(shot.camera or CAMERA).stage(model.card)
    picture = filming.picture_of(paths, model.card.size, InputPolicy())
    if suffix == ".png":
        made = filming.film(model, picture, stage, Drawing(seed=seed))
        films.sheet(output, picture, made.frames, made.depth, made.ways, model=model.name)
        return "picture, film, depth and the ways of Gaussians"
    scene = filming.scene_of(model, picture, stage.path, seeds_of(seed, 1, [filming.PICTURED])[0, 0])
    if suffix == ".ply":
        return f"{scenes.write_ply(scene, shot.at or 0, output)} Gaussians at time {shot.at or 0:g}"
    about = filming.origin_of(model, picture, "Gaussians of a scene", stage, seed, shot.camera or CAMERA)
    return f"{scenes.write_netcdf(scene, output, about)} Gaussians and their curves"


def _artefact(model: Model, output: Path, writing: Writing, reading: Reading, paths: Sequence[Path]) -> str:
    from pdr_cli.export import artefact

    if output.suffix.lower() == ".safetensors":
        return f"weights only, {artefact.write_weights(model, output):,} numbers"
    if writing.precision == FP32:
        return artefact.write(model, output, verify=writing.verify)

    def measure(program: LoadedModel) -> str:
        from pdr_cli.verification import rounded

        return rounded.cost(model, program, paths, reading)

    return artefact.write(model, output, verify=writing.verify, precision=writing.precision, measure=measure)


def _gaussians(intake: Intake, model: Model, series: Series, init: int | None, output: Path) -> str:
    from pdr_cli.export import gaussianfile

    window = intake.observe(series, init)
    attributes = provenance(model, series, window, command_line())
    return f"{gaussianfile.write(model, series, window, output, attributes)} Gaussians a frame"


def _picture(intake: Intake, model: Model, series: Series, init: int | None, output: Path) -> str:
    """Draw panels of the last lead time, with the Gaussians as ellipses."""
    from pdr_cli.drawing import pictures
    from pdr_cli.export import gaussians

    window = intake.observe(series, init)
    drawn = gaussians.of_forecast(model, series, window).isel(time=-1)
    made = forecast.after(model, intake, series, window)
    both = (made.layers.coarse, made.layers.layer)
    coarse, layer = (window.orientation.invert(frames[0]) for frames in both if frames is not None)
    pictures.layers(
        output,
        observed=made.observed(),
        fused=made.frames,
        coarse=coarse,
        painted=layer,
        gaussians={str(n): values.values for n, values in drawn.data_vars.items()},
        truth=made.truth(),
    )
    return "input, coarse forecast, Gaussians and fused forecast"
