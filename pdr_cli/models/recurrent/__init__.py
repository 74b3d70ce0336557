"""Predictors that go frame by frame, by name. Each is called with what `build_predictor` knows, by keyword."""

from __future__ import annotations

from collections.abc import Callable

from .convlstm import ConvLSTM
from .e3dlstm import E3DLSTM
from .mau import MAU
from .mim import MIM
from .phydnet import PhyDNet
from .prednet import PredNet
from .predrnn import PredRNN, PredRNNv2
from .predrnnpp import PredRNNpp
from .sequence import Recurrent

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
