"""What a training with targets, variables that are forecast and not observed, can be."""

from __future__ import annotations

from pdr_cli.data import further
from pdr_cli.data.series import names
from pdr_cli.errors import ConfigError, VariableError, did_you_mean
from pdr_cli.runs import inputs
from pdr_cli.schema import Config
from pdr_cli.training.prepare import Prepared


def check(config: Config, prepared: Prepared) -> None:
    """Refuse what reads a target, or leaves nothing to read.

    Raises:
        VariableError: a target that is not a channel.
        ConfigError: an anchor, lagged frames or a roll-out that reads targets; no other variable.
    """
    targets, channels = config.data.targets, names(prepared.series[0])
    if not targets:
        return
    for name in targets:
        if name not in channels:
            raise VariableError(
                f"{prepared.series[0].attrs['files'][0]}: --target {name} is not a variable to forecast."
                f"{did_you_mean(name, channels)}",
                f"one of {', '.join(channels)}",
            )
    if set(channels) == set(targets) and further.of(prepared.series[0]) is None:
        raise ConfigError(
            f"every variable is a target ({', '.join(channels)}), and none is left to observe",
            way_out="name variables to observe with --input or --known, or others to forecast with --var",
        )
    _check_reading(config, ", ".join(targets))


def _check_reading(config: Config, targets: str) -> None:
    """Refuse settings by which the network would read the past of targets."""
    anchors = inputs.OF_TARGETS
    if config.model.anchor not in anchors:
        raise ConfigError(
            f"model.anchor is {config.model.anchor}, which reads the past of {targets}, a target",
            f"{anchors[0]} or {anchors[1]}",
            f"take --anchor {anchors[0]}",
        )
    if config.data.lagged:
        raise ConfigError(
            f"data.lagged gives the network earlier frames of {targets}, a target",
            way_out="leave it out: data.lagged=[]",
        )
    if config.train.rollout > 1:
        raise ConfigError(
            f"train.rollout is {config.train.rollout}, and a forecast of {targets}, a target, cannot be fed back",
            way_out="take --set train.rollout=1",
        )
