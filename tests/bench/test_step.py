"""The training benchmark times only steps that compute the same, and says on what."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time

import pytest
import torch

from pdr_cli.bench import agreement, step_setting
from pdr_cli.bench import step as bench_train
from pdr_cli.commands import bench_train as command
from pdr_cli.config import load
from pdr_cli.errors import DeviceError, PdrError, UsageError
from pdr_cli.training import setup
from tests.cli import pdr
from tests.conftest import TINY

SETTINGS = [*TINY, "in_steps=2", "out_steps=3"]  # rolled out, two passes a step
SMALL = {"settings": SETTINGS, "size": (12, 12), "batch": 2, "repeats": 2, "device": "cpu"}


def small(*, as_json=False, output=None, **options):
    """`pdr bench-train` on small frames; its exit code."""
    return command.run(step_setting.Options(**SMALL | options), output, as_json)


def find(preset, **options):
    """The setting of a preset."""
    return step_setting.Options(preset, device="cpu", **options).setting()


class InThisProcess:
    """A worker that a test can spoil, and that starts at once."""

    def __init__(self, variant, setting, threads):
        self.step = (bench_train.Pass if setting.forward else bench_train.Step)(variant, setting)

    def outcome(self):
        return self.step.outcome()

    def __call__(self):
        return self.step()

    def close(self):
        pass


@pytest.fixture(autouse=True)
def in_this_process(request, monkeypatch):
    if "in processes" not in request.node.name:
        monkeypatch.setattr(bench_train.measure, "__defaults__", (InThisProcess,))


def report(capsys, **options):
    """Exit code and parsed JSON."""
    code = small(as_json=True, **options)
    return code, json.loads(capsys.readouterr().out)


def test_rows_follow_the_schema(capsys):
    code, found = report(capsys, channels=3)
    assert code == 0
    assert {"device", "torch", "threads"} <= found.keys()
    assert [row["variant"] for row in found["rows"]] == list(step_setting.VARIANTS)
    for row in found["rows"]:
        assert (row["preset"], row["backbone"], row["batch"]) == ("taxibj", "tau", 2)
        assert (row["in_steps"], row["out_steps"], row["channels"], row["size"]) == (2, 3, 3, [12, 12])
        assert row["ok"]
        assert row["repeats"] == 2
        assert row["ms_p10"] <= row["ms_p50"] <= row["ms_p90"]
        assert sum(row["shares"].values()) == pytest.approx(1)
    plain, tuned, _, ours, _ = found["rows"]
    assert plain["ratio_to_plain"] == 1
    assert ours["cpu_ratio_to_plain"] == pytest.approx(ours["cpu_ms_p50"] / plain["cpu_ms_p50"])
    assert ours["cpu_ratio_to_plain_malloc"] == pytest.approx(ours["cpu_ms_p50"] / tuned["cpu_ms_p50"])
    assert ours["ratio_to_plain"] == pytest.approx(ours["ms_p50"] / plain["ms_p50"])


def test_plain_is_the_predictor_alone(capsys):
    _, found = report(capsys, variants=["plain", "plain+predgs"])
    alone, whole = (bench_train.build(v, find("taxibj", size=None, channels=None)) for v in ("plain", "plain+predgs"))
    assert alone.adapter is None
    assert whole.adapter is not None
    assert found["rows"][0]["shares"]["adapter"] < found["rows"][1]["shares"]["adapter"]


def test_the_step_is_set_up_as_training_does_it():
    setting = find("taxibj", size=(32, 32), channels=2, settings=[*TINY, "batch=1"])
    steps = {name: bench_train.Step(name, setting) for name in step_setting.VARIANTS}
    layouts = {name: s.network.predictor.enc.enc[1].conv.conv.weight.stride(1) for name, s in steps.items()}
    ours = {"pdr", "pdr+bf16"}
    assert layouts == {
        name: 1 if name in ours else 9 for name in steps
    }  # 3 x 3 kernels; channels-last has channels adjacent
    fused = {name: s.optimizer.defaults["fused"] for name, s in steps.items()}
    assert fused == {name: True if name in ours else None for name in steps}


def test_gradients_in_bfloat16_are_compared_together():
    truth = bench_train.Outcome(torch.ones(2), torch.ones(2), {"a": torch.tensor([3.0, 4.0]), "b": torch.zeros(1)})
    found = truth._replace(gradients={"a": torch.tensor([3.0, 4.0]), "b": torch.tensor([0.5])})
    assert bench_train.compare(found, truth) == (0, float("inf"))
    assert bench_train.compare(found, truth, bf16=True) == (0, pytest.approx(0.1))  # 0.5 of |(3, 4)|


def test_the_preset_s_precision_is_that_of_pdr_alone():
    single, half = (
        find("taxibj", size=(12, 12), channels=2, settings=[*TINY, f"precision={name}"]) for name in ("fp32", "bf16")
    )
    assert [v for v in step_setting.VARIANTS if bench_train.in_bf16(v, single)] == ["pdr+bf16"]
    assert [v for v in step_setting.VARIANTS if bench_train.in_bf16(v, half)] == ["pdr", "pdr+bf16"]


@pytest.mark.slow
@pytest.mark.parametrize("_", ["in processes of their own"])
def test_the_table_names_variants_parts_and_device(_):
    settings = [part for setting in SETTINGS for part in ("--set", setting)]
    result = pdr(
        "bench-train",
        *settings,
        "--size",
        "12",
        "12",
        "--batch",
        "2",
        "--repeats",
        "2",
        "--device",
        "cpu",
        "--variants",
        "plain+predgs,pdr",
    )
    assert result.code == 0, result.err
    for text in ("plain+predgs", "pdr", "loss, backward", f"torch {torch.__version__}", "2 to 3 frames of 2 x 12 x 12"):
        assert text in result.out


def wrong_value(network):
    for parameter in network.predictor.parameters():
        parameter.data *= 1.001


def wrong_gradient(network):
    bias = network.predictor.dec.readout.bias
    bias.register_hook(lambda gradient: 1.001 * gradient)


def not_a_number(network):
    network.predictor.dec.readout.bias.data[:] = float("nan")


@pytest.mark.parametrize("spoil", [wrong_value, wrong_gradient, not_a_number])
def test_a_variant_that_fails_is_not_timed(capsys, monkeypatch, spoil):
    def set_up(network, *arguments):
        spoil(network)
        return setup.set_up(network, *arguments)

    monkeypatch.setattr(bench_train, "set_up", set_up)
    code, found = report(capsys, variants=["plain", "plain+predgs", "pdr"])
    assert code == 1
    assert [row["ok"] for row in found["rows"]] == [True, True, False]
    assert found["rows"][-1]["ms_p50"] is None
    small(variants=["pdr"])
    assert "failed" in capsys.readouterr().out


def test_a_gradient_that_is_missing_fails(capsys, monkeypatch):
    def set_up(network, *arguments):
        network.predictor.dec.readout.bias.requires_grad_(False)
        return setup.set_up(network, *arguments)

    monkeypatch.setattr(bench_train, "set_up", set_up)
    assert report(capsys)[0] == 1


def test_errors_are_relative_to_the_largest_entry():
    truth = torch.tensor([0.5, -4.0])
    assert agreement.relative_error(torch.tensor([0.5, -3.0]), truth) == 0.25  # 1 of 4
    assert agreement.relative_error(torch.zeros(2), torch.zeros(2)) == 0
    assert agreement.relative_error(torch.ones(2), torch.zeros(2)) == float("inf")


@pytest.mark.parametrize("preset", step_setting.PUBLISHED)
def test_frames_are_those_of_the_preset(preset):
    setting = find(preset, size=None, channels=None)
    given = load(preset).data
    assert setting.size == tuple(given.size) or not given.size
    assert setting.channels == {"gray": 1, "rgb": 3}[given.color] or given.kind != "video"
    assert find(f"{preset}-paper", size=None, channels=None).size == setting.size
    assert find(preset, size=(8, 16), channels=None).size == (8, 16)


@pytest.mark.parametrize("_", ["in processes of their own"])
def test_a_worker_computes_what_its_step_does(_):
    setting = find("taxibj", size=(12, 12), channels=2, settings=[*TINY, "batch=1"])
    worker = bench_train.Worker("pdr", setting, 1)
    found = worker.outcome()
    assert set(worker().parts) == set(bench_train.PARTS)
    assert max(bench_train.compare(found, bench_train.Step("pdr", setting).outcome())) < 1e-5
    worker.process.terminate()
    worker.process.join()
    with pytest.raises(PdrError, match=r"ended by SIGTERM$"):
        worker()


def test_writes_the_same_json_to_a_file(capsys, tmp_path):
    code, found = report(capsys, output=tmp_path / "bench.json", variants=["pdr"])
    assert code == 0
    assert found["rows"][0]["ratio_to_plain"] is None
    assert json.loads((tmp_path / "bench.json").read_text()) == found


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variants": ["pdq"]}, "'pdq' is not known.*Did you mean 'pdr'"),
        ({"repeats": 1}, "--repeats 1; expected at least 2"),
        ({"threads": 0}, "--threads 0; expected at least 1"),
        ({"preset": "demo"}, "preset demo does not fix the size of its frames; expected --size H W and --channels C"),
        ({"preset": "traffic-small", "channels": 1, "settings": ()}, "trains no network.*name a --backbone"),
        (
            {"preset": "scenes-small", "channels": 1, "settings": ()},
            "trains moving scenes, and bench-train times forecast",
        ),
        (
            {"preset": "video-ensemble", "channels": 1, "settings": ()},
            "trains a generator in the latents of another run",
        ),
        (
            {"preset": "video-deform", "channels": 1, "settings": (), "variants": ["plain", "pdr"]},
            "--variants plain is the predictor alone, and --backbone none has nothing to train",
        ),
    ],
)
def test_says_what_cannot_be_measured(options, message):
    with pytest.raises(UsageError, match=message):
        small(**options)


def test_without_a_predictor_what_has_one_alone_is_left_out(capsys):
    code, found = report(capsys, preset="video-deform", channels=1, settings=(), size=(16, 16))
    assert code == 0
    assert [row["variant"] for row in found["rows"]] == ["plain+predgs", "pdr", "pdr+bf16"]


def test_forecasts_without_a_generator_s_members_are_timed(capsys):
    code, found = report(capsys, preset="weather-ensemble", channels=1, settings=(), forward=True, variants=["pdr"])
    assert (code, found["rows"][0]["ok"]) == (0, True)


def test_a_size_has_two_sides():
    result = pdr("bench-train", "--size", "12")
    assert (result.code, "--size 12; expected two numbers" in result.err) == (2, True)


def test_a_gpu_that_is_not_there_is_an_error(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceError, match="--device cuda"):
        small(device="cuda")


def test_a_forecast_is_timed_without_gradients_and_in_bf16_too(capsys):
    code, found = report(capsys, forward=True, variants=["plain+predgs", "pdr", "pdr+bf16"])
    rows = {row["variant"]: row for row in found["rows"]}
    assert code == 0
    assert found["forward"]
    assert rows["pdr"]["max_rel_err"] < 1e-5 < rows["pdr+bf16"]["max_rel_err"] < 2**-5
    assert all(row["shares"]["backward"] == 0 for row in rows.values())


@pytest.mark.parametrize("forward", [False, True])
def test_the_compiled_variant_runs_the_compiled_network_and_only_on_request(capsys, monkeypatch, forward):
    compiled = []

    def compile_(network):
        compiled.append(0)

        def run(batch):
            compiled[-1] += 1
            return network(batch)

        return run

    monkeypatch.setattr(torch, "compile", compile_)
    code, found = report(capsys, forward=forward, variants=["plain", "pdr", "pdr+compile"])
    assert (code, [row["variant"] for row in found["rows"]]) == (0, ["plain", "pdr", "pdr+compile"])
    assert compiled == [1 + bench_train.WARM_UP + 2]  # for its check, to warm up, and timed
    assert report(capsys, forward=forward, variants=[])[0] == 0
    assert len(compiled) == 1


@pytest.mark.slow
def test_the_compiled_variant_computes_the_same(capsys):
    code, found = report(capsys, variants=["pdr+compile"])
    assert (code, found["rows"][0]["ok"]) == (0, True)


def test_a_comparison_is_made_without_tf32(monkeypatch):
    setting = find("taxibj", settings=SETTINGS, size=(12, 12), channels=2, batch=2)
    step, seen = bench_train.Step("pdr", setting), []
    forward = step.forward
    monkeypatch.setattr(step, "forward", lambda batch: seen.append(torch.backends.cudnn.allow_tf32) or forward(batch))
    before = torch.backends.cudnn.allow_tf32
    step.outcome()
    step()
    assert seen == [False, before]
    assert torch.backends.cudnn.allow_tf32 == before


@pytest.mark.parametrize(
    ("end", "found"),
    [
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "ended by SIGKILL; check that there is enough memory"),
        (lambda: os._exit(1), "ended by its error above"),
    ],
)
def test_a_process_that_ends_is_said_to_have_ended_as_it_did(end, found):
    with pytest.raises(PdrError, match=f"{found}$"):
        forked(lambda there: end()).ask("step")


def test_a_process_that_closes_its_end_and_goes_on_is_not_called_ended(monkeypatch):
    monkeypatch.setattr(bench_train, "END_SECONDS", 0.1)
    worker = forked(lambda there: (there.close(), time.sleep(60)))
    try:
        with pytest.raises(PdrError, match=r"has closed its connection and goes on$"):
            worker.ask("step")
    finally:
        worker.process.kill()


def forked(target):
    """A worker whose process, forked from this one, runs `target` with its end of the pipe."""
    worker = bench_train.Worker.__new__(bench_train.Worker)
    context = multiprocessing.get_context("fork")
    worker.pipe, there = context.Pipe()
    worker.process = context.Process(target=target, args=(there,))
    worker.process.start()
    there.close()
    return worker
