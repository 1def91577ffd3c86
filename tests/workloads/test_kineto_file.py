"""Reading a Kineto file: only what is asked for, and what is wrong with it in one line."""

import gzip
import json

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
        (GOOD[:-1].encode(), "is truncated: its JSON ends in the middle"),
        (gzip.compress(GOOD.encode())[:-20], "is truncated: its gzip data end too early"),
        (b"\x1f\x8b" + b"\xff" * 30, "is damaged: its gzip data cannot be unpacked"),
        (b"[1, 2]", "is not a Kineto trace: it does not hold a JSON object"),
        (b"hello", "is not a Kineto trace: it does not hold a JSON object"),
        (b"PAR1\x00\xff\xfe", "is not a Kineto trace: it does not hold a JSON object"),
        (b'{"a": 1}', "is not a Kineto trace: it has no traceEvents"),
        (b'{"traceEvents": 3}', "is not a Kineto trace: its traceEvents are not a list"),
        (b'{"traceEvents": [1, 2]}', "is not a Kineto trace: its traceEvents are not objects"),
        (b'{"traceEvents": []}', "holds no operators and no kernels"),
        (b'{"traceEvents": [{"ph": "X", "cat": "render", "name": "frame", "ts": 1, "dur": 2}]}', "holds no operators"),
        (b'{"traceEvents": [{"ph": "X", "cat": "kernel", "name": "k", "pid": 0, "tid": 7, "dur": 2}]}', "lacks the field 'ts'"),
        (b'{"traceEvents": [{"ph": "X", "cat": "kernel", "name": "k", "pid": 0, "tid": 7, "ts": "x", "dur": 2}]}', "wrong type"),
        (b'{"traceEvents": [{"ph": "X", "cat": "kernel", "name": "k", "ts": 1, "dur": NaN}]}', "wrong type"),
        (b'{"traceEvents": [{"ph": "X", "cat": "kernel", "name": "k", "ts": 1, "dur": 1, "args": [3]}]}', "wrong type"),
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
def test_any_truncation_is_an_input_error(tmp_path, cut, packed):
    path = tmp_path / "cut.json"
    content = GOOD.encode()
    path.write_bytes(
        gzip.compress(content, mtime=0)[: cut % len(gzip.compress(content))] if packed else content[:cut]
    )
    with pytest.raises(InputError, match=r"cut\.json (is|holds|does)"):
        import_kineto(path)


@pytest.mark.parametrize("chunk", [1, 7, 64])
def test_events_may_lie_across_reads(tmp_path, monkeypatch, chunk):
    events = [event("python_function", "nn.Module: Net_0", 0, 90), *json.loads(GOOD)["traceEvents"]]
    whole = imported(tmp_path, *events)
    assert next(whole.operators()).module == "Net_0"
    monkeypatch.setattr(kineto_file, "CHUNK_BYTES", chunk)
    assert imported(tmp_path, *events) == whole
