"""Measure `pdr predict --scale` against bicubic interpolation, on data that are coarsened first.

    python docs/finer.py air.nc -o measured --set steps=600
    python docs/finer.py clip-*.mp4 -o measured --by 3 --preset video-small --set steps=300

Every N-th cell of a field is kept; pixels of clips become means of N x N, N odd. A model with Gaussians that paint is trained on
the coarse data: of one file on its first 80 %, of several on all but the last. Its forecasts of the rest are made N times as fine
and compared with the data at the places between the cells that the model knew. docs/finer.md has the results.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy.ndimage import zoom

import pdr_cli
from pdr_cli.data import formats
from pdr_cli.data.formats import ReadOptions
from pdr_cli.data.series import Series, make_like, names, side
from pdr_cli.inference.finer import Finer
from pdr_cli.inference.forecast import forecast
from pdr_cli.inference.intake import Intake
from pdr_cli.models import finer as between

PAINTS = {"model.adapter": "local", "model.fusion": "concat", "train.fallback": False}
TRAINED = 0.8  # of one file


def coarsened(series: Series, by: int) -> tuple[Series, Series]:
    """A series on coarse cells, and the part of it that `--scale by` makes places for."""
    rows, columns = ((n - 1) // by * by + 1 for n in (series.sizes["y"], series.sizes["x"]))
    if side(series, "y") is not None:
        fine = series.isel(y=slice(rows), x=slice(columns)).load()
        return fine.isel(y=slice(None, None, by), x=slice(None, None, by)), fine
    H, W = series.sizes["y"] // by, series.sizes["x"] // by
    values = series.isel(y=slice(H * by), x=slice(W * by)).values
    means = values.reshape(*values.shape[:2], H, by, W, by).mean(axis=(3, 5))
    first = by // 2  # the centre of a block of by x by pixels
    return make_like(series, np.round(means)), make_like(
        series, values[..., first : first + (H - 1) * by + 1, first : first + (W - 1) * by + 1]
    )


def store(coarse: Series, place: Path) -> Path:
    """Write coarse data as NetCDF, or as a folder of pictures."""
    if side(coarse, "y") is not None:
        formats.write(coarse, place.with_suffix(".nc"), {})
        return place.with_suffix(".nc")
    place.mkdir()
    for number, frame in enumerate(coarse.values[:, 0].astype(np.uint8)):
        Image.fromarray(frame).save(place / f"{number:04d}.png")
    return place


def enlarged(frames: np.ndarray, by: int) -> dict[str, np.ndarray]:
    """Frames [τ, H, W] by ways that know nothing of the model."""
    size = tuple((n - 1) * by + 1 for n in frames.shape[1:])

    def resized(mode: str) -> np.ndarray:
        made = torch.nn.functional.interpolate(
            torch.from_numpy(frames)[:, None].double(), size, mode=mode, align_corners=True
        )
        return made[:, 0].numpy()

    keys = between.interpolated(torch.from_numpy(frames).double(), every_place(frames.shape[1:], by), between.BICUBIC)
    spline = np.stack(
        [zoom(f.astype(float), [n / m for n, m in zip(size, f.shape, strict=True)], order=3) for f in frames]
    )
    ways = {
        "bilinear": resized("bilinear"),
        "bicubic (a = -1/2)": keys.numpy(),
        "bicubic (a = -3/4)": resized("bicubic"),
    }
    return ways | {"cubic spline": spline}


def every_place(size: tuple[int, ...], by: int) -> between.Spots:
    """The places of a grid `by` times as fine."""
    rows, columns = (torch.arange((n - 1) * by + 1, dtype=torch.float64) / by for n in size)
    return between.Spots(rows, columns, crossed=True)


def rmse(errors: np.ndarray, by: int) -> np.ndarray:
    """RMSE at each lead over the places between cells: [τ, H, W] → [τ]."""
    known = np.zeros(errors.shape[1:], bool)
    known[::by, ::by] = True
    return np.sqrt(np.mean(np.square(errors[:, ~known]), axis=1))


def measure(run: Path, coarse: Path, fine: Series, by: int, inits: Sequence[int]) -> dict[str, np.ndarray]:
    """RMSE of each way, [inits, τ]; "… of the truth": of the coarse truth instead of a forecast."""
    model = pdr_cli.load(run).loaded
    intake = Intake(model)
    (series,) = intake.open([coarse])
    found: dict[str, list[np.ndarray]] = {}
    for init in inits:
        made = forecast(model, intake, series, init)
        after = slice(init + 1, init + 1 + made.frames.sizes["time"])
        truth = fine.isel(time=after).values[:, 0].astype(float)
        ways = enlarged(made.frames.values[:, 0], by)
        for method in ("bilinear", "bicubic"):
            placed = forecast(model, intake, series, init, finer=Finer(scale=by, method=method)).written
            ways[f"--scale, {method}"] = placed.values[:, 0].astype(float)
        known = series.isel(time=after).values[:, 0].astype(np.float32)
        ways |= {f"{way}, of the truth": frames for way, frames in enlarged(known, by).items()}
        for way, frames in ways.items():
            found.setdefault(way, []).append(rmse(frames - truth, by))
    return {way: np.stack(each) for way, each in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True, help="a new folder")
    parser.add_argument("--by", type=int, default=2, help="N")
    parser.add_argument("--preset", default="weather-small")
    parser.add_argument("--inits", type=int, default=40, help="forecasts that are scored")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    given = parser.parse_args()
    given.output.mkdir(parents=True)
    pairs = [coarsened(formats.open_series([path], ReadOptions())[0], given.by) for path in given.data]
    coarse, fine = pairs[-1]
    first = int(TRAINED * coarse.sizes["time"]) if len(pairs) == 1 else 0
    seen = [coarse.isel(time=slice(first))] if len(pairs) == 1 else [one for one, _ in pairs[:-1]]
    files = [store(one, given.output / f"seen{n}") for n, one in enumerate(seen)]
    settings = PAINTS | ({} if side(coarse, "y") is not None else {"data.size": []})
    settings |= dict(text.split("=", 1) for text in given.set)
    options = {"preset": given.preset, "variables": names(coarse) if side(coarse, "y") is not None else ()}
    run = pdr_cli.train(files, settings=settings, out=given.output / "run", **options)
    model = pdr_cli.load(run.path)
    last = coarse.sizes["time"] - 1 - model.config.data.out_steps
    chosen = np.unique(np.linspace(first + model.config.data.in_steps, last, given.inits).astype(int))
    scores = measure(run.path, store(coarse, given.output / "whole"), fine, given.by, chosen)
    bicubic = scores["bicubic (a = -1/2)"].mean(axis=1)
    print(
        f"{coarse.sizes['y']} x {coarse.sizes['x']} to {fine.sizes['y']} x {fine.sizes['x']}, {len(chosen)} forecasts"
    )
    for way, each in scores.items():
        leads = " ".join(f"{v:8.4f}" for v in each.mean(axis=0)[[0, -1]])
        change = each.mean(axis=1) / bicubic - 1
        error = change.std(ddof=1) / np.sqrt(len(change))
        beside = "" if "truth" in way else f"  against bicubic {100 * change.mean():+.2f} ± {100 * error:.2f} %"
        print(f"{way:28} RMSE {each.mean():8.4f}  first and last lead {leads}{beside}")


if __name__ == "__main__":
    main()
