"""A small file of scenes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.builders import scenes_file


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 scenes of 2 views and 5 frames of 16 x 16; the last two are for validation and test."""
    return scenes_file(tmp_path_factory.mktemp("scenes") / "scenes.h5", 12, size=(2, 5, 16, 16))
