"""Lists of points (CSV), and forecasts at points: CF-1.11 time series of stations as NetCDF, or a table as CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from pdr_cli.data import times as time_axis
from pdr_cli.data.formats import cf
from pdr_cli.data.formats.gridded import FEATURES, STATION_SERIES
from pdr_cli.data.series import Series, names
from pdr_cli.data.spots import DEGREES, OWN, STATIONS, Points
from pdr_cli.errors import DataError, InputNotFoundError, StorageError, UsageError
from pdr_cli.system.atomic import atomic_output

OUTPUTS = (".nc", ".csv")
NAME, STATION = "name", "station"
TABLE = (*DEGREES, "init", "valid", "lead_hours")
LATLON = {"lat": ("latitude", "degrees_north"), "lon": ("longitude", "degrees_east")}


def read(path: Path) -> Points:
    """A list of points: a CSV file with the columns `name` and `lat`, `lon`, or `name` and `y`, `x`.

    Raises:
        InputNotFoundError: no such file.
        DataError: other columns, or one of them twice; a name twice; a row of more values than columns, such as of numbers
            with decimal commas; what is no number.
    """
    if not path.is_file():
        raise InputNotFoundError(f"no file {path}", way_out="name a CSV file with the columns name, lat, lon")
    try:
        rows = list(csv.reader(io.StringIO(path.read_text(encoding="utf-8-sig"))))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"{path} is not a CSV file: {error}", way_out="write it as UTF-8, separated by commas"
        ) from error
    head = [cell.strip().lower() for cell in rows[0]] if rows else []
    columns = next((pair for pair in (DEGREES, OWN) if {NAME, *pair} <= set(head)), None)
    if columns is None:
        found = ", ".join(head) or "nothing"
        raise DataError(f"{path} has the columns {found}", "name, lat, lon, or name, y, x, separated by commas")
    doubled = next((column for column in (NAME, *columns) if head.count(column) > 1), None)
    if doubled is not None:
        raise DataError(f"{path} has several columns {doubled}", "one of each")
    places = [head.index(column) for column in (NAME, *columns)]
    listed = [
        _point(path, n, row, places, len(head))
        for n, row in enumerate(rows[1:], start=2)
        if any(c.strip() for c in row)
    ]
    if not listed:
        raise DataError(f"{path} lists no points")
    found_names, y, x = zip(*listed, strict=True)
    twice = next((name for n, name in enumerate(found_names) if name in found_names[:n]), None)
    if twice is not None:
        raise DataError(f"{path} lists {twice} twice", "a name of its own for each point")
    return Points(found_names, y, x, columns, path)


def _point(path: Path, line: int, row: list[str], places: list[int], columns: int) -> tuple[str, float, float]:
    if any(cell.strip() for cell in row[columns:]):
        raise DataError(
            f"{path}, line {line}: {','.join(row)} has {len(row)} values",
            f"{columns}, as there are columns",
            "quote what contains a comma, and write numbers with points",
        )
    try:
        name, y, x = (row[place].strip() for place in places)
        found = name, float(y), float(x)
    except (IndexError, ValueError) as error:
        raise DataError(f"{path}, line {line}: {','.join(row)}", "a name and two numbers") from error
    if not name or not (math.isfinite(found[1]) and math.isfinite(found[2])):
        raise DataError(f"{path}, line {line}: {','.join(row)}", "a name and two numbers")
    return found


def check_output(path: Path, time_layout: str, skip_existing: bool) -> None:
    """Refuse an output that cannot hold a forecast at points, or cannot say what it answers.

    Raises:
        UsageError: names the ones that can.
    """
    if path.suffix.lower() not in OUTPUTS:
        raise UsageError(f"--points writes {' or '.join(OUTPUTS)}, not {path.suffix or path}")
    if time_layout != "cf":
        raise UsageError(f"--time-layout {time_layout} is for grids", way_out="leave it out with --points")
    if skip_existing and path.suffix.lower() == ".csv":
        raise UsageError("--skip-existing: a .csv does not say which request it answers", way_out="write .nc")


def write(series: Series, path: Path, provenance: Mapping[str, str], compress: int) -> None:
    """Write a forecast at points, atomically and verified; the suffix is one of `OUTPUTS`."""
    if path.suffix.lower() == ".csv":
        text = "".join(_table(series)).encode()

        def same(written: Path) -> None:
            if written.read_bytes() != text:
                raise StorageError(f"{path} reads back differently from what was written")

        with atomic_output(path, verify=same) as temporary:
            temporary.write_bytes(text)
        return
    made = to_dataset(series, provenance)
    how: dict[str, Any] = {"zlib": True, "complevel": compress} if compress else {"fletcher32": True}
    encoding = {str(n): how if n in made.data_vars else {"_FillValue": None} for n in made.variables}

    def compare(written: Path) -> None:
        with xr.open_dataset(written, engine="netcdf4", decode_cf=False) as back:
            if not all(np.array_equal(back[n].values, made[n].values) for n in made.variables):
                raise StorageError(f"{path} reads back differently from what was written")

    with atomic_output(path, verify=compare) as temporary:
        made.to_netcdf(temporary, engine="netcdf4", encoding=encoding)


def to_dataset(series: Series, provenance: Mapping[str, str]) -> xr.Dataset:
    """Time series of stations (CF-1.11, example H.2), not decoded: dims (station, time)."""
    points: Points = series.attrs[STATIONS]
    found = {
        NAME: xr.Variable(
            STATION, np.array(points.names, object), {"long_name": "name of the point", "cf_role": "timeseries_id"}
        )
    }
    for column, values in zip(points.columns, (points.y, points.x), strict=True):
        standard, units = LATLON.get(column, ("", ""))
        attrs = {"standard_name": standard, "units": units} if standard else {"long_name": f"{column} of the grid"}
        found[column] = xr.Variable(STATION, np.array(values), attrs)
    times = cf.forecast_times(series)
    single, of_channels = cf.scalars(series, {*found, *(c.name for c in times), *map(cf.legal_name, names(series))})
    found |= {c.name: xr.Variable(c.dims, c.values, c.attrs) for c in (*times, *single)}
    every = [NAME, *points.columns, *(c.name for c in times if c.name != "time")]
    fields = {}
    for index, name in enumerate(names(series)):
        attrs = cf.field_attributes(series, name, {"time"}) | {"coordinates": " ".join([*every, *of_channels[name]])}
        frames = cf.filled(series.values[:, index, 0].T)
        fields[cf.legal_name(name)] = xr.Variable((STATION, "time"), frames, attrs | {"_FillValue": cf.FILL})
    about = {k: v for k, v in provenance.items() if v} | {FEATURES: STATION_SERIES}
    about[cf.COORDINATES] = cf.coordinates_sha256({n: np.asarray(v.values) for n, v in found.items()})
    return xr.Dataset(fields, attrs=about).assign_coords(found)


def _table(series: Series) -> Iterator[str]:
    """A line for each point and time; missing values are empty."""
    points: Points = series.attrs[STATIONS]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([NAME, *points.columns, *TABLE[2:], *names(series)])
    init = _stamp(cf.init_of(series))
    for n, name in enumerate(points.names):
        for t, (valid, lead) in enumerate(zip(series.time.values, series.forecast_period.values, strict=True)):
            values = ["" if np.isnan(v) else f"{v:.7g}" for v in series.values[t, :, 0, n]]
            writer.writerow([name, points.y[n], points.x[n], init, _stamp(valid), f"{lead:g}", *values])
    yield stream.getvalue()


def _stamp(time: Any) -> str:
    """A time in ISO 8601; of clips, seconds."""
    return f"{time:.6g}" if isinstance(time, float) else time_axis.label(time).replace(" ", "T")
