"""The benchmark times only what renders the same, and says on what."""

from __future__ import annotations

import json
import time

import pytest
import torch

from pdr_cli import splat
from pdr_cli.bench import render as bench_render
from pdr_cli.bench import timing
from pdr_cli.commands import bench_render as command
from pdr_cli.errors import DeviceError, PdrError, UsageError
from pdr_cli.splat import literal, reference
from pdr_cli.system import logs

SMALL = {"res": [16], "gaussians": 5, "kernel_size": 7, "repeats": 5, "device": "cpu"}


def small(*, as_json=False, output=None, **options):
    """`pdr bench-render` on one small frame; its exit code."""
    return command.run(bench_render.Options(**SMALL | options), output, as_json)


def report(capsys, **options):
    """Exit code and parsed JSON."""
    code = small(as_json=True, **options)
    return code, json.loads(capsys.readouterr().out)


def test_rows_follow_the_schema(capsys):
    code, found = report(capsys, backward=True, channels=[2], batch=[3])
    assert code == 0
    assert {"device", "torch", "threads"} <= found.keys()
    passes = ("forward", "forward+backward")
    names = [v.name for v in bench_render.find_variants([], torch.device("cpu"))]
    assert [(r["pass"], r["variant"]) for r in found["rows"]] == [(p, name) for p in passes for name in names]
    for row in found["rows"]:
        assert (row["height"], row["kernel_size"], row["gaussians"], row["channels"], row["batch"]) == (16, 7, 5, 2, 3)
        assert row["ok"]
        assert row["repeats"] == 5
        assert 0 < row["max_rel_err"] < 1e-4
        assert row["ms_p10"] <= row["ms_p50"] <= row["ms_p90"]
        assert row["fps"] == pytest.approx(1000 / row["ms_p50"])
    base, _, other = found["rows"][:3]
    assert base["speedup_vs_base"] == 1
    assert other["speedup_vs_base"] == pytest.approx(base["ms_p50"] / other["ms_p50"])
    assert other["cpu_speedup_vs_base"] == pytest.approx(base["cpu_ms_p50"] / other["cpu_ms_p50"])


def test_cpu_time_is_that_of_the_process_and_does_not_count_waiting():
    (sample, *_) = timing.interleave({"asleep": lambda: time.sleep(0.02)}, 5, torch.device("cpu"))["asleep"]
    assert sample.wall >= 0.02
    assert sample.cpu < 0.01


def test_a_frame_need_not_be_square(capsys):
    code, found = report(capsys, res=["16x12", "9"], backward=True)
    assert code == 0
    assert {(row["height"], row["width"]) for row in found["rows"]} == {(12, 16), (9, 9)}
    small(res=["16x12"])
    assert "16x12" in capsys.readouterr().out


def test_several_settings_say_how_far_the_command_is(capsys, monkeypatch):
    monkeypatch.setattr(logs, "SHORTEST", 0)
    settings = [bench_render.Setting(8, width, 20, 3, 1, kernel_size=5) for width in (8, 16)]
    logs.setup(quiet=False, verbose=False, as_json=False)
    rows = bench_render.in_turn(settings, lambda setting: [{"width": setting.width}])
    assert rows == [{"width": 8}, {"width": 16}]
    assert capsys.readouterr().err.splitlines() == ["measured  50 %  8x8, N 20, C 3, batch 1"]


def test_the_frames_of_codecs_are_drawn_in_colour_and_without_the_literal_variants(capsys, monkeypatch):
    settings = bench_render.Options(codecs=True).settings()
    assert {s.size for s in settings} == {(512, 512), (512, 768), (1080, 1920)}
    assert {(s.gaussians, s.channels, s.kernel_size) for s in settings} == {(10_000, 3, 51), (50_000, 3, 51)}
    monkeypatch.setattr(bench_render, "CODEC_FRAMES", ((60, 70),))
    monkeypatch.setattr(bench_render, "CODEC_GAUSSIANS", (20,))
    monkeypatch.setattr(splat, "render", lambda *inputs, backend, **options: reference.render(*inputs, **options))
    options = bench_render.Options(codecs=True, backward=True, repeats=5, device="cpu")
    assert command.run(options, None, True) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [(row["variant"], row["width"], row["speedup_vs_base"]) for row in rows] == [("predgsplat", 70, None)] * 2


@pytest.mark.parametrize(("height", "kernel_size"), [(90, 7), (20, 51), (2, 3)])
def test_the_reference_in_the_rows_of_a_few_gaussians_is_the_reference(monkeypatch, height, kernel_size):
    monkeypatch.setattr(bench_render, "BLOCK", 4)
    setting = bench_render.Setting(height, 12, 30, 2, 2, kernel_size=kernel_size)
    inputs = bench_render.random_inputs(setting, torch.device("cpu"))
    inputs[0][0, :2, 1] = torch.tensor([-1.5, 1.2])  # beyond the frame
    whole = bench_render.Variant("whole", lambda x, s: reference.render(*x, s.size, s.kernel_size))
    expected = bench_render.evaluate(whole, setting, inputs, torch.float64, True)
    for found, value in zip(bench_render.truth_of(setting, inputs, True), expected, strict=True):
        torch.testing.assert_close(found, value, rtol=0, atol=1e-10)


def test_a_frame_of_more_pixels_may_be_off_by_what_its_positions_lose():
    assert bench_render.passes([1.9e-5, 9e-5], (512, 300))
    assert not bench_render.passes([2.1e-5, 9e-5], (512, 300))
    assert bench_render.passes([7e-5, 3.5e-4], (1080, 1920))  # 3.75 times as many
    assert not bench_render.passes([8e-5, 9e-5], (1080, 1920))
    assert not bench_render.passes([1e-5, 4e-4], (1080, 1920))


def test_of_many_gaussians_the_first_are_held_against_algorithm_1(monkeypatch):
    monkeypatch.setattr(bench_render, "MOST_PADDED", 32 * 3 * 16 * 16)  # three of the five
    seen = []
    right = literal.base
    monkeypatch.setattr(literal, "base", lambda *x: seen.append(x[0].shape[1]) or right(*x))
    small(variants=["reference"])
    assert seen == [3]


def test_the_table_names_variants_and_device(capsys):
    assert small(variants=["base", "reference"]) == 0
    out = capsys.readouterr().out
    assert "base" in out
    assert "reference" in out
    assert f"torch {torch.__version__}" in out


def wrong_value(*args, right=literal.base_grid):
    return right(*args) * 1.001


def wrong_gradient(coords, scale, rotation, *args, right=literal.base_grid):
    return right(coords, scale, rotation.detach() + 0 * rotation, *args)


def not_a_number(*args, right=literal.base_grid):
    return right(*args) * float("nan")


@pytest.mark.parametrize("wrong", [wrong_value, wrong_gradient, not_a_number])
def test_a_variant_that_fails_is_not_timed(capsys, monkeypatch, wrong):
    monkeypatch.setattr(literal, "base_grid", wrong)
    code, found = report(capsys, backward=True)
    assert code == 1
    failed = [row for row in found["rows"] if not row["ok"]]
    assert {row["variant"] for row in failed} == {"base_grid"}
    assert all(row["fps"] is None for row in failed)
    small(backward=True)
    assert "failed" in capsys.readouterr().out


def test_gradients_are_compared_only_when_asked_for(capsys, monkeypatch):
    monkeypatch.setattr(literal, "base_grid", wrong_gradient)
    assert report(capsys)[0] == 0


def test_the_reference_itself_is_held_against_algorithm_1(monkeypatch):
    lattice = reference.lattice
    monkeypatch.setattr(reference, "lattice", lambda scale, rotation, k: lattice(scale, -rotation, k))
    with pytest.raises(PdrError, match="differs from Algorithm 1"):
        small()


def test_settings_default_to_the_nearest_of_the_paper():
    settings = [bench_render.complete((r, r), None, None, 1, 1) for r in (20, 64, 90, 91, 1000)]
    assert [(s.kernel_size, s.gaussians) for s in settings] == [(15, 300)] * 3 + [(51, 400)] * 2  # √(64·128) = 90.5


def test_paper_prints_its_numbers_in_a_column_of_their_own(capsys, monkeypatch):
    monkeypatch.setattr(bench_render, "PAPER_SETTINGS", {32: (7, 4), 64: (7, 4)})
    assert command.run(bench_render.Options(paper=True, backward=True, repeats=5, device="cpu"), None, True) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    figures = {(r["height"], r["pass"], r["variant"]): r["paper_a800_fps"] for r in rows}
    assert figures[32, "forward", "base"] == 1086
    assert figures[64, "forward", "base_grid"] == 803
    assert figures[64, "forward", "reference"] is None  # the paper has no such row,
    assert figures[32, "forward+backward", "base"] is None  # and timed the forward pass only
    command.run(bench_render.Options(paper=True, repeats=5, device="cpu"), None, False)
    assert "1086" in capsys.readouterr().out


def test_slow_variants_stop_after_their_time(capsys, monkeypatch):
    monkeypatch.setattr(timing, "MAX_SECONDS", 0.0)
    assert {row["repeats"] for row in report(capsys, repeats=50)[1]["rows"]} == {timing.MIN_REPEATS}


def test_threads_are_set_for_the_run_only(capsys):
    before = torch.get_num_threads()
    assert report(capsys, threads=before + 1)[1]["threads"] == before + 1
    assert torch.get_num_threads() == before


def test_writes_the_same_json_to_a_file(capsys, tmp_path):
    code, found = report(capsys, output=tmp_path / "bench.json")
    assert code == 0
    assert json.loads((tmp_path / "bench.json").read_text()) == found


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variants": ["bass"]}, "'bass' is not known.*Did you mean 'base'"),
        ({"kernel_size": 8}, "--kernel-size 8; expected an odd number"),
        ({"kernel_size": 17}, "base and base_grid cannot pad a 17 px kernel to 16 px"),
        ({"gaussians": -1}, "--gaussians -1; expected at least 1"),
        ({"res": [16, 1]}, "--res 1; expected at least 2"),
        ({"res": ["16x1"]}, "--res 1; expected at least 2"),
        ({"res": ["16*16"]}, "--res 16.16; expected a side in pixels like 256, or width and height like 768x512"),
        ({"gaussians": 10**7}, "base and base_grid would hold 10000000 frames at once"),
        ({"repeats": 0}, "--repeats 0; expected at least 1"),
        ({"threads": 0}, "--threads 0; expected at least 1"),
        ({"paper": True}, "--paper fixes --res"),
        ({"codecs": True}, "--codecs fixes --res"),
        ({"paper": True, "codecs": True, "res": [], "gaussians": None, "kernel_size": None}, "--paper and --codecs"),
    ],
)
def test_says_what_cannot_be_measured(options, message):
    with pytest.raises(UsageError, match=message):
        small(**options)


def test_a_kernel_beyond_the_frame_is_timed_without_the_literal_variants(capsys):
    code, found = report(capsys, kernel_size=21, variants=["reference"])
    assert (code, len(found["rows"])) == (0, 1)
    assert found["rows"][0]["speedup_vs_base"] is None


def test_a_compiled_renderer_that_is_not_there_is_an_error_by_name_only(capsys, monkeypatch):
    def unavailable(*args, **options):
        raise splat.RendererUnavailable("not built")

    monkeypatch.setattr(splat, "render", unavailable)
    with pytest.raises(UsageError, match="predgsplat: not built"):
        small(variants=["predgsplat"])
    assert "predgsplat" not in {row["variant"] for row in report(capsys)[1]["rows"]}


def test_a_compiled_renderer_that_is_there_joins_the_default(capsys, monkeypatch):
    def native(*inputs, backend, **options):
        assert backend == "cpu"
        return reference.render(*inputs, **options)

    monkeypatch.setattr(splat, "render", native)
    assert report(capsys)[1]["rows"][-1]["variant"] == "predgsplat"


def test_a_gpu_that_is_not_there_is_an_error(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceError, match="--device cuda"):
        small(device="cuda")
    assert DeviceError.code == 69
