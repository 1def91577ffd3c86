"""The table of aten operators: what each is, by name. The recorder, the import of profiles and tests read this one.

    operator("aten::add_").category            # 'Elementwise'
    operator("aten::native_group_norm").argument("group")   # 'num_groups'

Needs no torch. What torch knows of an operator that is not here (whether it is pointwise), the recorder asks torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from simtti.workloads import aten_results as results
from simtti.workloads.aten_results import Rule

ATTENTION = "scaled_dot_product_attention"
# Kernels of attention, by the operator that torch takes it apart into.
ATTENTION_BACKENDS = {
    "_scaled_dot_product_flash_attention": "flash", "_scaled_dot_product_efficient_attention": "efficient",
    "_scaled_dot_product_cudnn_attention": "cudnn", "_scaled_dot_product_attention_math": "math",
    "_scaled_dot_product_flash_attention_for_cpu": "flash", "_scaled_dot_product_fused_attention_overrideable": "fused",
}  # fmt: skip
# Arguments of any operator that do not change the work.
IGNORED_ARGUMENTS = frozenset(("device", "layout", "pin_memory", "generator", "non_blocking", "names"))


@dataclass(frozen=True, slots=True)
class AtenOperator:
    """One operator of aten.

    name: without 'aten::' and without the '_' of the in-place form.
    category: one of `trace.CATEGORIES`; of a view, what it is where it does launch a kernel.
    is_view: it launches nothing: it looks at what is there, or allocates.
    allocates: it is a view of nothing: fresh memory, not written.
    composite: torch takes it apart before any backend sees it (CompositeImplicitAutograd), so that a recording holds
        what it calls.
    arguments: torch's names by position; 'theirs=ours' where a trace names one otherwise. () where nobody asked yet.
    result: the rule for what it makes; None where a call's arguments do not say.
    by_shapes: whether its operands' shapes are enough for that rule, without the arguments that are no tensors.
    """

    name: str
    category: str = "Other"
    is_view: bool = False
    allocates: bool = False
    composite: bool = False
    arguments: tuple[str, ...] = ()
    result: Rule | None = None
    by_shapes: bool = False

    def argument(self, theirs: str) -> str:
        """A trace's name of the argument that torch calls `theirs`; '' if it does not change the work."""
        if theirs in IGNORED_ARGUMENTS:
            return ""
        renamed = (pair.partition("=") for pair in self.arguments if "=" in pair)
        return next((ours for name, _, ours in renamed if name == theirs), theirs)

    def argument_at(self, position: int) -> str:
        """The same, by position; '' beyond those that are known."""
        if position >= len(self.arguments):
            return ""
        return self.argument(self.arguments[position].partition("=")[0])


def _each(
    category: str,
    names: str,
    arguments: str = "",
    result: Rule | None = None,
    *,
    by_shapes: bool = False,
    composite: bool = False,
) -> Iterator[AtenOperator]:
    """Operators that are alike but for their names."""
    for name in names.split():
        yield AtenOperator(
            name, category, arguments=tuple(arguments.split()), result=result, by_shapes=by_shapes,
            composite=composite,
        )  # fmt: skip


def _views(names: str, arguments: str = "") -> Iterator[AtenOperator]:
    for name in names.split():
        yield AtenOperator(name, "Memory", is_view=True, arguments=tuple(arguments.split()))


def _allocations(names: str, arguments: str = "", result: Rule | None = None) -> Iterator[AtenOperator]:
    for name in names.split():
        yield AtenOperator(
            name, "Memory", is_view=True, allocates=True, arguments=tuple(arguments.split()), result=result
        )


_FACTORY = "dtype layout device pin_memory"
_CONVOLUTION = "input weight bias stride padding dilation transposed output_padding groups"

OPERATORS: dict[str, AtenOperator] = {
    found.name: found
    for found in (
        *_each("Convolution", "convolution _convolution", _CONVOLUTION, results.convolved),
        *_each("Convolution", "_slow_conv2d_forward conv_depthwise3d _conv_depthwise2d"),
        *_each("Linear", "mm bmm mv", "", results.product, by_shapes=True),
        *_each("Linear", "addmm", "self mat1 mat2 beta alpha", results.product, by_shapes=True),
        *_each("Linear", "baddbmm", "self batch1 batch2 beta alpha", results.product, by_shapes=True),
        *_each("Linear", "addbmm addmv dot _addmm_activation"),
        *_each(
            "Linear", "_scaled_mm", "self mat2 scale_a scale_b bias scale_result out_dtype=dtype use_fast_accum",
            results.scaled_product, by_shapes=True,
        ),
        *_each("Linear", "_int_mm", "self mat2", results.integer_product, by_shapes=True),
        *_each("Linear", "_weight_int4pack_mm", "self mat2 qGroupSize qScaleAndZeros"),
        *_each("Linear", "linear", composite=True),
        *_each(
            "Attention", ATTENTION, "query key value attn_mask dropout_p is_causal=causal scale enable_gqa",
            results.attended, by_shapes=True,
        ),
        *_each(
            "GroupNorm", "native_group_norm", "input weight bias N C HxW group=num_groups eps", results.alike,
            by_shapes=True,
        ),
        *_each(
            "LayerNorm", "native_layer_norm", "input normalized_shape weight bias eps", results.alike, by_shapes=True,
        ),
        *_each("LayerNorm", "_fused_rms_norm", "", results.alike, by_shapes=True),
        *_each("LayerNorm", "rms_norm", composite=True),
        *_each("Softmax", "_softmax _log_softmax", "self dim half_to_float", results.alike, by_shapes=True),
        *_each("Softmax", "_safe_softmax", "self dim dtype", results.alike, by_shapes=True),
        # Each element of the result of one element of each operand.
        *_each("Elementwise", "add sub rsub", "self other alpha", results.broadcast, by_shapes=True),
        *_each("Elementwise", "mul", "self other", results.broadcast, by_shapes=True),
        *_each("Elementwise", "div", "self other rounding_mode", results.broadcast, by_shapes=True),
        *_each("Elementwise", "pow", "self exponent", results.broadcast, by_shapes=True),
        *_each("Elementwise", "clamp", "self min max", results.broadcast, by_shapes=True),
        *_each("Elementwise", "gelu", "self approximate", results.broadcast, by_shapes=True),
        *_each(
            "Elementwise",
            "abs addcdiv addcmul atan2 bitwise_and bitwise_not bitwise_or bitwise_xor ceil clamp_max clamp_min cos "
            "cosh elu erf exp exp2 expm1 floor fmod gelu_backward hardsigmoid hardswish hardtanh leaky_relu lerp log "
            "log10 log1p log2 maximum minimum mish nan_to_num neg reciprocal relu remainder round rsqrt sgn sigmoid "
            "sigmoid_backward sign silu silu_backward sin sinh softplus sqrt tan tanh tanh_backward threshold "
            "threshold_backward trunc xlogy fmax fmin",
            "", results.broadcast, by_shapes=True,
        ),
        *_each(
            "Elementwise",
            "eq ge gt isinf isnan isneginf isposinf le logical_and logical_not logical_or lt ne",
            "", results.compared, by_shapes=True,
        ),
        *_each("Elementwise", "where", "", results.chosen, by_shapes=True),
        *_each("Elementwise", "native_dropout", "", results.alike, by_shapes=True),
        *_each("Elementwise", "randn rand randint normal uniform bernoulli"),
        # What is moved or filled.
        *_each("Memory", "clone", "self memory_format", results.alike, by_shapes=True),
        *_each(
            "Memory", "_to_copy", "self dtype layout device pin_memory non_blocking memory_format", results.alike,
        ),
        *_each("Memory", "copy", "self src non_blocking"),
        *_each("Memory", "cat", "tensors dim", results.joined),
        *_each("Memory", "stack", "tensors dim"),
        *_each("Memory", "repeat", "self repeats", results.repeated),
        *_each("Memory", "constant_pad_nd", "self pad value", results.padded),
        *_each(
            "Memory", "upsample_nearest1d upsample_nearest2d upsample_nearest3d", "self output_size scales",
            results.resized,
        ),
        *_each(
            "Memory", "embedding", "weight indices padding_idx scale_grad_by_freq sparse", results.embedded,
            by_shapes=True,
        ),
        *_each("Memory", "index_select", "self dim index"),
        *_each("Memory", "zeros ones", f"size {_FACTORY}", results.made),
        *_each("Memory", "full", f"size fill_value {_FACTORY}", results.made),
        *_each("Memory", "masked_fill zeros_like ones_like tril triu", "", results.alike, by_shapes=True),
        *_each(
            "Memory",
            "reflection_pad2d replication_pad2d replication_pad3d _upsample_nearest_exact2d upsample_bilinear2d "
            "upsample_bicubic2d pixel_shuffle pixel_unshuffle index index_put gather scatter roll flip arange full_like "
            "zero fill new_zeros new_ones new_full scalar_tensor eye linspace slice_scatter select_scatter "
            "_local_scalar_dense _index_put_impl",
        ),
        # Reductions and the like: no family of their own among the categories.
        *_each("Other", "mean sum", "self dim keepdim dtype", results.reduced),
        *_each("Other", "amax amin", "self dim keepdim", results.reduced),
        *_each("Other", "all any", "self dim keepdim", results.tested),
        *_each("Other", "argmax argmin", "self dim keepdim", results.placed),
        *_each("Other", "cumsum", "", results.alike, by_shapes=True),
        *_each("Other", "max_pool2d_with_indices", "self kernel_size stride padding dilation ceil_mode"),
        # What launches nothing.
        *_views("view _unsafe_view", "self size"),
        *_views("expand", "self size implicit"),
        *_views("transpose", "self dim0 dim1"),
        *_views("permute", "self dims"),
        *_views("unsqueeze squeeze", "self dim"),
        *_views("slice", "self dim start end step"),
        *_views("select", "self dim index"),
        *_views("split", "self split_size dim"),
        *_views("split_with_sizes", "self split_sizes dim"),
        *_views(
            "_conj _reshape_alias _unsafe_split alias as_strided detach diagonal imag lift_fresh real resize set t "
            "unbind unfold view_as_complex view_as_real"
        ),
        *_allocations("empty", f"size {_FACTORY} memory_format", results.made),
        *_allocations("empty_like empty_permuted empty_strided new_empty new_empty_strided"),
        # What gives way to what it calls.
        AtenOperator("numpy_T", "Memory", is_view=True, composite=True),
        *_each("Convolution", "_convolution_mode", composite=True),
        *_each(
            "Other",
            "_batch_norm_impl_index _cast_Float _cast_Half _cast_Long _pad_circular _pad_enum _weight_norm "
            "adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d alpha_dropout arctan2 argsort atleast_1d "
            "atleast_2d atleast_3d batch_norm bilinear broadcast_tensors broadcast_to chunk clip column_stack concat "
            "concatenate conj contiguous conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d "
            "cosine_similarity cross_entropy_loss diff divide dropout dsplit dstack einsum embedding_backward "
            "embedding_bag expand_as feature_dropout fix flatten fliplr flipud float_power greater greater_equal "
            "grid_sampler group_norm gru hsplit hstack inner instance_norm is_nonzero isfinite item kron layer_norm "
            "less less_equal log_sigmoid log_softmax lstm matmul matrix_power max_pool1d max_pool2d max_pool3d "
            "meshgrid moveaxis movedim multiply narrow negative nll_loss nll_loss2d nll_loss_nd not_equal one_hot "
            "outer pad pad_sequence pairwise_distance prelu ravel relu6 reshape reshape_as resolve_conj resolve_neg "
            "selu softmax square subtract sum_to_size swapaxes swapdims take_along_dim tensor_split tensordot tile to "
            "true_divide type_as unflatten unsafe_chunk view_as vsplit vstack",
            composite=True,
        ),
    )
}  # fmt: skip


@lru_cache(maxsize=4096)
def operator(name: str) -> AtenOperator:
    """The operator of that name, with or without 'aten::' and the '_' of the in-place form.

    One that is not in the table, of aten or of another library, gets its category by its name.
    """
    base = _base(name)
    if base in OPERATORS:
        return OPERATORS[base]
    if "convolution" in base:
        return AtenOperator(base, "Convolution")
    attends = (
        re.search(r"attention|flash_attn|::fmha|sage\w*::.*attn|xformers\w*::.*(fwd|forward)", name)
        is not None
    )
    return AtenOperator(base, "Attention" if attends else "Other")


@lru_cache(maxsize=4096)
def gives_way(name: str) -> bool:
    """Whether what an operator calls counts in its place: composites, autograd nodes, annotations."""
    if name.startswith("aten::"):
        return operator(name).composite
    return "::" not in name or name.startswith("autograd::")


def _base(name: str) -> str:
    """The name in the table: names of other libraries ('flash_attn::_flash_attn_forward') stay whole."""
    name = name.removeprefix("aten::")
    return name if name.startswith("_") or "::" in name else name.rstrip("_")
