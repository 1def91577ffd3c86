"""What captures of a real GPU say beside the study: the measured side is the file's, the predicted one the simulator's."""

import math
from collections import defaultdict

import pytest

from simtti.errors import InputError
from simtti.hw_configs.devices import load
from simtti.simulator.engine.measured_kernels import measured_kernels
from simtti.validation.study import beside, captured, counters, study
from simtti.validation.study.plan import Plan
from simtti.validation.study.points import measure
from simtti.workloads.measured import capture_named, captures
from simtti.workloads.profile import attention_calls
from simtti.workloads.trace import Trace

NAMES = (
    "h200-sxm/modelscope-t2v", "h200-sxm/modelscope-t2v_frames32", "h200-sxm/modelscope-t2v_math", "h200-sxm/muse",
    "h200-sxm/imagen",
)  # fmt: skip
PLAN = Plan(captures=NAMES)
# Not the captures' device: what is measured there does not follow the study's.
HARDWARE = load("a100-sxm")


@pytest.fixture(scope="module")
def found():
    return {asked: measure(asked, HARDWARE) for asked in PLAN.captured}


def counted_by_hand(name):
    """Seconds by category: each kernel of the file times the repetitions of its operator's step."""
    trace = Trace.load(capture_named(name).path)
    operators = [(op, step.count) for phase in trace.phases for step in phase.steps for op in step.operators]
    seconds = defaultdict(float)
    # Which operator a kernel belongs to that none was found for, as the copy of what unfused attention gives, is the engine's to say.
    for row, kernels in measured_kernels(trace, "measured", HARDWARE, None).kernels.items():
        operator, times = operators[row]
        key = "/".join(operator.attributes.get(each, "") for each in ("kind", "domain")) or operator.category
        for kernel in kernels:
            seconds[operator.category] += kernel.duration_us * times / 1e6
            if operator.category == "Attention":
                seconds[key] += kernel.duration_us * times / 1e6
    return seconds


@pytest.mark.parametrize("name", NAMES)
def test_the_measured_side_is_the_files_kernels(found, name):
    """Whatever the power limit and the host would make of the run."""
    by_hand = counted_by_hand(name)
    out = next(out for asked, out in found.items() if asked.workload == name)
    for category in captured.CATEGORIES:
        assert out["measured"]["operators"].get(category, 0.0) == pytest.approx(by_hand.get(category, 0.0)), (
            category
        )
    for kind, row in out["measured"]["attention"].items():
        assert row["kernel_s"] == pytest.approx(by_hand[kind]), kind
    assert out["measured"]["kernel_s"] == pytest.approx(sum(out["measured"]["modules"].values()))
    assert out["measured"]["flops"] == pytest.approx(out["predicted"]["flops"], rel=0.01), (
        "the same operators"
    )


def test_shares_are_of_either_sides_own_kernels_and_within_points(found):
    rows = captured.shares(found, PLAN)
    assert len(rows) == len(NAMES) * len(captured.ACCOUNTS) * len(captured.CATEGORIES)
    sums = defaultdict(float)
    for row in rows:
        for side in captured.SIDES:
            sums[row["workload"], row["attention"], row["account"], side] += row[side]
        assert row["difference"] == pytest.approx(row["predicted"] - row["measured"])
        assert abs(row["difference"]) < 0.04, row
    assert all(total == pytest.approx(1, abs=1e-3) for total in sums.values())
    assert [row["unattributed"] < 0.02 for row in captured.totals(found, PLAN)] == [True] * len(NAMES)


def test_along_time_is_told_apart_and_no_image_is(found):
    rows = captured.temporal(found, PLAN)
    assert {(row["workload"], row["attention"]) for row in rows} == {
        ("modelscope-t2v", "flash"), ("modelscope-t2v", "math"), ("modelscope-t2v frames 32", "flash"),
    }  # fmt: skip
    by_hand = counted_by_hand(NAMES[0])
    kernel, _, copies = (
        row for row in rows if (row["workload"], row["attention"]) == ("modelscope-t2v", "flash")
    )
    assert kernel["measured_ratio"] == pytest.approx(by_hand["self/temporal"] / by_hand["self/spatial"])
    over = by_hand["self/temporal"] + by_hand["self/spatial"] + by_hand["cross/spatial"]
    assert kernel["measured_share"] == pytest.approx(by_hand["self/temporal"] / over)
    assert copies["measured_temporal_s"] > kernel["measured_temporal_s"]
    assert copies["measured_share"] > 0.6, "what the study says of video, on a real GPU"
    assert copies["predicted_share"] == pytest.approx(copies["measured_share"], abs=0.03)


@pytest.mark.parametrize("capture", captures(), ids=lambda each: each.name)
def test_shapes_bear_out_what_runs_along_time(capture):
    """Sequences along time are as long at every level, the frames; those within frames come in whole videos' worth of frames, and
    both go over as many tokens."""
    calls = [call for call in attention_calls(Trace.load(capture.path)) if call.kind == "self"]
    for phase in {call.phase for call in calls if call.domain == "temporal"}:
        mine = [call for call in calls if call.phase == phase]
        frames = {call.q_len for call in mine if call.domain == "temporal"}
        assert len(frames) == 1, phase
        spatial = [call for call in mine if call.domain == "spatial"]
        assert spatial
        assert all(call.batch % max(frames) == 0 for call in spatial), phase
        tokens = {call.batch * call.q_len for call in mine if call.domain == "temporal"}
        assert {call.batch * call.q_len for call in spatial} <= tokens, phase


def test_gains_are_of_the_same_run_with_another_kernel(found):
    (row,) = captured.gains(found, PLAN)
    flash, math_ = (
        sum(v for k, v in counted_by_hand(name).items() if "/" not in k) for name in (NAMES[0], NAMES[2])
    )
    assert (row["workload"], row["attention"]) == ("modelscope-t2v", "math")
    assert row["measured_end_to_end"] == pytest.approx(math_ / flash)
    assert row["predicted_end_to_end"] == pytest.approx(row["measured_end_to_end"], rel=0.05)
    assert (
        row["measured_spatial_kernels"]
        > row["measured_attention_kernels"]
        > row["measured_temporal_kernels"]
        > 1
    )
    assert row["baseline_end_to_end"] < row["predicted_end_to_end"], "half precision moves half the bytes"


def test_growth_with_frames(found):
    rows = {row["counted"]: row for row in captured.growth(found, PLAN)}
    first, second = (counted_by_hand(name) for name in NAMES[:2])
    assert rows["kernel"]["frames"] == "16 to 32"
    for name in ("spatial", "temporal"):
        wanted = math.log2(second[f"self/{name}"] / first[f"self/{name}"])
        assert rows["kernel"][f"measured_{name}_exponent"] == pytest.approx(wanted)
        assert rows["kernel"][f"predicted_{name}_exponent"] == pytest.approx(wanted, abs=0.1)
    assert rows["flops"]["measured_temporal_exponent"] == pytest.approx(2, abs=0.01)
    assert rows["flops"]["measured_spatial_exponent"] == pytest.approx(1, abs=0.01)


def test_lengths_are_of_each_phase_and_leave_time_and_text_out(found):
    rows = {(row["workload"], row["phase"]): row for row in captured.lengths(found, PLAN)}
    assert ("imagen", "text_encoder") not in rows
    shown = {
        key: (row["distinct"], row["shortest"], row["longest"], row["neighbours"])
        for key, row in rows.items()
    }
    assert shown["imagen", "denoising"] == (3, 64, 1024, 4)
    assert shown["modelscope-t2v frames 32", "denoising"] == (4, 16, 1024, 4)


def test_findings_pages_and_terminal_have_both_sides(found, capsys):
    result = study.evaluate(found, PLAN, HARDWARE)
    said = {row.finding: row for row in result.findings}
    shares = {(row["workload"], row["account"]): row for row in captured.shares(found, PLAN)
              if (row["category"], row["attention"]) == ("Convolution", "flash")}  # fmt: skip
    first = next(row for name, row in said.items() if name.startswith("convolution"))
    assert first.measured == f"imagen {100 * shares['imagen', 'modules']['measured']:.1f} %"
    assert first.predicted == f"imagen {100 * shares['imagen', 'modules']['predicted']:.1f} %"
    whole = study.report(result)
    assert whole.sections[-1].title == "The same on a real GPU: h200-sxm"
    study.print_findings(result)
    shown = capsys.readouterr().out
    assert "/".join(f"{100 * shares['muse', 'operators'][side]:.1f}" for side in captured.SIDES) in shown
    heads = whole.sections[0].blocks[0].columns
    assert heads[5:7] == ("Measured", "Predicted of the same")


def test_nothing_captured_says_nothing():
    result = study.evaluate({}, Plan(captures=()), HARDWARE)
    assert {(row.measured, row.predicted) for row in result.findings} == {("", "")}
    assert captured.short_tables(study._figures(result)) == []
    with pytest.raises(InputError, match="unknown capture 'h200-sxm/mus'; did you mean 'h200-sxm/muse'"):
        capture_named("h200-sxm/mus")


def test_counters_are_of_space_and_of_time():
    rows = counters.hit_rates()
    assert {(row["class"], row["domain"]) for row in rows} >= {
        (kind, domain) for kind in ("GEMM", "softmax", "fused") for domain in ("spatial", "temporal")
    }
    assert all(0 <= row[rate] <= 1 + 1e-9 for row in rows for rate in ("l1_hit_rate", "l2_hit_rate"))
    assert beside.l1(rows).measured.count("%") == 4
