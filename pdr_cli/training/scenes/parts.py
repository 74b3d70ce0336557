"""The parts of a training before the Reconstructor's, carried out once for several trainings that differ in it alone."""

from __future__ import annotations

from pdr_cli.config import dump
from pdr_cli.runs import tensors as networks
from pdr_cli.runs.folder import RunFolder
from pdr_cli.schema import Config
from pdr_cli.system import atomic, locks
from pdr_cli.system.logs import progress
from pdr_cli.training import state
from pdr_cli.training.averages import AVERAGE
from pdr_cli.training.loop import Trainer
from pdr_cli.training.scenes.lesson import RECONSTRUCTOR, SceneLesson
from pdr_cli.training.scenes.run import SceneRun, trainer
from pdr_cli.training.state import NETWORK

# The keys by table that nothing reads before the turn of the Reconstructor.
LATER = {
    "model": {"deform_basis", "prune_opacity"},
    "train": {"motion_weight", "opacity_weight", "stages"},
    "scene": {"latents", "width", "per_pixel", "moves", "near", "far", "lpips", "geometry_weight"},
}


def alike(config: Config) -> str:
    """What the parts before the Reconstructor's depend on: trainings with equal texts have equal ones."""
    before = {table: getattr(config, table).model_copy(update=dict.fromkeys(keys)) for table, keys in LATER.items()}
    return dump(config.model_copy(update=before))


def carry_out(run: SceneRun) -> None:
    """Train all parts but the Reconstructor's, or what is left of them, and keep the state in the folder of the run.

    Raises:
        NonFiniteLossError, InterruptedRun: see `Trainer.fit`.
    """
    run.folder.path.mkdir(parents=True, exist_ok=True)
    with locks.locked(run.folder.path), progress("training") as bar:
        loop = trainer(run)
        if run.resume is not None:
            take_over(run, run.folder)  # it may have been begun with another Reconstructor
            loop.resume(run.resume)
        loop.fit(bar, until=_turn(loop))


def _turn(loop: Trainer[SceneLesson]) -> int:
    """The step at which the turn of the Reconstructor comes."""
    steps = loop.length.steps
    return next((step for step in range(steps) if loop.lesson.part(step / steps)[0] == RECONSTRUCTOR), steps)


def take_over(run: SceneRun, parts: RunFolder) -> None:
    """Begin a run with the parts that another one has carried out: its state and metrics are those of having done so itself.

    Args:
        run: has a Reconstructor of its own, as it is before its training.
        parts: of a run that `alike` says is equal so far.
    """
    position, tensors = state.read(parts.state)
    for name, value in networks.of(run.network).items():
        for place in (NETWORK + name, AVERAGE + name):
            if name.startswith("reconstructor.") and place in tensors:
                tensors[place] = value.clone()  # a file holds no tensor twice
    run.folder.path.mkdir(parents=True, exist_ok=True)
    if parts.metrics.is_file():
        atomic.write_text(run.folder.metrics, parts.metrics.read_text(encoding="utf-8"))
    state.write(run.folder, position, tensors)
