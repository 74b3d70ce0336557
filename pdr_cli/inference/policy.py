"""Which defects of an input are mended."""

from __future__ import annotations

from dataclasses import dataclass

from pdr_cli.data import missing, regrid
from pdr_cli.errors import UsageError


@dataclass(frozen=True)
class InputPolicy:
    """Which defects of an input are mended. By default none is: the input is refused.

    Args:
        fill_missing: "none", or how missing values of the window are filled: see `Filling`.
        fill_gap: "none", or "interp": a single missing step becomes the mean of its neighbours.
        regrid: "none", or how a field on another grid is interpolated to the model's: "bilinear" or "conservative".
        allow_out_of_range: accept values far outside of the range of the training data.
        resample_fps: frames a second that a clip is resampled to; 0: as in training.
        gray_to_rgb: read a gray clip as three equal channels, red, green and blue.
        group: group of the file that holds the fields; "": as in training.
        missing_values: numbers that stand for missing values besides those of training, see `ReadOptions`.
        assume: conventions that the files leave open, such as `slots=0-23`, see `data/arrays.py`.

    Raises:
        UsageError: an unknown method.
    """

    fill_missing: str = "none"
    fill_gap: str = "none"
    regrid: str = "none"
    allow_out_of_range: bool = False
    resample_fps: float = 0
    gray_to_rgb: bool = False
    group: str = ""
    missing_values: tuple[str, ...] = ()
    assume: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        missing.check_method(self.fill_missing)
        if self.fill_gap not in ("none", "interp"):
            raise UsageError(f"--fill-gap {self.fill_gap} is not known", way_out="use interp")
        if self.regrid != "none":
            regrid.check_method(self.regrid)
