"""Model + Series → forecast Series. The way out of the network: arrays get their times, names and units back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from pdr_cli import checkpoint, devices
from pdr_cli.checkpoint import ModelCard
from pdr_cli.data import formats, netcdf, windows
from pdr_cli.data import series as fields
from pdr_cli.data import times as time_axis
from pdr_cli.data.climatology import Climatology
from pdr_cli.data.series import Orientation, Series
from pdr_cli.data.statistics import check_finite
from pdr_cli.errors import GridError, VariableError

if TYPE_CHECKING:
    import torch

    from pdr_cli.models.pdr import PDR


@dataclass(frozen=True)
class Layers:
    """What a forecast is made of, in data units: each [B, τ, C, H, W]; `gaussians` is in network units."""

    fused: np.ndarray
    coarse: np.ndarray
    gaussians: np.ndarray | None


@dataclass(frozen=True)
class Observed:
    """The window a forecast starts from: frames [1, T, C, H, W] on the model's grid, and [start, stop) in the series."""

    frames: np.ndarray
    turn: Orientation
    start: int
    stop: int


class Model:
    """A trained model, ready to forecast.

    Args:
        network: in evaluation mode, on `device`.
        card: the header of its file.
        climatology: of its training data.
        device: where it computes.
        path: its file.
    """

    def __init__(
        self, network: PDR, card: ModelCard, climatology: Climatology, device: torch.device, path: Path
    ) -> None:
        self.network, self.card, self.climatology = network, card, climatology
        self.device, self.path = device, path

    def predict(
        self,
        data: xr.Dataset | xr.DataArray,
        init: str | None = None,
        steps: int | None = None,
        rename: Mapping[str, str] | None = None,
    ) -> xr.DataArray:
        """Forecast from an open dataset, as `pdr predict` does from its file.

        Args:
            data: a dataset with the model's variables, or a Series.
            init: time of the last observation to use; default: the last one.
            steps: frames to forecast; default: as many as the model was trained for.
            rename: {variable of the model: its name in `data`}.

        Returns:
            The forecast, dims (time, channel, y, x), in the data's units.
        """
        if isinstance(data, xr.Dataset):
            wanted = list(self.card.variables)
            data = netcdf.from_datasets([(data, Path("dataset"))], wanted, rename)
        at = None if init is None else time_axis.parse(init, data.time.values)
        return self.forecast(data, at, steps)

    def open(self, paths: Sequence[Path], rename: Mapping[str, str] | None = None) -> list[Series]:
        """Open input files the way this model was trained: its variables, its frame size and colour."""
        data = self.card.config.data
        size = self.card.size if data.size else ()
        color = "rgb" if self.card.format == "video" and len(self.card.variables) == 3 else "gray"
        wanted = list(self.card.variables) if self.card.format != "video" else []
        return formats.open_series(paths, variables=wanted, rename=rename, size=size, color=color)

    def forecast(self, series: Series, init: int | None = None, steps: int | None = None) -> Series:
        """Forecast the frames after frame `init` (default: the last) of a series.

        Raises:
            GridError, VariableError, TimeError, MissingValuesError: the series does not fit the model.
        """
        window = self.observe(series, init)
        return self.dress(self.run(window.frames, steps).fused, series, window)

    def observe(self, series: Series, init: int | None = None) -> Observed:
        """The frames up to frame `init` (default: the last) that a forecast starts from; raises what `forecast` does."""
        turn = self.check(series)
        start, stop = windows.last_window(series, self.card.config.data.in_steps, self.card.step, init)
        frames = fields.read_frames(series, start, stop)
        check_finite(frames, series, start)
        return Observed(turn.apply(frames)[None], turn, start, stop)

    def check(self, series: Series) -> Orientation:
        """How to turn the frames of a series to the model's grid.

        Raises:
            VariableError: other channels.
            GridError: another grid.
        """
        if series.sizes["channel"] != len(self.card.variables):
            raise VariableError(
                f"{series.attrs['files'][0]} has {series.sizes['channel']} channels ({', '.join(fields.names(series))}), "
                f"the model {len(self.card.variables)} ({', '.join(self.card.variables)})"
            )
        if fields.size(series) != self.card.size:
            here, there = ("{} x {}".format(*s) for s in (fields.size(series), self.card.size))
            raise GridError(
                f"{series.attrs['files'][0]} is on a grid of {here}, the model's is {there}; "
                "regrid the input to the model's grid, or train on this one"
            )
        sides = [fields.side(series, d) for d in ("y", "x")]
        mine = [self.card.y, self.card.x]
        here_y, here_x = (None if s is None else np.asarray(s.values, float) for s in sides)
        model_y, model_x = (None if s is None else np.asarray(s.values) for s in mine)
        return fields.orient(here_y, here_x, model_y, model_x)

    def run(self, observed: np.ndarray, steps: int | None = None) -> Layers:
        """Forecast arrays: observed [B, T, C, H, W] in data units on the model's grid."""
        import torch

        steps = steps or self.card.config.data.out_steps
        with torch.inference_mode():
            x = torch.from_numpy(self.card.scaling.apply(observed)).to(self.device)
            out = self.network(x, steps)
        scale = self.card.scaling.invert
        painted = None if out.gaussians_image is None else out.gaussians_image.float().cpu().numpy()
        return Layers(scale(out.fused.float().cpu().numpy()), scale(out.coarse.float().cpu().numpy()), painted)

    def dress(self, frames: np.ndarray, series: Series, window: Observed) -> Series:
        """Frames [1, τ, C, H, W] as a Series with the input's orientation and coordinates, and the times they are valid at."""
        frames = window.turn.invert(frames[0])
        init = series.time.values[window.stop - 1]
        valid = time_axis.following(init, self.card.step, len(frames))
        start = time_axis.seconds(np.array([init]))[0]
        lead = (time_axis.seconds(valid) - start) / 3600
        coords = {str(n): (c.dims, c.values, c.attrs) for n, c in series.coords.items() if n not in ("time", "channel")}
        coords["forecast_reference_time"] = ((), init, {})
        coords["forecast_period"] = (("time",), lead, {"units": "hours"})
        out = fields.make_series(
            frames,
            valid,
            series.attrs["variables"],
            coords,
            format=series.attrs["format"],
            files=series.attrs["files"],
            file_attrs=series.attrs["file_attrs"],
        )
        return out.assign_attrs({k: v for k, v in series.attrs.items() if k not in out.attrs})


class Deferred(Model):
    """A model of which only the header has been read; the rest follows, with torch, when it is first asked for.

    Args:
        path: its file.
        device: see `devices.pick`.
    """

    def __init__(self, path: Path, device: str = "auto") -> None:
        self.card, self.path, self._wanted = checkpoint.load_card(path), path, device

    def __getattr__(self, name: str) -> Any:
        if name not in ("network", "climatology", "device"):
            raise AttributeError(name)
        loaded = load(self.path, self._wanted)
        self.network, self.climatology, self.device = loaded.network, loaded.climatology, loaded.device
        return getattr(self, name)


def load(path: Path, device: str = "auto") -> Model:
    """Load a model file.

    Raises:
        CheckpointError: truncated, altered, foreign or too new.
        DeviceError: a GPU that is not there.
    """
    where = devices.pick(device)
    card, weights, climatology = checkpoint.load(path)
    network = build(card.config, len(card.variables), card.size)
    network.load_state_dict(weights)
    return Model(network.eval().to(where), card, climatology, where, path)


def build(config: Any, channels: int, size: tuple[int, int]) -> PDR:
    """The network that a configuration describes, for data of this many channels and this size (H, W)."""
    from pdr_cli.models.pdr import build_pdr

    model = config.model
    return build_pdr(
        in_steps=config.data.in_steps,
        channels=channels,
        size=size,
        **model.model_dump(),
    )
