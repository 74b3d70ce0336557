"""The Gaussians of a scene as data: a .ply that viewers of Gaussian splatting read, or NetCDF with their curves in time."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from pdr_cli.data.formats import gaussianset
from pdr_cli.errors import StorageError
from pdr_cli.models.scenes.scene import GROW, MOVES, TURN
from pdr_cli.system.atomic import atomic_output

if TYPE_CHECKING:
    from pdr_cli.models.scenes.scene import Scene

HARMONIC = 0.28209479177387814  # 1 / (2 sqrt(pi)), the constant spherical harmonic that colours are coefficients of
FIELDS = (
    *("x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", "opacity", "scale_0", "scale_1", "scale_2"),
    *("rot_0", "rot_1", "rot_2", "rot_3"),
)  # of a vertex, as 3D Gaussian Splatting writes them (Kerbl et al., 2023)
BASIS = {
    "poly3": "u, u^2, u^3",
    "dct4": "cos(k pi u) - 1 for k = 1 to 4",
    "free": "max(0, 1 - |n u - k|) for k = 1 to n, with n = leads",
}
CURVES = (
    "at time u from 0 to 1: centre (x, y, z) + sum over k of way * b_k(u); quaternion + sum of turn * b_k(u), then normalised; "
    "sigma * exp(sum of grow * b_k(u)); the functions b_k are in the attribute basis"
)


def write_ply(scene: Scene, time: float, path: Path) -> int:
    """Write the Gaussians that are drawn at a time from 0 to 1, binary little-endian; returns their number.

    x right, y down, z forward, in units of the scene; opacities as logits, sizes as logarithms, quaternions (w, x, y, z) of
    length 1, colours as coefficients of the constant harmonic.

    Raises:
        StorageError: the numbers read back differ from those written.
    """
    at = scene.at([time])
    mean, scale, quaternion, opacity, colour = (part[0, 0].double().cpu().numpy() for part in at)
    shown = opacity > 0
    part = opacity[shown].clip(1e-6, 1 - 1e-6)
    turned = quaternion[shown] / np.linalg.norm(quaternion[shown], axis=-1, keepdims=True)
    columns = (
        mean[shown],
        np.zeros((len(part), 3)),
        (colour[shown] - 0.5) / HARMONIC,
        np.log(part / (1 - part))[:, None],
        np.log(scale[shown]),
        turned,
    )
    table = np.concatenate(columns, axis=-1).astype("<f4")
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(table)}"]
    header += [f"property float {name}" for name in FIELDS] + ["end_header"]
    content = ("\n".join(header) + "\n").encode() + table.tobytes()

    def verify(written: Path) -> None:
        if not np.isfinite(table).all() or written.read_bytes() != content:
            raise StorageError(f"{path} reads back differently from what was written")

    with atomic_output(path, verify=verify) as temporary:
        temporary.write_bytes(content)
    return len(table)


def to_dataset(scene: Scene) -> xr.Dataset:
    """The canonical Gaussians that are drawn, and the weights of their curves: dims (gaussian, function)."""
    canonical = [part[0].double().cpu().numpy() for part in scene.canonical]
    shown = scene.still().opacity[0, 0].cpu().numpy() > 0
    mean, scale, quaternion, opacity, colour = (part[shown] for part in canonical)
    weights = scene.weights[0].double().cpu().numpy()[shown]  # [N, 10, K]
    way, turn, grow = np.split(weights, np.cumsum(MOVES)[:-1], axis=1)
    one, curve = ("gaussian",), ("gaussian", "function")
    found: dict[str, tuple[tuple[str, ...], np.ndarray, dict[str, str]]] = {}

    def add(name: str, dims: tuple[str, ...], values: np.ndarray, long_name: str) -> None:
        found[name] = (dims, values.astype(np.float32), {"long_name": long_name, "units": "1"})

    for axis, name, towards in zip(range(3), "xyz", ("right", "down", "forward"), strict=True):
        add(name, one, mean[:, axis], f"centre at time 0, towards {towards}, units of the scene")
        add(f"way_{name}", curve, way[:, axis], f"weights of the curve of {name}, units of the scene")
        add(f"sigma_{axis + 1}", one, scale[:, axis], f"standard deviation along axis {axis + 1}, units of the scene")
        add(
            f"grow_{axis + 1}",
            curve,
            GROW * grow[:, axis],
            f"weights of the curve of the logarithm of sigma_{axis + 1}",
        )
    for index, name in enumerate("wxyz"):
        add(
            f"quaternion_{name}",
            one,
            quaternion[:, index],
            f"{name} of the rotation from the axes to the world, any length",
        )
        add(f"turn_{name}", curve, TURN * turn[:, index], f"weights of the curve of quaternion_{name}")
    add("opacity", one, opacity, "opacity at the centre, 0 to 1")
    for index, name in enumerate(("red", "green", "blue")):
        add(name, one, colour[:, index], f"{name} level, 0 to 1")
    attributes = {"rendering": "sorted by depth and composited; see docs/space.md", "curves": CURVES}
    attributes |= {"basis": BASIS[scene.basis], "leads": str(scene.leads)}
    return xr.Dataset(found, attrs=attributes)


def write_netcdf(scene: Scene, path: Path, attributes: Mapping[str, str]) -> int:
    """Write `to_dataset` as NetCDF with global attributes; returns the number of Gaussians.

    Raises:
        StorageError: see `gaussianset.write`.
    """
    return gaussianset.write(to_dataset(scene), path, attributes)
