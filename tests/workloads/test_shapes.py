"""Other shapes without torch: what is scaled is what is recorded, or it is not scaled."""

import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from random import Random

import pytest
from small_traces import operator, small_trace, use

from simtti.errors import InputError
from simtti.workloads import record
from simtti.workloads.catalogue import WORKLOADS
from simtti.workloads.expressions import NotExact, monomials
from simtti.workloads.shape_fit import alike, fit
from simtti.workloads.shapes import INDEX, Shapes, Variable, hash_of, path_beside, values_of
from simtti.workloads.side_by_side import OtherOperators
from simtti.workloads.trace import Phase, Step, Trace
from simtti.workloads.workload import Tiles

BATCH = (Variable("batch", 2, 16),)
VIDEO = (Variable("batch", 1, 8), Variable("frames", 5, 81, unit=4, origin=1))
SCALED = sorted(name for name, item in WORKLOADS.items() if path_beside(record.shipped(item)).exists())
# Of one CI records a shape drawn at random; the others are for make test-every.
RECORDED = [
    name if name == "stable-diffusion-1.5" else pytest.param(name, marks=pytest.mark.every) for name in SCALED
]


def made(batch, frames=9, **changes):
    """A trace as it might be: a step whose sizes grow, one that works frame by frame, a count that follows."""
    latent = (frames - 1) // 4 + 1

    def video(tensor, role="activation"):
        return use(tensor, (2 * batch, latent, 8), storage_bytes=64 * batch * latent, role=role)

    denoising = (
        operator(0, inputs=(video(0, "input"), use(1, role="parameter")), outputs=(video(2),), released=(0,)),
        operator(
            1,
            op="aten::view",
            attributes={"size": [batch, 2, 8 * latent]},
            inputs=(video(2),),
            outputs=(video(2),),
        ),
    )
    decoder, parts = [], []
    for frame in range(latent):
        part = use(3 + frame, (2 * batch, 1, 8), storage_bytes=64 * batch)
        decoder.append(
            operator(
                frame, phase="decoder", op="aten::narrow_copy", attributes={"start": frame, "dim": 1, "scale": 0.5},
                inputs=(video(2),), outputs=(part,),
            )
        )  # fmt: skip
        parts.append(part)
    decoder.append(
        operator(
            latent, phase="decoder", op="aten::cat", attributes={"dim": 1}, inputs=tuple(parts),
            outputs=(video(3 + latent),), released=tuple(part.tensor for part in parts),
        )
    )  # fmt: skip
    phases = (
        Phase("denoising", (Step(51, denoising),)),
        Phase("decoder", (Step(batch * latent + 1, tuple(decoder)),)),
    )
    options = {"batch": batch, "frames": frames, "steps": 50}
    return replace(small_trace(phases=phases, options=options), **changes)


@pytest.mark.parametrize(("batch", "frames"), [(1, 9), (5, 33), (8, 81), (2, 13)])
def test_sizes_counts_and_what_is_done_by_frame_follow(batch, frames, tmp_path):
    found = fit([made(*point) for point in ((1, 33), (2, 9), (3, 29), (5, 45), (7, 81))], VIDEO)
    assert found.trace(made(1), {"batch": batch, "frames": frames, "steps": 50}) == made(batch, frames)
    Shapes("0", (found,)).save(tmp_path / "a.shapes")
    assert Shapes.load(tmp_path / "a.shapes") == Shapes("0", (found,))


def test_what_is_done_by_frame_is_stored_once():
    long, short = (
        len(json.dumps(fit([made(1, frames) for frames in (17, 33, 45, most)], VIDEO[1:]).content))
        for most in (81, 57)
    )
    assert abs(long - short) < 20


def test_what_goes_by_the_longer_side_or_half_of_one_follows():
    sides = (Variable("height", 32, 960, 32), Variable("width", 32, 960, 32))

    def at_size(height, width):
        rows, columns = height // 32, width // 32
        attributes = {"start": max(rows // 2, columns // 2) + 9, "end": 3 * (rows - rows // 2)}
        step = (operator(0, op="aten::slice", attributes=attributes, inputs=(use(0, (rows, columns)),)),)
        return small_trace(
            phases=(Phase("denoising", (Step(1, step),)),), options={"height": height, "width": width}
        )

    traces = [
        at_size(32 * rows, 32 * columns) for rows, columns in ((16, 23), (29, 8), (30, 30), (9, 27), (12, 5))
    ]
    with pytest.raises(NotExact, match="no sum of products"):
        fit(traces, sides)
    with pytest.raises(NotExact):
        fit(traces, sides, ("longer",))
    found = fit(traces, sides, ("height half", "width half", "longer half"))
    for height, width in ((32 * 11, 32 * 20), (32 * 25, 32 * 14)):
        assert found.trace(traces[0], {"height": height, "width": width}) == at_size(height, width)


def test_where_tokens_are_filled_up_is_a_range_of_its_own():
    sides = (Variable("height", 16, 2048, 16), Variable("width", 16, 2048, 16))

    def at_size(rows, columns):
        tokens = -(-rows * columns // 32) * 32
        step = (operator(0, inputs=(use(0, (tokens, 8)),), outputs=(use(1, (rows * columns, 8)),)),)
        options = {"height": 16 * rows, "width": 16 * columns}
        return small_trace(phases=(Phase("denoising", (Step(1, step),)),), options=options)

    traces = [at_size(*size) for size in ((33, 83), (93, 45), (129, 129), (51, 58), (77, 38))]
    with pytest.raises(NotExact, match="no sum of products"):
        fit(traces, sides)
    found = fit(traces, sides, ("filled",), False)
    for rows, columns in ((65, 44), (90, 80 - 1)):
        options = {"height": 16 * rows, "width": 16 * columns}
        assert found.admits(options)
        assert found.trace(traces[0], options) == at_size(rows, columns)
    assert not found.admits({"height": 1024, "width": 720})
    assert replace(found, full=True).admits({"height": 1024, "width": 720})


def test_what_is_left_for_the_last_tile_follows(tmp_path):
    side = (Variable("height", 448, 576, 16, whole=384),)

    def at_height(height):
        step = (
            operator(0, inputs=(use(0, (height // 16, 8)),), outputs=(use(1),)),
            operator(1, inputs=(use(2, (3 * (height - 384), (height - 384) ** 2)),), outputs=(use(3),)),
        )
        return small_trace(phases=(Phase("denoising", (Step(1, step),)),), options={"height": height})

    found = fit([at_height(height) for height in (448, 480, 544, 576)], side)
    Shapes("0", (found,)).save(tmp_path / "a.shapes")
    (loaded,) = Shapes.load(tmp_path / "a.shapes").scopes
    assert loaded.trace(at_height(448), {"height": 512}) == at_height(512)
    # 48 x height - 1152 would do as well: of one term is what is left.
    assert [48, 2] in [size for _, shape, *_ in loaded.content["layouts"] for size in shape]


def test_sizes_with_as_many_tiles():
    tiles = Tiles(256, 192)
    assert tiles.alike(256) == (1, 256)
    for side in (448, 480, 576):  # the last of three tiles has 64 to 192 pixels, an overlap at least
        assert tiles.alike(side) == (448, 576)
    assert tiles.alike(400) == (385, 447)  # the last one lies in the overlap, and the second is not whole
    assert tiles.before(720) == 576


def released(batch):
    """Each image is read in its turn; with the last one all inputs end, and what was made of them, of one after the other."""
    turns = []
    for image in range(batch):
        last = image == batch - 1
        ended = (*range(batch), 50, *range(100, 100 + 2 * batch)) if last else ()
        turns.append(operator(image, inputs=(use(image), use(50)), outputs=(use(100 + 2 * image), use(101 + 2 * image)), released=ended))  # fmt: skip
    first = operator(0, op="aten::split", outputs=(*(use(image) for image in range(batch)), use(50)))
    steps = (first, *(replace(each, position=each.position + 1) for each in turns))
    return small_trace(phases=(Phase("denoising", (Step(1, steps),)),), options={"batch": batch})


def renumbered(trace):
    """Tensors as they are met, as a recording has them."""
    names = {}

    def uses(of):
        return tuple(replace(each, tensor=names.setdefault(each.tensor, len(names))) for each in of)

    operators = tuple(
        replace(
            each, inputs=uses(each.inputs), outputs=uses(each.outputs),
            released=tuple(names[tensor] for tensor in each.released),
        )
        for each in trace.operators()
    )  # fmt: skip
    return replace(trace, phases=(Phase("denoising", (Step(1, operators),)),))


def test_the_last_turn_may_end_tensors_of_all():
    traces = [renumbered(released(batch)) for batch in (2, 3, 5, 7)]
    found = fit(traces, BATCH)
    for batch in (2, 4, 16):
        assert found.trace(traces[0], {"batch": batch}) == renumbered(released(batch))


def test_what_grows_in_another_way_is_refused():
    def rooted(batch):
        step = made(batch).phases[0].steps[0]
        first = replace(step.operators[0], attributes={"alpha": int(1000 * batch**0.5)})
        return made(batch, phases=(Phase("denoising", (Step(1, (first,)),)),))

    with pytest.raises(NotExact, match="no sum of products"):
        fit([rooted(batch) for batch in (2, 3, 5, 7)], BATCH)
    for changes in ({"schedule": {}}, {"parameters": {"unet": 7}}, {"phases": made(2).phases[:1]}):
        with pytest.raises(OtherOperators):
            fit([made(2), made(3), made(5, **changes)], BATCH)


def test_other_operators_are_told_without_looking_at_numbers():
    other = made(3)
    step = other.phases[0].steps[0]
    swapped = Step(51, (replace(step.operators[0], op="aten::mm"), step.operators[1]))
    alike([made(2), made(7)])
    with pytest.raises(OtherOperators, match="aten::mm"):
        alike([made(2), replace(other, phases=(Phase("denoising", (swapped,)), other.phases[1]))])


def test_a_scope_reaches_as_far_as_was_checked(tmp_path):
    path = tmp_path / "trace.parquet"
    made(1).save(path)
    scope = replace(fit([made(batch) for batch in (2, 3, 5, 16)], BATCH), largest=9 * 12)
    assert Shapes("0", (scope,)).made_for(path) == ()
    assert Shapes(hash_of(path), (scope,)).made_for(path) == (scope,)

    def reached(**options):
        return scope.admits({"batch": 2, "frames": 9, "steps": 50, **options})

    assert reached()
    assert reached(batch=12, steps=30)
    assert not reached(batch=1)
    assert not reached(batch=13)  # more pixels than were checked
    assert not reached(frames=13)
    assert not reached(vae="sliced")


def test_a_damaged_file_is_told(tmp_path):
    path = tmp_path / "a.shapes"
    path.write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"a\.shapes"):
        Shapes.load(path)


@pytest.mark.parametrize("name", RECORDED)
def test_a_scaled_trace_is_the_recorded_one(name):
    pytest.importorskip("torch")
    random = Random()
    options = random.choice(Shapes.load(path_beside(record.shipped(WORKLOADS[name]))).scopes).drawn(random)
    recorded = record.record_workload(name, **options)
    if recorded.provenance != Trace.load(record.shipped(WORKLOADS[name])).provenance:
        pytest.skip("recorded with other versions than what ships")
    assert record.workload_trace(name, **options) == recorded, options


@pytest.mark.parametrize("name", SCALED)
def test_a_shipped_file_is_for_the_shipped_trace_and_small(name):
    path = record.shipped(WORKLOADS[name])
    scopes = Shapes.load(path_beside(path)).made_for(path)
    assert scopes
    assert all(scope.admits(scope.drawn(Random(0))) for scope in scopes)
    assert path_beside(path).stat().st_size < 120_000


HALVES = ("height half", "width half", "longer half")
RESTS = ("height", "height rest", "width", "width rest")
SEEN = (
    ("batch",),
    ("height", "width"),
    ("batch", "height", "width"),
    ("height", "width", "frames"),
    ("height", "width", "filled"),
    ("height", "width", *HALVES),
    ("batch", "height", "width", *HALVES),
    RESTS,
    (*RESTS, "frames"),
    ("prompt_tokens",),
    ("batch", "prompt_tokens"),
    ("height", "width", "prompt_tokens"),
    ("batch", "height", "width", "prompt_tokens"),
)


def test_terms_have_the_numbers_that_shipped_files_give_them():
    """Where the last line fails, shipped files have other terms than they were written with: write them anew with `build_shapes`."""
    for name in SCALED:
        for scope in Shapes.load(path_beside(record.shipped(WORKLOADS[name]))).scopes:
            options = {one.name: one.least for one in scope.variables}
            assert tuple(values_of(scope.variables, options, scope.beside)) in SEEN
    terms = repr([monomials((*names, INDEX)) for names in SEEN])
    assert hashlib.sha256(terms.encode()).hexdigest().startswith("3d9fd50996205a9d")


WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None
import json, simtti
batches = simtti.compare("stable-diffusion-1.5", ["h100-sxm"], [1, 4, 16], workers=1, fidelity="closed", launch="graph")
sizes = [
    simtti.run("stable-diffusion-1.5", hw="h100-sxm", height=side, width=512, fidelity="closed").latency_s
    for side in (512, 640)
]
print(json.dumps([batches.latency_s.tolist(), batches.error.tolist(), sizes]))
"""


def test_batches_and_sizes_run_without_torch():
    done = subprocess.run([sys.executable, "-c", WITHOUT_TORCH], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    latencies, errors, sizes = json.loads(done.stdout)
    assert errors == ["", "", ""]
    assert latencies[0] < latencies[1] < latencies[2]
    assert sizes[0] < sizes[1]
