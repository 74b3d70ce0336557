"""The options of a translator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from pdr_cli.errors import ConfigError
from pdr_cli.models.interfaces import Frames

if TYPE_CHECKING:
    from pdr_cli.schema import ModelConfig

PARTS = 8  # heads of attention, or eighths of the channels, in the translators that split them


class Grid(NamedTuple):
    """Frames of `size` (H, W), which the encoder reduces to `latent` (H', W'), padded to whole cells of `cell` pixels."""

    size: tuple[int, int]
    cell: int

    @property
    def latent(self) -> tuple[int, int]:
        """(H', W')."""
        return -(-self.size[0] // self.cell), -(-self.size[1] // self.cell)


@dataclass(frozen=True)
class TranslatorOptions:
    """A translator of [B, channels, H', W'] to the same shape.

    Args:
        channels: T·hid_S of the shell.
        hid_t: width of the stages between the first and the last.
        n_t: number of stages, at least 2.
        mlp_ratio: width of a block's MLP over the block's.
        drop_path: stochastic depth of the last stage.
        grid: of the frames.
        periodic: True if the last column is a neighbour of the first.
    """

    channels: int
    hid_t: int
    n_t: int
    mlp_ratio: float
    drop_path: float
    grid: Grid
    periodic: bool = False

    @classmethod
    def of(cls, frames: Frames, options: ModelConfig) -> TranslatorOptions:
        """The options of the [model] table."""
        return cls(
            frames.in_steps * options.hid_s,
            options.hid_t,
            options.n_t,
            options.mlp_ratio,
            options.drop_path,
            Grid(frames.size, 2 ** (options.n_s // 2)),
            frames.periodic,
        )

    def __post_init__(self) -> None:
        if self.n_t < 2:
            raise ConfigError(f"model.n_t is {self.n_t}", "2 or more stages of a translator")
        if not 0 <= self.drop_path < 1:
            raise ConfigError(f"model.drop_path is {self.drop_path}", "a probability below 1")

    def hidden(self, dim: int) -> int:
        """Width of the MLP in a block of width `dim`."""
        return int(dim * self.mlp_ratio)

    def check_widths(self, name: str) -> None:
        """Refuse widths that are not multiples of eight.

        Raises:
            ConfigError: names the width and the nearest multiples.
        """
        for what, width in (("in_steps · hid_s", self.channels), ("hid_t", self.hid_t)):
            if width % PARTS:
                below, above = width // PARTS * PARTS, (width // PARTS + 1) * PARTS
                near = f"{below} or {above}" if below else f"{above}"
                raise ConfigError(f"{what} is {width}", f"a multiple of {PARTS} for {name}, such as {near}")
