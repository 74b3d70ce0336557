"""Small files in the real formats, made by the tests that need them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import xarray as xr


def field(steps: int, height: int = 12, width: int = 14, seed: int = 0) -> np.ndarray:
    """A smooth wave that moves one cell a step, in kelvin: [steps, H, W]."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    t = np.arange(steps)[:, None, None]
    wave = np.sin(2 * np.pi * (x - t) / width + rng.uniform(0, 6)) * np.cos(np.pi * y / height)
    return (280 + 5 * wave + 0.1 * rng.standard_normal((steps, height, width))).astype(np.float32)


def weather_file(
    path: Path,
    steps: int = 160,
    *,
    hours: int = 6,
    start: str = "2020-01-01",
    values: np.ndarray | None = None,
    size: tuple[int, int] = (12, 14),
    name: str = "t2m",
    drop: Sequence[int] = (),
) -> Path:
    """NetCDF of one variable on a descending latitude; `drop` leaves out some steps."""
    values = field(steps, *size) if values is None else values
    height, width = values.shape[1:]
    times = np.datetime64(start, "ns") + np.arange(steps) * np.timedelta64(hours, "h")
    keep = np.setdiff1d(np.arange(steps), np.asarray(drop, dtype=int))
    xr.Dataset(
        {
            name: (
                ("time", "lat", "lon"),
                values[keep],
                {"units": "K", "long_name": "temperature", "standard_name": "air_temperature"},
            )
        },
        coords={
            "time": times[keep],
            "lat": (
                "lat",
                np.linspace(60, 60 - 2.5 * (height - 1), height, dtype=np.float32),
                {"units": "degrees_north"},
            ),
            "lon": (
                "lon",
                np.linspace(200, 200 + 2.5 * (width - 1), width, dtype=np.float32),
                {"units": "degrees_east"},
            ),
        },
        attrs={"history": "made by a test", "institution": "tests"},
    ).to_netcdf(path)
    return path


def traffic_file(
    path: Path, days: int = 12, *, slots: int = 24, first_slot: int = 1, drop_days: Sequence[int] = ()
) -> Path:
    """HDF5 in the TaxiBJ layout, 2 channels on 8 x 8, with a daily cycle; `drop_days` leaves out whole days."""
    import h5py

    rng = np.random.default_rng(0)
    stamps, frames = [], []
    for day in range(days):
        if day in drop_days:
            continue
        date = str(np.datetime64("2014-01-01") + day).replace("-", "")
        for slot in range(slots):
            stamps.append(f"{date}{slot + first_slot:02d}".encode())
            rush = 20 * (1 + np.sin(2 * np.pi * slot / slots))
            frames.append(rush + rng.poisson(3, (2, 8, 8)))
    with h5py.File(path, "w") as out:
        out["data"] = np.array(frames, dtype=np.float64)
        out["date"] = np.array(stamps)
    return path


def video_file(path: Path, frames: int = 40, *, size: tuple[int, int] = (32, 32), fps: int = 25) -> Path:
    """H.264 of a bright square that moves one pixel a frame."""
    import av

    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=fps, options={"crf": "5"})
        stream.height, stream.width = size
        stream.pix_fmt = "yuv420p" if size[0] % 2 == size[1] % 2 == 0 else "yuv444p"
        for i in range(frames):
            picture = np.full((*size, 3), 40, np.uint8)
            left = i % (size[1] - 8)
            picture[8:16, left : left + 8] = 220
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        out.mux(stream.encode())
    return path
