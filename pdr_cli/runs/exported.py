"""Headers of models in their own files and in exported programs, read without torch."""

from __future__ import annotations

from pathlib import Path

from pdr_cli.errors import CheckpointError
from pdr_cli.runs import container, modelfile, programs
from pdr_cli.runs.digest import digest
from pdr_cli.runs.modelfile import Header
from pdr_cli.runs.programs import PROGRAM, Program
from pdr_cli.system import damage, hashes


def read_header(path: Path) -> Header:
    """The header of a model file, without a check of its weights, or of an exported program, checked.

    Raises:
        CheckpointError: truncated, foreign or too new; of a program also altered.
    """
    return checked(container.content_of(path), path) if programs.is_program(path) else modelfile.read_header(path)


def checked(content: bytes, path: Path) -> Header:
    """The header in the bytes of an exported program, which are as they were written; `path`: of the file.

    Raises:
        CheckpointError: truncated, altered, foreign or too new.
    """
    with damage.reading(path, CheckpointError):
        inside, sha256 = programs.parted(content, path)
        text = container.text_of(inside, path)
        modelfile.check_digest(text, digest(container.arrays_of(inside), text), path)
        header = modelfile.header_in(inside, hashes.sha256_of(content), path)
        if header.program is None or header.program.sha256 != sha256:
            raise CheckpointError(f"{path}: the program differs from the SHA-256 in its header; the file was altered")
        return header


def joined(model: Header, program: bytes, about: Program, runtime: str) -> bytes:
    """The exported file of a program, with the header of its model.

    Args:
        model: that was exported.
        program: its bytes.
        about: what it computes.
        runtime: see `programs.with_header`.
    """
    return programs.with_header(program, modelfile.serialised(model, {}, {PROGRAM: about.to_json()}), runtime)
