"""Model + Series → forecast Series. The way out of the network: arrays get their times, names and units back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from pdr_cli.config import Config
from pdr_cli.data import formats, kinds, limits, missing, regrid, units, windows
from pdr_cli.data import series as fields
from pdr_cli.data import times as time_axis
from pdr_cli.data.climatology import Climatology
from pdr_cli.data.formats import fields as fields_of_datasets
from pdr_cli.data.kinds import Kind
from pdr_cli.data.missing import Filling
from pdr_cli.data.series import Orientation, Series
from pdr_cli.errors import CheckpointError, GridError, UsageError, VariableError
from pdr_cli.runs import modelfile
from pdr_cli.runs.modelfile import ModelCard, Side
from pdr_cli.system import devices, hashes
from pdr_cli.system.logs import log
from pdr_cli.system.memory import Batches

if TYPE_CHECKING:
    import torch

    from pdr_cli.models.pdr import PDR

BATCH_OPTION = "--batch {}"  # of predict and evaluate


@dataclass(frozen=True)
class Layers:
    """What a forecast is made of, in data units: each [B, τ, C, H, W]; `gaussians` is in network units."""

    fused: np.ndarray
    coarse: np.ndarray
    gaussians: np.ndarray | None


@dataclass(frozen=True)
class Repairs:
    """What may be mended in an input that is not as it should be. The default: nothing, it is refused.

    Args:
        fill_missing: "none", or how missing values of the window are filled: see `Filling`.
        fill_gap: "none", or "interp": a single missing step is the mean of its neighbours.
        regrid: "none", or how another grid is brought to the model's: "bilinear" or "conservative".
        allow_out_of_range: take values that are far outside of what the model was trained on.
        resample_fps: frames a second that a clip is brought to; 0: as in the model's training.
        gray_to_rgb: read a gray clip as red, green and blue alike.

    Raises:
        UsageError: no such way.
    """

    fill_missing: str = "none"
    fill_gap: str = "none"
    regrid: str = "none"
    allow_out_of_range: bool = False
    resample_fps: float = 0
    gray_to_rgb: bool = False

    def __post_init__(self) -> None:
        missing.check_method(self.fill_missing)
        if self.fill_gap not in ("none", "interp"):
            raise UsageError(f"--fill-gap {self.fill_gap}: use interp")
        if self.regrid != "none":
            regrid.check_method(self.regrid)


@dataclass(frozen=True)
class Observed:
    """The window a forecast starts from.

    Args:
        frames: [1, T, C, H, W] on the model's grid, nothing missing.
        turn: the series' grid to the model's.
        start: first frame in the series.
        stop: one past the last.
        unknown: cells of which the window holds no value, [C, H, W] on the model's grid; their forecast is not told.
        notes: what was mended in it, for the history of the forecast; `notes` says what was in the whole series.
    """

    frames: np.ndarray
    turn: Orientation
    start: int
    stop: int
    unknown: np.ndarray
    notes: tuple[str, ...] = ()


class Model:
    """A trained model, ready to forecast.

    Args:
        network: in evaluation mode, on `device`.
        card: the header of its file.
        climatology: of its training data.
        device: where it computes.
        path: its file.
        sha256: of that file, as it was when the model was read: training may replace it meanwhile.
        repairs: what may be mended in its inputs.
        batch: windows that the network sees at once, at most; None: as many as it is given.
    """

    def __init__(
        self,
        network: PDR,
        card: ModelCard,
        climatology: Climatology,
        device: torch.device,
        path: Path,
        sha256: str,
        repairs: Repairs | None = None,
        batch: int | None = None,
    ) -> None:
        self.network, self.card, self.climatology = network, card, climatology
        self.device, self.path, self.sha256 = device, path, sha256
        self.repairs = repairs or Repairs()
        self.batches = Batches(BATCH_OPTION, batch)

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
            data = fields_of_datasets.from_datasets([(data, Path("dataset"))], wanted, rename)
        at = None if init is None else time_axis.parse(init, data.time.values)
        return self.forecast(data, at, steps)

    def open(self, paths: Sequence[Path], rename: Mapping[str, str] | None = None) -> list[Series]:
        """Open input files the way this model was trained: its variables, units, frame size and colour.

        Raises:
            UnitsError: units that cannot be converted to the model's.
            GridError: another grid that `repairs` do not let be interpolated.
        """
        data = self.card.config.data
        size = self.card.size if data.size else ()
        color = "rgb" if self.kind.pictures and len(self.card.variables) == 3 else "gray"
        wanted = list(self.card.variables) if not self.kind.pictures else []
        options = formats.ReadOptions(
            variables=wanted,
            rename=dict(rename or {}),
            size=size,
            color=color,
            resample_fps=self.repairs.resample_fps or data.resample_fps,
            gray_to_rgb=self.repairs.gray_to_rgb or data.gray_to_rgb,
        )
        opened = formats.open_series(paths, options)
        return [self.fit(kinds.with_kind(series, self.kind.name)) for series in opened]

    @property
    def kind(self) -> Kind:
        """Of the data that the model was trained on."""
        return kinds.named(self.card.kind)

    def fit(self, series: Series) -> Series:
        """A series in the model's units, and on its grid if `repairs` say so; converted as it is read."""
        if series.sizes["channel"] != len(self.card.variables):
            return series  # `check` says so
        series = units.to_model(series, self.card.variables)
        if self.repairs.regrid == "none" or self._fits(series) or self.card.y is None or self.card.x is None:
            return series
        here, there = ("{} x {}".format(*s) for s in (fields.size(series), self.card.size))
        log.info("regrid  %s, %s to the model's %s; the forecast is on that grid", self.repairs.regrid, here, there)
        y, x = ((s.name, np.asarray(s.values), s.attrs) for s in (self.card.y, self.card.x))
        return regrid.to_grid(series, y, x, self.repairs.regrid).assign_attrs(regridded=self.repairs.regrid)

    def _fits(self, series: Series) -> bool:
        try:
            self.check(series)
        except GridError:
            return False
        return True

    def forecast(self, series: Series, init: int | None = None, steps: int | None = None) -> Series:
        """Forecast the frames after frame `init` (default: the last) of a series.

        Raises:
            GridError, VariableError, TimeError, MissingValuesError: the series does not fit the model.
        """
        series = self.fit(series)
        window = self.observe(series, init)
        return self.dress(self.run(window.frames, steps).fused, series, window)

    def observe(self, series: Series, init: int | None = None) -> Observed:
        """The frames up to frame `init` (default: the last) that a forecast starts from; raises what `forecast` does.

        Missing, infinite and unbelievable values are refused, unless `repairs` allow them or the model was trained on
        filled windows. Land of the training is always filled, whatever the input says there.
        """
        turn = self.check(series)
        in_steps, step = self.card.config.data.in_steps, self.card.step
        start, stop = windows.last_window(series, in_steps, step, init, fill_gap=self.repairs.fill_gap != "none")
        given = fields.read_frames(series, start, stop)
        land = None if self.card.land is None else turn.invert(self.card.land.cells)
        filling = self.filling()
        if filling.method == "none":
            missing.check(given, series, start, land)
        frames = missing.without_absurd(given)
        frames = frames if land is None else np.where(land, np.float32(np.nan), frames)
        if self.card.limits is not None and not self.repairs.allow_out_of_range and self.kind.learned_range:
            limits.check(frames, series, start, self.card.limits)
        notes = []
        frames, times = windows.close_gaps(frames, series.time.values[start:stop], step)
        if len(frames) > len(given):
            inserted = len(frames) - len(given)
            notes.append(f"{inserted} missing time step{'s' if inserted > 1 else ''} interpolated")
        frames, times = turn.apply(frames[-in_steps:]), times[-in_steps:]
        absent = ~np.isfinite(frames) if self.card.land is None else ~np.isfinite(frames) & ~self.card.land.cells
        if absent.any():
            notes.append(f"{int(absent.sum())} of {absent.size} values missing, filled by {filling.method}")
        return Observed(filling.apply(frames[None], [times]), turn, start, stop, absent.all(axis=0), tuple(notes))

    def filling(self) -> Filling:
        """What stands for missing values in this model's input: what `repairs` say, or else as in its training."""
        land, known, method = self.card.land, self.card.limits, self.repairs.fill_missing
        mean = self.card.scaling.offset if known is None else known.mean
        method = self.card.config.data.fill_missing if method == "none" else method
        climatology = None if method == "none" else self.climatology  # which takes torch to read
        return Filling(np.asarray(mean), None if land is None else land.cells, method, climatology)

    def land_on(self, series: Series) -> np.ndarray:
        """Cells that training never knew, on the grid of a series: [C, H, W]."""
        shape = (len(self.card.variables), *self.card.size)
        cells = np.zeros(shape, bool) if self.card.land is None else self.card.land.cells
        return self.check(series).invert(cells)

    def check(self, series: Series) -> Orientation:
        """How to turn the frames of a series to the model's grid.

        Raises:
            VariableError: other channels.
            UnitsError: other units; `fit` converts them.
            GridError: another grid; `fit` interpolates it where `repairs` say so.
        """
        if series.sizes["channel"] != len(self.card.variables):
            raise VariableError(
                f"{series.attrs['files'][0]} has {series.sizes['channel']} channels ({', '.join(fields.names(series))}), "
                f"the model {len(self.card.variables)} ({', '.join(self.card.variables)})"
            )
        units.check(series, self.card.variables)
        sides = [fields.side(series, d) for d in ("y", "x")]
        mine = [self.card.y, self.card.x]
        here_y, here_x = (None if s is None else np.asarray(s.values, float) for s in sides)
        model_y, model_x = (None if s is None else np.asarray(s.values) for s in mine)
        turn = None
        if fields.size(series)[0] == self.card.size[0]:
            turn = fields.orient(here_y, here_x, model_y, model_x)
        if turn is None or fields.size(series)[1] - turn.repeats_x != self.card.size[1]:
            here, there = ("{} x {}".format(*s) for s in (fields.size(series), self.card.size))
            raise GridError(
                f"{series.attrs['files'][0]} is on a grid of {here}, the model's is {there}; "
                "regrid the input to it (pdr predict --regrid bilinear), or train on this one"
            )
        return turn

    def run(self, observed: np.ndarray, steps: int | None = None) -> Layers:
        """Forecast arrays: observed [B, T, C, H, W] in data units on the model's grid, filled. On land they are NaN.

        Raises:
            MemoryShortageError: the network has no room for them, nor for half of them at once.
        """
        steps = steps or self.card.config.data.out_steps
        x = self.card.scaling.apply(observed)
        parts = self.batches.attempt(lambda n: [self._layers(x[i : i + n], steps) for i in range(0, len(x), n)], len(x))
        fused, coarse, painted = (None if p[0] is None else np.concatenate(p) for p in zip(*parts, strict=True))
        assert fused is not None
        assert coarse is not None
        return Layers(self._hide_land(fused), self._hide_land(coarse), painted)

    def _layers(self, x: np.ndarray, steps: int) -> tuple[np.ndarray | None, ...]:
        """Fused, coarse and painted frames, each [B, τ, C, H, W] in network units, of as many as the network sees at once."""
        import torch

        with torch.inference_mode():
            out = self.network(torch.from_numpy(x).to(self.device), steps)
        return tuple(None if frames is None else frames.float().cpu().numpy() for frames in out)

    def _hide_land(self, frames: np.ndarray) -> np.ndarray:
        """Network units [B, τ, C, H, W] to data units, NaN where training never knew a value."""
        frames = self.card.scaling.invert(frames)
        return frames if self.card.land is None else np.where(self.card.land.cells, np.float32(np.nan), frames)

    def dress(self, frames: np.ndarray, series: Series, window: Observed) -> Series:
        """Frames [1, τ, C, H, W] as a Series with the input's orientation, coordinates and units, and the times they are
        valid at; NaN in cells that were missing in the whole window.
        """
        frames = window.turn.invert(np.where(window.unknown, np.float32(np.nan), frames[0]))
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
            kind=series.attrs["kind"],
            files=series.attrs["files"],
            file_attrs=series.attrs["file_attrs"],
        )
        return units.as_given(out.assign_attrs({k: v for k, v in series.attrs.items() if k not in out.attrs}))


def notes(series: Series) -> list[str]:
    """What was done to a series when it was opened, in words."""
    units_of = dict(zip(fields.names(series), fields.units(series), strict=True))
    found = [f"{n} converted from {g} to {units_of[n]} and back" for n, g in series.attrs.get(units.GIVEN, {}).items()]
    found += [f"regridded ({series.attrs['regridded']})"] if "regridded" in series.attrs else []
    return found + ([f"resampled to {series.attrs['resampled']}"] if "resampled" in series.attrs else [])


class Deferred(Model):
    """A model of which only the header has been read; the rest follows, with torch, when it is first asked for.

    Args:
        path: its file.
        device: see `devices.pick`.
        repairs: what may be mended in its inputs.
        batch: see `Model`.
    """

    def __init__(
        self, path: Path, device: str = "auto", repairs: Repairs | None = None, batch: int | None = None
    ) -> None:
        self.card, self.path, self._wanted = modelfile.load_card(path), path, device
        self.sha256 = hashes.sha256(path)
        self.repairs = repairs or Repairs()
        self.batches = Batches(BATCH_OPTION, batch)

    def __getattr__(self, name: str) -> Any:
        if name not in ("network", "climatology", "device"):
            raise AttributeError(name)
        loaded = load(self.path, self._wanted)
        self.network, self.climatology, self.device = loaded.network, loaded.climatology, loaded.device
        return getattr(self, name)


def load(path: Path, device: str = "auto", repairs: Repairs | None = None, batch: int | None = None) -> Model:
    """Load a model file; arguments as for `Model`.

    Raises:
        CheckpointError: truncated, altered, foreign or too new.
        DeviceError: a GPU that is not there.
    """
    where = devices.pick(device)
    card, weights, climatology = modelfile.load(path)
    sha256 = hashes.sha256(path)
    network = build(card.config, len(card.variables), card.size, is_periodic(card.config, card.x))
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise CheckpointError(f"{path}: its weights are not those of the network it describes: {error}") from error
    return Model(network.eval().to(where), card, climatology, where, path, sha256, repairs, batch)


def is_periodic(config: Config, x: Side | None) -> bool:
    """True if the last column is a neighbour of the first: `model.periodic`, or by itself on a circle of longitudes."""
    if config.model.periodic == "auto":
        return x is not None and is_longitude(x) and fields.wraps(np.asarray(x.values))
    return config.model.periodic == "lon"


def is_longitude(x: Side) -> bool:
    """True if a coordinate's attributes or name say so."""
    marks = {x.attrs.get("standard_name"), x.attrs.get("units"), x.name.lower()}
    return bool(marks & {"longitude", "lon", "degrees_east", "degree_east"})


def build(config: Config, channels: int, size: tuple[int, int], periodic: bool = False) -> PDR:
    """The network that a configuration describes, for data of this many channels and this size (H, W)."""
    from pdr_cli.models.pdr import build_pdr

    return build_pdr(
        in_steps=config.data.in_steps,
        channels=channels,
        size=size,
        **config.model.model_dump() | {"periodic": periodic},
    )
