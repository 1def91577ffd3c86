"""Where the time of one inference goes, counted in the two ways a profile can be read.

By operator: every kernel belongs to the operator that launched it, so a projection to queries is Linear. By module, as a
profiler with module hooks counts: all that happens within an attention module is Attention, its projections, copies and
normalisation included. The study profiled with module hooks, so the module's account is compared with it; the other
stands beside it. Times are of kernels: a profiler's time on the GPU has no waiting for the host in it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from simtti.simulator.kernel import Kernel
from simtti.simulator.result import Result
from simtti.simulator.time_of_run import HOST_IDLE, LAUNCH_GAP
from simtti.workloads.trace import Operator

ATTENTION = "Attention"
# Kernels of unfused attention by what they do; what fused attention launches is FUSED.
GEMM, SOFTMAX, ELEMENTWISE, FUSED = "GEMM", "softmax", "elementwise", "fused"


def attention_modules(operators: Iterable[Operator]) -> dict[str, tuple[str, str]]:
    """Path of each module that attends -> the kind and the domain of its attention."""
    return {
        operator.module: (
            str(operator.attributes.get("kind", "self")),
            str(operator.attributes.get("domain", "")),
        )
        for operator in operators
        if operator.category == ATTENTION
    }


def enclosing(module: str, known: dict[str, Any]) -> str | None:
    """The module of `known` that `module` is or lies within."""
    while module:
        if module in known:
            return module
        module = module.rpartition(".")[0]
    return None


def layout_modules(operators: Iterable[Operator]) -> dict[str, tuple[str, str]]:
    """Modules that hold nothing but attention along time and its like, and rearrange the video for it: the ancestors of
    temporal attention within which nothing attends otherwise. Their own copies are the price of attending along time."""
    operators = list(operators)
    attending = attention_modules(operators)
    domains: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for module, kind in attending.items():
        while module:
            module = module.rpartition(".")[0]
            domains[module].add(kind)
    return {
        module: ("self", "temporal")
        for module, kinds in domains.items()
        if module and {domain for _, domain in kinds} == {"temporal"}
    }


def kernel_class(kernel: Kernel) -> str:
    """GEMM, softmax, elementwise (copies too) or fused, of a kernel that attention launched."""
    if kernel.name.startswith(("scores", "values")):
        return GEMM
    if "softmax" in kernel.name.lower():
        return SOFTMAX
    return FUSED if kernel.family == "attention" else ELEMENTWISE


def account(result: Result) -> dict[str, Any]:
    """What the study's figures are made of, of one run, as plain data.

    latency_s, kernel_s, idle_s (waiting for the host), launch_s (gaps); flops, hbm_bytes, tensor_flops_peak;
    operators, modules: seconds by category; phases: the same of each; attention: by 'kind/domain' kernel_s (of the
    attention operator), module_s (of its module), copies_s (that rearrange the video around it), flops, hbm_bytes,
    l2_bytes, and of each class of kernels time_s, flops, hbm_bytes, l2_bytes.
    """
    operators = [operator for operator, _ in result.rows]
    modules = attention_modules(operators)
    layouts = layout_modules(operators)
    home = {path: enclosing(path, modules) for path in {operator.module for operator in operators}}
    whole = _Sums()
    phases: dict[str, _Sums] = {phase.name: _Sums() for phase in result.phases}
    attention: dict[str, dict[str, Any]] = {}

    def of(kind: tuple[str, str]) -> dict[str, Any]:
        empty = {
            "kernel_s": 0.0,
            "module_s": 0.0,
            "copies_s": 0.0,
            "flops": 0.0,
            "hbm_bytes": 0.0,
            "l2_bytes": 0.0,
        }
        return attention.setdefault("/".join(kind), {**empty, "classes": {}})

    for interval, times in result.weighted_kernels():
        operator, kernel = operators[interval.operator], interval.kernel
        seconds = interval.duration_s * times
        within = home[operator.module]
        category = ATTENTION if within is not None else operator.category
        for sums in (whole, phases[operator.phase]):
            sums.add(operator.category, category, seconds, kernel.flops * times, interval.hbm_bytes * times)
        if within is not None:
            of(modules[within])["module_s"] += seconds
        elif operator.module in layouts and operator.category == "Memory":
            of(layouts[operator.module])["copies_s"] += seconds
        if operator.category == ATTENTION:
            row = of(modules[operator.module])
            part = row["classes"].setdefault(
                kernel_class(kernel), dict.fromkeys(("time_s", "flops", "hbm_bytes", "l2_bytes"), 0.0)
            )
            row["kernel_s"] += seconds
            part["time_s"] += seconds
            for name, value in (
                ("flops", kernel.flops),
                ("hbm_bytes", interval.hbm_bytes),
                ("l2_bytes", kernel.l2_bytes * kernel.grid),
            ):
                row[name] += value * times
                part[name] += value * times
    return {
        "latency_s": result.latency_s,
        "idle_s": result.breakdown[HOST_IDLE],
        "launch_s": result.breakdown[LAUNCH_GAP],
        "peak_memory_bytes": result.peak_memory_bytes,
        "peak_flops": result.hardware.peak_flops(),
        **whole.plain(),
        "phases": {
            phase.name: {"steps": phase.steps, **phases[phase.name].plain()}
            for phase in result.phases
            if phases[phase.name].seconds
        },
        "attention": attention,
    }


class _Sums:
    def __init__(self) -> None:
        self.operators: dict[str, float] = defaultdict(float)
        self.modules: dict[str, float] = defaultdict(float)
        self.seconds = self.flops = self.nbytes = 0.0

    def add(self, operator: str, module: str, seconds: float, flops: float, nbytes: float) -> None:
        self.operators[operator] += seconds
        self.modules[module] += seconds
        self.seconds += seconds
        self.flops += flops
        self.nbytes += nbytes

    def plain(self) -> dict[str, Any]:
        return {
            "kernel_s": self.seconds, "flops": self.flops, "hbm_bytes": self.nbytes,
            "operators": dict(self.operators), "modules": dict(self.modules),
        }  # fmt: skip


def domain_sum(found: dict[str, Any], domain: str, field: str, kind: str = "") -> float:
    """A field of an account's attention in `domain`, over all kinds or of one ('self', 'cross'): 'kernel', 'module', 'copies'
    (with the module), flops, ..."""
    fields = {"kernel": ("kernel_s",), "module": ("module_s",), "copies": ("module_s", "copies_s")}.get(
        field, (field,)
    )
    return float(
        sum(
            row[name]
            for key, row in found["attention"].items()
            if key.partition("/")[2] == domain and kind in ("", key.partition("/")[0])
            for name in fields
        )
    )


def attention_s(found: dict[str, Any], field: str) -> float:
    """Seconds of all attention of an account: 'kernel', 'module' or 'copies'."""
    domains = {key.partition("/")[2] for key in found["attention"]}
    return sum(domain_sum(found, domain, field) for domain in domains)
