"""Reading a Kineto file: only what is asked for, and what is wrong with it in one line."""

import bz2
import codecs
import gzip
import io
import json
import re
import tarfile
import time
import zipfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kineto_files import event, imported, kernel, launch, op

from simtti.errors import InputError
from simtti.workloads import kineto_file
from simtti.workloads.kineto import import_kineto
from simtti.workloads.trace import (
    Trace,
)


def test_what_is_not_asked_for_stays_out(tmp_path):
    """Some files carry the environment of the process that wrote them."""
    trace = imported(
        tmp_path,
        op("aten::mm", 0, 5, (2, 3), (3, 4)),
        metadata={"env": {"TOKEN": "secret"}},
        cupti_version=22,
    )
    assert trace.provenance["cupti_version"] == 22
    trace.save(tmp_path / "a.parquet")
    assert "secret" not in repr(Trace.load(tmp_path / "a.parquet"))


GOOD = json.dumps(
    {"schemaVersion": 1, "traceEvents": [op("aten::mm", 0, 5, (2, 3), (3, 4)), launch(1, 1), kernel(1, 10)]}
)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"   \n", "is empty"),
        (gzip.compress(b"", mtime=0), "is empty"),
        (GOOD[:200].encode(), "is truncated: its JSON ends in the middle"),
        (gzip.compress(GOOD[:200].encode())[:-40], "is truncated: its gzip data end too early"),
        (b"\x1f\x8b" + b"\xff" * 30, "is damaged: its gzip data cannot be unpacked"),
        (b"[1, 2]", "is not a Kineto trace: its traceEvents are not objects"),
        (b"hello", "is not a Kineto trace: it does not hold a JSON object"),
        (b"PAR1\x00\xff\xfe", "is not a Kineto trace: it does not hold a JSON object"),
        (b'{"a": 1}', "is not a Kineto trace: it has no traceEvents"),
        (b'{"traceEvents": 3}', "is not a Kineto trace: its traceEvents are not a list"),
        (b'{"traceEvents": [1, 2]}', "is not a Kineto trace: its traceEvents are not objects"),
        (b'{"traceEvents": []}', "holds no operators and no kernels"),
        (b'{"traceEvents": [{"ph": "X", "cat": "render", "name": "frame", "ts": 1, "dur": 2}]}', "holds no operators"),
        (b'{"traceEvents": [{"ph": "X", "cat": "kernel", "name": "k", "pid": 0, "tid": 7, "dur": 2}]}', "left out: 1 events without a time"),
        (b'{"traceEvents": [{"ph": "X", "cat": "kernel", "name": "k", "pid": 0, "tid": 7, "ts": "x", "dur": 2}]}', "left out: 1 events without a time"),
        (b'{"traceEvents": [{"ph": "X", "cat": "kernel", "name": "k", "ts": 1, "dur": NaN}]}', "left out: 1 events without a time"),
        (b'{"traceEvents" oops', "is damaged: its JSON cannot be read beyond 'oops'"),
        (b'{"traceEvents": [oops]}', "is damaged: its JSON cannot be read beyond 'oops]}'"),
        (b"{" + b'"a":{' * 100_000, "nested too deeply"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["bad.json", "bad.json.gz"])
def test_a_bad_file_is_said_in_one_line(tmp_path, content, message, name):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        import_kineto(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_file(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        import_kineto(tmp_path / "none.json")
    with pytest.raises(InputError, match="is a folder"):
        import_kineto(tmp_path)


@given(cut=st.integers(0, len(GOOD) - 1), packed=st.booleans())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_truncation_is_told(tmp_path, cut, packed):
    """What is whole is read, and that it is not all is said; with no whole event there is nothing to read."""
    path = tmp_path / "cut.json"
    content = GOOD.encode()
    path.write_bytes(
        gzip.compress(content, mtime=0)[: cut % len(gzip.compress(content))] if packed else content[:cut]
    )
    try:
        trace = import_kineto(path)
    except InputError as error:
        assert re.search(r"cut\.json (is|holds|does)", str(error))  # noqa: PT017
    else:
        whole = len(trace.timing.kernels) == 1 and packed  # gzip's own trailer is cut
        assert whole or any("truncated" in remark for remark in trace.provenance["remarks"])


@pytest.mark.parametrize("chunk", [1, 7, 64])
def test_events_may_lie_across_reads(tmp_path, monkeypatch, chunk):
    events = [event("python_function", "nn.Module: Net_0", 0, 90), *json.loads(GOOD)["traceEvents"]]
    whole = imported(tmp_path, *events)
    assert next(whole.operators()).module == "Net_0"
    monkeypatch.setattr(kineto_file, "CHUNK_BYTES", chunk)
    assert imported(tmp_path, *events) == whole


def zipped(content, *names):
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name in names:
            archive.writestr(name, content)
    return made.getvalue()


def tarred(content, mode="w"):
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode=mode) as archive:
        info = tarfile.TarInfo("run/trace.json")
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
    return made.getvalue()


EVENTS = json.loads(GOOD)["traceEvents"]


@pytest.mark.parametrize(
    "content",
    [
        codecs.BOM_UTF8 + GOOD.encode(),
        GOOD.encode("utf-16"),
        GOOD.encode("utf-16-le"),
        GOOD.encode("utf-32"),
        gzip.compress(gzip.compress(GOOD.encode())),
        gzip.compress(GOOD[:50].encode()) + gzip.compress(GOOD[50:].encode()),
        zipped(GOOD, "run/trace.json", "__MACOSX/._trace.json"),
        zipped(gzip.compress(GOOD.encode()), "trace.json.gz"),
        tarred(GOOD.encode()),
        tarred(GOOD.encode(), "w:gz"),
        json.dumps(EVENTS).encode(),
        json.dumps(EVENTS).encode()[:-1] + b",]",
        GOOD.replace('"ts": 0', '"ts": "0.0"').replace('"dur": 5', '"dur": "5"').encode(),
        GOOD.replace('"traceEvents"', '"header": "' + "x" * 5_000_000 + '", "traceEvents"').encode(),
        json.dumps({"traceEvents": EVENTS, "after": [{"a": [1]}]}).encode(),
    ],
)
def test_every_form_reads_the_same(tmp_path, content):
    (tmp_path / "plain.json").write_text(GOOD)
    (tmp_path / "form.json").write_bytes(content)
    plain, form = (import_kineto(tmp_path / name) for name in ("plain.json", "form.json"))
    assert form.phases == plain.phases
    assert form.timing.kernels == plain.timing.kernels


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (bz2.compress(GOOD.encode()), "is packed with bzip2"),
        (zipped(GOOD, "a.json", "b.json"), "is a zip archive of 2 traces"),
        (zipped(GOOD, "a.txt", "b.txt"), "without a .json"),
        (gzip.compress(zipped(GOOD, "a.json")), "zip archive within gzip"),
        (zipped(GOOD, "a.json")[:-30], "zip archive cannot be unpacked"),
        (b'{"a": 1}\n{"a": 2}\n', "one JSON object a line"),
        (b'{"traceEvents": [{"ph": ' + b"9" * 5000 + b"}]}", "number of thousands of digits"),
    ],
)  # fmt: skip
def test_what_cannot_be_unwrapped_is_refused_by_its_reason(tmp_path, content, reason):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(InputError, match=re.escape(reason)):
        import_kineto(tmp_path / "a.json")


@pytest.mark.parametrize(
    "content",
    [
        '{"traceEvents": [' + "," * 1_000_000 + "]}",
        '{"traceEvents": [' + "1," * 500_000 + "]}",
        '{"traceEvents": [' + '{"name": "C:\\Users\\x"},' * 50_000 + "]}",
        '{"traceEvents": [' + "\n" * 1_000_000 + "]}",
        '{"a": "' + "\\x" * 1_000_000 + '"}',
        '{"traceEvents": [' + '{"ph": "B", "cat": "cpu_op", "name": "a", "ts": 1},' * 20_000 + "]}",
        "[" * 1_000_000,
    ],
)  # fmt: skip
def test_time_is_linear_in_the_file(tmp_path, content):
    (tmp_path / "a.json").write_text(content)
    began = time.perf_counter()
    with pytest.raises(InputError):
        import_kineto(tmp_path / "a.json")
    assert time.perf_counter() - began < 5


def test_paths_of_windows_stay(tmp_path):
    path = tmp_path / "a.json"
    windows = event("python_function", "nn.Module: NAME", 0, 90)
    path.write_text(json.dumps({"traceEvents": [windows, *EVENTS]}).replace("NAME", "C:\\Users\\me\\x.py"))
    trace = import_kineto(path)
    assert next(trace.operators()).module == "C:\\Users\\me\\x.py"
    assert "backslashes" in trace.provenance["remarks"][0]


def test_what_makes_no_sense_is_left_out_and_counted(tmp_path):
    good = [op("aten::mm", 1000, 5, (2, 3), (3, 4)), launch(1, 1001), kernel(1, 1010)]
    trace = imported(
        tmp_path,
        *good,
        kernel(1, 1020, duration=-7),
        kernel(1, 0, duration=0),
        kernel(1, 0, duration=3),
        {**op("aten::mm", 1030, 5), "ts": None},
        {**kernel(1, 1040), "dur": float("nan")},
        op("aten::mm", 1050, 5) | {"args": {"Input Dims": float("nan"), "Input type": ["float"]}},
        7,
    )
    assert [k.start_us for k in trace.timing.kernels] == [10.0]
    assert trace.provenance["left_out"] == {
        "events of negative duration": 1,
        "events without a time": 2,
        "events that are no objects": 1,
        "events whose time was not set": 2,
        "operators whose shapes cannot be read": 1,
    }


def test_events_that_begin_and_end(tmp_path):
    whole = op("aten::mm", 0, 5, (2, 3), (3, 4))
    begin = {key: value for key, value in whole.items() if key != "dur"} | {"ph": "B"}
    end = {"ph": "E", "pid": whole["pid"], "tid": whole["tid"], "ts": 5}
    pair = imported(tmp_path, begin, launch(1, 1), kernel(1, 10), end)
    assert pair.phases == imported(tmp_path, whole, launch(1, 1), kernel(1, 10)).phases


@pytest.mark.parametrize("number", [2**63, 10**30, "123456789012345678901234567890", 1e300])
def test_numbers_beyond_a_trace_file(tmp_path, number):
    trace = imported(
        tmp_path,
        op("aten::mm", 0, 5, (2, 3), (3, 4)),
        launch(number, 1),
        kernel(number, 10, grid=[number, 1, 1], stream=number, **{"shared memory": number}),
    )
    assert [k.operator for k in trace.timing.kernels] == [0]
    trace.save(tmp_path / "a.parquet")
    assert Trace.load(tmp_path / "a.parquet").timing == trace.timing
