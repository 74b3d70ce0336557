"""The slots of a day of stamps YYYYMMDDSS: stated, shown by the stamps, taken from a model, or assumed and said so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from pdr_cli.data.arrays import OPTION, Conventions, Slots
from pdr_cli.errors import TimeError
from pdr_cli.system.logs import log

USUAL = (24, 48, 96, 144, 288)  # slots of a day
Origin = Literal["option", "file", "stamps", "model", "default"]


@dataclass(frozen=True)
class Stamps:
    """The stamps of one file.

    Args:
        path: of the file.
        low: lowest slot.
        high: highest slot.
        days: number of days with any slot.
        stated: the slots of a day by the file's attributes; None without these.
    """

    path: Path
    low: int
    high: int
    days: int
    stated: Slots | None = None

    @classmethod
    def of(cls, path: Path, days: np.ndarray, slots: np.ndarray, stated: Slots | None) -> Stamps:
        """The stamps of a file with these days [T] and slots [T].

        Raises:
            TimeError: a negative slot, or slots outside of the day that the file states.
        """
        found = cls(path, int(slots.min()), int(slots.max()), len(np.unique(days)), stated)
        if stated is not None and not (stated.per_day >= 1 and stated.minutes >= 1 and found.fit(stated)):
            what = f"slots {found.low} to {found.high} do not lie in a day of {stated.per_day} slots"
            raise TimeError(f"{path}: {what} from {stated.first} on")
        if found.low < 0:
            raise TimeError(f"{path}: slot {found.low} is before the first of a day", "slots from 0 or 1 on")
        return found

    def fit(self, slots: Slots) -> bool:
        """True if all slots of the file lie in a day of these."""
        return slots.hold(self.low, self.high)

    def shown(self, learned: Conventions) -> Slots | None:
        """The slots of a day of which the first and the last occur; None if there is a doubt.

        A single day that seems complete may be a part of a day with more slots: then the model decides.
        """
        per_day = self.high - self.low + 1
        if self.low > 1 or per_day not in USUAL:
            return None
        found = Slots(per_day, self.low)
        doubtful = self.days == 1 and learned.per_day not in (0, per_day)
        return None if doubtful else found


@dataclass(frozen=True)
class Decision:
    """The slots of a day of one file, and what decided.

    Args:
        slots: of a day.
        origin: an option, the attributes of a file, its stamps, the model, or the default.
        doubt: what the stamps do not show, in words; "" if the file states or shows its slots.
    """

    slots: Slots
    origin: Origin
    doubt: str = ""


def decide(files: Sequence[Stamps], assume: Conventions, learned: Conventions) -> list[Decision]:
    """The slots of a day of each of several files that are read together; logs what is assumed.

    The option counts first, then the attributes of a file, then what its stamps or those of the other files show, then
    the model. Otherwise slots are counted from 1, and the day has the fewest usual slots that hold all of them.

    Raises:
        TimeError: files that contradict each other or the option, or slots beyond the end of a day.
    """
    if assume.slots is not None:
        return [Decision(_fitting(file, assume.slots, f"{OPTION} slots={assume.slots}"), "option") for file in files]
    undecided = [file for file in files if file.stated is None]
    found = _common(files, undecided, learned) if undecided else None
    decisions = [Decision(f.stated, "file") if f.stated is not None else found for f in files]
    return _of_one_day([d for d in decisions if d is not None], files)


def _common(files: Sequence[Stamps], undecided: Sequence[Stamps], learned: Conventions) -> Decision:
    """The slots of a day of all files that do not state them."""
    whole = Stamps(
        undecided[0].path, min(f.low for f in undecided), max(f.high for f in undecided), sum(f.days for f in undecided)
    )
    shown = {found: f for f in undecided if (found := f.shown(learned)) is not None}
    if len(shown) > 1:
        (one, first), (other, second) = list(shown.items())[:2]
        raise TimeError(f"{second.path} counts slots {other}, {first.path} {one}", way_out="read them one by one")
    stated = {f.stated for f in files if f.stated is not None}
    by_others = next(iter(stated)) if len(stated) == 1 else None
    slots = next(iter(shown), None) or whole.shown(learned)
    if slots is not None:
        for file in undecided:
            _fitting(file, slots, f"the slots {slots} that the other files count")
        return Decision(slots, "stamps")
    if by_others is not None and whole.fit(by_others):
        return Decision(by_others, "file")
    return _by_model(whole, learned) or _by_default(whole)


def _by_model(stamps: Stamps, learned: Conventions) -> Decision | None:
    """The model's slots, or those of its number a day that fit alone; None if it does not decide."""
    if learned.slots is not None and stamps.fit(learned.slots):
        doubt = f"{_unseen(stamps)}; counted {learned.slots} as in the model's training"
        log.info("slots   %s: %s", stamps.path, doubt)
        return Decision(learned.slots, "model", doubt)
    fitting = [s for first in (0, 1) if learned.per_day and stamps.fit(s := Slots(learned.per_day, first))]
    fitting = fitting[:1] if stamps.low == 0 else fitting
    if len(fitting) == 1:
        trained = f", where the model's training had {learned.slots}" if learned.slots is not None else ""
        doubt = f"{_unseen(stamps)}; counted {fitting[0]}, which holds them{trained}"
        log.info("slots   %s: %s", stamps.path, doubt)
        return Decision(fitting[0], "model", doubt)
    return _warned(stamps, fitting[-1]) if fitting else None


def _by_default(stamps: Stamps) -> Decision:
    first = 0 if stamps.low == 0 else 1
    per_day = next((n for n in USUAL if stamps.fit(Slots(n, first))), None)
    if per_day is None:
        what = f"slot {stamps.high} is past the end of a day of {USUAL[-1]} five-minute slots"
        raise TimeError(f"{stamps.path}: {what}", way_out=f"{OPTION} slots=FIRST-LAST states another day")
    return _warned(stamps, Slots(per_day, first))


def _warned(stamps: Stamps, slots: Slots) -> Decision:
    """A decision that nothing supports, with a warning."""
    others = (Slots(slots.per_day, 1 - slots.first), Slots(2 * slots.per_day, slots.first))
    doubt = f"{_unseen(stamps)}; assumed to be {slots}, steps of {slots.minutes} min"
    unlike = " or ".join(f"slots={other}" for other in others if stamps.fit(other))
    log.warning("slots   %s: %s; if not, state them with %s %s", stamps.path, doubt, OPTION, unlike)
    return Decision(slots, "default", doubt)


def _unseen(stamps: Stamps) -> str:
    return f"slots {stamps.low} to {stamps.high} do not show the first and the last of a day"


def _fitting(file: Stamps, slots: Slots, whose: str) -> Slots:
    if not file.fit(slots):
        way_out = f"{OPTION} slots=FIRST-LAST states those of the file"
        raise TimeError(f"{file.path}: slots {file.low} to {file.high} do not fit {whose}", way_out=way_out)
    return slots


def _of_one_day(decisions: list[Decision], files: Sequence[Stamps]) -> list[Decision]:
    """The decisions, all of one number of slots a day."""
    for one, file in zip(decisions, files, strict=True):
        if one.slots.per_day != decisions[0].slots.per_day:
            what = f"{file.path} has {one.slots.per_day} slots a day, {files[0].path} {decisions[0].slots.per_day}"
            raise TimeError(what, way_out="read them one by one")
    return decisions
