"""`model.safetensors`: weights plus a header that says everything needed to predict and to trace a forecast."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from pdr_cli import config as configuration
from pdr_cli import files
from pdr_cli.config import Config
from pdr_cli.data import series as fields
from pdr_cli.data.climatology import Climatology
from pdr_cli.data.limits import Limits
from pdr_cli.data.missing import Land
from pdr_cli.data.scaling import Scaling
from pdr_cli.data.series import Series
from pdr_cli.data.splits import Seen
from pdr_cli.data.times import Step
from pdr_cli.errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    import torch

FORMAT_VERSION = 2  # 2: the climatology has a kind
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
    format: str
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
            CheckpointError: written by a newer version, or incomplete.
        """
        values = json.loads(text)
        version = values.pop("format_version", 0)
        if version > FORMAT_VERSION:
            raise CheckpointError(
                f"{where} has format {version}, this pdr reads up to {FORMAT_VERSION}; upgrade pdr-cli"
            )
        try:
            entries = tuple((p, i, float(a), float(b)) for p, i, a, b in values["seen"]["entries"])
            return cls(
                config=configuration.validate(values["config"], where="its configuration"),
                format=values["format"],
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


def save(path: Path, network: torch.nn.Module, card: ModelCard, climatology: Climatology) -> None:
    """Atomically write a model file."""
    import torch
    from safetensors.torch import save as serialise

    tensors = {NETWORK + k: v.detach().cpu().contiguous() for k, v in network.state_dict().items()}
    tensors[CLIMATOLOGY] = torch.from_numpy(climatology.coefficients)
    header = {"pdr": card.to_json(), "sha256": _digest(tensors)}
    header[CLIMATOLOGY] = json.dumps({"kind": climatology.kind, "covered": climatology.covered})
    files.write_bytes(path, serialise(tensors, header))


def load(path: Path) -> tuple[ModelCard, dict[str, torch.Tensor], Climatology]:
    """Read a model file: its card, the network's state dict and the climatology.

    Raises:
        CheckpointError: truncated, altered, foreign or too new.
    """
    import safetensors
    from safetensors import safe_open

    try:
        with safe_open(path, framework="pt") as handle:
            header = handle.metadata() or {}
            tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118 - no mapping
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        size = path.stat().st_size if path.exists() else 0
        raise CheckpointError(f"{path} ({size} bytes) is no model file, or is truncated: {error}") from error
    if "pdr" not in header or CLIMATOLOGY not in tensors:
        raise CheckpointError(f"{path} is a safetensors file, but not a pdr model: its header has no model card")
    if header.get("sha256") != _digest(tensors):
        raise CheckpointError(
            f"{path}: the weights differ from the SHA-256 in the header; the file was altered or damaged"
        )
    card = ModelCard.from_json(header["pdr"], path)
    climatology = _climatology(tensors.pop(CLIMATOLOGY).numpy(), header)
    return card, {k.removeprefix(NETWORK): v for k, v in tensors.items()}, climatology


def _climatology(coefficients: np.ndarray, header: dict[str, str]) -> Climatology:
    """Files of format 1 know no kind: theirs is a mean of each time of day, or one mean."""
    known = {"kind": "day" if len(coefficients) > 1 else "mean"} | json.loads(header.get(CLIMATOLOGY, "{}"))
    return Climatology(known["kind"], coefficients, float(known.get("covered", 0)))


def _digest(tensors: dict[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        array = np.ascontiguousarray(tensors[name].numpy())
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


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
