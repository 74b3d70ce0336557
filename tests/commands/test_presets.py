"""`pdr presets`: what it prints is what editors and users take."""

from __future__ import annotations

import json
import tomllib
from typing import Any

import jsonschema
import pytest

from pdr_cli import config
from tests.cli import pdr


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    done = pdr("presets", "--schema")
    assert done.code == 0, done.err
    printed: dict[str, Any] = json.loads(done.out)
    jsonschema.Draft202012Validator.check_schema(printed)
    return printed


def faults(schema: dict[str, Any], preset: dict[str, Any]) -> list[str]:
    return [error.message for error in jsonschema.Draft202012Validator(schema).iter_errors(preset)]


@pytest.mark.parametrize("name", config.preset_names())
def test_every_preset_fits_the_schema(schema: dict[str, Any], name: str) -> None:
    assert faults(schema, tomllib.loads(config.preset_path(name).read_text(encoding="utf-8"))) == []


def test_the_schema_knows_every_key_and_says_what_it_means(schema: dict[str, Any]) -> None:
    tables = {"data": "DataConfig", "model": "ModelConfig", "train": "TrainConfig"}
    names = config.keys()
    for key in names:
        table, name = key.split(".")
        if table in tables:
            assert schema["$defs"][tables[table]]["properties"][name]["description"]


@pytest.mark.parametrize(
    ("preset", "said"),
    [
        ({"train": {"learning_rate": 1e-3}}, "learning_rate"),
        ({"train": {"precision": "fp16"}}, "fp16"),
        ({"data": {"in_steps": 0}}, "minimum"),
        ({"weather": {}}, "weather"),
    ],
)
def test_a_fault_is_marked(schema: dict[str, Any], preset: dict[str, Any], said: str) -> None:
    (found,) = faults(schema, {"extends": "weather-small", **preset})
    assert said in found


def test_the_schema_is_that_of_all_presets() -> None:
    done = pdr("presets", "demo", "--schema")
    assert done.code == 2
    assert "leave out the name" in done.err
