"""RMSNorm by its parts and in one kernel: found in recordings, taken by the release, nothing lost."""

import dataclasses

import pytest

from simtti.hw_configs import devices
from simtti.hw_configs.hardware import with_pytorch
from simtti.simulator.lowering.composites import rms_norms
from simtti.simulator.lowering.lower import Lowering
from simtti.simulator.policy import Policy
from simtti.simulator.run import run
from simtti.workloads.record import workload_trace

H200 = devices.load("h200-sxm")


def a_step(name):
    """The operators of a step of the denoiser."""
    (phase,) = (phase for phase in workload_trace(name).phases if phase.name == "denoising")
    return phase.steps[0].operators


@pytest.mark.parametrize(
    ("name", "norms"), [("flux-dev", 152), ("sd3.5-medium", 0), ("stable-diffusion-1.5", 0)]
)
def test_torchs_own_are_found_and_no_others(name, norms):
    """57 blocks of FLUX norm queries and keys, 19 of them the text's too; diffusers' RMSNorm in SD3.5 is written out."""
    found = list(rms_norms(a_step(name)))
    assert len(found) == norms
    for composite in found:
        assert composite.last - composite.first == 7
        assert composite.fused.inputs[0].shape == composite.fused.outputs[0].shape


def test_one_kernel_reads_and_writes_what_the_parts_did():
    operators = a_step("flux-dev")
    first, last, fused = next(rms_norms(operators))
    new, old = (
        Lowering(with_pytorch(H200, release), Policy()).lower_all(operators) for release in ("2.11", "2.6")
    )
    parts = range(first, last + 1)
    assert [len(old[part].kernels) for part in parts] == [1] * len(parts)
    assert [len(new[part].kernels) for part in parts] == [0] * (len(parts) - 1) + [1]
    (kernel,) = new[last].kernels
    assert {access.tensor for access in kernel.reads} == {use.tensor for use in fused.inputs}
    assert [(access.tensor, access.nbytes) for access in kernel.writes] == [
        (operators[last].outputs[0].tensor, operators[last].outputs[0].nbytes)
    ]


def test_a_newer_release_is_faster_and_its_host_issues_less():
    slow, fast = (
        run("flux-dev", H200, steps=1, pytorch=release, fidelity="closed") for release in ("2.6", "2.11")
    )
    assert fast.latency_s < slow.latency_s
    assert fast.busy["host"] < slow.busy["host"]
    assert slow.totals["kernels"] - fast.totals["kernels"] >= 7 * 152


def test_parts_of_different_modules_are_no_norm():
    operators = a_step("flux-dev")
    composite = next(rms_norms(operators))
    torn = list(operators)
    torn[composite.first + 3] = dataclasses.replace(torn[composite.first + 3], module="elsewhere")
    assert len(list(rms_norms(torn))) == 151
