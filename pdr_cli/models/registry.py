"""Predictors by name: our own, those that installed packages announce, and any `module:Class` that can be imported."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any

from torch import nn

from pdr_cli.errors import ConfigError, did_you_mean

from .predformer import PredFormer
from .recurrent import RECURRENT
from .simvp import SimVP
from .translators.tau import tau_translator

ENTRY_POINTS = "pdr.predictors"
TRANSLATORS: dict[str, Callable[..., nn.Module]] = {"tau": tau_translator}
NETWORKS: dict[str, Callable[..., nn.Module]] = {**RECURRENT, "predformer": PredFormer}


def predictors() -> list[str]:
    """Names that `build_predictor` accepts beside `module:Class`."""
    return sorted({*TRANSLATORS, *NETWORKS, *entry_points(group=ENTRY_POINTS).names})


def build_predictor(
    name: str,
    in_steps: int,
    channels: int,
    *,
    hid_s: int,
    hid_t: int,
    n_s: int,
    n_t: int,
    mlp_ratio: float,
    drop_path: float,
    size: tuple[int, int] | None = None,
) -> nn.Module:
    """A predictor [B, T, C, H, W] → [B, T, C, H, W], T = `in_steps`, C = `channels`.

    A predictor from outside is called with all of these but `name` and `size` as keyword arguments; one that has
    `any_horizon` is later asked for as many frames as are wanted: (x, steps, anchored), see `Recurrent.forward`.

    Args:
        size: (H, W), for those that have weights for each place of the grid.

    Raises:
        ConfigError: an unknown name, or one that leads to nothing that can be built.
    """
    inside: dict[str, Any] = {"hid_t": hid_t, "n_t": n_t, "mlp_ratio": mlp_ratio, "drop_path": drop_path}
    if name in TRANSLATORS:
        return SimVP(in_steps, channels, TRANSLATORS[name](in_steps * hid_s, **inside), hid_s, n_s)
    shell: dict[str, Any] = {"in_steps": in_steps, "channels": channels, "hid_s": hid_s, "n_s": n_s}
    if name in NETWORKS:
        return NETWORKS[name](size=size, **shell, **inside)
    return call_factory(name, find_factory(name), shell | inside)


def find_factory(name: str) -> Callable[..., Any]:
    """What an entry point or `module:Class` names."""
    announced = entry_points(group=ENTRY_POINTS, name=name)
    if announced:
        return next(iter(announced)).load()
    module_name, colon, attribute = name.partition(":")
    if not (module_name and colon and attribute):
        raise ConfigError(
            f"No predictor is called {name!r}.{did_you_mean(name, predictors())} "
            f"Known: {', '.join(predictors())}; your own is named as module:Class."
        )
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ConfigError(f"Predictor {name!r}: {error}. The module's folder must be on PYTHONPATH.") from error
    if not hasattr(module, attribute):
        raise ConfigError(f"Module {module_name} has no {attribute!r}.{did_you_mean(attribute, dir(module))}")
    return getattr(module, attribute)


def call_factory(name: str, factory: Callable[..., Any], arguments: dict[str, Any]) -> nn.Module:
    """The factory's module; a signature that does not fit is the user's to mend, so it is said as such."""
    try:
        built = factory(**arguments)
    except TypeError as error:
        raise ConfigError(f"Predictor {name!r} was called with {', '.join(arguments)}: {error}.") from error
    if not isinstance(built, nn.Module):
        raise ConfigError(f"Predictor {name!r} built a {type(built).__name__}; a torch.nn.Module is needed.")
    return built
