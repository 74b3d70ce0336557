import numpy as np
import pytest

from pdr_cli.data import scaling, statistics
from pdr_cli.data.series import make_series
from pdr_cli.errors import DataError, MissingValuesError


def series_of(frames: np.ndarray, hours: int = 6, kind: str = "weather"):  # type: ignore[no-untyped-def]
    times = np.datetime64("2020-01-01", "ns") + np.arange(len(frames)) * np.timedelta64(hours, "h")
    names = {f"v{i}": {} for i in range(frames.shape[1])}
    return make_series(frames.astype(np.float32), times, names, {}, kind=kind, files=["v.nc"])


def test_streamed_moments_equal_those_of_the_whole() -> None:
    rng = np.random.default_rng(0)
    frames = (
        rng.normal([[5.0], [-200.0]], [[2.0], [40.0]], (300, 8 * 9, 2, 1))[..., 0]
        .transpose(0, 2, 1)
        .reshape(300, 2, 8, 9)
    )
    found = statistics.measure([(series_of(frames), 0, 300)], 100, 0)
    assert np.allclose(found.mean, frames.mean(axis=(0, 2, 3)), rtol=1e-6)
    assert np.allclose(found.sd, frames.std(axis=(0, 2, 3)), rtol=1e-5)
    assert np.allclose(found.spread, np.subtract(*np.quantile(frames, [0.999, 0.001], axis=(0, 2, 3))), rtol=0.05)


def test_only_the_training_period_counts() -> None:
    frames = np.random.default_rng(0).random((100, 1, 4, 4))
    frames[50:] += 1000
    assert statistics.measure([(series_of(frames), 0, 50)], 100, 0).maximum[0] < 1.001


def test_apply_and_invert_are_inverse_for_each_scaling() -> None:
    frames = np.random.default_rng(1).normal(280, 10, (60, 2, 5, 5))
    series = series_of(frames)
    found = statistics.measure([(series, 0, 60)], 100, 0)
    for kind in ("standard", "minmax", "unit"):
        scale = scaling.fit(kind, series, found)
        assert np.allclose(scale.invert(scale.apply(frames)), frames, rtol=1e-5)
    standard = scaling.fit("standard", series, found).apply(frames)
    assert abs(standard.mean()) < 1e-4
    assert abs(standard.std() - 1) < 1e-3
    minmax = scaling.fit("minmax", series, found).apply(frames)
    assert (minmax.min(), minmax.max()) == (pytest.approx(0, abs=1e-5), pytest.approx(1, abs=1e-5))


def test_auto_goes_by_the_kind_of_data() -> None:
    frames = np.random.default_rng(1).uniform(0, 255, (60, 1, 5, 5))
    found = statistics.measure([(series_of(frames), 0, 60)], 100, 0)
    assert scaling.fit("auto", series_of(frames, kind="video"), found).scale == (255.0,)
    assert scaling.fit("auto", series_of(frames), found) == scaling.fit("standard", series_of(frames), found)
    traffic = series_of(frames, kind="traffic")
    assert scaling.fit("auto", traffic, found) == scaling.fit("minmax", traffic, found)


def test_missing_values_are_counted_with_variable_and_time() -> None:
    frames = np.random.default_rng(1).random((10, 2, 4, 4))
    frames[3, 1, :2, 0] = np.nan
    with pytest.raises(MissingValuesError, match=r"2 of 160 values of v1 are missing.*first at 2020-01-01 18:00"):
        statistics.measure([(series_of(frames), 0, 10)], 100, 0)


def test_a_constant_channel_is_refused_with_its_own_value() -> None:
    frames = np.random.default_rng(0).random((20, 3, 4, 4))
    frames[:, 1] = 7
    series = series_of(frames)
    with pytest.raises(DataError, match=r"v\.nc: v1 is 7 everywhere in the training period"):
        scaling.fit("standard", series, statistics.measure([(series, 0, 20)], 100, 0))


def test_a_field_far_from_zero_comes_back_to_the_last_bit() -> None:
    frames = np.random.default_rng(2).normal(280, 10, (60, 1, 20, 20)).astype(np.float32)
    series = series_of(frames)
    kelvin = scaling.fit("standard", series, statistics.measure([(series, 0, 60)], 100, 0))
    # Half a unit in the last place of 280 is 1.5e-5; a network value of at most 5 sd is off by 2.4e-7 sd, 2.4e-6 K.
    assert np.array_equal(kelvin.invert(kelvin.apply(frames)), frames)
