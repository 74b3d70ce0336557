"""Small files in the real formats, made by the tests that need them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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


def weatherbench_folders(
    root: Path, variables: Sequence[str] = ("t2m",), years: Sequence[int] = (2016, 2017), *, hours: int = 72
) -> Path:
    """`2m_temperature/2m_temperature_2016_5.625deg.nc` and so on: the first hours of each year, 8 x 16."""
    folders = {"t2m": "2m_temperature", "u10": "10m_u_component_of_wind", "v10": "10m_v_component_of_wind"}
    for number, name in enumerate(variables):
        folder = root / folders[name]
        folder.mkdir(parents=True, exist_ok=True)
        for year in years:
            values = field(hours, 8, 16, seed=year) + 100 * number
            path = folder / f"{folders[name]}_{year}_5.625deg.nc"
            weather_file(path, hours, hours=1, start=f"{year}-01-01", values=values, name=name)
    return root


def taxibj_files(root: Path, days: int = 8, *, short: Sequence[tuple[int, int]] = ()) -> Path:
    """`BJ13_M32x32_T30_InOut.h5` to BJ16: so many days of 48 slots each, 8 x 8; `short` days (year, day) have 40."""
    import h5py

    rng = np.random.default_rng(0)
    root.mkdir(parents=True, exist_ok=True)
    for year in (13, 14, 15, 16):
        stamps = []
        for day in range(days):
            date = str(np.datetime64(f"20{year}-03-01") + day).replace("-", "")
            stamps += [f"{date}{slot:02d}".encode() for slot in range(1, 41 if (year, day) in short else 49)]
        with h5py.File(root / f"BJ{year}_M32x32_T30_InOut.h5", "w") as out:
            out["data"] = rng.poisson(20, (len(stamps), 2, 8, 8)).astype(np.float64)
            out["date"] = np.array(stamps)
    return root


def taxibj_npz(path: Path, train: int = 30, test: int = 3, *, compressed: bool = False, dtype: str = "f8") -> Path:
    """OpenSTL's dataset.npz, 8 x 8: frame j of window n is filled with (n mod 10 + j / 10) / 10 - 0.5."""
    path.parent.mkdir(parents=True, exist_ok=True)

    def windows(count: int) -> np.ndarray:
        value = (np.arange(count)[:, None] % 10 + np.arange(8) / 10) / 10 - 0.5
        return np.broadcast_to(value[..., None, None, None], (count, 8, 2, 8, 8)).astype(dtype)

    arrays = {
        f"{side}_{part}": np.ascontiguousarray(windows(n)[:, half])
        for part, n in (("train", train), ("test", test))
        for side, half in (("X", slice(0, 4)), ("Y", slice(4, 8)))
    }
    (np.savez_compressed if compressed else np.savez)(path, **arrays)
    return path


def picture(path: Path, pixels: np.ndarray) -> Path:
    """A PNG, or whatever the suffix says, of [H, W] or [H, W, 3] bytes."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def moving_square(index: int, size: tuple[int, int] = (24, 32)) -> np.ndarray:
    """[H, W] bytes: a bright square that moves one column a frame."""
    pixels = np.full(size, 40, np.uint8)
    left = index % (size[1] - 8)
    pixels[8:16, left : left + 8] = 220
    return pixels


def kth_folder(root: Path, name: str, numbers: Iterable[int], suffix: str = "png") -> Path:
    """`walking/person01_walking_d1_uncomp/image_0001.png` and so on, 24 x 32."""
    folder = root / name.split("_")[1] / f"{name}_uncomp"
    for number in numbers:
        picture(folder / f"image_{number:04d}.{suffix}", moving_square(number))
    return folder


def kth_video(root: Path, name: str, frames: int = 40) -> Path:
    """`boxing/person01_boxing_d1_uncomp.avi`, MPEG-4 as the originals, 32 x 32; one corner is of the person's shade."""
    import av

    path = root / name.split("_")[1] / f"{name}_uncomp.avi"
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as out:
        stream = out.add_stream("mpeg4", rate=25, options={"qscale": "2"})
        stream.height = stream.width = 32
        stream.pix_fmt = "yuv420p"
        for index in range(frames):
            gray = np.repeat(moving_square(index, (32, 32))[..., None], 3, axis=-1)
            gray[-4:, -4:] = 5 * int(name[6:8])
            out.mux(stream.encode(av.VideoFrame.from_ndarray(gray, format="rgb24")))
        out.mux(stream.encode())
    return path


def human36m_folder(root: Path, train: Sequence[str], test: Sequence[str], size: int = 16) -> Path:
    """`train.txt` and `test.txt`, and the pictures that their lines name, whose red is the number and green is 9."""
    for name, lines in (("train.txt", train), ("test.txt", test)):
        root.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("".join(f"{line}\n" for line in lines))
        for line in lines:
            prefix, first, _ = line.split(",")
            for number in range(int(first), int(first) + 36, 5):
                pixels = np.zeros((size, size, 3), np.uint8)
                pixels[..., 0], pixels[..., 1] = number % 256, 9
                picture(root / f"{prefix}{number:06d}.jpg", pixels)
    return root


def scenes_file(path: Path, count: int = 4, *, size: tuple[int, int, int, int] = (2, 3, 20, 24)) -> Path:
    """A file of `count` synthetic scenes of so many views, frames, rows and columns."""
    from pdr_cli.data import scene_samples
    from pdr_cli.data.formats import scenefile
    from pdr_cli.data.scenes import Size

    scenefile.write(
        path, (scene_samples.make(0, n, Size(*size)) for n in range(count)), count, {"title": "test scenes"}
    )
    return path
