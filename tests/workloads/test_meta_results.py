"""Results on the meta device that are answered from memory: as torch gives them, and only where shapes decide."""

import pytest

torch = pytest.importorskip("torch")
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

from simtti.workloads.meta_results import MetaResults  # noqa: E402


class Counted(TorchDispatchMode):
    """What reaches torch."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen.append(func._schema.name.removeprefix("aten::"))
        return func(*args, **(kwargs or {}))


def form(tensor):
    return tensor.shape, tensor.stride(), tensor.dtype, tensor.device.type, tensor.untyped_storage().nbytes()


def meta(*shape, dtype=torch.float16, **kwargs):
    return torch.empty(*shape, dtype=dtype, device="meta", **kwargs)


def calls():
    """Pairs that differ in one thing each, and a network's operators."""
    image = meta(2, 64, 8, 8)
    last = image.to(memory_format=torch.channels_last)
    whole = meta(3, dtype=torch.int64)
    weight = meta(64, 64, 3, 3)
    yield lambda: image + 1
    yield lambda: last + 1
    yield lambda: image + last
    yield lambda: last + image
    yield lambda: image + image.float()
    yield lambda: whole + 1
    yield lambda: whole + 1.0
    yield lambda: whole + True
    yield lambda: image.transpose(2, 3) * 2
    yield lambda: image[:, :1] * image
    yield lambda: torch.nn.functional.conv2d(image, weight, padding=1)
    yield lambda: torch.nn.functional.conv2d(image, weight, padding=0)
    yield lambda: torch.nn.functional.group_norm(image, 32)
    yield lambda: torch.nn.functional.layer_norm(image, (8, 8))
    yield lambda: torch.cat([image, last], dim=1)
    yield lambda: torch.cat([image, last], dim=0)
    yield lambda: torch.softmax(image, dim=-1, dtype=torch.float32)
    yield lambda: image.flatten(2).transpose(1, 2) @ meta(64, 32)
    yield lambda: image.float().max(dim=1).indices
    yield lambda: image.bool().logical_not()


def test_a_call_gives_what_torch_gives_and_is_worked_out_once():
    expected = [form(call()) for call in calls()]
    with Counted() as counted, MetaResults():
        ours = list(calls())
        assert [form(call()) for call in ours] == expected
        before = len(counted.seen)
        assert [form(call()) for call in ours] == expected
    # Views are torch's own each time, and memory is asked for anew.
    assert set(counted.seen[before:]) <= {
        "empty", "empty_strided", "view", "transpose", "slice", "_unsafe_view", "expand", "permute", "t", "unsqueeze",
    }  # fmt: skip


def test_the_default_dtype_decides_with_the_shapes():
    whole = meta(3, dtype=torch.int64)
    with MetaResults():
        assert (whole / 2).dtype == torch.float32
        torch.set_default_dtype(torch.float64)
        try:
            assert (whole / 2).dtype == torch.float64
        finally:
            torch.set_default_dtype(torch.float32)


def test_each_result_is_memory_of_its_own_and_views_are_not():
    image = meta(2, 4)
    with MetaResults():
        first, second = image + 1, image + 1
        storages = {one.untyped_storage()._cdata for one in (image, first, second)}
        assert len(storages) == 3
        assert image.view(8).untyped_storage()._cdata == image.view(8).untyped_storage()._cdata in storages
        assert image.add_(1) is image
        assert image.add_(1) is image


def test_values_are_torchs_own():
    numbers = torch.arange(4.0)
    with MetaResults():
        for factor in (1.0, 2.0):
            assert (numbers * factor).tolist() == [0, factor, 2 * factor, 3 * factor]
            numbers = numbers + 0  # as many, other memory
        assert (meta(3) * torch.tensor(2.0)).device.type == "meta"


def test_a_mode_above_sees_every_call():
    image = meta(2, 4)
    with MetaResults(), Counted() as counted:
        for _ in range(3):
            image + 1
    assert counted.seen == ["add"] * 3
