"""Attention of other libraries: recorded without them, imported from a profiler's trace, and the padding that masks hide."""

import importlib.util
import sys
import textwrap
from dataclasses import replace

import pytest
from kineto_files import imported, kernel, launch, op

import simtti
from simtti.simulator.kernels.attention import problem_of
from simtti.simulator.kernels.family import Target
from simtti.simulator.policy import Policy
from simtti.workloads.flops import flops
from simtti.workloads.kineto_custom import recognised
from simtti.workloads.trace import TensorUse, row_major

torch = pytest.importorskip("torch")

from simtti.workloads import attention_stand_ins  # noqa: E402
from simtti.workloads.padding import Padding, hidden_keys  # noqa: E402

OP = "aten::scaled_dot_product_attention"
MINE = """
import torch
from flash_attn import flash_attn_func, flash_attn_varlen_func
from flash_attn_interface import flash_attn_func as flash_3
import xformers.ops as xops
from sageattention import sageattn
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

class Attends(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv = torch.nn.Linear(64, 192, dtype=torch.bfloat16)
        self.mask = create_block_mask(lambda b, h, q, k: q // 128 == k // 128, None, None, 512, 512, device="cpu")

    def forward(self, x, offsets):
        q, k, v = self.qkv(x).view(2, 512, 3, 4, 16).unbind(2)
        first = flash_attn_func(q, k, v, window_size=(64, 0), causal=True)
        flat = (each.flatten(0, 1) for each in (q, k, v))
        second = flash_attn_varlen_func(*flat, offsets, offsets, 1000, 1000).view_as(first)
        third = flash_3(q, k, v)
        fourth = xops.memory_efficient_attention(q, k, v, attn_bias=xops.LowerTriangularMask())
        bias = torch.zeros(2, 4, 512, 512, dtype=q.dtype, device=q.device)
        fifth = xops.memory_efficient_attention(q, k, v, attn_bias=bias)
        sixth = sageattn(q, k, v, tensor_layout="NHD", is_causal=True)
        by_head = (each.transpose(1, 2) for each in (q, k, v))
        seventh = flex_attention(*by_head, block_mask=self.mask).transpose(1, 2)
        return first + second + third + fourth + fifth + sixth + seventh

def model():
    return Attends(), torch.empty(2, 512, 64, dtype=torch.bfloat16), torch.empty(3, dtype=torch.int32)
"""
LIBRARIES = ("flash_attn", "flash_attn_interface", "xformers", "sageattention")


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    if any(importlib.util.find_spec(name) for name in LIBRARIES):
        pytest.skip("an attention library is installed")
    path = tmp_path_factory.mktemp("mine") / "mine.py"
    path.write_text(textwrap.dedent(MINE))
    return simtti.record(f"{path}:model")


def attends(trace):
    return [each for each in trace.phases[0].steps[0].operators if each.op == OP]


def test_calls_of_libraries_that_are_not_installed_are_attention(mine):
    found = attends(mine)
    wanted = [
        ("flash-attention-2", True), ("flash-attention-2", False), ("flash-attention-3", False), ("flash-attention-2", True),
        ("efficient", False), ("sage", True), ("flex-attention", False),
    ]  # fmt: skip
    assert [(each.attributes["library"], each.attributes["causal"]) for each in found] == wanted
    first, packed, *_, biased, _, flexible = found
    assert first.attributes["window"] == [64, 0]
    assert packed.attributes["sequences"] == [[1000, 1000, 1], [24, 24, 1]]
    assert packed.inputs[0].shape == (1, 4, 1024, 16)
    assert flops(packed) == 4 * 4 * 16 * (1000**2 + 24**2)
    assert biased.attributes["has_mask"]
    assert len(biased.inputs) == 4
    assert flexible.attributes["block_share"] == pytest.approx(0.25)
    for each in (first, *found[2:]):
        assert each.inputs[0].shape == each.outputs[0].shape == (2, 4, 512, 16)
    # Each reads what the projection wrote, and what is added up is what they return.
    assert len({each.inputs[0].tensor for each in found}) <= 2
    read = {use.tensor for each in mine.phases[0].steps[0].operators for use in each.inputs}
    assert all(each.outputs[0].tensor in read for each in found)


def test_they_are_timed_as_what_they_are_and_the_output_says_so(mine):
    result = simtti.run(mine, "h100-sxm")
    rows = {(each.ran, each.mask): each for each in result.attention_kernels}
    assert set(rows) == {
        ("flash-attention-2", ""), ("flash-attention-2", "sliding window of 64 keys"), ("flash-attention-3", ""),
        ("flash-attention-2", "packed sequences of several lengths"), ("efficient", ""), ("sage", ""),
        ("flex-attention", "25% of the blocks"),
    }  # fmt: skip
    assert all(not each.because and each.calls == 1 for each in rows.values())
    other = simtti.run(mine, "a100-sxm", attention="cudnn")
    told = {each.because for each in other.attention_kernels}
    assert told == {"the device has no wgmma", "it takes no sliding window", "it takes no mask of blocks", "it takes no mask"}  # fmt: skip


def test_stand_ins_are_there_for_a_recording_alone():
    with attention_stand_ins.stood_in_for():
        assert "flash_attn" in sys.modules
        assert importlib.util.find_spec("sageattention") is not None
    assert not any(name.partition(".")[0] in LIBRARIES for name in sys.modules if name not in BEFORE)


def test_a_library_that_is_installed_is_left_alone(monkeypatch):
    own = type(sys)("sageattention")
    monkeypatch.setitem(sys.modules, "sageattention", own)
    with attention_stand_ins.stood_in_for():
        assert sys.modules["sageattention"] is own
    assert sys.modules["sageattention"] is own


BEFORE = frozenset(name for name in sys.modules if name.partition(".")[0] in LIBRARIES)


# ---- of a profiler's trace


def use(*shape, dtype="bf16", at=0):
    return TensorUse(at, shape, row_major(shape), dtype, 1 << 30, "input")


def call(name, uses, *concrete):
    given = [("" if each is None else each) for each in (*[None] * len(uses), *concrete)]
    return recognised(name, [(at, [each]) for at, each in enumerate(uses)], given)


def test_packed_sequences_are_as_many_and_as_long_as_the_call_says():
    name, flat = "flash_attn::_flash_attn_varlen_forward", [use(119056, 24, 128)] * 3
    offsets = [use(3, dtype="int32")] * 2
    rest = ("0.0", "0.088", "False", "-1", "-1", "0.0", "", "False")
    found = call(name, [*flat, *offsets], "118832", "118832", *rest)
    assert found.attributes["sequences"] == [[118832, 118832, 1], [224, 224, 1]]
    alike = call(name, [*flat, *offsets], "59528", "59528", *rest)
    assert "sequences" not in alike.attributes
    assert alike.inputs[0].shape == (2, 24, 59528, 128)
    assert "window" not in found.attributes
    windowed = call(name, [*flat, *offsets], "59528", "59528", "0.0", "0.088", "True", "1024", "0")
    assert (windowed.attributes["window"], windowed.attributes["causal"]) == ([1024, 0], True)


@pytest.mark.parametrize(("layout", "values"), [("0", (1, 128, 24, 4672)), ("1", (1, 24, 128, 4672))])
def test_sages_kernel_gets_what_was_quantised(layout, values):
    shape = (1, 4608, 24, 128) if layout == "0" else (1, 24, 4608, 128)
    given = [
        use(*shape, dtype="int8"),
        use(*shape, dtype="int8", at=1),
        use(*values, dtype="fp8_e4m3", at=2),
        use(*shape),
    ]
    found = call("sageattention::qk_int8_sv_f8_accum_f16_attn", given, layout, "1", "3", "0.088", "0")
    assert found.inputs[0].shape == found.inputs[2].shape == (1, 24, 4608, 128)
    assert (found.attributes["library"], found.attributes["quantized"], found.attributes["causal"]) == (
        "sage",
        True,
        True,
    )
    assert found.output[2] == "bf16"


@pytest.mark.parametrize(
    ("name", "library"),
    [
        ("xformers_flash::flash_fwd", "flash-attention-2"),
        ("xformers_flash3::flash_fwd", "flash-attention-3"),
        ("xformers::efficient_attention_forward_cutlass", "efficient"),
        ("flash_attn_3::fwd", "flash-attention-3"),
        ("sageattention::sageattn", "sage"),
    ],
)
def test_whose_an_operator_is(name, library):
    assert call(name, [use(1, 512, 24, 128)] * 3, "0", "0").attributes["library"] == library


def test_an_imported_call_runs_on_its_library(tmp_path):

    shape = (1, 4096, 24, 128)
    events = [
        op("flash_attn::_flash_attn_forward", 0, 30, shape, shape, shape, None, None, None, None, None,
           concrete=["", "", "", "0.0", "0.088", "False", "512", "512"]),
        launch(1, 5), kernel(1, 40, 300.0, "flash_fwd_kernel"),
    ]  # fmt: skip
    trace = imported(tmp_path, *events)
    (row,) = simtti.run(trace, "h100-sxm", timing="model").attention_kernels
    assert (row.ran, row.mask) == ("flash-attention-2", "sliding window of 512 keys")


# ---- padding


def test_a_mask_with_values_says_how_many_keys_it_hides():
    assert hidden_keys(torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0]])) == 2.0
    assert hidden_keys(torch.tensor([[False, True, True]])) == 1.0
    for none in (
        torch.ones(2, 4), torch.zeros(2, 4), torch.tensor([[1, 0, 1, 0]]), torch.tensor([[3, 0]]), torch.ones(2, 4, device="meta"),
        torch.tensor([1j, 0]),
    ):  # fmt: skip
        assert hidden_keys(none) == 0.0


def test_what_is_computed_of_a_mask_hides_as_much_and_joined_masks_add_up():
    known, image, text = Padding(), torch.ones(1, 8, device="meta"), torch.tensor([[1, 1, 0, 0]])
    known.carry("aten::_to_copy", "Memory", [(1, text)], [(2, image)])
    known.carry("aten::cat", "Memory", [(2, image), (3, image), (2, image)], [(4, image)])
    known.carry("aten::mm", "Linear", [(4, image)], [(5, image)])
    assert [known.of(each, image) for each in (2, 3, 4, 5)] == [2.0, 0.0, 4.0, 0.0]
    known.forget(2)
    assert known.of(2, image) == 0.0


class Masked(torch.nn.Module):
    def forward(self, x, mask):
        keep = mask.bool()[:, None, None]
        return torch.nn.functional.scaled_dot_product_attention(x, x, x, attn_mask=keep)


@pytest.fixture(scope="module")
def masked():
    mask = torch.zeros(1, 1024, dtype=torch.int64)
    mask[:, :768] = 1
    return simtti.record(Masked(), torch.empty(1, 8, 1024, 64, dtype=torch.bfloat16), mask)


@pytest.mark.parametrize(
    ("mask", "ran", "sizes", "said"),
    [
        ("keep", "efficient", (1024, 1024), ""),
        ("drop", "flash-attention-2", (1024, 1024), "mask dropped, padding attended to"),
        ("varlen", "flash-attention-2", (768, 768), "256 padded tokens not computed"),
    ],
)
def test_varlen_leaves_out_what_a_mask_hides(masked, mask, ran, sizes, said):
    (operator,) = attends(masked)
    assert operator.attributes["hidden_keys"] == 256
    result = simtti.run(masked, "a100-sxm", mask=mask)
    (row,) = result.attention_kernels
    assert (row.ran, row.mask) == (ran, said)
    problem = problem_of(operator, Target(result.hardware, Policy(mask=mask)))
    assert (problem.q_len, problem.kv_len) == sizes


def test_varlen_says_where_padding_is_not_known():
    trace = simtti.record(
        Masked(), torch.empty(1, 8, 1024, 64, dtype=torch.bfloat16), torch.ones(1, 1024, device="meta")
    )
    (row,) = simtti.run(trace, "a100-sxm", mask="varlen").attention_kernels
    assert (row.ran, row.mask) == (
        "flash-attention-2",
        "mask dropped; how much padding it hides is not known",
    )


def with_attributes(trace, **attributes):
    """The trace with its one call of attention so."""
    (phase,) = trace.phases
    operators = tuple(
        replace(each, attributes={**each.attributes, **attributes}) if each.op == OP else each
        for each in phase.steps[0].operators
    )
    step = replace(phase.steps[0], operators=operators)
    return replace(trace, phases=(replace(phase, steps=(step,)),))


def test_a_ring_shares_padding_and_refuses_what_its_parts_see_unlike(masked):
    whole = simtti.run(masked, "h100-sxm", mask="varlen", gpus=2, ring=2, steps=2)
    problems = [
        problem_of(operator, Target(whole.hardware, whole.policy))
        for operator, *_ in whole.rows
        if operator.op == OP
    ]
    assert [(each.q_len, each.kv_len) for each in problems] == [(512 - 128, 512 - 128)] * 2
    with pytest.raises(simtti.InputError, match="attends with window, of which each part of a ring"):
        simtti.run(with_attributes(masked, window=[64, 64]), "h100-sxm", gpus=2, ring=2, steps=2)
    assert (
        simtti.run(with_attributes(masked, window=[64, 64]), "h100-sxm", gpus=2, ulysses=2, steps=2).latency_s
        > 0
    )
