"""The benchmark of compositing times only what composes the same, beside the dense reference of the same run."""

from __future__ import annotations

import json

import pytest
import torch

from pdr_cli import splat
from pdr_cli.bench import compose, render
from pdr_cli.commands import bench_render as command
from pdr_cli.errors import UsageError
from pdr_cli.splat import compose_reference, native
from tests.cli import pdr

needs_native = pytest.mark.skipif(bool(native.unavailable("cpu")), reason=native.unavailable("cpu"))
SMALL = {"kind": "compose", "res": [16], "gaussians": 20, "repeats": 5, "device": "cpu"}


def small(*, as_json=False, output=None, **options):
    """`pdr bench-render --kind compose` on one small frame; its exit code."""
    return command.run(render.Options(**SMALL | options), output, as_json)


def report(capsys, **options):
    """Exit code and parsed JSON."""
    code = small(as_json=True, **options)
    return code, json.loads(capsys.readouterr().out)


@needs_native
def test_rows_follow_the_schema(capsys):
    code, found = report(capsys, backward=True, channels=[2], batch=[3])
    assert code == 0
    assert {"device", "torch", "threads"} <= found.keys()
    passes, names = ("forward", "forward+backward"), ("reference", "predgsplat")
    assert [(r["pass"], r["variant"]) for r in found["rows"]] == [(p, name) for p in passes for name in names]
    for row in found["rows"]:
        assert (row["height"], row["gaussians"], row["channels"], row["batch"], row["ok"]) == (16, 20, 2, 3, True)
        assert 0 < row["max_rel_err"] < 1e-5
        assert row["fps"] == pytest.approx(1000 / row["ms_p50"])
    dense, compiled = found["rows"][:2]
    assert dense["speedup_vs_reference"] == 1
    assert compiled["speedup_vs_reference"] == pytest.approx(dense["ms_p50"] / compiled["ms_p50"])


@needs_native
def test_the_command_prints_the_ratio_to_the_dense_reference(tmp_path):
    arguments = ["bench-render", "--kind", "compose", "--res", "16", "--gaussians", "20", "--device", "cpu"]
    done = pdr(*arguments, "--threads", "1", "--repeats", "5", "-o", tmp_path / "bench.json")
    assert done.code == 0, done.err
    assert "x reference" in done.out
    assert json.loads((tmp_path / "bench.json").read_text())["threads"] == 1


def test_defaults_are_a_frame_of_64_with_4096_gaussians(monkeypatch):
    settings = []
    monkeypatch.setattr(compose, "measure", lambda setting, *others: settings.append(setting) or [])
    compose.run(render.Options(kind="compose", device="cpu"))
    assert settings == [render.Frames(64, 64, gaussians=4096, channels=3, batch=1)]


def test_a_variant_that_fails_is_not_timed(capsys, monkeypatch):
    right = compose_reference.compose
    monkeypatch.setattr(compose, "compose", lambda *inputs, size, backend: right(*inputs, size) * 1.001)
    code, found = report(capsys)
    assert code == 1
    assert [(row["variant"], row["ok"], row["fps"] is None) for row in found["rows"]] == [
        ("reference", True, False),
        ("predgsplat", False, True),
    ]


def test_the_truth_in_bands_is_the_reference():
    setting = render.Frames(40, 40, gaussians=30, channels=2, batch=2)
    inputs = [x.double() for x in compose.random_inputs(setting, torch.device("cpu"))]
    torch.testing.assert_close(compose.by_bands(inputs, (40, 40)), compose_reference.compose(*inputs, (40, 40)))


def test_no_pixel_lies_on_a_step_of_alpha():
    centre, conic, opacity, _ = compose.random_inputs(render.Frames(64, 64, 1000, 1, 1), torch.device("cpu"))
    alpha = compose_reference.unlimited_alphas(centre.double(), conic.double(), opacity.double(), (64, 64))
    for step in (1 / 255, 0.99):
        assert ((alpha / step - 1).abs() > 0.9e-5).all()


def test_a_compiled_renderer_that_is_not_there_is_an_error_by_name_only(capsys, monkeypatch):
    def unavailable(*args, **options):
        raise splat.RendererUnavailable("not built")

    monkeypatch.setattr(compose, "compose", unavailable)
    with pytest.raises(UsageError, match="predgsplat: not built"):
        small(variants=["predgsplat"])
    assert {row["variant"] for row in report(capsys)[1]["rows"]} == {"reference"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "composed"}, "--kind 'composed' is not known.*Did you mean 'compose'.*one of render, compose"),
        ({"variants": ["base"]}, "'base' is not known"),
        ({"kernel_size": 15}, "--kind compose with --paper, --codecs or --kernel-size"),
        ({"codecs": True}, "--kind compose with --paper, --codecs or --kernel-size"),
        ({"gaussians": 0}, "--gaussians 0; expected at least 1"),
    ],
)
def test_says_what_cannot_be_measured(options, message):
    with pytest.raises(UsageError, match=message):
        small(**options)
