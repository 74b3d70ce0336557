"""`pdr train`: train a run or an ablation and print its folder, or print what would be trained."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pdr_cli.ablation import run as ablations
from pdr_cli.bench.machine import describe
from pdr_cli.commands import tables
from pdr_cli.data.scenes import KIND
from pdr_cli.drawing import runcard
from pdr_cli.errors import UsageError
from pdr_cli.runs import folder as runs
from pdr_cli.runs.folder import RunFolder
from pdr_cli.system.logs import progress
from pdr_cli.training import overview, ranks
from pdr_cli.training import run as training
from pdr_cli.training.loop import Trainer
from pdr_cli.training.prepare import find_files
from pdr_cli.training.profile import profile
from pdr_cli.training.request import Experiment
from pdr_cli.training.run import TrainingRequest
from pdr_cli.training.scenes import run as scenes
from pdr_cli.trust import Trust

PROFILED = 20  # steps of --profile


@dataclass(frozen=True)
class Arguments:
    """The command line; see `pdr train --help`. `flags` are the options that set a key of the preset."""

    preset: str | None
    data: Sequence[str]
    variables: Sequence[str]
    settings: Sequence[str]
    flags: Mapping[str, Any]
    out: Path | None = None
    device: str = "auto"
    resume: bool = False
    state: str = "last"
    dry_run: bool = False
    init_from: Path | None = None
    fine_tune: str | None = None
    freeze_backbone: bool = False
    ablation: str | None = None
    seeds: int = 3
    profile: bool = False
    trust_code: bool = False

    @property
    def experiment(self) -> Experiment:
        """The part that decides the configuration."""
        return Experiment(self.preset, self.data, self.variables, self.flags, self.settings, self.continued)

    @property
    def continued(self) -> Path | None:
        """The model file of --fine-tune; None where a run is resumed, which knows where it began."""
        return None if self.fine_tune is None or self.resume else runs.find_model(self.fine_tune)

    @property
    def trust(self) -> Trust:
        """The code that may run."""
        return self.experiment.trust(self.trust_code)


def run(arguments: Arguments) -> None:
    """Train; see `pdr train --help` for the options."""
    resumed = arguments.out if arguments.resume else None
    if arguments.profile and (arguments.ablation or arguments.resume or arguments.dry_run):
        raise UsageError("--profile measures a run that begins, and trains nothing", way_out="name it alone")
    if arguments.fine_tune is not None and (arguments.init_from or arguments.ablation):
        raise UsageError(
            "--fine-tune begins with the weights of its model", way_out="leave out --init-from and --ablation"
        )
    if arguments.fine_tune is not None and not (arguments.data or arguments.resume):
        raise UsageError(f"--fine-tune {arguments.fine_tune} continues on other data", way_out="name them with --data")
    if arguments.ablation is not None or (resumed is not None and ablations.is_ablation(resumed)):
        _ablation(arguments)
    else:
        _run(arguments)


def _run(arguments: Arguments) -> None:
    state = _state(arguments)
    request = TrainingRequest(
        arguments.experiment.resolve(arguments.out, arguments.resume),
        out=arguments.out,
        device=arguments.device,
        resume=state if arguments.resume else None,
        init_from=arguments.init_from or arguments.continued,
        freeze_backbone=arguments.freeze_backbone,
        trust=arguments.trust,
    )
    if arguments.profile:
        _profile(request)
        return
    if request.config.data.kind == KIND:
        _scenes(request, arguments.dry_run)
        return
    with ranks.joined(request.device) as (together, device):
        request = dataclasses.replace(request, ranks=together, device=device)
        planned = training.plan(request, create=not arguments.dry_run)
        if not arguments.dry_run:
            training.fit(planned)
        if not together.first:
            return
        if arguments.dry_run:
            print("\n".join(overview.lines(planned)))
            return
        windows = planned.config.train.card_windows if together.alone else 0
        runcard.write(planned.folder, lambda: find_files(planned.config), windows, device, arguments.trust)
        print(planned.folder.path)


def _scenes(request: TrainingRequest, dry_run: bool) -> None:
    """Train on scenes, or with `dry_run` print the run."""
    planned = scenes.plan(request, create=not dry_run)
    if dry_run:
        print("\n".join(scenes.lines(planned)))
        return
    scenes.fit(planned)
    runcard.write(planned.folder, list, 0, request.device, request.trust)
    print(planned.folder.path)


def _profile(request: TrainingRequest) -> None:
    """Print where the time of a step goes; the run leaves nothing behind."""
    of_scenes = request.config.data.kind == KIND
    ranks.refuse("--profile measures a step")
    import torch

    planned: Any = (scenes if of_scenes else training).plan(request, create=False)
    with tempfile.TemporaryDirectory() as folder, progress("profiling"):
        run = dataclasses.replace(planned, folder=RunFolder(Path(folder)))
        loop: Trainer[Any] = (scenes if of_scenes else training).trainer(run)
        found = profile(loop, PROFILED)
    if of_scenes:
        model = scenes.model_line(run.network, run.data.size)
    else:
        model = overview.model_line(run.network, run.config, run.prepared.size)
    machine = describe(run.device) | {"threads": torch.get_num_threads()}
    tables.show_profile(found, f"{model}; batch {run.config.train.batch}", tables.machine_of(machine))


def _state(arguments: Arguments) -> Literal["last", "last-1"]:
    if arguments.state == "last":
        return "last"
    if arguments.state == "last-1" and arguments.resume:
        return "last-1"
    raise UsageError(f"--state {arguments.state}", way_out="use last or last-1, together with --resume")


def _ablation(arguments: Arguments) -> None:
    """Run an ablation and print its table, or with `dry_run` its runs."""
    if arguments.init_from is not None or arguments.freeze_backbone:
        way_out = "leave out --init-from and --freeze-backbone"
        raise UsageError("--ablation trains each variant from new weights", way_out=way_out)
    base = None if arguments.resume else arguments.experiment.resolve()
    planned = ablations.plan(
        ablations.Request(
            arguments.ablation,
            base,
            arguments.out,
            arguments.seeds,
            arguments.device,
            arguments.resume,
            arguments.dry_run,
            arguments.trust,
        )
    )
    if arguments.dry_run:
        print("\n".join(ablations.plan_lines(planned)))
        return
    tables.show_ablation(ablations.execute(planned, arguments.device))
    print(planned.path)
