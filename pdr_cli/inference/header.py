"""The header of a trained model: enough to open and check an input, and to identify a request, without torch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from pdr_cli import choices
from pdr_cli.data import kinds
from pdr_cli.data.context import ContextSource
from pdr_cli.data.covariates import CovariateSource
from pdr_cli.data.encoding import Encoding
from pdr_cli.data.kinds import Kind
from pdr_cli.data.missing import Filling
from pdr_cli.errors import UsageError
from pdr_cli.runs import exported, inputs
from pdr_cli.runs import folder as runs
from pdr_cli.runs.modelfile import Header, ModelCard
from pdr_cli.system.names import printable


class ModelHeader:
    """A model without its network.

    Args:
        path: of the model file, or of an exported program.
        header: of the file.
    """

    def __init__(self, path: Path, header: Header) -> None:
        self.path = path
        self.card, self.climatology, self.sha256 = header.card, header.climatology, header.sha256
        self.calibration, self.program = header.calibration, header.program

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
            UsageError: more than in training, of a model with targets, whose own forecast it never reads; or a number that
                an exported program cannot make.
        """
        trained, targets = self.card.config.data.out_steps, self.card.config.data.targets
        if targets and (steps or 0) > trained:
            raise UsageError(
                f"{steps} steps: {self.label} forecasts {trained}, and cannot be fed its forecast of {', '.join(targets)}, "
                "which it does not observe",
                way_out=f"take --steps {trained} or fewer, or train for more with --set data.out_steps={steps}",
            )
        self._check_program(steps or trained)
        return steps or trained

    def _check_program(self, steps: int) -> None:
        """Refuse a number of steps that an exported program does not forecast as its model does."""
        trained, program = self.card.config.data.out_steps, self.program
        if program is None or steps == trained or (program.longer if steps > trained else program.shorter):
            return
        why = "fed its own forecast" if steps > trained else "of fewer steps"
        raise UsageError(
            f"{steps} steps: {self.label} forecasts {trained}; {why}, its model makes other frames than the program would",
            way_out="leave out --steps, or name the model that it was exported from",
        )

    def needs_network(self, option: str) -> None:
        """Refuse an option that an exported program has no network for.

        Raises:
            UsageError: it is a program.
        """
        if self.program is not None:
            raise self.without_network(option)

    def without_network(self, option: str) -> UsageError:
        """The error for an option that an exported program has no network for."""
        return UsageError(
            f"{option}: {self.label} is an exported program, which makes the direct forecast at whole steps alone",
            way_out="leave it out, or name the model that it was exported from",
        )

    @property
    def code(self) -> dict[str, str]:
        """SHA-256 of the source of code of others that the network has, by name; a program has none."""
        return {} if self.program is not None else choices.sources(self.card.config.model)

    @property
    def label(self) -> str:
        """The run folder of the model, its file, or demo:NAME."""
        return runs.label_of(self.path)

    @property
    def name(self) -> str:
        """The last part of `label`, without a suffix."""
        return printable(self.path.parent.name if runs.is_of_a_run(self.path) else self.path.stem)

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
        made = inputs.contexts_of(card.config, self.climatology, card.cycles, source)
        if self.program is None:
            return made
        # A program computes from times what depends on them alone.
        return replace(made, covariates=source if given_of(card) else None, timed=reads_times(card, made))

    def encoding(self, fill_missing: str = "none") -> Encoding:
        """Data units to network units; missing values are filled as in training, or by `fill_missing` if it is not "none"."""
        card = self.card
        mean = card.scaling.offset if card.limits is None else card.limits.mean
        filling = Filling(np.asarray(mean), self.never_observed, self._filled_by(fill_missing), self.climatology)
        return Encoding(card.scaling, filling)

    def _filled_by(self, fill_missing: str) -> str:
        """How missing values are filled: as in training, or by `fill_missing` if it is not "none"."""
        return self.card.config.data.fill_missing if fill_missing == "none" else fill_missing


def read_header(path: Path) -> ModelHeader:
    """Read the header of a model file or an exported program, without torch.

    Raises:
        CheckpointError: truncated, foreign or too new.
    """
    return ModelHeader(path, exported.read_header(path))


def given_of(card: ModelCard) -> int:
    """The covariates that a program is given, because they do not follow from times and places."""
    return 0 if card.covariates is None else card.covariates.count(len(card.variables)) - card.covariates.dates


def reads_times(card: ModelCard, source: ContextSource) -> bool:
    """Whether a program reads the times of frames; `source`: what makes the context of its model."""
    return source.climatology is not None or bool(card.covariates is not None and card.covariates.calendar)
