"""Energy of whole inferences, for the fit of a device's energy parameters.

What a run does (FLOPs, bytes, its time at two clocks) does not depend on what a FLOP or a byte costs, so it is simulated
once; the energy, and the clock that the power limit leaves, follow for any cost in closed form. One clock for a whole run
stands for the governor's windows.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from simtti.hw_configs.devices import fingerprint
from simtti.hw_configs.hardware import Hardware
from simtti.jobs import Pool
from simtti.journal import Journal, resumed
from simtti.simulator.engine import power
from simtti.simulator.sweep import Keys
from simtti.validation.judge.recordings import SHAPE
from simtti.validation.measurements.table import DEGREES, options

if TYPE_CHECKING:
    import pandas as pd

    from simtti.simulator.result import Result

SLOW_CLOCK = 0.8


class Work(NamedTuple):
    """A run at the boost clock without a power limit: its time, and at SLOW_CLOCK; its FLOPs and bytes."""

    boost_s: float
    slow_s: float
    sm_cycles: float
    tensor_flops: float
    fp32_flops: float
    issue_slots: float
    sfu_ops: float
    shared_bytes: float
    l2_bytes: float
    hbm_bytes: float


def work_of(asked: dict[str, Any], hardware: Hardware) -> Work:
    """Simulate one run (options of `simtti run`, but for its device and GPUs) on `hardware`, as if its power were not
    limited."""
    free = replace(hardware, power_limit_w=1e5)
    fast = simulate_one(asked, free)
    same = {name: value for name, value in asked.items() if name not in (*SHAPE, "trace")}
    slower = replace(free, clock_hz=hardware.clock_hz * SLOW_CLOCK)
    slow = simulate_one(same | {"workload": fast.trace}, slower)
    sums = np.zeros(8)
    for interval, times in fast.distinct_kernels:
        kernel = interval.kernel
        per_cta = (
            kernel.tensor_flops * hardware.tensor_j(kernel.tensor_dtype) / hardware.tensor_j_per_flop,
            kernel.fp32_flops,
            kernel.issue_slots,
            kernel.sfu_ops,
            kernel.shared_bytes,
            kernel.l2_bytes,
        )
        cycles = power.sm_cycles(kernel, interval.hbm_bytes, free)
        sums += times * np.array([cycles, *(kernel.grid * each for each in per_cta), interval.hbm_bytes])
    return Work(fast.latency_s, slow.latency_s, *sums.tolist())


def simulate_one(asked: dict[str, Any], hardware: Hardware) -> Result:
    """The run of those options of `simtti run` on `hardware`, whatever device and number of GPUs they name."""
    from simtti.simulator.run import run

    chosen = {
        name: value for name, value in asked.items() if name not in ("hw", "gpus", "parallel_vae", *DEGREES)
    }
    return run(chosen.pop("workload"), hardware, **{"fidelity": "closed", **chosen})


def energy_j(work: Work, hardware: Hardware) -> float:
    """Joules of a run on `hardware` at the clock that its power limit allows."""
    core_j = (
        work.sm_cycles * hardware.sm_cycle_j
        + work.tensor_flops * hardware.tensor_j_per_flop
        + work.fp32_flops * hardware.fp32_j_per_flop
        + work.issue_slots * hardware.instruction_j
        + work.sfu_ops * hardware.sfu_j_per_op
        + work.shared_bytes * hardware.shared_j_per_byte
        + work.l2_bytes * hardware.l2_j_per_byte
    )
    spent = power.Energy(core_j, work.hbm_bytes * hardware.hbm_j_per_byte)
    slope_s = (work.slow_s - work.boost_s) / (1 / SLOW_CLOCK - 1)

    def time_s(clock_hz: float) -> float:
        return work.boost_s + slope_s * (hardware.clock_hz / clock_hz - 1)

    clock_hz = power.sustained_clock_hz(spent, time_s, hardware)
    return hardware.static_power_w * time_s(clock_hz) + spent.at(clock_hz / hardware.clock_hz)


class EnergyModel:
    """Measured runs, whose energy is worked out again and again on devices that differ in their energy parameters."""

    def __init__(
        self,
        rows: pd.DataFrame,
        hardware: Hardware,
        workers: int | None,
        progress: Callable[[int, int], None] = lambda done, total: None,
        journal: Journal | None = None,
    ) -> None:
        """rows: whole inferences of `hardware` with energy_j (see validation.measurements.table). journal: of what the runs do."""
        self.measured_j = rows.energy_j.to_numpy(float)
        asked = [options(row) for row in rows.to_dict("records")]
        key_of, device = Keys(), fingerprint(hardware)
        keys = [f"work of {key_of(each)} on {device}" for each in asked]
        jobs = {key: (each, hardware) for key, each in zip(keys, asked, strict=True)}
        works: dict[str, Work] = {}
        with Pool(workers) as pool:
            for key, work in resumed(pool, work_of, jobs, journal):
                works[key] = Work(*work)
                progress(len(works), len(jobs))
        self.works = [works[key] for key in keys]

    def only(self, chosen: np.ndarray) -> EnergyModel:
        """The model of some of the runs."""
        part = copy.copy(self)
        part.measured_j = self.measured_j[chosen]
        part.works = [work for work, inside in zip(self.works, chosen, strict=True) if inside]
        return part

    def predicted(self, hardware: Hardware) -> np.ndarray:
        """Joules of each run."""
        return np.array([energy_j(work, hardware) for work in self.works])

    def log_ratios(self, hardware: Hardware) -> np.ndarray:
        """log(predicted / measured) of each run."""
        return np.log(self.predicted(hardware) / self.measured_j)
