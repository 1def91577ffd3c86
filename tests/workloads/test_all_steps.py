"""Every step of an inference: recorded as the counts say, and run one by one when captured, here on a CPU."""

from collections import Counter
from dataclasses import replace

import pytest

from simtti.errors import InputError
from simtti.hw_configs.devices import load
from simtti.simulator.engine.replay import replay
from simtti.workloads import catalogue
from simtti.workloads.catalogue import Options, Workload
from simtti.workloads.kineto import Profile
from simtti.workloads.kineto_calls import Call
from simtti.workloads.record import quiet, record
from simtti.workloads.trace import TimedKernel, Trace

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from tiny_workloads import chunked, frames, llama, parallel, stable, tiles  # noqa: E402

from simtti.workloads import capture as capturing  # noqa: E402
from simtti.workloads.capture import capture  # noqa: E402

with quiet():
    from simtti.workloads.models.pipelines.latent_diffusion import schedule_steps

# Of each: what it records, its options, how many steps its phases have, and whether steps that alternate come in another
# order than their counts say.
CASES = {
    "stable": (stable, Options(height=16, width=16, steps=3, guidance=5.0, dtype="fp32"),
               {"text_encoder": 1, "denoising": 4, "decoder": 1}, False),
    "llama": (llama, Options(steps=8, prompt_tokens=5, dtype="fp32"), {"prefill": 1, "decode": 7}, False),
    "parallel": (parallel, Options(height=256, width=256, steps=3, guidance=4.0, dtype="fp32"),
                 {"text_encoder": 2, "parallel_decoding": 3, "decoder": 1}, False),
    "chunked": (chunked, Options(height=48, width=48, steps=2, frames=6, guidance=4.0, dtype="fp32"),
                {"text_encoder": 1, "prior": 2, "denoising": 2, "interpolation_input": 1, "interpolation": 2,
                 "super_resolution_low": 3, "super_resolution_high": 9, "decoder": 1}, True),
    "frames": (frames, Options(height=16, width=16, steps=2, frames=32, guidance=4.0, dtype="fp32"), None, True),
    "tiles": (tiles, Options(height=16, width=448, steps=2, frames=5, guidance=4.0, dtype="fp32"), None, True),
}  # fmt: skip


@pytest.fixture(scope="module", params=CASES)
def case(request):
    """A workload small enough for a CPU, in the catalogue under the name 'tiny'."""
    builder, options, phases, alternate = CASES[request.param]

    def build(options, recording):
        # Only while it builds: others that import these modules must not see it.
        with pytest.MonkeyPatch.context() as patch:
            builder(patch, options, recording)

    workload = Workload(
        name="tiny", task="text-to-image", architecture="small", defaults=options, parameters={}, source="", url="",
        builder=build,
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(catalogue.WORKLOADS, "tiny", workload)
        yield request.param, phases, alternate


def work(operator, *, sized=True):
    """What an operator does, whatever its tensors are called."""
    named = (operator.module, operator.op, operator.category, operator.is_view)
    if not sized:
        return named
    uses = [(use.shape, use.strides, use.dtype, use.role) for use in (*operator.inputs, *operator.outputs)]
    return (*named, str(sorted(operator.attributes.items())), *uses)


def as_counted(trace, **how):
    """The operators of each phase, each step as often as it counts."""
    return {
        phase.name: [
            work(op, **how) for step in phase.steps for _ in range(step.count) for op in step.operators
        ]
        for phase in trace.phases
    }


def test_a_recording_of_every_step_is_one_by_its_counts(case):
    name, phases, alternate = case
    counted, single = record("tiny"), record("tiny", all_steps=True)
    assert {step.count for phase in single.phases for step in phase.steps} == {1}
    if phases is not None:
        assert {phase.name: len(phase.steps) for phase in single.phases} == phases
    assert sum(1 for _ in single.operators()) > sum(1 for _ in counted.operators())
    if name == "stable":  # steps that do the same share their operands
        steps = single.phases[1].steps
        assert all(
            op.inputs is same.inputs for op, same in zip(*(step.operators for step in steps[:2]), strict=True)
        )
    # A cache that grows: the same operators, each with its own length.
    expected, found = (as_counted(trace, sized=name != "llama") for trace in (counted, single))
    assert list(found) == list(expected)
    for phase in expected:
        if alternate:
            assert Counter(found[phase]) == Counter(expected[phase])
        else:
            assert found[phase] == expected[phase]


@pytest.mark.parametrize("case", ["stable", "llama", "chunked", "tiles"], indirect=True)
def test_a_capture_of_every_step_runs_each(case, tmp_path):
    captured = capture("tiny", device="cpu", all_steps=True, repeats=1, longest_s=0)
    single = record("tiny", all_steps=True)
    assert captured.phases == single.phases
    counts = captured.provenance["capture"]
    # A CPU does without some copies, and torch takes a few operators apart on the meta device only.
    assert counts["matched"] > 0.97 * counts["profiled"] > 0.92 * counts["operators"]
    times = iter(captured.timing.host)
    seen = [[next(times) is not None for _ in step.operators] for ph in captured.phases for step in ph.steps]
    assert all(sum(ran) > 0.8 * len(ran) for ran in seen if len(ran) > 20)
    steps = captured.timing.end_to_end["steps"]
    order = [(step["phase"], step["count"]) for step in steps]
    assert order == [(phase.name, 1) for phase in single.phases for _ in phase.steps]
    assert captured.timing.end_to_end["latency_s"] == pytest.approx(sum(step["clean_s"] for step in steps))
    starts = [time.start_us for time in captured.timing.host if time is not None]
    assert starts[0] == 0
    assert starts[-1] / 1e6 < 2 * sum(step["profiled_s"] for step in steps)  # no time between profiles
    captured.save(tmp_path / "captured.parquet")
    assert Trace.load(tmp_path / "captured.parquet") == captured
    if case[0] == "stable":
        # Replay keeps the pauses of the host and what overlaps, whatever the number of steps.
        timed = with_a_kernel_an_operator(captured)
        timed.save(tmp_path / "timed.parquet")
        replayed = replay(Trace.load(tmp_path / "timed.parquet"), load("h100-sxm"), "measured")
        assert len(replayed.kernels) == sum(not op.is_view for op in single.operators())
        assert replayed.latency_s == pytest.approx(replayed.measured_s, rel=0.02)


def with_a_kernel_an_operator(trace):
    """As if each operator that is no view had launched a kernel that ran for 3 us."""
    kernels, reached = [], 0.0
    for row, (operator, time) in enumerate(zip(trace.operators(), trace.timing.host, strict=True)):
        if not operator.is_view:
            launched = time.start_us if time is not None else reached
            reached = max(launched + 5, reached)
            kernels.append(
                TimedKernel("kernel", reached, 3.0, row, launch_us=launched, launch_duration_us=1.0)
            )
            reached += 3
    return replace(trace, timing=replace(trace.timing, kernels=tuple(kernels)))


def test_a_step_begins_where_the_profile_before_ends():
    def profile(start_us, duration_us, kernel_end_us):
        call = Call("aten::add", start_us, duration_us, 0, "", {})
        kernel = TimedKernel("add", kernel_end_us - 2, 2.0, 0, launch_us=start_us + 1)
        return Profile({}, [call], (kernel,))

    first, empty, last = profile(100.0, 10.0, 130.0), Profile({}, [], ()), profile(7.0, 10.0, 12.0)
    shifts = capturing._shifts_us([first, empty, last])
    assert [shifts[id(item)] for item in (first, empty, last)] == [-100.0, 30.0, 30.0 - 7.0]


def test_more_steps_than_a_schedule_has():
    assert schedule_steps(990) == 1000
    with pytest.raises(InputError, match=r"all_steps: 991 steps are too many; .* has room for 990"):
        schedule_steps(991)
