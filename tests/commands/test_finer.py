"""`pdr predict --size`, `--scale` and `--points`: interpolation that says so, equal to the forecast at its cells."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import pdr_cli
from pdr_cli.inference.finer import Finer
from pdr_cli.models.pdr import PDR
from tests.builders import field, weather_file
from tests.cli import pdr

BETWEEN = "Gaussian layer by its values at the places, the rest"


@pytest.fixture(scope="module")
def globe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """160 steps on 9 x 16 cells round the globe, from 0 degrees on, of which two are land."""
    values = field(160, 9, 16)
    values[:, 3, 4:6] = np.nan
    path = weather_file(tmp_path_factory.mktemp("globe") / "globe.nc", values=values)
    with xr.load_dataset(path) as data:
        lat, lon = (("lat", np.linspace(80, -80, 9), data.lat.attrs), ("lon", np.arange(16) * 22.5, data.lon.attrs))
        data.assign_coords(lat=lat, lon=lon).to_netcdf(path)
    return path


@pytest.fixture(scope="module")
def globe_run(make_run: Callable[..., Path], globe: Path) -> Path:
    """A run on `globe` whose Gaussians paint."""
    return make_run(globe, "--adapter", "local", "--set", "conv_width=4", "--set", "conv_depth=1")


def predict(source: Path | str, run: Path, output: str, *more: str | Path) -> xr.Dataset:
    """The forecast that a command wrote."""
    result = pdr("predict", source, "-m", run, "-o", output, *more)
    assert result.code == 0, result.err
    with xr.open_dataset(output) as made:
        return made.load()


def listed(*points: tuple[str, float, float]) -> Path:
    lines = ["name,lat,lon", *(f"{name},{lat},{lon}" for name, lat, lon in points)]
    Path("points.csv").write_text("\n".join(lines), encoding="utf-8")
    return Path("points.csv")


def test_a_finer_forecast_is_the_forecast_at_its_cells_and_says_that_it_is_interpolated(
    weather: Path, weather_run: Path
) -> None:
    plain = predict(weather, weather_run, "plain.nc")
    result = pdr("predict", weather, "-m", weather_run, "-o", "fine.nc", "--scale", "3")
    assert f"37 x 43 by interpolation from 13 x 15 cells ({BETWEEN} bilinear)" in result.out
    with xr.open_dataset("fine.nc") as fine:
        assert np.abs(fine.t2m.values[:, ::3, ::3] - plain.t2m.values).max() < 2e-4
        assert (fine.lat.values[0], fine.lat.values[-1], fine.lon.values[-1]) == (60, 30, 235)
        assert "37 x 43 by interpolation" in fine.attrs["title"]
        assert fine.attrs["pdr_interpolation"].startswith("37 x 43 by interpolation")
        bilinear = plain.t2m.interp(lat=fine.lat, lon=fine.lon)
        assert np.abs(fine.t2m.values - bilinear.values).max() > 1e-3, "Gaussians have their own values between cells"
    assert pdr("verify", "fine.nc").code == 0


@pytest.mark.parametrize("method", ["bilinear", "bicubic"])
def test_a_finer_forecast_runs_the_network_once(
    weather: Path, weather_run: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    passes, forward = [], PDR.forward
    monkeypatch.setattr(PDR, "forward", lambda *given: passes.append(given) or forward(*given))
    predict(weather, weather_run, "fine.nc", "--scale", "3", "--interpolate", method)
    assert len(passes) == 1


def test_points_have_the_values_of_a_finer_grid_there(weather: Path, weather_run: Path) -> None:
    fine = predict(weather, weather_run, "fine.nc", "--size", "25x29")
    where = listed(("a", 60, 200), ("b", 58.75, -158.75), ("c", 31.25, 233.75), ("d", 30, -125))
    made = predict(weather, weather_run, "p.nc", "--points", where)
    for n, (row, column) in enumerate([(0, 0), (1, 1), (23, 27), (24, 28)]):
        assert made.t2m.values[n] == pytest.approx(fine.t2m.values[:, row, column], abs=2e-4)
    assert made.attrs["pdr_interpolation"].startswith("4 points by interpolation")
    assert pdr("verify", "p.nc").code == 0
    with xr.load_dataset("p.nc", decode_cf=False) as stored:
        stored["lat"][0] += 1
        stored.to_netcdf("moved.nc")
    assert "coordinates differ" in pdr("verify", "moved.nc").err
    table = pdr("predict", weather, "-m", weather_run, "-o", "p.csv", "--points", where)
    assert (table.code, len(Path("p.csv").read_text(encoding="utf-8").splitlines())) == (0, 1 + 4 * 4)


def test_a_globe_has_no_seam_wherever_its_columns_begin(globe: Path, globe_run: Path) -> None:
    """At points on both sides of 0 and of 180 degrees, and beside land, from inputs that begin at 0 and at -180."""
    with xr.load_dataset(globe) as data:
        turned = data.assign_coords(lon=(data.lon + 180) % 360 - 180).sortby("lon").sortby("lat")
        turned["lon"].attrs = data.lon.attrs
        turned.to_netcdf("turned.nc")
    where = listed(
        ("w", 10, -7.5), ("e", 10, 352.5), ("date", 35, 180), ("line", 35, -172), ("land", 20, 100), ("coast", 20, 85)
    )
    one, other = (
        predict(source, globe_run, f"{n}.nc", "--points", where) for n, source in enumerate((globe, "turned.nc"))
    )
    assert np.allclose(one.t2m.values, other.t2m.values, atol=1e-4, equal_nan=True)
    assert np.array_equal(one.t2m.values[0], one.t2m.values[1]), "one place by two names"
    assert np.isnan(one.t2m.values[4:]).all(), "of places whose cells are land nothing is known"
    assert np.isfinite(one.t2m.values[:4]).all()
    fine = [predict(s, globe_run, f"fine{n}.nc", "--scale", "2") for n, s in enumerate((globe, "turned.nc"))]
    assert fine[0].sizes["lon"] == 32
    again = fine[1].assign_coords(lon=fine[1].lon % 360).sortby("lon").sortby("lat", ascending=False)
    assert np.allclose(fine[0].t2m.values, again.t2m.values, atol=1e-4, equal_nan=True)
    cells = predict(globe, globe_run, "plain.nc").t2m.values
    seam = fine[0].t2m.values[:, ::2, -1]
    assert seam == pytest.approx((cells[..., -1] + cells[..., 0]) / 2, abs=2e-4)


def test_a_globe_that_repeats_its_first_column_ends_with_it(globe: Path, globe_run: Path) -> None:
    with xr.load_dataset(globe) as data:
        first = data.isel(lon=[0]).assign_coords(lon=("lon", [360.0], data.lon.attrs))
        xr.concat([data, first], "lon", data_vars="minimal").to_netcdf("closed.nc")
    fine = predict(globe, globe_run, "f.nc", "--scale", "2").t2m.values
    closed = predict("closed.nc", globe_run, "c.nc", "--scale", "2").t2m.values
    assert closed.shape[-1] == 33
    assert np.allclose(closed[..., :32], fine, atol=1e-4, equal_nan=True)
    assert np.array_equal(closed[..., -1], closed[..., 0], equal_nan=True)


def test_bicubic_is_smoother_and_lets_no_number_of_land_into_the_sea(globe: Path, globe_run: Path) -> None:
    """Land is in columns 4 and 5 of row 3: places of which one of the 4 x 4 cells around is land are bilinear."""
    plain = predict(globe, globe_run, "plain.nc").t2m.values
    fine = predict(globe, globe_run, "c.nc", "--scale", "2", "--interpolate", "bicubic").t2m.values
    bilinear = predict(globe, globe_run, "b.nc", "--scale", "2").t2m.values
    assert np.allclose(fine[:, ::2, ::2], plain, atol=2e-4, equal_nan=True)
    assert np.array_equal(np.isnan(fine), np.isnan(bilinear))
    apart = np.abs(fine - bilinear)
    assert np.nanmax(apart[:, [3, 5, 6, 7, 9]][..., [5, 7, 8, 9, 10, 11, 13]]) == 0
    assert np.nanmin(apart[..., 1::2, 21:28:2].max(axis=0)) > 1e-3


def test_conservative_keeps_the_means_of_what_is_interpolated(globe: Path, globe_run: Path) -> None:
    """Places in the middle of a cell have its value; places at its edge, half-way to a neighbour, have one of both."""
    pytest.importorskip("xarray_regrid")
    plain = predict(globe, globe_run, "plain.nc")
    fine = predict(globe, globe_run, "fine.nc", "--scale", "3", "--interpolate", "conservative")
    assert np.allclose(fine.t2m.values[:, ::3, ::3], plain.t2m.values, atol=1e-3, equal_nan=True)
    bilinear = predict(globe, globe_run, "bilinear.nc", "--scale", "3")
    assert float(np.abs(fine.t2m - bilinear.t2m).max()) > 0.1


def test_skip_existing_knows_the_places(weather: Path, weather_run: Path) -> None:
    ask = ["predict", weather, "-m", weather_run, "--skip-existing", "-o"]
    for output, places, others in (
        ("s.nc", ["--scale", "2"], ["--scale", "3"]),
        ("z.nc", ["--size", "20x20"], ["--size", "20x21"]),
        ("p.nc", ["--points", listed(("a", 50, 210))], ["--points", "other.csv"]),
    ):
        Path("other.csv").write_text("name,lat,lon\na,50,211\n", encoding="utf-8")
        assert pdr(*ask, output, *places).code == 0
        assert "up to date" in pdr(*ask, output, *places).out
        assert "up to date" not in pdr(*ask, output, *others).out


def test_clips_become_larger_clips(clip: Path, video_run: Path) -> None:
    result = pdr("predict", clip, "-m", video_run, "-o", "c.mp4", "--scale", "2")
    assert (result.code, "63 x 63 by interpolation" in result.out) == (0, True), result.err
    assert pdr("verify", "c.mp4").code == 0


def test_python_gives_the_same_numbers(weather: Path, weather_run: Path) -> None:
    model = pdr_cli.load(weather_run)
    for output, finer, options in (
        ("s.nc", Finer(scale=2), ["--scale", "2"]),
        ("p.nc", Finer(points=listed(("a", 50, 210))), ["--points", "points.csv"]),
    ):
        xr.testing.assert_equal(model.predict(weather, finer=finer), predict(weather, weather_run, output, *options))


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--scale", "2", "--size", "9x9"], 2, "--size and --scale are different places"),
        (["--size", "9"], 2, "rows x columns"),
        (["--interpolate", "conservative"], 2, "how --size, --scale and --points interpolate"),
        (["--scale", "2", "--interpolate", "cubic"], 2, "--interpolate cubic is not known"),
        (["--points", "points.csv", "--interpolate", "conservative"], 2, "points have none"),
        (["--scale", "2", "--members", "3"], 2, "--scale is for the direct forecast of one model"),
        (["--scale", "2", "--interval", "0.8"], 2, "without --interval"),
        (["--scale", "2", "--every-init"], 2, "without --every-init"),
        (["--scale", "2", "--every", "0.5"], 2, "without --every"),
        (["--points", "points.csv", "--preview", "p.png"], 2, "without --preview"),
        (["--scale", "2", "-o", "f.gif"], 2, "is a drawing"),
        (["--points", "points.csv", "-o", "f.zarr"], 2, "--points writes .nc or .csv"),
        (["--points", "nowhere.csv"], 66, "no file nowhere.csv"),
        (["--points", "points.csv"], 65, "points.csv: a point lies outside of the grid: Oslo (59.9, 10.7); expected lat 30"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line_with_their_code(
    weather: Path, weather_run: Path, arguments: list[str], code: int, says: str
) -> None:
    listed(("Oslo", 59.9, 10.7))
    result = pdr("predict", weather, "-m", weather_run, *([] if "-o" in arguments else ["-o", "f.nc"]), *arguments)
    assert (result.code, result.out, says in result.last) == (code, "", True), result.err
    assert not Path("f.nc").exists()


@pytest.mark.slow
def test_the_measurement_of_the_docs_runs() -> None:
    """On 240 steps, of which the model sees 192."""
    data = weather_file(Path("air.nc"), 240, size=(13, 15))
    script = Path(__file__).parents[2] / "docs" / "finer.py"
    options = ["-o", "measured", "--preset", "demo", "--inits", "2", "--set", "steps=2", "--set", "model.conv_width=4"]
    done = subprocess.run([sys.executable, script, data, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "7 x 8 to 13 x 15, 2 forecasts" in done.stdout
    assert "--scale, bicubic" in done.stdout
