"""`model.safetensors`: weights plus a header that says everything needed to predict and to trace a forecast."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from pdr_cli import config as configuration
from pdr_cli.config import Config
from pdr_cli.data import grid
from pdr_cli.data import series as fields
from pdr_cli.data.climatology import Climatology
from pdr_cli.data.limits import Limits
from pdr_cli.data.missing import Land
from pdr_cli.data.scaling import Scaling
from pdr_cli.data.series import Series
from pdr_cli.data.splits import Seen
from pdr_cli.data.times import Step
from pdr_cli.errors import CheckpointError, ConfigError
from pdr_cli.system import atomic, damage

if TYPE_CHECKING:
    import torch

    from pdr_cli.models.interfaces import Frames

# 2: the climatology has a kind. 3: the SHA-256 is of the header too. 4: the data have a kind, no format.
FORMAT_VERSION = 4
KINDS_OF_FORMATS = {"netcdf": "weather", "hdf5": "traffic", "npz": "traffic", "video": "video"}
CLIMATOLOGY = "climatology"
NETWORK = "network."


@dataclass(frozen=True)
class Side:
    """The coordinate of the model's grid along y or x."""

    name: str
    values: tuple[float, ...]
    attrs: dict[str, Any]


@dataclass(frozen=True)
class ModelCard:
    """The header of a model file.

    `limits` and `land`, the cells that were missing in all training frames, are None in files of before they were kept;
    `land` also where no training frame lacked a value.
    """

    config: Config
    kind: str
    variables: dict[str, dict[str, Any]]
    size: tuple[int, int]
    y: Side | None
    x: Side | None
    step: Step
    scaling: Scaling
    seen: Seen
    data: tuple[dict[str, str], ...]
    training: dict[str, Any]
    limits: Limits | None = None
    land: Land | None = None

    @property
    def frames(self) -> Frames:
        """The frames that the network is built for."""
        return frames_of(self.config, len(self.variables), self.size, self.x)

    def to_json(self) -> str:
        """The card as JSON."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        values["config"] = self.config.model_dump()
        values["format_version"] = FORMAT_VERSION
        return json.dumps(values, default=_plain, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str, where: Path) -> ModelCard:
        """Read a card back.

        Raises:
            CheckpointError: incomplete, or of another version.
        """
        values = json.loads(text)
        try:
            if "format" in values:  # before format 4 the file format of the training data stood for their kind
                values["kind"] = KINDS_OF_FORMATS.get(values["format"], "weather")
            entries = tuple((p, i, float(a), float(b)) for p, i, a, b in values["seen"]["entries"])
            return cls(
                config=configuration.validate(values["config"], where="its configuration"),
                kind=values["kind"],
                variables=values["variables"],
                size=(int(values["size"][0]), int(values["size"][1])),
                y=_side(values["y"]),
                x=_side(values["x"]),
                step=Step(**values["step"]),
                scaling=Scaling(**{k: tuple(v) for k, v in values["scaling"].items()}),
                seen=Seen(entries, values["seen"]["gap_seconds"]),
                data=tuple(values["data"]),
                training=values["training"],
                limits=None if values.get("limits") is None else Limits(*map(tuple, values["limits"].values())),
                land=None
                if values.get("land") is None
                else Land(tuple(values["land"]["shape"]), values["land"]["packed"]),
            )
        except ConfigError as error:
            raise CheckpointError(f"{where} was written by another version of pdr: {error}") from error
        except (KeyError, TypeError, IndexError) as error:
            raise CheckpointError(
                f"{where}: the header lacks or garbles {error}; the file was not written by pdr"
            ) from error


def side_of(series: Series, dim: str) -> Side | None:
    """The coordinate of a series along "y" or "x" as a card keeps it."""
    coordinate = fields.side(series, dim)
    if coordinate is None:
        return None
    return Side(str(coordinate.name), tuple(map(float, coordinate.values)), dict(coordinate.attrs))


def frames_of(config: Config, channels: int, size: tuple[int, int], x: Side | None) -> Frames:
    """The frames that a network is built for, of data with this coordinate along x.

    They are periodic by `model.periodic`, or with "auto" where the longitudes are a full circle.
    """
    from pdr_cli.models.interfaces import Frames

    periodic = config.model.periodic == "lon"
    if config.model.periodic == "auto" and x is not None:
        periodic = grid.is_longitude(x.name, x.attrs) and fields.wraps(np.asarray(x.values))
    return Frames(config.data.in_steps, channels, (size[0], size[1]), periodic)


def save(path: Path, network: torch.nn.Module, card: ModelCard, climatology: Climatology) -> None:
    """Atomically write a model file."""
    import torch
    from safetensors.torch import save as serialise

    tensors = {NETWORK + k: v.detach().cpu().contiguous() for k, v in network.state_dict().items()}
    tensors[CLIMATOLOGY] = torch.from_numpy(climatology.coefficients)
    kind = {"kind": climatology.kind, "covered": climatology.covered}
    header = {"pdr": card.to_json(), CLIMATOLOGY: json.dumps(kind)}
    atomic.write_bytes(path, serialise(tensors, header | {"sha256": digest(tensors, header)}))


def load(path: Path) -> tuple[ModelCard, dict[str, torch.Tensor], Climatology]:
    """Read a model file: its card, the network's state dict and the climatology.

    Raises:
        CheckpointError: truncated, altered, foreign or too new.
    """
    with damage.named(path, CheckpointError):
        return _load(path)


def _load(path: Path) -> tuple[ModelCard, dict[str, torch.Tensor], Climatology]:
    header, tensors = _read(path, "pt", everything=True)
    if CLIMATOLOGY not in tensors:
        raise CheckpointError(f"{path} is a safetensors file, but not a pdr model: it has no climatology")
    for version in range(_version(header, path), max(MIGRATIONS) + 1):
        header = MIGRATIONS[version](header, tensors, path)
    _check_digest(header, digest(tensors, header), path)
    card = ModelCard.from_json(header["pdr"], path)
    about = json.loads(header[CLIMATOLOGY])
    climatology = Climatology(about["kind"], tensors.pop(CLIMATOLOGY).numpy(), float(about["covered"]))
    return card, {k.removeprefix(NETWORK): v for k, v in tensors.items()}, climatology


def load_card(path: Path) -> ModelCard:
    """Read the card of a model file alone, without torch and without a look at the weights or their hash.

    Raises:
        CheckpointError: truncated, foreign or too new.
    """
    with damage.named(path, CheckpointError):
        header, _ = _read(path, "np", everything=False)
        _version(header, path)
        return ModelCard.from_json(header["pdr"], path)


def digest(tensors: Mapping[str, torch.Tensor], header: Mapping[str, str]) -> str:
    """SHA-256 of tensors, their names, types and shapes, and of a header but for its own hash."""
    found = hashlib.sha256()
    for name in sorted(tensors):
        array = np.ascontiguousarray(tensors[name].numpy())
        found.update(f"{name} {array.dtype} {array.shape}".encode())
        found.update(array.tobytes())
    for key in sorted(header.keys() - {"sha256"}):
        found.update(f"{key} {header[key]}".encode())
    return found.hexdigest()


def _read(path: Path, framework: str, everything: bool) -> tuple[dict[str, str], dict[str, Any]]:
    """The header, and the tensors if they are wanted."""
    import safetensors
    from safetensors import safe_open

    try:
        with safe_open(path, framework=framework) as handle:
            header = handle.metadata() or {}
            names = handle.keys() if everything else ()
            tensors = {name: handle.get_tensor(name) for name in names}
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        size = path.stat().st_size if path.exists() else 0
        other = path.suffix.lower() in (".pt", ".pth", ".ckpt")
        way_out = ". Weights of OpenSTL are for pdr train --init-from" if other else ""
        raise CheckpointError(f"{path} ({size} bytes) is no model file, or is truncated: {error}{way_out}") from error
    if "pdr" not in header:
        raise CheckpointError(f"{path} is a safetensors file, but not a pdr model: its header has no model card")
    return header, tensors


def _version(header: dict[str, str], path: Path) -> int:
    """The format of a file, as its card says.

    Raises:
        CheckpointError: newer than this pdr, or no format at all.
    """
    try:
        version = int(json.loads(header["pdr"])["format_version"])
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: the header names no format; the file is damaged or not of pdr") from error
    if not 1 <= version <= FORMAT_VERSION:
        raise CheckpointError(f"{path} has format {version}, this pdr reads up to {FORMAT_VERSION}; upgrade pdr-cli")
    return version


def _check_digest(header: Mapping[str, str], found: str, path: Path) -> None:
    if header.get("sha256") != found:
        raise CheckpointError(
            f"{path}: the contents differ from the SHA-256 in the header; the file was altered or damaged"
        )


def _give_climatology_a_kind(header: dict[str, str], tensors: dict[str, Any], path: Path) -> dict[str, str]:
    """Format 1 to 2: theirs is a mean of each time of day, or one mean."""
    kind = "day" if len(tensors[CLIMATOLOGY]) > 1 else "mean"
    return {CLIMATOLOGY: json.dumps({"kind": kind, "covered": 0})} | header


def _hash_the_header(header: dict[str, str], tensors: dict[str, Any], path: Path) -> dict[str, str]:
    """Format 2 to 3: until then the hash was of the tensors alone."""
    _check_digest(header, digest(tensors, {}), path)
    return header | {"sha256": digest(tensors, header)}


# What makes a file of one format one of the next.
MIGRATIONS = {1: _give_climatology_a_kind, 2: _hash_the_header}


def _side(values: dict[str, Any] | None) -> Side | None:
    return None if values is None else Side(values["name"], tuple(values["values"]), values["attrs"])


def _plain(value: Any) -> Any:
    """What JSON has no word for: dataclasses, numpy scalars and arrays, paths."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (np.ndarray, xr.DataArray)):
        return value.tolist()
    return str(value)
