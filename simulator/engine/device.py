"""The device: SMs behind a block scheduler, L2, HBM, link and copy engine, in SimPy's time.

A kernel alone on the device takes what the closed form says (`cta` fidelity: what its CTAs, one by one, come to); its waves need
not be played out, since nothing would change them. When another arrives meanwhile, what has happened of the first is caught up
with, and from then on the block scheduler moves both, contending, until the device is idle again.
"""

from __future__ import annotations

from typing import Any, cast

import simpy

from simtti.hw_configs.hardware import Hardware
from simtti.simulator.closed_form import Demand, demand, lone_execution_s, repeated_hbm_bytes
from simtti.simulator.engine import power
from simtti.simulator.engine.block_scheduler import BlockScheduler, run_of
from simtti.simulator.engine.fair_share import NEVER
from simtti.simulator.engine.sm import KernelRun
from simtti.simulator.kernel import Kernel

FIDELITIES = ("wave", "cta")


class OnDevice:
    """A kernel on the device since `start_s`: with what it takes if it stays alone, and at which share of the boost clock."""

    __slots__ = ("alone_s", "clock", "hbm_bytes", "kernel", "run", "start_s")

    def __init__(
        self, kernel: Kernel, hbm_bytes: float, alone_s: float, clock: float, start_s: float
    ) -> None:
        self.kernel, self.hbm_bytes, self.alone_s = kernel, hbm_bytes, alone_s
        self.clock, self.start_s = clock, start_s
        self.run: KernelRun | None = None


class Device:
    """What all streams, copy engines and links of a GPU share, in a SimPy environment.

    contended: kernels that had company so far.
    """

    def __init__(self, env: simpy.Environment, hardware: Hardware, fidelity: str = "wave") -> None:
        if fidelity not in FIDELITIES:
            raise ValueError(f"fidelity must be one of {', '.join(FIDELITIES)}, not {fidelity!r}")
        self.env, self.hardware, self.fidelity = env, hardware, fidelity
        self.contended = 0
        self._alone: OnDevice | None = None
        self._scheduler: BlockScheduler | None = None
        self._plan = 0

    def execute(
        self,
        kernel: Kernel,
        hbm_bytes: float | None = None,
        alone_s: float | None = None,
        clock: float = 1.0,
    ) -> simpy.Event:
        """Launch `kernel` now. Returns the process of it, which ends when it has.

        hbm_bytes: what it moves to and from HBM; a repeated launch's if not given. alone_s: what it takes alone, where that is
        known already. clock: of the SMs, as a share of the boost clock.
        """
        return self.env.process(self.occupy(kernel, hbm_bytes, alone_s, clock))

    def occupy(
        self,
        kernel: Kernel,
        hbm_bytes: float | None = None,
        alone_s: float | None = None,
        clock: float = 1.0,
    ) -> Any:
        """`execute`, as part of the process of whoever waits for it."""
        moved = repeated_hbm_bytes(kernel) if hbm_bytes is None else hbm_bytes
        if alone_s is None:
            alone_s = execution_time_s(kernel, self.hardware, moved, self.fidelity)
        here = OnDevice(kernel, moved, alone_s, clock, self.env.now)
        if self._alone is None and self._scheduler is None:
            self._alone = here
            yield self.env.timeout(alone_s)
            if here.run is None:  # nobody came
                self._alone = None
                return
        else:
            self._join(here)
        assert here.run is not None
        if here.run.ended_s is NEVER:
            here.run.waiter = self.env.event()
            yield here.run.waiter

    def _join(self, here: OnDevice) -> None:
        """Add a kernel to those on the device; one that was alone is caught up with first."""
        now = self.env.now
        if self._scheduler is None:
            first = self._alone
            assert first is not None
            self._scheduler = BlockScheduler(self.hardware, self.fidelity, first.start_s)
            self._alone = None
            self._launch(first)
            while self._tell(self._scheduler.advance(now)):
                pass
        else:
            while self._tell(self._scheduler.advance(now)):
                pass
        self._launch(here)
        self._schedule()

    def _launch(self, here: OnDevice) -> None:
        assert self._scheduler is not None
        self.contended += 1
        here.run = run_of(here.kernel, _demand_at(here, self.hardware), self.hardware)
        self._scheduler.launch(here.run)

    def _tell(self, ended: list[KernelRun]) -> bool:
        """Wake those who wait for the kernels that ended; whether any did."""
        for run in ended:
            if run.waiter is not None:
                run.waiter.succeed()
        return bool(ended)

    def _schedule(self) -> None:
        """A timer for the next thing that happens on the device."""
        scheduler = self._scheduler
        assert scheduler is not None
        self._plan += 1
        if not scheduler.running:
            self._scheduler = None
            return
        timer = self.env.timeout(max(scheduler.next_s - self.env.now, 0.0), self._plan)
        timer.callbacks.append(self._tick)

    def _tick(self, timer: simpy.Event) -> None:
        if timer.value != self._plan:
            return  # a kernel came since: a later timer stands
        scheduler, now = self._scheduler, self.env.now
        assert scheduler is not None
        ended = scheduler.advance(now)
        # Until the next event of anybody else nothing can come in between: no timer is needed for each step.
        while not ended and scheduler.next_s < self.env.peek():
            ended = scheduler.advance(scheduler.next_s)
        if not ended:
            self._schedule()
            return
        if scheduler.now > now:  # it ran ahead to the end of a kernel: tell then
            self._plan += 1
            later = self.env.timeout(scheduler.now - now, (self._plan, ended))
            later.callbacks.append(self._tell_later)
            return
        self._tell(ended)
        self._schedule()

    def _tell_later(self, timer: simpy.Event) -> None:
        plan, ended = cast("tuple[int, list[KernelRun]]", timer.value)
        self._tell(ended)
        if plan == self._plan:
            self._schedule()


def _demand_at(here: OnDevice, hardware: Hardware) -> Demand:
    if here.clock == 1.0:
        return demand(here.kernel, hardware, here.hbm_bytes)
    device = power.at_clock(hardware, here.clock * hardware.clock_hz)
    return demand(power.slowed(here.kernel, here.clock), device, here.hbm_bytes)


def execution_time_s(
    kernel: Kernel, hardware: Hardware, hbm_bytes: float | None = None, fidelity: str = "wave"
) -> float:
    """Seconds from the start to the end of `kernel` alone on `hardware`, without the launch gap before it.

    fidelity: 'wave': in closed form where its CTAs are alike; 'cta', and kinds of CTA, by the block scheduler.
    """
    moved = repeated_hbm_bytes(kernel) if hbm_bytes is None else hbm_bytes
    if fidelity == "wave" and not kernel.kinds:
        return lone_execution_s(kernel, hardware, moved)
    return played_s(kernel, hardware, moved, fidelity)


def played_s(kernel: Kernel, hardware: Hardware, hbm_bytes: float, fidelity: str) -> float:
    """`execution_time_s` by the block scheduler, whatever the kernel."""
    scheduler = BlockScheduler(hardware, fidelity)
    run = run_of(kernel, demand(kernel, hardware, hbm_bytes), hardware)
    scheduler.launch(run)
    while run.ended_s is NEVER:
        scheduler.advance(scheduler.next_s)
    return run.ended_s
