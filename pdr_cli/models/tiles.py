"""Tiles: a forecast of a large grid made piece by piece, and crops of it for training.

Neighbouring tiles overlap and are blended where they do. Each is forecast as a grid of its own: what a network reads beyond
its overlap, and means that norms take over a frame, are those of the tile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from pdr_cli.errors import ConfigError
from pdr_cli.models.interfaces import Batch, Forecast

if TYPE_CHECKING:
    from pdr_cli.schema import ModelConfig

CONVOLUTIONAL = ("simvp", "simvp2", "tau", "convnext", "hornet", "moganet", "van", "convmixer", "poolformer", "none")
ADAPTERS = ("local", "conv")
ANCHORS = ("none", "persistence", "climatology", "anomaly")  # without numbers of cells


def check(options: ModelConfig, key: str) -> None:
    """Refuse a network that is not the same everywhere; `key` is what cuts the grid.

    Raises:
        ConfigError: with the part that is tied to the grid, and why.
    """
    name = options.backbone
    why = {
        "unet": "it keeps a map of numbers for each cell",
        "vit": "it attends to the whole frame",
        "uniformer": "it attends to the whole frame",
        "swin": "its windows of attention belong to a grid",
        "mlpmixer": "its weights belong to a grid",
    }.get(name, "it is not known to be convolutional")
    if name not in CONVOLUTIONAL:
        raise ConfigError(f"{key} with --backbone {name}: {why}", f"one of {', '.join(CONVOLUTIONAL)}")
    if options.fusion != "none" and options.adapter not in ADAPTERS:
        found = f"{key} with --adapter {options.adapter}: its Gaussians belong to the whole frame"
        raise ConfigError(found, " or ".join(ADAPTERS), "take --adapter local, or --fusion none")
    if options.anchor not in ANCHORS:
        found = f"{key} with --anchor {options.anchor}: its numbers belong to cells of the whole frame"
        raise ConfigError(found, f"one of {', '.join(ANCHORS)}")
    if options.inputs == "anomalies" or options.noise:
        what = (
            "model.inputs anomalies: their spread belongs"
            if options.inputs == "anomalies"
            else "model.noise: it belongs"
        )
        raise ConfigError(f"{key} with {what} to the whole frame", way_out=f"leave out {what.split(':')[0]}")


def check_sides(sides: list[int], overlap: int, options: ModelConfig, key: str) -> None:
    """Refuse sides that are not whole cells of the coarsest grid of the network.

    Raises:
        ConfigError: names the multiple.
    """
    cell = cell_of(options)
    if any(side % cell for side in (*sides, overlap)):
        given = f"{key} is {sides}" + (f" and model.tile_overlap {overlap}" if overlap else "")
        raise ConfigError(given, f"multiples of {cell}, the coarsest cell of the network")


def cell_of(options: ModelConfig) -> int:
    """Side of the coarsest cell of a network, in cells of the grid."""
    return max(2 ** (options.n_s // 2), options.cell_stride)


class Span(NamedTuple):
    """The part of a tile along one axis.

    Args:
        places: rows or columns of the grid, [n].
        weight: of each of them in the blend, [n].
    """

    places: Tensor
    weight: Tensor


@dataclass(frozen=True)
class Tiles:
    """Tiles of a grid.

    Args:
        sides: rows and columns of a tile, without the overlap.
        overlap: cells that a tile reads beyond its sides.
        periodic: True if the last column is a neighbour of the first.
    """

    sides: tuple[int, int]
    overlap: int
    periodic: bool

    def forecast(self, batch: Batch, network: Callable[[Batch], Forecast]) -> Forecast:
        """The forecast of a network, tile by tile: weighted means where tiles overlap."""
        H, W = batch.observed.shape[-2:]
        sums: dict[str, Tensor] = {}
        total = batch.observed.new_zeros(H, W)
        for rows in self.spans(H, self.sides[0], around=False):
            for columns in self.spans(W, self.sides[1], around=self.periodic):
                weight = (rows.weight[:, None] * columns.weight).to(total)
                at = (..., rows.places[:, None], columns.places)
                total[at] += weight
                for name, frames in _frames(network(cut(batch, rows.places, columns.places))):
                    if name not in sums:
                        sums[name] = frames.new_zeros(*frames.shape[:-2], H, W)
                    sums[name][at] += weight.to(frames) * frames
        made = {name: frames / total.to(frames) for name, frames in sums.items()}
        return Forecast(made["fused"], made["coarse"], made.get("layer"), {})

    def spans(self, length: int, side: int, around: bool) -> Iterator[Span]:
        """The tiles along an axis of so many cells, which goes `around` or ends at a border."""
        if side + 2 * self.overlap >= length:
            yield Span(torch.arange(length), torch.ones(length))
            return
        for start in range(0, length, side):
            stop = min(start + side, length)
            low, high = start - self.overlap, stop + self.overlap
            if not around:
                low, high = max(low, 0), min(high, length)
            places = torch.arange(low, high)
            inside = torch.ones(high - low)
            if around or low > 0:
                inside = torch.minimum(inside, self._rise(places - start))
            if around or high < length:
                inside = torch.minimum(inside, self._rise(stop - 1 - places))
            yield Span(places % length, inside)

    def _rise(self, cells: Tensor) -> Tensor:
        """The weight of places so many cells inside a side of a tile: 0 from half an overlap outside, 1 from half inside.

        The weights of two neighbours sum to 1, and the outer half of the overlap only keeps borders away.
        """
        if not self.overlap:
            return (cells >= 0).float()
        share = ((cells + 0.5) / self.overlap + 0.5).clamp(0, 1)
        return share * share * (3 - 2 * share)  # without a bend, which a field would show


def _frames(made: Forecast) -> Iterator[tuple[str, Tensor]]:
    for name in ("fused", "coarse", "layer"):
        frames = getattr(made, name)
        if frames is not None:
            yield name, frames


def cut(batch: Batch, rows: Tensor, columns: Tensor) -> Batch:
    """The batch on some rows and columns of its grid."""
    size = batch.observed.shape[-2:]
    fields = {
        name: crop(value, rows, columns)
        for name, value in batch._asdict().items()
        if isinstance(value, Tensor) and value.shape[-2:] == size
    }
    return batch._replace(**fields)  # type: ignore[arg-type]  # tensors of tensors


def crop(frames: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Frames [..., H, W] on some rows and columns."""
    return frames[..., rows.to(frames.device)[:, None], columns.to(frames.device)]


def random_places(length: int, side: int, cell: int, around: bool) -> Tensor:
    """The rows or columns of a random crop, [side], which begins at a whole cell."""
    if side >= length:
        return torch.arange(length)
    last = length - 1 if around else length - side
    start = int(torch.randint(last // cell + 1, ())) * cell
    return torch.arange(start, start + side) % length
