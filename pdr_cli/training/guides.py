"""The guide of a generator: the run that `latent.guess` names, whose network and configuration go into the model file."""

from __future__ import annotations

import numpy as np

from pdr_cli.data.scaling import Scaling
from pdr_cli.errors import CheckpointError, ConfigError
from pdr_cli.models.anchors.guide import Guide
from pdr_cli.models.pdr import PDR
from pdr_cli.runs import folder, modelfile, tensors
from pdr_cli.schema import Config

OWN = ("self", "none")  # values of `latent.guess` that name no run
READ = ("calendar", "holidays", "static", "roles", "lagged", "back")  # keys of [data] that its context is made from
ALIKE = ("data.in_steps", "data.out_steps", "model.periodic")


def resolved(config: Config) -> Config:
    """A configuration with that of its guide, whose context is then read.

    Raises:
        InputNotFoundError, CheckpointError: the run that `latent.guess` names cannot be read.
        ConfigError: it forecasts other frames, or what it forecasts could be saved in place of the members.
    """
    latent = config.latent
    if config.guide is not None or latent is None or latent.generator == "none" or latent.guess in OWN:
        return config
    guide = modelfile.read_header(folder.find_model(latent.guess)).card.config
    for key in ALIKE:
        table, _, name = key.partition(".")
        mine, theirs = (getattr(getattr(one, table), name) for one in (config, guide))
        if mine != theirs:
            found = f"latent.guess is {latent.guess}, whose {key} is {theirs}, not {mine}"
            raise ConfigError(found, way_out=f"train with --set {key}={theirs}, or name another run")
    if config.train.fallback:
        raise ConfigError("train.fallback would save the guess without members", way_out="--set train.fallback=false")
    data = config.data.model_copy(update={key: getattr(guide.data, key) for key in READ})
    return config.model_copy(update={"guide": guide, "data": data})


def load(network: PDR, config: Config, scaling: Scaling, variables: list[str]) -> None:
    """Load the weights of the guide, if there is one.

    Raises:
        CheckpointError: it forecasts other variables, or has other units inside.
    """
    if config.guide is None or config.latent is None or not isinstance(network.anchor, Guide):
        return
    path = folder.find_model(config.latent.guess)
    file = modelfile.read(path)
    if list(file.card.variables) != variables:
        raise CheckpointError(f"{path} forecasts {', '.join(file.card.variables)}", f"{', '.join(variables)}")
    theirs = file.card.scaling
    if not all(
        np.allclose(a, b, rtol=1e-6) for a, b in ((theirs.offset, scaling.offset), (theirs.scale, scaling.scale))
    ):
        way_out = "train both on the same data and periods"
        raise CheckpointError(
            f"{path} was scaled by other training data, so its frames have other units", way_out=way_out
        )
    tensors.restore(network.anchor.network, file.weights)
