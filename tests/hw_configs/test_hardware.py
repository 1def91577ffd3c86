"""Device files: validation, inheritance, errors that name the file, the field and the mend."""

import pandas as pd
import pytest
import yaml

from simtti.dtypes import DTYPES, DType
from simtti.errors import InputError
from simtti.hw_configs import devices, hardware


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
    device = devices.load(name)
    assert device.peak_flops() / 1e12 == pytest.approx(peak_tflops, rel=0.001)
    assert device.hbm_bytes_per_s == bandwidth
    assert device.hbm_capacity_bytes == gib * 2**30


def test_every_number_has_a_source():
    for name in devices.names():
        content = devices.read(name)
        for section in ("datasheet", "calibration"):
            assert all(len(entry["source"]) > 3 for entry in content[section].values())
            assert all("what-if" not in entry["source"] for entry in content[section].values()), (
                "stands alone"
            )


def test_a_device_of_your_own_says_what_differs(tmp_path):
    path = write(tmp_path, base="h100-sxm", name="big", datasheet={"sm_count": quantity(264)})
    assert devices.load(path).sm_count == 264
    assert devices.load(path).clock_hz == devices.load("h100-sxm").clock_hz


def test_an_unknown_device_names_the_nearest():
    with pytest.raises(InputError, match=r"unknown device 'h100'.*'h100-sxm'"):
        devices.load("h100")


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
        devices.load(path)
    assert "\n" not in str(caught.value)


def test_a_missing_field_is_named(tmp_path):
    path = write(tmp_path, name="x", architecture="hopper", attention_kernel="flash-attention-2")
    with pytest.raises(InputError, match=r"chip.yaml: field 'datasheet' is missing"):
        devices.load(path)


def test_what_is_not_yaml_is_said_to_be_so(tmp_path):
    path = tmp_path / "chip.yaml"
    path.write_text("a: [1,\n b: }")
    with pytest.raises(InputError, match="not valid YAML"):
        devices.load(str(path))


def test_a_circle_of_bases_is_refused(tmp_path):
    path = tmp_path / "chip.yaml"
    path.write_text(f"base: {path}\n")
    with pytest.raises(InputError, match="is a circle"):
        devices.load(str(path))


# Datasheet: dense fp16 TFLOP/s with FP32 accumulate at its own clock in GHz, FP32 TFLOP/s at that clock, bytes/s of memory.
DATASHEETS = {
    "a100-pcie": (312.0, 1.41, 19.5, 1.935e12),
    "a100-pcie-40gb": (312.0, 1.41, 19.5, 1.555e12),
    "a800-sxm": (312.0, 1.41, 19.5, 2.039e12),
    "h100-pcie": (756.0, 1.62, 51.2 * 1.62 / 1.755, 2.039e12),  # FP32: 51.2 at 1.755 GHz
    "h100-nvl": (835.5, 1.545, 60.3 * 1.545 / 1.785, 3.938e12),  # FP32: 60 at 1.785 GHz
    "h200-nvl": (835.5, 1.545, 60.3 * 1.545 / 1.785, 4.8e12),
    "h800-sxm": (989.4, 1.83, 66.9 * 1.83 / 1.98, 3.35e12),
    "h20": (148.0, 1.853, 39.5 * 1.853 / 1.98, 4.0e12),  # FP32: 44 in the datasheet, more than 78 SMs have
    "gh200": (989.4, 1.83, 66.9 * 1.83 / 1.98, 4.0e12),
    "gh200-144gb": (989.4, 1.83, 66.9 * 1.83 / 1.98, 4.9e12),
    "b200-sxm": (2250.0, 1.856, 75.0 * 1.856 / 1.98, 8.0e12),  # FP32: 75 at 1.98 GHz
    "b300-sxm": (2250.0, 1.856, 75.0 * 1.856 / 1.98, 8.0e12),
    "gb200": (2500.0, 2.062, 78.0, 8.0e12),
    "gb300": (2500.0, 2.062, 78.0, 8.0e12),
    "l4": (121.0, 2.04, 30.3, 3.0e11),
    "l20": (119.5, 2.52, 59.35, 8.64e11),
    "l40": (181.05, 2.49, 90.5, 8.64e11),
    "l40s": (366.5, 2.52, 91.6, 8.64e11),  # 733 sparse; 362.05 in the dense column
    "rtx-6000-ada": (364.2, 2.505, 91.1, 9.6e11),
    "rtx-3090": (71.2, 1.695, 35.6, 9.36e11),
    "rtx-4090": (165.2, 2.52, 82.6, 1.008e12),
    "rtx-5080": (112.6, 2.617, 56.3, 9.6e11),
    "rtx-5090": (209.5, 2.407, 104.8, 1.792e12),
    "rtx-pro-6000": (503.8, 2.617, 126.0, 1.597e12),
    "rtx-pro-6000-workstation": (503.8, 2.617, 126.0, 1.792e12),
    "rtx-a6000": (154.8, 1.8, 38.7, 7.68e11),
    "a10": (125.0, 1.695, 31.2, 6.0e11),
    "a10g": (70.0, 1.71, 35.0, 6.0e11),
    "v100-sxm": (125.3, 1.53, 15.7, 9.0e11),
    "t4": (65.1, 1.59, 8.1, 3.2e11),
}


@pytest.mark.parametrize("name", sorted(DATASHEETS))
def test_devices_have_their_datasheet_figures(name):
    tflops, ghz, fp32_tflops, bandwidth = DATASHEETS[name]
    device = devices.load(name)
    assert device.peak_flops() / device.clock_hz * ghz * 1e9 / 1e12 == pytest.approx(tflops, rel=0.01)
    fp32 = device.fp32_flops_per_cycle_sm * device.sm_count * ghz * 1e9 / 1e12
    assert fp32 == pytest.approx(fp32_tflops, rel=0.01)
    assert device.hbm_bytes_per_s == bandwidth
    assert device.static_power_w < 0.5 * device.power_limit_w


def test_every_device_has_its_datasheet_figures_tested():
    calibrated = {"a100-sxm", "a100-sxm-40gb", "h100-sxm", "h200-sxm"}  # above
    assert calibrated | set(DATASHEETS) == set(devices.names())


# Of the datasheets: TFLOP/s or TOP/s, dense, of other formats at the clock above: FP8, FP4 (0: none), INT8, TF32.
OTHER_FORMATS = {
    "rtx-5090": (419.0, 1676.0, 838.0, 104.8),
    "rtx-5080": (225.1, 900.4, 450.2, 56.3),
    "rtx-3090": (0.0, 0.0, 284.0, 35.6),
    "a10g": (0.0, 0.0, 140.0, 35.0),
    "l4": (242.5, 0.0, 242.5, 60.5),
    "l20": (239.0, 0.0, 239.0, 59.8),
    "l40": (362.0, 0.0, 362.0, 90.5),
    "h20": (296.0, 0.0, 296.0, 74.0),
    "gb300": (5000.0, 15000.0, 165.0, 1250.0),
    "rtx-pro-6000-workstation": (1007.0, 2015.0, 1007.0, 251.9),
}


@pytest.mark.parametrize("name", sorted(OTHER_FORMATS))
def test_other_formats_run_at_the_datasheets_rates(name):
    device, ghz = devices.load(name), DATASHEETS[name][1]
    rates = (
        device.tensor_fp8_flops_per_cycle_sm,
        device.tensor_fp4_flops_per_cycle_sm,
        device.tensor_int8_flops_per_cycle_sm,
        device.tensor_tf32_flops_per_cycle_sm,
    )
    found = [rate * device.sm_count * ghz * 1e9 / 1e12 for rate in rates]
    assert found == pytest.approx(OTHER_FORMATS[name], rel=0.02)


@pytest.mark.parametrize(
    ("name", "dtypes"), [(name, ("fp16", "fp32")) for name in devices.names()], ids=devices.names()
)
def test_every_device_times_every_family(name, dtypes):
    """Every kernel family fits the device, with and without tensor cores for the type."""
    from simtti.simulator.predict import predict

    shapes = [
        {"op": "gemm", "m": 4096, "n": 1280, "k": 1280},
        {"op": "gemm", "m": 77, "n": 333, "k": 129},
        {"op": "attention", "heads": 8, "q_len": 4096, "kv_len": 4096, "head_dim": 40},
        {
            "op": "attention",
            "heads": 8,
            "q_len": 1024,
            "kv_len": 77,
            "head_dim": 128,
            "kernel": "flash-attention-3",
        },
        {
            "op": "attention",
            "heads": 8,
            "q_len": 1024,
            "kv_len": 1024,
            "head_dim": 512,
            "kernel": "efficient",
        },
        {"op": "attention", "heads": 8, "q_len": 1024, "kv_len": 1024, "head_dim": 64, "kernel": "baseline"},
        {"op": "conv2d", "n": 2, "c": 320, "h": 64, "w": 64, "oc": 320, "kh": 3, "kw": 3, "padding": 1},
        {"op": "conv2d", "n": 1, "c": 128, "h": 512, "w": 512, "oc": 3, "kh": 3, "kw": 3, "padding": 1},
        {"op": "conv3d", "n": 1, "c": 96, "d": 6, "h": 64, "w": 64, "oc": 96, "kd": 3, "kh": 3, "kw": 3},
        {"op": "group_norm", "n": 2, "c": 320, "spatial": 4096},
        {"op": "layer_norm", "rows": 8192, "cols": 1280},
        {"op": "softmax", "rows": 8192, "cols": 4096},
        {"op": "elementwise", "numel": 1 << 20},
    ]
    rows = pd.DataFrame([shape | {"dtype": dtype} for shape in shapes for dtype in dtypes])
    assert set(predict(rows, name)["error"]) == {""}


def test_stable_diffusion_runs_on_every_device_and_the_order_is_sensible():
    """From a CUDA graph: the device's speed, not the host's."""
    import simtti

    time_s = {
        name: simtti.run("stable-diffusion", hw=name, steps=2, launch="graph", fidelity="closed").latency_s
        for name in devices.names()
    }
    slow_to_fast = [
        "t4",
        "v100-sxm",
        "rtx-a6000",
        "a100-sxm-40gb",
        "a100-sxm",
        "h100-pcie",
        "h100-sxm",
        "h200-sxm",
        "b200-sxm",
    ]
    assert sorted(slow_to_fast, key=lambda name: -time_s[name]) == slow_to_fast
    assert (
        time_s["t4"]
        > time_s["a10"]
        > time_s["rtx-a6000"]
        > time_s["rtx-4090"]
        > time_s["l40s"]
        > time_s["rtx-pro-6000"]
    )
    assert 3 < time_s["t4"] / time_s["h100-sxm"] < 17  # fp16 peaks differ by 16, bandwidths by 10


UNITS = {
    "mma_registers": {"t4", "v100-sxm"},
    "mma": {"a10", "a10g", "a100-pcie", "a100-pcie-40gb", "a100-sxm", "a100-sxm-40gb", "a800-sxm", "l4", "l20", "l40", "l40s",
            "rtx-3090", "rtx-4090", "rtx-5080", "rtx-5090", "rtx-6000-ada", "rtx-a6000", "rtx-pro-6000", "rtx-pro-6000-workstation"},
    "wgmma": {"gh200", "gh200-144gb", "h20", "h100-nvl", "h100-pcie", "h100-sxm", "h200-nvl", "h200-sxm", "h800-sxm"},
    "tcgen05": {"b200-sxm", "b300-sxm", "gb200", "gb300"},
}  # fmt: skip


def test_shipped_devices_have_the_matrix_unit_of_their_architecture():
    found = {
        unit: {name for name in devices.names() if devices.load(name).matrix_unit == unit} for unit in UNITS
    }
    assert found == UNITS


def test_a_new_architecture_says_what_feeds_its_tensor_cores(tmp_path):
    from simtti.simulator.lowering.registry import kernels_of

    rows = [
        {"op": "gemm", "dtype": "bf16", "m": 4096, "n": 4096, "k": 4096},
        {"op": "attention", "dtype": "bf16", "heads": 8, "q_len": 4096, "kv_len": 4096, "head_dim": 128,
         "kernel": "flash-attention-3"},
    ]  # fmt: skip
    with pytest.raises(
        InputError, match=r"field 'architecture': 'rubin' is none of volta, .*'matrix_unit' must say"
    ):
        devices.load(write(tmp_path, base="b200-sxm", name="x", architecture="rubin"))
    devices.load.cache_clear()
    device = devices.load(
        write(tmp_path, base="b200-sxm", name="x", architecture="rubin", matrix_unit="tcgen05")
    )
    for row in rows:
        assert kernels_of(row, device) == kernels_of(row, devices.load("b200-sxm"))


def test_a_matrix_unit_is_not_inherited_by_another_architecture(tmp_path):
    first, second, third = (tmp_path / f"{name}.yaml" for name in ("first", "second", "third"))
    first.write_text("base: h100-sxm\nname: first\nmatrix_unit: mma\n")
    second.write_text(f"base: {first}\nname: second\n")
    third.write_text(f"base: {first}\nname: third\narchitecture: blackwell\n")
    units = [devices.load(str(path)).matrix_unit for path in (first, second, third)]
    assert units == ["mma", "mma", "tcgen05"]


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("matrix_unit", "mfma", "'matrix_unit'.*not 'mfma'"),
        (
            "attention_kernel",
            "flash-5",
            "field 'attention_kernel': should be one of flash-attention-1, .*, not 'flash-5'",
        ),
    ],
)
def test_an_unknown_word_in_the_head_is_named(tmp_path, field, value, message):
    with pytest.raises(InputError, match=message):
        devices.load(write(tmp_path, base="h100-sxm", name="x", **{field: value}))


def test_a_dtype_is_multiplied_at_the_rate_that_its_entry_names(monkeypatch):
    h100 = devices.load("h100-sxm")
    monkeypatch.setitem(DTYPES, "fp6", DType(1, "tensor_fp8_flops_per_cycle_sm"))
    assert h100.tensor_flops_per_cycle_sm("fp6") == h100.tensor_flops_per_cycle_sm("fp8")
    for name in ("nvfp4", "fp5"):
        with pytest.raises(
            InputError, match=f"no tensor-core path for dtype '{name}' .it has: fp32, bf16, fp16, fp8,"
        ):
            h100.tensor_flops_per_cycle_sm(name)
    with pytest.raises(
        InputError, match=r"v100-sxm has no tensor-core path for dtype 'fp32' \(it has: fp16\)"
    ):
        devices.load("v100-sxm").tensor_flops_per_cycle_sm("fp32")


def test_a_group_that_inherits_follows_what_it_inherits_from():
    """Calibrated, too: what unaligned rows do not state of their own is the aligned kernels' of the same device."""
    a100 = devices.load("a100-sxm")
    assert a100.gemm_unaligned.fill_cost == a100.gemm_mma.fill_cost
    moved = hardware.with_parameters(a100, {"gemm_mma.fill_cost": 2.0})
    assert moved.gemm_unaligned.fill_cost == 2.0
    assert moved.gemm_unaligned.read_efficiency == a100.gemm_unaligned.read_efficiency


def test_what_connects_the_gpus_is_stated_and_checked(tmp_path):
    path = write(tmp_path, base="h100-sxm", name="x", interconnect="infiniband")
    with pytest.raises(
        InputError, match=r"'interconnect'.*'nvswitch', 'nvlink', 'pcie' or 'host'.*not 'infiniband'"
    ):
        devices.load(path)
    over_host = {name for name in devices.names() if devices.load(name).interconnect == "pcie"}
    assert {"l40s", "rtx-4090", "rtx-pro-6000", "a100-pcie"} <= over_host
    assert not over_host & {"a100-sxm", "a800-sxm", "h800-sxm", "h20", "h100-nvl"}
