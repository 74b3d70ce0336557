"""pdr: forecasts of weather fields, traffic grids and video by Predictive Differentiable Rendering.

`pdr_cli.load("runs/a").predict(xr.open_dataset("input.nc"))` gives the same numbers as `pdr predict`.
"""

TYPE_CHECKING = False  # `typing` is not imported: `python -m pdr_cli` still has the current folder on sys.path
if TYPE_CHECKING:
    from typing import Any

    from pdr_cli.api import Model, evaluate, fine_tune, load, predict, train
    from pdr_cli.splat import render

__version__ = "0.1.0"
__all__ = ["Model", "__version__", "evaluate", "fine_tune", "load", "predict", "render", "train"]


def __getattr__(name: str) -> "Any":
    """Import a name of the Python API when it is first used, so that `import pdr_cli` stays light."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module("pdr_cli.splat" if name == "render" else "pdr_cli.api"), name)


def __dir__() -> list[str]:
    return __all__
