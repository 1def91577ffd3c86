"""Recording: what is shipped, what is recorded anew, and the same bytes each time."""

import os
import subprocess
import sys

import pyarrow.parquet as pq
import pytest
from one_of_each import one_of_each
from recorded_traces import REBUILT, denoising, shipped, small

from simtti.errors import InputError
from simtti.workloads import record
from simtti.workloads.catalogue import WORKLOADS


@pytest.mark.parametrize("name", one_of_each(REBUILT))
def test_a_fresh_recording_has_the_published_weights_and_is_what_is_shipped(name, tmp_path):
    """One test, so that each workload is recorded once."""
    pytest.importorskip("torch")
    trace = record.record(name)
    assert trace.parameters == dict(WORKLOADS[name].parameters)
    for component, count in trace.parameters.items():
        # What a class keeps in fp32: T5's output projections in fp16, Wan's time embedding and modulation.
        in_fp16 = WORKLOADS[name].defaults.dtype == "fp16"
        t5 = in_fp16 and component.startswith("text_encoder") and count > 1e9
        wan = name.startswith("wan") and component == "transformer"
        most = 1.25 if t5 else 1.01 if wan else 1
        assert 2 * count <= trace.parameter_bytes[component] <= 2 * count * most
    if trace.provenance != shipped(name).provenance:
        pytest.skip(f"recorded with {shipped(name).provenance}, here is {trace.provenance}")
    assert trace == shipped(name)
    trace.save(tmp_path / "fresh.parquet")
    path = record.shipped(WORKLOADS[name])
    if pq.read_metadata(path).created_by == pq.read_metadata(tmp_path / "fresh.parquet").created_by:
        assert (tmp_path / "fresh.parquet").read_bytes() == path.read_bytes()
    assert path.stat().st_size < 250_000


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_with_steps_is_what_recording_gives(steps):
    assert small().with_steps(steps) == small(steps=steps)


def test_recording_is_deterministic():
    assert small() == record.record("stable-diffusion-1.5", height=64, width=64)


def test_batch_and_odd_sizes():
    trace = small(batch=3, width=72)
    first = denoising(trace).operators[0]
    assert first.outputs[0].shape == (6, 4, 8, 9)
    image = trace.phases[-1].steps[0].operators[-1].inputs[0]
    assert image.shape == (3, 3, 64, 72)
    assert small(height=8, width=8).phases[-1].steps[0].operators[-1].inputs[0].shape == (1, 3, 8, 8)


@pytest.mark.parametrize(("dtype", "size"), [("bf16", 2), ("fp32", 4)])
def test_dtypes(dtype, size):
    trace = small(dtype=dtype)
    assert trace.parameter_bytes["unet"] == size * trace.parameters["unet"]
    assert {op.inputs[0].dtype for op in trace.operators() if op.category in ("Linear", "Convolution")} == {
        dtype
    }


def test_tables_that_are_not_weights_keep_their_dtype():
    """Wan's rotary tables are fp32 in a bf16 model, as `from_pretrained` leaves them, and so are the products."""
    rotary = [
        op
        for op in denoising(shipped("wan2.1-1.3b")).operators
        if op.op == "aten::mul" and len(op.inputs) == 2 and op.inputs[0].shape[-2:] == (12, 64)
    ]
    assert rotary
    assert {(op.inputs[0].dtype, op.inputs[1].dtype, op.outputs[0].dtype) for op in rotary} == {
        ("bf16", "fp32", "fp32")
    }


def test_another_shape_is_recorded_or_says_what_to_install(monkeypatch):
    assert record.workload_trace("stable-diffusion", height=64, width=64) == small()
    monkeypatch.setitem(sys.modules, "torch", None)
    assert record.workload_trace("stable-diffusion", steps=50) == shipped("stable-diffusion-1.5")
    with pytest.raises(
        InputError,
        match=r"height 64, .* needs torch, which is not installed; run: pip install 'simtti\[torch\]'",
    ):
        record.workload_trace(
            "stable-diffusion", height=64, width=2**10 - 8
        )  # what was recorded before is kept


def test_recording_is_silent_and_building_twice_gives_the_same_bytes(tmp_path):
    """In a process of its own, with hashes of its own: what one recording leaves behind must not matter to the next."""
    pytest.importorskip("torch")
    code = (
        "import sys; from simtti.workloads.record import record; "
        "record('stable-diffusion-1.5', height=64, width=64).save(sys.argv[1])"
    )
    seed = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    result = subprocess.run(
        [sys.executable, "-W", "default", "-c", code, str(tmp_path / "there")],
        capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": seed},
    )  # fmt: skip
    assert (result.stdout, result.stderr) == ("", "")
    small().save(tmp_path / "here")
    assert (tmp_path / "there").read_bytes() == (tmp_path / "here").read_bytes()
