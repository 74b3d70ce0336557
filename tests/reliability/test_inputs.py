"""Inputs that are cut short: 65, the file and its size are named, and the old output stays."""

from pathlib import Path

import pytest

from tests.cli import pdr


@pytest.mark.parametrize("keep", ["0", "8", "100", "half", "all but one"])
@pytest.mark.parametrize("kind", ["weather", "traffic", "clip"])
def test_a_truncated_input_is_refused(kind: str, keep: str, request: pytest.FixtureRequest) -> None:
    data: Path = request.getfixturevalue(kind)
    model: Path = request.getfixturevalue({"clip": "video_run"}.get(kind, f"{kind}_run"))
    content = data.read_bytes()
    size = {"half": len(content) // 2, "all but one": len(content) - 1}.get(keep) or int(keep if keep.isdigit() else 0)
    Path(f"cut{data.suffix}").write_bytes(content[:size])
    output = Path("f.mp4" if kind == "clip" else "f.nc")
    output.write_bytes(b"old")
    result = pdr("predict", f"cut{data.suffix}", "-o", output, "-m", model)
    assert result.code == 65, result.err
    assert f"cut{data.suffix}" in result.last
    assert f"{size} bytes" in result.last or "damaged" in result.last
    assert output.read_bytes() == b"old"
