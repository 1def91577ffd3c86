"""Sliding windows, masks of blocks and packed sequences: what a mask leaves is computed, in FLOPs, bytes and time alike."""

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simtti.hw_configs import devices
from simtti.simulator.closed_form import lone_execution_s
from simtti.simulator.kernels.attention import attention
from simtti.simulator.kernels.attention_choice import choose
from simtti.simulator.kernels.attention_problem import Attention
from simtti.simulator.kernels.attention_visible import window_share

A100, H100 = devices.load("a100-sxm"), devices.load("h100-sxm")
LIBRARIES = ("flash-attention-2", "flash-attention-3", "efficient", "flex-attention")
some = settings(max_examples=60, deadline=None, derandomize=True)


def problem(kernel="flash-attention-2", length=8192, **more):
    return Attention(1, 16, length, length, 128, kernel=kernel, **more)


def time_s(asked, hardware=H100):
    return sum(lone_execution_s(kernel, hardware) for kernel in attention(asked, hardware))


def main(asked, hardware=H100):
    return max(attention(asked, hardware), key=lambda kernel: kernel.tensor_flops * kernel.grid)


@pytest.mark.parametrize("kernel", LIBRARIES)
@pytest.mark.parametrize("window", [(8192, 8192), (-1, -1), (10**6, 8192)])
def test_a_window_of_the_whole_sequence_is_none(kernel, window):
    assert attention(problem(kernel, window=window), H100) == attention(problem(kernel), H100)


@pytest.mark.parametrize("kernel", LIBRARIES)
def test_a_window_to_the_left_alone_is_a_causal_mask(kernel):
    windowed, causal = problem(kernel, 4096, window=(-1, 0)), problem(kernel, 4096, causal=True)
    assert windowed.flops == pytest.approx(causal.flops)
    # flash-attention 2's blocks for causal masks are others on some devices; on H100 they are not.
    assert main(windowed).tensor_flops == pytest.approx(main(causal).tensor_flops)
    assert attention(dataclasses.replace(causal, window=(10**6, 5)), H100) == attention(causal, H100)


@some
@given(st.integers(1, 60), st.integers(1, 60), st.integers(-1, 70), st.integers(-1, 70))
def test_pairs_in_a_window_are_those_counted_one_by_one(q_len, kv_len, left, right):
    seen = sum(
        (left < 0 or key >= row + kv_len - q_len - left)
        and (right < 0 or key <= row + kv_len - q_len + right)
        for row in range(q_len)
        for key in range(kv_len)
    )
    assert window_share(q_len, kv_len, (left, right)) * q_len * kv_len == pytest.approx(seen)


@pytest.mark.parametrize("kernel", LIBRARIES)
def test_a_narrow_window_costs_its_share(kernel):
    whole, narrow = problem(kernel, 32768), problem(kernel, 32768, window=(1024, 1024))
    share = narrow.flops / whole.flops
    assert share == pytest.approx(2049 / 32768, rel=0.03)
    # Blocks at the ends of the window are computed whole.
    blocks = main(narrow).tensor_flops / main(whole).tensor_flops
    assert share < blocks < 1.25 * share
    assert time_s(narrow) < 2 * share * time_s(whole)


@some
@given(st.sampled_from(LIBRARIES), st.integers(128, 6000), st.integers(0, 6000), st.integers(1, 500))
def test_a_wider_window_is_not_faster(kernel, length, window, wider):
    less, more = (problem(kernel, length, window=(size, size)) for size in (window, window + wider))
    assert less.flops <= more.flops * (1 + 1e-9)
    assert time_s(less) <= 1.02 * time_s(more)


@pytest.mark.parametrize("kernel", ["flex-attention", "sage"])
@pytest.mark.parametrize("share", [0.5, 0.125])
def test_a_share_of_the_blocks_costs_that_share_of_the_products(kernel, share):
    whole, part = problem(kernel, 32768), problem(kernel, 32768, block_share=share)
    assert part.flops == share * whole.flops
    assert main(part).tensor_flops == pytest.approx(share * main(whole).tensor_flops)
    assert main(part).sfu_ops == pytest.approx(share * main(whole).sfu_ops)
    assert main(part).l2_bytes < main(whole).l2_bytes
    main_s, part_s = (lone_execution_s(main(each), H100) for each in (whole, part))
    assert part_s == pytest.approx(share * main_s, rel=0.15)


def test_keys_that_no_query_sees_are_not_read():
    few = Attention(1, 8, 256, 16384, 64, kernel="flash-attention-2", window=(256, 0))
    assert few.reads[1].nbytes == 2 * 8 * 512 * 64
    assert problem(window=(64, 64)).reads == problem().reads


@pytest.mark.parametrize(
    ("asked", "ran", "because"),
    [
        (problem(block_share=0.5), "flex-attention", "it takes no mask of blocks"),
        (problem("flex-attention", block_share=0.5), "flex-attention", ""),
        (problem("cudnn", window=(64, 0)), "flash-attention-2", "it takes no sliding window"),
        (problem("sage", window=(64, 0)), "flash-attention-2", "it takes no sliding window"),
        (problem("flash-attention-3", window=(64, 0)), "flash-attention-3", ""),
        (problem("baseline", window=(64, 0)), "baseline", ""),
    ],
)
def test_what_stands_in_and_why(asked, ran, because):
    assert choose(asked, H100)[1:] == (ran, because)


def test_what_makes_no_sense_is_a_bug():
    for wrong in ({"block_share": 0.0}, {"block_share": 1.5}, {"window": (-2, 0)}):
        with pytest.raises(ValueError, match="a share of blocks of"):
            problem(**wrong)


# ---- packed sequences


@pytest.mark.parametrize("kernel", ["flash-attention-2", "flash-attention-3", "efficient", "baseline"])
def test_packed_sequences_that_are_alike_are_a_batch(kernel):
    batched = Attention(4, 8, 1024, 1024, 64, kernel=kernel)
    packed = Attention(1, 8, 4096, 4096, 64, kernel=kernel, packed=((1024, 1024, 4),))
    assert packed.flops == batched.flops
    assert attention(packed, A100) == attention(batched, A100)


def test_sequences_of_several_lengths_are_one_launch_of_unequal_ctas():
    kinds = ((4096, 4096, 2), (512, 512, 6), (64, 64, 8))
    tokens = sum(queries * count for queries, _, count in kinds)
    asked = Attention(1, 8, tokens, tokens, 64, kernel="flash-attention-2", packed=kinds)
    (kernel,) = attention(asked, A100)
    assert kernel.flops == asked.flops == 4 * 8 * 64 * sum(count * queries**2 for queries, _, count in kinds)
    assert kernel.grid == 8 * (2 * 32 + 6 * 4 + 8)
    assert [kind.ctas for kind in kernel.kinds] == [8 * 64, 8 * 24, 8 * 8]
    assert kernel.kinds[0].work > kernel.kinds[1].work > kernel.kinds[2].work
    assert kernel.writes == asked.writes
    assert [access.nbytes for access in kernel.reads] == [access.nbytes for access in asked.reads]
    # The long sequences decide; padded to the longest all would be as long.
    alone, padded = (
        time_s(Attention(count, 8, 4096, 4096, 64, kernel="flash-attention-2"), A100) for count in (2, 16)
    )
    assert alone < time_s(asked, A100) < 0.3 * padded
