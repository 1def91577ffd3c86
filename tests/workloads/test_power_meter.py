"""What a GPU draws, without one: NVML's functions, and what is said where they are not there."""

import sys
from types import SimpleNamespace

import pytest

from simtti.workloads.power_meter import HOW_TO_INSTALL, Draw, PowerMeter, nvml_meter


def nvml(**functions):
    energies = iter(range(0, 10**9, 5000))  # 5 J from one reading to the next
    return SimpleNamespace(
        **{
            "NVML_CLOCK_SM": 1,
            "nvmlInit": lambda: None,
            "nvmlDeviceGetHandleByUUID": lambda uuid: uuid,
            "nvmlDeviceGetTotalEnergyConsumption": lambda handle: next(energies),
            "nvmlDeviceGetPowerUsage": lambda handle: 300_000,
            "nvmlDeviceGetClockInfo": lambda handle, clock: 1500,
            **functions,
        }
    )


def broken(*_):
    raise RuntimeError("Not Supported")


def test_a_draw_is_the_counters_difference_and_the_means_of_samples(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", nvml())
    with nvml_meter("GPU-1-2") as meter:
        assert meter._handle == "GPU-1-2"
        for _ in range(2):
            meter.start()
            draw = meter.stop()
            assert draw.energy_j == 5.0
            assert draw.mean_w == pytest.approx(5.0 / draw.seconds)
            assert (draw.sm_clock_mhz, draw.sm_clock_min_mhz, draw.missing) == (1500.0, 1500.0, "")


def test_without_a_counter_power_is_what_was_sampled():
    meter = PowerMeter(nvml(nvmlDeviceGetTotalEnergyConsumption=broken), None)
    meter.start()
    draw = meter.stop()
    assert (draw.energy_j, draw.mean_w, draw.missing) == (None, 300.0, "NVML does not tell the GPU's energy")


def test_what_is_missing_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    meter = nvml_meter()
    meter.start()
    draw = meter.stop()
    assert draw == Draw(draw.seconds, missing=HOW_TO_INSTALL)
    monkeypatch.setitem(sys.modules, "pynvml", nvml(nvmlInit=broken))
    assert nvml_meter().missing == "NVML does not answer: Not Supported"
    meter = PowerMeter(nvml(nvmlDeviceGetClockInfo=broken), None)
    meter.start()
    draw = meter.stop()
    assert (draw.energy_j, draw.sm_clock_mhz, draw.missing) == (
        5.0,
        None,
        "NVML does not tell the GPU's clock",
    )
