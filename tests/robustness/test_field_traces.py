"""Profiles with what people really meet, each with its right result (shared/field/README.md); through the command line."""

import json

import places
import pytest
from click.testing import CliRunner

from simtti.cli import main

FIELD = places.SHARED / "field"
pytestmark = pytest.mark.skipif(
    not FIELD.is_dir(),
    reason=f"{FIELD} is not here: profiles of the kinds people report stand beside the project",
)

# Kernels and their time in us, after the import.
SAME = (3, 159.0)
IMPORTED = {
    **dict.fromkeys(
        [
            "base.json",
            "ts_strings.json",
            "ts_epoch_us.json",
            "huge_correlation.json",
            "windows_backslash.json",
            "trailing_comma.json",
            "array_form.json",
            "no_tid.json",
            "bom.json",
            "double_gz.json.gz",
            "zipped.zip",
            "xpu.json",
            "clock_skew.json",
            "with_markers.json",
            "begin_end_pairs.json",
            "metadata_after_events.json",
            "five_steps.json",
            "nan_args.json",
            "no_args.json",
            "no_shapes.json",
            "zero_times.json",
        ],
        SAME,
    ),
    "negative_duration.json": (2, 49.0),
    "truncated.json": (2, 134.0),
    "cuda_graph.json": (41, 4412.0),
    "layer_norm_no_concrete.json": (1, 25.0),
    "scaled_mm_fp8.json": (1, 190.0),
    "triton_fused.json": (2, 106.0),
    "flash_custom_ops.json": (4, 1670.0),
}
REFUSED = {
    "empty.json": "is empty",
    "empty_events.json": "no operators and no kernels",
    "nsys_export.json": "not a Kineto trace",
    "merged_ranks_same_ids.json": "--device",
}
# What a file's import has to say.
SAID = {
    "five_steps.json": "5 ProfilerSteps",
    "negative_duration.json": "negative duration",
    "zero_times.json": "time was not set",
    "truncated.json": "truncated",
    "nan_args.json": "cannot be read",
}
UNCOVERED = ("cuda_graph.json", "no_shapes.json", "layer_norm_no_concrete.json", "nan_args.json")


def call(*arguments):
    result = CliRunner().invoke(main, [str(each) for each in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    return result


def imported(name, tmp_path, *options):
    out = tmp_path / "a.parquet"
    result = call("import", "kineto", FIELD / name, "--out", out, *options)
    assert result.exit_code == 0, result.output
    assert SAID.get(name, "") in result.output
    return out


def ran(trace, timing, hw="h100-sxm", *options):
    result = call("run", "--trace", trace, "--hw", hw, "--timing", timing, "--json", "-", *options)
    assert result.exit_code in (0, 2), result.output
    return json.loads(result.output) if result.exit_code == 0 else result.output


@pytest.mark.parametrize("name", IMPORTED)
def test_a_profile_gives_its_right_result(tmp_path, name):
    from simtti.workloads.kineto import summary
    from simtti.workloads.trace import Trace

    trace = imported(name, tmp_path)
    found = summary(Trace.load(trace))
    assert (found["kernels"], found["kernel_time_us"]) == pytest.approx(IMPORTED[name])
    measured = ran(trace, "measured")
    assert sum(measured["breakdown"].values()) == pytest.approx(measured["latency_s"])
    assert measured["latency_s"] == pytest.approx(measured["measured_s"], rel=0.01)
    if IMPORTED[name] == SAME:
        assert measured["measured_s"] == pytest.approx(350e-6, rel=0.1)
    model = ran(trace, "model")
    if name in UNCOVERED:
        assert "of the measured kernel time" in model
        assert "--timing measured" in model
    else:
        assert model["coverage"]["share"] >= 0.8
    if name == "triton_fused.json":
        assert model["totals"]["hbm_bytes"] == pytest.approx(251e6, rel=0.05)
        assert model["breakdown"]["Elementwise"] == pytest.approx(106e-6, rel=0.15)
    if name == "flash_custom_ops.json":
        assert model["totals"]["flops"] == pytest.approx(4 * 261e9, rel=0.01)
        assert 4 * 400e-6 < model["breakdown"]["Attention"] < 4 * 650e-6
    if name == "scaled_mm_fp8.json":
        assert model["totals"]["flops"] == pytest.approx(309e9, rel=0.01)


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_trace_is_refused_by_its_reason(name):
    result = call("import", "kineto", FIELD / name)
    assert result.exit_code == 2
    assert REFUSED[name] in result.output


@pytest.mark.parametrize("device", [0, 1])
def test_ranks_are_kept_apart(tmp_path, device):
    trace = imported("merged_ranks_same_ids.json", tmp_path, "--device", device)
    assert ran(trace, "measured")["kernel_s"] == pytest.approx(159e-6)


def test_partial_goes_on(tmp_path):
    found = ran(imported("cuda_graph.json", tmp_path), "model", "h100-sxm", "--partial")
    assert found["coverage"]["share"] < 0.01


@pytest.mark.parametrize("name", sorted(path.name for path in (FIELD / "devnames").glob("*.json")))
def test_a_device_is_known_or_the_way_out_is_said(tmp_path, name):
    trace = imported(f"devnames/{name}", tmp_path)
    found = ran(trace, "hybrid", "h200-sxm")
    if isinstance(found, str):
        assert "--trace-hw" in found
        assert ran(trace, "hybrid", "h200-sxm", "--trace-hw", "h100-sxm")["latency_s"] > 0
