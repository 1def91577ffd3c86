"""Releases of PyTorch: a device's kernels are those of the libraries, whichever part of an architecture runs them."""

import pytest

from simtti.errors import InputError
from simtti.hw_configs import devices, families
from simtti.hw_configs.hardware import parameter, release_of, with_parameters, with_pytorch

H100, H200 = devices.load("h100-sxm"), devices.load("h200-sxm")
NEW = families.parse(devices.RELEASES / "hopper-2.11.yaml")["calibration"]


def test_parts_of_one_die_have_the_same_kernels_of_a_release():
    new, old = with_pytorch(H100, "2.11"), with_pytorch(H200, "2.6")
    assert len(NEW) > 100
    for name, entry in NEW.items():
        assert parameter(new, name) == parameter(H200, name) == entry["value"]
        assert parameter(old, name) == parameter(H100, name)
    assert new.pytorch == "2.11"
    assert (new.hbm_bytes_per_s, new.collectives) == (H100.hbm_bytes_per_s, H100.collectives)


def test_there_and_back_changes_nothing():
    again = with_pytorch(with_pytorch(H100, "2.11"), "2.6")
    assert again.to_dict() == H100.to_dict()


def test_what_was_changed_stays_changed():
    changed = with_parameters(H100, {"conv_wgmma.latency_s": 1e-5})
    assert with_pytorch(changed, "2.11").conv_wgmma.latency_s == 1e-5
    faster = with_pytorch(H100.replace(hbm_bytes_per_s="2x"), "2.11")
    assert faster.hbm_bytes_per_s == 2 * H100.hbm_bytes_per_s
    assert faster.launch_s == H200.launch_s


@pytest.mark.parametrize("name", ["b200-sxm", "a100-sxm", "l40s"])
def test_other_architectures_have_one_calibration(name):
    device = devices.load(name)
    assert with_pytorch(device, "2.6").parameters == with_pytorch(device, "2.11").parameters


def test_a_device_file_names_a_release_that_there_is(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("base: h100-sxm\nname: mine\npytorch: '2.11'\nreleases: {'2.11': hoper-2.11}\n")
    with pytest.raises(InputError, match=r"mine.yaml: field 'releases': .*hopper-2\.11"):
        devices.load(str(path))
    path.write_text("base: h100-sxm\nname: mine\nreleases: {'3.0': hopper-2.11}\n")
    with pytest.raises(InputError, match=r"mine.yaml: field 'releases"):
        devices.load(str(path))


def test_a_device_file_takes_what_its_base_has_of_its_release(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("base: h100-sxm\nname: mine\npytorch: '2.11'\n")
    assert devices.load(str(path)).parameters == with_pytorch(H100, "2.11").parameters


@pytest.mark.parametrize(
    ("version", "release"), [("2.11.0+cu130", "2.11"), ("2.8", "2.11"), ("2.7.1", "2.6"), ("", None), ("nightly", None)]
)  # fmt: skip
def test_versions_of_torch_are_of_a_release(version, release):
    assert release_of(version) == release
