"""A file in which several things are wrong says all of them, in one line."""

import json

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from calls import call, refused
from small_traces import small_trace

from simtti.errors import InputError, Problems
from simtti.hw_configs.devices import load
from simtti.hw_configs.hosts import load_host
from simtti.hw_configs.prices import load_prices
from simtti.validation.measurements.check import check
from simtti.workloads.cache_schedule import cache_of
from simtti.workloads.trace import Trace


def test_problems_are_noted_once_a_field_and_said_together():
    problems = Problems()
    problems.raise_any("file")
    for text, field in (("a is 1", "a"), ("b is 2", "b"), ("a is no text", "a")):
        problems.note(text, field)
    with problems.noted():
        raise InputError("c is missing")
    with pytest.raises(InputError, match=r"^file: a is 1; b is 2; c is missing$"):
        problems.raise_any("file")


def test_very_many_are_counted():
    problems = Problems()
    for number in range(500):
        problems.note(f"field {number} is wrong")
    with pytest.raises(InputError, match=r"^x: field 0 is wrong; .*; and 4\d\d more$") as raised:
        problems.raise_any("x")
    assert len(str(raised.value)) <= 1200


def test_other_errors_go_through():
    problems = Problems()
    with pytest.raises(KeyError), problems.noted():
        raise KeyError("bug")
    assert not problems


DEVICE = """
base: h100-sxm
name: mine
archtecture: hopper
attention_kernel: flash-attention-9
datasheet:
  hbm_bytes_per_s: 3 parsecs
  sm_count: 100.5
  l2_capacity_bytes: 1e30
calibration:
  hbm_efficiency: {value: 0.9, source: measured, status: certain}
"""
SPEC = """
base: h100-smx
parameters: {sm_cuont: {low: 4, high: 2}}
workloads: [{workload: sdxll, batch: 0, launch: eagr}]
objectives: [latncy_s]
"""
FILES = {
    "device": (DEVICE, load, ("archtecture", "flash-attention-9", "3 parsecs", "100.5", "l2_capacity_bytes", "certain")),
    "host": ("base: slow-mv\nspeed: -1\nview_s: x\nsource: what if\n", load_host, ("slow-mv", "speed", "view_s")),
    "schedule": (
        "cache: fbcache\nfn: 2\nwarmup: 0\nstepz: 1\nsteps: [full, jump, {run: a-b}, {do: hit, times: 0}]\n",
        cache_of,
        ("fn is dbcache's", "warmup is 0", "'stepz'", "steps[1]", "steps[2]", "steps[3]"),
    ),
    "prices": ("l40s: -1\nh100-sxm: {usd: 1}\na10: x\n", load_prices, ("l40s", "'h100-sxm.usd'", "a10")),
}  # fmt: skip


@pytest.mark.parametrize("kind", FILES)
def test_a_yaml_file_says_all_that_is_wrong_with_it(tmp_path, kind):
    text, read, words = FILES[kind]
    path = tmp_path / f"{kind}.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as raised:
        read(str(path))
    message = str(raised.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert [word for word in words if word not in message] == []


def test_a_spec_says_all_that_is_wrong_with_it(tmp_path):
    path = tmp_path / "spec.yaml"
    path.write_text(SPEC)
    message = refused("explore", path, "--out", tmp_path / "out")
    for word in ("'h100-smx'", "'sm_cuont'", "low 4", "'sdxll'", "batch", "'eagr'", "'latncy_s'"):
        assert word in message


def test_a_table_of_points_says_all_that_is_wrong_with_it(tmp_path):
    path, out = tmp_path / "points.csv", tmp_path / "out.csv"
    path.write_text("wrkload,hww,stepz\nsdxl,h100-sxm,1\n")
    message = refused("sweep", path, "--out", out)
    for word in ("points.csv", "'wrkload'", "'hww'", "'stepz'", "'workload' is missing", "'hw' is missing"):
        assert word in message
    path.write_text("workload,hw,steps,batch\nsdxll,h100-smx,2.5,x\n")
    code, printed, _ = call("sweep", path, "--out", out, "--json", "-", "--workers", 1)
    assert code == 1
    error = pd.read_csv(out).error[0]
    assert [row["error"] for row in json.loads(printed)] == [error]
    for word in ("'sdxll'", "'h100-smx'", "'steps' is 2.5", "'batch' is 'x'"):
        assert word in error


def test_a_row_of_an_operator_says_all_that_is_wrong_with_it():
    from simtti.simulator.predict import predict

    rows = pd.DataFrame([{"op": "gemm", "m": -1, "n": "x", "dtype": "fp17"}])
    error = predict(rows, "h100-sxm").error[0]
    for word in ("'m' is -1", "'n' is 'x'", "'k' is empty or missing", "'dtype' is 'fp17'"):
        assert word in error


def test_a_table_of_measurements_says_all_that_is_wrong_with_it():
    row = {
        "op": "gemm",
        "hw": "h100-sxm",
        "dtype": "bf16",
        "source": "s",
        "what_is_timed": "kernel",
        "m": 8,
        "n": 8,
        "k": 8,
        "time_us": 1.0,
    }
    table = pd.DataFrame([row, row | {"m": 0, "time_us": -1, "dtype": ""}])
    with pytest.raises(InputError) as raised:
        check(table, "mine.csv")
    for word in ("mine.csv: ", "row 2: column 'm'", "row 2: column 'time_us'", "row 2: column 'dtype'"):
        assert word in str(raised.value)
    with pytest.raises(InputError, match=r"mine\.csv: .*'mm'.*'source' is missing"):
        check(pd.DataFrame([{"op": "gemm", "mm": 1}]), "mine.csv")


def test_a_trace_says_all_that_is_wrong_with_its_metadata(tmp_path):
    path = tmp_path / "trace.parquet"
    small_trace().save(path)
    table = pq.read_table(path)
    metadata = json.loads(table.schema.metadata[b"simtti_trace"]) | {"options": 3, "layouts": None}
    table = table.cast(table.schema.set(2, table.schema.field(2).with_type(pa.string())))
    pq.write_table(table.replace_schema_metadata({"simtti_trace": json.dumps(metadata)}), path)
    with pytest.raises(InputError) as raised:
        Trace.load(path)
    for word in (
        str(path),
        "field options",
        "field layouts",
        f"column {table.schema.names[2]} has type string",
    ):
        assert word in str(raised.value)
