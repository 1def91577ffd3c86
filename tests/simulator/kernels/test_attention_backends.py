"""PyTorch's backends of attention: the kernels of each, and that their times follow the device and the sizes."""

import dataclasses

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from simtti.hw_configs import devices
from simtti.simulator.closed_form import lone_execution_s
from simtti.simulator.lowering.registry import kernels_of

H200 = devices.load("h200-sxm")
BACKENDS = ("flash", "efficient", "cudnn", "math")


def row(backend, batch, heads, q_len, kv_len, head_dim, dtype="fp16"):
    op = "math_attention" if backend == "math" else "attention"
    return dict(
        op=op, backend=backend, dtype=dtype, batch=batch, heads=heads, q_len=q_len, kv_len=kv_len, head_dim=head_dim
    )  # fmt: skip


def time_s(problem, hardware=H200):
    return sum(lone_execution_s(kernel, hardware) for kernel in kernels_of(problem, hardware))


def names(problem, hardware=H200):
    return [kernel.name for kernel in kernels_of(problem, hardware)]


@pytest.mark.parametrize(
    ("batch", "dtype", "count"), [(2, "fp16", 17), (1, "bf16", 14), (2, "fp32", 12), (1, "fp32", 9)]
)
def test_math_attention_launches_what_torch_does(batch, dtype, count):
    """17 for halves on H200; without copies by batch and head where there is one batch, without casts in fp32."""
    kernels = kernels_of(row("math", batch, 8, 256, 256, 64, dtype), H200)
    assert len(kernels) == count
    assert not any(kernel.tensor_flops for kernel in kernels)


def test_products_beyond_a_grid_are_launched_in_parts():
    found = names(row("math", 16384, 10, 8, 8, 64))
    assert sum(name.startswith("scores") for name in found) == 3
    assert len(found) == 21
    found = names(row("efficient", 98304, 5, 4, 4, 64))
    assert [name.partition("_")[0] for name in found] == ["efficient", "Memcpy DtoD"] * 2


def test_cudnn_zeroes_a_counter_and_takes_128_queries():
    memset, kernel = kernels_of(row("cudnn", 2, 10, 4096, 4096, 64), H200)
    assert memset.name == "Memset"
    assert (kernel.grid, kernel.threads, kernel.registers) == (20 * 32, 384, 168)
    assert names(row("cudnn", 2, 10, 4096, 4096, 64), devices.load("a100-sxm")) == names(
        row("flash", 2, 10, 4096, 4096, 64), devices.load("a100-sxm")
    )


def test_head_dim_160_runs_on_the_kernel_for_192():
    (kernel,) = kernels_of(row("flash", 512, 8, 16, 16, 160), H200)
    assert (kernel.threads, kernel.registers, kernel.shared_memory_bytes) == (256, 236, 98304)


SIZES = dict(
    batch=st.sampled_from([1, 2, 64, 4096]), heads=st.sampled_from([5, 8, 24]), q_len=st.sampled_from([4, 16, 77, 576, 2304]),
    kv_len=st.sampled_from([4, 16, 77, 576, 2304]), head_dim=st.sampled_from([40, 64, 80, 128, 160]),
)  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(backend=st.sampled_from(BACKENDS), field=st.sampled_from(["hbm_bytes_per_s", "clock_hz"]), **SIZES)
def test_a_faster_device_is_no_slower(backend, field, **sizes):
    problem = row(backend, **sizes)
    faster = dataclasses.replace(H200, **{field: 1.25 * getattr(H200, field)})
    assert time_s(problem, faster) <= time_s(problem) * 1.001


@settings(max_examples=40, deadline=None)
@given(backend=st.sampled_from(BACKENDS), name=st.sampled_from(["batch", "q_len"]), **SIZES)
def test_twice_the_work_takes_no_less(backend, name, **sizes):
    """But where the keys of few queries are split, or other tiles are taken."""
    problem = row(backend, **sizes)
    twice = problem | {name: 2 * problem[name]}
    assume(len(kernels_of(twice, H200)) >= len(kernels_of(problem, H200)))
    assert time_s(twice) >= 0.9 * time_s(problem)
