"""Predictors of the user's own: what they return is checked, what they draw from is seeded and kept, and all of it is saved."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from safetensors.torch import load_file

from pdr_cli import families
from pdr_cli.inference import model as models
from pdr_cli.models.interfaces import Batch
from pdr_cli.runs import modelfile
from pdr_cli.training import run as training
from pdr_cli.training import step
from pdr_cli.training.loop import Trainer
from pdr_cli.training.request import Experiment
from pdr_cli.training.run import TrainingRequest
from pdr_cli.trust import USER
from tests.cli import Result, pdr
from tests.conftest import TINY, tiny_settings

NETS = '''
import random
import numpy as np, torch
from torch import nn
from torch.nn.utils import parametrizations

class Base(nn.Module):
    def __init__(self, in_steps, channels, **others):
        super().__init__()
        self.conv = nn.Conv2d(in_steps * channels, in_steps * channels, 3, padding=1)
    def mixed(self, x, layer):
        return layer(x.flatten(1, 2)).reshape(x.shape)
    def forward(self, x):
        return self.mixed(x, self.conv)

# What is returned
class FirstOnly(Base):
    def forward(self, x): return super().forward(x)[0]
class OneChannel(Base):
    def forward(self, x): return torch.cat([super().forward(x)] * 2, 2)
class Flat(Base):
    def forward(self, x): return super().forward(x).mean((-1, -2), keepdim=True)
class ChannelsLast(Base):
    def forward(self, x): return super().forward(x).permute(0, 1, 3, 4, 2)
class Pair(Base):
    def forward(self, x): return super().forward(x), None
class Nothing(Base):
    def forward(self, x): super().forward(x)
class Double(Base):
    def forward(self, x): return super().forward(x).double()
class Whole(Base):
    def forward(self, x): return super().forward(x).int()
class Array(Base):
    def forward(self, x): return super().forward(x).detach().numpy()
class NotANumber(Base):
    def forward(self, x): return super().forward(x) + (0 if self.training else float("nan"))

# What fails
class KeyMissing(Base):
    def forward(self, x): return {}["missing_key"]
class FileMissing(Base):
    def forward(self, x): return open("/nowhere/weights")
class Unbuildable(Base):
    def __init__(self, **options): raise ValueError("no such width")
class Lazy(Base):
    def __init__(self, **options):
        super().__init__(**options)
        self.lazy = nn.LazyLinear(3)
class ExtraState(Base):
    def get_extra_state(self): return {"epoch": 1}
    def set_extra_state(self, state): pass
class Unsaveable(Base):
    def __init__(self, **options):
        super().__init__(**options)
        self.register_buffer("phases", torch.zeros(3, dtype=torch.complex128))

# What is drawn from
drawn = np.random.default_rng()
class NumpyRandom(Base):
    def forward(self, x): return super().forward(x * (0.5 + np.random.rand()) if self.training else x)
class PythonRandom(Base):
    def forward(self, x): return super().forward(x * (0.5 + random.random()) if self.training else x)
class OwnGenerators(Base):
    def __init__(self, **options):
        super().__init__(**options)
        self.rng, self.old = np.random.default_rng(), np.random.RandomState()
        self.more = {"python": random.Random(), "torch": torch.Generator()}
    def forward(self, x):
        if not self.training: return super().forward(x)
        draws = self.rng.random() + self.old.rand() + self.more["python"].random()
        return super().forward(x * float(draws)) + torch.rand(1, generator=self.more["torch"])
class OfTheFile(Base):
    def forward(self, x): return super().forward(x * drawn.random() if self.training else x)
class TorchRandom(Base):
    def forward(self, x): return super().forward(nn.functional.dropout(x, 0.3, self.training))

# How parameters are shared and wrapped
class Tied(Base):
    def __init__(self, **options):
        super().__init__(**options)
        self.again, self.bias = self.conv, self.conv.bias
    def forward(self, x): return self.mixed(super().forward(x), self.again) + self.bias[0]
class Views(Base):
    def __init__(self, **options):
        super().__init__(**options)
        both = torch.arange(4.0)
        self.register_buffer("low", both[:2])
        self.register_buffer("high", both[1:])
        self.register_buffer("wide", both[:1].expand(5))
    def forward(self, x): return super().forward(x) + self.low.sum() + self.high.sum() + self.wide.sum()
class WeightNorm(Base):
    def __init__(self, **options):
        super().__init__(**options)
        self.conv = parametrizations.weight_norm(self.conv)
class OldWeightNorm(Base):
    def __init__(self, **options):
        super().__init__(**options)
        self.conv = nn.utils.weight_norm(self.conv)
class SpectralNorm(Base):
    def __init__(self, **options):
        super().__init__(**options)
        self.conv = parametrizations.spectral_norm(self.conv)
class OldSpectralNorm(Base):
    def __init__(self, **options):
        super().__init__(**options)
        self.conv = nn.utils.spectral_norm(self.conv)
class Wrapped(Base):
    def __init__(self, **options):
        super().__init__(**options)
        self.conv = nn.DataParallel(self.conv)
class Compiled(Base):
    def __init__(self, **options):
        super().__init__(**options)
        self.fast = torch.compile(self.conv, backend="eager")
    def forward(self, x): return self.mixed(x, self.fast)
class Hidden(Base):
    """A buffer that its state dict leaves out, drawn at random and changed in training."""
    def __init__(self, **options):
        super().__init__(**options)
        self.register_buffer("mean", torch.tensor(np.random.rand(), dtype=torch.float32), persistent=False)
    def forward(self, x):
        if self.training: self.mean.mul_(0.9).add_(0.1 * x.detach().mean() + 0.3)
        return super().forward(x) + self.mean
class Half(Base):
    def __init__(self, **options):
        super().__init__(**options)
        self.register_buffer("scale", torch.full((), 1.5, dtype=torch.bfloat16))
    def forward(self, x): return super().forward(x) * self.scale.to(x.dtype)
'''
DRAWING = ("NumpyRandom", "PythonRandom", "OwnGenerators", "OfTheFile", "TorchRandom")
SHARING = (
    *("Tied", "Views", "WeightNorm", "OldWeightNorm", "SpectralNorm", "OldSpectralNorm", "Wrapped", "Compiled"),
    *("Hidden", "Half"),
)


def line_of(text: str) -> int:
    """The number of the line of the module that holds a text."""
    return next(number for number, line in enumerate(NETS.splitlines(), 1) if text in line)


@pytest.fixture(autouse=True)
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The module, and what it leaves behind when it is gone."""
    (tmp_path / "ownnets.py").write_text(NETS)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path / "ownnets.py"
    forget()


def forget() -> None:
    """Import `ownnets` anew, as another process does."""
    sys.modules.pop("ownnets", None)
    families.imported.cache_clear()


def train(data: Path, net: str, out: str, *more: str | Path) -> Result:
    chosen = ("--backbone", f"ownnets:{net}", "--fusion", "none", "-o", out, "-q")
    alike = ("--steps", "6", *tiny_settings("schedule=constant", "batch=4"))
    return pdr("train", "--preset", "demo", "--data", data, *chosen, *alike, *more)


@pytest.mark.parametrize(
    ("net", "found", "expected"),
    [
        ("FirstOnly", "shape [4, 1, 13, 15]", "= [4, 4, 1, 13, 15]"),
        ("OneChannel", "shape [4, 4, 2, 13, 15]", "= [4, 4, 1, 13, 15]"),
        ("Flat", "shape [4, 4, 1, 1, 1]", "= [4, 4, 1, 13, 15]"),
        ("ChannelsLast", "shape [4, 4, 13, 15, 1]", "= [4, 4, 1, 13, 15]"),
        ("Pair", "a tuple", "one tensor"),
        ("Nothing", "a NoneType", "one tensor"),
        ("Array", "a ndarray", "one tensor"),
        ("Double", "float64", "float32, as its input"),
        ("Whole", "int32", "float32, as its input"),
    ],
)
def test_what_a_predictor_returns_must_fit_its_input(weather: Path, net: str, found: str, expected: str) -> None:
    result = train(weather, net, "run")
    assert (result.code, "E_CONFIG" in result.last) == (78, True), result.err
    assert f"ownnets.{net} returned" in result.last
    assert found in result.last
    assert expected in result.last


@pytest.mark.parametrize(
    ("net", "says"),
    [
        ("KeyMissing", f"ownnets.py, line {line_of('missing_key')} failed: KeyError: 'missing_key'"),
        ("FileMissing", f"ownnets.py, line {line_of('/nowhere/weights')} failed: FileNotFoundError"),
        ("Unbuildable", "failed: ValueError: no such width"),
        ("Lazy", "has the parameter predictor.lazy.weight without a shape"),
        ("ExtraState", "has predictor._extra_state in its state, a dict; expected tensors only"),
        ("Unsaveable", "has predictor.phases of type complex128"),
    ],
)
def test_a_failure_of_own_code_is_not_called_a_bug_of_pdr(
    weather: Path, net: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("traceback.format_exc", lambda: "trace")  # which `pdr` here takes for a crash
    result = train(weather, net, "run")
    assert (result.code, "E_CONFIG" in result.last) == (78, True), result.err
    assert says in result.last
    assert "bug" not in result.err


@pytest.mark.parametrize("line", ["1 / 0", "def", "import nowhere_at_all", "raise SystemExit(0)"])
def test_a_module_that_fails_when_it_is_imported_is_the_users(weather: Path, nets: Path, line: str) -> None:
    nets.write_text(line)
    result = train(weather, "Base", "run")
    assert (result.code, "E_CONFIG" in result.last) == (78, True), result.err
    assert "--backbone ownnets:Base cannot be imported" in result.last


def test_a_training_without_a_finite_validation_does_not_end_well(weather: Path) -> None:
    result = train(weather, "NotANumber", "run")
    assert (result.code, "E_NON_FINITE_LOSS" in result.last) == (65, True), result.err
    assert "no model was saved" in result.last


def test_a_forecast_that_is_not_finite_is_refused(weather: Path, nets: Path) -> None:
    assert train(weather, "Base", "run").code == 0
    nets.write_text(NETS.replace("reshape(x.shape)", "reshape(x.shape) + float('nan')"))
    forget()
    result = pdr("predict", weather, "-m", "run", "-o", "a.nc", "--trust-code")
    assert (result.code, "E_CONFIG" in result.last) == (78, True), result.err
    assert "ownnets:Base" in result.last
    assert not Path("a.nc").exists()


@pytest.mark.parametrize("net", DRAWING)
def test_a_stopped_training_draws_on_as_if_it_had_not_been_stopped(
    weather: Path, net: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert train(weather, net, "whole").code == 0
    np.random.rand()  # another process would be elsewhere in its numbers
    forget()
    kept = Trainer._keep

    def stopped(self: Trainer) -> None:
        kept(self)
        if self.position.step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "_keep", stopped)
        assert train(weather, net, "part").code == 143
    forget()
    result = pdr("train", "--resume", "-o", "part", "-q", "--trust-code")
    assert result.code == 0, result.err
    whole, part = (load_file(f"{run}/state/last.safetensors") for run in ("whole", "part"))
    assert [name for name in whole if not whole[name].equal(part[name])] == []


@pytest.mark.parametrize("net", DRAWING)
def test_a_halved_batch_draws_in_its_second_pass_as_in_its_first(weather: Path, net: str) -> None:
    experiment = Experiment("demo", [weather], settings=[f"model.backbone=ownnets:{net}", "model.fusion=none"])
    loop = training.trainer(training.plan(TrainingRequest(experiment.resolve(), trust=experiment.trust())))
    windows = loop._batch().inputs.rows(slice(0, 2))
    restore = loop.randomness.snapshot()
    halved = step.forward_in_parts(loop.network, windows, 1, loop.randomness).fused
    gradients = gradients_of(loop, halved)
    restore()
    each = [loop.network(windows.rows(slice(i, i + 1)), "train").fused for i in range(2)]
    whole = gradients_of(loop, torch.cat(each))
    assert all(torch.allclose(a, b) for a, b in zip(gradients, whole, strict=True))


def gradients_of(loop: Trainer, forecast: torch.Tensor) -> list[torch.Tensor]:
    loop.network.zero_grad()
    forecast.square().sum().backward()
    return [p.grad.clone() for p in loop.network.parameters() if p.grad is not None]


@pytest.mark.parametrize("net", SHARING)
def test_a_saved_network_computes_what_it_computed_before_it_was_saved(weather: Path, net: str) -> None:
    settings = [*TINY, f"model.backbone=ownnets:{net}", "model.fusion=none", "train.steps=4"]
    experiment = Experiment("demo", [weather], settings=settings)
    run = training.train(TrainingRequest(experiment.resolve(), Path("run"), trust=experiment.trust()))
    best = modelfile.read(Path("run/model.safetensors"))
    modelfile.save(Path("last.safetensors"), run.network, best.card, best.climatology)
    observed = torch.rand(3, 4, 1, 13, 15, generator=torch.Generator().manual_seed(1))
    before = run.network.eval()(Batch(observed, 6)).fused
    forget()
    np.random.seed(99)  # another process begins elsewhere
    loaded = models.load(Path("last.safetensors"), "cpu", trust=USER)
    assert loaded.network(Batch(observed, 6)).fused.equal(before)
    resumed = pdr("train", "--resume", "-o", "run", "--steps", "6", "-q", "--trust-code")
    assert resumed.code == 0, resumed.err


def test_the_source_of_own_code_is_part_of_a_request(weather: Path, nets: Path) -> None:
    assert train(weather, "Base", "run").code == 0
    predict = ("predict", weather, "-m", "run", "-o", "a.nc", "--skip-existing", "--trust-code")
    assert pdr(*predict).code == 0
    assert "up to date" in pdr(*predict).out
    first = xr.open_dataset("a.nc").load()
    first.close()
    assert first.attrs["pdr_code_sha256"].startswith("ownnets:Base ")
    nets.write_text(NETS.replace("reshape(x.shape)", "reshape(x.shape) + 1"))
    forget()
    changed = pdr(*predict)
    assert changed.code == 0, changed.err
    assert "up to date" not in changed.out
    assert "ownnets:Base is not the code that the model was trained with" in changed.err
    with xr.open_dataset("a.nc") as second:
        assert not np.array_equal(first.t2m, second.t2m)


def test_the_code_is_named_where_a_model_is_described(weather: Path) -> None:
    assert train(weather, "Base", "run").code == 0
    assert "ownnets:Base" in json.loads(pdr("inspect", "run", "--json").out)["code"]
