from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
import pytest

from pdr_cli.data import formats, times
from pdr_cli.data.arrays import Conventions, Slots
from pdr_cli.data.formats import ReadOptions
from pdr_cli.data.series import Series
from pdr_cli.errors import TimeError


def stamped(
    path: Path, slots: Sequence[int], days: int = 1, first_day: str = "2014-05-01", stated: Slots | None = None
) -> Path:
    """HDF5 with these slots of each of some days; every value is the number of its slot."""
    numbers = [slot for _ in range(days) for slot in slots]
    dates = [str(np.datetime64(first_day) + day).replace("-", "") for day in range(days) for _ in slots]
    with h5py.File(path, "w") as out:
        out["data"] = np.broadcast_to(np.array(numbers, np.float32)[:, None, None, None], (len(numbers), 2, 8, 6))
        out["date"] = np.array([f"{date}{slot:02d}".encode() for date, slot in zip(dates, numbers, strict=True)])
        if stated is not None:
            out.attrs["slots_per_day"], out.attrs["first_slot"] = stated.per_day, stated.first
    return path


def read(*paths: Path, assume: str = "", learned: Conventions | None = None) -> Series:
    given = Conventions.parse([f"slots={assume}"] if assume else [])
    (series,) = formats.open_series(paths, ReadOptions(assume=given, learned=learned or Conventions()))
    return series


def first_time(series: Series) -> str:
    return times.label(series.time.values[0])


HOURS_FROM_0, HALF_HOURS_FROM_1 = Conventions(Slots(24, 0), per_day=24), Conventions(Slots(48, 1), per_day=48)


@pytest.mark.parametrize(("slots", "kept"), [(range(24), "0-23"), (range(1, 25), "1-24"), (range(1, 49), "1-48")])
def test_stamps_that_show_a_whole_day_need_no_words(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, slots: range, kept: str
) -> None:
    series = read(stamped(tmp_path / "a.h5", slots, 2))
    assert series.attrs["conventions"]["slots"] == kept
    assert first_time(series) == "2014-05-01 00:00"
    assert not caplog.messages
    assert not any("slots" in text for text in series.attrs["assumed"])


def test_the_model_decides_how_an_excerpt_counts_its_slots(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = stamped(tmp_path / "tail.h5", range(14, 24))
    # Counted from 0, slot 14 begins at 14:00; from 1, at 13:00.
    with caplog.at_level("INFO", logger="pdr"):
        assert first_time(read(path, learned=HOURS_FROM_0)) == "2014-05-01 14:00"
    assert "slots 14 to 23 do not show the first and the last of a day; counted 0-23 as in the model" in caplog.text
    assert first_time(read(path, learned=Conventions(Slots(24, 1), per_day=24))) == "2014-05-01 13:00"


def test_the_model_decides_how_many_slots_a_day_has(tmp_path: Path) -> None:
    path = stamped(tmp_path / "mid.h5", range(7, 17))
    series = read(path, learned=HALF_HOURS_FROM_1)
    assert (first_time(series), str(times.find_step(series.time.values))) == ("2014-05-01 03:00", "30 min")


def test_a_morning_of_half_hours_is_not_taken_for_a_day_of_hours(tmp_path: Path) -> None:
    morning = stamped(tmp_path / "a.h5", range(1, 25))
    assert str(times.find_step(read(morning, learned=HALF_HOURS_FROM_1).time.values)) == "30 min"
    # Two days of slots 1 to 24 show days of 24 slots, whatever the model had.
    days = stamped(tmp_path / "b.h5", range(1, 25), 2)
    assert str(times.find_step(read(days, learned=HALF_HOURS_FROM_1).time.values)) == "1 h"


def test_without_a_model_the_assumption_is_a_warning_that_names_the_other_readings(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("WARNING", logger="pdr"):
        series = read(stamped(tmp_path / "day.h5", range(6, 23), 8))
    assert (
        "slots 6 to 22 do not show the first and the last of a day; assumed to be 1-24, steps of 60 min" in caplog.text
    )
    assert "--assume slots=0-23 or slots=1-48" in caplog.text
    assert any("assumed to be 1-24" in text for text in series.attrs["assumed"])


def test_an_option_decides(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = stamped(tmp_path / "a.h5", range(14, 24))
    assert first_time(read(path, assume="0-23")) == "2014-05-01 14:00"
    assert first_time(read(path, assume="1-48", learned=HOURS_FROM_0)) == "2014-05-01 06:30"
    assert not caplog.messages
    with pytest.raises(TimeError, match="slots 14 to 23 do not fit --assume slots=1-12"):
        read(path, assume="1-12")


def test_other_files_that_are_read_together_decide(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole = stamped(tmp_path / "a.h5", range(24), 3, "2014-04-28")
    series = read(whole, stamped(tmp_path / "b.h5", range(14, 24)))
    assert times.label(series.time.values[-1]) == "2014-05-01 23:00"
    stated = stamped(tmp_path / "c.h5", range(10, 20), 1, "2014-04-30", Slots(48, 0))
    assert times.label(read(stated, tmp_path / "b.h5").time.values[-1]) == "2014-05-01 11:30"
    assert not caplog.messages


def test_files_that_count_differently_are_refused(tmp_path: Path) -> None:
    from_0 = stamped(tmp_path / "a.h5", range(24), 2, "2014-04-01")
    from_1 = stamped(tmp_path / "b.h5", range(1, 25), 2)
    with pytest.raises(TimeError, match=r"b\.h5 counts slots 1-24, .*a\.h5 0-23; read them one by one"):
        read(from_0, from_1)
    # An excerpt that goes beyond the day that the others show.
    late = stamped(tmp_path / "c.h5", range(20, 25))
    with pytest.raises(TimeError, match=r"c\.h5: slots 20 to 24 do not fit the slots 0-23 that the other files count"):
        read(from_0, late)
    half = stamped(tmp_path / "d.h5", range(1, 10), stated=Slots(48, 1))
    with pytest.raises(TimeError, match=r"has 48 slots a day, .* 24"):
        read(from_0, half)


def test_each_file_keeps_the_slots_that_it_states(tmp_path: Path) -> None:
    one = stamped(tmp_path / "a.h5", range(14, 24), 1, "2014-05-01", Slots(24, 0))
    other = stamped(tmp_path / "b.h5", range(1, 5), 1, "2014-05-02", Slots(24, 1))
    found = read(one, other).time.values
    assert (times.label(found[9]), times.label(found[10])) == ("2014-05-01 23:00", "2014-05-02 00:00")


def test_a_slot_that_the_models_day_lacks_shows_the_other_count(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", logger="pdr"):
        series = read(stamped(tmp_path / "a.h5", range(20, 25)), learned=HOURS_FROM_0)
    assert first_time(series) == "2014-05-01 19:00"
    assert "counted 1-24, which holds them, where the model's training had 0-23" in caplog.text


def test_a_model_of_before_gives_the_number_of_slots_and_slot_0_their_first(tmp_path: Path) -> None:
    of_before = Conventions(per_day=48)
    series = read(stamped(tmp_path / "a.h5", range(8)), learned=of_before)
    assert (first_time(series), series.attrs["conventions"]["slots"]) == ("2014-05-01 00:00", "0-47")


def test_an_hour_that_is_repeated_at_the_end_of_summer_time_is_refused(tmp_path: Path) -> None:
    path = stamped(tmp_path / "a.h5", [0, 1, 1, *range(2, 24)], 1, "2014-11-02")
    with pytest.raises(TimeError, match=r"1 stamps occur twice, first slot 1 of 2014-11-02; .*end of summer time"):
        read(path)


def test_a_zone_that_the_file_names_is_said(tmp_path: Path) -> None:
    path = stamped(tmp_path / "a.h5", range(24), 2)
    assert "times are local, as stamped" in read(path).attrs["assumed"]
    with h5py.File(path, "a") as out:
        out.attrs["timezone"] = "Asia/Shanghai"
    assert "times of the zone Asia/Shanghai, as stamped" in read(path).attrs["assumed"]


def test_a_forecast_from_another_format_is_dated_as_the_models_training(tmp_path: Path) -> None:
    series = read(stamped(tmp_path / "a.h5", range(24), 2)).load()
    other = series.isel(time=slice(24, 48)).assign_attrs(file_attrs={}, conventions={"slots": "0-23"})
    formats.write(other, tmp_path / "b.h5", {})
    with h5py.File(tmp_path / "b.h5") as back:
        assert (back["date"][0], back.attrs["first_slot"]) == (b"2014050200", 0)
