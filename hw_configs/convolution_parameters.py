"""Parameters of the convolution kernels, a group each; `parameters` has them all, hw_configs/families/convolution.yaml their bounds
and values."""

from __future__ import annotations

from typing import NamedTuple


class ConvMma(NamedTuple):
    """cuDNN's mma.sync kernels of one generation: a tile a CTA."""

    flops_per_cycle: float
    efficiency: float
    latency_s: float
    l2_share: float
    row_bytes: float


class ConvPersistent(NamedTuple):
    """cuDNN's persistent kernels of one generation: a CTA works through many tiles."""

    efficiency: float
    latency_s: float
    tile_latency_s: float


class ConvWarpgroups(NamedTuple):
    """What Hopper's persistent kernels spend where warpgroups share a tile, or CTAs the steps of one; five_share: of the SMs, what
    clusters of five CTAs fill."""

    cooperative_tile_latency_s: float
    segment_latency_s: float
    cooperative_segment_latency_s: float
    segment_start_s: float
    five_share: float


class ConvTile(NamedTuple):
    """What one tile of the persistent kernels has of its own."""

    l2_share: float
    sm_share: float
    tensor_share: float
    planar_preference: float
    spatial_preference: float
    frames_preference: float
    temporal_preference: float
    other_preference: float


# Each has a group of its own, as `implicit_gemm_choice` names it.
CONV_TILES = (
    "sm90_64x64", "sm90_64x128", "sm90_64x192", "sm90_128x64", "sm90_128x128", "sm90_128x192", "sm90_128x256", "sm90_256x64",
    "sm90_256x96", "sm90_256x128", "sm100_128x256", "sm100_128x128", "sm100_128x64",
)  # fmt: skip
CONV_SEGMENTED_TILES = ("sm90_segmented_128x64", "sm90_segmented_128x128", "sm90_segmented_256x128")


class ConvSegmented(NamedTuple):
    """How gladly a tile's kernel that deals out steps instead of tiles is taken."""

    planar_preference: float
    spatial_preference: float
    frames_preference: float
    temporal_preference: float
    other_preference: float


class ConvChoice(NamedTuple):
    """The rules that stand for cuDNN's heuristic, as far as traces show them."""

    cuda_core_channels: float
    sm80_planar_preference: float
    sm80_spatial_preference: float
    sm80_frames_preference: float
    sm80_temporal_preference: float
    sm80_other_preference: float
    sm80_tall_preference: float
    sm80_small_preference: float
    sm80_slim_preference: float
    sm80_256x32_spatial_preference: float
    few_frames: float
    few_frames_channels: float
    planar_channels: float
    pointwise_gemm: float
    tuned_rows: float


class ConvSplitK(NamedTuple):
    """Convolutions of few tiles: when the k loop is split over CTAs, and the kernel that adds up the parts."""

    min_steps: float
    max_share: float
    cta_outputs: float
    output_slots: float
    part_slots: float
    latency_s: float


class ConvSgemm(NamedTuple):
    """Implicit GEMM on the CUDA cores."""

    efficiency: float
    overhead_slots: float
    output_slots: float
    latency_s: float


class ConvWinograd(NamedTuple):
    """Winograd on the CUDA cores: F(2x2) in one kernel, F(4x4) between transforms."""

    efficiency: float
    gemm_efficiency: float
    latency_s: float
    element_slots: float
    transform_cta_elements: float
    transform_latency_s: float


class ConvLayout(NamedTuple):
    """Kernels that change a convolution's operands between NCHW and NHWC, or pad their channels."""

    to_nhwc_slots: float
    to_nchw_slots: float
    half_line_efficiency: float
    to_nchw_efficiency: float
    to_nhwc_stall: float
    to_nchw_stall: float
    to_nchw_in_flight: float
    l2_share: float
    latency_s: float
    pad_slots: float
    pad_latency_s: float
    pad_cta_bytes: float
    pad_threads: float
    pad_registers: float


class ConvDirect(NamedTuple):
    """cuDNN's direct kernel on the CUDA cores, for a handful of channels."""

    product_slots: float
    output_slots: float
    latency_s: float
    nhwc_latency_s: float


class ConvDepthwise(NamedTuple):
    """PyTorch's depthwise kernel."""

    tap_slots: float
    output_slots: float
    latency_s: float
    threads: float
    registers: float


class ConvDepthwiseNhwc(NamedTuple):
    """cuDNN's depthwise kernel of channels-last tensors."""

    tap_slots: float
    output_slots: float
    row_latency_s: float


class ConvGroups(NamedTuple):
    """cuDNN's way with the groups of channels-last tensors: one after another, between slices."""

    in_turn: float
    tall_ctas: float
    slice_slots: float
    latency_s: float
    output_latency_s: float
