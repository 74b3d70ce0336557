"""Charts of an evaluation: what is drawn where, and labels that fit whatever the numbers are."""

import numpy as np
import pytest

from pdr_cli.drawing import charts, scorecharts
from tests.drawing.documents import document, everything, typed


def lines_of(figure) -> dict[str, np.ndarray]:
    """The values of each coloured line of a figure's first axes."""
    return {line.get_color(): np.asarray(line.get_ydata(), float) for line in figure.axes[0].lines}


def test_skill_is_drawn_for_models_around_that_of_the_rival():
    found = lines_of(scorecharts.skill(typed(document()), "persistence"))
    assert found[charts.MODELS[0]] == pytest.approx([0.56, 0.55])
    assert found[charts.REFERENCES[0]] == pytest.approx([0, 0])  # the rival against itself


def test_spectra_run_from_long_waves_to_short_ones_and_show_the_truth():
    made = typed(everything())
    figure = scorecharts.spectra(made, made.spectra)
    left, right = figure.axes[0].get_xlim()
    assert left > 64 > 2 > right
    assert lines_of(figure)[charts.INK] == pytest.approx([w**3 for w in (64, 32, 16, 8, 4, 2)])


def test_calibration_is_the_mean_error_at_each_forecast_value():
    """Forecasts 270, 280, 290 of what was 270.5, 279, 290."""
    made = typed(everything())
    assert lines_of(scorecharts.calibration(made, made.calibration))[charts.MODELS[0]] == pytest.approx([-0.5, 1, 0])


@pytest.mark.parametrize("scale", [1e-7, 1e-4, 1.0, 3e3, 1e9])
def test_labels_stay_inside_and_no_factor_stands_over_the_axis(scale):
    made = document()
    for row in made["scores"].values():
        row["rmse"] |= {k: [scale * v for v in row["rmse"][k]] for k in ("lead", "low", "high")}
    figure = scorecharts.against_lead(typed(made), "rmse")
    figure.draw_without_rendering()
    axis = figure.axes[0].yaxis
    assert axis.get_tightbbox().x0 >= 0
    assert axis.get_offset_text().get_text() == ""
    low, high = figure.axes[0].get_ylim()
    shown = [tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
    assert len(shown) > 2
    assert not any(figure.texts[0].get_window_extent().overlaps(label.get_window_extent()) for label in shown)


def test_by_itself_a_chart_says_who_is_who():
    made = typed(everything())
    names = [[text.get_text() for text in scorecharts.captioned(chart, made, "Title").legends[0].get_texts()]
             for chart in (scorecharts.against_lead(made, "rmse"), scorecharts.spectra(made, made.spectra))]  # fmt: skip
    assert names == [["pdr", "persistence", "climatology"], ["pdr", "persistence", "climatology", "truth"]]


@pytest.mark.parametrize(("value", "text"), [(0.0, "0"), (-1.2e-5, "−1.2e−5"), (3e8, "3e8"), (1e-7, "1e−7")])
def test_far_ticks_are_short(value, text):
    assert scorecharts._short(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.01, "0.01"), (1.0, "1"), (1000.0, "1000"), (1e5, "10⁵"), (1e-12, "10⁻¹²")]
)
def test_powers_of_ten_are_written_as_such(value, text):
    assert scorecharts._power_of_ten(value) == text
