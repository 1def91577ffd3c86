"""What differs from a device: --set, Hardware.replace, a file's plain values and '1.5x'."""

import json

import pandas as pd
import pytest
from calls import call, refused

from simtti.errors import InputError
from simtti.hw_configs.devices import load
from simtti.hw_configs.quantities import quantity


@pytest.mark.parametrize(
    ("field", "written", "value"),
    [
        ("hbm_bytes_per_s", "3.35 TB/s", 3.35e12),
        ("hbm_bytes_per_s", "3.35T", 3.35e12),
        ("l2_capacity_bytes", "100MiB", 100 * 2**20),
        ("l2_capacity_bytes", "100 MB", 1e8),
        ("l2_capacity_bytes", "1e8", 1e8),
        ("launch_s", "1.5 us", 1.5e-6),
        ("clock_hz", "1.8GHz", 1.8e9),
        ("power_limit_w", "500 W", 500.0),
        ("power_limit_w", 500, 500.0),
        ("sm_count", "1.5x", 198.0),
    ],
)
def test_a_number_is_read_in_the_unit_of_its_field(field, written, value):
    assert quantity(field, written, base=132.0) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize(
    ("field", "written"),
    [("hbm_bytes_per_s", "3 TB"), ("hbm_bytes_per_s", "3 Tb/s"), ("sm_count", "5 W"), ("clock_hz", "fast"), ("clock_hz", True)],
)  # fmt: skip
def test_what_is_no_number_of_the_field_is_refused(field, written):
    with pytest.raises(InputError, match="should be a number, as"):
        quantity(field, written, base=1.0)


def test_a_changed_device_differs_in_that_and_says_so():
    base, device = load("h100-sxm"), load("h100-sxm").replace(hbm_bytes_per_s="1.5x", power_limit_w=500)
    assert device.name == "h100-sxm+hbm_bytes_per_s=1.5x+power_limit_w=500"
    assert device.hbm_bytes_per_s == 1.5 * base.hbm_bytes_per_s
    assert device.power_limit_w == 500
    theirs, mine = base.to_dict(), device.to_dict()
    assert {name for name in theirs if theirs[name] != mine[name]} == {
        "name", "reported_as", "also_reported_as", "hbm_bytes_per_s", "power_limit_w",
    }  # fmt: skip
    assert load(device.name).to_dict() == mine, "the name loads the same device"


def test_another_clock_takes_the_energies_with_it_as_in_a_file(tmp_path):
    path = tmp_path / "slow.yaml"
    path.write_text("base: h100-sxm\nname: slow\ndatasheet: {clock_hz: 0.5x}\n")
    from_file, replaced = load(str(path)), load("h100-sxm").replace(clock_hz="0.5x")
    assert replaced.instruction_j == pytest.approx(from_file.instruction_j)
    assert replaced.instruction_j < load("h100-sxm").instruction_j
    assert load("h100-sxm").replace(clock_hz="0.5x", instruction_j=1e-11).instruction_j == 1e-11


def test_a_parameter_of_a_kernel_family_is_changed_by_its_group():
    device = load("h100-sxm").replace(**{"gemm_mma.setup_cycles": "2x"})
    assert device.gemm_mma.setup_cycles == 2 * load("h100-sxm").gemm_mma.setup_cycles


def test_a_file_takes_the_same_spellings_and_values_alone(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "base: h100-sxm\nname: mine\ndatasheet:\n  hbm_bytes_per_s: 1.5x\n  sm_count: 200\n  power_limit_w: 1e3\n"
        "  l2_capacity_bytes: {value: 100 MB, source: a plan}\ncalibration:\n  launch_s: 1 us\n  gemm_mma.setup_cycles: 2x\n"
    )
    device, base = load(str(path)), load("h100-sxm")
    assert device.hbm_bytes_per_s == 1.5 * base.hbm_bytes_per_s
    assert (device.sm_count, device.power_limit_w, device.l2_capacity_bytes, device.launch_s) == (
        200,
        1000,
        1e8,
        1e-6,
    )
    assert device.gemm_mma.setup_cycles == 2 * base.gemm_mma.setup_cycles
    path.write_text("base: h100-sxm\nname: mine\ndatasheet: {hbm_bytes_per_s: 3 apples}\n")
    load.cache_clear()
    with pytest.raises(
        InputError,
        match=r"mine.yaml: field 'datasheet.hbm_bytes_per_s.value': should be a number.*'3 apples'",
    ):
        load(str(path))


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("hbm_byte_per_s=1.5x", ["unknown field", "'hbm_bytes_per_s'"]),
        ("hbm_bytes_per_s=1.5y", ["hbm_bytes_per_s", "1.5y", "100 MB/s"]),
        ("sm_count=1.3x", ["sm_count", "whole", "171.6"]),
        ("sm_count=0x", ["sm_count", "from 1 to 4096"]),
        ("sm_count", ["sm_count", "FIELD=VALUE"]),
        ("interconnect=pci", ["unknown interconnect", "'pcie'"]),
    ],
)
def test_a_change_that_cannot_be_is_one_line(said, words):
    line = refused("run", "stable-diffusion", "--hw", "h100-sxm", "--set", said)
    assert all(word in line for word in words), line


def test_run_and_sweep_run_the_changed_device(tmp_path):
    arguments = (
        "run",
        "stable-diffusion",
        "--hw",
        "h100-sxm",
        "--steps",
        2,
        "--launch",
        "graph",
        "--fidelity",
        "closed",
    )
    whole = json.loads(call(*arguments, "--json", "-")[1])
    half = json.loads(
        call(*arguments, "--set", "sm_count=66", "--set", "hbm_bytes_per_s=0.5x", "--json", "-")[1]
    )
    assert half["configuration"]["hw"] == "h100-sxm+sm_count=66+hbm_bytes_per_s=0.5x"
    assert 1.3 < half["latency_s"] / whole["latency_s"] < 2.1
    rows = pd.DataFrame({"workload": "stable-diffusion", "hw": "h100-sxm", "steps": 2, "launch": "graph",
                         "set": [None, "sm_count=66; hbm_bytes_per_s=0.5x"]})  # fmt: skip
    rows.to_csv(tmp_path / "in.csv", index=False)
    code, _, errors = call("sweep", tmp_path / "in.csv", "--out", tmp_path / "out.csv", "--workers", 1)
    assert code == 0, errors
    found = pd.read_csv(tmp_path / "out.csv")
    assert list(found.latency_s) == pytest.approx([whole["latency_s"], half["latency_s"]])
    assert found.step_s[0] == pytest.approx(whole["phases"][1]["step_s"])
    assert found.fits.all()
