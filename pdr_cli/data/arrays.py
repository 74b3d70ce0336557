"""Conventions of arrays and folders that their files may leave open, as an option, a file or a model states them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields

from pdr_cli.errors import UsageError

DAY_MINUTES = 24 * 60
SIGNED, UNIT, COUNTS, PLAIN = "-1..1", "0..1", "counts", "plain"
CHANNELS_FIRST, CHANNELS_LAST = "channels-first", "channels-last"
BY_NAME, NO_PARTS = "names", "none"
CHOICES = {
    "values": (SIGNED, UNIT, COUNTS, PLAIN),
    "axes": (CHANNELS_FIRST, CHANNELS_LAST),
    "parts": (BY_NAME, NO_PARTS),
}
OPTION = "--assume"
SLOTS = re.compile(r"(\d+)-(\d+)")


@dataclass(frozen=True)
class Slots:
    """The slots of a day.

    Args:
        per_day: their number.
        first: the number of the first one.
    """

    per_day: int
    first: int = 1

    @property
    def minutes(self) -> int:
        """Length of a slot."""
        return DAY_MINUTES // self.per_day

    @property
    def last(self) -> int:
        """The number of the last slot."""
        return self.first + self.per_day - 1

    def hold(self, low: int, high: int) -> bool:
        """True if the slots `low` to `high` lie in a day."""
        return self.first <= low and high <= self.last

    def __str__(self) -> str:
        return f"{self.first}-{self.last}"

    @classmethod
    def parse(cls, text: str) -> Slots:
        """First and last slot of a day, such as `0-23` or `1-48`.

        Raises:
            UsageError: another text, or slots that do not divide a day.
        """
        match = SLOTS.fullmatch(text)
        per_day = int(match[2]) - int(match[1]) + 1 if match else 0
        if match is None or int(match[1]) > 1 or per_day < 1 or DAY_MINUTES % per_day:
            expected = "first and last slot of a day, such as 0-23, 1-24 or 1-48"
            raise UsageError(f"{OPTION} slots={text}", expected)
        return cls(per_day, int(match[1]))


@dataclass(frozen=True)
class Conventions:
    """What numbers and names of a file mean; "" and None where it is open.

    Args:
        slots: first and last slot of a day in stamps YYYYMMDDSS.
        values: of traffic grids: "-1..1" and "0..1" for scaled ones, "counts", or "plain" for any others.
        axes: order of the axes of frames: "channels-first" or "channels-last".
        parts: "names": train, val and test in the names of folders divide clips; "none": they do not.
        per_day: number of slots of a day, where `slots` is None.
    """

    slots: Slots | None = None
    values: str = ""
    axes: str = ""
    parts: str = ""
    per_day: int = 0

    def words(self) -> tuple[str, ...]:
        """The texts that `parse` reads."""
        every = {"slots": self.slots, "values": self.values, "axes": self.axes, "parts": self.parts}
        return tuple(f"{name}={value}" for name, value in every.items() if value)

    @classmethod
    def parse(cls, texts: Iterable[str]) -> Conventions:
        """The conventions in texts such as `slots=0-23` and `values=counts`.

        Raises:
            UsageError: an unknown key or value.
        """
        given: dict[str, str] = dict(_pair(text) for text in texts)
        slots = Slots.parse(given.pop("slots")) if "slots" in given else None
        return cls(slots, given.get("values", ""), given.get("axes", ""), given.get("parts", ""))

    @classmethod
    def of(cls, kept: Mapping[str, str], minutes: float) -> Conventions:
        """The conventions that a model keeps; its time step in minutes gives the number of slots of a day."""
        known = {f.name for f in fields(cls)}
        found = cls.parse(f"{name}={text}" for name, text in kept.items() if name in known)
        whole = minutes >= 1 and abs(DAY_MINUTES / minutes - round(DAY_MINUTES / minutes)) < 1e-6
        return cls(found.slots, found.values, found.axes, found.parts, round(DAY_MINUTES / minutes) if whole else 0)


NOTHING = Conventions()


def _pair(text: str) -> tuple[str, str]:
    key, _, value = text.partition("=")
    if key != "slots" and value not in CHOICES.get(key, ()):
        choices = "; ".join(f"{name}={' or '.join(values)}" for name, values in CHOICES.items())
        raise UsageError(f"{OPTION} {text} is not known", f"slots=FIRST-LAST; {choices}")
    return key, value
