"""`pdr doctor`: what is installed, what computes, and why nothing faster does."""

from __future__ import annotations

import json
import os
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from pdr_cli import __version__, config
from pdr_cli.errors import InputNotFoundError
from pdr_cli.runs import folder as runs

PACKAGES = ("torch", "numpy", "xarray", "netCDF4", "h5py", "av", "imageio", "ninja", "onnx", "onnxruntime")


def run(as_json: bool) -> None:
    """Print the report."""
    report = collect()
    if as_json:
        print(json.dumps(report))
        return
    for section, entries in report.items():
        print(section)
        for key, value in entries.items():
            print(f"  {key:<12} {value}")


def collect() -> dict[str, dict[str, Any]]:
    """The report as nested dictionaries."""
    import torch

    from pdr_cli import splat
    from pdr_cli.splat import native, node

    cuda = torch.cuda.is_available()
    renderer, reason = splat.active_backend(torch.device("cuda" if cuda else "cpu"))
    library = native.load(renderer).path if renderer in ("cpu", "cuda") else "none"
    direct = (node.start(library) or "loaded") if renderer == "cpu" else "for a CPU only"
    try:
        model = str(runs.find_model(None))
    except InputNotFoundError as error:
        model = str(error)
    return {
        "pdr": {"version": __version__, "presets": str(config.presets_folder()), "model": model},
        "system": {"python": platform.python_version(), "platform": platform.platform(), "cores": os.cpu_count()},
        "device": {
            "default": torch.cuda.get_device_name() if cuda else "cpu",
            "threads": torch.get_num_threads(),
            "cpu": torch.backends.cpu.get_cpu_capability(),
        },
        "renderer": {"active": renderer, "because": reason, "library": library, "autograd_node": direct},
        "compilers": {name: shutil.which(name) or "not found" for name in ("c++", "ninja", "nvcc")},
        "packages": {name: _version(name) for name in PACKAGES},
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed (pip install 'pdr-cli[export]')" if name.startswith("onnx") else "not installed"
