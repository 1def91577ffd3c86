"""The table of operators, against torch: what is composite, pointwise, a view, and what arguments are called."""

import pytest

from simtti.workloads import aten, aten_results
from simtti.workloads.aten import OPERATORS
from simtti.workloads.trace import CATEGORIES


def overloads(name):
    """torch's overloads of an operator, in-place ones too; none where this version of torch lacks it."""
    torch = pytest.importorskip("torch")
    packets = [getattr(torch.ops.aten, spelled, None) for spelled in (name, f"{name}_")]
    return [getattr(packet, overload) for packet in packets if packet for overload in packet.overloads()]


def test_categories_are_those_of_a_trace():
    assert {known.category for known in OPERATORS.values()} <= set(CATEGORIES)
    assert all(known.is_view for known in OPERATORS.values() if known.allocates)


@pytest.mark.parametrize(
    ("name", "category"),
    [
        ("aten::add_", "Elementwise"),
        ("aten::_to_copy", "Memory"),
        ("aten::miopen_convolution", "Convolution"),
        ("flash_attn::_flash_attn_forward", "Attention"),
        ("aten::sort", "Other"),
    ],
)
def test_an_operator_is_found_by_any_of_its_names(name, category):
    assert aten.operator(name).category == category


def test_arguments_that_change_the_work():
    norm, copy = OPERATORS["native_group_norm"], OPERATORS["_to_copy"]
    assert [norm.argument(name) for name in ("group", "eps", "device")] == ["num_groups", "eps", ""]
    assert norm.argument_at(6) == "num_groups"
    assert [copy.argument_at(i) for i in (1, 2, 6, 7)] == ["dtype", "", "memory_format", ""]


def test_composites_are_what_torch_takes_apart():
    torch = pytest.importorskip("torch")
    composite = {
        name.removeprefix("aten::").partition(".")[0].rstrip("_")
        for name in torch._C._dispatch_get_all_op_names()
        if torch._C._dispatch_has_kernel_for_dispatch_key(name, "CompositeImplicitAutograd")
    }
    assert {name.rstrip("_") for name, known in OPERATORS.items() if known.composite} <= composite


def test_what_is_elementwise_torch_calls_pointwise():
    torch = pytest.importorskip("torch")
    for name, known in OPERATORS.items():
        if known.result in (aten_results.broadcast, aten_results.compared) and name != "hardswish":
            assert torch.Tag.pointwise in {tag for overload in overloads(name) for tag in overload.tags}, name


def test_arguments_are_torchs():
    """By name, in the order of one overload; what Kineto numbers alike may stand for several ('scales')."""
    for name, known in OPERATORS.items():
        ours = tuple(argument.partition("=")[0] for argument in known.arguments)
        if not ours or name.startswith("upsample"):
            continue
        spelled = [tuple(argument.name for argument in found._schema.arguments) for found in overloads(name)]
        assert any(names[1 : len(ours)] == ours[1:] for names in spelled), (name, ours, spelled)


def test_what_torch_marks_as_a_view_is_one():
    """By the aliases in its signature: a result that shares an operand's memory without writing to it."""
    for name, known in OPERATORS.items():
        for found in overloads(name):
            schema = found._schema
            shares = any(result.alias_info is not None for result in schema.returns)
            if shares and not schema.is_mutable and not known.composite:
                assert known.is_view, name
