"""`pdr evaluate`: score models, files and baselines on the same windows; a table, the numbers, a page."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pdr_cli.commands import tables
from pdr_cli.data import formats, kinds
from pdr_cli.data.scenes import KIND
from pdr_cli.errors import InputNotFoundError, UsageError
from pdr_cli.inference import provenance
from pdr_cli.inference.loaded import FP32
from pdr_cli.inference.members import DIRECT, Drawing
from pdr_cli.inference.request import changed
from pdr_cli.inspection.scenes import is_scenes
from pdr_cli.runs import folder as runs
from pdr_cli.runs import modelfile
from pdr_cli.system import atomic, processes
from pdr_cli.system.logs import Silence, log, progress
from pdr_cli.trust import Trust
from pdr_cli.verification import cards, cases, evaluation, scores, sources, task
from pdr_cli.verification.evaluation import Options, Result
from pdr_cli.verification.sources import Reading
from pdr_cli.verification.task import Task

OF_SCENES = (
    "models",
    "split",
    "output",
    "as_json",
    "device",
    "drawing",
    "lpips",
    "trust",
)  # options that hold for scenes
REPORT_ANALYSES = ("spectra", "calibration")


@dataclass(frozen=True)
class Request:
    """The options of `pdr evaluate`; see its --help.

    Args:
        models: models and forecast files.
        split: part of the data.
        against: baselines; None: the default ones.
        metrics: scores and analyses, the headline first; none: those of the kind of data.
        convention: how scores are defined.
        protocol: how windows are chosen.
        steps: lead times; None: the shortest horizon.
        batch: windows that a network sees at once, at most.
        rename: NAME or NAME=INPUTNAME.
        lpips, raft: files of weights.
        efficiency: measure what each model costs.
        output: the document as .json, or a table as .csv.
        plot: error against lead time, a PNG.
        report: a page, .html.
        as_json: print the document instead of tables.
        device: see `devices.pick`.
        precision: of the networks, see `Model`.
        resample_fps: frames a second that clips are brought to.
        gray_to_rgb: read a gray clip as red, green and blue alike.
        kind: of the data; None: the model's, or as found.
        missing_values: see `ReadOptions`.
        assume: conventions that the data leave open, such as `slots=0-23`.
        group: of the data that holds the fields; "": the model's, or as found.
        drawing: the members of models that draw.
        events: thresholds, such as "air>273.15".
        by: season and region, by which scores are given too.
        trust: see `families.Family.find`.
    """

    models: Sequence[str] = ()
    split: str = "test"
    against: Sequence[str] | None = None
    metrics: Sequence[str] = ()
    convention: str = "standard"
    protocol: str = "honest"
    steps: int | None = None
    batch: int | None = None
    rename: Sequence[str] = ()
    lpips: Path | None = None
    raft: Path | None = None
    efficiency: bool = False
    output: Path | None = None
    plot: Path | None = None
    report: Path | None = None
    as_json: bool = False
    device: str = "auto"
    precision: str = FP32
    resample_fps: float = 0
    gray_to_rgb: bool = False
    kind: str | None = None
    group: str = ""
    missing_values: Sequence[str] = ()
    assume: Sequence[str] = ()
    drawing: Drawing = DIRECT
    events: Sequence[str] = ()
    by: Sequence[str] = ()
    trust: Trust | None = None

    @property
    def reading(self) -> Reading:
        """How models and truth are read."""
        kind = self.kind or kinds.ANY
        return Reading(
            rename=self.rename,
            kind=kind,
            resample_fps=self.resample_fps,
            gray_to_rgb=self.gray_to_rgb,
            group=self.group,
            missing_values=self.missing_values,
            assume=self.assume,
            batch=self.batch,
            device=self.device,
            precision=self.precision,
            trust=self.trust,
        )

    @property
    def options(self) -> Options:
        """What is computed; with a report, the analyses that it shows too."""
        analyses = () if self.report is None else REPORT_ANALYSES
        return Options(
            self.metrics,
            self.against,
            self.convention,
            analyses,
            self.lpips,
            self.raft,
            self.efficiency,
            self.events,
            self.by,
            cells=self.report is not None,
        )


def run(arguments: Sequence[str], request: Request) -> None:
    """Score; see `pdr evaluate --help` for the options."""
    paths = formats.find_inputs(arguments)
    _check(request, paths)
    if len(paths) == 1 and is_scenes(paths[0]):
        source = runs.find_model(request.models[0] if request.models else None)
        if modelfile.read_header(source).card.kind == KIND:  # other models say what they expect instead
            _scenes(paths[0], source, request)
            return
    with processes.joined() as together:
        request = dataclasses.replace(request, device=processes.own_device(request.device))
        with together.together():
            chosen = _task(paths, request)
        with progress("evaluating") if together.first else contextlib.nullcontext(Silence()) as bar:
            found = evaluation.shared(chosen, request.options, together, bar)
    for result in found:
        _show(_as_typed(result, paths), chosen, request)


def _task(paths: Sequence[Path], request: Request) -> Task:
    return sources.task_of(
        paths,
        request.models,
        request.reading,
        split=request.split,
        steps=request.steps,
        protocol=request.protocol,
        drawing=request.drawing,
    )


def _show(result: Result, chosen: Task, request: Request) -> None:
    """Write and print a result."""
    _write(result, chosen, request)
    if request.as_json:
        print(json.dumps(result.document.to_json()))
    else:
        tables.show(result.document)


def _scenes(path: Path, source: Path, request: Request) -> None:
    """Score one model of scenes."""
    from pdr_cli.inference import scenes as models
    from pdr_cli.models.lpips import LPIPS
    from pdr_cli.verification import scenes

    if processes.started_by_torchrun():
        processes.quiet_all_but_first()
        raise UsageError(f"{path} holds scenes, which one process scores", way_out="start it without torchrun")
    if changed(request) - set(OF_SCENES) or len(request.models) > 1 or request.split not in ("test", "val"):
        raise UsageError(
            f"{path} holds scenes, which are scored on --split test or val with one -m; other options that hold for them are "
            "--members, --seed, --lpips-weights, -o, --json and --device",
            way_out="leave out the other options",
        )
    if request.output is not None and request.output.suffix.lower() != ".json":
        raise UsageError(f"-o {request.output} is not a file of scores of scenes", ".json")
    model = models.load(source, request.device)
    lpips = None if request.lpips is None else LPIPS.load(request.lpips).to(model.device)
    found = scenes.evaluate(model, path, request.split, request.drawing, lpips)
    text = json.dumps(found.to_json(), indent=1)
    if request.output is not None:
        atomic.write_text(request.output, text + "\n")
    if request.as_json:
        print(text)
    else:
        tables.show_scenes(found.to_json())


def _as_typed(result: Result, paths: Sequence[Path]) -> Result:
    """The result, with the command line and its inputs on the card."""
    command = provenance.command_line()
    card = dataclasses.replace(result.document.card, command=command, data=cards.listed(paths))
    return dataclasses.replace(result, document=dataclasses.replace(result.document, card=card))


def _check(request: Request, paths: Sequence[Path]) -> None:
    """Refuse what cannot be written or read before anything is computed."""
    for target in (request.output, request.plot, request.report):
        if target is not None:
            atomic.check_output(target, paths)
    if request.output is not None and request.output.suffix.lower() not in (".json", ".csv"):
        raise UsageError(f"-o {request.output} is not a file of scores", ".json or .csv")
    if request.report is not None and request.report.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"--report {request.report} is not a page", ".html")
    for flag, weights in (("--lpips-weights", request.lpips), ("--raft-weights", request.raft)):
        if weights is not None and not weights.is_file():
            raise InputNotFoundError(f"{flag} {weights}: no such file")
    task.check(request.split, request.protocol)
    scores.family(request.convention)


def _write(result: Result, chosen: Task, request: Request) -> None:
    document = result.document
    if request.output is not None:
        as_csv = request.output.suffix.lower() == ".csv"
        text = tables.as_csv(document) if as_csv else json.dumps(document.to_json(), indent=1) + "\n"
        atomic.write_text(request.output, text)
    if request.plot is not None:
        from pdr_cli.drawing import pictures

        pictures.skill(request.plot, document)
    if request.report is not None:
        from pdr_cli.drawing import page

        mapped = None if result.cells is None else (chosen.truth, result.cells)
        written = page.write(request.report, document, cases.typical(result, chosen), mapped)
        log.info("report: %s and %d pictures beside it", written[0], len(written) - 1)
