"""Texts of settings: durations, periods, roles and bounds, as presets and options write them."""

from __future__ import annotations

import re

from pdr_cli.errors import did_you_mean

AUTO, NONE = "auto", "none"  # entries of data.bounds that name no variable
TARGET = "target"
ROLES = ("input", "known", TARGET)  # of variables; those of the first two are not forecast


def parse_duration(text: str) -> float | None:
    """Seconds in a duration such as `90s`, `3m`, `2m30s` or `1h`; None for an empty one."""
    if not text:
        return None
    match = re.fullmatch(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?", text.strip())
    if match is None or not any(match.groups()):
        raise ValueError(f"{text!r} is not a duration; write 90s, 3m, 2m30s or 1h")
    hours, minutes, seconds = (float(g or 0) for g in match.groups())
    return 3600 * hours + 60 * minutes + seconds


def parse_interval(text: str) -> tuple[str, str] | None:
    """First and last of two partial ISO dates such as `2010/2015` or `2016-01/2016-06-15`, both inclusive.

    A single date is an interval by itself; an empty text gives None.
    """
    if not text.strip():
        return None
    first, slash, last = (t.strip() for t in text.partition("/"))
    last = last if slash else first
    date = r"\d{4}(-\d{2}(-\d{2}(T\d{2}(:\d{2})?)?)?)?"
    if not re.fullmatch(date, first) or not re.fullmatch(date, last):
        raise ValueError(f"{text!r} is not a period; write dates such as 2010/2015, 2016 or 2016-03/2016-05-15")
    if last < first[: len(last)]:
        raise ValueError(f"{text!r} is a period that ends before it begins")
    return first, last


def parse_role(text: str) -> tuple[str, str]:
    """Name and role of an entry of `data.roles`: `u10=input`, `tcc=known` or `t2m=target`."""
    name, _, role = (part.strip() for part in text.rpartition("="))
    if not name or role not in ROLES:
        near = did_you_mean(role, ROLES)
        raise ValueError(f"{text!r} is not a role; write NAME=input, NAME=known or NAME=target.{near}")
    return name, role


def parse_bound(text: str) -> tuple[str, float | None, float | None]:
    """Name, lowest and highest value of an entry of `data.bounds`: `tp=0..`, `siconc=0..100`, `depth=..5`, `tp=none`.

    The name of `auto` and `none`, which are of all variables, is empty.
    """
    name, separator, ends = (part.strip() for part in text.rpartition("="))
    if (not separator and ends in (AUTO, NONE)) or (name and ends == NONE):
        return name, None, None
    number = r"([+-]?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)?"
    match = re.fullmatch(rf"{number}\s*\.\.\s*{number}", ends)
    if not name or match is None or not any(match.groups()):
        raise ValueError(f"{text!r} is not a bound; write auto, none, NAME=0.., NAME=..1, NAME=0..1 or NAME=none")
    low, high = (None if end is None else float(end) for end in match.groups())
    if low is not None and high is not None and low >= high:
        raise ValueError(f"{text!r} is a bound whose lowest value is not below its highest")
    return name, low, high


def parse_days(text: str) -> int | None:
    """Days in a length such as `28d`; None for anything else."""
    match = re.fullmatch(r"([1-9]\d*)d", text.strip())
    return int(match[1]) if match else None


def three_shares(name: str, shares: list[float], example: str) -> list[float]:
    """The shares of three successive parts of a training, or none.

    Raises:
        ValueError: another number of them, one below 0, or another sum than 1.
    """
    if shares and (len(shares) != 3 or min(shares) < 0 or abs(sum(shares) - 1) > 1e-6):
        raise ValueError(f"{name} are three shares that sum to 1, such as {example}, or []")
    return shares


def two_sides(sides: list[int]) -> list[int]:
    """`sides`, if it is [] or two sides of at least 8 cells.

    Raises:
        ValueError: it is neither.
    """
    if len(sides) not in (0, 2) or any(side < 8 for side in sides):
        raise ValueError("not [] or [H, W] with sides of at least 8 cells")
    return sides
