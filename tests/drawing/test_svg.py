"""Figures inside a page: in its colours, with text as text, and ids that no other figure has."""

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from matplotlib.figure import Figure

from pdr_cli.drawing import maps, panels, svg
from pdr_cli.drawing.charts import MODELS
from tests.drawing.test_pictures import windows


def figure(color: str = MODELS[0]) -> Figure:
    made = Figure(figsize=(2, 1))
    axes = made.add_subplot()
    axes.plot([0, 1], [0, 1], color=color, marker="o")
    axes.set_xlabel("lead time [hours]")
    return made


def test_colours_of_the_page_are_variables_and_others_stay():
    assert "var(--model-0)" in svg.inline(figure(), "a", "k")
    assert MODELS[0] not in svg.inline(figure(), "a", "k")
    assert "#123456" in svg.inline(figure("#123456"), "a", "k")


def test_it_is_one_element_with_its_words_and_its_text():
    made = svg.inline(figure(), 'RMSE of "a" <b> & c', "k")
    root = ET.fromstring(made.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1))
    assert root.get("aria-label") == 'RMSE of "a" <b> & c'
    assert "lead time [hours]" in [t.text for t in root.iter("{http://www.w3.org/2000/svg}text")]


def test_two_figures_of_a_page_share_no_id_and_each_finds_its_own():
    first, second = (svg.inline(figure(), "a", key) for key in ("one", "two"))
    ids = [set(re.findall(r' id="([^"]+)"', s)) for s in (first, second)]
    assert ids[0]
    assert not ids[0] & ids[1]
    assert set(re.findall(r'(?:url\(#|href="#)([^)"]+)', first)) == ids[0]


def test_coordinates_keep_a_hundredth_of_a_point():
    assert svg._rounded("M 1.23456 7.0000001 L -0.004 10") == "M 1.23 7 L -0 10"


@pytest.mark.parametrize("even", [True, False])
def test_a_map_carries_its_cells_as_a_picture_not_as_paths(even):
    """32 x 48 cells would be 1536 paths; as a PNG they are a few kilobytes, also on uneven latitudes. Coastlines are another."""
    past, _, _ = windows("weather")
    grid = panels.grid_of(past)
    if not even:
        grid.y[0] += 2
    frame = past.values[-1, 0]
    made = svg.inline(maps.panel(grid, frame, "viridis", panels.shared_limits([frame])), "a", "k")
    assert made.count("<image") == 2
    assert made.count("<path") < 40
    assert len(made) < 100_000


def test_an_even_map_has_one_pixel_for_a_cell():
    import base64
    import io

    from PIL import Image

    past, _, _ = windows("weather")
    frame = np.zeros_like(past.values[-1, 0])
    made = svg.inline(maps.panel(panels.grid_of(past), frame, "viridis", panels.Limits(0, 1)), "a", "k")
    data = re.search(r"base64,\s*([^\"]+)", made)[1].replace(" ", "")
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == frame.shape[::-1]
