"""The verbs: run, predict, sweep, record. The command line is a thin layer over these."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from simtti.errors import InputError
from simtti.hw_configs.changes import read as changes
from simtti.hw_configs.devices import find_reported, load
from simtti.hw_configs.engines import load_engine
from simtti.hw_configs.hardware import Hardware, release_of, with_pytorch
from simtti.hw_configs.hosts import load_host
from simtti.simulator.by_host import latency_by_host
from simtti.simulator.coverage import check_coverage, check_tied
from simtti.simulator.engine.measured_kernels import measured_kernels
from simtti.simulator.engine.preparation import Progress, no_progress
from simtti.simulator.policy import COMPILED, GRAPHS, Policy
from simtti.simulator.result import Result
from simtti.simulator.several_gpus import degrees_of, simulate_on
from simtti.workloads.named import check_unchanged, is_trace_file, trace_of_file
from simtti.workloads.offload import offloaded
from simtti.workloads.trace import Trace


def run(
    workload: str | os.PathLike[str] | Trace,
    hw: str | Hardware,
    *,
    set: str | None = None,
    batch: int | None = None,
    steps: int | None = None,
    height: int | None = None,
    width: int | None = None,
    frames: int | None = None,
    prompt_tokens: int | None = None,
    vae: str | None = None,
    dtype: str | None = None,
    guidance: str | None = None,
    strength: float | None = None,
    engine: str = "diffusers",
    attention: str = "",
    cross_attention: str = "",
    launch: str = "",
    compile: str = "denoiser",
    layout: str = "recorded",
    host: str = "default",
    trace: str | os.PathLike[str] | None = None,
    fidelity: str = "wave",
    gpus: int = 1,
    ulysses: int | None = None,
    ring: int | None = None,
    cfg_parallel: int = 1,
    tensor: int = 1,
    pipefusion: int = 1,
    pipefusion_patches: int | None = None,
    warmup_steps: int | None = None,
    parallel_vae: bool = False,
    patches: int = 1,
    dependent_launch: bool = False,
    pytorch: str | None = None,
    mask: str = "",
    tf32: bool = False,
    quantization: str | None = None,
    cache: str | None = None,
    lora: int | None = None,
    offload: str = "none",
    pinned: bool | None = None,
    timing: str = "model",
    by_host: bool = False,
    partial: bool = False,
    progress: Progress = no_progress,
) -> Result:
    """Simulate one inference.

    Args:
        workload: a workload's name, or what may stand in its place: a Trace, the path of a trace file, FILE.py:FUNCTION (a
            function that returns a module and its inputs, a pipeline or a Trace: workloads.own).
        hw: a device's name, the path of a device YAML, or a Hardware.
        set: numbers of the device that differ, FIELD=VALUE with ';' between: 'hbm_bytes_per_s=1.5x; l2_capacity_bytes=100 MB' (see
            Hardware.replace).
        batch, steps, height, width, frames, prompt_tokens, dtype: what differs from the workload's default.
        guidance: classifier-free guidance: 'on', as the workload runs it; 'off'; 'in-turn', two passes instead of a batch of two;
            'interval:0.2-0.8', in these shares of the steps alone. All but 'on' are recorded, which needs torch.
        strength: image to image: the share of the steps that is run after the image given is encoded; needs torch.
        vae: how the decoder goes about it: 'whole', 'tiled', 'sliced' or 'tiled-sliced'; as the workload is mostly run if None.
        engine: who runs it: 'diffusers', 'sglang', 'vllm-omni', 'xdit', 'cosmos' or 'official' (hw_configs/engines.yaml): attention, launch
            and pytorch where these are not given.
        attention: 'flash', 'efficient', 'baseline' (unfused, in the model's dtype) or 'math' (PyTorch's unfused backend, in fp32).
        cross_attention: the same for attention to a text or another sequence, where it is not `attention`.
        launch: 'eager'; 'graph' for a CUDA graph, which takes the host out; 'compiled' for torch.compile; 'compiled-graph' for
            both (reduce-overhead).
        compile: what torch.compile takes: 'denoiser', the phases whose steps can be set, while text encoder and decoder stay
            eager; or 'all'.
        layout: 'recorded', or 'channels-last' for a model whose convolutions' weights were brought into that memory format.
        host: the host machine: a name in hw_configs/hosts.yaml, or the path of a file like it (`simtti capture host`).
        trace: a trace file to run instead of the workload's own.
        fidelity: 'wave'; 'cta' to simulate every CTA; 'closed' for the closed form, in which kernels do not contend.
        gpus: GPUs that share the inference, ulysses x ring x cfg_parallel x tensor x pipefusion x patches of them. The Result is that of one of them,
            with what it sends and receives; its `several_gpus` holds what all of them make of it.
        ulysses, ring: degrees of sequence parallelism: GPUs that share the tokens; ulysses takes what the others leave.
        cfg_parallel: 2 for two groups of GPUs, one for each half of classifier-free guidance.
        tensor: degree of tensor parallelism: GPUs that share the weights of the denoiser's blocks.
        pipefusion: degree of PipeFusion: GPUs that have a part of a transformer's blocks each, which the image passes in patches.
        pipefusion_patches: how many; as many as GPUs if None.
        warmup_steps: steps before that, which the image passes in one piece, stage by stage; 1 if None. With patches: steps in which
            each waits for the others'; 5 if None.
        parallel_vae: all GPUs share the VAE's decoder: each decodes a part of the rows, or of the tiles of one that is tiled.
        patches: GPUs that have a band of rows of a UNet's image each, with what the others had of theirs in the step before.
        timing: 'model'; 'measured': the kernel times of the capture that ships for this workload and shape, under the host model;
            'hybrid': those scaled to `hw` by the model's ratio between the two devices.
        tf32: fp32 matrix products may be rounded to TF32 (torch.backends.cuda.matmul.allow_tf32); convolutions always are, as
            PyTorch has it.
        partial: time what the model covers of a measured trace, however little it is.
        dependent_launch: programmatic dependent launch: a kernel is set up while the one before it drains.
        mask: 'keep': masks that hide padding are added to the scores, which leaves only the memory-efficient kernel; 'drop': they are
            not, and padding is attended to; 'varlen': nor are padded tokens computed, where the trace says how many there are; '': as
            the workload is mostly run.
        quantization: the denoiser's linear layers in fewer bits: fp8, fp8-row, fp8-block, mxfp8, nvfp4, int8, fp8-weight-only,
            int8-weight-only, int4-weight-only, svdq-int4 or svdq-nvfp4 (see workloads.quantization).
        cache: a cache of transformer blocks between steps and the share of the steps that hit, 'fbcache:0.6', 'teacache:0.5',
            'dbcache:0.5:fn=8:bn=0:warmup=8', 'magcache:0.5', or the path of a YAML schedule (see workloads.cache_schedule).
        lora: the rank of an adapter at each attention projection of the denoiser, not fused (see workloads.lora).
        offload: the weights lie in the host's memory: 'model', 'sequential' or 'group' (see workloads.offload); 'none': all are on the
            device throughout.
        pinned: whether that memory is page-locked; as diffusers has it for each kind of offloading if None.
        pytorch: the release whose kernels run: '2.11' (2.8 and later), '2.6' (up to it); what the device's file says if None.
        by_host: where the GPU waits for the host, also find the latency on the other hosts that are known
            (`Result.latency_by_host`, seconds).
        progress: called with (operators simulated, operators).

    Returns:
        The Result; its `breakdown`, `phases`, `intervals` and `to_dict()` hold what was found.

    Raises:
        InputError: a name, option, file or shape that cannot be used; a measured trace most of whose time the model does not cover.

    >>> result = run("stable-diffusion", hw="h100-sxm", steps=2)
    >>> result.latency_s > 0
    True
    """
    began = time.perf_counter()
    if not isinstance(workload, Trace) and is_trace_file(workload):
        if trace is not None:
            raise InputError(f"two traces are given, {workload} and --trace {trace}; give one")
        workload, trace = "", workload
    assert not isinstance(workload, os.PathLike)
    hardware = hw if isinstance(hw, Hardware) else load(hw)
    if set is not None:
        hardware = hardware.replace(**changes(set))
    chosen = load_engine(engine)
    pytorch = pytorch or chosen.pytorch
    if pytorch is not None:
        hardware = with_pytorch(hardware, pytorch)
    attention = attention or chosen.attention_on(hardware.architecture)
    launch = launch or chosen.launch
    policy = Policy(
        attention, launch, compile, layout, mask, cross_attention=cross_attention, dependent_launch=dependent_launch, tf32=tf32
    )  # fmt: skip
    shape: dict[str, Any] = {
        "batch": batch,
        "height": height,
        "width": width,
        "frames": frames,
        "dtype": dtype,
    }
    shape |= {"prompt_tokens": prompt_tokens, "strength": strength, "vae": vae}
    _check_offload(offload, gpus, policy)
    degrees = degrees_of(
        gpus,
        ulysses,
        ring,
        hardware,
        cfg_parallel,
        tensor,
        pipefusion,
        pipefusion_patches,
        warmup_steps,
        parallel_vae,
        patches,
    )
    machine, measured, captured_on = load_host(host), None, None
    if timing == "model":
        found = _trace(workload, trace, steps, shape, guidance)
    else:
        if guidance not in (None, "on"):
            raise InputError(
                f"guidance is {guidance!r}; measured kernels are those of the capture: leave it out"
            )
        found = _captured(workload, trace, attention, steps, shape, hardware.name)
        check_tied(found)
        release = release_of(found.timing.device.get("torch")) if found.timing else None
        if release and pytorch is None:
            hardware = with_pytorch(hardware, release)
        captured_on = _captured_on(found, release)
        measured = measured_kernels(found, timing, hardware, captured_on)
    covered = check_coverage(found, timing, partial)
    if cache is not None:
        from simtti.workloads.caching import cached

        found = cached(found, cache)
    result = simulate_on(
        degrees, found, hardware, machine, policy, fidelity, progress, measured,
        _rewriting(quantization, lora, offload, pinned, hardware, launch),
    )  # fmt: skip
    if not any(lowered.kernels for _, lowered in result.rows):
        raise InputError(
            f"the trace of {found.workload} launches no kernel that is known: there is nothing to time"
        )
    result.coverage, result.engine = covered, chosen
    result.timing, result.captured_on = timing, captured_on
    if by_host and degrees.gpus == 1:
        result.latency_by_host = latency_by_host(result, measured)
    result.wall_s = time.perf_counter() - began
    return result


def _check_offload(offload: str, gpus: int, policy: Policy) -> None:
    """Raise an InputError where weights that come and go do not go with the rest."""
    if offload == "none":
        return
    if gpus > 1:
        raise InputError(f"offload is {offload!r} and gpus {gpus}; weights are offloaded from one GPU only")
    if policy.launch in GRAPHS:
        raise InputError(
            f"offload is {offload!r} and launch {policy.launch!r}; a CUDA graph needs its weights where they were: use eager"
        )
    if policy.launch in COMPILED and offload != "model":
        raise InputError(
            f"offload is {offload!r} and launch {policy.launch!r}; its hooks run between a model's modules, which torch.compile "
            "makes one: use eager, or offload model"
        )


def _rewriting(
    quantization: str | None,
    lora: int | None,
    offload: str,
    pinned: bool | None,
    hardware: Hardware,
    launch: str,
) -> Callable[[Trace], Trace]:
    """What is done to a GPU's trace before it is simulated: its denoiser's linear layers are quantised, then low-rank layers put beside
    them, then its weights offloaded, or nothing.

    The function raises:
        InputError: see `quantized` and `with_lora`; the device's tensor cores do not take the format.
    """

    def rewrite(trace: Trace) -> Trace:
        if quantization is not None:
            from simtti.workloads.quantization import SCHEMES, quantized

            trace = quantized(trace, quantization, compiled=launch in COMPILED)
            if SCHEMES[quantization].multiplies:
                hardware.tensor_flops_per_cycle_sm(SCHEMES[quantization].multiplies)
        if lora is not None:
            from simtti.workloads.lora import with_lora

            trace = with_lora(trace, lora)
        return offloaded(trace, offload, pinned=pinned)

    return rewrite


def _captured(
    workload: str | Trace,
    path: str | os.PathLike[str] | None,
    attention: str,
    steps: int | None,
    shape: dict[str, Any],
    device: str,
) -> Trace:
    """A trace with measured kernels: the one given, else the one that ships, of that device if there is one."""
    if path is not None or isinstance(workload, Trace):
        return _trace(workload, path, steps, shape)
    from simtti.workloads.measured import captured_trace

    return captured_trace(workload, attention, device=device, steps=steps, **shape)


def _captured_on(trace: Trace, release: str | None) -> Hardware | None:
    found = find_reported(str(trace.timing.device.get("name", ""))) if trace.timing else None
    return with_pytorch(found, release) if found and release else found


def _trace(
    workload: str | Trace,
    path: str | os.PathLike[str] | None,
    steps: int | None,
    shape: dict[str, Any],
    guidance: str | None = None,
) -> Trace:
    if path is not None:
        return trace_of_file(path, steps=steps, **shape, guidance=guidance)
    if isinstance(workload, Trace):
        check_unchanged({**shape, "guidance": guidance})
        return workload if steps is None else workload.with_steps(steps)
    from simtti.workloads.guidance import guided_trace

    options = {key: value for key, value in shape.items() if value is not None}
    return guided_trace(workload, guidance or "on", steps=steps, **options)
