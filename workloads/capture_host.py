"""Measures the machine that it runs on as a host: what issuing operators costs it (`hw_configs.hosts.Host`).

    stated = capture_host("cuda")
    write_host(stated, "mine.yaml")

Two small models run on operands so small that the device is not waited for: a CLIP text encoder of transformers', whose modules
have little Python of their own, and transformer blocks of diffusers'. The first says how fast the machine is: its pass against
what the operators and modules of it cost the host `slow-vm`, whose kinds of operators were told apart in profiles of whole
models. The second says what a call of diffusers' modules costs: what is left of its pass when its operators are paid for. On a
GPU a bare launch is timed too, and taken off both for each kernel. Without one the operators run on the CPU, at a cost near that of
issuing them; the file says so.

An operator by itself, again and again, costs several times less than in a model, where no two are alike and Python stands
between them: such times are written down (`source`) and set nothing.
"""

from __future__ import annotations

import itertools
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

from simtti.errors import InputError
from simtti.files import write_text
from simtti.hw_configs.hosts import COSTS, load_host
from simtti.simulator.engine.host import calls, issue_s
from simtti.workloads.record import quiet, recorded
from simtti.workloads.recording import Recording
from simtti.workloads.trace import Operator, Trace

# What is not measured is this host's, scaled.
BASE = "slow-vm"
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

        threads = torch.get_num_threads()
        torch.set_num_threads(
            1
        )  # one thread issues; others would only wait for each other at operators as small as these
        try:
            with torch.no_grad():
                return _measured(device, plain, pipeline)
        finally:
            torch.set_num_threads(threads)


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
    plain_s, pipeline_s = _passes_s((_plain, _pipeline), device, launch_s)
    speed = sum(issue_s(base, _operators_of(plain), {})) / plain_s
    host = base.faster(speed)
    free = replace(host, module_s=0.0)
    left_s = pipeline_s - sum(issue_s(free, _operators_of(pipeline), {}))
    paths = ["", *(operator.module for operator in _operators_of(pipeline))]
    count = sum(calls(before, after) for before, after in itertools.pairwise(paths))
    if left_s <= 0:
        raise InputError(
            "diffusers' modules came out at no time: the machine was busier with the model before; run it again"
        )
    host = replace(host, diffusers_module_s=left_s / count, launch_s=launch_s or host.launch_s)
    alone = {name: _each_s(call, on_gpu) for name, call in _operators(device)}
    costs = {name: float(f"{getattr(host, name):.3g}") for name in COSTS}
    return {**costs, "queue_depth": host.queue_depth, "source": _source(device, speed, alone)}


def _source(device: str, speed: float, alone: dict[str, float]) -> str:
    import torch

    on_gpu = device == "cuda"
    where = torch.cuda.get_device_name() if on_gpu else "no GPU, operators on the CPU"
    measured = [
        "a pass of CLIP's text encoder and one of diffusers' transformer blocks",
        *(["a bare launch"] if on_gpu else []),
    ]
    return (
        f"simtti capture host, {datetime.now(timezone.utc).date().isoformat()}: {platform.processor() or platform.machine()}, "
        f"{os.cpu_count()} cores, Python {platform.python_version()}, torch {torch.__version__}, {where}. Measured: "
        f"{', '.join(measured)}. From the first all costs but diffusers_module_s{' and launch_s' if on_gpu else ''}, as {BASE}'s at "
        f"{speed:.2f} times its speed; queue_depth is {BASE}'s. Operators by themselves in a loop"
        f"{', launches included' if on_gpu else ''}, which set nothing: "
        + ", ".join(f"{name} {seconds * 1e6:.1f} us" for name, seconds in alone.items())
    )


# ---- operators


def _operators(device: str) -> list[tuple[str, Callable[[], Any]]]:
    """A call for each kind of operator."""
    import torch
    from torch.nn import functional

    dtype = torch.float16 if device == "cuda" else torch.float32

    def tensor(*shape: int) -> Any:
        return torch.zeros(shape, dtype=dtype, device=device)

    x, weight, bias, image, filters, heads = (
        tensor(8, 8), tensor(8, 8), tensor(8), tensor(1, 8, 8, 8), tensor(8, 8, 3, 3), tensor(1, 2, 16, 16),
    )  # fmt: skip

    return [
        ("view", lambda: x.view(64)),
        ("elementwise", lambda: torch.add(x, x)),
        ("linear", lambda: functional.linear(x, weight, bias)),
        ("LayerNorm", lambda: functional.layer_norm(x, (8,), bias, bias)),
        ("GroupNorm", lambda: functional.group_norm(image, 4, bias, bias)),
        ("attention", lambda: functional.scaled_dot_product_attention(heads, heads, heads)),
        ("convolution", lambda: functional.conv2d(image, filters, bias, padding=1)),
    ]


def _each_s(call: Callable[[], Any], on_gpu: bool) -> float:
    """Host seconds of a call, the least disturbed of REPEATS runs, each of as many as the queue takes."""
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
    return min(times)


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


def _operators_of(trace: Trace) -> Sequence[Operator]:
    return trace.phases[0].steps[0].operators


def _passes_s(
    builders: Sequence[Callable[[str], Callable[[], Any]]], device: str, launch_s: float
) -> list[float]:
    """Host seconds of a pass of each beside its launches, the least disturbed of REPEATS. In turn, so that a busy machine disturbs
    all alike."""
    import torch

    on_gpu = device == "cuda"
    calls_of = [builder(device) for builder in builders]
    times: list[list[float]] = [[] for _ in calls_of]
    for _ in range(WARM_UP + REPEATS):
        for call, spent in zip(calls_of, times, strict=True):
            if on_gpu:
                torch.cuda.synchronize()
            begin = time.perf_counter()
            call()
            spent.append(time.perf_counter() - begin)
    return [
        min(spent[WARM_UP:]) - (_launches(call) * launch_s if on_gpu else 0.0)
        for call, spent in zip(calls_of, times, strict=True)
    ]
