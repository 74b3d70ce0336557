"""Documents and cases as an evaluation makes them, with numbers that can be followed in the head."""

from __future__ import annotations

import copy
import functools
from typing import Any

import numpy as np

from pdr_cli.data import samples
from pdr_cli.data.series import Series
from pdr_cli.verification.cases import Case
from pdr_cli.verification.document import Document
from pdr_cli.verification.fans import Fan

SCALES = {"pdr": 1.0, "persistence": 1.5, "climatology": 3.0}


def typed(values: dict[str, Any]) -> Document:
    """The document whose JSON these values are."""
    return Document.from_json(values)


def document(**changes: Any) -> dict[str, Any]:
    """Three forecasters, two leads: RMSE 1.5 and 2.5 K for the model (2 overall), times 1.5 and 3 for its rivals."""
    scores = {
        name: {
            "rmse": {
                "overall": 2.0 * f, "lead": [1.5 * f, 2.5 * f],
                "low": [1.4 * f, 2.3 * f], "high": [1.6 * f, 2.7 * f],
            },
            "bias": {"overall": 0.25 * f, "lead": [0.125 * f, 0.375 * f]},
        }
        for name, f in SCALES.items()
    }  # fmt: skip
    return {
        "units": "K", "variables": ["t2m"], "convention": "standard", "protocol": "honest", "split": "test",
        "n_windows": 204, "period": ["2013-11-09 00:00", "2013-12-31 18:00"], "lead": [6, 12], "lead_units": "hours",
        "metrics": ["rmse", "bias"], "metric_units": {"rmse": "K", "bias": "K"}, "higher_is_better": ["ssim", "psnr", "acc"],
        "kinds": {"pdr": "model", "persistence": "baseline", "climatology": "baseline"},
        "scores": scores,
        "skill": {
            "pdr": {
                # 1 - 1 / 1.5² and 1 - 1 / 3²
                "persistence": {
                    "overall": 0.5556, "interval": [0.51, 0.61], "significant": True,
                    "lead": [0.56, 0.55], "low": [0.5, 0.5], "high": [0.6, 0.6],
                },
                "climatology": {
                    "overall": 0.8889, "interval": [0.87, 0.91], "significant": True,
                    "lead": [0.89, 0.88], "low": [0.8, 0.8], "high": [0.9, 0.9],
                },
            }
        },
    } | copy.deepcopy(changes)  # fmt: skip


def everything() -> dict[str, Any]:
    """`document` with every optional section."""
    names = list(SCALES)
    length = [64.0, 32.0, 16.0, 8.0, 4.0, 2.0]
    return document(
        bootstrap={"blocks": 26, "windows_per_block": 8, "resamples": 2000, "level": 0.95},
        missing={"cells": 1234, "of": 98760, "share": 1234 / 98760},
        spectra={
            "wavelength": length, "wavelength_units": "cells", "lead": 12,
            "power": {"truth": [w**3 for w in length]} | {n: [w**3.5 / 8 for w in length] for n in names},
        },
        calibration={"pdr": {"forecast": [270.0, 280.0, 290.0], "observed": [270.5, 279.0, 290.0], "count": [5, 20, 5]}},
        concentration={
            n: {"kurtosis": 10.97, "saturation": 0.0215, "diversity": 211.0, "p90": 0.6181} for n in ["truth", *names]
        },
        warping={"flow": "RAFT-small", "errors": {n: {"l1": 0.01234, "l2": 0.005678} for n in ["truth", *names]}},
        ways={
            "pdr": {
                "error": {"overall": 2.02, "lead": [1.1, 2.94]}, "standing_still": {"overall": 2.44, "lead": [1.2, 3.68]},
                "error_of_still": {"overall": 0.112, "lead": [0.09, 0.134]}, "moving": 0.23, "pruned": 0.031,
            }
        },
        efficiency={"pdr": {"parameters": 7654321, "frames_per_second": 83.21, "memory_mb": 412.5}},
        card={
            "command": "pdr evaluate 'my air.nc' -m runs/a", "pdr": "0.1.0", "torch": "2.13.0+cpu", "device": "cpu",
            "threads": 2, "date": "2020-01-02T03:04:05Z", "data": ["my air.nc"], "truth_sha256": "ab12" * 16,
            "models": {
                "pdr": {"file": "runs/a/model.safetensors", "sha256": "cd34" * 16, "preset": "demo", "parameters": 7654321}
            },
            "ssim": "Gaussian 11 x 11, range 1",
        },
    )  # fmt: skip


@functools.cache
def sample(kind: str) -> Series:
    """The first frames of a sample, which takes a second to make."""
    return samples.make(kind, 0).isel(time=slice(0, 80)).copy(deep=True)


def fan(members: int = 0) -> Fan:
    """A cell of two observed frames and two lead times, as `document` has; the truth leaves the narrower band at the second."""
    bands = {0.8: np.array([[279.0, 278.0], [283.0, 284.0]]), 0.95: np.array([[278.0, 276.0], [284.0, 287.0]])}
    observed, truth, forecast = (np.array(x) for x in ([280.0, 281.0], [282.0, 286.0], [281.0, 281.5]))
    return Fan((2, 3), 2.25, observed, truth, forecast, bands, members)


def case(
    label: str,
    kind: str = "weather",
    gaussians: bool = True,
    rgb: bool = False,
    ahead: int = 3,
    members: int | None = None,
) -> Case:
    """A forecast that repeats the last frame, with thirty Gaussians in it; with a fan of so many `members`."""
    whole = sample(kind).isel(time=slice(30, 32 + ahead)).copy(deep=True)
    if rgb:
        whole = whole.isel(channel=[0, 0, 0]).assign_coords(channel=["red", "green", "blue"])
    past, truth = whole.isel(time=slice(0, 2)), whole.isel(time=slice(2, None))
    forecast = truth.copy(data=np.broadcast_to(past.values[-1:], truth.shape).copy())
    rng = np.random.default_rng(1)
    shapes = {k: rng.uniform(1, 12, 30) for k in ("x", "y", "sigma_1", "sigma_2")}
    shapes |= {"rotation": rng.uniform(-1, 1, 30), "amplitude": rng.normal(size=(30, truth.sizes["channel"]))}
    painted = rng.normal(size=truth.shape)
    return Case(
        label, past, truth, forecast,
        forecast.values - 1 if gaussians else None, painted if gaussians else None, shapes if gaussians else None,
        1.75, "pdr", None if members is None else fan(members),
    )  # fmt: skip


def cases(**options: Any) -> list[Case]:
    """The best, the median and the worst."""
    return [case(label, **options) for label in ("best", "median", "worst")]
