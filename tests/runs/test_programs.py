"""Exported files are read without the libraries that run them, and nothing of a file is run that could be another's code."""

from __future__ import annotations

import io
import json
import os
import pickle
import zipfile
from pathlib import Path

import pytest

from pdr_cli.errors import CheckpointError
from pdr_cli.inference import pt2
from pdr_cli.runs import programs
from pdr_cli.runs.programs import ONNX, PT2, Program

HEADER = bytes(range(256)) * 3


def archive(**entries: bytes) -> bytes:
    """A .pt2 with these entries beside an empty graph; "__" stands for "/"."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as made:
        made.writestr("package/models/model.json", b"{}")
        for name, content in entries.items():
            made.writestr("package/" + name.replace("__", "/"), content)
    return stream.getvalue()


def onnx_model() -> bytes:
    """A model of onnx's own, with metadata."""
    onnx = pytest.importorskip("onnx")
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "g", [], [])
    model = onnx.helper.make_model(graph)
    model.metadata_props.add(key="pdr_step", value="6 h")
    made: bytes = model.SerializeToString()
    return made


@pytest.mark.parametrize("suffix", [ONNX, PT2])
def test_a_header_is_found_again_and_the_program_is_hashed_without_it(suffix: str) -> None:
    program = onnx_model() if suffix == ONNX else archive()
    whole = programs.with_header(program, HEADER, suffix)
    assert programs.parted(whole, Path(f"m{suffix}")) == (HEADER, programs.sha256_of(program, suffix))


def test_onnx_reads_the_header_as_metadata() -> None:
    whole = programs.with_header(onnx_model(), HEADER, ONNX)
    read = pytest.importorskip("onnx").load_from_string(whole)
    assert [entry.key for entry in read.metadata_props] == ["pdr_step", programs.ENTRY]


@pytest.mark.parametrize("suffix", [ONNX, PT2])
def test_files_of_others_and_damaged_ones_are_refused(suffix: str) -> None:
    program = onnx_model() if suffix == ONNX else archive()
    with pytest.raises(CheckpointError, match="but not of pdr"):
        programs.parted(program, Path(f"m{suffix}"))
    whole = programs.with_header(program, HEADER, suffix)
    for length in range(1, len(whole), 7):
        with pytest.raises(CheckpointError):
            programs.parted(whole[:length], Path(f"m{suffix}"))


def test_what_a_program_is_survives_json() -> None:
    program = Program("a", "b", "int8", shorter=True, longer=False)
    assert Program.from_json(program.to_json()) == program


class Code:
    """Runs a command when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch ran",)


CONFIG = {"config": {"w": {"path_name": "weight_0", "use_pickle": True}}}


@pytest.mark.parametrize(
    "entries",
    [
        {"data__sample_inputs__model.pt": pickle.dumps(Code())},
        {"data__weights__model_weights_config.json": json.dumps(CONFIG).encode()},
        {"data__weights__model.pt": pickle.dumps(Code())},
        {"data__constants__model.pt": pickle.dumps(Code())},
        {"data__aotinductor__model.so": b"\x7fELF"},
    ],
    ids=lambda entries: next(iter(entries)),
)
def test_a_program_that_only_unpickling_could_read_is_refused(entries: dict[str, bytes], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="it was not read"):
        pt2.load(archive(**entries), Path("m.pt2"))
    assert list(tmp_path.iterdir()) == []
