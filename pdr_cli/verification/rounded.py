"""What rounded weights cost: the scores of an exported program beside those of its model and the simplest forecast."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pdr_cli.inference.loaded import LoadedModel
from pdr_cli.verification import evaluation, sources
from pdr_cli.verification.evaluation import Options
from pdr_cli.verification.sources import Reading


def cost(model: LoadedModel, program: LoadedModel, data: Sequence[Path], reading: Reading) -> str:
    """The loss of skill of a program, in words, on the windows of the data that its model has not seen.

    Args:
        model: that was exported.
        program: with rounded weights.
        data: files of the truth.
        reading: how they are read.

    Raises:
        PdrError: as `pdr evaluate`.
    """
    chosen = sources.task_of(data, [model, program], reading)
    baseline = "climatology" if model.card.config.data.targets else "persistence"
    found = evaluation.evaluate(chosen, Options(against=[baseline])).document
    of_model, of_program = list(found.skill)[:2]
    unit = found.metric_units[found.headline]
    errors = [found.scores[name][found.headline].overall for name in (of_program, of_model, baseline)]
    skills = [found.skill[name][baseline].overall for name in (of_program, of_model)]
    rows = zip((program.precision, model.precision, baseline), errors, strict=True)
    scores = ", ".join(f"{name} {value:.4g}" for name, value in rows)
    return (
        f"{found.headline} [{unit}] of {found.n_windows} windows: {scores}; "
        f"skill against {baseline} {skills[0]:.4f}, of {model.precision} {skills[1]:.4f}, a loss of {skills[1] - skills[0]:.1e}"
    )
