"""The card of a run, README.md: what the model is, what it has learned from, how good it is, and what it is not for.

Its first lines are the metadata that model hubs read. `pdr train` writes it, and nothing else of pdr reads it.
"""

from __future__ import annotations

import dataclasses
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from pdr_cli.data.scenes import KIND
from pdr_cli.data.units import quantities
from pdr_cli.drawing import summary
from pdr_cli.drawing.summary import Table
from pdr_cli.errors import PdrError
from pdr_cli.inference.header import ModelHeader, read_header
from pdr_cli.runs.folder import RunFolder
from pdr_cli.system import atomic
from pdr_cli.system.logs import log
from pdr_cli.trust import Trust
from pdr_cli.verification import evaluation, sources
from pdr_cli.verification.document import Document
from pdr_cli.verification.evaluation import Options
from pdr_cli.verification.sources import Reading

TEMPLATE = "README.md.j2"
OURS = "library_name: pdr-cli"  # in the metadata of each card; a README.md without it is someone else's
LISTED = 12  # data files that are named


Data = Callable[[], xr.Dataset | Sequence[Path]]


def write(folder: RunFolder, data: Data, windows: int, device: str, trust: Trust | None) -> None:
    """Write the card of a finished run; one that the run's owner has written stays.

    Args:
        folder: of the run.
        data: gives what it was trained on, whose test part the model is scored on; files that are gone by now are no failure of
            the training.
        windows: scored, at most, evenly spaced; 0: none, as of scenes.
        device: see `devices.pick`.
        trust: see `families.Family.find`.
    """
    if folder.card.is_file() and not _is_ours(folder.card):
        log.warning("%s is not a card of pdr and stays", folder.card)
        return
    header = read_header(folder.model)
    document: Document | None = None
    unscored = "" if windows else "It was not scored at the end of its training."
    if not unscored:
        try:
            document = score(folder, data(), windows, device, trust)
        except PdrError as error:
            unscored = f"It could not be scored at the end of its training: {error}."
    atomic.write_text(folder.card, text(header, folder, document, unscored))


def score(
    folder: RunFolder, data: xr.Dataset | Sequence[Path], windows: int, device: str, trust: Trust | None
) -> Document:
    """The scores of a run's model beside the simple forecasts, on test data.

    Raises:
        PdrError: there are none, or the data cannot be read.
    """
    task = sources.task_of(data, [str(folder.model)], Reading(device=device, trust=trust))
    task = dataclasses.replace(task, windows=task.windows.spread(windows))
    return evaluation.evaluate(task, Options()).document


def text(header: ModelHeader, folder: RunFolder, document: Document | None, unscored: str) -> str:
    """The card.

    Args:
        header: of the model.
        folder: of the run.
        document: its scores; None without.
        unscored: why there are none, a sentence.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(  # of Markdown, in which nothing is escaped
        loader=FileSystemLoader(Path(__file__).parent), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template(TEMPLATE).render(_content(header, folder, document) | {"unscored": unscored})


def renew_hash(folder: RunFolder, before: str, after: str) -> None:
    """Put the hash of a model that was calibrated anew in the place of its former one."""
    if _is_ours(folder.card):
        atomic.write_text(folder.card, folder.card.read_text(encoding="utf-8").replace(before, after))


def _is_ours(card: Path) -> bool:
    """False for a README.md that someone else has written, and where there is none."""
    return card.is_file() and OURS.encode() in card.read_bytes()


def _content(header: ModelHeader, folder: RunFolder, document: Document | None) -> dict[str, Any]:
    """The values of the template."""
    card, data = header.card, header.card.config.data
    rows, columns = card.size
    return {
        "name": folder.path.resolve().name,
        "kind": card.kind,
        "scenes": card.kind == KIND,
        "card": card,
        "suffix": Path(card.data[0]["name"]).suffix if card.data else ".nc",
        "variables": quantities(card.variables),
        "grid": f"{rows} × {columns}",
        "region": _region(header),
        "step": str(card.step),
        "reach": f"{data.out_steps} × {card.step}",
        "seen": _periods(header),
        "files": [*card.data[:LISTED]],
        "further": max(0, len(card.data) - LISTED),
        "sha256": header.sha256,
        "command": _command(sys.argv[1:]),
        "document": document,
        "period": "" if document is None else _joined(document.period),
        "results": [] if document is None else _results(document),
        "tables": [] if document is None else [markdown(t) for t in _tables(document)],
    }


def _tables(document: Document) -> list[Table]:
    found = [summary.score_table(document), *summary.lead_tables(document)[:1]]
    return [table for table in found if table]


def _joined(period: list[str] | str) -> str:
    """The first and last time of a period, or the number of clips."""
    return period if isinstance(period, str) else " to ".join(period)


def _command(arguments: Sequence[str]) -> str:
    """The command line of a training, without the folders of absolute paths; "" in other programs."""
    if arguments[:1] != ["train"]:
        return ""
    return shlex.join(["pdr", *(Path(a).name if a.startswith("/") else a for a in arguments)])


def _results(document: Document) -> list[dict[str, Any]]:
    """The model's scores over all lead times, for the metadata."""
    own = next(iter(document.scores.values()))
    return [
        {"type": metric, "value": round(float(own[metric].overall), 6), "unit": document.metric_units[metric]}
        for metric in document.metrics
        if metric in own and np.isfinite(own[metric].overall)
    ]


def markdown(table: Table) -> str:
    """A table in Markdown, under its caption."""
    heads = [table.corner, *(f"{name} [{units}]" if units not in ("", "1") else name for name, units in table.heads)]
    lines = [heads, ["---", *("--:" for _ in table.heads)]]
    for name, cells in table.rows:
        lines.append([name, *(f"**{c.text}**" if c.mark == "best" else c.text for c in cells)])
    drawn = "\n".join(f"| {' | '.join(' '.join(cell.split()) for cell in line)} |" for line in lines)
    return f"{table.caption}:\n\n{drawn}"


def _region(header: ModelHeader) -> str:
    """From where to where the grid goes; "" without coordinates."""
    sides = [side for side in (header.card.y, header.card.x) if side is not None]
    return ", ".join(f"{side.name} {min(side.values):g} to {max(side.values):g}" for side in sides)


def _periods(header: ModelHeader) -> list[str]:
    """The periods of training and validation, or the numbers of clips."""
    entries = header.card.seen.entries
    found = []
    for part, word in (("train", "training"), ("val", "validation")):
        mine = [e for e in entries if e[0] == part]
        if mine and all(identity == "" for _, identity, _, _ in mine):
            first, last = (np.datetime64(round(at), "s") for at in (min(e[2] for e in mine), max(e[3] for e in mine)))
            found.append(f"{word} {str(first)[:16]} to {str(last)[:16]}")
        elif mine:
            found.append(f"{word} {len(mine)} clips or parts of clips")
    return found
