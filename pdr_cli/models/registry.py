"""Predictors by name: our own, those that installed packages announce, and any `module:Class` that can be imported."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any

from torch import nn

from pdr_cli.errors import ConfigError, did_you_mean
from pdr_cli.models.predictors.dmvfn import DMVFN
from pdr_cli.models.predictors.predformer import PredFormer
from pdr_cli.models.predictors.recurrent import RECURRENT
from pdr_cli.models.predictors.simvp import SimVP
from pdr_cli.models.predictors.translators.convmixer import convmixer_translator
from pdr_cli.models.predictors.translators.convnext import convnext_translator
from pdr_cli.models.predictors.translators.gsta import gsta_translator
from pdr_cli.models.predictors.translators.hornet import hornet_translator
from pdr_cli.models.predictors.translators.incepu import incepu_translator
from pdr_cli.models.predictors.translators.mlpmixer import mlpmixer_translator
from pdr_cli.models.predictors.translators.moganet import moganet_translator
from pdr_cli.models.predictors.translators.options import Grid, TranslatorOptions
from pdr_cli.models.predictors.translators.poolformer import poolformer_translator
from pdr_cli.models.predictors.translators.swin import swin_translator
from pdr_cli.models.predictors.translators.tau import tau_translator
from pdr_cli.models.predictors.translators.uniformer import uniformer_translator
from pdr_cli.models.predictors.translators.van import van_translator
from pdr_cli.models.predictors.translators.vit import vit_translator
from pdr_cli.models.predictors.wast import WaST

ENTRY_POINTS = "pdr.predictors"
TRANSLATORS: dict[str, Callable[[TranslatorOptions], nn.Module]] = {
    "simvp": incepu_translator,
    "simvp2": gsta_translator,
    "tau": tau_translator,
    "convnext": convnext_translator,
    "hornet": hornet_translator,
    "moganet": moganet_translator,
    "vit": vit_translator,
    "swin": swin_translator,
    "uniformer": uniformer_translator,
    "poolformer": poolformer_translator,
    "van": van_translator,
    "mlpmixer": mlpmixer_translator,
    "convmixer": convmixer_translator,
}
NETWORKS: dict[str, Callable[..., nn.Module]] = {
    **RECURRENT,
    "dmvfn": DMVFN,
    "predformer": PredFormer,
    "wast": WaST,
}


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
    periodic: bool = False,
) -> nn.Module:
    """A predictor [B, T, C, H, W] → [B, T, C, H, W], T = `in_steps`, C = `channels`.

    `size` is (H, W), for those that are built for one grid: swin, mlpmixer, mau, mim and e3dlstm. Where `periodic`, the
    last column is a neighbour of the first for the convolutions of the SimVP family. A predictor from outside is called
    with all of these but `name` and `periodic` as keyword arguments, and with `size` only where it has an argument of that
    name; one that has `any_horizon` is later asked for as many frames as are wanted: (x, steps, anchored), see
    `Recurrent.forward`.

    Raises:
        ConfigError: an unknown name, one that leads to nothing that can be built, or values that do not fit together.
    """
    inside: dict[str, Any] = {"hid_t": hid_t, "n_t": n_t, "mlp_ratio": mlp_ratio, "drop_path": drop_path}
    if name in TRANSLATORS:
        grid = None if size is None else Grid(size, 2 ** (n_s // 2))
        translator = TRANSLATORS[name](TranslatorOptions(in_steps * hid_s, **inside, grid=grid))
        return SimVP(in_steps, channels, translator, hid_s, n_s, periodic=periodic)
    shell: dict[str, Any] = {"in_steps": in_steps, "channels": channels, "hid_s": hid_s, "n_s": n_s}
    factory = NETWORKS[name] if name in NETWORKS else find_factory(name)
    if takes_size(factory):
        shell["size"] = size
    return call_factory(name, factory, shell | inside)


def takes_size(factory: Callable[..., Any]) -> bool:
    """True if `factory` has an argument called size."""
    try:
        return "size" in inspect.signature(factory).parameters
    except (TypeError, ValueError):  # a callable without a signature
        return False


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
