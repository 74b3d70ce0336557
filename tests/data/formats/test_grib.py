"""GRIB 1 and 2 in: levels, members, times and grids of files that the tests make with ecCodes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from pdr_cli.data import formats
from pdr_cli.data.formats import ReadOptions, grib
from pdr_cli.data.series import names
from pdr_cli.errors import DataError
from tests.builders import weather_file
from tests.cli import pdr

ec = pytest.importorskip("eccodes")

LATITUDES, LONGITUDES = np.array([60.0, 55.0, 50.0]), np.array([10.0, 20.0, 30.0, 40.0])
# Fields are integers below 2^12, which 24 bits hold exactly.
FIELD = np.arange(12.0).reshape(3, 4)


def message(
    field: np.ndarray = FIELD,
    name: str = "t",
    levels: tuple[str, float] = ("isobaricInhPa", 850),
    *,
    edition: int = 2,
    date: str = "2020-01-01T00",
    step: int = 0,
    number: int | None = None,
    scan: Sequence[str] = (),
    shift: float = 0,
    **keys: Any,
) -> bytes:
    """One GRIB message; `field` is [3, 4] from north to south and from west to east, whatever the scanning mode."""
    handle = ec.codes_grib_new_from_samples(f"regular_ll_pl_grib{edition}")
    if number is not None and edition == 2:
        ec.codes_set(handle, "productDefinitionTemplateNumber", 1)
    north, west = "jScansPositively" not in scan, "iScansNegatively" not in scan
    latitudes, longitudes = LATITUDES[:: 1 if north else -1], LONGITUDES[:: 1 if west else -1] + shift
    about = {
        "Ni": 4, "Nj": 3, **dict.fromkeys(scan, 1),
        "latitudeOfFirstGridPointInDegrees": latitudes[0], "latitudeOfLastGridPointInDegrees": latitudes[-1],
        "longitudeOfFirstGridPointInDegrees": longitudes[0], "longitudeOfLastGridPointInDegrees": longitudes[-1],
        "iDirectionIncrementInDegrees": 10, "jDirectionIncrementInDegrees": 5,
        "dataDate": int(date[:10].replace("-", "")), "dataTime": int(date[11:13]) * 100,
        "shortName": name, "typeOfLevel": levels[0], "level": levels[1], "step": step,
        **({} if number is None else {"number": number}), **keys,
        "missingValue": 1e34, "bitmapPresent": 1, "bitsPerValue": 24,
    }  # fmt: skip
    for key, value in about.items():
        ec.codes_set(handle, key, value)
    stored = np.nan_to_num(field[:: 1 if north else -1, :: 1 if west else -1], nan=1e34).copy()
    if "alternativeRowScanning" in scan:
        stored[1::2] = stored[1::2, ::-1].copy()
    ec.codes_set_values(handle, (stored.T if "jPointsAreConsecutive" in scan else stored).ravel())
    made = ec.codes_get_message(handle)
    ec.codes_release(handle)
    return bytes(made)


def written(path: Path, *messages: bytes) -> Path:
    path.write_bytes(b"".join(messages))
    return path


def opened(path: Path) -> xr.Dataset:
    return grib.GRIB().open_dataset(path)


def hours(*count: int, start: str = "2020-01-01T00") -> np.ndarray:
    return np.datetime64(start, "ns") + np.array(count) * np.timedelta64(1, "h")


def dated(count: int, start: str = "2020-01-01T00") -> str:
    """The time so many hours after the start, as `message` takes it."""
    return str(hours(count, start=start)[0])[:13]


@pytest.mark.parametrize("edition", [1, 2])
def test_analyses_are_a_series_of_valid_times(tmp_path: Path, edition: int) -> None:
    frames = [message(FIELD + n, "2t", ("heightAboveGround", 2), edition=edition, date=dated(6 * n)) for n in (1, 0, 2)]
    path = written(tmp_path / "a.grib", *frames)
    assert formats.detect(path) == "grib"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.grib"], "no index is left beside it"
    (series,) = formats.open_series([path])
    assert names(series) == ["t2m"]
    assert np.array_equal(series.time.values, hours(0, 6, 12))
    assert np.array_equal(series.values[:, 0], np.stack([FIELD, FIELD + 1, FIELD + 2]))
    assert np.array_equal(series.latitude, LATITUDES)
    assert np.array_equal(series.longitude, LONGITUDES)
    attrs = series.attrs["variables"]["t2m"]
    assert (attrs["units"], attrs["GRIB_paramId"], attrs["GRIB_stepType"]) == ("K", 167, "instant")
    assert {key for key in attrs if key.startswith("GRIB_")} == {"GRIB_paramId", "GRIB_stepType"}


def test_editions_are_mixed_in_one_file(tmp_path: Path) -> None:
    made = (message(FIELD + n, edition=1 + n % 2, date=dated(n)) for n in range(4))
    dataset = opened(written(tmp_path / "a.grib", *made))
    assert np.array_equal(dataset.t.values[:, 0], np.stack([FIELD + n for n in range(4)]))
    assert dataset.t.attrs["standard_name"] == "air_temperature", "GRIB 2 says it, GRIB 1 not"


def test_levels_are_a_dimension_and_pressures_in_pascal_join_them(tmp_path: Path) -> None:
    levels = [("isobaricInhPa", 500), ("isobaricInhPa", 850), ("isobaricInPa", 50)]
    made = [message(FIELD + 100 * n, levels=level, date=dated(h)) for n, level in enumerate(levels) for h in (0, 1)]
    path = written(tmp_path / "a.grib", *made)
    dataset = opened(path)
    assert dataset.t.dims == ("time", "isobaricInhPa", "latitude", "longitude")
    assert dataset.isobaricInhPa.values.tolist() == [850, 500, 0.5]
    assert dataset.isobaricInhPa.attrs["units"] == "hPa"
    (series,) = formats.open_series([path], ReadOptions(["t@500"]))
    assert np.array_equal(series.values[1, 0], FIELD)
    assert series.dtype == np.float32


def test_each_variable_has_its_own_levels(tmp_path: Path) -> None:
    heights = {"2t": 2, "10u": 10}
    made = [message(name=name, levels=("heightAboveGround", height)) for name, height in heights.items()]
    dataset = opened(written(tmp_path / "a.grib", *made, message(name="sp", levels=("surface", 0))))
    found = {
        str(n): [dataset[d].values.tolist() for d in v.dims if "Ground" in d] for n, v in dataset.data_vars.items()
    }
    assert found == {"t2m": [[2]], "u10": [[10]], "sp": []}
    assert dataset.heightAboveGround.attrs["standard_name"] == "height"


def test_names_that_clash_get_the_type_of_their_levels(tmp_path: Path) -> None:
    made = [message(FIELD + 1), message(FIELD + 2, levels=("surface", 0)), message(FIELD + 3, levels=("hybrid", 1))]
    path = written(tmp_path / "a.grib", *made)
    dataset = opened(path)
    assert {n: float(v.min()) for n, v in dataset.data_vars.items()} == {"t": 1, "t_surface": 2, "t_hybrid": 3}
    result = pdr("inspect", path)
    assert "t of" in result.err
    assert "t (isobaricInhPa, instant), t_surface (surface, instant), t_hybrid (hybrid, instant)" in result.err
    assert "t_surface" in result.out


def test_means_and_sums_get_the_type_of_their_step(tmp_path: Path) -> None:
    made = [message(name="sp", levels=("surface", 0), edition=1, step=6)]
    made.append(message(FIELD + 1, "sp", ("surface", 0), edition=1, stepType="avg", stepRange="0-6"))
    dataset = opened(written(tmp_path / "a.grib", *made))
    assert {n: (v.attrs["GRIB_stepType"], float(v.min())) for n, v in dataset.data_vars.items()} == {
        "sp": ("instant", 0),
        "sp_avg": ("avg", 1),
    }
    assert dataset.valid_time.values.ravel().tolist() == hours(6).tolist(), "of a mean, the end of its interval"


def test_forecasts_have_reference_lead_and_valid_times(tmp_path: Path) -> None:
    """Init every 12 h, leads of 6 and 12 h."""
    made = [message(FIELD + i + s, date=dated(i), step=s) for i in (0, 12, 24) for s in (6, 12)]
    dataset = opened(written(tmp_path / "a.grib", *made)).squeeze("isobaricInhPa")
    assert dataset.t.dims == ("time", "step", "latitude", "longitude")
    assert dataset.time.attrs["standard_name"] == "forecast_reference_time"
    assert (dataset.step.attrs["standard_name"], dataset.step.values.tolist()) == ("forecast_period", [6, 12])
    assert dataset.valid_time.attrs["standard_name"] == "time"
    assert np.array_equal(dataset.valid_time, np.array([hours(i + 6, i + 12) for i in (0, 12, 24)]))
    assert np.array_equal(dataset.t.values[:, :, 0, 0], [[i + s for s in (6, 12)] for i in (0, 12, 24)])


@pytest.mark.parametrize(("inits", "steps", "dims"), [((0, 12), (6,), ("time",)), ((12,), (6, 12), ("step",))])
def test_one_lead_time_or_one_init_is_a_scalar(
    tmp_path: Path, inits: Sequence[int], steps: Sequence[int], dims: Sequence[str]
) -> None:
    made = [message(date=dated(i), step=s) for i in inits for s in steps]
    dataset = opened(written(tmp_path / "a.grib", *made))
    assert dataset.valid_time.dims == dims
    assert dataset.valid_time.values.tolist() == hours(*(i + s for i in inits for s in steps)).tolist()


def test_leads_that_only_follow_each_other_are_one_time_axis(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Analyses at 0 and 12 h, and forecasts of 6 h from the first and of 3 h from the second."""
    made = [message(FIELD + i + s, date=dated(i), step=s) for i, s in ((0, 0), (0, 6), (12, 0), (12, 3))]
    dataset = opened(written(tmp_path / "a.grib", *made))
    assert np.array_equal(dataset.time, hours(0, 6, 12, 15))
    assert dataset.time.attrs["standard_name"] == "time"
    assert dataset.t.values[:, 0, 0, 0].tolist() == [0, 6, 12, 15]


def test_variables_of_different_times_keep_their_own(tmp_path: Path) -> None:
    """As ERA5: t2m every hour, precipitation as forecasts of 1 and 2 h."""
    made = [message(name="2t", levels=("heightAboveGround", 2), date=dated(h)) for h in range(3)]
    made += [message(name="tp", levels=("surface", 0), step=s) for s in (1, 2)]
    dataset = opened(written(tmp_path / "a.grib", *made))
    assert np.array_equal(dataset[dataset.t2m.dims[0]], hours(0, 1, 2))
    (valid,) = (v for n, v in dataset.coords.items() if str(n).startswith("valid_time"))
    assert valid.dims == dataset.tp.dims[:2]
    assert np.array_equal(valid.values.ravel(), hours(1, 2))


def test_members_are_a_dimension_with_the_control_among_them(tmp_path: Path) -> None:
    made = [message(FIELD + n, number=n, date=dated(h)) for n in (0, 1, 2) for h in (0, 6)]
    dataset = opened(written(tmp_path / "a.grib", *made))
    assert dataset.t.dims[0] == "number"
    assert dataset.t.values[:, 1, 0, 0, 0].tolist() == [0, 1, 2]
    alone = opened(written(tmp_path / "b.grib", message(number=3)))
    assert "number" not in alone.variables


def test_fields_that_are_not_in_the_file_are_missing_and_counted(tmp_path: Path) -> None:
    made = [message(FIELD, levels=("isobaricInhPa", p), date=dated(h)) for p, h in ((850, 0), (500, 0), (850, 6))]
    path = written(tmp_path / "a.grib", *made)
    values = opened(path).t.values
    assert np.isnan(values[1, 1]).all()
    assert np.isfinite(np.delete(values.reshape(4, -1), 3, axis=0)).all()
    assert "1 of 4 fields of t are not in the file; they are missing values" in pdr("inspect", path).err


def test_values_behind_a_bitmap_are_missing(tmp_path: Path) -> None:
    field = FIELD.copy()
    field[1, 2] = np.nan
    values = opened(written(tmp_path / "a.grib", message(field))).t.values
    assert np.array_equal(values.squeeze(), field.astype(np.float32), equal_nan=True)


MODES = ("iScansNegatively", "jScansPositively", "jPointsAreConsecutive", "alternativeRowScanning")


@pytest.mark.parametrize("scan", [MODES[:1], MODES[1:2], MODES[2:3], MODES[3:], MODES[:2], MODES[:3]], ids="+".join)
def test_numbers_lie_at_their_coordinates_in_every_scanning_mode(tmp_path: Path, scan: Sequence[str]) -> None:
    dataset = opened(written(tmp_path / "a.grib", message(scan=scan))).squeeze()
    for row, latitude in enumerate(LATITUDES):
        for column, longitude in enumerate(LONGITUDES):
            assert float(dataset.t.sel(latitude=latitude, longitude=longitude)) == FIELD[row, column]


def test_grids_that_differ_are_not_mixed(tmp_path: Path) -> None:
    dataset = opened(written(tmp_path / "a.grib", message(FIELD), message(FIELD + 1, date=dated(1), shift=5)))
    assert {str(n): v.values.min() for n, v in dataset.data_vars.items()} == {"t": 0, "t_2": 1}
    assert dataset.longitude_2.values.tolist() == (LONGITUDES + 5).tolist()


def test_a_projected_grid_has_latitudes_and_longitudes_of_each_cell(tmp_path: Path) -> None:
    handle = ec.codes_grib_new_from_samples("rotated_ll_sfc_grib2")
    path = written(tmp_path / "a.grib", bytes(ec.codes_get_message(handle)))
    dataset = opened(path)
    assert dataset.latitude.dims == ("y", "x") == dataset.t.dims[-2:]
    assert np.array_equal(dataset.latitude.values.ravel(), ec.codes_get_array(handle, "latitudes"))


def test_a_grid_without_rows_is_named_with_the_conversion(tmp_path: Path) -> None:
    reduced = bytes(ec.codes_get_message(ec.codes_grib_new_from_samples("reduced_gg_sfc_grib2")))
    path = written(tmp_path / "a.grib", reduced)
    with pytest.raises(DataError) as raised:
        opened(path)
    assert f"t: its grid (reduced_gg) has no rows and columns; convert it with: cdo -R -f nc4 copy {path} a.nc" in str(
        raised.value
    )
    assert list(opened(written(path, reduced, message(name="z")))) == ["z"]


def test_repeated_fields_are_kept_once_and_different_ones_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "a.grib", message(), message())
    assert opened(path).t.shape == (1, 1, 3, 4)
    with pytest.raises(DataError, match=r"two different fields of t for 2020-01-01T00:00 .*grib_copy -w dataType"):
        opened(written(path, message(), message(FIELD + 1)))


def test_messages_with_several_fields_are_read(tmp_path: Path) -> None:
    """As NCEP writes them: u and v in one message."""
    multi = ec.codes_grib_multi_new()
    for number, name in enumerate(("u", "v")):
        handle = ec.codes_new_from_message(message(FIELD + number, name))
        ec.codes_grib_multi_append(handle, 4 if number else 0, multi)
    path = tmp_path / "a.grib2"
    with path.open("wb") as stream:
        ec.codes_grib_multi_write(multi, stream)
    path.write_bytes(path.read_bytes() + message(FIELD + 2))
    assert {str(n): float(v.min()) for n, v in opened(path).data_vars.items()} == {"u": 0, "v": 1, "t": 2}


def test_a_header_before_the_first_message_is_skipped(tmp_path: Path) -> None:
    path = written(tmp_path / "a.grb", b"\x01\r\r\n123\r\r\nYTLC85 EGRR 010000\r\r\n", message())
    assert float(opened(path).t.max()) == 11


@pytest.mark.parametrize("cut", [1, 10, 50, 150])
def test_a_truncated_file_is_damaged(tmp_path: Path, cut: int) -> None:
    whole = message() + message(date=dated(6))
    path = written(tmp_path / "a.grib", whole[:-cut])
    result = pdr("inspect", path)
    assert result.code == 65
    assert f"a.grib ({len(whole) - cut} bytes) is damaged, truncated or still being written" in result.last


@pytest.mark.parametrize(("edition", "byte"), [(1, 6), (1, 10), (1, 62), (2, 15), (2, 19), (2, 40)])
@pytest.mark.parametrize("value", [0, 1, 127, 255])
def test_lengths_that_do_not_fit_are_damage_and_never_reach_ecodes(
    tmp_path: Path, edition: int, byte: int, value: int
) -> None:
    """ecCodes reads beyond the memory of such messages, and can die of it."""
    whole = bytearray(message(edition=edition) + message(edition=edition, date=dated(6)))
    whole[byte] = value
    with pytest.raises(DataError, match="is damaged, truncated or still being written"):
        opened(written(tmp_path / "a.grib", bytes(whole)))


def test_without_ecodes_the_extra_and_the_conversion_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "a.grib", message())
    monkeypatch.setitem(sys.modules, "eccodes", None)
    result = pdr("inspect", path)
    assert result.code == 65
    assert "a.grib is GRIB, which is read with ecCodes, and that is not installed" in result.last
    assert f"pip install 'pdr-cli[grib]', or convert the file with: cdo -f nc4 copy {path} a.nc" in result.last


def test_grib_beside_other_files_is_left_out_of_a_folder(tmp_path: Path) -> None:
    made = written(tmp_path / "a.grib", message())
    assert formats.find_inputs([tmp_path]) == [made]
    path = weather_file(tmp_path / "b.nc", 160)
    assert formats.find_inputs([tmp_path]) == [path]
    assert f"1 of 2 files in {tmp_path}: a.grib is left out" in pdr("inspect", tmp_path).err


def test_a_model_is_trained_on_grib_and_forecasts_from_it(tmp_path: Path) -> None:
    fields = 280 + np.sin(np.arange(80)[:, None, None] + np.arange(12).reshape(3, 4))
    made = [message(f, date=dated(6 * n), edition=1 + n % 2) for n, f in enumerate(fields)]
    path, run = written(tmp_path / "a.grib", *made), tmp_path / "run"
    settings = ("--set", "data.in_steps=2", "--set", "data.out_steps=2")
    trained = pdr("train", "--preset", "weather-small", "--data", path, *settings, "--steps", 2, "-o", run)
    assert trained.code == 0, trained.err
    made_forecast = pdr("predict", path, "-m", run, "-o", tmp_path / "fc.nc")
    assert made_forecast.code == 0, made_forecast.err
    with xr.open_dataset(tmp_path / "fc.nc") as forecast:
        assert np.array_equal(forecast.time, hours(480, 486))
        assert [a for a in forecast.t.attrs if a.startswith("GRIB_")] in ([], ["GRIB_paramId", "GRIB_stepType"])
    assert pdr("verify", tmp_path / "fc.nc").code == 0
