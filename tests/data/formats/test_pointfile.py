"""Lists of points, and forecasts at them."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from pdr_cli.data.formats import pointfile
from pdr_cli.data.series import Series
from pdr_cli.data.spots import STATIONS, Points
from pdr_cli.errors import DataError, InputNotFoundError, UsageError
from tests.data.formats.test_cf import ABOUT, findings, forecast

LISTED = Points(("Tromsø", "Oslo, Blindern"), (69.65, 59.94), (18.96, 10.72), ("lat", "lon"), Path("stations.csv"))


def at_points(calendar: str = "standard", grid: str = "latlon", columns: tuple[str, str] = ("lat", "lon")) -> Series:
    """A forecast of 3 steps at both points; the second has no value at the last step."""
    made = forecast(calendar, grid=grid).isel(y=[0], x=[0, 1]).drop_vars(["lat", "lon", "y", "x"], errors="ignore")
    made.values[-1, ..., 1] = np.nan
    points = Points(LISTED.names, LISTED.y, LISTED.x, columns, LISTED.file)
    return made.assign_attrs({STATIONS: points, "scalars": made.attrs["scalars"]})


def listed(text: str) -> Path:
    Path("stations.csv").write_text(text, encoding="utf-8")
    return Path("stations.csv")


def test_a_list_is_read_as_spreadsheets_write_it() -> None:
    """With a mark of UTF-8, capital letters, further columns, quotes, blanks and an empty line."""
    text = '\ufeffNAME,height,Lon, lat\nTromsø,8,18.96,69.65\n\n"Oslo, Blindern",94, 10.72,59.94\n'
    assert pointfile.read(listed(text)) == LISTED
    assert pointfile.read(listed("name,y,x\na,1,2.5\n")) == Points(("a",), (1,), (2.5,), ("y", "x"), LISTED.file)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "has the columns nothing"),
        ("name;lat;lon\na;1;2\n", "has the columns name;lat;lon; expected name, lat, lon"),
        ("name,lat\na,1\n", "has the columns name, lat"),
        ("name,lat,lon\n", "lists no points"),
        ("name,lat,lon\na,1,2\nb,1\n", "line 3: b,1; expected a name and two numbers"),
        ("name,lat,lon\na,one,2\n", "line 2: a,one,2"),
        ("name,lat,lon\na,nan,2\n", "line 2: a,nan,2"),
        ("name,lat,lon\n,1,2\n", "line 2: ,1,2"),
        ("name,lat,lon\na,1,2\na,3,4\n", "lists a twice"),
        # Decimal commas: the place would be 52 N, 5 E.
        ("name,lat,lon\nBerlin,52,5,13,4\n", "line 2: Berlin,52,5,13,4 has 5 values; expected 3"),
        ("name,lat,lon\nDenver, CO,39,-105\n", "has 4 values; expected 3, as there are columns; quote"),
        ("name,lat,lat,lon\na,1,2,3\n", "several columns lat"),
    ],
)
def test_a_list_that_is_none_is_refused_by_its_line(text: str, says: str) -> None:
    with pytest.raises(DataError) as error:
        pointfile.read(listed(text))
    assert says in str(error.value)


def test_empty_cells_behind_the_columns_are_no_values() -> None:
    assert pointfile.read(listed("name,lat,lon\na,1,2,,\n")).y == (1.0,)


def test_a_list_that_is_no_text_or_not_there_is_refused() -> None:
    Path("stations.csv").write_bytes(b"name,lat,lon\n\xff\xfe,1,2\n")
    with pytest.raises(DataError, match="not a CSV file"):
        pointfile.read(Path("stations.csv"))
    with pytest.raises(InputNotFoundError, match=r"no file nowhere\.csv"):
        pointfile.read(Path("nowhere.csv"))


@pytest.mark.parametrize(
    ("calendar", "grid", "columns"),
    [("standard", "latlon", ("lat", "lon")), ("360_day", "latlon", ("lat", "lon")), ("standard", "none", ("y", "x"))],
)
def test_time_series_of_stations_pass_the_strict_checks(calendar: str, grid: str, columns: tuple[str, str]) -> None:
    series = at_points(calendar, grid, columns)
    pointfile.write(series, Path("p.nc"), ABOUT, 4)
    assert findings(Path("p.nc")) == ""
    with xr.open_dataset("p.nc") as back:
        assert (back.attrs["featureType"], back.t2m.dims) == ("timeSeries", ("station", "time"))
        assert back["name"].attrs["cf_role"] == "timeseries_id"
        assert back["name"].values.tolist() == list(LISTED.names)
        assert back[columns[0]].values.tolist() == list(LISTED.y)
        assert np.array_equal(back.t2m.values, series.values[:, 0, 0].T, equal_nan=True)
        assert back.forecast_period.values.tolist() == [6, 12, 18]


def test_a_table_has_a_line_for_each_point_and_time() -> None:
    pointfile.write(at_points(), Path("p.csv"), {}, 4)
    lines = Path("p.csv").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "name,lat,lon,init,valid,lead_hours,t2m"
    assert len(lines) == 1 + 2 * 3
    assert lines[1].startswith("Tromsø,69.65,18.96,2020-01-30T00:00,2020-01-30T06:00,6,2")
    assert lines[-1] == '"Oslo, Blindern",59.94,10.72,2020-01-30T00:00,2020-01-30T18:00,18,'


@pytest.mark.parametrize(
    ("path", "layout", "skip", "says"),
    [
        ("p.zarr", "cf", False, "--points writes .nc or .csv"),
        ("p", "cf", False, "--points writes .nc or .csv"),
        ("p.nc", "wb2", False, "--time-layout wb2 is for grids"),
        ("p.csv", "cf", True, "a .csv does not say which request"),
    ],
)
def test_outputs_that_hold_no_points_are_refused(path: str, layout: str, skip: bool, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        pointfile.check_output(Path(path), layout, skip)
