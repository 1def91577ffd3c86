"""Caches of transformer blocks: which blocks run in which steps, what a cache itself costs, what cannot be."""

from collections import Counter
from dataclasses import replace

import pytest
from recorded_traces import shipped
from small_traces import timed_trace

import simtti
from simtti.errors import InputError
from simtti.workloads.blocks import passes
from simtti.workloads.cache_schedule import cache_of, mag_hits
from simtti.workloads.caching import cached
from simtti.workloads.flops import flops

STEPS = 8
BLOCKS = 57  # FLUX.1-dev: 19 and 38


def flux(steps=STEPS):
    return shipped("flux-dev").with_steps(steps)


def denoising(trace):
    return next(phase for phase in trace.phases if phase.name == "denoising").steps


def work(operators):
    return sum(flops(one) for one in operators)


def hits(given, steps):
    return [kind.hit for kind in cache_of(given).kinds(steps)]


def times(trace, hw="h100-sxm"):
    return simtti.run(trace, hw, fidelity="closed")


# ---- which steps


@pytest.mark.parametrize(
    ("given", "steps", "expected"),
    [
        ("fbcache:0.5", 8, "mmhmhmhh"),
        ("fbcache:0.25:warmup=4", 8, "mmmmmhmh"),
        ("teacache:0.5", 8, "mmhmhhhm"),
        ("magcache:0.5", 10, "mmmhmhhmhh"),
        ("dbcache:0.2", 10, "mmmmmmmmhh"),
        ("fbcache:0", 3, "mmm"),
        ("fbcache:0.75", 4, "mhhh"),
    ],
)
def test_hits_are_spread_evenly_after_the_warm_up(given, steps, expected):
    found = "".join("mh"[hit] for hit in hits(given, steps))
    assert found.count("h") == expected.count("h") == round(float(given.split(":")[1]) * steps)
    warmup = cache_of(given).warmup(steps)
    assert "h" not in found[:warmup]
    free = found[warmup:].rstrip("m") if given.startswith("teacache") else found[warmup:]
    share = free.count("h") / max(len(free), 1)
    for end in range(len(free) + 1):  # at no point more than one away from an even spread
        assert abs(free[:end].count("h") - share * end) <= 1


def test_the_first_step_compares_nothing_and_later_ones_do():
    kinds = cache_of("fbcache:0.5").kinds(8)
    assert [kind.tested for kind in kinds] == [False] + [True] * 7
    kinds = cache_of("teacache:0.5").kinds(8)
    assert [kind.tested for kind in kinds] == [False] + [True] * 6 + [False]
    assert not any(kind.tested for kind in cache_of("magcache:0.5").kinds(8))


def test_mag_cache_skips_while_the_errors_add_up_to_less_than_its_threshold():
    # By hand, threshold 0.1: 0.05 | 0.05 + |1 - 0.95^2| = 0.1475 > 0.1, so every other step.
    assert mag_hits([0.95] * 6, 6, 0.1, 3, 0.2) == [False, True, False, True, False, True]
    assert mag_hits([1.0] * 9, 9, 0.1, 2, 0.2) == [False, False, True, True, False, True, True, False, True]
    assert not any(mag_hits([1.0] * 9, 9, 0.1, 2, 1.0))


# ---- which blocks


def test_blocks_are_found_and_what_they_hand_on():
    (blocks,) = passes(denoising(flux())[0].operators)
    assert blocks.lists == (
        ("transformer.transformer_blocks", 19),
        ("transformer.single_transformer_blocks", 38),
    )
    for state in blocks.states:
        assert [use.shape for use in state] == [(1, 4096, 3072), (1, 512, 3072)]


def test_guidance_in_turn_is_two_passes():
    assert [len(blocks) for blocks in passes(denoising(shipped("wan2.1-1.3b"))[0].operators)] == [30, 30]


def blocks_run(operators):
    """How often each block's attention is there."""
    return Counter(
        one.module.rsplit(".attn", 1)[0]
        for one in operators
        if one.op == "aten::scaled_dot_product_attention"
    )


@pytest.mark.parametrize(
    ("given", "run"),
    [
        ("fbcache:0.5", ["transformer_blocks.0"]),
        ("teacache:0.5", []),
        ("magcache:0.5", []),
        (
            "dbcache:0.25:fn=2:bn=1:warmup=2",
            ["transformer_blocks.0", "transformer_blocks.1", "transformer_blocks.18"]
            + [f"single_transformer_blocks.{number}" for number in (0, 1, 37)],
        ),
    ],
)
def test_a_hit_runs_the_blocks_that_the_method_runs_and_a_miss_all(given, run):
    whole = blocks_run(denoising(flux())[0].operators)
    *misses, hit = denoising(cached(flux(), given))
    assert blocks_run(hit.operators) == Counter(f"transformer.{block}" for block in run)
    for miss in misses:
        assert blocks_run(miss.operators) == whole


@pytest.mark.parametrize("given", ["fbcache:0.5", "magcache:0.5", "dbcache:0.25:fn=2:bn=1:warmup=2"])
def test_the_work_of_the_blocks_that_run_is_what_it_was(given):
    """FLOPs of products and attention to the last one: what a hit has is the step less the skipped blocks."""
    before = denoising(flux())[0].operators
    steps = denoising(cached(flux(), given))
    (blocks,) = passes(before)
    run = blocks_run(steps[-1].operators)
    skipped = [
        one
        for begin, end in zip(blocks.begins, blocks.ends, strict=True)
        if ".".join(before[begin].module.split(".")[:3]) not in run
        for one in before[begin:end]
    ]
    assert skipped
    assert work(steps[-1].operators) == work(before) - work(skipped)
    for miss in steps[:-1]:
        assert work(miss.operators) == work(before)


@pytest.mark.parametrize("given", ["fbcache:0.5", "teacache:0.5", "magcache:0.5", "dbcache:0.25:warmup=4"])
def test_the_steps_add_up_to_as_many_as_before(given):
    found = cached(flux(), given)
    assert sum(step.count for step in denoising(found)) == STEPS
    assert found.options["cache_hits"] == round(float(given.split(":")[1]) * STEPS)
    for step in denoising(found):
        assert [one.position for one in step.operators] == list(range(len(step.operators)))


def test_without_a_hit_only_the_comparison_is_added():
    before = Counter((one.module, one.op) for one in denoising(flux())[0].operators)
    _, miss = denoising(cached(flux(), "fbcache:0"))
    added = Counter((one.module, one.op) for one in miss.operators) - before
    head, tail = "transformer.transformer_blocks.0", "transformer.single_transformer_blocks.37"
    assert added == {
        (head, "aten::sub"): 2, (head, "aten::abs"): 2, (head, "aten::mean"): 2, (head, "aten::div"): 1,
        (head, "aten::_local_scalar_dense"): 1, (tail, "aten::sub"): 2,
    }  # fmt: skip
    assert not before - Counter((one.module, one.op) for one in miss.operators)


def test_kinds_of_steps_share_weights_and_kept_tensors_and_nothing_else_that_they_make():
    *_, miss, hit = denoising(cached(flux(), "fbcache:0.5"))
    made = [
        {
            use.tensor
            for one in step.operators
            for use in one.outputs
            if use.role == "activation" and not one.is_view
        }
        for step in (miss, hit)
    ]
    after = flux().phases[-1].steps[0].operators
    latents = {use.tensor for one in after for use in one.inputs}
    assert made[0] & made[1] <= latents  # the residuals are made by misses and read by hits
    weights = [
        {use.tensor for one in step.operators for use in one.inputs if use.role == "parameter"}
        for step in (miss, hit)
    ]
    assert weights[1] < weights[0]


# ---- what it costs


def test_more_hits_take_less_time_and_none_takes_the_tests():
    none = times(flux())
    found = [times(cached(flux(), f"fbcache:{share}")) for share in (0, 0.25, 0.5, 0.75)]
    latencies = [each.latency_s for each in found]
    assert latencies == sorted(latencies, reverse=True)
    assert len(set(latencies)) == 4
    assert none.latency_s < latencies[0] < 1.01 * none.latency_s
    energies = [each.energy_j for each in found]
    assert energies == sorted(energies, reverse=True)


def test_where_all_but_one_hit_the_rest_is_what_is_outside_the_blocks():
    """In a CUDA graph: else the host is ahead where a hit follows a step that ran whole."""
    steps = 50
    most = denoising_s(cached(flux(steps), f"magcache:{(steps - 1) / steps}:warmup=1"))
    whole, outside = denoising_s(flux(1)), denoising_s(_without_blocks(flux(steps))) / steps
    assert most == pytest.approx(whole + (steps - 1) * outside, rel=0.03)
    assert outside < 0.05 * whole


def denoising_s(trace):
    result = simtti.run(trace, "h100-sxm", fidelity="closed", launch="graph")
    return {phase.name: phase.latency_s for phase in result.phases}["denoising"]


def _without_blocks(trace):
    (blocks,) = passes(denoising(trace)[0].operators)
    phases = []
    for phase in trace.phases:
        if phase.name == "denoising":
            step = phase.steps[0]
            kept = step.operators[: blocks.begins[0]] + step.operators[blocks.ends[-1] :]
            phase = replace(phase, steps=(replace(step, operators=kept),))
        phases.append(phase)
    return replace(trace, phases=tuple(phases))


def test_memory_grows_by_what_is_kept():
    """The residuals of both streams and of the first block: 4,096, 512 and 4,096 tokens of 3,072, bf16."""
    kept = (4096 + 512 + 4096) * 3072 * 2
    without, with_cache = (
        times(flux()).peak_memory_bytes,
        times(cached(flux(), "fbcache:0.5")).peak_memory_bytes,
    )
    assert 0.9 * kept <= with_cache - without <= 2 * kept


def test_gpus_share_the_tokens_of_a_hit_too():
    one = simtti.run("flux-dev", "h100-sxm", steps=4, cache="teacache:0.5", fidelity="closed", gpus=2)
    hit = denoising(one.trace)[-1].operators
    assert not any(one.category == "Attention" for one in hit)
    assert {one.inputs[0].shape for one in hit if one.op == "aten::native_layer_norm"} == {(1, 2048, 3072)}


def test_a_quantized_denoiser_is_cached_too():
    result = simtti.run(
        "flux-dev", "h100-sxm", steps=4, cache="fbcache:0.5", quantization="fp8", fidelity="closed"
    )
    assert {"cache", "quantization"} <= result.to_dict()["configuration"].keys()
    assert any(one.op == "aten::_scaled_mm" for one in denoising(result.trace)[-1].operators)


# ---- schedules


def test_a_file_says_what_each_step_runs(tmp_path):
    path = tmp_path / "schedule.yaml"
    path.write_text(
        "cache: none\nsteps:\n- {do: full, times: 2}\n- {run: '0-3, 55-56', times: 2}\n- full\n- {run: 0-18}\n- {do: full, times: 2}\n"
    )
    full, ends, front = denoising(cached(flux(), str(path)))
    assert (full.count, ends.count, front.count) == (5, 2, 1)
    assert set(blocks_run(ends.operators)) == {
        *(f"transformer.transformer_blocks.{number}" for number in range(4)),
        *(f"transformer.single_transformer_blocks.{number}" for number in (36, 37)),
    }
    assert set(blocks_run(front.operators)) == {
        f"transformer.transformer_blocks.{number}" for number in range(19)
    }


def test_a_file_may_list_hits_of_a_method_or_mag_cache_s_ratios(tmp_path):
    listed = tmp_path / "listed.yaml"
    listed.write_text("cache: fbcache\nsteps: [full, full, hit, hit, full, hit, hit, full]\n")
    assert hits(str(listed), 8) == [False, False, True, True, False, True, True, False]
    found = cached(flux(), str(listed))
    assert [(step.count) for step in denoising(found)] == [1, 3, 4]
    ratios = tmp_path / "ratios.yaml"
    ratios.write_text(
        "cache: magcache\nratios: [1.0, 0.99, 0.98]\nthreshold: 0.03\nmax_skip: 2\nretention: 0.3\n"
    )
    assert hits(str(ratios), 6) == mag_hits([1.0, 0.99, 0.98], 6, 0.03, 2, 0.3)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("fbcach:0.5", "unknown cache 'fbcach'; did you mean 'fbcache'"),
        ("fbcache", "does not say how many steps hit.*fbcache:0.5"),
        ("fbcache:0.9x", "share is '0.9x'; it must be a number"),
        ("fbcache:1.5", "share is 1.5; it is of the steps, 0 to 1"),
        ("fbcache:1", "8 of 8 steps cannot hit, as 1 always run whole; give a share of at most 0.875"),
        ("fbcache:0.5:fn=4", "fn is dbcache's"),
        ("dbcache:0.5:fn=0", "fn is 0; dbcache compares"),
        ("dbcache:0.5:warmup=2.5", "warmup is 2.5; it must be a whole number"),
        ("dbcache:0.5:warmup=2:fn=19", "leave none of flux-dev's 19 blocks to skip"),
        ("fbcache:0.5:depth=2", "unknown field 'depth'"),
        ("nowhere.yaml", "nowhere.yaml: cannot be read"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(given, message):
    with pytest.raises(InputError, match=message) as raised:
        cached(flux(), given)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("steps: [full, hit", "not valid YAML"),
        ("- full", "is no schedule"),
        ("cache: fbcache", "give one of share"),
        ("cache: none\nshare: 0.5", "give one of share"),
        ("steps: [full, hit]", "lists 2 steps, the denoiser is evaluated 8 times"),
        ("steps: [{do: hit, times: 8}]", "the first skips blocks, but nothing is cached yet"),
        ("steps: [full, jump]", r"steps\[1\] is 'jump'; it must `do: full` or `do: hit`"),
        ("steps: [full, {run: 0-99, times: 7}]", "run names block 99; flux-dev has 57"),
        ("steps: [full, {run: a-b}]", "run is 'a-b'; it must be numbers"),
        ("cache: fbcache\nsteps: [full, {run: 5-56, times: 7}]", "block 0 is not run, but fbcache compares"),
        ("cache: fbcache\nratios: [1.0]", "give one of share"),
        (
            "steps: [full, {do: hit, times: 1000000000}]",
            "times is 1000000000; it must be a whole number from 1 to",
        ),
        ("steps: [full, {run: 0-999999999, times: 7}]", "it must be numbers of blocks from 0 to"),
        ("cache: [fbcache]\nshare: 0.5", "unknown cache"),
        ("cache: magcache\nratios: [1.0, -1.0]", "a ratio of magnitudes is above 0"),
        ("cache: magcache\nratios: [1.0]\nretention: 7", "retention is 7; it must be from 0 to 1"),
        ("stepz: 1", "unknown field 'stepz'; did you mean 'steps'"),
    ],
)
def test_what_a_file_cannot_say(tmp_path, text, message):
    path = tmp_path / "schedule.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as raised:
        cached(flux(), str(path))
    assert str(path) in str(raised.value)


def test_a_unet_and_a_measured_trace_are_refused():
    with pytest.raises(InputError, match=r"no row of transformer blocks.*leave --cache out"):
        cached(shipped("stable-diffusion-1.5"), "fbcache:0.5")
    with pytest.raises(InputError, match="use timing model"):
        cached(timed_trace(), "fbcache:0.5")


def test_blocks_that_read_far_back_cannot_run_after_skipped_ones():
    """HunyuanDiT's second half reads what the first half's blocks made."""
    with pytest.raises(InputError, match="reads more than the stream"):
        cached(shipped("hunyuan-dit"), "dbcache:0.5:fn=1:bn=8")


def test_a_sweep_takes_a_cache(tmp_path):
    points = tmp_path / "points.csv"
    points.write_text(
        "workload,hw,steps,cache\nflux-dev,h100-sxm,4,fbcache:0.5\nflux-dev,h100-sxm,4,\nstable-diffusion,h100-sxm,4,fbcache:0.5\n"
    )
    table = simtti.sweep(points, tmp_path / "out.csv", workers=1)
    assert table.latency_s[0] < table.latency_s[1]
    assert "no row of transformer blocks" in table.error[2]
