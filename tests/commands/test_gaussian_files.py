"""Files of Gaussians: where they lie, that they draw the layer again, and what `verify` and `inspect` say of them."""

import json
from pathlib import Path

import netCDF4
import numpy as np
import pytest
import xarray as xr

import pdr_cli
from pdr_cli import splat
from tests.cli import pdr
from tests.data.formats.test_cf import findings


def layer_of(run: Path, frames: np.ndarray) -> np.ndarray:
    """The Gaussian layer after frames [T, C, H, W], in data units: [τ, C, H, W]."""
    model = pdr_cli.load(run).loaded
    layer = model.run(frames[None]).layer
    assert layer is not None
    return np.asarray(layer[0] * np.array(model.card.scaling.scale)[:, None, None])


def test_gaussians_redraw_the_layer_they_came_from(weather: Path, plain_run: Path, tmp_path: Path) -> None:
    """In degrees and kelvin, to 1e-5 of the layer's largest value: centres are kept in double precision."""
    assert pdr("export", "-m", plain_run, "--input", weather, "-o", "gaussians.nc").code == 0
    with xr.open_dataset(tmp_path / "gaussians.nc") as made, xr.open_dataset(weather) as data:
        assert dict(made.sizes) == {"gaussian": 9, "time": 4, "lat": 13, "lon": 15}
        found = {name: made[name].attrs["units"] for name in ("centre_y", "centre_x", "sigma_1", "amplitude_t2m")}
        assert list(found.values()) == ["degrees_north", "degrees_east", "degrees", "K"]
        layer = layer_of(plain_run, data.t2m.values[-4:, None])
        drawn = splat.render_dataset(made).numpy()
    assert np.abs(drawn - layer).max() < 1e-5 * np.abs(layer).max()
    assert findings(tmp_path / "gaussians.nc") == ""


def test_what_the_file_says_of_a_gaussian_is_what_is_drawn(weather: Path, plain_run: Path, tmp_path: Path) -> None:
    """exp(-q/2) in degrees, by the words of the attribute `rendering`, at every second place of a grid twice as fine."""
    assert pdr("export", "-m", plain_run, "--input", weather, "-o", "gaussians.nc").code == 0
    with xr.open_dataset(tmp_path / "gaussians.nc") as made:
        drawn = splat.render_dataset(made, size=(25, 29)).numpy()[:, 0]
        g = made.transpose("time", "gaussian", ...)
        east = made.lon.values[None, None, None, :] - g.centre_x.values[..., None, None]
        north = made.lat.values[None, None, :, None] - g.centre_y.values[..., None, None]
        cos, sin = (f(g.rotation.values)[..., None, None] for f in (np.cos, np.sin))
        along = (cos * east + sin * north) / g.sigma_1.values[..., None, None]
        across = (cos * north - sin * east) / g.sigma_2.values[..., None, None]
        values = g.amplitude_t2m.values[..., None, None] * np.exp(-(along**2 + across**2) / 2)
    assert np.abs(drawn[:, ::2, ::2] - values.sum(axis=1)).max() < 1e-5 * np.abs(drawn).max()


def test_gaussians_lie_at_the_same_places_however_the_input_is_arranged(
    weather: Path, plain_run: Path, tmp_path: Path
) -> None:
    with xr.open_dataset(weather) as data:
        turned = data.isel(lat=slice(None, None, -1)).assign_coords(lon=data.lon - 360)
        turned["lon"].attrs = data.lon.attrs
        turned.to_netcdf("turned.nc")
    for name, source in (("a.nc", weather), ("b.nc", "turned.nc")):
        assert pdr("export", "-m", plain_run, "--input", source, "-o", name).code == 0
    with xr.open_dataset("a.nc") as one, xr.open_dataset("b.nc") as other:
        xr.testing.assert_equal(one, other)


def test_gaussians_of_a_grid_without_coordinates_are_in_cells(traffic: Path, traffic_run: Path, tmp_path: Path) -> None:
    """Both flows have amplitudes of their own."""
    assert pdr("export", "-m", traffic_run, "--input", traffic, "-o", "gaussians.nc").code == 0
    with xr.open_dataset(tmp_path / "gaussians.nc") as made:
        assert {made[n].attrs["units"] for n in ("centre_x", "centre_y", "sigma_1", "sigma_2")} == {"1"}
        assert {"amplitude_inflow", "amplitude_outflow"} < set(made.data_vars)
        assert splat.render_dataset(made).shape[1:] == (2, 8, 8)
    assert findings(tmp_path / "gaussians.nc") == ""


def test_gaussians_that_read_back_differently_are_refused(
    weather: Path, weather_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = xr.Dataset.to_netcdf

    def wrong(data: xr.Dataset, *arguments: object, **options: object) -> None:
        right(data.assign(rotation=data.rotation + 1), *arguments, **options)

    monkeypatch.setattr(xr.Dataset, "to_netcdf", wrong)
    result = pdr("export", "-m", weather_run, "--input", weather, "-o", "gaussians.nc")
    assert (result.code, "E_IO" in result.last, "rotation reads back differently" in result.last) == (74, True, True)
    assert list(Path().iterdir()) == []


@pytest.fixture
def kept(weather: Path, plain_run: Path) -> Path:
    """A file of Gaussians."""
    assert pdr("export", "-m", plain_run, "--input", weather, "-o", "gaussians.nc").code == 0
    return Path("gaussians.nc")


def test_a_file_of_gaussians_is_verified_and_inspected(kept: Path) -> None:
    done = pdr("verify", kept)
    assert done.code == 0, done.err
    assert "those that were written (SHA-256)" in done.out
    assert "9 Gaussians, all finite, with sizes above 0" in done.out
    found = json.loads(pdr("inspect", kept, "--json").out)
    assert (found["gaussians"], found["grid"]) == (9, "13 x 15")
    assert found["times"].startswith("4, 2020-02-10 00:00 to ")
    with xr.open_dataset(kept) as data:
        low, high = data.sigma_1.values.min(), data.sigma_1.values.max()
    assert found["numbers"]["sigma_1"] == f"{low:.4g} to {high:.4g} degrees"


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("centre_x", 201.5, "the numbers differ from the SHA-256"),
        ("time", 3, "the numbers differ from the SHA-256"),
        ("rotation", np.nan, "1 values of rotation are not finite"),
        ("sigma_2", 0, "1 values of sigma_2 are not positive"),
    ],
)
def test_altered_gaussians_are_a_problem(kept: Path, name: str, value: float, said: str) -> None:
    with netCDF4.Dataset(kept, "a") as file:
        file[name][(0,) * file[name].ndim] = value
    done = pdr("verify", kept)
    assert done.code == 65
    assert said in done.out


def test_gaussians_of_an_earlier_version_have_no_hash_and_damaged_ones_are_no_gaussians(kept: Path) -> None:
    with netCDF4.Dataset(kept, "a") as file:
        del file.pdr_data_sha256
    done = pdr("verify", kept)
    assert (done.code, "holds no hash" in done.out) == (0, True)
    kept.write_bytes(kept.read_bytes()[: kept.stat().st_size // 2])
    assert pdr("verify", kept).code == 65
