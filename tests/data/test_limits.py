import numpy as np
import pytest

from pdr_cli.data import limits
from pdr_cli.data.limits import Limits, RangeError
from pdr_cli.data.series import make_series

TEMPERATURE = Limits(mean=(280.0,), sd=(5.0,), minimum=(265.0,), maximum=(295.0,))


def check(values: list[float], known: Limits) -> None:
    frames = np.array(values, np.float32).reshape(-1, 1, 1, 1)
    series = make_series(
        frames, np.arange(float(len(values))), {"t": {"units": "K"}}, {}, kind="weather", files=["v.nc"]
    )
    limits.check(frames, series, 0, known)


def test_a_normal_field_may_leave_its_mean_by_ten_sd() -> None:
    assert [float(b[0]) for b in TEMPERATURE.bounds()] == [230.0, 330.0]
    check([231.0, 329.0, np.nan], TEMPERATURE)


def test_a_skewed_field_may_leave_its_extremes_by_its_span() -> None:
    rain = Limits(mean=(0.1,), sd=(0.5,), minimum=(0.0,), maximum=(60.0,))
    assert [float(b[0]) for b in rain.bounds()] == [-60.0, 120.0]  # 10 sd reach to 5.1 only


def test_what_lies_beyond_is_counted_with_its_range_and_the_trainings() -> None:
    says = (
        r"v\.nc: 2 of 3 values of t lie between 15 and 340 K, first at 1 s; expected values between 230 and 330 "
        r"\(in training: 265 to 295\); .* --allow-out-of-range"
    )
    with pytest.raises(RangeError, match=says):
        check([280.0, 15.0, 340.0], TEMPERATURE)
