"""Write what the shipped traces become at other shapes: python -m simtti.workloads.build_shapes [WORKLOAD...]

Each workload, or those named, is recorded at a few shapes: of one image, and of several at once. From all but the last of them expressions
are found, and the last must come out as it was recorded; as far as they reach, traces are made without torch from then on. Pipelines
change what they do above some size or batch and stay with that (diffusers copies images before it enlarges them where they have 2^31
elements), so that what holds at the corners holds between them. Tiled videos are sought within as many tiles, around several sizes. Where
sizes and frames do not scale together, each is tried alone; where nothing does there is no file, and other shapes are recorded when they
are run. After the shipped traces have been built anew, this is to be run again: a file made for another trace is not used. Recordings are
kept (`trace_cache`), so that it goes on where it was stopped.
"""

import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

from simtti.errors import InputError
from simtti.workloads import trace_cache
from simtti.workloads.catalogue import WORKLOADS, Workload, find
from simtti.workloads.expressions import NotExact
from simtti.workloads.record import record_workload, shipped
from simtti.workloads.shape_fit import alike, fit
from simtti.workloads.shapes import FILLED, Scope, Shapes, Variable, fills, hash_of, path_beside, volume
from simtti.workloads.side_by_side import OtherOperators
from simtti.workloads.trace import Trace
from simtti.workloads.workload import Tiles

Recorder = Callable[[Workload, dict[str, Any]], Trace]
SIDES = ("height", "width")
PROMPT = "prompt_tokens"
# Batch, and height, width, frames and prompt's tokens over the default ones: sizes from half the default side to twice. Expressions are
# found from all but the last recording, and hold at that. No ratio is another's multiple, so that products are told apart. What repeats
# shows where there is most of it, which comes first of a batch; how seldom it may, where there is least, which is never the last.
ONE = (
    (1, 0.5, 1.3, 0.25, 0.45),
    (1, 1.45, 0.7, 0.7, 0.7),
    (1, 2, 2, 1, 2),
    (1, 0.5, 0.5, 1.3, 1.35),
    (1, 0.8, 0.9, 0.4, 0.25),
    (1, 1.2, 0.6, 0.55, 0.6),
)
MANY = (
    (16, 1, 1, 1, 1), (2, 1.3, 0.5, 0.25, 0.45), (3, 0.7, 1.45, 0.7, 0.7), (5, 0.5, 0.5, 1.3, 1.35), (2, 2, 2, 0.4, 0.25),
    (7, 1.15, 0.6, 0.55, 0.6), (4, 0.6, 1.2, 0.8, 0.9),
)  # fmt: skip
# Sizes of so many times the least step are tried, and of those together or apart where an image's tokens need filling up and where not:
# where half a step is taken, even ones follow.
WAYS: tuple[tuple[int, tuple[bool | None, ...]], ...] = ((1, (None,)), (1, (True, False)), (2, (None,)))
# Videos longer than the default, and where they are decoded in another way, not longer; prompts too, where there is room for them.
LONGEST = (1.3, 1)
LONGEST_PROMPT = (2, 1)
# Batches as large as that, and where that many pixels are copied before they are enlarged, smaller ones.
LARGEST = (16, 6)
# What expressions see beside the options, where these alone do not do; and where tokens are filled up.
BESIDES: dict[bool | None, tuple[tuple[str, ...], ...]] = {
    None: ((), ("longer",), ("height half", "width half", "longer half")), True: ((),), False: (("filled",),),
}  # fmt: skip
# What tiled videos are made at besides.
VIDEO_SIZES = ((480, 832), (720, 1280))
_PAIRS = sorted(product(range(FILLED), repeat=2), key=sum)
_FEWEST = 5  # recordings that a scope is made of and checked at


def build(name: str, recorded: Recorder) -> Shapes | None:
    """What the shipped trace of a workload becomes at other shapes; None where nothing of it scales. Says why something does not."""
    workload = find(name)
    default = Trace.load(shipped(workload))
    if default.options.get("batch") != 1:
        return None
    scopes: list[Scope] = []
    for size in _sizes(workload, default):
        try:
            base = recorded(workload, {**default.options, **size}) if size else default
        except InputError as reason:
            print(f"{name}, {size}: {reason}"[:300], flush=True)
            continue
        # Several videos at once are seldom run: their batch is free alone.
        several = [()] if "frames" in default.options else list(_together(_groups(workload, default)))
        scopes += _scopes(workload, base, ONE, list(_together(_groups(workload, default)))[:-1], recorded)
        if not size:
            scopes += _scopes(workload, base, MANY, several, recorded)
    return Shapes(hash_of(shipped(workload)), tuple(scopes)) if scopes else None


def _sizes(workload: Workload, default: Trace) -> list[dict[str, int]]:
    """Around which sizes scopes are sought: the default one, which is {}; of tiled videos also others that they are made at."""
    tiles = _tiles(workload)
    if tiles is None or "frames" not in default.options:
        return [{}]

    def alike(size: Mapping[str, int]) -> list[tuple[int, int]]:
        return [of.alike(size[name]) for name, of in zip(SIDES, tiles, strict=True)]

    others = [dict(zip(SIDES, size, strict=True)) for size in VIDEO_SIZES]
    return [{}, *(size for size in others if alike(size) != alike(default.options))]


def _groups(workload: Workload, default: Trace) -> list[tuple[str, ...]]:
    """What may be free of a workload, sizes only together."""
    sized = not workload.sizes and ("tiled" not in (workload.own_vae or "") or _tiles(workload) is not None)
    sides = [SIDES] if sized else []
    return [group for group in (*sides, ("frames",), (PROMPT,)) if {*group} <= {*default.options}]


def _scopes(
    workload: Workload,
    base: Trace,
    points: Sequence[tuple[float, ...]],
    groups: Sequence[tuple[str, ...]],
    recorded: Recorder,
) -> list[Scope]:
    """Those of one image, or of several, that hold around a recording: what is free in one is not tried again with less."""
    found: list[Scope] = []
    done: list[set[str]] = []
    batch = ("batch",) if points is MANY else ()
    for free in groups:
        if any({*free} <= each for each in done):
            continue
        other = False  # whether operators were others
        for (coarser, fulls), longest, longest_prompt, largest in product(
            WAYS if SIDES[0] in free else WAYS[:1],
            LONGEST if "frames" in free else (1,),
            LONGEST_PROMPT if PROMPT in free else (1,),
            LARGEST if batch else (1,),
        ):
            if None not in fulls and not other:
                continue
            tried = [
                (min(images, largest), height, width, min(frames, longest), min(tokens, longest_prompt))
                for images, height, width, frames, tokens in points
            ]
            variables = [_variable(workload, base, one, coarser) for one in (*batch, *free)]
            if not all(one.admits(base.options[one.name]) for one in variables[len(batch) :]):
                continue
            here = []
            for full in fulls:
                try:
                    here.append(_scope(workload, base, tried, variables, recorded, full))
                except (NotExact, InputError) as reason:
                    _say(workload.name, points, free, reason)
                    other = other or isinstance(reason, OtherOperators)
            if here:
                found += here
                done.append({*free})
                break
    return found


def _say(name: str, points: Sequence[tuple[float, ...]], free: tuple[str, ...], reason: Exception) -> None:
    what = " and ".join((f"batch {'1' if points is ONE else 'above 1'}", *free))
    print(f"{name}, {what}: {reason}"[:300], flush=True)


def _together(groups: Sequence[tuple[str, ...]]) -> Iterator[tuple[str, ...]]:
    """What may be free together, the most first."""
    if len(groups) > 1:
        yield tuple(name for group in groups for name in group)
    yield from groups
    yield ()


def _scope(
    workload: Workload,
    default: Trace,
    points: Sequence[tuple[float, ...]],
    variables: Sequence[Variable],
    recorded: Recorder,
    full: bool | None,
) -> Scope:
    """The scope in which these options are free.

    Raises:
        NotExact: there is none.
    """
    traces = [default]
    if variables[0].name == "batch" or (full is not None and full != fills(variables, default.options)):
        traces = []
    failed = "too few shapes"
    for shape in _shapes(variables, default, points, full):
        traces.append(recorded(workload, {**default.options, **shape}))
        alike([traces[0], traces[-1]])
        if len(traces) < max(_FEWEST, len(variables) + 2):
            continue
        for beside in BESIDES[full] if {*SIDES} <= {one.name for one in variables} else ((),):
            try:
                found = fit(traces[:-1], [_reached(one, traces) for one in variables], beside, full)
            except NotExact as reason:
                failed = str(reason)
                continue
            wrong = [trace.options for trace in traces if found.trace(default, trace.options) != trace]
            if not wrong:
                return replace(found, largest=max(volume(trace.options) for trace in traces))
            failed = f"at {wrong[-1]} it is not what is recorded"
    raise NotExact(failed)


def _reached(variable: Variable, traces: Sequence[Trace]) -> Variable:
    """As far as recordings go."""
    options = [trace.options[variable.name] for trace in traces]
    return replace(variable, least=min(options), most=max(options))


def _shapes(
    variables: Sequence[Variable], default: Trace, points: Sequence[tuple[float, ...]], full: bool | None
) -> list[dict[str, int]]:
    """The shapes to record, without those that are the default or there twice."""
    free = {one.name: one for one in variables}
    shapes: list[dict[str, int]] = []
    for point in points:
        wanted = dict(zip(("batch", *SIDES, "frames", PROMPT), point, strict=True))
        shape = {
            one.name: int(wanted["batch"])
            if one.name == "batch"
            else one.nearest(_wanted(one, wanted[one.name], default.options[one.name]))
            for one in variables
        }
        if full is not None:
            unit = free["height"].unit
            more = (
                {side: shape[side] + unit * each for side, each in zip(SIDES, pair, strict=True)}
                for pair in _PAIRS
            )
            shape.update(
                next(
                    sides for sides in more if fills(variables, {**default.options, **shape, **sides}) == full
                )
            )
        if shape not in shapes and any(default.options[name] != value for name, value in shape.items()):
            shapes.append(shape)
    return shapes


def _wanted(variable: Variable, ratio: float, default: int) -> float:
    """So many times the default; of a side that reaches less far than half of it to twice, as far between its least and most."""
    least, most = variable.least, variable.most
    if variable.name not in SIDES or (least <= default / 2 and most >= default * 2):
        return ratio * default
    return least + (most - least) * math.log(2 * ratio, 4)


def _tiles(workload: Workload) -> tuple[Tiles, Tiles] | None:
    decoding = workload.decoding
    return decoding.tiles if decoding is not None and "tiled" in decoding.own else None


def _variable(workload: Workload, base: Trace, name: str, coarser: int) -> Variable:
    """An option as a variable, with all that the workload takes."""
    if name == "batch":
        return Variable(name, 2, 2**20)
    if name == PROMPT:
        return Variable(name, 1, 2**20)
    if name == "frames":
        multiple = workload.frame_multiple
        return Variable(name, 1, workload.max_frames or 2**20, multiple, int(multiple > 1))
    # A UNet halves the latent image up to three times; where a side does not divide by that, it is padded on the way.
    unit = max(workload.size_multiple, 64 if "UNet" in workload.architecture else 1) * coarser
    tiles, side = _tiles(workload), base.options[name]
    if tiles is None:
        return Variable(name, unit, (workload.max_size or 2**20) // unit * unit, unit)
    # Tiles are as many, and those at the edges as large, as a size leaves them: of the sizes with as many of them, the last one's grows.
    of = tiles[SIDES.index(name)]
    least, most = of.alike(side)
    return Variable(name, -(-least // unit) * unit, most // unit * unit, unit, whole=of.before(side))


def kept(workload: Workload, options: dict[str, Any]) -> Trace:
    """A recording, from where they are kept if it is there."""
    return trace_cache.kept(workload.name, options, lambda: record_workload(workload.name, **options), None)


def write(name: str, recorded: Recorder = kept) -> Path | None:
    """Build and write that file, or take it away; None where there is none."""
    path = path_beside(shipped(find(name)))
    found = build(name, recorded)
    if found is None:
        path.unlink(missing_ok=True)
        print(f"{name}: other shapes are recorded", flush=True)
        return None
    found.save(path)
    print(f"{path.name}  {path.stat().st_size:,} bytes, {'; '.join(map(str, found.scopes))}", flush=True)
    return path


if __name__ == "__main__":
    try:
        for each in sys.argv[1:] or WORKLOADS:
            write(each)
    except InputError as error:
        sys.exit(f"build_shapes: error: {error}")
