"""What every test may ask for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference numbers and real data: $PDR_SHARED, or `shared` beside the checkout."""
    folder = Path(os.environ.get("PDR_SHARED", Path(__file__).parents[2] / "shared"))
    if not folder.is_dir():
        pytest.skip(f"no reference data: {folder} is not there (set PDR_SHARED)")
    return folder
