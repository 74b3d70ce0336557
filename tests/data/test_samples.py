"""The synthetic samples: plausible, labelled, forecastable, and whole after a trip through a file."""

from pathlib import Path

import numpy as np
import pytest

from pdr_cli.commands import sample
from pdr_cli.data import formats, samples, times
from pdr_cli.data.series import Series, names, size
from pdr_cli.errors import OutputError, UsageError


@pytest.fixture(scope="module")
def made() -> dict[str, Series]:
    return {kind: samples.make(kind, 0) for kind in samples.KINDS}


@pytest.mark.parametrize("kind", samples.KINDS)
def test_the_same_seed_gives_the_same_numbers_and_another_seed_others(kind, made):
    assert np.array_equal(samples.make(kind, 0).values, made[kind].values)
    assert not np.array_equal(samples.make(kind, 1).values, made[kind].values)


@pytest.mark.parametrize("kind", samples.KINDS)
def test_samples_call_themselves_synthetic(kind, made):
    assert "ynthetic" in made[kind].attrs["file_attrs"]["title"]
    assert all("synthetic" in v["long_name"] for v in made[kind].attrs["variables"].values())
    assert "Synthetic" in samples.provenance(kind, 3)["title"]


@pytest.mark.parametrize(
    ("kind", "suffix", "detected", "step", "frame", "tolerance"),
    [
        ("weather", ".nc", "netcdf", "6 h", (32, 48), 0.0),
        ("traffic", ".h5", "hdf5", "1 h", (16, 16), 0.0),
        ("traffic", ".nc", "netcdf", "1 h", (16, 16), 0.0),
        # H.264 loses a little; a mean of 1.3 gray levels was seen, and a wrong frame order gives more than 5.
        ("video", ".mp4", "video", "0.04 s", (64, 64), 2.0),
    ],
)
def test_a_sample_reads_back_from_its_file(tmp_path, made, kind, suffix, detected, step, frame, tolerance):
    path = tmp_path / f"sample{suffix}"
    formats.write(made[kind], path, samples.provenance(kind, 0))
    assert formats.detect(path) == detected
    (back,) = formats.open_series([path], formats.ReadOptions(names(made[kind]) if kind != "video" else ()))
    assert names(back) == names(made[kind])
    assert size(back) == frame
    assert str(times.find_step(back.time.values)) == step
    assert np.allclose(times.seconds(back.time.values), times.seconds(made[kind].time.values), atol=1e-3)
    assert np.abs(back.values - made[kind].values).mean() <= tolerance


def test_weather_reads_back_with_its_grid(tmp_path, made):
    path = tmp_path / "sample.nc"
    formats.write(made["weather"], path, samples.provenance("weather", 0))
    (back,) = formats.open_series([path])
    assert np.array_equal(back.latitude.values, samples.LATITUDES)
    assert np.array_equal(back.longitude.values, samples.LONGITUDES)
    assert back.longitude.attrs["standard_name"] == "longitude"
    assert back.attrs["variables"]["t2m"]["units"] == "K"
    assert "Synthetic" in back.attrs["file_attrs"]["title"]


def test_weather_is_colder_in_the_north_and_in_winter(made):
    kelvin = made["weather"].values[:, 0]
    zonal = kelvin.mean(axis=(0, 2))
    assert zonal[0] < 265 < 295 < zonal[-1]
    january, july = kelvin[: 31 * 4, :16].mean(), kelvin[181 * 4 : 212 * 4, :16].mean()
    assert july - january > 8  # twice the annual amplitude over sea, at least


def test_weather_moves_eastwards_by_the_speed_of_the_jet(made):
    """The shift that best maps one frame to the next but three is four steps of the jet, in the jet."""
    row = int(np.argmin(np.abs(samples.LATITUDES - samples.JET_LATITUDE)))
    band = made["weather"].values[:, 0, row - 1 : row + 2]
    moving = band[4:] - band[:-4]  # a day apart: no climate and no daily cycle left
    errors = [np.mean((moving[4:, :, s:] - moving[:-4, :, : 48 - s]) ** 2) for s in range(12)]
    assert abs(int(np.argmin(errors)) - 4 * samples.jet(samples.JET_LATITUDE)) < 1


def test_moving_with_the_flow_beats_persistence_and_climatology(made):
    """A least-squares stencil on two frames is a weak forecaster; already it halves both errors at a day's lead."""
    kelvin, lead = made["weather"].values[:, 0].astype(np.float64), 4
    hour = np.arange(len(kelvin)) % 4
    climate = np.stack([kelvin[:1100][hour[:1100] == h].mean(0) for h in range(4)])
    anomaly = kelvin - climate[hour]

    def stencil(at: np.ndarray) -> np.ndarray:
        frames = np.stack([anomaly[at], anomaly[at - 1]])
        shifts = [frames[..., 2 + dy : 30 + dy, 8 + dx : 46 + dx] for dy in (-2, 0, 2) for dx in range(-8, 3)]
        return np.concatenate(shifts).reshape(2 * len(shifts), -1).T

    def truth(at: np.ndarray) -> np.ndarray:
        return anomaly[at + lead][..., 2:30, 8:46].ravel()

    train, test = np.arange(2, 1090, 20), np.arange(1110, 1450, 20)
    weights, *_ = np.linalg.lstsq(stencil(train), truth(train), rcond=None)
    error = np.sqrt(np.mean((stencil(test) @ weights - truth(test)) ** 2))
    persistence = np.sqrt(np.mean((anomaly[test][..., 2:30, 8:46].ravel() - truth(test)) ** 2))
    assert error < 0.5 * persistence
    assert error < 0.5 * np.sqrt(np.mean(truth(test) ** 2))


def test_traffic_goes_to_work_in_the_morning_and_home_in_the_evening(made):
    traffic = made["traffic"]
    clock = traffic.time.dt.hour.values
    workday = traffic.time.dt.dayofweek.values < 5
    centre = traffic.values[:, :, 6:10, 6:10].sum(axis=(2, 3))
    morning, evening = (centre[workday & (clock == h)].mean(axis=0) for h in (8, 18))
    assert morning[0] > 2 * morning[1]
    assert evening[1] > 2 * evening[0]
    assert morning[0] > 2 * centre[~workday & (clock == 8), 0].mean()


def test_traffic_is_counts_with_whole_days_missing(made):
    traffic = made["traffic"]
    assert np.array_equal(traffic.values, np.round(traffic.values))
    assert traffic.values.min() >= 0
    step = times.find_step(traffic.time.values)
    absent = times.missing(traffic.time.values, step)
    assert len(absent) == len(samples.MISSING_DAYS) * samples.SLOTS_PER_DAY
    assert len(times.segments(traffic.time.values, step)) == 2


def test_video_moves_in_front_of_a_still_background(made):
    frames = made["video"].values[:, 0]
    assert 0 <= frames.min() < 60 < 200 < frames.max() <= 255
    # Each shape hides a pixel for a small part of the time, so the usual level is the background's.
    background = np.median(frames, axis=0)
    assert background.std() > 0.5 * samples.BACKGROUND_CONTRAST
    hidden = np.abs(frames - background) > 30
    assert 0.05 < hidden.mean() < 0.4
    assert np.abs(np.diff(frames, axis=0)).mean() > 1


def test_sample_writes_the_file_and_prints_its_path(tmp_path, capsys):
    path = tmp_path / "traffic.h5"
    sample.run("traffic", path, seed=5)
    assert capsys.readouterr().out == f"{path}\n"
    assert [p.name for p in tmp_path.iterdir()] == ["traffic.h5"]
    (back,) = formats.open_series([path])
    assert np.array_equal(back.values, samples.make("traffic", 5).values)


def test_an_unknown_kind_is_answered_with_the_nearest():
    with pytest.raises(UsageError, match="Did you mean 'weather'"):
        sample.run("wether", Path("a.nc"), seed=0)
    with pytest.raises(UsageError, match="Did you mean 'traffic'"):
        samples.make("trafic", 0)


@pytest.mark.parametrize(("kind", "name"), [("weather", "a.mp4"), ("traffic", "a.gif"), ("video", "a.nc")])
def test_a_suffix_that_does_not_fit_the_kind_is_refused(tmp_path, kind, name):
    with pytest.raises(UsageError, match=f"a {kind} sample is written to"):
        sample.run(kind, tmp_path / name, seed=0)
    assert not list(tmp_path.iterdir())


def test_a_negative_seed_and_a_missing_folder_are_refused(tmp_path):
    with pytest.raises(UsageError, match="negative"):
        samples.make("video", -1)
    with pytest.raises(OutputError, match="mkdir"):
        sample.run("weather", tmp_path / "none" / "a.nc", seed=0)
