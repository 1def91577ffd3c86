"""Names of devices: as drivers report them, and as people type them."""

import json

import pytest
from places import SHARED

from simtti.errors import InputError, nearest
from simtti.hw_configs import devices

REPORTED = {
    "NVIDIA GeForce RTX 5090": "rtx-5090",
    "NVIDIA GeForce RTX 3090": "rtx-3090",
    "GeForce RTX 3090": "rtx-3090",  # drivers of before 2021
    "A100-SXM4-40GB": "a100-sxm-40gb",
    "NVIDIA A100-PCIE-40GB": "a100-pcie-40gb",
    "NVIDIA A100 80GB PCIe": "a100-pcie",
    "NVIDIA A800-SXM4-80GB": "a800-sxm",
    "NVIDIA A10G": "a10g",
    "NVIDIA H100": "h100-sxm",
    "NVIDIA H100 80GB HBM3": "h100-sxm",
    "NVIDIA H100 NVL": "h100-nvl",
    "NVIDIA H200 NVL": "h200-nvl",
    "NVIDIA RTX 6000 Ada Generation": "rtx-6000-ada",
    "NVIDIA H800": "h800-sxm",
    "NVIDIA H20": "h20",
    "NVIDIA GH200 480GB": "gh200",
    "NVIDIA B300 SXM6 AC": "b300-sxm",
    "NVIDIA L4": "l4",
    "Tesla T4": "t4",
    "NVIDIA RTX PRO 6000 Blackwell Workstation Edition": "rtx-pro-6000-workstation",
    "NVIDIA RTX PRO 6000 Blackwell Server Edition": "rtx-pro-6000",
}


@pytest.mark.parametrize("product", REPORTED)
def test_a_product_is_the_device_that_reports_itself_so(product):
    found = devices.find_reported(product)
    assert found is not None
    assert found.name == REPORTED[product]


def test_no_two_devices_report_themselves_alike():
    reported = [
        product.casefold()
        for name in devices.names()
        for product in (devices.load(name).reported_as, *devices.load(name).also_reported_as)
    ]
    assert "" not in reported
    assert len(reported) == len(set(reported))


@pytest.mark.parametrize(
    ("product", "near"),
    [
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", "near it: h100-sxm)"),
        ("NVIDIA A100-SXM4-40GB MIG 3g.20gb", "near it: a100-sxm-40gb)"),
        ("NVIDIA GeForce RTX 5090 D", "rtx-5090"),
        ("NVIDIA GeForce RTX 4080 SUPER", "rtx-4090"),
        ("NVIDIA H20-3e", "h20"),
        ("Tesla V100-SXM2-32GB", "v100-sxm"),
        ("NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition", "rtx-pro-6000-workstation"),
        ("AMD Instinct MI300X", "simtti hw lists them"),
        ("", "a device that it does not name"),
    ],
)
def test_a_product_without_a_file_is_answered_with_the_nearest(product, near):
    assert devices.find_reported(product) is None
    message = str(devices.no_device_file(product))
    assert near in message
    assert "--trace-hw" in message
    assert ("MIG" in product) == ("slice" in message)


@pytest.mark.skipif(
    not (SHARED / "field" / "devnames").exists(), reason="no ../shared/field beside the checkout"
)
def test_every_whole_device_of_the_field_is_known():
    for path in sorted((SHARED / "field" / "devnames").glob("*.json")):
        product = json.loads(path.read_text())["deviceProperties"][0]["name"]
        assert (devices.find_reported(product) is None) == ("MIG" in product), product


@pytest.mark.parametrize(
    ("typed", "first"),
    [
        ("rtx5090", "'rtx-5090'"),
        ("RTX 5090", "'rtx-5090'"),
        ("H100", "'h100-nvl', 'h100-pcie', 'h100-sxm'"),
        ("h101", "'h100-"),
        ("4090", "'rtx-4090'"),
        ("A100 PCIe", "'a100-pcie'"),
        ("rtx-3090-ti", "'rtx-3090'"),
        ("b200", "'b200-sxm', 'gb200'"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest_whatever_its_case(typed, first):
    with pytest.raises(InputError) as caught:
        devices.load(typed)
    message = str(caught.value)
    assert message.startswith(f"unknown device {typed!r}; did you mean {first}")
    assert "known:" not in message, "thirty names hide the five that matter"


def test_a_name_like_no_other_is_answered_with_all():
    with pytest.raises(InputError, match=r"unknown device 'zzz'; \(known: a10, .*v100-sxm\)"):
        devices.load("zzz")
    assert nearest("", ["a", "b"]) == []
    assert nearest("wam2.1", ["wan2.1-14b", "svd"]) == ["wan2.1-14b"]


def test_a_file_may_have_several_names_of_its_product(tmp_path):
    path = tmp_path / "chip.yaml"
    path.write_text("base: h100-sxm\nname: chip\nreported_as: [NVIDIA X1, NVIDIA X1 PCIe]\n")
    device = devices.load(str(path))
    assert (device.reported_as, device.also_reported_as) == ("NVIDIA X1", ("NVIDIA X1 PCIe",))
    path.write_text("base: h100-sxm\nname: chip\nreported_as: 5\n")
    devices.load.cache_clear()
    with pytest.raises(InputError, match="reported_as"):
        devices.load(str(path))
