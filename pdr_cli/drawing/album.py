"""The pictures of a page: each is put on the page as SVG and written beside it as a PNG."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pdr_cli.drawing import panels, scorecharts, summary, svg
from pdr_cli.verification.document import Document


@dataclass(frozen=True)
class Picture:
    """A picture of the page: `image` is its SVG element, `name` that of its PNG."""

    name: str
    title: str
    image: str
    caption: str = ""
    note: str = ""


@dataclass
class Album:
    """Collects the pictures of a page and writes each as a PNG in `folder`."""

    folder: Path
    document: Document
    written: list[Path] = field(default_factory=list)

    def add(self, name: str, title: str, figure: Any, alt: str, caption: str = "") -> Picture:
        """A picture of the page from a figure, which is also written as a PNG."""
        picture = Picture(name, title, svg.inline(figure, alt, name), caption)
        sheet = scorecharts.captioned(figure, self.document, title, "; ".join(facts(self.document)[:-1]))
        self.draw(name, lambda path: panels.save(sheet, path, tight=True))
        return picture

    def draw(self, name: str, how: Callable[[Path], None]) -> None:
        """Write `name`.png with `how(path)`."""
        path = self.folder / f"{re.sub(r'[^A-Za-z0-9_.-]+', '-', name)}.png"
        how(path)
        self.written.append(path)


def facts(document: Document) -> list[str]:
    """Number of windows, period and lead times, a phrase each."""
    period = document.period if isinstance(document.period, str) else " to ".join(map(str, document.period))
    lead = [summary.lead_label(v, document.lead_units) for v in (document.lead or [0])]
    leads = f"lead times {lead[0]} to {lead[-1]}" if len(lead) > 1 else f"lead time {lead[0]}"
    windows = f"{document.n_windows:,} {document.split} windows"
    return [windows, *([period] if period else []), leads]


def capital(text: str) -> str:
    """The text with a capital first letter."""
    return text[:1].upper() + text[1:]


def with_units(value: Any, units: str) -> str:
    """A number with four figures and its units."""
    return f"{summary.number(value, summary.decimals([value]))} {units}".strip()
