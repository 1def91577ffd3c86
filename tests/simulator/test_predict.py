"""A table of operators: each timed once, what is timed kept when it is interrupted, by what it follows from."""

import os
import random
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
import yaml

from simtti.hw_configs.devices import load
from simtti.simulator import predict
from simtti.simulator.lowering.rows import side_by_side

ROWS = 3000
DISTINCT = 1200


@pytest.fixture
def rows():
    return pd.DataFrame(
        {"op": "gemm", "dtype": "bf16", "m": [1 + n % DISTINCT for n in range(ROWS)], "n": 64, "k": 512}
    )


@pytest.fixture
def timed(monkeypatch):
    """The rows that have been timed since, in this process."""
    found, original = [], predict.predict_rows

    def watched(records, hardware):
        found.extend(record["m"] for record in records)
        return original(records, hardware)

    monkeypatch.setattr(predict, "predict_rows", watched)
    return found


def interrupt_at(least):
    def progress(done, total):
        if done >= least:
            raise KeyboardInterrupt

    return progress


def interrupted(rows, hw, out):
    with pytest.raises(KeyboardInterrupt):
        predict.predict(rows, hw, out, workers=1, progress=interrupt_at(500))


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_an_interrupted_table_goes_on_and_ends_as_one_that_nobody_interrupted(tmp_path, rows, timed, suffix):
    whole, cut = tmp_path / f"whole.{suffix}", tmp_path / f"cut.{suffix}"
    predict.predict(rows, "h100-sxm", whole, workers=1)
    assert len(timed) == DISTINCT
    interrupted(rows, "h100-sxm", cut)
    assert not cut.exists()
    timed.clear()
    seen, said = [], []
    predict.predict(
        rows,
        "h100-sxm",
        cut,
        workers=1,
        progress=lambda done, total: seen.append((done, total)),
        say=said.append,
    )
    assert len(timed) == DISTINCT - 500
    assert (seen[0], seen[-1], said) == ((500, DISTINCT), (DISTINCT, DISTINCT), [])
    assert cut.read_bytes() == whole.read_bytes()
    assert sorted(tmp_path.iterdir()) == [cut, whole]


def test_what_is_kept_counts_by_what_the_row_and_the_device_say(tmp_path, rows, timed):
    device, base = tmp_path / "mine.yaml", tmp_path / "base.yaml"

    def write(bandwidth):
        base.write_text(
            yaml.safe_dump({"base": "h100-sxm", "name": "base", "datasheet": {"hbm_bytes_per_s": {"value": bandwidth, "source": "a test"}}})
        )  # fmt: skip
        device.write_text(yaml.safe_dump({"base": str(base), "name": "mine"}))
        predict.load.cache_clear()

    said = []
    write(3e12)
    interrupted(rows, str(device), tmp_path / "out.csv")
    shuffled = rows.drop_duplicates().sample(frac=1, random_state=0)
    timed.clear()
    predict.predict(shuffled, str(device), tmp_path / "out.csv", workers=1, say=said.append)
    assert (len(timed), said) == (DISTINCT - 500, [])

    interrupted(rows, str(device), tmp_path / "out.csv")
    write(4e12)
    timed.clear()
    predict.predict(rows, str(device), tmp_path / "out.csv", workers=1, say=said.append)
    assert len(timed) == DISTINCT
    assert "500 rows kept of other code, devices or traces do not count" in said[-1]

    interrupted(rows, str(device), tmp_path / "out.csv")
    timed.clear()
    predict.predict(rows.assign(k=520), str(device), tmp_path / "out.csv", workers=1, say=said.append)
    assert len(timed) == DISTINCT
    assert len(said) == 2


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="Windows has no SIGHUP")
@pytest.mark.parametrize("how", ["SIGHUP", "SIGINT", "SIGTERM"])
def test_a_signal_costs_no_finished_row(tmp_path, how):
    table = pd.DataFrame({"op": "gemm", "dtype": "fp16", "m": range(1, 30_001), "n": 320, "k": 320})
    table.to_csv(tmp_path / "in.csv", index=False)
    command = [
        sys.executable,
        "-m",
        "simtti.cli",
        "predict",
        "in.csv",
        "--hw",
        "h100-sxm",
        "--out",
        "out.csv",
    ]
    journal = tmp_path / ".out.csv.partial.jsonl"
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (journal.exists() and journal.stat().st_size):
        assert time.monotonic() < deadline
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    os.kill(process.pid, getattr(signal, how))
    _, stderr = process.communicate(timeout=60)
    assert (process.returncode, len(stderr.strip().splitlines())) == (2, 1)
    assert f"what was finished is kept in {journal.name}, and the same command goes on" in stderr
    assert journal.read_text().count("\n") >= 500


def products(count, **same):
    """Rows of products that have all but their sizes in common."""
    draw = random.Random(str(same))

    def side():
        return draw.choice((1, draw.randint(1, 64), draw.randint(1, 5000), 8 * draw.randint(1, 2048)))

    for _ in range(count):
        yield {
            "op": "gemm",
            "m": side(),
            "n": side(),
            "k": side(),
            "batch": draw.choice((1, 1, 1, 2, 300)),
        } | same


KINDS = {
    "h200-sxm": [{"dtype": "bf16", "layout": "nt", "bias": True}, {"dtype": "fp8", "pytorch": "2.11"}],
    "h100-sxm": [{"dtype": "fp16", "pytorch": "2.6", "layout": "nn"}, {"dtype": "bf16"}],
    "a100-sxm": [{"dtype": "fp32"}, {"dtype": "fp32", "tf32": True}],
    "l40s": [{"dtype": "fp16"}],
    "b200-sxm": [{"dtype": "int8"}],
}


@pytest.mark.parametrize("name", KINDS)
def test_products_in_columns_take_what_each_takes_alone(name):
    device = load(name)
    rows = [row for kind in KINDS[name] for row in products(120, **kind)]
    found = predict.predict_rows(rows, device)
    alone = [one for row in rows for one in predict.predict_rows([row], device)]
    assert list(map(repr, found)) == list(map(repr, alone)), "to the last bit"
    assert any(each.time_us > 1000 for each in found), "some long enough for the power limit"
    in_columns = {int(row) for each in side_by_side(rows, device) for row in each.row}
    assert len(in_columns) > 0.7 * len(rows)
    assert {name.split("_")[-1] for number in in_columns for name in [found[number].kernels]} >= {"reduce"}
    assert any("splitk" not in found[number].kernels for number in in_columns)


def test_a_row_among_products_that_stands_in_no_column_is_told_what_it_is_told_alone():
    rows = list(products(40, dtype="bf16"))
    odd = {
        0: {"m": "12"},
        1: {"m": 2.5},
        2: {"n": None},
        3: {"k": "many"},
        4: {"m": 100, "batch": float("nan")},
        5: {"batch": 0},
        6: {"batch": 70_000},
        7: {"m": 2**41},
        8: {"m": 2**39, "n": 2**39},
        9: {"dtype": "fp7"},
        10: {"layout": "sideways"},
        11: {"pytorch": "0.4"},
        12: {"op": "softmax", "rows": 8, "cols": 64},
        13: {"m": 8, "n": 64, "k": 8, "batch": 1000},
        14: {"layout": ["nn"]},
    }
    for number, cells in odd.items():
        rows[number] |= cells
    device = load("a100-sxm")
    alone = [one for row in rows for one in predict.predict_rows([row], device)]
    assert list(map(repr, predict.predict_rows(rows, device))) == list(map(repr, alone))
    assert sum(bool(each.error) for each in alone) >= 9
    in_columns = {int(row) for each in side_by_side(rows, device) for row in each.row}
    assert in_columns & set(odd) == {0, 4}
    assert len(in_columns) > 15
