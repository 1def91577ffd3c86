"""How the model in the denoising loop is launched in a capture: compiled once, whatever the passes, and nothing else is."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
from tiny_workloads import stable  # noqa: E402

from simtti.errors import InputError  # noqa: E402
from simtti.workloads.capture import check_launch  # noqa: E402
from simtti.workloads.capture_many import Job  # noqa: E402
from simtti.workloads.catalogue import Options, Workload  # noqa: E402
from simtti.workloads.device_passes import Passes  # noqa: E402

DEFAULTS = Options(height=64, width=64, steps=2, guidance=7.5, dtype="fp32")


def workload(builder, name="tiny"):
    return Workload(
        name=name, task="text-to-image", architecture="", defaults=DEFAULTS, parameters={}, source="", url="", builder=builder, place=0,
    )  # fmt: skip


@pytest.fixture
def compiled(monkeypatch):
    """Each forward that is compiled, with the mode asked for and how often what came of it is called."""
    found = []

    def fake(forward, mode=None):
        entry = {"of": type(forward.__self__).__name__, "mode": mode, "calls": 0}
        found.append(entry)

        def called(*args, **kwargs):
            entry["calls"] += 1
            return forward(*args, **kwargs)

        return called

    monkeypatch.setattr(torch, "compile", fake)
    return found


@pytest.mark.parametrize(("launch", "mode"), [("compiled", None), ("compiled-graph", "reduce-overhead")])
def test_the_denoiser_is_compiled_once_for_all_passes(monkeypatch, tmp_path, compiled, launch, mode):
    tiny = workload(lambda options, recording: stable(monkeypatch, options, recording))
    passes = Passes(tiny, DEFAULTS, "cpu", "flash", launch=launch)
    found = passes.run(tmp_path, repeats=2, longest_s=0)
    assert [(each["of"], each["mode"]) for each in compiled] == [("UNet2DConditionModel", mode)]
    assert compiled[0]["calls"] == 4  # to warm up, twice for clean times, under the profiler
    assert {step.phase for step in found.clean[0].done} == {"text_encoder", "denoising", "decoder"}


def test_eager_and_graphs_without_a_gpu_compile_nothing(monkeypatch, tmp_path, compiled):
    tiny = workload(lambda options, recording: stable(monkeypatch, options, recording))
    for launch in ("eager", "graph"):
        Passes(tiny, DEFAULTS, "cpu", "flash", launch=launch).run(tmp_path, repeats=1, longest_s=0)
    assert compiled == []


def test_a_workload_without_a_denoiser_says_so(tmp_path):
    def only_a_step(options, recording):
        network = recording.add("network", torch.nn.Linear, 8, 8, dtype="fp32")
        with recording.step("tokens", domain="text"):
            network(torch.zeros(1, 8))

    with pytest.raises(InputError, match="tiny has no model in a denoising loop"):
        Passes(workload(only_a_step), DEFAULTS, "cpu", "flash", launch="compiled").run(tmp_path, repeats=1)


def test_an_unknown_way_of_launching_is_named_with_the_known_ones():
    with pytest.raises(InputError, match=r"'compile'.*compiled"):
        check_launch("compile")


def test_captures_of_different_launches_have_different_files():
    names = {Job("sdxl", launch=launch).name for launch in ("eager", "graph", "compiled")}
    assert names == {f"sdxl_default_flash{end}.parquet" for end in ("", "_graph", "_compiled")}
