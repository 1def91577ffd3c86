"""What the driver says of a device's clocks."""

import os
import sys

from simtti.validation.measurements.bench import driver


def test_clocks_come_from_nvidia_smi_where_there_is_no_pynvml(tmp_path, monkeypatch):
    smi = tmp_path / "nvidia-smi"
    smi.write_text("""#!/bin/sh
case "$1" in *driver_version*) echo "570.10, 1980, 2619, 700.00";; *) echo "1755, 2619, 41, [N/A]";; esac
""")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setitem(sys.modules, "pynvml", None)
    found = driver.Smi(None)
    assert found.facts() == {
        "driver": "570.10",
        "max_sm_clock_mhz": 1980.0,
        "max_memory_clock_mhz": 2619.0,
        "power_limit_w": 700.0,
    }
    assert found.state() == {
        "sm_clock_mhz": 1755.0,
        "memory_clock_mhz": 2619.0,
        "temperature_c": 41.0,
        "power_w": None,
    }
    smi.unlink()
    assert found.facts()["driver"] is None
