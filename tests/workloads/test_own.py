"""Models of one's own: modules, pipelines, functions in files; as they are, and as the catalogue records the same model."""

import textwrap
from types import SimpleNamespace

import pytest

import simtti
from simtti.errors import InputError
from simtti.workloads import own

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
transformers = pytest.importorskip("transformers")

import tiny_workloads  # noqa: E402

from simtti.workloads.catalogue import Options  # noqa: E402
from simtti.workloads.models import wan  # noqa: E402
from simtti.workloads.record import quiet  # noqa: E402
from simtti.workloads.recorder import Recorder  # noqa: E402

LATENTS = (2, 16, 32)


def block(**where):
    """A block as torch's own transformer has it, in bf16."""
    return torch.nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, dtype=torch.bfloat16, **where)


def latents(**where):
    return torch.zeros(LATENTS, dtype=torch.bfloat16, **where)


def test_a_module_is_one_step_with_its_count():
    module = block()
    trace = simtti.record(module, latents(), count=50, options={"batch": 2})
    (phase,) = trace.phases
    (step,) = phase.steps
    assert (phase.name, step.count, trace.options) == (
        "denoising", 50, {"batch": 2, "dtype": "bf16", "steps": 50},
    )  # fmt: skip
    assert trace.parameters == {"model": sum(weight.numel() for weight in module.parameters())}
    assert [op.op for op in step.operators].count("aten::scaled_dot_product_attention") == 1
    assert {op.module.partition(".")[0] for op in step.operators} == {"model"}
    weights = {use.tensor for op in step.operators for use in op.inputs if use.role == "parameter"}
    assert len(weights) == len(list(module.parameters()))
    assert trace.with_steps(3).phases[0].steps[0].count == 3
    assert simtti.run(trace, "h100-sxm", steps=10).latency_s > 0


def test_weights_stay_where_they_are_and_only_their_shapes_matter():
    from torch._subclasses.fake_tensor import FakeTensorMode

    module = block()
    before = {name: weight.clone() for name, weight in module.named_parameters()}
    real = simtti.record(module, latents())
    assert module.training
    assert all(torch.equal(weight, before[name]) for name, weight in module.named_parameters())
    with FakeTensorMode():
        fake = block(), latents()
    assert simtti.record(*fake) == real
    assert simtti.record(block(device="meta"), latents(device="meta")) == real


def test_keyword_inputs_and_tied_weights():
    class Tied(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = torch.nn.Linear(8, 8, bias=False), torch.nn.Linear(8, 8, bias=False)
            self.second.weight = self.first.weight

        def forward(self, *, height, states):
            return self.second(self.first(states["x"][0])) * height

    trace = simtti.record(Tied(), height=4, states={"x": [torch.zeros(3, 8)]}, phase="text_encoder", count=2)
    operators = trace.phases[0].steps[0].operators
    products = [op for op in operators if op.op == "aten::mm"]
    assert trace.phases[0].name == "text_encoder"
    assert len({op.inputs[1].tensor for op in products}) == 1
    assert trace.parameters == {"model": 64}


def test_a_custom_operator_is_recorded_by_its_name_and_said_to_have_no_model():
    @torch.library.custom_op("simtti_test::twist", mutates_args=())
    def twist(states: torch.Tensor, by: int) -> torch.Tensor:
        return states.clone()

    @twist.register_fake
    def _(states, by):
        return torch.empty_like(states)

    class Twisted(torch.nn.Module):
        def forward(self, states):
            return twist(torch.nn.functional.silu(states), 3)

    trace = simtti.record(Twisted(), torch.zeros(4, 8))
    operator = trace.phases[0].steps[0].operators[-1]
    assert (operator.op, operator.attributes) == ("simtti_test::twist", {"by": 3})
    assert [use.nbytes for use in (*operator.inputs, *operator.outputs)] == [128, 128]
    result = simtti.run(trace, "a100-sxm")
    assert result.unlowered == {"simtti_test::twist": 0.5}


@pytest.mark.parametrize(
    ("what", "options", "said"),
    [
        (lambda: (3,), {}, "give a workload's name"),
        (lambda: (block(), latents()), {"count": 0}, "count is 0"),
        (lambda: (block(), latents()), {"domain": "time"}, "domain 'time'"),
        (lambda: (block(), torch.zeros(2, 16, 31, dtype=torch.bfloat16)), {}, "TransformerEncoderLayer"),
        (lambda: (block(), latents().to(torch.uint16)), {}, "torch.uint16"),
    ],
)
def test_what_cannot_be_recorded_is_said_in_a_line(what, options, said):
    with pytest.raises(InputError, match=said) as caught:
        simtti.record(*what(), **options)
    assert "\n" not in str(caught.value)


def test_a_name_takes_no_inputs():
    with pytest.raises(InputError, match="options by their names"):
        simtti.record("sdxl", 3)


# ---- pipelines


def tiny_wan(small):
    """The pipeline that `tiny_workloads.tiles` builds, as its user would; small: its sizes, from there."""
    build = Recorder().build
    with quiet():
        pipe = diffusers.WanPipeline(
            text_encoder=build(
                transformers.UMT5EncoderModel, transformers.UMT5Config(**small.UMT5_XXL), dtype="bf16"
            ),
            transformer=build(diffusers.WanTransformer3DModel, **small.T2V_1_3B.transformer, dtype="bf16"),
            vae=build(diffusers.AutoencoderKLWan, dtype="bf16"),
            scheduler=diffusers.UniPCMultistepScheduler(**wan.SCHEDULER),
            tokenizer=None,
        )
    pipe.vae.enable_tiling()
    pipe.vae.enable_slicing()
    return pipe


@pytest.fixture
def catalogued(monkeypatch):
    """The tiny Wan as the catalogue's builder records it, and a pipeline of the same sizes."""
    recorder = Recorder()
    options = Options(height=64, width=64, frames=17, steps=6, guidance=5.0, dtype="bf16")
    with quiet():
        tiny_workloads.tiles(monkeypatch, options, recorder)
    return recorder, tiny_wan(wan)


def test_a_pipeline_is_what_the_catalogue_records_of_it(catalogued):
    recorder, pipe = catalogued
    trace = simtti.record(pipe, prompt=["a photo"], height=64, width=64, num_frames=17, num_inference_steps=6)
    names = {phase.name: [step.count for step in phase.steps] for phase in trace.phases}
    assert names["text_encoder"] == [1]
    assert names["denoising"] == [6]
    assert max(names["decoder"]) > 1  # what is decoded alike is stored once
    assert trace.parameters == recorder.parameters
    assert trace.schedule == recorder.schedule

    def work(phases):
        return [
            [
                (
                    step.count,
                    [(op.module, op.op, op.inputs, op.outputs, op.attributes) for op in step.operators],
                )
                for step in phase.steps
            ]
            for phase in phases
        ]

    assert work(trace.phases) == work(recorder.phases())
    assert trace.options == {
        "height": 64, "width": 64, "batch": 1, "steps": 6, "frames": 17, "dtype": "bf16", "guidance": 5.0,
    }  # fmt: skip
    assert simtti.run(trace, "h100-sxm", fidelity="closed").latency_s > 0
    assert pipe.transformer.forward.__self__ is pipe.transformer  # the pipeline given is not steered


def test_a_pipeline_that_lacks_what_is_needed_says_so(catalogued):
    _, pipe = catalogued
    with pytest.raises(InputError, match="takes no hight"):
        simtti.record(pipe, hight=64)
    pipe.scheduler = None
    with pytest.raises(InputError, match="no scheduler"):
        simtti.record(pipe)
    pipe.scheduler = SimpleNamespace(order=2, set_timesteps=None)
    with pytest.raises(InputError, match="order 1"):
        simtti.record(pipe)
    pipe.transformer = None
    with pytest.raises(InputError, match="none of the models"):
        simtti.record(pipe)


# ---- functions in files

FILE = """
    import torch
    import simtti

    def model(batch=1, width=8):
        with torch.device("meta"):
            return torch.nn.Linear(width, width), torch.empty(batch, width)

    def keywords():
        return torch.nn.Linear(8, 8), {"input": torch.empty(2, 8)}

    def trace():
        return simtti.record(*model(), count=7)

    def nothing():
        return None

    def broken():
        raise ValueError("out of luck")

    def leaves():
        raise SystemExit(0)
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(textwrap.dedent(FILE))
    return path


def test_what_a_function_returns_is_recorded(file):
    trace = simtti.record(f"{file}:model", steps=5, batch=3, width=None)
    assert (trace.workload, trace.options) == ("model", {"batch": 3, "dtype": "fp32", "steps": 5})
    assert trace.phases[0].steps[0].operators[-1].outputs[0].shape == (3, 8)
    assert own.record_file(f"{file}:keywords").phases[0].steps[0].count == 1
    assert own.record_file(f"{file}:trace").options["steps"] == 7
    assert own.record_file(f"{file}:trace", steps=2).phases[0].steps[0].count == 2


@pytest.mark.parametrize(
    ("function", "options", "said"),
    [
        ("modle", {}, "did you mean 'model'"),
        ("", {}, "say which function"),
        ("nothing", {}, "returned a NoneType"),
        ("broken", {}, "ValueError: out of luck"),
        ("leaves", {}, "failed: SystemExit: 0"),
        ("model", {"height": 64}, "takes no height; it takes batch, width"),
    ],
)
def test_a_function_that_gives_no_trace(file, function, options, said):
    with pytest.raises(InputError, match=said):
        own.record_file(f"{file}:{function}", **options)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="there is no file"):
        own.record_file(f"{tmp_path}/none.py:model")
