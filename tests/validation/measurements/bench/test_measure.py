"""What measuring writes, and what survives an interruption. On a CPU, and on a GPU that is none."""

import json
import os
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fake_gpu import FakeTorch

from simtti.errors import InputError
from simtti.simulator.lowering.registry import FAMILIES
from simtti.simulator.predict import predict
from simtti.validation.measurements.bench import file, measure, timing
from simtti.validation.measurements.suite import WORTH, batches, suite


@pytest.fixture
def few(monkeypatch):
    """A suite of a few quick cases, in batches of two."""
    cases = [
        case
        for case in suite(["launch"])
        if case.text("function") in ("nothing", "view", "add", "add_", "silu")
    ]
    monkeypatch.setattr(measure, "suite", lambda families=None, name="tti": cases)
    monkeypatch.setattr(measure, "batches", lambda todo, **limits: batches(todo, 2))
    return cases


def test_a_cpu_run_measures_every_family(tmp_path, monkeypatch):
    pytest.importorskip("torch")
    smallest = [
        min(
            (case for case in suite([family]) if case.dtype == "fp16"),
            key=lambda case: case.flops + case.nbytes,
        )
        for family in WORTH
    ]
    monkeypatch.setattr(measure, "suite", lambda families=None, name="tti": smallest)
    seen = []
    done = measure.measure_suite(
        "cpu", tmp_path / "k.parquet", budget_s=60, progress=lambda *at: seen.append(at)
    )
    assert (done.measured, done.left) == (len(WORTH), 0)
    table, metadata = file.read_measurements(tmp_path / "k.parquet")
    frame = table.to_pandas()
    assert set(frame.family) == set(WORTH)
    timed = frame[frame.failure.isna()]
    assert len(timed) >= len(WORTH) - 2
    assert (timed.warm_p10_us <= timed.warm_us).all()
    assert (timed.warm_us <= timed.warm_p90_us).all()
    assert (timed.cold_us > 0).all()
    assert seen[-1] == (len(WORTH), len(WORTH))
    run = metadata["runs"][0]
    assert {"date", "command", "script", "torch", "python", "simtti", "host"} <= set(run)
    assert run["command"] == "simtti capture kernels --suite tti --device cpu --budget-s 60"
    assert metadata["device"]["name"]
    assert str(tmp_path) not in json.dumps(metadata)
    predicted = predict(tmp_path / "k.parquet", "h100-sxm")
    known = predicted.op.isin(list(FAMILIES))
    assert (predicted.error[known] == "").all()
    launches = known & (predicted.kernels != "")  # a tensor that lies in order already is not moved
    assert predicted.time_us[launches].gt(0).all()
    assert predicted.error[~known].str.contains("unknown op").all()


def test_every_operator_of_the_suite_can_be_built(monkeypatch):
    """Each op, function, backend and layout at its smallest, on the meta device: the call gives a tensor."""
    torch = pytest.importorskip("torch")
    kinds = {}
    for case in suite():
        columns = dict(case.shape)
        key = (
            case.op,
            *(
                columns.get(name)
                for name in ("function", "backend", "layout", "bias", "inputs", "kd", "groups")
            ),
        )
        if key not in kinds or case.nbytes < kinds[key].nbytes:
            kinds[key] = case
    tried = 0
    for case in kinds.values():
        fused = dict(case.shape).get("backend") in ("flash", "efficient", "cudnn")
        if case.op == "launch" or fused:  # graphs and fused kernels need a device
            continue
        with torch.no_grad(), measure.quiet():
            prepared = measure.prepare(case, torch, torch.device("meta"))
            with prepared.context():
                assert prepared.call().numel() > 0, case.id
        tried += 1
    assert tried > 40


def test_a_run_goes_on_where_the_last_one_stopped(tmp_path, few):
    pytest.importorskip("torch")
    out = tmp_path / "k.parquet"
    calls = 0

    def stop(done, total):
        nonlocal calls
        calls += 1
        if calls == 2:  # after the first batch
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure.measure_suite("cpu", out, progress=stop)
    table, metadata = file.read_measurements(out)
    assert table.column("id").to_pylist() == [case.id for case in few[:2]]
    assert measure.measure_suite("cpu", out).measured == len(few) - 2
    table, metadata = file.read_measurements(out)
    assert table.column("id").to_pylist() == [case.id for case in few]
    assert table.column("run").to_pylist() == [0, 0, 1, 1, 1]
    assert len(metadata["runs"]) == 2
    assert measure.measure_suite("cpu", out).measured == 0
    other = measure.measure_suite("cpu", tmp_path / "other.parquet", skip=[out])
    assert (other.measured, other.left) == (0, 0)
    assert [path.name for path in tmp_path.iterdir()] == ["k.parquet"]


def test_an_interruption_within_a_batch_or_a_write_loses_that_batch_only(tmp_path, few, monkeypatch):
    pytest.importorskip("torch")
    out = tmp_path / "k.parquet"
    prepare, write, count = measure.prepare, pq.write_table, Counter()

    def interrupted(case, torch, device):
        if case.id == few[3].id:
            raise KeyboardInterrupt
        return prepare(case, torch, device)

    monkeypatch.setattr(measure, "prepare", interrupted)
    with pytest.raises(KeyboardInterrupt):
        measure.measure_suite("cpu", out)
    assert file.read_measurements(out)[0].num_rows == 2
    monkeypatch.setattr(measure, "prepare", prepare)

    def half_written(table, path, **options):
        write(table, path, **options)
        os.truncate(path, 100)
        count["writes"] += 1
        raise KeyboardInterrupt

    monkeypatch.setattr(pq, "write_table", half_written)
    with pytest.raises(KeyboardInterrupt):
        measure.measure_suite("cpu", out)
    assert count["writes"] == 1
    assert file.read_measurements(out)[0].num_rows == 2
    assert [path.name for path in tmp_path.iterdir()] == ["k.parquet"]


def test_a_budget_ends_a_run_and_a_failure_is_a_row(tmp_path, few, monkeypatch):
    pytest.importorskip("torch")
    prepare = measure.prepare

    def failing(case, torch, device):
        if case.id == few[0].id:
            raise RuntimeError("CUDA out of memory. Tried to allocate\nmore")
        return prepare(case, torch, device)

    monkeypatch.setattr(measure, "prepare", failing)
    done = measure.measure_suite("cpu", tmp_path / "k.parquet", budget_s=1e-9)
    assert (done.measured, done.left) == (0, len(few))
    done = measure.measure_suite("cpu", tmp_path / "k.parquet")
    assert (done.measured, done.failed) == (len(few), 1)
    row = file.read_measurements(tmp_path / "k.parquet")[0].to_pylist()[0]
    assert row["failure"] == "RuntimeError: CUDA out of memory. Tried to allocate"
    assert row["warm_us"] is None


def test_a_device_that_is_lost_stops_the_run_with_its_rows_kept(tmp_path, few, monkeypatch):
    pytest.importorskip("torch")
    prepare = measure.prepare

    def failing(case, torch, device):
        if case.id == few[2].id:
            raise RuntimeError("an illegal memory access was encountered")
        return prepare(case, torch, device)

    monkeypatch.setattr(measure, "prepare", failing)
    monkeypatch.setattr(timing.Bench, "recover", lambda bench: setattr(bench, "lost", True))
    with pytest.raises(InputError, match=r"the device failed at .*illegal memory access"):
        measure.measure_suite("cpu", tmp_path / "k.parquet")
    rows = file.read_measurements(tmp_path / "k.parquet")[0].to_pylist()
    assert [row["failure"] is None for row in rows] == [True, True, False]


def test_foreign_files_and_devices_are_refused(tmp_path, few):
    pytest.importorskip("torch")
    path = tmp_path / "k.parquet"
    with pytest.raises(InputError, match="unknown device to measure on 'tpu'"):
        measure.measure_suite("tpu", path)
    with pytest.raises(InputError, match=r"written as \.parquet"):
        measure.measure_suite("cpu", tmp_path / "k.csv")
    with pytest.raises(InputError, match="no such file"):
        measure.measure_suite("cpu", path, skip=[tmp_path / "none.parquet"])
    pq.write_table(pa.table({"id": ["x"]}), path)
    with pytest.raises(InputError, match="not a file of measurements"):
        measure.measure_suite("cpu", path)
    path.write_bytes(b"PAR1 and no more")
    with pytest.raises(InputError, match="not a readable"):
        measure.measure_suite("cpu", path)
    path.unlink()
    measure.measure_suite("cpu", path)
    table, metadata = file.read_measurements(path)
    metadata["device"]["name"] = "NVIDIA X100"
    pq.write_table(table.replace_schema_metadata({file.METADATA_KEY: json.dumps(metadata).encode()}), path)
    with pytest.raises(InputError, match="holds measurements of NVIDIA X100, and this is"):
        measure.measure_suite("cpu", path)


def test_the_gpu_bench_runs_through_with_a_fake_gpu(tmp_path, few, monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(measure, "bench_on", lambda device: timing.CudaBench(FakeTorch(torch)))
    monkeypatch.setattr(timing.CudaBench, "_ramp_up", lambda bench: None)
    done = measure.measure_suite("cuda", tmp_path / "k.parquet")
    assert (done.measured, done.failed) == (len(few), 0)
    table, metadata = file.read_measurements(tmp_path / "k.parquet")
    assert metadata["device"]["name"] == "Fake"
    assert metadata["device"]["l2_bytes"] == 1 << 16
    assert {"cuda", "cudnn"} <= set(metadata["runs"][0])
    assert all(row["warm_us"] > 0 and row["cold_us"] > 0 for row in table.to_pylist())


def test_out_of_memory_is_tried_again_once_the_allocator_let_go(tmp_path, few, monkeypatch):
    pytest.importorskip("torch")
    prepare, tried = measure.prepare, Counter()

    def failing(case, torch, device):
        tried[case.id] += 1
        if tried[case.id] == 1 and case.id == few[1].id:
            raise RuntimeError("CUDA out of memory.")
        return prepare(case, torch, device)

    monkeypatch.setattr(measure, "prepare", failing)
    assert measure.measure_suite("cpu", tmp_path / "k.parquet").failed == 0
    assert tried[few[1].id] == 2
