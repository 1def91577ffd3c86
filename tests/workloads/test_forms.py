"""What a call returned, without its tensors: nobody keeps them, and what is done again returns their like."""

import gc
import weakref

import pytest

torch = pytest.importorskip("torch")

from simtti.workloads.models.pipelines.forms import form, made_again, operands  # noqa: E402
from simtti.workloads.record import workload_trace  # noqa: E402
from simtti.workloads.recorder import Recorder  # noqa: E402


def test_caches_of_a_result_are_made_again_and_the_first_are_let_go_of():
    frame, cache = (
        torch.empty(2, 3, device="meta"),
        torch.empty(4, 5, device="meta", dtype=torch.bfloat16).t(),
    )
    kept = form((frame, {"cache": cache, "none": None}, 7), operands([frame], {}))
    gone = weakref.ref(cache)
    del cache
    gc.collect()
    assert gone() is None
    other = torch.empty(2, 3, device="meta")
    result, caches, number = made_again(kept, operands([other], {}), Recorder())
    assert result is other
    assert (caches["cache"].shape, caches["cache"].stride()) == ((5, 4), (1, 5))
    assert caches["cache"].dtype == torch.bfloat16
    assert (caches["none"], number) == (None, 7)


def test_a_video_decoder_lets_go_of_the_caches_of_the_frames_before():
    """CogVideoX's decoder returns its caches: those that a call was given are gone when the next is done."""
    (decoder,) = (phase for phase in workload_trace("cogvideox-2b").phases if phase.name == "decoder")
    operators = [op for step in decoder.steps for op in step.operators]
    made = {
        op.outputs[0].tensor for op in operators if op.op == "aten::clone" and op.module.endswith("conv2")
    }
    released = {tensor for op in operators for tensor in op.released}
    assert len(made - released) < 0.25 * len(made)
