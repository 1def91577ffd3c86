"""The device: SMs behind a block scheduler, L2 and HBM, as one SimPy model, and a kernel's time on it alone."""

from __future__ import annotations

import simpy

from simtti.hw_configs.hardware import Hardware
from simtti.simulator.closed_form import link_s, repeated_hbm_bytes
from simtti.simulator.engine.block_scheduler import BlockScheduler
from simtti.simulator.engine.fair_share import FairShare
from simtti.simulator.kernel import Kernel

FIDELITIES = ("wave", "cta")


class Device:
    """SMs, L2 and HBM of `hardware` in a SimPy environment. `execute` runs a kernel among whatever else runs."""

    def __init__(
        self, env: simpy.Environment, hardware: Hardware, fidelity: str = "wave", alone: bool = False
    ) -> None:
        if fidelity not in FIDELITIES:
            raise ValueError(f"fidelity must be one of {', '.join(FIDELITIES)}, not {fidelity!r}")
        self.l2 = FairShare(env, hardware.l2_attained_bytes_per_s)
        self.hbm = FairShare(env, hardware.hbm_attained_bytes_per_s)
        self.scheduler = BlockScheduler(env, hardware, self.l2, self.hbm, fidelity, alone)

    def execute(self, kernel: Kernel, hbm_bytes: float | None = None) -> simpy.Event:
        """Launch `kernel` now. hbm_bytes: what it moves to and from HBM; a repeated launch's if not given."""
        return self.scheduler.launch(kernel, repeated_hbm_bytes(kernel) if hbm_bytes is None else hbm_bytes)


def execution_time_s(
    kernel: Kernel, hardware: Hardware, hbm_bytes: float | None = None, fidelity: str = "wave"
) -> float:
    """Seconds from the start to the end of `kernel` alone on `hardware`, without the launch gap before it."""
    env = simpy.Environment()
    env.run(until=Device(env, hardware, fidelity, alone=True).execute(kernel, hbm_bytes))
    return max(env.now, link_s(kernel, hardware)) if kernel.link_bytes else env.now
