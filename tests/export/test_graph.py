"""The exported graph computes the climatology of times as `Climatology.at` does."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pdr_cli.data import almanac
from pdr_cli.data.climatology import Climatology, Design
from pdr_cli.data.covariates import Covariates, CovariateSource
from pdr_cli.data.grid import Side
from pdr_cli.data.places import Grid, PackedField
from pdr_cli.data.scaling import Scaling
from pdr_cli.data.times import Step, seconds
from pdr_cli.export.graph import Calendar, Dates, date_of, first_day


@pytest.mark.parametrize(
    ("kind", "groups"),
    [
        *(("mean", 1), ("day", 24), ("day", 4), ("week", 168), ("week", 336)),
        *(("month", 12), ("year", 1), ("day+year", 8), ("week+year", 168)),
        *(("harmonics:2,2", 1), ("harmonics:1,0", 1)),
    ],
)
def test_every_climatology_is_that_of_its_times(kind: str, groups: int) -> None:
    random = np.random.default_rng(0)
    terms = Design(kind, groups).terms
    coefficients = random.normal(size=(groups * terms, 1, 2, 3)).astype(np.float32)
    made = Climatology(kind, coefficients)
    days = random.integers(-40_000, 60_000, 300)  # 1860 to 2134
    times = np.datetime64("1970-01-01", "s") + days.astype("timedelta64[D]") + (random.integers(0, 288, 300) * 300)
    times = np.append(times, np.array(["2000-02-29T12", "1900-03-01", "2100-12-31T23:30", "1969-12-31T23"], "M8[s]"))
    expected = made.at(times.astype("M8[ns]"))
    graph = Calendar(made)(torch.from_numpy(seconds(times).astype(np.int64)).view(2, -1))
    assert np.abs(graph.flatten(0, 1).numpy() - expected).max() < 1e-5


def test_calendar_terms_and_maps_are_those_of_the_covariates() -> None:
    """Before 1970, in leap years and at the ends of days too."""
    grid = Grid(
        (2, 3),
        Side("lat", (50.0, 10.0), {"units": "degrees_north"}),
        Side("lon", (5.0, 15.0, 25.0), {"units": "degrees_east"}),
    )
    calendar = (*almanac.CYCLES, almanac.SUN, almanac.HOLIDAYS)
    covariates = Covariates(calendar, ("2000-02-29", "1969-12-31"), {"z": PackedField.of(np.arange(6.0).reshape(2, 3))})
    days = np.random.default_rng(1).integers(-40_000, 60_000, 200) * 86_400
    times = np.concatenate(
        [days.astype("M8[s]"), np.array(["2000-02-29T12", "1969-12-31T23:59:59", "2100-12-31T23:30"], "M8[s]")]
    )
    source = CovariateSource(
        covariates, grid, Step(3600, "s"), Scaling((0.0,), (1.0,), (1.0,)), Climatology("mean", np.zeros((1, 1, 2, 3)))
    )
    expected = source.dates(times.astype("M8[ns]"))
    made = Dates(covariates, grid)(torch.from_numpy(times.astype(np.int64))[None], (1, len(times)))[0].numpy()
    assert made.shape == expected.shape == (len(times), covariates.dates, 2, 3)
    assert np.abs(made - expected).max() < 1e-6
    assert expected[:, calendar.index(almanac.HOLIDAYS) + 3].max() == 1  # cycles have two terms each


def test_dates_and_first_days_are_those_of_numpy() -> None:
    days = torch.arange(-200_000, 200_000, 37)
    dates = days.numpy().astype("M8[D]")
    date = date_of(days)
    assert np.array_equal(date.year.numpy(), dates.astype("M8[Y]").astype(int) + 1970)
    assert np.array_equal(date.month.numpy(), dates.astype("M8[M]").astype(int) % 12 + 1)
    years = torch.arange(1600, 2500)
    january = np.array([f"{y}-01-01" for y in years.tolist()], "M8[D]").astype(int)
    assert np.array_equal(first_day(years).numpy(), january)
