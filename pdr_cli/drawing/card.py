"""The small print of a page: the protocol of an evaluation, and what the words of the page mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pdr_cli.drawing import summary
from pdr_cli.drawing.album import facts
from pdr_cli.verification.document import Bootstrap, CardModel, Document, Missing

CONVENTIONS = {
    "standard": "Errors are means over cells, frames and windows, in the data's units; the root of RMSE is "
    "taken once, at the end.",
    "openstl": "As OpenSTL's tables have them, errors summed over channels and cells, then averaged over "
    "frames and windows. Not comparable with the standard convention.",
}
PROTOCOLS = {
    "honest": "The windows scored served neither training nor the choice of the model.",
    "openstl": "The model was chosen on the windows that it is scored on, as OpenSTL's tables are. Such scores "
    "flatter; compare them only with others made so.",
}
SKILL = (
    "1 − {score} of the model / {score} of the rival. 100 % is a perfect forecast, 0 is as good as the rival, below 0 is worse. "
    "Persistence repeats the last observation; climatology is the mean of the training years. Anomaly, ridge and damped-flow are "
    "fitted to the model's training data: a share of the last departure from the climatology, a linear regression of the "
    "departures, and the last frame moved along its optical flow, which slows down. Dressed is the model's "
    "forecast with draws of its validation errors."
)
INTERVAL = (
    "Windows near in time resemble each other, so whole blocks of neighbouring windows are resampled, and models and "
    "rivals are compared on the same resamples. If the interval of a skill contains 0 the difference is not significant "
    "(n.s.). It covers chance in the test period, not in training."
)
ADAPTIVE = (
    "Intervals that ask the model's errors for a larger share after windows whose truths they missed too often, and for a "
    "smaller one after others. Each knows the truths up to its own start."
)
Values = list[tuple[str, bool]]  # a text, and whether it is set as code


def rows(document: Document) -> list[tuple[str, Values]]:
    """The protocol by name; rows without a value are left out."""
    card = document.card.to_json()
    for key in ("data", "truth_sha256", "ssim", "models", "command"):
        del card[key]
    every: list[tuple[str, Values]] = [
        ("data", [(file, False) for file in document.card.data]),
        ("truth, SHA-256", [(document.card.truth_sha256, True)]),
        ("split", [(document.split, False)]),
        ("windows", [(fact, False) for fact in facts(document)]),
        ("convention", [(document.convention, False)]),
        ("protocol", [(document.protocol, False)]),
        ("missing cells", [(_missing(document.missing), False)]),
        ("interval", [(_bootstrap(document.bootstrap), False)]),
        ("SSIM", [(document.card.ssim, False)]),
        *((f"model {name}", _model(model)) for name, model in document.card.models.items()),
        ("command", [(document.card.command, True)]),
        *((summary.label(key), [(_plain(value), False)]) for key, value in card.items() if value),
    ]
    shown = ((name, [v for v in values if v[0]]) for name, values in every)
    return [(name, values) for name, values in shown if values]


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{summary.label(str(k))} {_plain(v)}" for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(_plain(v) for v in value)
    return "" if value is None else str(value)


def _model(model: CardModel) -> Values:
    """File, settings and hash of a model."""
    rest = {k: v for k, v in model.to_json().items() if k not in ("file", "sha256") and v is not None}
    texts = [f"{v:,} {k}" if k == "parameters" else f"{summary.label(k)} {_plain(v)}" for k, v in rest.items()]
    return [(model.file, False), (", ".join(texts), False), (f"sha256:{model.sha256}" if model.sha256 else "", True)]


def _missing(entry: Missing) -> str:
    if not entry.of:
        return ""
    return f"{entry.cells:,} of {entry.of:,} left out of every score ({summary.percent(entry.share)} %)"


def _bootstrap(entry: Bootstrap | None) -> str:
    if entry is None:
        return ""
    return (
        f"{summary.percent(entry.level)} %, block bootstrap: {entry.blocks} blocks of "
        f"{entry.windows_per_block} windows, {entry.resamples:,} resamples"
    )


def notes(document: Document) -> list[tuple[str, str]]:
    """Definitions of the terms that the page uses."""
    found = []
    if document.skill:
        found.append(("Skill", SKILL.format(score=document.skill_score)))
    if document.bootstrap:
        found.append(("Interval", INTERVAL))
    if any(one.adaptive is not None for row in (document.intervals or {}).values() for one in row):
        found.append(("Adaptive intervals", ADAPTIVE))
    for key, value, texts in (
        ("Convention", document.convention, CONVENTIONS),
        ("Protocol", document.protocol, PROTOCOLS),
    ):
        if value in texts:
            found.append((f"{key}: {value}", texts[value]))
    return found
