"""What a translator is built from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from pdr_cli.errors import ConfigError

PARTS = 8  # heads of attention, or eighths of the channels, in the translators that split them


class Grid(NamedTuple):
    """Frames of `size` (H, W), which the encoder takes to `latent` (H', W'), padded to whole cells of `cell` pixels."""

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
        grid: the frames it is built for; None where only their number of channels is known.
    """

    channels: int
    hid_t: int
    n_t: int
    mlp_ratio: float
    drop_path: float
    grid: Grid | None = None

    def __post_init__(self) -> None:
        if self.n_t < 2:
            raise ConfigError(f"n_t is {self.n_t}; a translator needs at least 2 stages.")
        if not 0 <= self.drop_path < 1:
            raise ConfigError(f"drop_path is {self.drop_path}; it is a probability below 1.")

    def hidden(self, dim: int) -> int:
        """Width of the MLP in a block of width `dim`."""
        return int(dim * self.mlp_ratio)

    def check_widths(self, name: str) -> None:
        """Refuse widths that cannot be split in eight.

        Raises:
            ConfigError: names the width and the nearest ones that can.
        """
        for what, width in (("in_steps · hid_s", self.channels), ("hid_t", self.hid_t)):
            if width % PARTS:
                below, above = width // PARTS * PARTS, (width // PARTS + 1) * PARTS
                near = f"{below} or {above}" if below else f"{above}"
                raise ConfigError(f"{what} is {width}; {name} splits it in {PARTS}, so it must be such as {near}.")

    def require_grid(self, name: str) -> Grid:
        """The grid, for a translator that is built for one.

        Raises:
            ConfigError: it is not known.
        """
        if self.grid is None:
            raise ConfigError(f"{name} is built for one grid; say its size (H, W).")
        return self.grid
