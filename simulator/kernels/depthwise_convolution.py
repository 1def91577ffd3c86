"""Depthwise convolution: each channel's own filter, products of the CUDA cores.

- NCHW: PyTorch's own kernel (native/cuda/DepthwiseConv2d.cu), a thread an output, which adds the bias itself.
- Channels last: PyTorch hands it to cuDNN, whatever the shape (`use_cudnn_depthwise` in native/Convolution.cpp), which takes
  `conv2d_c1_k1_nhwc`: CTAs of 1,024 outputs, filters in registers. The bias is another kernel's. Seen in 16 bits, in two dimensions.

What is fitted stands in hw_configs/families/convolution.yaml (conv_depthwise, conv_depthwise_nhwc).
"""

from __future__ import annotations

from dataclasses import dataclass

from simtti.hw_configs.hardware import Hardware
from simtti.simulator.kernel import Access, Kernel

# exact: threads and outputs of a CTA of conv2d_c1_k1_nhwc by its grids in captures of our own H100 and H200
NHWC_THREADS, NHWC_CTA_OUTPUTS = 256, 1024  # exact: see above
# exact: its registers by filter there, 40 of 3x3, 80 of 5x5 and 128 of 7x7: these and one of each tap and its input
NHWC_REGISTERS, NHWC_TAP_REGISTERS = 20, 2.2  # exact: see above
MOST_REGISTERS = 255  # exact: of a thread (CUDA C++ Programming Guide, compute capabilities)


@dataclass(frozen=True, slots=True)
class Depthwise:
    """`outputs` elements of all channels, each the sum of `taps` products in `rows` rows of the filter."""

    outputs: int
    taps: int
    rows: int
    reads: tuple[Access, Access]
    write: Access

    @property
    def flops(self) -> float:
        return 2.0 * self.outputs * self.taps


def pytorch_depthwise(problem: Depthwise, hardware: Hardware) -> Kernel:
    """PyTorch's kernel: a thread an output element, its taps read one after another."""
    style = hardware.conv_depthwise
    grid = -(-problem.outputs // int(style.threads))
    thread_slots = style.output_slots + style.tap_slots * problem.taps
    return Kernel(
        name="conv_depthwise_forward_kernel",
        family="convolution",
        grid=grid,
        threads=int(style.threads),
        registers=int(style.registers),
        issue_slots=min(problem.outputs, style.threads) * thread_slots,
        l2_bytes=(problem.reads[0].nbytes + problem.write.nbytes) / grid,
        latency_s=hardware.hbm_latency_s + style.latency_s,
        reads=problem.reads,
        writes=(problem.write,),
        flops=problem.flops,
    )


def cudnn_depthwise(problem: Depthwise, hardware: Hardware) -> Kernel:
    """conv2d_c1_k1_nhwc: a row of the filter after another, each waiting for its inputs."""
    style = hardware.conv_depthwise_nhwc
    grid = -(-problem.outputs // NHWC_CTA_OUTPUTS)
    output_slots = style.output_slots + style.tap_slots * problem.taps
    registers = int(NHWC_REGISTERS + NHWC_TAP_REGISTERS * problem.taps)
    return Kernel(
        name="conv2d_c1_k1_nhwc",
        family="convolution",
        grid=grid,
        threads=NHWC_THREADS,
        registers=min(registers, MOST_REGISTERS),
        issue_slots=problem.outputs / grid * output_slots,
        l2_bytes=(problem.reads[0].nbytes + problem.write.nbytes) / grid,
        latency_s=style.row_latency_s * problem.rows,
        reads=problem.reads,
        writes=(problem.write,),
        flops=problem.flops,
    )
