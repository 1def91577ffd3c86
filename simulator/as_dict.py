"""A run's result as JSON has it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from simtti.simulator.uncertainty.draws import phase_intervals
from simtti.simulator.uncertainty.outside import of_run
from simtti.workloads.catalogue import decoded

if TYPE_CHECKING:
    from simtti.simulator.result import Result  # circle: a type only


def as_dict(result: Result, interval: bool = True) -> dict[str, Any]:
    """`result` as `simtti run --json` writes it: seconds, joules, watts, bytes, shares. interval: with the intervals, and what is said of
    them among the warnings."""
    figures = result.figures()
    intervals = phase_intervals(result) if interval else {}
    allocated = {p.name: p.allocated_bytes for p in result.memory.phases} if result.memory else {}
    return {
        "latency_s": figures["latency_s"],
        "energy_j": figures["energy_j"],
        **(result.interval.to_dict() if interval else {}),
        "power": result.power,
        "peak_memory_bytes": figures["peak_memory_bytes"],
        "reserved_memory_bytes": figures["reserved_memory_bytes"],
        "device_memory_bytes": figures["device_memory_bytes"],
        "fits": figures["fits"],
        "largest_batch": result.largest_batch,
        "largest_size": result.largest_size,
        "fullest_phase": result.memory.fullest.name if result.memory else None,
        "phases": [
            {
                "name": p.name,
                "steps": p.steps,
                "latency_s": p.latency_s,
                "step_s": p.step_s,
                **({"interval": intervals[p.name].in_seconds()} if p.name in intervals else {}),
                "peak_memory_bytes": allocated.get(p.name),
            }
            for p in result.phases
        ],
        "breakdown": result.breakdown,
        "breakdown_by_phase": result.breakdown_by_phase,
        "bottlenecks": result.bottlenecks,
        "attention": result.attention,
        "attention_kernels": [asdict(each) for each in result.attention_kernels],
        "sequence_lengths": result.sequence_lengths,
        "utilisation": result.utilisation,
        "host_bound_share": figures["host_bound_share"],
        "latency_by_host": result.latency_by_host,
        "unlowered": result.unlowered,
        "warnings": [*result.warnings, *(of_run(result) if interval else ())],
        "coverage": result.coverage
        and {"share": result.coverage.share, "left_out_us": result.coverage.left_out_us},
        "totals": {key: result.totals[key] for key in ("flops", "hbm_bytes", "l2_bytes", "kernels")},
        "busy": result.busy,
        "engine": {
            "events": result.outcome.events,
            "processes": result.outcome.processes,
            "contended_kernels": result.outcome.contended,
        },
        **({"several_gpus": result.several_gpus.to_dict()} if result.several_gpus else {}),
        "configuration": {
            "workload": result.trace.workload,
            "vae": decoded(result.trace.workload, result.trace.options),
            **result.trace.options,
            "hw": result.hardware.name,
            "host": result.host.name,
            "attention": result.policy.attention,
            "cross_attention": result.policy.cross_attention,
            "mask": result.policy.mask,
            "pytorch": result.hardware.pytorch,
            "launch": result.policy.launch,
            "compile": result.policy.compile,
            "layout": result.policy.layout,
            "tf32": result.policy.tf32,
            "fidelity": result.fidelity,
            "timing": result.timing,
            "captured_on": result.captured_on and result.captured_on.name,
            "trace": result.trace.provenance,
        },
    }
