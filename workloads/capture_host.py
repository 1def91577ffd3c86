"""Measures the machine that it runs on as a host: what issuing operators costs it (`hw_configs.hosts.Host`).

    stated = capture_host("cuda")
    write_host(stated, "mine.yaml")

Operators are on tensors so small that the device is not waited for: on a GPU they are issued in runs that its launch queue
takes, and what the host spends on each is its own time, less what a bare launch costs for each kernel. Without a GPU they run on
the CPU, which shows what Python and torch's dispatcher cost; what only a GPU's libraries do (convolution, attention,
launches) is then scaled from `slow-vm` by the speed found. What a call of a module costs is what is left of a small model's pass
once its operators are paid for: a CLIP text encoder of transformers', a transformer block of diffusers'. The file says which
number was measured and which was scaled.
"""

from __future__ import annotations

import itertools
import math
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import datetime, timezone
from typing import Any

from simtti.errors import InputError
from simtti.files import write_text
from simtti.hw_configs.hosts import COSTS, Host, load_host
from simtti.simulator.engine.host import calls, issue_s
from simtti.workloads.record import quiet, recorded
from simtti.workloads.recording import Recording
from simtti.workloads.trace import Trace

# What is not measured is this host's, scaled.
BASE = "slow-vm"
# What a CPU's own libraries do in another way than a GPU's.
OF_A_GPU = ("attention_s", "convolution_s")
# Calls without a wait: fewer than the launch queue holds (Host.queue_depth), whatever each launches.
RUN = 64
REPEATS = 15
WARM_UP = 3


def capture_host(device: str) -> dict[str, Any]:
    """The costs of this machine's host, as a file of `--host` states them.

    device: 'cuda' or 'cpu'.

    Raises:
        InputError: torch, transformers or diffusers is not there.
    """
    with quiet():
        plain, pipeline = (
            _trace(_plain),
            _trace(_pipeline),
        )  # says what is missing, before anything is measured
        import torch

        with torch.no_grad():
            return _measured(device, plain, pipeline)


def write_host(stated: dict[str, Any], path: str | os.PathLike[str]) -> None:
    """Write it as YAML; `load_host(path)` reads it.

    Raises:
        InputError: the file cannot be written.
    """
    import yaml

    write_text(path, yaml.safe_dump(stated, sort_keys=False, width=120, allow_unicode=True))


def _measured(device: str, plain: Trace, pipeline: Trace) -> dict[str, Any]:
    base, on_gpu = load_host(BASE), device == "cuda"
    launch_s = _launch_s() if on_gpu else 0.0
    found = {name: _operator_s(call, on_gpu, launch_s) for name, call in _operators(device)}
    if not on_gpu:
        found = {name: value for name, value in found.items() if name not in OF_A_GPU}
    if launch_s:
        found["launch_s"] = launch_s
    # A speed: of what Python and the dispatcher do alike on every device.
    speed = math.exp(
        statistics.fmean(math.log(getattr(base, n) / found[n]) for n in ("view_s", "operator_s", "linear_s"))
    )
    host = replace(base.faster(speed), **found)
    for name, trace, builder in (("module_s", plain, _plain), ("diffusers_module_s", pipeline, _pipeline)):
        found[name] = _call_s(trace, builder, host, device)
    host = replace(host, **found)
    scaled = [name for name in COSTS if name not in found]
    costs = {name: float(f"{value:.3g}") for name, value in asdict(host).items() if name in COSTS}
    return {**costs, "queue_depth": host.queue_depth, "source": _source(device, list(found), scaled, speed)}


def _source(device: str, measured: list[str], scaled: list[str], speed: float) -> str:
    import torch

    where = (
        f"{torch.cuda.get_device_name()} as the device"
        if device == "cuda"
        else "no GPU: operators on the CPU"
    )
    return (
        f"simtti capture host, {datetime.now(timezone.utc).date().isoformat()}, {platform.processor() or platform.machine()}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}, torch {torch.__version__}; {where}. Measured: {', '.join(measured)}. Not measured, {BASE}'s "
        f"at {speed:.2f} times its speed: {', '.join(scaled)}; queue_depth: {BASE}'s"
    )


# ---- operators


def _operators(device: str) -> list[tuple[str, Callable[[], Any]]]:
    """A call for each cost of an operator."""
    import torch
    from torch.nn import functional

    dtype = torch.float16 if device == "cuda" else torch.float32

    def tensor(*shape: int) -> Any:
        return torch.zeros(shape, dtype=dtype, device=device)

    x, weight, bias, image, filters, heads = (
        tensor(8, 8), tensor(8, 8), tensor(8), tensor(1, 8, 8, 8), tensor(8, 8, 3, 3), tensor(1, 2, 16, 16),
    )  # fmt: skip

    def norms() -> None:
        functional.layer_norm(x, (8,), bias, bias)
        functional.group_norm(image, 4, bias, bias)

    return [
        ("view_s", lambda: x.view(64)),
        ("operator_s", lambda: torch.add(x, x)),
        ("linear_s", lambda: functional.linear(x, weight, bias)),
        ("normalization_s", norms),
        ("attention_s", lambda: functional.scaled_dot_product_attention(heads, heads, heads)),
        ("convolution_s", lambda: functional.conv2d(image, filters, bias, padding=1)),
    ]


def _operator_s(call: Callable[[], Any], on_gpu: bool, launch_s: float) -> float:
    """Host seconds of an operator beside its launches; `norms` is two of them."""
    seconds = _each_s(call, on_gpu) - (_launches(call) * launch_s if on_gpu else 0.0)
    return max(seconds, 0.0) / (2 if call.__name__ == "norms" else 1)


def _each_s(call: Callable[[], Any], on_gpu: bool) -> float:
    """Host seconds of a call, the median of REPEATS runs, each of as many as the queue takes."""
    import torch

    for _ in range(WARM_UP):
        call()
    times = []
    for _ in range(REPEATS):
        if on_gpu:
            torch.cuda.synchronize()
        begin = time.perf_counter()
        for _ in range(RUN):
            call()
        times.append((time.perf_counter() - begin) / RUN)
    return statistics.median(times)


def _launch_s() -> float:
    """Host seconds of a kernel launch, with as little around it as torch offers."""
    import torch

    return _each_s(lambda: torch.cuda._sleep(1), True)


def _launches(call: Callable[[], Any]) -> int:
    """Kernels, copies and fills that a call launches."""
    import torch

    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
        call()
        torch.cuda.synchronize()
    return sum(event.device_type == torch.autograd.DeviceType.CUDA for event in profiler.events())


# ---- modules


def _plain(device: str) -> Callable[[], Any]:
    """A pass of modules with little Python of their own."""
    import torch
    from transformers import CLIPTextConfig, CLIPTextModel

    config = CLIPTextConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=4,
        num_attention_heads=2,
        vocab_size=64,
        max_position_embeddings=16,
    )
    model = CLIPTextModel(config).to(device).eval()
    tokens = torch.zeros(1, 16, dtype=torch.int64, device=device)
    return lambda: model(tokens)


def _pipeline(device: str) -> Callable[[], Any]:
    """A pass of diffusers' modules."""
    import torch
    from diffusers.models.attention import BasicTransformerBlock

    blocks = torch.nn.Sequential(*(BasicTransformerBlock(16, 2, 8) for _ in range(4))).to(device).eval()
    x = torch.zeros(1, 16, 16, device=device)
    return lambda: blocks(x)


def _trace(builder: Callable[[str], Callable[[], Any]]) -> Trace:
    """The operators of a pass."""

    def build(_: Any, recording: Recording) -> None:
        call = builder("meta")
        model = next(
            cell.cell_contents for cell in call.__closure__ or () if hasattr(cell.cell_contents, "modules")
        )
        recording.register("model", model)
        with recording.step("pass", domain="spatial"):
            call()

    return recorded(build, None, what="a host's passes", name="host", options={})


def _call_s(trace: Trace, builder: Callable[[str], Callable[[], Any]], host: Host, device: str) -> float:
    """Seconds of a call of a module: what is left of a pass once its operators are paid for, a call."""
    operators = trace.phases[0].steps[0].operators
    free = replace(host, module_s=0.0, diffusers_module_s=0.0)
    spent_s = sum(issue_s(free, operators, {}))
    call = builder(device)
    if device == "cuda":
        spent_s += _launches(call) * host.launch_s
    paths = ["", *(operator.module for operator in operators)]
    count = sum(calls(before, after) for before, after in itertools.pairwise(paths))
    left_s = _each_s_alone(call, device == "cuda") - spent_s
    if left_s <= 0:
        raise InputError(
            "the modules' own time drowns in that of their operators; run it again on a quieter machine"
        )
    return left_s / count


def _each_s_alone(call: Callable[[], Any], on_gpu: bool) -> float:
    """As `_each_s`, of calls that launch many kernels: one a run."""
    import torch

    times = []
    for _ in range(WARM_UP + REPEATS):
        if on_gpu:
            torch.cuda.synchronize()
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return statistics.median(times[WARM_UP:])
