"""Figures as SVG inside a page: its fonts, its colours, light or dark.

A figure is drawn once, in the colours of print; inside the page each of these becomes a CSS variable (`THEME`), so
that the page's style sheet decides, and text stays text.
"""

from __future__ import annotations

import io
import re
from html import escape
from typing import Any

from pdr_cli.drawing.charts import MODELS, REFERENCES
from pdr_cli.drawing.panels import FAINT, INK, MISSING, PAPER

# {colour as drawn: the page's variable}; MISSING is also the colour of rules.
THEME = {INK: "--ink", FAINT: "--faint", MISSING: "--rule", PAPER: "--hollow"}
THEME |= {color: f"--model-{i}" for i, color in enumerate(MODELS)}
THEME |= {color: f"--reference-{i}" for i, color in enumerate(REFERENCES)}
METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))


def inline(figure: Any, alt: str, key: str) -> str:
    """A figure as an `<svg>` element without ids of its own but those it refers to.

    Args:
        figure: a matplotlib Figure.
        alt: what it shows, for those who do not see it.
        key: a name that no other figure of the page has; keeps their ids apart.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    stream = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": key}):
        FigureCanvasSVG(figure).print_figure(stream, format="svg", facecolor="none", metadata=METADATA)
    drawn = stream.getvalue()
    box = re.search(r'viewBox="([^"]+)"', drawn)
    assert box is not None  # matplotlib always gives one
    body = drawn[drawn.index(">", drawn.index("<svg")) + 1 :].replace("\n", " ")
    head = f'<svg viewBox="{box[1]}" role="img" aria-label="{escape(alt)}" xmlns:xlink="http://www.w3.org/1999/xlink">'
    return head + _themed(_slim(_unnamed(body)))


def _unnamed(body: str) -> str:
    """Without ids that nothing refers to: every figure has a `figure_1`."""
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', body))
    return re.sub(r' id="([^"]+)"', lambda m: m[0] if m[1] in used else "", body)


def _slim(body: str) -> str:
    """Coordinates to a hundredth of a point, no comments, no spaces between elements."""
    body = re.sub(r"<!--.*?-->", "", body)
    body = re.sub(r' d="([^"]+)"', lambda m: f' d="{_rounded(m[1])}"', body)
    return re.sub(r">\s+<", "><", body).strip()


def _rounded(path: str) -> str:
    return re.sub(r"-?\d+\.\d+", lambda n: f"{float(n[0]):.2f}".rstrip("0").rstrip("."), path).strip()


def _themed(body: str) -> str:
    for color, variable in THEME.items():
        body = body.replace(color, f"var({variable})")
    return body
