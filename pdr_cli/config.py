"""Configurations: presets read from TOML, changed by `--set`, checked against the schema and written back.

A preset is a TOML file with three tables, [data], [model] and [train]. `extends = "name"` at its top takes the values of
another preset for the keys it leaves out. The code has no other defaults: a key that no preset in the chain sets is an
error.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from pdr_cli.errors import ConfigError, did_you_mean
from pdr_cli.optional_tables import LatentConfig, SceneConfig
from pdr_cli.schema import Config, DataConfig, Kind, ModelConfig, TrainConfig
from pdr_cli.settings import NONE

# Defaults for keys added later, so that older models and presets keep their meaning.
ADDED_LATER: dict[str, dict[str, Any]] = {
    "data": {
        "train_period": "",
        "val_period": "",
        "test_period": "",
        "protocol": "honest",
        "fill_missing": "none",
        "resample_fps": 0.0,
        "gray_to_rgb": False,
        "group": "",
        "missing_value": [],
        "assume": [],
        "bounds": [NONE],
        "back": [],
        "calendar": [],
        "holidays": "",
        "static": [],
        "roles": [],
        "lagged": [],
        "read_ahead": False,
    },
    "train": {
        "members": 1,
        "latitude_weights": False,
        "ema": 0.0,
        "rollout": 1,
        "cpu_budget": "",
        "save_every": 0,
        "loggers": [],
        "card_windows": 0,
        "val_every": 0,
        "patience": 0,
        "fallback": False,
        "baselines": False,
        "out_of_fold": True,
        "motion_weight": 0.0,
        "opacity_weight": 0.0,
        "stages": [],
        "recompute": False,
        "crop": [],
    },
    "model": {
        "tile": [],
        "tile_overlap": 32,
        "noise": 0,
        "dropout": 0.0,
        "inputs": "frames",
        "periodic": "none",
        "fusion_init": "residual",
        "adapter": "flatten",
        "adapter_input": "auto",
        "mlp_depth": 1,
        "init": "grid",
        "coords": "absolute",
        "cell_stride": 2,
        "per_cell": 1,
        "conv_width": 32,
        "conv_depth": 4,
        "deform_start": "still",
        "deform_basis": "poly3",
        "deform_opacity": False,
        "prune_opacity": 0.005,
    },
    "scene": {
        "moves": True,
        "lpips": "",
    },
}

# Tables that a preset may lack, and presets that have them.
OPTIONAL = {"latent": "weather-latent or video-latent", "scene": "scenes-small"}


def presets_folder() -> Path:
    """Folder of the shipped presets: inside the installed package, or beside it in a source checkout."""
    return shipped_folder("presets")


def shipped_folder(name: str) -> Path:
    """A top-level folder of the project (`presets`, `ext`), in a wheel or in a source checkout."""
    package = Path(__file__).parent
    inside = package / name
    return inside if inside.is_dir() else package.parent / name


def preset_names() -> list[str]:
    """Names of the shipped presets."""
    return sorted(p.stem for p in presets_folder().glob("*.toml"))


def preset_path(preset: str) -> Path:
    """The TOML file of a preset given by name or by path.

    Raises:
        ConfigError: unknown preset; suggests the nearest names.
    """
    path = Path(preset)
    if path.suffix == ".toml":
        if not path.is_file():
            raise ConfigError(f"no preset file {preset}", way_out="`pdr presets` lists the shipped ones")
        return path
    if preset not in preset_names():
        raise ConfigError(
            f"no preset {preset!r}.{did_you_mean(preset, preset_names())}",
            way_out="`pdr presets` lists them; a path ends in .toml",
        )
    return presets_folder() / f"{preset}.toml"


def load(preset: str, overrides: list[str] | None = None) -> Config:
    """Read a preset by name or path and apply `key=value` overrides.

    The saved configuration of a run is a preset too, and keeps the name of its preset.

    Raises:
        ConfigError: unknown preset, unknown key (with the nearest ones), missing key or bad value.
    """
    path = preset_path(preset)
    values = _read_chain(path, ())
    values.setdefault("preset", path.stem)
    for override in overrides or []:
        _apply(values, override)
    return validate(values, where=str(preset))


def validate(values: dict[str, Any], where: str) -> Config:
    """Check nested `values` against the schema; `where` names their origin in messages."""
    try:
        return Config.model_validate(_with_added(values))
    except ValidationError as error:
        raise ConfigError(f"{where}: " + "; ".join(_explain(e) for e in error.errors())) from None


def _with_added(values: dict[str, Any]) -> dict[str, Any]:
    """Values with the defaults for keys added later, those of a guide too."""
    for table, defaults in ADDED_LATER.items():
        if isinstance(values.get(table), dict):
            values = values | {table: defaults | values[table]}
    guide = values.get("guide")
    return values | {"guide": _with_added(guide)} if isinstance(guide, dict) else values


def dump(config: Config) -> str:
    """The resolved configuration as TOML."""
    import tomli_w

    return tomli_w.dumps(config.model_dump(exclude_none=True))


def schema() -> dict[str, Any]:
    """The JSON schema of a preset: every key with its meaning, none required, because `extends` may give it."""
    tables = Config.model_json_schema()["$defs"]
    for table in tables.values():
        table.pop("required", None)
    about = "name or file of another preset, whose values hold for the keys that this one leaves out"
    extends = {"extends": {"type": "string", "description": about}}
    return tables[Config.__name__] | {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A preset of pdr",
        "properties": extends | tables[Config.__name__]["properties"],
        "$defs": tables,
    }


def keys() -> list[str]:
    """Every dotted key that `--set` accepts, such as `train.lr`."""
    return [f"{table}.{key}" for table, model in _tables().items() for key in model.model_fields]


def _tables() -> dict[str, type[BaseModel]]:
    return {
        "data": DataConfig,
        "model": ModelConfig,
        "train": TrainConfig,
        "latent": LatentConfig,
        "scene": SceneConfig,
    }


def _read_chain(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    if path in seen:
        raise ConfigError(f"{path}: extends itself")
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8", errors="surrogateescape"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from None
    base = values.pop("extends", None)
    if base is None:
        return values
    merged = _read_chain(preset_path(str(base)), (*seen, path))
    merged.pop("preset", None)
    for table, entries in values.items():
        if isinstance(entries, dict) and isinstance(merged.get(table), dict):
            merged[table] |= entries
        else:
            merged[table] = entries
    return merged


def _apply(values: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    key = key.strip()
    if not separator:
        raise ConfigError(f"--set {override}", "key=value", "for example --set train.lr=1e-3")
    full = key if "." in key else next((k for k in keys() if k.endswith(f".{key}")), key)
    if full not in keys():
        raise ConfigError(f"--set {key}: unknown key.{_nearest_key(key)}")
    table, name = full.split(".", 1)
    if table in OPTIONAL and table not in values:
        raise ConfigError(f"--set {key}: the preset has no table [{table}]", way_out=f"take --preset {OPTIONAL[table]}")
    values.setdefault(table, {})[name] = _parse_value(text.strip(), _tables()[table].model_fields[name].annotation)


def _parse_value(text: str, annotation: Any) -> Any:
    """`text` as a TOML value; bare words and choices are strings, and a lone value for a list is a list of one."""
    if text in get_args(annotation):
        return text
    if annotation is str or (annotation in (list[str],) and not text.startswith("[")):
        return text if annotation is str else [w for w in text.split(",") if w]
    try:
        return tomllib.loads(f"v = {text}")["v"]
    except tomllib.TOMLDecodeError:
        return float(text) if re.fullmatch(r"[+-]?\d+e[+-]?\d+", text) else text


def _nearest_key(key: str) -> str:
    leaf = key.rsplit(".", 1)[-1]
    leaves = {k.split(".", 1)[1]: k for k in keys()}
    near = did_you_mean(key, keys()) if "." in key else ""
    if near:
        return near
    hint = did_you_mean(leaf, leaves)
    for name, full in leaves.items():
        hint = hint.replace(f"'{name}'", f"'{full}'")
    return hint


def _explain(error: Any) -> str:
    place = ".".join(str(p) for p in error["loc"] if p not in ("int", "float") and not str(p).startswith("literal"))
    if error["type"] == "extra_forbidden":
        return f"unknown key {place}.{_nearest_key(place)}"
    if error["type"] == "missing":
        return f"key {place} is missing"
    message = error["msg"].removeprefix("Value error, ")
    return f"{place} = {error['input']!r}: {message[0].lower()}{message[1:]}"


KINDS: tuple[str, ...] = get_args(Kind)
