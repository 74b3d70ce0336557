"""The pages of the site that are made from the code and from the files of results, so that they cannot differ from them."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import typer

from pdr_cli import choices, config
from pdr_cli.app import app
from pdr_cli.families import Family

NUMBER = re.compile(r"[-+.e\d]*")  # or an empty cell
TYPE = re.compile(r" <[^>]*>")  # of the value of an option, where it has no name
SAYS = {"ms_p50": "ms, median", "ms_p10": "ms, 10 %", "ms_p90": "ms, 90 %", "cpu_ms_p50": "CPU ms, median"}
TABLES = {
    "DataConfig": "data",
    "ModelConfig": "model",
    "TrainConfig": "train",
    "LatentConfig": "latent",
    "SceneConfig": "scene",
}

# Pages of docstrings: what each is about, and the objects on it.
PYTHON: dict[str, tuple[str, list[str]]] = {
    "python": (
        "# Python\n\nThe commands as functions, without printing; `import pdr_cli as pdr` has the first five and "
        "[`render`](renderers.md). [Command line](../command-line.md#python) shows them at work.",
        [
            *(f"api.{name}" for name in ("train", "load", "predict", "evaluate", "Model")),
            "inference.policy.InputPolicy", "verification.evaluation.Options", "verification.sources.Reading",
            "runs.folder.RunFolder", "verification.document.Document", "errors",
        ],
    ),
    "renderers": (
        "# Python: renderers\n\nTwo differentiable renderers of Gaussians, which need torch alone. [Renderer](../renderer.md) "
        "says what they compute.",
        [
            "splat.render", *(f"splat.compose.{name}" for name in ("compose", "view", "Gaussians", "View")),
            *(f"splat.camera.{name}" for name in ("Camera", "Projection", "rays", "project")),
        ],
    ),
    "interfaces": (
        "# Python: extending\n\nWhat predictors, adapters, fusions, losses, loggers, scores, baselines, formats and "
        "ablations of yours fulfil or are given. [Adding to pdr](../extending.md) has a whole package.",
        [
            "models.interfaces", "training.losses.LossOptions", "training.loggers.Logger", "verification.scores.Score",
            "verification.baselines.Request", "data.formats.base", "data.series.make_series", "ablation.catalogue.Ablation",
            "ablation.catalogue.Variant",
        ],
    ),
}  # fmt: skip


def pages(root: Path) -> dict[str, str]:
    """The text of each page, by its path in the site.

    Args:
        root: of the project, where the files of results are.
    """
    python = {f"reference/{page}.md": docstrings(*content) for page, content in PYTHON.items()}
    return python | {
        "reference/commands.md": commands(),
        "reference/presets.md": presets(),
        "reference/keys.md": keys(),
        "reference/names.md": names(),
        "benchmarks/results.md": benchmarks(root / "docs/benchmarks"),
        "ablations/files.md": ablations(root / "docs/ablations"),
    }


def table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """A Markdown table; bars in cells are escaped, columns of numbers are aligned to the right."""
    cells = [[str(cell).replace("|", "\\|").replace("\n", " ") for cell in row] for row in (head, *rows)]
    columns = list(zip(*cells, strict=True))
    rules = ["--:" if all(NUMBER.fullmatch(cell) for cell in column[1:]) else "---" for column in columns]
    return "\n".join(f"| {' | '.join(line)} |" for line in (cells[0], rules, *cells[1:])) + "\n"


def docstrings(about: str, objects: Iterable[str]) -> str:
    """A page of docstrings, which mkdocstrings fills in."""
    return "\n\n".join([about, *(f"::: pdr_cli.{name}" for name in objects)]) + "\n"


def commands() -> str:
    """Every command with its arguments and options, as `--help` has them."""
    known = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    text = "# Commands\n\nWhat `pdr COMMAND --help` prints. [Command line](../command-line.md) says what scripts can rely on.\n"
    for name, command in known.items():
        context = command.make_context(name, [], resilient_parsing=True)
        records = [record for parameter in command.params if (record := parameter.get_help_record(context))]
        options = table(["option", "meaning"], [(_option(option), _plain(about)) for option, about in records])
        text += f"\n## pdr {name}\n\n{_plain(command.help)}\n\n{options}"
    return text


def _option(record: str) -> str:
    """An option as `-o` `--output` `NAME`, which breaks between its names alone."""
    return " ".join(f"`{part}`" for part in re.split(",? ", TYPE.sub("", record)))


def _plain(text: str) -> str:
    """A help text whose brackets and stars are no Markdown."""
    return text.replace("[", "\\[").replace("*", "\\*").replace("<", "&lt;").replace("$", "&#36;")


def names() -> str:
    """What is chosen by name, from the registries."""
    text = (
        "# Names\n\nEverything that is chosen by name. [Packages add to](../extending.md) the families that have an entry point; "
        "there `module:Name` is a choice too.\n"
    )
    families = [choices.PREDICTORS, choices.ANCHORS, *choices.FAMILIES[1:]]
    for family in families:
        text += f"\n## {family.name.capitalize()}\n\n{_chosen_by(family)}\n\n{_choices(family)}"
    return text + f"\n## Scores of OpenSTL\n\nChosen with `--protocol openstl`.\n\n{_choices(choices.OPENSTL_SCORES)}"


def _chosen_by(family: Family) -> str:
    by = (
        f"Chosen with `{family.option}`"
        if family.option
        else "Chosen by the content of an input and the suffix of an output"
    )
    return f"{by}; entry point `{family.group}`." if family.open else f"{by}."


def _choices(family: Family) -> str:
    return table(["name", "what it is"], [(f"`{name}`", choice.about) for name, choice in family.own.items()])


def keys() -> str:
    """Every key of a preset, from the schema."""
    text = (
        "# Keys of presets\n\nEvery key that a preset has and `--set table.key=value` changes. `pdr presets --schema` prints "
        "this as a JSON schema, with which editors check and complete presets.\n"
    )
    for name, table_name in TABLES.items():
        properties = config.schema()["$defs"][name]["properties"]
        rows = [(f"`{key}`", _type(of), _plain(of.get("description", ""))) for key, of in properties.items()]
        text += f"\n## [{table_name}]\n\n{table(['key', 'type', 'meaning'], rows)}"
    return text


def _type(of: Mapping[str, Any]) -> str:
    """What values a key takes, such as "integer, at least 1" or "a | b"."""
    if "anyOf" in of:
        return " or ".join(_type(one) for one in of["anyOf"])
    if "enum" in of or "const" in of:
        return ", ".join(f"`{value}`" for value in of.get("enum", [of.get("const")]))
    what = (
        f"list of {_type(of.get('items', {'type': 'any'}))}s" if of.get("type") == "array" else of.get("type", "table")
    )
    limits = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    return ", ".join([what, *(f"{sign} {of[key]:g}" for key, sign in limits.items() if key in of)])


def presets() -> str:
    """Every shipped preset: what it is, what it is made from, and its file."""
    rows, files = [], ""
    for name in config.preset_names():
        source = config.preset_path(name).read_text(encoding="utf-8")
        resolved, extends = config.load(name), tomllib.loads(source).get("extends", "")
        rows.append((f"[`{name}`](#{name})", resolved.data.kind, f"{resolved.data.in_steps} → {resolved.data.out_steps}",
                     f"`{resolved.model.backbone}`", f"[`{extends}`](#{extends})" if extends else ""))  # fmt: skip
        code = "\n".join(f"    {line}" for line in ("```toml", *source.splitlines(), "```"))
        files += f'\n## {name}\n\n{_plain(_first_comment(source))}\n\n??? note "presets/{name}.toml"\n\n{code}\n'
    head = ["preset", "kind", "frames", "predictor", "extends"]
    return (
        "# Presets\n\nThe files of `pdr presets NAME`, each key with its meaning and source. [Keys](keys.md) lists all keys.\n\n"
        f"{table(head, rows)}{files}"
    )


def _first_comment(source: str) -> str:
    lines = source.splitlines()
    end = next(i for i, line in enumerate(lines) if not line.startswith("#"))
    return " ".join(line.removeprefix("#").strip() for line in lines[:end])


def benchmarks(folder: Path) -> str:
    """Every file of results as a table: what all rows share above it, the rest in columns."""
    text = (
        "# Benchmarks in full\n\nEvery row of every file that `pdr bench-render` and `pdr bench-train` wrote. "
        "[Benchmarks](README.md) has the commands, and says what the figures mean.\n"
    )
    for path in sorted(folder.glob("*.json")):
        found = json.loads(path.read_text(encoding="utf-8"))
        rows = [_flat(row) for row in found.pop("rows")]
        columns = list(dict.fromkeys(key for row in rows for key in row))
        shared = {key: rows[0].get(key) for key in columns if all(row.get(key) == rows[0].get(key) for row in rows)}
        varied = [key for key in columns if key not in shared]
        about = " · ".join(
            f"{SAYS.get(key, key)} {_shown(value)}" for key, value in (found | shared).items() if value is not None
        )
        body = table(
            [SAYS.get(key, key.replace("_", " ")) for key in varied],
            [[_shown(row.get(key)) for key in varied] for row in rows],
        )
        text += f"\n## {path.stem}\n\n[{path.name}]({path.name}): {about}\n\n{body}"
    return text


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row whose shares are columns of their own."""
    shares = {f"share: {key}": value for key, value in (row.get("shares") or {}).items()}
    return {key: value for key, value in row.items() if key != "shares"} | shares


def _shown(value: object) -> str:
    """A value of a table: three significant digits, no mark for what is missing."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    return " × ".join(map(str, value)) if isinstance(value, list) else "" if value is None else str(value)


def ablations(folder: Path) -> str:
    """The files of all ablations, with what they vary and how long each variant was trained."""
    rows = []
    for path in sorted(folder.glob("*.json")):
        found = json.loads(path.read_text(encoding="utf-8"))
        rows.append((f"[{path.stem}]({path.name})", found["about"], found["preset"], len(found["variants"]),
                     len(found["seeds"]), found["steps"], found["commit"]))  # fmt: skip
    head = ["file", "what is varied", "preset", "variants", "seeds", "steps", "commit"]
    about = "One file for each grid of [the ablations](../ablations.md), with every seed."
    return f"# Files of the ablations\n\n{about}\n\n{table(head, rows)}"
