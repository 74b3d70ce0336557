"""The published configurations of every predictor, with what the public toolbox measured of each."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import nn

from tests.models.builders import build_predictor


class Setup(NamedTuple):
    """Frames [T, C, H, W] and the values of the network that most predictors share there."""

    shape: tuple[int, int, int, int]
    hid_s: int
    hid_t: int
    n_s: int
    n_t: int


SETUPS = {
    "taxibj": Setup((4, 2, 32, 32), 32, 256, 2, 8),
    "weatherbench": Setup((12, 1, 32, 64), 32, 256, 2, 8),
    "kth": Setup((10, 1, 128, 128), 64, 256, 2, 6),
    "human": Setup((4, 3, 256, 256), 64, 512, 4, 8),
}
# Where a predictor's configuration differs from the others' there.
OWN = {
    ("simvp", "kth"): {"n_t": 4},
    ("vit", "kth"): {"n_t": 4},
    ("uniformer", "kth"): {"n_t": 4},
    ("simvp", "human"): {"n_t": 6},
    ("simvp2", "human"): {"hid_t": 256},
    ("hornet", "human"): {"n_t": 6},
    ("moganet", "human"): {"n_t": 6, "hid_t": 256},
    ("vit", "human"): {"hid_t": 256},
}
# Parameters, in the order of SETUPS.
PARAMETERS = {
    "simvp": (13_794_914, 14_666_017, 8_600_641, 41_156_355),
    "simvp2": (9_961_058, 12_758_305, 15_632_961, 11_327_235),
    "tau": (9_545_442, 12_219_553, 14_955_201, 37_647_363),
    "convnext": (7_843_554, 10_087_585, 12_466_881, 31_392_771),
    "hornet": (9_679_650, 12_416_097, 15_261_441, 28_117_635),
    "moganet": (9_964_426, 12_762_121, 15_636_327, 8_618_889),
    "vit": (9_657_698, 12_414_497, 12_699_457, 11_003_651),
    "swin": (9_660_834, 12_417_633, 15_331_953, 38_825_283),
    "uniformer": (9_525_346, 12_028_705, 11_785_793, 38_229_763),
    "poolformer": (7_753_314, 9_985_313, 12_376_641, 31_212_291),
    "van": (9_484_002, 12_149_921, 14_893_761, 37_524_483),
    "mlpmixer": (8_244_002, 11_100_257, 20_262_657, 46_967_939),
    "convmixer": (841_314, 1_135_905, 1_532_481, 3_134_211),
}
# Operations of one pass at batch 1 as torch counts them, in G, in the order of SETUPS.
GFLOPS = {
    "simvp": (7.184, 15.94, 95.77, 392.8),
    "simvp2": (5.218, 13.98, 153.2, 148.5),
    "tau": (4.974, 13.36, 147.1, 362.8),
    "convnext": (4.149, 11.28, 127.5, 313),
    "hornet": (5.081, 13.64, 150.2, 286.1),
    "moganet": (5.211, 13.96, 153.1, 126.4),
    "vit": (5.577, 15.93, 223.9, 283.5),
    "swin": (5.106, 13.72, 151.4, 374.7),
    "uniformer": (5.407, 14.86, 156.3, 575),
    "poolformer": (4.101, 11.17, 126.7, 311.5),
    "van": (4.974, 13.36, 147.1, 362.8),
    "mlpmixer": (4.344, 11.79, 132.7, 327),
    "convmixer": (0.5709, 2.127, 38.02, 81.72),
}
NAMES = list(PARAMETERS)
# What the toolbox calls them, in its listing of tensors and in its configurations.
LISTED = {
    "simvp": "SimVP(IncepU)",
    "simvp2": "SimVPv2(gSTA)",
    "tau": "TAU",
    "convnext": "ConvNeXt",
    "hornet": "HorNet",
    "moganet": "MogaNet",
    "vit": "ViT",
    "swin": "Swin",
    "uniformer": "Uniformer",
    "poolformer": "Poolformer",
    "van": "VAN",
    "mlpmixer": "MLP-Mixer",
    "convmixer": "ConvMixer",
}


def build_published(name: str, setup: str, **changes: Any) -> nn.Module:
    """A predictor as published, on no device: shapes without numbers."""
    (T, C, H, W), *values = SETUPS[setup]
    options = dict(zip(("hid_s", "hid_t", "n_s", "n_t"), values, strict=True)) | OWN.get((name, setup), {})
    with torch.device("meta"):
        return build_predictor(name, T, C, **options | changes, mlp_ratio=8, drop_path=0.1, size=(H, W))
