"""The trace format: what goes in comes out, and what cannot be read is said in one line."""

import functools
import json
import subprocess
import sys
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_traces import small_trace, timed_trace

from simtti.errors import InputError
from simtti.workloads.trace import (
    CATEGORIES,
    ITEM_BYTES,
    KERNEL_KINDS,
    ROLES,
    HostTime,
    Operator,
    Phase,
    Step,
    TensorUse,
    TimedKernel,
    Timing,
    Trace,
    row_major,
)
from simtti.workloads.trace_file import METADATA_KEY

# Control characters are escaped where a trace is read.
text = functools.partial(st.text, st.characters(exclude_categories=("C", "Z")))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


objects = st.dictionaries(text(max_size=5), json_values, max_size=3)


@st.composite
def tensor_uses(draw):
    shape = tuple(draw(st.lists(st.integers(0, 9), max_size=5)))
    anywhere = st.lists(st.integers(0, 999), min_size=len(shape), max_size=len(shape)).map(tuple)
    return TensorUse(
        tensor=draw(st.integers(0, 5)),
        shape=shape,
        strides=draw(st.just(row_major(shape)) | anywhere),
        dtype=draw(st.sampled_from(sorted(ITEM_BYTES))),
        storage_bytes=draw(st.integers(0, 2**40)),
        role=draw(st.sampled_from(ROLES)),
    )


@st.composite
def traces(draw):
    uses = st.lists(tensor_uses(), max_size=3).map(tuple)
    phases = []
    for name in draw(st.lists(text(max_size=4), max_size=3, unique=True)):
        steps = []
        for number in range(draw(st.integers(0, 2))):
            operators = tuple(
                Operator(
                    phase=name,
                    step=number,
                    position=position,
                    module=draw(text(max_size=5)),
                    op=draw(text(max_size=5)),
                    category=draw(st.sampled_from(CATEGORIES)),
                    inputs=draw(uses),
                    outputs=draw(uses),
                    attributes=draw(objects),
                    is_view=draw(st.booleans()),
                )
                for position in range(draw(st.integers(0, 3)))
            )
            steps.append(Step(draw(st.integers(1, 99)), operators))
        phases.append(Phase(name, tuple(steps)))
    counts = st.dictionaries(text(max_size=3), st.integers(0, 2**40), max_size=2)
    return Trace(
        draw(text(max_size=5)),
        draw(objects),
        tuple(phases),
        draw(counts),
        draw(counts),
        draw(objects),
        draw(counts),
    )


@given(trace=traces())
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_what_is_saved_is_loaded(tmp_path, trace):
    trace.save(tmp_path / "a.parquet")
    assert Trace.load(tmp_path / "a.parquet") == trace


def test_same_trace_same_bytes(tmp_path):
    small_trace().save(tmp_path / "a.parquet")
    Trace.load(tmp_path / "a.parquet").save(tmp_path / "b.parquet")
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.parquet", "b.parquet"]


def test_equal_operands_are_one_object(tmp_path):
    small_trace().save(tmp_path / "a.parquet")
    first, second, _ = Trace.load(tmp_path / "a.parquet").operators()
    assert first.inputs[0] is second.inputs[0]
    assert first.attributes is second.attributes


def write(path, trace=None, columns=None, metadata=None):
    """A trace file with some of its columns or metadata fields replaced (None: left out)."""
    (trace or small_trace()).save(path)
    table = pq.ParquetFile(path).read()
    stored = {**json.loads(table.schema.metadata[METADATA_KEY]), **(metadata or {})}
    stored = {name: value for name, value in stored.items() if value is not None}
    for name, values in (columns or {}).items():
        if values is None:
            table = table.drop_columns([name])
        else:
            i = table.schema.names.index(name)
            values = values if isinstance(values, pa.Array) else pa.array(values, table.schema.field(i).type)
            table = table.set_column(i, name, values)
    pq.write_table(table.replace_schema_metadata({METADATA_KEY: json.dumps(stored)}), path)
    return path


def layouts(**changes):
    """The layouts of the small trace with the first one changed."""
    first = {"dtype": "fp16", "shape": [2, 3], "strides": None, "storage_bytes": 64, "role": "activation"}
    return [list({**first, **changes}.values()), ["fp16", [2, 3], None, 64, "parameter"]]


@pytest.mark.parametrize(
    ("columns", "metadata", "message"),
    [
        ({"category": ["Elementwise", "Foo", "View"]}, {}, "row 1, column category: unknown category 'Foo'; known: Conv"),
        ({"category": None, "inputs": None}, {}, "not a simtti trace; it lacks column category, column inputs"),
        ({"position": pa.array([0.0, 1.0, 2.0])}, {}, "column position has type double, expected int32"),
        ({"position": [0, 2, 1]}, {}, "row 1, column position: found 2, expected 1"),
        ({"phase": ["denoising", "denoising", "x"]}, {}, "row 2, column phase: found 'x', expected 'denoising'"),
        ({"module": ["a", None, "b"]}, {}, "row 1, column module: the value is missing"),
        ({"inputs": [[0, 1], [0, -4], [0, 1]]}, {}, "row 1, column inputs: tensor id -4 is out of range"),
        ({"inputs": [[0, 1], [0, None], [0, 1]]}, {}, "row 1, column inputs: a value in the list is missing"),
        ({"input_layouts": [[0, 1], [0, 1], [0, 7]]}, {}, "row 2, column input_layouts: layout 7 is out of range"),
        ({"output_layouts": [[0], [], [0]]}, {}, "row 1, column output_layouts: 0 layouts for 1 tensors in column outputs"),
        ({"attributes": ["{}", "{", "{}"]}, {}, "row 1, column attributes: not JSON: '{'"),
        ({"attributes": ["{}", "{}", "[1]"]}, {}, r"row 2, column attributes: not a JSON object: '\[1\]'"),
        ({}, {"layouts": layouts(shape=[2, -3])}, r"row 0, column input_layouts: layout 0: negative dimension .*\[2, -3\]"),
        ({}, {"layouts": layouts(shape=[2, 0.5])}, "row 0, column input_layouts: layout 0: .* must be whole numbers"),
        ({}, {"layouts": layouts(strides=[1])}, "row 0, column input_layouts: layout 0: 2 dimensions but 1 strides"),
        ({}, {"layouts": layouts(strides=[-1, 1])}, "layout 0: negative stride"),
        ({}, {"layouts": layouts(dtype="fp17")}, "layout 0: unknown dtype 'fp17'; known: fp64"),
        ({}, {"layouts": layouts(role="guest")}, "layout 0: unknown role 'guest'; known: parameter"),
        ({}, {"layouts": [["fp16"], 3]}, "layout 0: expected dtype, shape, strides, storage bytes and role"),
        ({}, {"schema_version": 99}, "has trace schema version 99; this simtti reads versions 1 and 2"),
        ({"op": None}, {"schema_version": 99}, "has trace schema version 99"),
        ({}, {"workload": None}, "metadata field workload is missing or not a JSON str"),
        ({}, {"phases": [{"name": "denoising"}]}, "metadata field phases must list a name and steps"),
        ({}, {"phases": [{"name": "denoising", "steps": [{"count": -1, "operators": 3}]}]}, "field phases must list"),
        ({}, {"phases": []}, "promises 0 operators, but the file has 3 rows"),
    ],
)  # fmt: skip
def test_bad_contents(tmp_path, columns, metadata, message):
    path = write(tmp_path / "bad.parquet", columns=columns, metadata=metadata)
    with pytest.raises(InputError, match=message) as caught:
        Trace.load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_foreign_parquet(tmp_path):
    pq.write_table(pa.table({"phase": ["a"], "speed": [3]}), tmp_path / "foreign.parquet")
    with pytest.raises(
        InputError, match="not a simtti trace; it lacks schema metadata simtti_trace, column step, col"
    ):
        Trace.load(tmp_path / "foreign.parquet")


@pytest.mark.parametrize("stored", ["{", "[]"])
def test_metadata_that_is_not_a_json_object(tmp_path, stored):
    pq.write_table(
        pa.table({"a": [1]}).replace_schema_metadata({METADATA_KEY: stored}), tmp_path / "a.parquet"
    )
    with pytest.raises(InputError, match="schema metadata simtti_trace is not"):
        Trace.load(tmp_path / "a.parquet")


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(InputError, match=r"no trace file .*nowhere\.parquet"):
        Trace.load(tmp_path / "nowhere.parquet")
    with pytest.raises(InputError, match="is a folder"):
        Trace.load(tmp_path)


@pytest.mark.parametrize("content", [b"", b"PK", b"phase,step\n"])
def test_not_parquet(tmp_path, content):
    (tmp_path / "a.parquet").write_bytes(content)
    with pytest.raises(InputError, match="is not a Parquet file"):
        Trace.load(tmp_path / "a.parquet")


def test_truncated_anywhere(tmp_path):
    """Wherever the file is cut, the reader says so in one line."""
    path = tmp_path / "a.parquet"
    small_trace().save(path)
    whole = path.read_bytes()
    for length in range(4, len(whole), 97):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match="truncated or damaged") as caught:
            Trace.load(path)
        assert "\n" not in str(caught.value)


def test_unwritable(tmp_path):
    with pytest.raises(InputError, match=r"cannot write .*nowhere/a\.parquet: No such file or directory"):
        small_trace().save(tmp_path / "nowhere" / "a.parquet")
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match=r"cannot write .*folder: Is a directory"):
        small_trace().save(tmp_path / "folder")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_reading_needs_neither_torch_nor_pandas(tmp_path):
    small_trace().save(tmp_path / "a.parquet")
    code = (
        "import sys; from simtti.workloads import catalogue, record; from simtti.workloads.trace import Trace; "
        f"Trace.load({str(tmp_path / 'a.parquet')!r}); print(sorted({{'torch', 'pandas', 'diffusers'}} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"


@st.composite
def timings(draw, operators):
    times = st.floats(0, 1e12, allow_nan=False)
    whole = st.integers(0, 2**31 - 1)
    extent = st.none() | st.tuples(whole, whole, whole)
    host_time = st.builds(HostTime, st.floats(-1e12, 1e12), times, times, st.integers(-(2**63), 2**63 - 1))
    kernel = st.builds(
        TimedKernel,
        name=text(max_size=5),
        start_us=st.floats(-1e12, 1e12),
        duration_us=times,
        operator=st.none() | st.integers(0, operators - 1) if operators else st.none(),
        kind=st.sampled_from(KERNEL_KINDS),
        device=whole,
        stream=st.integers(0, 2**63 - 1),
        correlation=st.integers(0, 2**63 - 1),
        launch_us=st.none() | times,
        launch_duration_us=st.none() | times,
        grid=extent,
        block=extent,
        registers=st.none() | whole,
        shared_memory_bytes=st.none() | st.integers(0, 2**40),
        nbytes=st.none() | st.integers(0, 2**60),
    )
    return Timing(
        tuple(draw(st.lists(kernel, max_size=4))),
        tuple(draw(st.lists(st.none() | host_time, min_size=operators, max_size=operators))),
        draw(objects),
        draw(objects),
    )


@given(data=st.data(), trace=traces())
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_times_are_loaded_as_saved(tmp_path, data, trace):
    trace = replace(trace, timing=data.draw(timings(len(list(trace.operators())))))
    trace.save(tmp_path / "a.parquet")
    again = Trace.load(tmp_path / "a.parquet")
    assert again == trace
    again.save(tmp_path / "b.parquet")
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_a_timed_trace_is_one_file_of_two_tables(tmp_path):
    timed_trace().save(tmp_path / "a.parquet")
    file = pq.ParquetFile(tmp_path / "a.parquet")
    assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [3, 3]
    assert file.read_row_group(0).column("op").to_pylist() == ["aten::add"] * 3
    assert file.read_row_group(1).column("kernel_name").to_pylist() == ["gemm", "reduce", "Memcpy DtoH"]
    assert [path.name for path in tmp_path.iterdir()] == ["a.parquet"]


def test_a_trace_without_times_is_of_version_1(tmp_path):
    for trace, version in ((small_trace(), 1), (timed_trace(), 2)):
        trace.save(tmp_path / "a.parquet")
        stored = pq.read_schema(tmp_path / "a.parquet").metadata[METADATA_KEY]
        assert json.loads(stored)["schema_version"] == version
        assert ("timing" in json.loads(stored)) == (version == 2)


def test_host_times_are_one_an_operator(tmp_path):
    trace = small_trace(timing=Timing((), (None,)))
    with pytest.raises(ValueError, match="1 host times for 3 operators"):
        trace.save(tmp_path / "a.parquet")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("columns", "metadata", "message"),
    [
        ({"kernel_name": [None] * 4 + ["reduce", "copy"]}, {}, "row 3, column kernel_name: the value is missing"),
        ({"kernel_kind": [None] * 3 + ["kernel", "render", "memcpy"]}, {}, "row 4, column kernel_kind: unknown kind 'render'"),
        ({"kernel_operator": [None] * 3 + [1, 3, None]}, {}, "row 4, column kernel_operator: operator 3 is out of range"),
        ({"kernel_operator": [None] * 3 + [-1, 1, None]}, {}, "row 3, column kernel_operator: operator -1 is out of range"),
        ({"kernel_duration_us": [None] * 3 + [1.0, -1.0, 1.0]}, {}, "row 4, column kernel_duration_us: found -1.0"),
        ({"kernel_start_us": [None] * 3 + [1.0, 2.0, float("nan")]}, {}, "row 5, column kernel_start_us: found nan"),
        ({"kernel_start_us": [None] * 5 + [1.0]}, {}, "row 3, column kernel_start_us: found None"),
        ({"kernel_stream": [None] * 5 + [1]}, {}, "row 3, column kernel_stream: the value is missing"),
        ({"kernel_grid": [None] * 3 + [[1, 2, 3], [1, 2], None]}, {}, "row 4, column kernel_grid: found .1, 2., expected three"),
        ({"kernel_block": [None] * 3 + [[1, 2, -3], None, None]}, {}, "row 3, column kernel_block: found"),
        ({"host_duration_us": [5.0, -6.0, None] + [None] * 3}, {}, "row 1, column host_duration_us: found -6.0"),
        ({"host_thread": [7, None, None] + [None] * 3}, {}, "row 1, column host_thread: found None"),
        ({"kernel_name": None}, {}, "not a simtti trace; it lacks column kernel_name"),
        ({}, {"timing": None}, "metadata field timing must hold kernels"),
        ({}, {"timing": {"kernels": 9, "device": {}, "end_to_end": {}}}, "promises 9 kernels, but the file has 6 rows"),
        ({}, {"timing": {"kernels": 2, "device": {}, "end_to_end": {}}}, "row 3, column phase: the value is missing"),
        ({}, {"timing": {"kernels": True, "device": {}, "end_to_end": {}}}, "metadata field timing must hold kernels"),
        ({}, {"schema_version": True}, "has trace schema version True"),
    ],
)  # fmt: skip
def test_bad_times(tmp_path, columns, metadata, message):
    path = write(tmp_path / "bad.parquet", trace=timed_trace(), columns=columns, metadata=metadata)
    with pytest.raises(InputError, match=message) as caught:
        Trace.load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
