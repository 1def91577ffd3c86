"""The suite of single operators: what it covers, and in which order."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simtti.errors import InputError
from simtti.hw_configs.devices import load
from simtti.simulator.lowering.registry import FAMILIES, kernels_of
from simtti.validation.measurements.suite import (
    WORTH,
    batches,
    counter_cases,
    family_cases,
    suite,
)
from simtti.workloads.record import TRACES
from simtti.workloads.trace import Trace

SUITE = suite()
# Ops that no row of `simtti predict` can say, so that a table of measurements does not misreport them.
MAY_LAUNCH_NOTHING = ("move", "launch")
GRAPH = "launch fp16 function=add_in_graph"  # a replay of many kernels
GAPS = {
    "temporal_conv",
    "math_attention",
}


def values(cases, *names):
    return {tuple(dict(case.shape)[name] for name in names) for case in cases}


def test_every_family_has_its_cases():
    least = {"conv2d": 1500, "conv3d": 500, "temporal_attention": 500, "group_norm": 250, "layout": 300, "launch": 12,
             "spatial_attention": 500, "cross_attention": 300, "gemm": 250, "attention_parts": 150}  # fmt: skip
    count = Counter(case.family for case in SUITE)
    assert set(count) == set(WORTH)
    assert all(count[family] >= least.get(family, 30) for family in WORTH), count
    assert len(SUITE) < 10_000
    assert len({case.id for case in SUITE}) == len(SUITE)


def test_convolutions_cover_the_channels_sizes_layouts_and_dtypes_of_the_models():
    conv2d = family_cases("conv2d")
    assert {(1,), (3,)} <= values(conv2d, "kh")
    assert values(conv2d, "layout") == {("nchw",), ("nhwc",)}
    channels = {channel for (channel,) in values(conv2d, "c")}
    assert min(channels) <= 4
    assert max(channels) >= 2560
    assert {8, 16, 32, 64, 96, 128, 512, 1024} <= {size for (size,) in values(conv2d, "h")}
    assert {case.dtype for case in conv2d} == {"fp16", "bf16", "fp32"}
    conv3d = family_cases("conv3d")
    assert {(3, 1, 1), (3, 3, 3), (1, 3, 3)} <= values(conv3d, "kd", "kh", "kw")
    assert values(conv3d, "layout") == {("ncdhw",), ("ndhwc",)}


def test_attention_covers_space_time_and_text_by_backend():
    spatial, cross = family_cases("spatial_attention"), family_cases("cross_attention")
    lengths = {length for (length,) in values(spatial, "q_len")}
    assert min(lengths) <= 64
    assert max(lengths) >= 16384
    assert {40, 64, 80, 128, 160} <= {dim for (dim,) in values(spatial, "head_dim")}
    assert values(spatial, "backend") == {("flash",), ("efficient",), ("math",), ("cudnn",), ("baseline",)}
    assert {(77,), (256,), (512,)} <= values(cross, "kv_len")
    temporal = family_cases("temporal_attention")
    frames = {frames for (frames,) in values(temporal, "q_len")}
    assert min(frames) == 4
    assert max(frames) == 128
    sequences = {batch for (batch,) in values(temporal, "batch")}
    assert max(sequences) == 100_000
    assert {(layout,) for layout in ("blhd", "bhld", "strided")} == values(temporal, "layout")


def test_copies_reach_from_inside_the_l2_to_far_beyond():
    sizes = sorted(case["numel"] * 2 for case in family_cases("copy_bandwidth") if case.dtype == "fp16")
    assert sizes[0] <= 1024
    assert sizes[-1] >= 1 << 30
    assert sum(20 << 20 <= size <= 160 << 20 for size in sizes) >= 6


def test_the_typical_convolutions_are_those_of_stable_diffusion():
    """Every convolution of the shipped trace's denoising step, but for what is no UNet's, is a typical case."""
    trace = Trace.load(TRACES / "stable-diffusion-1.5.parquet")
    step = next(phase for phase in trace.phases if phase.name == "denoising").steps[0]
    names = ("n", "c", "h", "w", "oc", "kh", "stride", "padding")
    typical = values([case for case in family_cases("conv2d") if case.typical], *names)
    shapes = set()
    for operator in step.operators:
        if operator.op == "aten::convolution":
            image, weight = operator.inputs[0].shape, operator.inputs[1].shape
            shapes.add(
                (
                    *image,
                    weight[0],
                    weight[2],
                    operator.attributes["stride"][0],
                    operator.attributes["padding"][0],
                )
            )
    assert len(shapes) > 30
    assert not shapes - typical


def test_a_start_has_every_family_and_launches_come_before_any_profiler():
    families = len(WORTH)
    launches = len(family_cases("launch"))
    assert {case.family for case in SUITE[: launches + families - 1]} == set(WORTH)
    assert {case.family for case in SUITE[:launches]} == {"launch"}
    order = [case.family for case in SUITE[launches : launches + families - 1]]
    assert order == [family for family in WORTH if family != "launch"]


@given(st.integers(100, len(SUITE)))
def test_any_prefix_holds_each_family_by_its_worth_and_its_typical_shapes_first(length):
    count = Counter(case.family for case in SUITE[:length])
    rounds = max((count[family] - 1) / worth for family, worth in WORTH.items() if family != "launch")
    for family, worth in WORTH.items():
        cases = [case for case in SUITE if case.family == family]
        if family != "launch":
            assert count[family] >= min(len(cases), int(rounds * worth) - 4), (
                family
            )  # 4: cases it shares with another
        done = [case.typical for case in cases[: count[family]]]
        assert done == sorted(done, reverse=True)


def test_a_prefix_samples_the_grid_rather_than_walking_it():
    cases = [case for case in family_cases("conv2d") if not case.typical]
    start = cases[: len(cases) // 8]
    assert values(start, "kh", "layout") >= {(1, "nchw"), (1, "nhwc"), (3, "nchw"), (3, "nhwc")}
    assert len(values(start, "c")) > 0.7 * len(values(cases, "c"))
    assert len(values(start, "h")) > 0.7 * len(values(cases, "h"))
    assert {case.dtype for case in start} >= {"fp16", "bf16"}


def test_the_suite_fits_its_limits_and_its_batches():
    assert max(case.nbytes for case in SUITE) <= 3.2e9
    assert [case for batch in batches(SUITE) for case in batch] == SUITE
    assert all(len(batch) == 1 or sum(case.nbytes for case in batch) <= 8e9 for batch in batches(SUITE))


def test_every_row_is_one_predict_takes_or_a_known_gap():
    """With the kernels' models as they are; a gap that predict learns to fill leaves the list here."""
    hardware = load("h100-sxm")
    assert {case.op for case in SUITE} - set(FAMILIES) <= GAPS
    for case in SUITE:
        if case.op in FAMILIES and case.id != GRAPH:
            assert kernels_of(case.row(), hardware) or case.op in MAY_LAUNCH_NOTHING, case.id


def test_unknown_family_and_suite():
    with pytest.raises(InputError, match="unknown family 'conv'; did you mean"):
        suite(["conv"])
    with pytest.raises(InputError, match="unknown suite 'llm'"):
        suite(name="llm")


def test_counter_cases_compare_time_and_space_on_the_same_tokens():
    spatial, temporal = counter_cases()[:2]
    assert (spatial.text("kind"), temporal.text("kind")) == ("spatial", "temporal")
    assert spatial["batch"] * spatial["q_len"] == temporal["batch"] * temporal["q_len"]
    assert spatial.flops > temporal.flops
    assert all(case.op == "move" or kernels_of(case.row(), load("h100-sxm")) for case in counter_cases())
