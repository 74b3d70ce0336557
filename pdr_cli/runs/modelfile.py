"""`model.safetensors`: weights, climatology, and a header with all that a forecast and its provenance need."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from pdr_cli import config as configuration
from pdr_cli.data import targets
from pdr_cli.data.arrays import SIGNED, Conventions
from pdr_cli.data.bounds import Bounds
from pdr_cli.data.climatology import Climatology
from pdr_cli.data.covariates import Covariates
from pdr_cli.data.grid import Side
from pdr_cli.data.limits import Limits
from pdr_cli.data.missing import CellMask
from pdr_cli.data.places import Grid, PackedField
from pdr_cli.data.scaling import Scaling
from pdr_cli.data.seen import Seen
from pdr_cli.data.times import Step
from pdr_cli.errors import CheckpointError, ConfigError
from pdr_cli.runs import container
from pdr_cli.runs.calibration import Calibration
from pdr_cli.runs.digest import digest
from pdr_cli.runs.inputs import frames_of, own_baseline
from pdr_cli.runs.programs import PROGRAM, Program
from pdr_cli.schema import Config
from pdr_cli.system import atomic, damage, hashes

if TYPE_CHECKING:
    import torch

    from pdr_cli.models.interfaces import Frames

# 2: the climatology has a kind. 3: the SHA-256 covers the header too. 4: the kind of the data replaces their file format.
FORMAT_VERSION = 4
KINDS_OF_FORMATS = {"netcdf": "weather", "hdf5": "traffic", "npz": "traffic", "video": "video"}
CLIMATOLOGY = "climatology"
NETWORK, BASELINE, ANCHOR = "network.", "baseline.", "anchor."
CALIBRATION = "calibration"


@dataclass(frozen=True)
class ModelCard:
    """The header of a model file.

    Args:
        config: the resolved preset.
        kind: of the data.
        variables: attributes of each channel by name, in order.
        size: (H, W).
        y: coordinate along y; None if the data have none.
        x: coordinate along x.
        step: of the time axis.
        scaling: of each channel.
        seen: periods and clips of training and validation.
        data: name and SHA-256 of each data file.
        training: versions, origin of the weights, and the best step.
        limits: plausible range of each channel; None in files written before it was kept.
        land: cells that were missing in every training frame; None if there are none, and in files written before they
            were kept.
        places: "latitude" and "longitude" of each cell, of a grid that is not rectangular on the globe.
        mapping: attributes of the grid mapping.
        bounds: of the forecast, in the variables' units; None if there are none, and in files written before they were
            kept, whose forecasts stay as they were.
        conventions: that the arrays of training were read by, see `data/arrays.py`; empty for other formats, and in files
            written before they were kept.
        cycles: lengths of the earlier cycles that the network's anchor or its baselines read, in steps.
        covariates: what the network reads beside the variables; None if nothing, as in files written before there were any.
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
    land: CellMask | None = None
    places: dict[str, PackedField] = dataclasses.field(default_factory=dict)
    mapping: dict[str, Any] = dataclasses.field(default_factory=dict)
    bounds: Bounds | None = None
    conventions: dict[str, str] = dataclasses.field(default_factory=dict)
    cycles: tuple[int, ...] = ()
    covariates: Covariates | None = None

    @property
    def learned(self) -> Conventions:
        """The conventions of the training, which decide where the files of a forecast leave them open."""
        kept = self.conventions
        if not kept and self.kind == "traffic" and {str(a.get("units", "")) for a in self.variables.values()} == {"1"}:
            kept = {"values": SIGNED}  # before they were kept, the only scaled grids were those of OpenSTL
        return Conventions.of(kept, 60 * self.step.hours)

    @property
    def never_observed(self) -> np.ndarray | None:
        """Cells that were missing in every training frame, [C, H, W]; None if there are none."""
        return None if self.land is None else self.land.cells

    @property
    def hidden(self) -> np.ndarray | None:
        """True for the channels that are targets, [C]; None if none is."""
        return targets.mask_of(list(self.variables), self.config.data.targets)

    @property
    def grid(self) -> Grid:
        """The places of the model's cells."""
        return Grid(self.size, self.y, self.x, {n: p.values for n, p in self.places.items()}, self.mapping)

    @property
    def frames(self) -> Frames:
        """The frames that the network is built for."""
        count = 0 if self.covariates is None else self.covariates.count(len(self.variables))
        return frames_of(self.config, len(self.variables), self.size, self.x, self.cycles, count)

    @property
    def read(self) -> dict[str, dict[str, Any]]:
        """Attributes of each variable that is read and not forecast, by name."""
        return {} if self.covariates is None else {n: v.attrs for n, v in self.covariates.variables.items()}

    def to_json(self) -> str:
        """The card as JSON."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        values["config"] = self.config.model_dump(exclude_none=True)
        values["format_version"] = FORMAT_VERSION
        # The bytes of a file's name that are not UTF-8 become escapes of JSON, which `json` reads back.
        return json.dumps(values, default=_plain, ensure_ascii=False).encode(errors="backslashreplace").decode()

    @classmethod
    def from_json(cls, text: str, where: Path) -> ModelCard:
        """The card in `text`, the header of the file `where`.

        Raises:
            CheckpointError: incomplete, or of another version.
        """
        values = json.loads(text)
        try:
            return cls(**_fields(values))
        except ConfigError as error:
            raise CheckpointError(f"{where} was written by another version of pdr: {error}") from error
        except (KeyError, TypeError, IndexError) as error:
            found = f"{where}: the header lacks or garbles {error}; the file was not written by pdr"
            raise CheckpointError(found) from error


def _fields(values: dict[str, Any]) -> dict[str, Any]:
    """The fields of a card from its JSON."""
    kept = {name: values[name] for name in ("variables", "training")}
    limits, land, bounds = (values.get(key) for key in ("limits", "land", "bounds"))
    seen = values["seen"]
    entries = tuple((p, i, float(a), float(b)) for p, i, a, b in seen["entries"])
    return kept | {
        "config": configuration.validate(values["config"], where="its configuration"),
        "kind": _kind(values),
        "size": (int(values["size"][0]), int(values["size"][1])),
        "y": _side(values["y"]),
        "x": _side(values["x"]),
        "step": Step(**values["step"]),
        "scaling": Scaling(**{k: tuple(v) for k, v in values["scaling"].items()}),
        "seen": Seen(entries, seen["gap_seconds"]),
        "data": tuple(values["data"]),
        "limits": None if limits is None else Limits(*map(tuple, limits.values())),
        "land": None if land is None else CellMask(tuple(land["shape"]), land["packed"]),
        "places": {n: PackedField(tuple(p["shape"]), p["packed"]) for n, p in values.get("places", {}).items()},
        "mapping": values.get("mapping", {}),
        "bounds": None if bounds is None else Bounds(tuple(bounds["low"]), tuple(bounds["high"])),
        "conventions": values.get("conventions", {}),
        "cycles": tuple(values.get("cycles", ())),
        "covariates": Covariates.from_json(values["covariates"]) if values.get("covariates") else None,
    }


def _kind(values: dict[str, Any]) -> str:
    """The kind of the data; before format 4 it followed from their file format."""
    if "format" in values:
        return KINDS_OF_FORMATS.get(values["format"], "weather")
    kind: str = values["kind"]
    return kind


def save(
    path: Path,
    network: torch.nn.Module,
    card: ModelCard,
    climatology: Climatology,
    baselines: Mapping[str, torch.nn.Module] | None = None,
) -> None:
    """Atomically write a model file; `baselines` are the fitted ones that the network's own anchor is not."""
    from pdr_cli.runs.tensors import of as of_network

    fitted = {name: of_network(anchor) for name, anchor in (baselines or {}).items()}
    _write(path, card, climatology, _named(of_network(network), fitted), None)


def recalibrate(path: Path, calibration: Calibration) -> None:
    """Atomically write a model file again, with another calibration.

    Raises:
        CheckpointError: see `read`.
    """
    _write_again(path, dataclasses.replace(read(path), calibration=calibration))


def reweigh(path: Path, weights: Mapping[str, torch.Tensor]) -> None:
    """Atomically write a model file again, with other values of some of the network's weights.

    Raises:
        CheckpointError: see `read`.
    """
    file = read(path)
    _write_again(path, dataclasses.replace(file, weights={**file.weights, **weights}))


def leave_folders_out(path: Path) -> None:
    """Atomically write a model file again, whose settings name the data without their folders, as one for others should.

    Raises:
        CheckpointError: see `read`.
    """
    file = read(path)
    data = file.card.config.data.model_copy(update={"paths": [Path(p).name for p in file.card.config.data.paths]})
    card = dataclasses.replace(file.card, config=file.card.config.model_copy(update={"data": data}))
    _write_again(path, dataclasses.replace(file, card=card))


def _write_again(path: Path, file: ModelFile) -> None:
    fitted = {name: tensors for name, tensors in file.baselines.items() if name != own_baseline(file.card.config)}
    _write(path, file.card, file.climatology, _named(file.weights, fitted), file.calibration)


def _named(
    weights: Mapping[str, torch.Tensor], baselines: Mapping[str, Mapping[str, torch.Tensor]]
) -> dict[str, torch.Tensor]:
    fitted = {f"{BASELINE}{name}.{k}": v for name, tensors in baselines.items() for k, v in tensors.items()}
    return {NETWORK + k: v for k, v in weights.items()} | fitted


def _write(
    path: Path,
    card: ModelCard,
    climatology: Climatology,
    tensors: dict[str, torch.Tensor],
    calibration: Calibration | None,
) -> None:
    atomic.write_bytes(path, serialised(Header(card, climatology, "", calibration), tensors))


def serialised(model: Header, weights: Mapping[str, torch.Tensor], more: Mapping[str, str] | None = None) -> bytes:
    """The bytes of a model file with these weights, and with more text in its header."""
    import torch
    from safetensors.torch import save as serialise

    card, climatology, calibration = model.card, model.climatology, model.calibration
    tensors = dict(weights) | {CLIMATOLOGY: torch.from_numpy(climatology.coefficients)}
    kind = {"kind": climatology.kind, "covered": climatology.covered}
    header = {"pdr": card.to_json(), CLIMATOLOGY: json.dumps(kind), **(more or {})}
    if calibration is not None:
        tensors |= {f"{CALIBRATION}.{k}": torch.from_numpy(v) for k, v in calibration.to_tensors().items()}
        header[CALIBRATION] = json.dumps(calibration.to_json())
    return serialise(tensors, header | {"sha256": digest(tensors, header)})


@dataclass(frozen=True)
class Header:
    """A model file without its weights, read without torch.

    Args:
        card: the model card.
        climatology: of the training data.
        sha256: of the file, by the rule of `hashes.sha256`.
        calibration: of the errors; None if there is none, as in files written before it was kept.
        program: what an exported file computes with; None of a model file.
    """

    card: ModelCard
    climatology: Climatology
    sha256: str
    calibration: Calibration | None
    program: Program | None = field(default=None, kw_only=True)


@dataclass(frozen=True)
class ModelFile(Header):
    """A whole model file.

    Args:
        weights: state dict of the network.
        baselines: state dicts of the anchors that training fitted for `pdr evaluate`, by the baseline's name; the network's
            own anchor is one of them.
    """

    weights: dict[str, torch.Tensor]
    baselines: dict[str, dict[str, torch.Tensor]] = dataclasses.field(default_factory=dict)


def read(path: Path) -> ModelFile:
    """Read and check a model file. The hash is of the bytes that are parsed, whatever replaces the file meanwhile.

    Raises:
        CheckpointError: truncated, altered, foreign or too new.
        UsageError: an exported program, which has no weights to read.
    """
    with damage.reading(path, CheckpointError):
        content = container.model_content_of(path)
        header = container.text_of(content, path)
        card, tensors, climatology = _checked(header, container.tensors_of(content, path), path)
        calibration = _calibration(header, content)
        others = (BASELINE, f"{CALIBRATION}.")
        weights = {k.removeprefix(NETWORK): v for k, v in tensors.items() if not k.startswith(others)}
        baselines = _baselines(card, weights, tensors)
        return ModelFile(card, climatology, hashes.sha256_of(content), calibration, weights, baselines)


def read_header(path: Path) -> Header:
    """Read the header of a model file, without torch and without a check of the weights.

    Raises:
        CheckpointError: truncated, foreign or too new.
    """
    with damage.reading(path, CheckpointError):
        content = container.model_content_of(path)
        return header_in(content, hashes.sha256_of(content), path)


def header_in(content: bytes, sha256: str, path: Path) -> Header:
    """The header in the bytes of a model file; `sha256`: of the file `path` that they are of."""
    header = container.text_of(content, path)
    coefficients = container.array_of(content, CLIMATOLOGY)
    if coefficients is None:
        raise _no_climatology(path)
    if _version(header, path) == 1:
        header = MIGRATIONS[1](header, {CLIMATOLOGY: coefficients}, path)
    card, program = ModelCard.from_json(header["pdr"], path), header.get(PROGRAM)
    found = _climatology(header, coefficients), sha256, _calibration(header, content)
    return Header(card, *found, program=None if program is None else Program.from_json(program))


def _checked(
    header: dict[str, str], tensors: dict[str, torch.Tensor], path: Path
) -> tuple[ModelCard, dict[str, torch.Tensor], Climatology]:
    if CLIMATOLOGY not in tensors:
        raise _no_climatology(path)
    for version in range(_version(header, path), FORMAT_VERSION):
        header = MIGRATIONS[version](header, tensors, path)
    check_digest(header, digest(tensors, header), path)
    climatology = _climatology(header, tensors.pop(CLIMATOLOGY).numpy())
    return ModelCard.from_json(header["pdr"], path), tensors, climatology


def _baselines(
    card: ModelCard, weights: Mapping[str, torch.Tensor], tensors: Mapping[str, torch.Tensor]
) -> dict[str, dict[str, torch.Tensor]]:
    found: dict[str, dict[str, torch.Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith(BASELINE):
            name, _, buffer = key.removeprefix(BASELINE).partition(".")
            found.setdefault(name, {})[buffer] = value
    if (own := own_baseline(card.config)) is not None:
        found[own] = {k.removeprefix(ANCHOR): v for k, v in weights.items() if k.startswith(ANCHOR)}
    return found


def _climatology(header: Mapping[str, str], coefficients: np.ndarray) -> Climatology:
    about = json.loads(header[CLIMATOLOGY])
    return Climatology(about["kind"], coefficients, float(about["covered"]))


def _calibration(header: Mapping[str, str], content: bytes) -> Calibration | None:
    if CALIBRATION not in header:
        return None
    found = {name: container.array_of(content, f"{CALIBRATION}.{name}") for name in ("levels", "offsets")}
    tensors = {name: array for name, array in found.items() if array is not None}
    return Calibration.of_parts(tensors, json.loads(header[CALIBRATION]))


def _no_climatology(path: Path) -> CheckpointError:
    return CheckpointError(f"{path} is a safetensors file, but not a pdr model: it has no climatology")


def _version(header: dict[str, str], path: Path) -> int:
    """The format of a file, from its card.

    Raises:
        CheckpointError: newer than this pdr, or missing.
    """
    try:
        version = int(json.loads(header["pdr"])["format_version"])
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: the header names no format; the file is damaged or not of pdr") from error
    if not 1 <= version <= FORMAT_VERSION:
        found = f"{path} has format {version}, this pdr reads up to {FORMAT_VERSION}"
        raise CheckpointError(found, way_out="upgrade pdr-cli")
    return version


def check_digest(header: Mapping[str, str], found: str, path: Path) -> None:
    """Refuse a file whose header and tensors are not as they were written (CheckpointError)."""
    if header.get("sha256") != found:
        raise CheckpointError(
            f"{path}: the contents differ from the SHA-256 in the header; the file was altered or damaged"
        )


def _give_climatology_a_kind(header: dict[str, str], tensors: dict[str, Any], path: Path) -> dict[str, str]:
    """Format 1 to 2: the climatology is a mean of each time of day, or one mean."""
    kind = "day" if len(tensors[CLIMATOLOGY]) > 1 else "mean"
    return {CLIMATOLOGY: json.dumps({"kind": kind, "covered": 0})} | header


def _hash_the_header(header: dict[str, str], tensors: dict[str, Any], path: Path) -> dict[str, str]:
    """Format 2 to 3: in format 2 the hash covers the tensors only."""
    check_digest(header, digest(tensors, {}), path)
    return header | {"sha256": digest(tensors, header)}


def _keep(header: dict[str, str], tensors: dict[str, Any], path: Path) -> dict[str, str]:
    """Format 3 to 4: only the card changed, and `ModelCard.from_json` reads both."""
    return header


# From the header of each format to that of the next.
MIGRATIONS = {1: _give_climatology_a_kind, 2: _hash_the_header, 3: _keep}


def _side(values: dict[str, Any] | None) -> Side | None:
    return None if values is None else Side(values["name"], tuple(values["values"]), values["attrs"])


def _plain(value: Any) -> Any:
    """Types that JSON does not have: dataclasses, numpy scalars and arrays, paths."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (np.ndarray, xr.DataArray)):
        return value.tolist()
    return str(value)
