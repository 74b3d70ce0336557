"""Fans on the page: their words, their numbers, and where there are none."""

import re
from pathlib import Path

import numpy as np
import pytest

from pdr_cli.drawing import fans, page, scorecharts
from pdr_cli.drawing.strips import Strip
from tests.drawing.documents import cases, document, fan, sample, typed

ENDS = (270.0, 290.0)


@pytest.fixture(autouse=True)
def without_film_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which take two thirds of the time of a page with cases."""
    monkeypatch.setattr(page, "strips", lambda document, cases, _: [Strip(c.label, "", [], [], "") for c in cases])


def written(tmp_path: Path, members: int | None) -> str:
    path = tmp_path / "report.html"
    page.write(path, typed(document()), cases(members=members))
    return path.read_text()


def test_the_words_hold_the_numbers_of_the_last_lead_time(tmp_path: Path) -> None:
    source = written(tmp_path, 0)
    alt = next(text for text in re.findall(r'aria-label="([^"]+)"', source) if text.startswith("best forecast at"))
    assert "12 h ahead truth 286.0 K, forecast 281.5 K, 80 % from 278.0 to 284.0 K, 95 % from 276.0 to 287.0 K." in alt
    assert "Truth inside the 80 % band at 1 of 2 lead times, inside the 95 % band at 2." in alt
    assert "2.250 K, is the median of all cells. Bands: intervals from the errors" in source
    assert sorted(p.name for p in (tmp_path / "report").glob("fan-*")) == [
        "fan-best.png",
        "fan-median.png",
        "fan-worst.png",
    ]


def test_members_are_named_and_the_widest_band_of_few_is_their_range(tmp_path: Path) -> None:
    source = written(tmp_path, 39)  # 38 / 40 is 95 %
    assert "mean of 39 members" in source
    assert "quantiles of 39 members, the widest from the lowest to the highest" in source
    assert "quantiles of 60 members. The charts" in written(tmp_path, 60)


def test_without_known_uncertainty_there_is_none(tmp_path: Path) -> None:
    assert "Against time" not in written(tmp_path, None)
    assert not list((tmp_path / "report").glob("fan-*"))


def test_lines_and_bands_start_at_the_last_observation() -> None:
    figure = scorecharts.fan(typed(document()), fan(), "pdr", ("t2m [K]", "2013-12-31 00:00"), ENDS)
    (axes,) = figure.axes
    lines = {line.get_label(): line.get_xydata().tolist() for line in axes.lines}
    assert lines["observed"] == [[-6, 280], [0, 281]]
    assert lines["truth"] == [[0, 281], [6, 282], [12, 286]]
    assert lines["pdr"] == [[0, 281], [6, 281], [12, 281.5]]
    narrow, wide = (band.get_paths()[0].vertices.tolist() for band in axes.collections)
    assert [6, 279] in narrow
    assert [12, 284] in narrow
    assert [12, 276] in wide
    assert [0, 281] in narrow
    assert axes.get_xlabel() == "hours after 2013-12-31 00:00"


@pytest.mark.parametrize(
    ("kind", "name"), [("weather", r"\d+(\.\d+)?°N, \d+(\.\d+)?°[EW]"), ("video", r"row 3 of \d+, column 4 of \d+")]
)
def test_a_cell_has_the_name_of_its_place(kind: str, name: str) -> None:
    assert re.fullmatch(name, fans.cell_name(sample(kind), 2, 3))


def test_all_charts_span_as_much_around_what_they_draw() -> None:
    near, far = fan(), fan()
    far.truth[1] = 300.0
    # From 276 to 300, with 6 % of room at both ends; the other is drawn from 276 to 287, around 281.5.
    np.testing.assert_allclose(fans.ends(near, [near, far]), (281.5 - 13.44, 281.5 + 13.44))
    np.testing.assert_allclose(fans.ends(far, [near, far]), (288 - 13.44, 288 + 13.44))
