"""Predictors that go frame by frame, by name. Each is called with what `build_predictor` knows, by keyword."""

from __future__ import annotations

from collections.abc import Callable

from pdr_cli.models.predictors.recurrent.convlstm import ConvLSTM
from pdr_cli.models.predictors.recurrent.e3dlstm import E3DLSTM
from pdr_cli.models.predictors.recurrent.mau import MAU
from pdr_cli.models.predictors.recurrent.mim import MIM
from pdr_cli.models.predictors.recurrent.phydnet import PhyDNet
from pdr_cli.models.predictors.recurrent.prednet import PredNet
from pdr_cli.models.predictors.recurrent.predrnn import PredRNN, PredRNNv2
from pdr_cli.models.predictors.recurrent.predrnnpp import PredRNNpp
from pdr_cli.models.predictors.recurrent.sequence import Recurrent

RECURRENT: dict[str, Callable[..., Recurrent]] = {
    "convlstm": ConvLSTM,
    "e3dlstm": E3DLSTM,
    "mau": MAU,
    "mim": MIM,
    "phydnet": PhyDNet,
    "prednet": PredNet,
    "predrnn": PredRNN,
    "predrnnpp": PredRNNpp,
    "predrnnv2": PredRNNv2,
}
