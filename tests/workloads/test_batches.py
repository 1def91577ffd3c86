"""Other batches without torch: what is scaled from the shipped trace is what is recorded, or it is not scaled."""

import json
import random
import subprocess
import sys
from dataclasses import replace

import pytest
from small_traces import operator, small_trace, use

from simtti.errors import InputError
from simtti.workloads import batches, record
from simtti.workloads.batches import Batches, NotAffine, fit
from simtti.workloads.catalogue import WORKLOADS
from simtti.workloads.trace import Phase, Step, Trace

SCALED = sorted(
    name for name, item in WORKLOADS.items() if batches.path_beside(record.shipped(item)).exists()
)
# One that CI records; the others are for make test-every.
RECORDED = [
    name if name == "pixart-sigma" else pytest.param(name, marks=pytest.mark.every) for name in SCALED
]


def made(batch, **changes):
    """A trace as it might be at a batch: a denoising step whose sizes grow, a decoder that is another one at batch 1."""

    def image(tensor, role="activation"):
        return use(tensor, (2 * batch, 3, 8), storage_bytes=96 * batch, role=role)

    denoising = (
        operator(0, inputs=(image(0, "input"), use(1, role="parameter")), outputs=(image(2),), released=(0,)),
        operator(
            1, op="aten::view", attributes={"size": [batch, 2, 24]}, inputs=(image(2),), outputs=(image(2),)
        ),
    )
    copy = operator(
        0, phase="decoder", op="aten::clone", attributes={}, inputs=(image(2),), outputs=(image(3),)
    )
    shift = int(batch > 1)
    last = operator(
        shift,
        phase="decoder",
        attributes={"alpha": 1, "groups": 4},
        inputs=(image(2 + shift),),
        outputs=(image(3 + shift),),
    )
    phases = (
        Phase("denoising", (Step(51, denoising),)),
        Phase("decoder", (Step(2 * batch + 1, (copy, last) if shift else (last,)),)),
    )
    return replace(small_trace(phases=phases, options={"batch": batch, "steps": 50}), **changes)


@pytest.mark.parametrize("batch", [2, 3, 4, 17])
def test_sizes_attributes_and_counts_that_grow_with_the_batch(batch, tmp_path):
    found = fit(made(1), made(2), made(3))
    assert found.trace(made(1), batch) == made(batch)
    found.save(tmp_path / "a.batches")
    assert Batches.load(tmp_path / "a.batches").trace(made(1), batch) == made(batch)
    assert found.content["phases"][0] == [
        [51, None]
    ]  # the same operators: nothing but what changes is stored
    assert len(found.content["phases"][1][0][1]) == 2


def test_what_grows_in_another_way_is_refused():
    def squared(batch):
        step = made(batch).phases[0].steps[0]
        first = replace(step.operators[0], attributes={"alpha": batch * batch})
        return made(batch, phases=(Phase("denoising", (Step(1, (first,)),)),))

    found = fit(*map(squared, (1, 2, 3)))
    assert found.trace(squared(1), 4) != squared(4)  # which building checks
    for changes in ({"schedule": {}}, {"parameters": {"unet": 7}}, {"phases": made(2).phases[:1]}):
        with pytest.raises(NotAffine):
            fit(made(1), made(2), made(3, **changes))
    with pytest.raises(NotAffine, match="operators differ"):
        fit(made(1), made(1), made(2))


def test_a_file_for_another_trace_or_beyond_what_was_checked_is_not_used(tmp_path):
    path = tmp_path / "trace.parquet"
    made(1).save(path)
    found = fit(made(1), made(2), made(3)).made_for(path, 16)
    assert [found.reaches(batch, path) for batch in (1, 2, 16, 17)] == [False, True, True, False]
    small_trace().save(path)
    assert not found.reaches(2, path)


def test_a_damaged_file_is_told(tmp_path):
    path = tmp_path / "a.batches"
    path.write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"a\.batches"):
        Batches.load(path)


@pytest.mark.parametrize("name", RECORDED)
def test_a_scaled_trace_is_the_recorded_one(name):
    pytest.importorskip("torch")
    largest = Batches.load(batches.path_beside(record.shipped(WORKLOADS[name]))).content["largest"]
    batch = random.randint(2, largest)
    recorded = record.record_workload(name, batch=batch)
    if recorded.provenance != Trace.load(record.shipped(WORKLOADS[name])).provenance:
        pytest.skip("recorded with other versions than what ships")
    assert record.workload_trace(name, batch=batch) == recorded, f"batch {batch}"


@pytest.mark.parametrize("name", SCALED)
def test_a_shipped_file_is_for_the_shipped_trace_and_small(name):
    path = record.shipped(WORKLOADS[name])
    beside = batches.path_beside(path)
    assert Batches.load(beside).reaches(2, path)
    assert beside.stat().st_size < 60_000


WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None
import json, simtti
table = simtti.compare("{name}", ["h100-sxm"], [1, 4, 16], workers=1, fidelity="closed", launch="graph")
print(json.dumps([table.latency_s.tolist(), table.error.tolist()]))
"""


def test_batches_compare_without_torch():
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH.format(name="pixart-sigma")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    latencies, errors = json.loads(done.stdout)
    assert errors == ["", "", ""]
    assert latencies[0] < latencies[1] < latencies[2]
