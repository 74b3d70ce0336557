"""Members of an ensemble: what a request asks for, and the seeds that they are drawn from."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from pdr_cli.data import times as time_axis
from pdr_cli.data.series import Series, mean_of
from pdr_cli.errors import UsageError

if TYPE_CHECKING:
    from pdr_cli.inference.header import ModelHeader
    from pdr_cli.inference.loaded import LoadedModel
    from pdr_cli.runs.modelfile import ModelCard

COUNT = 20  # members where a request says none
MEAN = "mean"


@dataclass(frozen=True)
class Drawing:
    """The members that are drawn from each model.

    Args:
        count: M; 0: none is drawn, and each model gives its direct forecast.
        seed: from which they are drawn.
        mean: True if their mean is the forecast.
    """

    count: int = 0
    seed: int = 0
    mean: bool = False

    @classmethod
    def parse(cls, text: str | None, seed: int = 0) -> Drawing:
        """The drawing of `--members`: `20`, `mean` or `mean:20`; none for None.

        Raises:
            UsageError: another text.
        """
        if text is None:
            return cls(seed=seed)
        match = re.fullmatch(rf"{MEAN}|(?:{MEAN}:)?([1-9]\d*)", text.strip())
        if match is None:
            raise UsageError(f"--members {text}", f"a number, {MEAN}, or {MEAN}:NUMBER")
        return cls(int(match[1] or COUNT), seed, match[0].startswith(MEAN))

    def of(self, model: LoadedModel, alone: bool = True) -> Drawing:
        """The drawing from `model`, which gives its direct forecast where it draws none.

        Raises:
            UsageError: it draws none, and is `alone`.
        """
        if not self.count or model.stochastic:
            return self
        if alone:
            model.needs_network(f"--members {self.count}")
            raise UsageError(
                f"--members {self.count}: {model.label} draws no members",
                way_out="train one that does with --preset weather-ensemble-crps, name several models with -m, or write "
                "intervals with --interval",
            )
        return replace(self, count=0)

    def seeds(self, inits: Iterable[Any]) -> np.ndarray:
        """The seeds of all members of windows that end at these times, int64 [M, B]."""
        return seeds_of(self.seed, self.count, map(time_axis.label, inits))

    def reduced(self, frames: Series) -> Series:
        """A forecast, or the mean of its members if that is asked for."""
        return mean_of(frames) if self.mean else frames

    def identity(self) -> dict[str, Any]:
        """What a request's identity holds of it; nothing for a single direct forecast."""
        return {"members": asdict(self)} if self.count or self.mean else {}

    def of_each(self, models: Sequence[LoadedModel]) -> list[Drawing]:
        """The drawing from each model of an ensemble, of which those that draw no members give their direct forecasts.

        Raises:
            UsageError: none of them draws members, of which a number is asked for.
        """
        each = [self.of(model, alone=len(models) == 1) for model in models]
        if self.count and not self.mean and not any(drawing.count for drawing in each):
            labels = ", ".join(model.label for model in models)
            raise UsageError(
                f"--members {self.count}: {labels} draw no members",
                way_out="leave it out: the forecast of each model is a member of the ensemble",
            )
        return each


DIRECT = Drawing()


def seeds_of(seed: int, members: int, windows: Iterable[str]) -> np.ndarray:
    """The seeds of `members` members of each window, int64 [M, B].

    A member depends on `seed`, its number and the name of its window alone: the first members of more are the same, and so
    are those of a window in any batch and any process.

    Args:
        seed: of the request.
        members: M.
        windows: names of the windows, such as their init times.
    """
    names = list(windows)
    return np.array([[_seed(f"{seed}/{m}/{name}") for name in names] for m in range(members)], np.int64)


def uniform(seeds: np.ndarray) -> np.ndarray:
    """A number between 0 and 1 from each seed."""
    drawn = [np.random.Generator(np.random.Philox(key=int(seed))).random() for seed in seeds.ravel()]
    return np.array(drawn).reshape(seeds.shape)


def check_together(models: Sequence[ModelHeader]) -> None:
    """Refuse models whose forecasts cannot be members of one ensemble.

    Raises:
        UsageError: other variables, units or steps than the first, or one model twice, whose members would be equal.
    """
    known: dict[str, ModelHeader] = {}
    for model in models:
        _check_alike(models[0], model)
        same = known.setdefault(model.sha256, model)
        if same is not model:
            raise UsageError(
                f"{model.label} and {same.label} are one model, whose members would be equal"
                if model.label != same.label
                else f"{model.label} is named twice, and its members would be equal",
                way_out="name each model of an ensemble once",
            )


def _check_alike(first: ModelHeader, other: ModelHeader) -> None:
    one, two = first.card, other.card
    for what, mine, theirs in (
        ("variables", _units(two), _units(one)),
        ("steps", str(two.step), str(one.step)),
    ):
        if mine != theirs:
            raise UsageError(
                f"{other.label} forecasts {what} {mine}, and {first.label} {theirs}",
                way_out="make an ensemble of models that were trained for the same forecast",
            )


def _units(card: ModelCard) -> str:
    return ", ".join(f"{name} ({attrs.get('units', '')})" for name, attrs in card.variables.items())


def _seed(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode(errors="surrogateescape")).digest()[:8], "big") >> 1
