"""Pictures: written whole, not blank, on shared scales, with ellipses where the Gaussians are."""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from pdr_cli.data.series import Series, make_series
from pdr_cli.data.times import Step
from pdr_cli.drawing import charts, panels, pictures
from pdr_cli.errors import OutputError
from pdr_cli.verification.document import Document
from tests.drawing.documents import document, sample, typed

MAP = {
    "lat": ("y", np.array([60.0, 57.5, 55.0]), {"units": "degrees_north"}),
    "lon": ("x", np.array([200.0, 202.5, 205.0, 207.5]), {"units": "degrees_east"}),
}


def windows(kind: str, observed: int = 2, ahead: int = 3) -> tuple[Series, Series, Series]:
    """Observed frames, a forecast that repeats the last one with noise, and the truth."""
    whole = sample(kind).isel(time=slice(30, 30 + observed + ahead)).copy(deep=True)
    past, truth = whole.isel(time=slice(0, observed)), whole.isel(time=slice(observed, None))
    noise = np.random.default_rng(0).normal(0, 0.05 * whole.values.std(), truth.shape)
    return past, truth.copy(data=(past.values[-1:] + noise).astype(np.float32)), truth


def ellipses(n: int, channels: int = 1) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    values = {k: rng.uniform(2, 14, n) for k in ("x", "y")} | {k: rng.uniform(1, 3, n) for k in ("sigma_1", "sigma_2")}
    return values | {"rotation": rng.uniform(-1, 1, n), "amplitude": rng.normal(size=(n, channels))}


def pixels(path) -> np.ndarray:
    """[H, W, 3] of a PNG that is neither small nor blank."""
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert path.stat().st_size > 20_000
    image = np.asarray(Image.open(path).convert("RGB"), dtype=float)
    assert image.std() > 20  # text alone on white has about 12
    return image


@pytest.mark.parametrize("kind", ["weather", "traffic", "video"])
def test_a_forecast_with_truth_has_a_row_more_than_one_without(tmp_path, kind):
    past, predicted, truth = windows(kind)
    pictures.forecast(tmp_path / "with.png", past, predicted, truth, model="runs/a")
    pictures.forecast(tmp_path / "without.png", past, predicted)
    assert pixels(tmp_path / "with.png").shape[0] > 1.2 * pixels(tmp_path / "without.png").shape[0]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["with.png", "without.png"]


def test_a_forecast_shows_the_coarse_one_where_it_is_given(tmp_path):
    past, predicted, truth = windows("video")
    pictures.forecast(tmp_path / "without.png", past, predicted, truth)
    pictures.forecast(tmp_path / "with.png", past, predicted, truth, coarse=predicted.values)
    assert pixels(tmp_path / "with.png").shape[0] > pixels(tmp_path / "without.png").shape[0]


def test_a_forecast_of_many_channels_draws_the_first(tmp_path):
    past, predicted, truth = windows("video")
    past, predicted, truth = (
        make_series(np.repeat(s.values, 3, axis=1), s.time.values, {n: {} for n in "abc"}, {}, kind="weather")
        for s in (past, predicted, truth)
    )
    pictures.forecast(tmp_path / "three.png", past, predicted, truth)
    pictures.forecast(tmp_path / "one.png", *(s.isel(channel=[0]) for s in (past, predicted, truth)))
    assert pixels(tmp_path / "three.png").shape == pixels(tmp_path / "one.png").shape


def test_missing_values_are_drawn_in_their_own_colour(tmp_path):
    past, predicted, truth = (s.copy(deep=True) for s in windows("weather"))
    for series in (past, predicted, truth):
        series.values[..., 10:20, 10:30] = np.nan
    pictures.forecast(tmp_path / "land.png", past, predicted, truth)
    gray = np.array([int(panels.MISSING[i : i + 2], 16) for i in (1, 3, 5)])
    assert np.all(np.abs(pixels(tmp_path / "land.png") - gray) <= 1, axis=-1).mean() > 0.03


@pytest.mark.parametrize("kind", ["weather", "traffic", "video"])
def test_layers_are_drawn_with_and_without_truth(tmp_path, kind):
    past, fused, truth = windows(kind)
    painted = np.random.default_rng(2).normal(size=fused.shape)
    gaussians = ellipses(30, fused.sizes["channel"])
    pictures.layers(tmp_path / "with.png", past, fused, fused.values - painted, painted, gaussians, truth)
    pictures.layers(tmp_path / "without.png", past, fused, fused.values - painted, painted, gaussians)
    assert pixels(tmp_path / "with.png").shape[1] > pixels(tmp_path / "without.png").shape[1]


def test_gaussians_show_in_the_layers_in_the_colour_of_their_sign(tmp_path):
    past, fused, _ = windows("video")
    zero, gaussians = np.zeros_like(fused.values), ellipses(30)
    counts = []
    for name, sign in (("positive", 1), ("negative", -1)):
        signed = gaussians | {"amplitude": sign * np.ones((30, 1))}
        pictures.layers(tmp_path / f"{name}.png", past, fused, fused.values, zero, signed)
        rgb = pixels(tmp_path / f"{name}.png")
        counts.append(((rgb[..., 0] > rgb[..., 2] + 60).sum(), (rgb[..., 2] > rgb[..., 0] + 60).sum()))
    (red_of_positive, blue_of_positive), (red_of_negative, blue_of_negative) = counts
    assert red_of_positive > red_of_negative + 500
    assert blue_of_negative > blue_of_positive + 500


def test_an_outline_turns_from_right_towards_down():
    """σ 3 and 1, turned by 30°: the tip of the long axis is at 3 (cos 30°, sin 30°) = (2.598, 1.5)."""
    one = {"x": [10.0], "y": [20.0], "sigma_1": [3.0], "sigma_2": [1.0], "rotation": [np.pi / 6]}
    line = pictures.outlines({k: np.array(v) for k, v in one.items()}, points=5)  # 0, 90, 180, 270, 360 degrees
    assert line.shape == (1, 5, 2)
    assert line[0, 0] == pytest.approx([10 + 3 * np.sqrt(3) / 2, 20 + 1.5])
    assert line[0, 1] == pytest.approx([10 - 0.5, 20 + np.sqrt(3) / 2])  # the short axis, 90° further
    assert line[0, 4] == pytest.approx(line[0, 0])


def test_cells_land_on_their_coordinates_whichever_way_latitude_runs():
    """Half a row below the first of 60, 57.5, 55 is 58.75; one column past the last of 200 ... 207.5 is 210."""
    series = make_series(np.zeros((1, 1, 3, 4)), np.array([0.0]), {"a": {}}, MAP, kind="weather")
    point = np.array([[4.0, 0.5], [1.0, -1.0]])
    assert panels.grid_of(series).place(point) == pytest.approx(np.array([[210.0, 58.75], [202.5, 62.5]]))
    flipped = panels.grid_of(series.isel(y=slice(None, None, -1)))
    assert flipped.place(point) == pytest.approx(np.array([[210.0, 56.25], [202.5, 52.5]]))
    assert flipped.extent == (198.75, 208.75, 53.75, 61.25)  # half a cell around; y ascends upwards


def test_pixels_stay_pixels_with_rows_downwards():
    series = make_series(np.zeros((1, 1, 3, 4)), np.array([0.0]), {"a": {}}, {}, kind="video")
    grid = panels.grid_of(series)
    assert grid.extent == (-0.5, 3.5, 2.5, -0.5)
    assert grid.ratio == pytest.approx(3 / 4)
    assert grid.place(np.array([1.5, 2.0])) == pytest.approx([1.5, 2.0])


def test_a_map_is_as_wide_as_its_middle_latitude_says():
    """At 57.5° a degree of longitude is cos 57.5° = 0.537 of one of latitude."""
    series = make_series(np.zeros((1, 1, 3, 4)), np.array([0.0]), {"a": {}}, MAP, kind="weather")
    assert panels.grid_of(series).ratio == pytest.approx(3 / 4 / np.cos(np.deg2rad(57.5)))


@pytest.mark.parametrize("ascending", [True, False])
def test_the_north_is_drawn_at_the_top(tmp_path, ascending):
    """The northern half is bright in the data; above the middle of the panel it must be so in the picture."""
    frame = np.zeros((1, 1, 8, 8), np.float32)
    frame[:, :, :4] = 1.0
    coords = {"lat": ("y", np.linspace(50, 43, 8), {}), "lon": ("x", np.linspace(0, 7, 8), {})}
    series = make_series(frame, np.array([0.0]), {"a": {}}, coords, kind="video")
    series = series.isel(y=slice(None, None, -1)) if ascending else series
    sheet = panels.Sheet(1, 1, panels.grid_of(series), "", "")
    sheet.panel(0, 0, series.values[0, 0], "gray", panels.Limits(0, 1))
    sheet.save(tmp_path / "north.png")
    gray = np.asarray(Image.open(tmp_path / "north.png").convert("L"))
    left, bottom, width, height = (round(v * panels.DPI) for v in sheet.box(0, 0))
    column, middle = left + width // 2, gray.shape[0] - bottom - height // 2
    assert gray[middle - height // 4, column] > 250
    assert gray[middle + height // 4, column] < 5


def test_one_colour_scale_spans_all_frames_but_for_the_wildest_cells():
    """Of 0, 1, ..., 1000 the 0.2 and 99.8 % quantiles are 2 and 998."""
    low, high = np.arange(0.0, 501.0), np.arange(501.0, 1001.0)
    assert panels.shared_limits([low, np.append(high, np.nan)]) == panels.Limits(2.0, 998.0, "both")
    assert panels.shared_limits([low, high], floor=0.0) == panels.Limits(0.0, 998.0, "max")
    assert panels.shared_limits([low, high], 0.0, 1000.0) == panels.Limits(0.0, 1000.0, "neither")


def test_differences_are_scaled_symmetrically():
    """|values| are 0 ... 1000, their 99.8 % quantile 998, and only negative ones lie beyond it."""
    assert panels.symmetric_limits([-np.arange(0.0, 1001.0)]) == panels.Limits(-998.0, 998.0, "min")


@pytest.mark.parametrize("value", [0.0, 280.0, np.nan])
def test_a_constant_field_still_has_a_scale(value):
    for limits in (panels.shared_limits([np.full(4, value)]), panels.symmetric_limits([np.full(4, value)])):
        assert limits.high > limits.low


def test_chosen_leads_hold_the_first_and_the_last():
    assert pictures.chosen_leads(12, 5) == [0, 3, 6, 8, 11]  # 0, 2.75, 5.5, 8.25, 11; 5.5 rounds to even
    assert pictures.chosen_leads(4, 5) == [0, 1, 2, 3]
    assert pictures.chosen_leads(1, 5) == [0]


def test_leads_are_named_in_the_unit_of_the_data():
    day = np.datetime64("2020-01-31", "ns")
    hours = day + np.array([6, 72, 240]) * np.timedelta64(1, "h")
    assert panels.lead_labels(day, hours, Step(6 * 3600.0)) == ["+6 h", "+72 h", "+10 d"]
    assert panels.lead_labels(0.5, np.array([0.54, 0.9]), Step(0.04)) == ["+0.04 s", "+0.40 s"]
    months = np.array(["2020-02-01", "2020-03-01"], dtype="datetime64[ns]")
    assert panels.lead_labels(np.datetime64("2020-01-01", "ns"), months, Step(1, "month")) == ["+1 month", "+2 months"]


def test_degrees_read_as_on_maps():
    assert [panels.degrees(v, "x") for v in (200, 20, 360, 180)] == ["160°W", "20°E", "0°", "180°"]
    assert [panels.degrees(v, "y") for v in (-30, 0, 2.5)] == ["30°S", "0°", "2.5°N"]


def test_rmse_leaves_missing_cells_out():
    """Errors 3 and 4 have a mean square of 12.5."""
    assert pictures.rmse(np.array([3.0, 4.0, np.nan]), np.zeros(3)) == pytest.approx(np.sqrt(12.5))


def test_strong_gaussians_are_opaque_and_weak_ones_still_visible():
    """The 95 % quantile of 0, 1, ..., 100 is 95, so half of that has opacity 0.5."""
    seen = pictures.opacity(-np.arange(101.0))
    assert seen[[0, 95, 100]] == pytest.approx([0.08, 1, 1])
    assert seen[50] == pytest.approx(50 / 95)


def log_of(path, finished: bool = True):
    lines = [
        {"event": "step", "step": s, "seconds": s / 2, "loss": 1 / s, "l1": 0.1, "ssim": 0.1, "lr": 1e-3}
        for s in range(1, 60)
    ]
    lines += [{"event": "validation", "step": s, "seconds": s / 2, "loss": 0.5 / s} for s in (20, 40, 59)]
    lines += [{"event": "finished", "step": 59, "seconds": 30.0}] * finished
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_curves_are_drawn(tmp_path):
    pictures.curves(tmp_path / "curves.png", log_of(tmp_path / "metrics.jsonl"))
    assert np.asarray(Image.open(tmp_path / "curves.png").convert("L")).std() > 10
    assert (tmp_path / "curves.png").stat().st_size > 20_000


@pytest.mark.parametrize("text", ["", '{"event": "step", "step": 1, "loss": 0.5, "lr": 0.1}\n{"event": "st'])
def test_curves_of_a_run_just_begun_are_drawn_too(tmp_path, text):
    (tmp_path / "metrics.jsonl").write_text(text)
    pictures.curves(tmp_path / "curves.png", tmp_path / "metrics.jsonl")
    assert (tmp_path / "curves.png").stat().st_size > 5_000


def test_the_log_tells_how_the_run_went(tmp_path):
    story = charts._story(charts.read_log(log_of(tmp_path / "a.jsonl", finished=False)))
    assert story == "59 steps in 30 s; best validation loss 0.008475 at step 59; not finished"


def test_smoothing_keeps_a_constant_up_to_both_ends_and_calms_noise():
    assert charts.smoothed(np.full(50, 2.0), 4.0) == pytest.approx(np.full(50, 2.0))
    noise = np.random.default_rng(0).normal(size=2000)
    # The mean over a Gaussian window of 1 σ = w has a standard deviation of (2 √π w)^-1/2.
    assert charts.smoothed(noise, 5.0).std() == pytest.approx((2 * np.sqrt(np.pi) * 5) ** -0.5, rel=0.2)


def test_labels_are_moved_apart_as_little_as_needed():
    """1.0 and 1.2 need 1 between them: 0.6 and 1.6; 5 stays. Three at 0 go to -1, 0 and 1."""
    assert charts.spread([1.2, 5.0, 1.0], 1.0) == pytest.approx([1.6, 5.0, 0.6])
    assert charts.spread([0.0, 0.0, 0.0], 1.0) == pytest.approx([-1, 0, 1])


def test_long_leads_are_counted_in_days():
    values, unit = charts.lead_axis([24, 240], "hours")
    assert (values.tolist(), unit) == ([1.0, 10.0], "days")
    assert charts.lead_axis([6, 72], "hours")[1] == "hours"
    assert [charts.hour_ticks(h) for h in (4, 24, 72)] == [1, 3, 12]


def evaluated(bands: bool = False, metric: str = "rmse", **rows_of: dict) -> Document:
    """A document of three forecasters and three leads, whose errors are a multiple of the lead."""
    lead = [6, 12, 18]
    rows = {}
    for name, scale in (("pdr", 0.1), ("persistence", 0.2), ("climatology", 0.15)):
        entry = {"overall": scale, "lead": [scale * n for n in lead]}
        if bands:
            entry |= {"low": [v - 0.3 for v in entry["lead"]], "high": [v + 0.3 for v in entry["lead"]]}
        rows[name] = {metric: entry}
    return typed(document(lead=lead, metrics=[metric], scores=rows | rows_of, skill={}))


def tinted(path, color: str, opacity: float = 1.0) -> int:
    """How many pixels have a colour, laid over white."""
    image = np.asarray(Image.open(path).convert("RGB"), dtype=float)
    wanted = [opacity * int(color[i : i + 2], 16) + (1 - opacity) * 255 for i in (1, 3, 5)]
    return int((np.abs(image - wanted).max(axis=-1) <= 2).sum())


def test_skill_is_drawn_with_each_line_in_its_own_colour(tmp_path):
    pictures.skill(tmp_path / "all.png", evaluated())
    for color in (charts.MODELS[0], *charts.REFERENCES[:2]):
        assert tinted(tmp_path / "all.png", color) > 200


def test_intervals_are_bands_where_the_document_has_them(tmp_path):
    for name, bands in (("with", True), ("without", False)):
        pictures.skill(tmp_path / f"{name}.png", evaluated(bands))
    assert tinted(tmp_path / "with.png", charts.MODELS[0], charts.BAND) > 2000
    assert tinted(tmp_path / "without.png", charts.MODELS[0], charts.BAND) < 50


@pytest.mark.parametrize(("metric", "from_zero"), [("rmse", True), ("ssim", False), ("psnr", False), ("bias", False)])
def test_only_errors_are_drawn_from_zero(metric, from_zero):
    """Leads 6 to 18 times 0.1 to 0.2 are 0.6 to 3.6: an axis that fits just them begins above 0 (bias: includes it)."""
    from matplotlib.figure import Figure

    axes = Figure().add_subplot()
    charts.score_lines(axes, evaluated(metric=metric), metric)
    low, high = axes.get_ylim()
    assert (low == 0) == from_zero
    assert high > 3.6


def test_missing_and_infinite_scores_are_gaps(tmp_path):
    assert charts.numbers([1.0, None, float("inf")])[0] == 1
    assert np.isnan(charts.numbers([None, float("inf"), float("nan")])).all()
    gaps = {"overall": None, "lead": [None, 1.0, float("inf")]}
    pictures.skill(tmp_path / "gaps.png", evaluated(pdr={"rmse": gaps}))
    assert tinted(tmp_path / "gaps.png", charts.REFERENCES[0]) > 200


def test_a_baseline_is_quiet_whatever_it_is_called_and_a_file_is_not():
    kinds = {"a": "model", "trend": "baseline", "b": "file"}
    looks = charts.looks(typed(document(kinds=kinds, scores={name: {} for name in kinds}, skill={})))
    assert looks["trend"]["color"] in charts.REFERENCES
    assert [looks["a"]["color"], looks["b"]["color"]] == list(charts.MODELS[:2])


def test_units_follow_the_document():
    made = typed(document(metric_units={"acc": "1", "rmse": "degC"}))
    assert [made.units_of(key) for key in ("rmse", "rmse:t2m", "acc", "psnr")] == ["degC", "degC", "", ""]
    assert charts.with_units("RMSE", "K") == "RMSE [K]"
    assert charts.with_units("SSIM", "1") == "SSIM"


def test_a_picture_that_cannot_be_written_is_refused(tmp_path):
    past, predicted, _ = windows("video")
    with pytest.raises(OutputError, match="mkdir"):
        pictures.forecast(tmp_path / "none" / "a.png", past, predicted)


def test_importing_pictures_does_not_import_matplotlib():
    code = "import sys, pdr_cli.drawing.pictures; print('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("RMSE [K]", ["RMSE [K]"]),
        ("eastward_current_velocity [m s-1]", ["eastward current", "velocity [m\u00a0s-1]"]),
    ],
)
def test_names_are_broken_at_their_words_and_units_are_not(text: str, lines: list[str]) -> None:
    # 1.3 inches hold 1.3 / (0.55 * 9 / 72) = 18 letters of 9 points.
    assert panels.fitted(text, 1.3, 9).split("\n") == lines
