"""Which library answers a call of attention, and that a run says so where it is not the one asked for."""

import pytest
from small_traces import operator, small_trace, use

from simtti.errors import InputError
from simtti.hw_configs.devices import load
from simtti.simulator.kernels.attention_choice import choose
from simtti.simulator.kernels.attention_problem import Attention
from simtti.simulator.run import run
from simtti.workloads.trace import Phase, Step

A100, H100, T4 = load("a100-sxm"), load("h100-sxm"), load("t4")


def ran(hardware, kernel, head_dim=64, **more):
    return choose(Attention(2, 8, 1024, 1024, head_dim, kernel=kernel, **more), hardware)


@pytest.mark.parametrize(
    ("hardware", "asked", "more", "wanted"),
    [
        (H100, "flash-attention-3", {}, ("flash-attention-3", "")),
        (A100, "flash-attention-3", {}, ("flash-attention-2", "the device has no wgmma")),
        (T4, "flash-attention-2", {}, ("efficient", "the device is older than Ampere")),
        (A100, "flash-attention-2", {"masked": True}, ("efficient", "it takes no mask")),
        (A100, "flash-attention-2", {"dtype": "fp32"}, ("efficient", "it takes no fp32")),
        (A100, "flash-attention-2", {"head_dim": 512}, ("efficient", "it has no head dim 512")),
        (A100, "efficient", {"masked": True}, ("efficient", "")),
        (A100, "baseline", {"masked": True}, ("baseline", "")),
        (A100, "math", {}, ("math", "")),
    ],
)
def test_what_stands_in_and_why(hardware, asked, more, wanted):
    found = ran(hardware, asked, **more)
    assert (found.ran, found.because) == wanted
    assert found.asked == asked


def test_an_unknown_library_is_named():
    with pytest.raises(InputError, match="unknown attention kernel 'flash-attention-9'"):
        ran(A100, "flash-attention-9")


def test_a_run_counts_the_calls_of_each():
    result = run("stable-diffusion", "t4", steps=2, fidelity="closed")
    (row,) = (each for each in result.attention_kernels if each.asked == "flash-attention-2")
    assert (row.ran, row.because) == ("efficient", "the device is older than Ampere")
    whole = run("stable-diffusion", "a100-sxm", steps=2, fidelity="closed")
    assert sum(each.time_s for each in whole.attention_kernels) == pytest.approx(
        sum(
            times * interval.duration_s
            for interval, times in whole.weighted_kernels()
            if whole.rows[interval.operator][0].category == "Attention"
        )
    )


def test_cross_attention_may_have_another():
    mixed = run("stable-diffusion", "h100-sxm", steps=2, fidelity="closed", cross_attention="cudnn")
    calls = {each.ran: each.calls for each in mixed.attention_kernels}
    alone = run("stable-diffusion", "h100-sxm", steps=2, fidelity="closed")
    assert sum(calls.values()) == sum(each.calls for each in alone.attention_kernels)
    assert calls["cudnn"] == 16 * 3  # a call in each of the 16 blocks, three evaluations for two steps
    with pytest.raises(InputError, match="cross_attention is 'sideways'"):
        run("stable-diffusion", "h100-sxm", cross_attention="sideways")


def test_lengths_are_of_the_phase_that_attends_most():
    """Not of a decoder with more steps than the denoiser has."""
    assert 119056 in run("hunyuan-video", "h100-sxm", fidelity="closed").sequence_lengths


def test_a_call_without_a_result_is_no_librarys():
    """As an imported profile has them where the custom operator's result is not known."""
    lost = operator(
        1,
        op="aten::scaled_dot_product_attention",
        category="Attention",
        inputs=(use(0), use(1, shape=())),
        outputs=(),
    )
    phase = Phase("denoising", (Step(1, (operator(0), lost)),))
    result = run(small_trace(phases=(phase,)), "h100-sxm", fidelity="closed")
    assert result.attention_kernels == []
