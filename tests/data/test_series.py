import numpy as np

from pdr_cli.data.series import make_series, read_frames, reordered


def test_frames_in_another_order_are_read_by_that_order() -> None:
    frames = 100 * np.arange(6, dtype=np.float32)[:, None, None, None]
    given = make_series(frames, np.arange(6.0), {"v": {}}, {}, kind="weather")
    order = np.array([3, 4, 5, 2, 0, 1])
    found = reordered(given, order)
    assert found.time.values.tolist() == order.tolist()
    assert read_frames(found, 1, 5)[:, 0, 0, 0].tolist() == [400, 500, 200, 0]
