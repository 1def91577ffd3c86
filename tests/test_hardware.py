"""Device files: validation, inheritance, errors that name the file, the field and the mend."""

import pytest
import yaml

from simtti.errors import InputError
from simtti.hw_configs import hardware


def write(tmp_path, **content):
    path = tmp_path / "chip.yaml"
    path.write_text(yaml.safe_dump(content))
    return str(path)


def quantity(value):
    return {"value": value, "source": "a test"}


@pytest.mark.parametrize(
    ("name", "peak_tflops", "bandwidth", "gib"),
    [
        # Datasheet figures: dense FP16 at the datasheet's boost clock, bandwidth, capacity.
        ("a100-sxm-40gb", 312, 1.555e12, 40),
        ("a100-sxm", 312, 2.039e12, 80),
        ("h100-sxm", 989.4 * 1.98 / 1.83, 3.35e12, 80),
        ("h200-sxm", 989.4 * 1.98 / 1.83, 4.8e12, 141),
    ],
)
def test_shipped_devices_have_their_datasheet_figures(name, peak_tflops, bandwidth, gib):
    device = hardware.load(name)
    assert device.peak_flops() / 1e12 == pytest.approx(peak_tflops, rel=0.001)
    assert device.hbm_bytes_per_s == bandwidth
    assert device.hbm_capacity_bytes == gib * 2**30


def test_every_number_has_a_source():
    for name in hardware.names():
        content = hardware.read(name)
        for section in ("datasheet", "calibration"):
            assert all(len(entry["source"]) > 3 for entry in content[section].values())


def test_a_device_of_your_own_says_what_differs(tmp_path):
    path = write(tmp_path, base="h100-sxm", name="big", datasheet={"sm_count": quantity(264)})
    assert hardware.load(path).sm_count == 264
    assert hardware.load(path).clock_hz == hardware.load("h100-sxm").clock_hz


def test_an_unknown_device_names_the_nearest():
    with pytest.raises(InputError, match=r"unknown device 'h100'.*'h100-sxm'"):
        hardware.load("h100")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"datasheet": {"hbm_bytes_per_s": quantity(0.0)}}, r"hbm_bytes_per_s.value.*greater than.*not 0.0"),
        ({"datasheet": {"hbm_bytes_per_s": quantity(-1.0)}}, r"hbm_bytes_per_s.value.*not -1.0"),
        (
            {"datasheet": {"sm_cuont": quantity(3)}},
            r"unknown field 'datasheet.sm_cuont'; did you mean 'sm_count'",
        ),
        ({"datasheet": {"sm_count": quantity(1.5)}}, r"sm_count.value.*not 1.5"),
        ({"datasheet": {"sm_count": quantity("many")}}, r"sm_count.value.*not 'many'"),
        ({"datasheet": {"sm_count": {"value": 3}}}, r"'datasheet.sm_count.source' is missing"),
        ({"datasheet": {"clock_hz": quantity(float("nan"))}}, r"clock_hz.value"),
        ({"clokc": 1}, r"unknown field 'clokc'"),
        ({"base": "h1000-sxm"}, r"unknown device 'h1000-sxm'"),
    ],
)
def test_a_bad_device_names_the_field_and_the_value(tmp_path, content, message):
    path = write(tmp_path, **{"base": "h100-sxm", "name": "x", **content})
    with pytest.raises(InputError, match=message) as caught:
        hardware.load(path)
    assert "\n" not in str(caught.value)


def test_a_missing_field_is_named(tmp_path):
    path = write(tmp_path, name="x", architecture="hopper", attention_kernel="flash-attention-2")
    with pytest.raises(InputError, match=r"chip.yaml: field 'datasheet' is missing"):
        hardware.load(path)


def test_what_is_not_yaml_is_said_to_be_so(tmp_path):
    path = tmp_path / "chip.yaml"
    path.write_text("a: [1,\n b: }")
    with pytest.raises(InputError, match="not valid YAML"):
        hardware.load(str(path))


def test_a_circle_of_bases_is_refused(tmp_path):
    path = tmp_path / "chip.yaml"
    path.write_text(f"base: {path}\n")
    with pytest.raises(InputError, match="is a circle"):
        hardware.load(str(path))
