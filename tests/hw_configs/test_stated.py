"""Files that ship are not checked when they are read: so they are here."""

import sys

import pytest
import yaml

from simtti.errors import InputError, Problems
from simtti.hw_configs import devices, engines, hosts, stated


def test_every_device_that_ships_states_what_a_device_may():
    for name in devices.names():
        problems = Problems()
        stated.check_device(devices.read(name), problems)
        problems.raise_any(name)


def test_every_host_that_ships_states_what_a_host_may():
    content = yaml.safe_load((devices.DIRECTORY / "hosts.yaml").read_text())
    for name, host in content.items():
        problems = Problems()
        stated.check_host(host, problems)
        problems.raise_any(name)
    assert set(content) == set(hosts.hosts())


def test_engines_have_their_types():
    for engine in engines.engines().values():
        assert all(isinstance(word, str) for pair in engine.attention for word in pair)
        assert engine.attention_on("any")
        assert isinstance(engine.launch, str)
        assert isinstance(engine.traced, bool)
        assert engine.pytorch is None or isinstance(engine.pytorch, str)


def test_values_that_a_program_adds_are_checked(tmp_path):
    file = tmp_path / "more.yaml"
    file.write_text("calibration:\n  gemm_mma.issue: {value: much, source: a test, status: fitted}\n")
    devices.add_values(str(file))
    try:
        with pytest.raises(InputError, match=r"gemm_mma\.issue"):
            devices.load("h100-sxm")
    finally:
        devices.remove_values(str(file))


def test_a_device_that_ships_needs_no_pydantic():
    """In a process of its own: here it is imported already."""
    import subprocess

    code = (
        "import sys; from simtti.hw_configs.devices import load; load('h100-sxm'); "
        "sys.exit('pydantic' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
