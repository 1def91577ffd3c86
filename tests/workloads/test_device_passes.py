"""The passes of a capture: every workload on the meta device, small ones on a CPU."""

from contextlib import contextmanager

import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
pytest.importorskip("transformers")
from one_of_each import one_of_each  # noqa: E402
from torch.overrides import _get_current_function_mode_stack  # noqa: E402

from simtti.errors import InputError  # noqa: E402
from simtti.workloads import device_passes  # noqa: E402
from simtti.workloads.capture import laid_beside  # noqa: E402
from simtti.workloads.catalogue import WORKLOADS, Options, Workload  # noqa: E402
from simtti.workloads.device_passes import Passes, attention_kernels  # noqa: E402
from simtti.workloads.device_run import DeviceRun, InOneGo, StepRun  # noqa: E402
from simtti.workloads.meta_results import MetaResults  # noqa: E402
from simtti.workloads.noise import Noise  # noqa: E402
from simtti.workloads.power_meter import PowerMeter  # noqa: E402
from simtti.workloads.record import quiet, workload_trace  # noqa: E402


@contextmanager
def counted(step, place):
    """A clock for what takes no time: each step a millisecond, and no noise within it."""
    assert not any(isinstance(mode, Noise) for mode in _get_current_function_mode_stack())
    yield
    assert not any(isinstance(mode, Noise) for mode in _get_current_function_mode_stack())
    step.seconds = step.host_seconds = 1e-3


class Attention:
    """Which backends are allowed when a step begins."""

    def __init__(self):
        self.seen = set()

    @contextmanager
    def __call__(self, step, place):
        backends = torch.backends.cuda
        self.seen.add(
            (backends.flash_sdp_enabled(), backends.math_sdp_enabled(), backends.fp16_bf16_reduction_math_sdp_allowed())
        )  # fmt: skip
        with counted(step, place):
            yield


def schedulers():
    found, todo = [], [diffusers.SchedulerMixin]
    while todo:
        found.append(todo.pop())
        todo += found[-1].__subclasses__()
    return [each for each in found if "step" in vars(each)]


def spied(step, stepped, placed, strangers):
    def watched(self, prediction, timestep, *args, **kwargs):
        stepped.append(type(self).__name__)
        for tensor in (timestep, self.timesteps):
            if torch.is_tensor(tensor) and tensor.untyped_storage().data_ptr() not in placed:
                strangers.append(type(self).__name__)
        return step(self, prediction, timestep, *args, **kwargs)

    return watched


@pytest.mark.parametrize("name", one_of_each())
def test_every_workload_goes_through_a_capture_on_the_meta_device(name, monkeypatch):
    """Modules are built in the first pass only, steps are the recorded ones in each, a sampler's timesteps are those that
    `on_device` gave, and attention is the one asked for. What is missing is a device that computes."""
    workload = WORKLOADS[name]
    passes = Passes(workload, workload.defaults, "meta", "baseline")
    build, builds = DeviceRun.__mro__[1].build, []
    monkeypatch.setattr(
        DeviceRun.__mro__[1], "build", lambda *a, **k: (builds.append(a[1]), build(*a, **k))[1]
    )
    stepped, placed, strangers = [], {}, []

    def on_device(self, tensor):
        moved = tensor.clone()
        placed[moved.untyped_storage().data_ptr()] = moved
        return moved

    monkeypatch.setattr(DeviceRun, "on_device", on_device)
    profiler = Attention()
    with quiet(), MetaResults():
        clean = passes._once(counted)
        built = len(builds)
        for scheduler in schedulers():
            monkeypatch.setattr(scheduler, "step", spied(scheduler.step, stepped, placed, strangers))
        profiled = passes._once(profiler)
    assert built == len(builds) > 0
    assert profiler.seen == {(False, True, True)}
    assert not strangers
    assert bool(placed) == bool(stepped)  # language models have no sampler
    recorded = workload_trace(name)
    counts = [(phase.name, step.count) for phase in recorded.phases for step in phase.steps]
    for run in (clean, profiled):
        assert [(phase.name, step.count) for phase in run.phases() for step in phase.steps] == counts
    found = device_passes.Found([clean], profiled)
    trace = laid_beside(recorded, found, {"name": "meta"}, "meta", "baseline")
    end_to_end = trace.timing.end_to_end
    assert end_to_end["latency_s"] == pytest.approx(1e-3 * sum(count for _, count in counts))
    assert trace.provenance["scores"] == workload.defaults.dtype


# ---- on a CPU


def layers(options, recording):
    """Three steps of a layer on latents that nobody has written, between one that embeds ids nobody has written."""
    table = recording.add("table", torch.nn.Embedding, 8, 4, dtype=options.dtype)
    layer = recording.add("layer", torch.nn.Linear, 4, 4, dtype=options.dtype)
    ids = torch.empty(2, 3, dtype=torch.int64, device=recording.device)
    latents = torch.empty(2, 3, 4, device=recording.device)
    forward = layer.forward
    layer.forward = lambda *args: forward(*args)  # as pipelines are steered
    layer.register_forward_hook(lambda *_: None)
    with recording.step("text_encoder", domain="text"):
        text = table(ids)
    for step in recording.times("denoising", domain="spatial", count=options.steps):
        with step:
            latents = layer(latents + text)
    layer.to(torch.float64)
    assert latents.isfinite().all()
    assert not (latents == 0).all()


LAYERS = Workload(
    name="layers", task="text-to-image", architecture="toy", defaults=Options(steps=3, dtype="fp32"), parameters={},
    source="", url="", builder=layers,
)  # fmt: skip


class FakeNvml:
    """A GPU that draws 100 J more each time its counter is read."""

    NVML_CLOCK_SM = 1

    def __init__(self):
        self.reads = 0

    def nvmlDeviceGetTotalEnergyConsumption(self, handle):  # noqa: N802
        self.reads += 1
        return 100_000 * self.reads

    def nvmlDeviceGetPowerUsage(self, handle):  # noqa: N802
        return 250_000

    def nvmlDeviceGetClockInfo(self, handle, clock):  # noqa: N802
        assert clock == self.NVML_CLOCK_SM
        return 1980 if self.reads % 2 else 1900


def test_what_nobody_has_written_is_noise_and_ids_are_in_range():
    torch.use_deterministic_algorithms(
        True, warn_only=True
    )  # torch.empty gives NaN, and the largest whole number
    try:
        DeviceRun("cpu", counted).do(layers, LAYERS.defaults)
    finally:
        torch.use_deterministic_algorithms(False)
    with Noise() as noise:
        assert not torch.empty_like(torch.ones(4)).isnan().any()
        assert 0.5 < torch.empty(1000).std() < 2
        with noise.of_weights():
            assert torch.ones(1).new_empty(1000).std() < 0.1
        assert not torch.empty(9, dtype=torch.int64).any()
    assert not _get_current_function_mode_stack()


def test_modules_are_built_once_and_are_as_they_were_built(tmp_path):
    passes = Passes(LAYERS, LAYERS.defaults, "cpu", "flash", meter=PowerMeter(FakeNvml(), None))
    modules = []
    get = passes.models.get

    def kept(what, build):
        modules.append(get(what, build))
        assert "forward" not in vars(modules[-1])
        assert not modules[-1]._forward_hooks
        assert next(modules[-1].parameters()).dtype == torch.float32
        return modules[-1]

    passes.models.get = kept
    found = passes.run(tmp_path, repeats=2, longest_s=10)
    assert {id(module) for module in modules} == {id(module) for module in modules[:2]}
    assert len(modules) == 2 * (1 + 2 + 1 + found.whole.goes)
    found.read()
    assert [call.name for call in found.profiled.done[0].profile.calls] == ["aten::embedding"]
    assert not list(tmp_path.iterdir())


def test_the_run_in_one_go_has_every_step_and_its_energy(tmp_path):
    nvml = FakeNvml()
    passes = Passes(LAYERS, LAYERS.defaults, "cpu", "flash", meter=PowerMeter(nvml, None))
    whole = passes.run(tmp_path, repeats=1, longest_s=10).whole
    assert (whole.steps, whole.goes) == (4, device_passes._MOST_GOES)
    assert nvml.reads == 2 * whole.goes  # at the begin and at the end of each, not a step
    assert whole.draw.energy_j == 100 * whole.goes
    assert whole.latency_s * whole.goes == pytest.approx(whole.draw.seconds)
    assert whole.draw.mean_w == pytest.approx(whole.draw.energy_j / whole.draw.seconds)
    assert whole.draw.sm_clock_min_mhz == 1900
    assert 0 < whole.outside_s < whole.latency_s


def test_a_run_in_one_go_that_fails_or_is_long_costs_nothing_else(tmp_path, monkeypatch):
    def run(longest_s):
        return Passes(LAYERS, LAYERS.defaults, "cpu", "flash").run(tmp_path, repeats=1, longest_s=longest_s)

    assert run(0).whole.missing.endswith("at most 0 s are allowed")
    found = run(10)
    assert found.whole.latency_s > 0
    assert found.whole.draw.energy_j is None
    assert found.whole.draw.missing == "a cpu has no NVML"

    def broken(self):
        raise RuntimeError("CUDA error: an illegal memory access\nlong story")

    monkeypatch.setattr(InOneGo, "end", broken)
    found = run(10)
    assert found.whole.missing == "RuntimeError: CUDA error: an illegal memory access"
    assert found.clean[0].done[1].seconds > 0


def test_too_little_memory_is_said_in_one_line(tmp_path):
    def greedy(options, recording):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate")

    workload = Workload(**{**{f: getattr(LAYERS, f) for f in LAYERS.__dataclass_fields__}, "builder": greedy})
    with pytest.raises(
        InputError, match=r"capturing layers ran out of the GPU's memory: CUDA out of memory$"
    ):
        Passes(workload, workload.defaults, "cpu", "flash").run(tmp_path)


@pytest.mark.parametrize(("attention", "dtype"), [("baseline", torch.bfloat16), ("math", torch.float32)])
def test_unfused_attention_multiplies_in_its_dtype(attention, dtype):
    from torch.utils._python_dispatch import TorchDispatchMode

    class Products(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func is torch.ops.aten.bmm.default:
                dtypes.append(args[0].dtype)
            return func(*args, **(kwargs or {}))

    dtypes, query = [], torch.zeros(1, 2, 8, 4, dtype=torch.bfloat16)
    before = torch.backends.cuda.fp16_bf16_reduction_math_sdp_allowed()
    with attention_kernels(attention), Products():
        torch.nn.functional.scaled_dot_product_attention(query, query, query)
    assert dtypes == [dtype, dtype]
    assert torch.backends.cuda.fp16_bf16_reduction_math_sdp_allowed() is before


def test_a_watch_of_one_go_waits_for_no_step():
    nvml = FakeNvml()
    watch = InOneGo(PowerMeter(nvml, None))
    for _ in range(3):
        with watch(StepRun("denoising", 1), torch.device("cpu")):
            pass
    assert nvml.reads == 1
    watch.end()
