import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch

from pdr_cli.runs import container, modelfile
from pdr_cli.runs.calibration import Calibration
from pdr_cli.system import hashes
from tests.cli import pdr


@pytest.fixture
def model(weather_run: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "model.safetensors"
    copy.write_bytes((weather_run / "model.safetensors").read_bytes())
    return copy


def code_and_message(weather: Path, model: Path) -> tuple[int, str]:
    result = pdr("predict", weather, "-o", "f.nc", "-m", model)
    return result.code, result.last


@pytest.mark.parametrize("keep", [0, 8, 100, 0.5, 0.999])
def test_a_truncated_model_is_refused(weather: Path, model: Path, keep: float) -> None:
    content = model.read_bytes()
    model.write_bytes(content[: int(len(content) * keep) if 0 < keep < 1 else int(keep)])
    code, message = code_and_message(weather, model)
    assert (code, "truncated" in message) == (65, True)


def test_one_flipped_bit_is_found(weather: Path, model: Path) -> None:
    flip_a_bit(model, -1000)
    code, message = code_and_message(weather, model)
    assert (code, "SHA-256" in message) == (65, True)


def test_a_pickle_is_never_unpickled(weather: Path, tmp_path: Path) -> None:
    import pickle

    class Bomb:
        def __reduce__(self):  # type: ignore[no-untyped-def]
            return (open, (str(tmp_path / "exploded"), "w"))

    (tmp_path / "bomb.pt").write_bytes(pickle.dumps(Bomb()))
    code, message = code_and_message(weather, tmp_path / "bomb.pt")
    assert (code, "--init-from" in message) == (65, True), message
    assert not (tmp_path / "exploded").exists()


def test_foreign_weights_and_newer_formats_are_told_apart(weather: Path, model: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    save_file({"w": torch.zeros(3)}, tmp_path / "foreign.safetensors")
    assert "not a pdr model" in code_and_message(weather, tmp_path / "foreign.safetensors")[1]
    rewrite_card(model, lambda card: card | {"format_version": 99})
    code, message = code_and_message(weather, model)
    assert (code, "format 99" in message, "upgrade" in message) == (65, True, True)


def test_a_card_of_another_version_says_what_it_lacks(weather: Path, model: Path) -> None:
    def without_batch(card: dict[str, Any]) -> dict[str, Any]:
        del card["config"]["train"]["batch"]
        return card

    rewrite_card(model, without_batch)
    code, message = code_and_message(weather, model)
    assert (code, "another version" in message, "train.batch is missing" in message) == (65, True, True)


def test_weights_of_another_network_are_refused(weather: Path, model: Path) -> None:
    def wider(card: dict[str, Any]) -> dict[str, Any]:
        card["config"]["model"]["hid_t"] *= 2
        return card

    rewrite_card(model, wider)
    code, message = code_and_message(weather, model)
    assert (code, "not those of the network it describes" in message) == (65, True), message


def test_the_climatology_comes_back_with_its_kind(weather_run: Path) -> None:
    usual = modelfile.read(weather_run / "model.safetensors").climatology
    # 160 steps of 6 hours, of which 70 % are for training: 28 days.
    assert usual.description == "hour of day, 4 weeks of training"


@pytest.mark.parametrize("version", [1, 2, 3, modelfile.FORMAT_VERSION])
def test_a_header_has_the_climatology_of_the_file(model: Path, version: int) -> None:
    if version == 1:
        rewrite_header(model, lambda header: {k: v for k, v in header.items() if k != "climatology"})
    rewrite_card(model, lambda card: card | {"format_version": version})
    found, expected = modelfile.read_header(model).climatology, modelfile.read(model).climatology
    assert (found.kind, found.covered) == (expected.kind, expected.covered)
    assert np.array_equal(found.coefficients, expected.coefficients)


def test_a_model_of_format_1_is_read_as_it_was_meant(model: Path) -> None:
    mornings = modelfile.read(model).climatology.coefficients[[1]].copy()
    rewrite_header(model, lambda header: {k: v for k, v in header.items() if k != "climatology"})
    rewrite_card(model, lambda card: card | {"format_version": 1})
    old = modelfile.read(model).climatology
    assert (old.kind, old.covered) == ("day", 0)
    when = np.array(["2020-02-03T06:00"], "datetime64[ns]")
    assert np.array_equal(old.at(when), mornings)


def test_the_one_mean_frame_of_format_1_was_of_clips(model: Path) -> None:
    header = modelfile.MIGRATIONS[1]({}, {"climatology": np.zeros((1, 1, 2, 2))}, model)
    assert json.loads(header["climatology"]) == {"kind": "mean", "covered": 0}


def test_a_model_of_format_2_is_checked_by_the_hash_of_its_tensors(
    weather: Path, weather_run: Path, model: Path
) -> None:
    current = modelfile.read(weather_run / "model.safetensors")
    rewrite_card(model, lambda card: card | {"format_version": 2})
    old = modelfile.read(model)
    assert all(current.weights[k].equal(old.weights[k]) for k in current.weights)
    assert old.climatology.kind == current.climatology.kind
    flip_a_bit(model, -1000)
    assert "SHA-256" in code_and_message(weather, model)[1]


def test_a_model_of_format_3_has_the_kind_of_its_file_format(model: Path) -> None:
    def of_format_3(card: dict[str, Any]) -> dict[str, Any]:
        del card["kind"]
        return card | {"format": "hdf5", "format_version": 3}

    rewrite_card(model, of_format_3)
    assert modelfile.read(model).card.kind == modelfile.read_header(model).card.kind == "traffic"


def test_the_hash_is_of_the_bytes_that_are_parsed_though_the_file_is_replaced(
    weather_run: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = hashes.sha256(model)
    parse = container.text_of

    def replaced(content: bytes, path: Path) -> dict[str, str]:
        path.write_bytes(b"another model")
        return parse(content, path)

    monkeypatch.setattr(container, "text_of", replaced)
    assert modelfile.read(model).sha256 == before
    model.write_bytes((weather_run / "model.safetensors").read_bytes())
    assert modelfile.read_header(model).sha256 == before


def test_there_is_a_step_from_every_older_format() -> None:
    assert list(modelfile.MIGRATIONS) == list(range(1, modelfile.FORMAT_VERSION))


def test_a_number_changed_in_the_card_is_found(weather: Path, model: Path) -> None:
    # The name of the preset, which no other check looks at.
    flip_a_bit(model, model.read_bytes().index(b'preset\\": \\"demo') + len(b'preset\\": \\"d'))
    code, message = code_and_message(weather, model)
    assert (code, "SHA-256" in message) == (65, True), message


def test_a_calibration_is_kept_in_the_file_and_covered_by_its_hash(weather: Path, model: Path) -> None:
    before = modelfile.read(model)
    noise = np.random.default_rng(0).standard_normal((40, 4, 1, *before.card.size)).astype(np.float32)
    modelfile.recalibrate(model, Calibration.of_errors(noise, {"period": "2013"}))
    for after in (modelfile.read(model), modelfile.read_header(model)):
        assert after.calibration is not None
        assert (after.calibration.count, after.calibration.about) == (40, {"period": "2013"})
        assert np.array_equal(after.calibration.offsets, Calibration.of_errors(noise).offsets, equal_nan=True)
    file = modelfile.read(model)
    assert file.weights.keys() == before.weights.keys()
    assert file.baselines.keys() == before.baselines.keys()
    assert all(file.weights[name].equal(tensor) for name, tensor in before.weights.items())
    assert file.card == before.card
    content = model.read_bytes()
    assert content.count(b'count\\": 40') == 1
    model.write_bytes(content.replace(b'count\\": 40', b'count\\": 41'))
    code, message = code_and_message(weather, model)
    assert (code, "SHA-256" in message) == (65, True)


@pytest.mark.parametrize("version", [1, 2, 3])
def test_a_model_of_an_older_format_gets_a_calibration(model: Path, version: int) -> None:
    if version == 1:
        rewrite_header(model, lambda header: {k: v for k, v in header.items() if k != "climatology"})
    rewrite_card(model, lambda card: card | {"format_version": version})
    before = modelfile.read(model)
    modelfile.recalibrate(model, Calibration.of_errors(np.zeros((9, 4, 1, *before.card.size), np.float32)))
    after = modelfile.read(model)
    assert after.calibration is not None
    assert (after.card, after.climatology.kind) == (before.card, before.climatology.kind)
    assert np.array_equal(after.climatology.coefficients, before.climatology.coefficients)
    assert all(after.weights[name].equal(tensor) for name, tensor in before.weights.items())


def flip_a_bit(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 4
    path.write_bytes(content)


def rewrite_card(model: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Replace the card in a model's header; the weights stay as they are."""
    rewrite_header(model, lambda header: header | {"pdr": json.dumps(change(json.loads(header["pdr"])))})


def rewrite_header(model: Path, change: Callable[[dict[str, str]], dict[str, str]]) -> None:
    content = model.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    changed = change(header["__metadata__"])
    tensors = safetensors.torch.load(content)
    covered = changed if json.loads(changed["pdr"])["format_version"] > 2 else {}
    header["__metadata__"] = changed | {"sha256": modelfile.digest(tensors, covered)}
    changed = json.dumps(header).encode()
    model.write_bytes(struct.pack("<Q", len(changed)) + changed + content[8 + length :])
