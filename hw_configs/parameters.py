"""The fitted groups of every kernel family: what each parameter is called, in groups by kernel library.

Their bounds, meaning, values and sources stand in families/NAME.yaml, a file a family; a device file states as
`group.name` what differs on that device. `calibrate` can move every one of them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from simtti.hw_configs.collective_parameters import Collectives
from simtti.hw_configs.convolution_parameters import (
    CONV_SEGMENTED_TILES,
    CONV_TILES,
    ConvChoice,
    ConvDepthwise,
    ConvDepthwiseNhwc,
    ConvDirect,
    ConvGroups,
    ConvLayout,
    ConvMma,
    ConvPersistent,
    ConvSegmented,
    ConvSgemm,
    ConvSplitK,
    ConvTile,
    ConvWarpgroups,
    ConvWinograd,
)
from simtti.hw_configs.low_precision_parameters import Promotion, QuantizeStyle, ScaledHost
from simtti.hw_configs.normalization_parameters import (
    GroupNormStyle,
    ReductionStyle,
    RowNormStyle,
    SoftmaxStyle,
)


class GemmStyle(NamedTuple):
    """What all tiles of one generation of GEMM kernels share."""

    fill_cost: float
    setup_cycles: float
    cluster_cycles: float
    step_cycles: float
    epilogue_bytes_per_cycle: float
    multicast: float
    read_efficiency: float
    write_efficiency: float
    exposed_fill: float
    chain_cycles: float
    reuse_preference: float
    most_padding: float
    most_flops_per_cycle: float


class SplitProducts(NamedTuple):
    """Products whose k is split, and the kernel that sums the parts."""

    least_steps: float
    most_slices: float
    most_waves: float
    reduction_loads: float
    reduction_latency_s: float


class ProductLaunch(NamedTuple):
    """What surrounds a product that is launched by itself."""

    start_s: float
    cold_s: float
    bias_s: float
    counter_waves: float
    persistent_tiles: float
    loss_power: float


class CudaCoreProducts(NamedTuple):
    """Products on the CUDA cores."""

    efficiency: float
    overhead_slots: float


class TinyProducts(NamedTuple):
    """Batched products of matrices with a side up to 16, a warp to each tile."""

    most_macs: float
    thread_slots: float
    efficiency: float
    latency_s: float


class VectorProducts(NamedTuple):
    """Products of a matrix and a vector."""

    latency_cycles: float
    efficiency: float
    conversion_flops: float
    loads_in_flight: float


class PackedProducts(NamedTuple):
    """Products with weights of four bits that each tile unpacks for itself."""

    step_slots: float
    registers: float
    efficiency: float
    latency_cycles: float


class AttentionStyle(NamedTuple):
    """How a fused attention library's kernels spend their time."""

    exposed: float
    tensor_share: float
    softmax_slots: float
    setup_cycles: float
    row_cycles: float
    step_cycles: float
    fill_cost: float
    edge_bytes_per_cycle: float
    ragged_row_cycles: float
    ragged_key_cycles: float
    exposed_loads: float
    helper_latency_s: float


class AddedMask(NamedTuple):
    """What a mask that is added to the scores costs a fused attention kernel: issue slots a score."""

    slots: float


class WarpIssue(NamedTuple):
    """How fast warps issue mma.sync between their loads from shared memory, in attention kernels."""

    flops_per_cycle: float
    flops_per_warp_cycle: float


class SplitKeys(NamedTuple):
    """What surrounds attention kernels: parts of split keys, repacked operands."""

    partial_bytes_per_cycle: float
    combine_latency_s: float
    static_combine_latency_s: float
    repack_latency_s: float
    combine_loads: float


class ExactProducts(NamedTuple):
    """Batched products in fp32 without TF32, as PyTorch's math attention makes them."""

    efficiency: float
    element_slots: float
    setup_s: float
    step_cycles: float
    side_slots: float
    hbm_stall: float
    small_step_slots: float
    small_batches: float


class HostLinkStyle(NamedTuple):
    """What copies of weights attain on the link to the host, from memory of either kind."""

    pinned_efficiency: float
    pageable_bytes_per_s: float


class L2Costs(NamedTuple):
    """What accesses cost of L2's bandwidth."""

    write: float
    scattered_bytes: float
    lone_sector_bytes: float
    spill_from: float
    translated_bytes: float
    translation_bytes: float
    miss_s: float


class ElementwiseStyle(NamedTuple):
    """What the threads of TensorIterator's kernels spend beside arithmetic."""

    thread_slots: float
    load_slots: float
    index_element_slots: float
    index_dimension_slots: float
    index_operand_slots: float
    in_place_slots: float
    cast_slots: float
    unrolled_element_slots: float
    index_stall: float
    in_place_stall: float
    cast_stall: float
    index_latency_s: float
    cast_latency_s: float
    cast_chain_s: float


class FunctionSlots(NamedTuple):
    """What functions of one element cost in instructions."""

    gelu: float
    gelu_tanh: float
    silu: float
    sigmoid: float
    tanh: float
    exp: float
    log: float
    sin: float
    cos: float
    rsqrt: float
    sqrt: float
    reciprocal: float
    div: float
    pow: float
    elu: float
    softplus: float


# ---- convolution


class MemcpyStyle(NamedTuple):
    """What the driver's copy and set kernels spend."""

    thread_slots: float


class CatStyle(NamedTuple):
    """What PyTorch's kernels for `cat` spend."""

    dense_slots: float
    strided_slots: float
    aligned_slots: float
    stall: float
    latency_s: float
    vector_slots: float
    vector_latency_s: float


class UpsampleStyle(NamedTuple):
    """What kernels spend whose threads each find their output's source by division."""

    element_slots: float
    stall: float
    latency_s: float
    channels_last_slots: float
    volume_slots: float
    replication_slots: float
    pool_slots: float
    pool_channels_last_slots: float


class GatherStyle(NamedTuple):
    """What PyTorch's look-ups of rows spend."""

    element_slots: float
    latency_s: float
    vector_slots: float
    vector_latency_s: float
    ctas_per_cycle: float


class FusedStyle(NamedTuple):
    """What the kernels that TorchInductor fuses spend."""

    element_slots: float
    operator_slots: float
    row_elements: float
    registers: float


class Group(NamedTuple):
    """A group of parameters: its fields, and the group whose value stands where it states none."""

    style: type[tuple[Any, ...]]
    inherits: str = ""


# The names stand before the dot in a device file. Groups of attention libraries are named in families/attention.yaml, beside
# their values: a library is a record (kernels/libraries.py) and a group.
GROUPS: dict[str, Group] = {
    "gemm_mma": Group(GemmStyle),
    "gemm_unaligned": Group(GemmStyle, inherits="gemm_mma"),
    "gemm_by_element": Group(GemmStyle, inherits="gemm_mma"),
    "gemm_wgmma": Group(GemmStyle),
    "gemm_xmma": Group(GemmStyle),
    "gemm_split": Group(SplitProducts),
    "gemm_launch": Group(ProductLaunch),
    "gemm_cuda_cores": Group(CudaCoreProducts),
    "gemm_tiny": Group(TinyProducts),
    "gemm_vector": Group(VectorProducts),
    "gemm_packed": Group(PackedProducts),
    "scaled_fp8": Group(GemmStyle),
    "scaled_block": Group(GemmStyle, inherits="scaled_fp8"),
    "scaled_fp4": Group(GemmStyle, inherits="scaled_fp8"),
    "scaled_host": Group(ScaledHost),
    "scaled_promotion": Group(Promotion),
    "quantize_static": Group(QuantizeStyle),
    "quantize_token": Group(QuantizeStyle),
    "quantize_linear": Group(QuantizeStyle),
    "quantize_group": Group(QuantizeStyle),
    "quantize_fp4": Group(QuantizeStyle),
    "attention_mma": Group(WarpIssue),
    "attention_mask": Group(AddedMask),
    "attention_parts": Group(SplitKeys),
    "exact_products": Group(ExactProducts),
    "collectives": Group(Collectives),
    "collectives_direct": Group(Collectives, inherits="collectives"),
    "collectives_host": Group(Collectives),
    "collectives_staged": Group(Collectives, inherits="collectives_host"),
    "host_link": Group(HostLinkStyle),
    "l2_costs": Group(L2Costs),
    "elementwise": Group(ElementwiseStyle),
    "functions": Group(FunctionSlots),
    "conv_mma": Group(ConvMma),
    "conv_mma_registers": Group(ConvMma),
    "conv_wgmma": Group(ConvPersistent),
    "conv_warpgroups": Group(ConvWarpgroups),
    "conv_tcgen05": Group(ConvPersistent),
    **{f"conv_{tile}": Group(ConvTile) for tile in CONV_TILES},
    **{f"conv_{tile}": Group(ConvSegmented) for tile in CONV_SEGMENTED_TILES},
    "conv_choice": Group(ConvChoice),
    "conv_split_k": Group(ConvSplitK),
    "conv_sgemm": Group(ConvSgemm),
    "conv_winograd": Group(ConvWinograd),
    "conv_layout": Group(ConvLayout),
    "conv_direct": Group(ConvDirect),
    "conv_depthwise": Group(ConvDepthwise),
    "conv_depthwise_nhwc": Group(ConvDepthwiseNhwc),
    "conv_groups": Group(ConvGroups),
    "group_norm": Group(GroupNormStyle),
    "layer_norm": Group(RowNormStyle),
    "rms_norm": Group(RowNormStyle),
    "softmax": Group(SoftmaxStyle),
    "reduction": Group(ReductionStyle),
    "memcpy": Group(MemcpyStyle),
    "cat": Group(CatStyle),
    "upsample": Group(UpsampleStyle),
    "embedding": Group(GatherStyle),
    "fused": Group(FusedStyle),
}


class Groups:
    """The groups as attributes of a device (`Hardware` fills them): `hardware.gemm_mma.fill_cost`."""

    __slots__ = ()
    gemm_mma: GemmStyle
    gemm_unaligned: GemmStyle
    gemm_by_element: GemmStyle
    gemm_wgmma: GemmStyle
    gemm_xmma: GemmStyle
    gemm_split: SplitProducts
    gemm_launch: ProductLaunch
    gemm_cuda_cores: CudaCoreProducts
    gemm_tiny: TinyProducts
    gemm_vector: VectorProducts
    gemm_packed: PackedProducts
    scaled_fp8: GemmStyle
    scaled_block: GemmStyle
    scaled_fp4: GemmStyle
    scaled_host: ScaledHost
    scaled_promotion: Promotion
    quantize_static: QuantizeStyle
    quantize_token: QuantizeStyle
    quantize_linear: QuantizeStyle
    quantize_group: QuantizeStyle
    quantize_fp4: QuantizeStyle
    attention_mma: WarpIssue
    attention_mask: AddedMask
    attention_parts: SplitKeys
    exact_products: ExactProducts
    collectives: Collectives
    collectives_direct: Collectives
    collectives_host: Collectives
    collectives_staged: Collectives
    host_link: HostLinkStyle
    l2_costs: L2Costs
    elementwise: ElementwiseStyle
    functions: FunctionSlots
    conv_mma: ConvMma
    conv_mma_registers: ConvMma
    conv_wgmma: ConvPersistent
    conv_warpgroups: ConvWarpgroups
    conv_tcgen05: ConvPersistent
    conv_choice: ConvChoice
    conv_split_k: ConvSplitK
    conv_sgemm: ConvSgemm
    conv_winograd: ConvWinograd
    conv_layout: ConvLayout
    conv_direct: ConvDirect
    conv_depthwise: ConvDepthwise
    conv_depthwise_nhwc: ConvDepthwiseNhwc
    conv_groups: ConvGroups
    group_norm: GroupNormStyle
    layer_norm: RowNormStyle
    rms_norm: RowNormStyle
    softmax: SoftmaxStyle
    reduction: ReductionStyle
    memcpy: MemcpyStyle
    cat: CatStyle
    upsample: UpsampleStyle
    embedding: GatherStyle
    fused: FusedStyle
