"""A forecast at other places than the cells of its grid: on a finer grid, or at points."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pdr_cli.data import regrid, spots
from pdr_cli.data.formats import pointfile
from pdr_cli.data.grid import Orientation
from pdr_cli.data.series import Series, make_like, size
from pdr_cli.data.spots import STATIONS, Places, Points
from pdr_cli.errors import UsageError
from pdr_cli.inference.intake import Intake
from pdr_cli.inference.loaded import Layers, LoadedModel
from pdr_cli.inference.observed import Observed

if TYPE_CHECKING:
    from torch import Tensor

    from pdr_cli.models.finer import Spots

BILINEAR, CONSERVATIVE = regrid.METHODS
BICUBIC = "bicubic"
INTERPOLATION = "pdr_interpolation"  # attribute of such a forecast: how it was made
POINTS = "pdr_points"  # attribute of a forecast at points: how many


@dataclass(frozen=True)
class Finer:
    """Where a forecast is written.

    Args:
        size: (H, W) of the new grid; None: that of the input.
        scale: how many times as fine the new grid is; 1: no finer.
        points: a CSV file of points; None: a grid.
        method: how all but the Gaussians is interpolated, "bilinear", "bicubic" or "conservative".
    """

    size: tuple[int, int] | None = None
    scale: int = 1
    points: Path | None = None
    method: str = BILINEAR

    @classmethod
    def parse(cls, size: str | None, scale: int | None, points: Path | None, method: str | None) -> Finer:
        """The options `--size`, `--scale`, `--points` and `--interpolate`; None: not given.

        Raises:
            UsageError: several places at once, a size that is none, or a method that does not fit.
        """
        given = {"--size": size, "--scale": scale, "--points": points}
        chosen = [name for name, value in given.items() if value is not None]
        if len(chosen) > 1:
            raise UsageError(f"{' and '.join(chosen)} are different places", way_out="choose one of them")
        if method is not None:
            if not chosen:
                raise UsageError(
                    "--interpolate is how --size, --scale and --points interpolate", way_out="add one of them"
                )
            if method != BICUBIC:
                regrid.check_method(method, "--interpolate", (BILINEAR, BICUBIC, CONSERVATIVE))
        if points is not None and method == CONSERVATIVE:
            raise UsageError(
                "--interpolate conservative keeps the means of areas, and points have none", way_out="use bilinear"
            )
        return cls(None if size is None else spots.check_size(size), scale or 1, points, method or BILINEAR)

    @property
    def option(self) -> str:
        """The option that is given; "" for the cells of the grid."""
        chosen = {"--size": self.size, "--scale": self.scale > 1, "--points": self.points}
        return next((name for name, value in chosen.items() if value), "")

    def identity(self) -> dict[str, Any]:
        """What a request's identity holds of it; nothing for the cells of the grid."""
        if not self.option:
            return {}
        listed = None if self.points is None else self._points()
        table = None if listed is None else [listed.columns, listed.names, listed.y, listed.x]
        return {"places": [self.size, self.scale, table, self.method]}

    def places(self, series: Series) -> Places:
        """The places on the grid of an input.

        Raises:
            GridError: points outside of it, or a grid with a latitude and longitude of each cell.
            DataError: a file of points that cannot be read.
        """
        return spots.finer(series, self._resized) if self.points is None else spots.at(series, self._points())

    def _points(self) -> Points:
        assert self.points is not None  # as callers check
        return pointfile.read(self.points)

    def _resized(self, own: tuple[int, int], around: bool) -> tuple[int, int]:
        (height, width), n = own, self.scale
        return self.size or ((height - 1) * n + 1, width * n if around else (width - 1) * n + 1)


CELLS = Finer()


@dataclass(frozen=True)
class Placed:
    """A forecast at other places.

    Args:
        frames: [τ, C, R, S], of single places [τ, C, 1, P].
        words: where, and how it was interpolated.
    """

    frames: Series
    words: str

    def attributes(self) -> dict[str, str]:
        """Global attributes, beside those of every forecast."""
        single = STATIONS in self.frames.attrs
        return {INTERPOLATION: self.words} | ({POINTS: str(self.frames.sizes["x"])} if single else {})


def forecast(
    model: LoadedModel, intake: Intake, series: Series, window: Observed, steps: int | None, finer: Finer
) -> tuple[Layers, Placed]:
    """The direct forecast after a window of an adapted series, and the same at the places of `finer`.

    Raises:
        GridError: see `Finer.places`.
        UsageError: an exported program, whose layers are not to be had between the cells.
    """
    import torch

    from pdr_cli.inference.model import with_network
    from pdr_cli.models import finer as between

    loaded = with_network(model, finer.option)
    places, card = finer.places(series), model.card
    where = _spots(places, window.orientation, card.size)

    def by_area(frames: Tensor) -> Tensor:
        return torch.from_numpy(_by_area(frames[0].float().cpu().numpy(), series, window, places))[None].to(frames)

    taps = between.BICUBIC if finer.method == BICUBIC else between.BILINEAR
    absent = np.broadcast_to(window.never_observed, (len(card.variables), *card.size))
    absent = absent if model.never_observed is None else absent | model.never_observed
    with torch.inference_mode(), loaded.arithmetic():
        batch = loaded.batch(window.frames, model.horizon(steps), intake.context(series, window, steps))
        out = model.batches.attempt(lambda _: loaded.network(batch), 1)
        layers = loaded.layers(out)
        spread = by_area if finer.method == CONSERVATIVE else None
        made = between.forecast(loaded.network, batch.observed, out, where, taps, spread)[0].float().cpu()
        if absent.any() and taps == between.BICUBIC:  # next to land, whose numbers mean nothing
            near = _touching(absent, where, taps)
            linear = between.forecast(loaded.network, batch.observed, out, where)[0].float().cpu()
            made = torch.where(near, linear, made)
    unknown = _touching(absent, where, between.BILINEAR).numpy()
    values = np.where(unknown, np.float32(np.nan), card.scaling.invert(made.numpy()))
    at_places = intake.dated(values, _without_cells(series, places), window, sides=places.sides)
    part = "Gaussian layer by its values at the places, the rest" if between.paints(loaded.network) else "all"
    height, width = size(series)
    return layers, Placed(
        at_places, f"{places.words} by interpolation from {height} x {width} cells ({part} {finer.method})"
    )


def _touching(cells: np.ndarray, where: Spots, taps: int) -> Tensor:
    """Places that depend on one of some cells [C, H, W]: [C, R, S], of single places [C, 1, P]."""
    import torch

    from pdr_cli.models import finer as between

    return between.interpolated(torch.from_numpy(cells.astype(np.float64)), where, taps).abs() > 0


def _spots(places: Places, turn: Orientation, grid: tuple[int, int]) -> Spots:
    """The places in cells of the model's grid, of a size (H, W)."""
    import torch

    from pdr_cli.models.finer import Spots

    around = places.around or turn.repeats_x or turn.closes_x
    columns, rows = turn.apply_points(places.columns, places.rows, grid, around)
    row, column = (torch.from_numpy(np.ascontiguousarray(v, np.float64)) for v in (rows, columns))
    circle = grid[1] - turn.closes_x if around else 0
    return Spots(row, column, crossed=places.points is None, circle=circle)


def _by_area(frames: np.ndarray, series: Series, window: Observed, places: Places) -> np.ndarray:
    """Frames [τ, C, H, W] on the model's grid as means over the cells of the new one, in the input's order."""
    given = make_like(series, window.orientation.invert(frames), times=np.arange(float(len(frames))))
    coordinates = {dim: (name, values, attrs) for name, (dim, values, attrs) in places.sides.items()}
    nothing: regrid.Coordinate = ("", np.empty(0), {})  # on a grid without coordinates, which `regrid` refuses
    return np.asarray(
        regrid.to_grid(given, coordinates.get("y", nothing), coordinates.get("x", nothing), CONSERVATIVE).values,
        np.float32,
    )


def _without_cells(series: Series, places: Places) -> Series:
    """A series without what describes the cells of its grid; of points with their list, and without the grid's projection."""
    dropped = {"bounds"} if places.points is None else {"bounds", "grid_mapping"}
    kept = {k: v for k, v in series.attrs.items() if k not in dropped}
    made = series.copy(deep=False)
    made.attrs = kept if places.points is None else kept | {STATIONS: places.points}
    return made
