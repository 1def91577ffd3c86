"""The study's experiments on a small configuration: what is counted where, what the findings say, what is kept."""

import dataclasses
import math

import pytest
from click.testing import CliRunner

from simtti.cli import main
from simtti.hw_configs.devices import load
from simtti.simulator.kernels.attention import batches_count_as_one
from simtti.simulator.lowering.lower import Lowering
from simtti.simulator.policy import Policy
from simtti.validation.report import markdown
from simtti.validation.study import accounting, findings, image_sizes, lab, operators, sequences, study, video
from simtti.validation.study.experiment import slope
from simtti.validation.study.l1.hit_rates import hit_rates, summarised
from simtti.validation.study.plan import Assumption, Plan
from simtti.validation.study.points import attending_trace, denoiser_trace, measure, point
from simtti.words import number
from simtti.workloads.profile import attention_calls
from simtti.workloads.record import workload_trace
from simtti.workloads.trace import TensorUse

HARDWARE = load("a100-sxm")
DECODER = Assumption("as assumed", side=16, frames=4, widths=(64, 128), levels=(1,))
SMALL = Plan(
    diffusion=("stable-diffusion-1.5",),
    transformer=("muse",),
    video=(),
    language=(),
    also=(),
    batches=(),
    sizes=(128, 256),
    sides=(16, 32),
    frames=(4, 8),
    assumptions=(DECODER, DECODER._replace(label="twice as wide", widths=(128, 256))),
    caches=(DECODER.caches,),
    attending=(),
    captures=("h200-sxm/muse",),
)


@pytest.fixture(scope="module")
def found():
    pytest.importorskip("torch")
    return {asked: measure(asked, HARDWARE) for asked in dict.fromkeys(SMALL.points())}


def test_every_point_comes_out(found):
    assert not {asked.label: out["error"] for asked, out in found.items() if "error" in out}


def test_both_accounts_are_of_all_kernels(found):
    """Attention by module takes from other categories what lies within; nothing is lost or counted twice."""
    for asked, out in found.items():
        for policy in ("flash", "baseline") if asked.kind not in ("caches", "capture") else ():
            run = out[policy]
            for account in ("operators", "modules"):
                assert sum(run[account].values()) == pytest.approx(run["kernel_s"])
            assert run["modules"]["Attention"] > run["operators"]["Attention"]
            assert run["modules"]["Linear"] < run["operators"]["Linear"]
            assert run["modules"].get("Convolution") == run["operators"].get("Convolution")
            assert accounting.attention_s(run, "kernel") == pytest.approx(run["operators"]["Attention"])
            assert accounting.attention_s(run, "module") == pytest.approx(run["modules"]["Attention"])
            assert run["latency_s"] == pytest.approx(run["kernel_s"] + run["idle_s"] + run["launch_s"])
            phases = run["phases"].values()
            assert sum(phase["kernel_s"] for phase in phases) == pytest.approx(run["kernel_s"])


def test_the_table_has_every_finding_and_red_where_not_met(found):
    result = study.evaluate(found, SMALL, HARDWARE)
    rows = result.findings
    assert [row.finding for row in rows] == [row.finding for row in findings.findings({}, SMALL, HARDWARE)], (
        "the same rows whatever came out"
    )
    wanted = ("convolution's share", "linear's share", "gain end to end", "gain in attention", "sequence length",
              "temporal over spatial", "temporal share", "against frames", "L1 hit rate", "fourth power")  # fmt: skip
    text = " ".join(f"{row.finding} {row.source}" for row in rows)
    assert all(name in text for name in wanted)
    met = {row.finding: row.met for row in rows}
    assert met["sequence length within a diffusion step"] is True
    assert all(row.came_out != findings.NOT_RUN for row in rows if "intensity" not in row.finding)
    unmet = [row for row in rows if row.met is False]
    assert unmet, "a decoder this small cannot do as the study's"
    table = study.report(result).sections[0].blocks[0]
    for row, cells in zip(rows, table.rows, strict=True):
        assert (cells[3].mark == "bad") == (cells[4].text == "no") == (row.met is False)


def test_bounds_decide_what_is_met(found):
    """Of the same runs with convolution's time changed: in red above the bound and below it, not within."""
    asked = point("run", "stable-diffusion-1.5")
    out = found[asked]

    def with_share(share):
        run = out["flash"]
        others = {name: seconds for name, seconds in run["modules"].items() if name != "Convolution"}
        total = sum(others.values()) / (1 - share)
        flash = {**run, "kernel_s": total, "modules": {**others, "Convolution": share * total}}
        changed = {**found, asked: {**out, "flash": flash}}
        return findings.findings(changed, SMALL, HARDWARE)[0]

    assert [with_share(share).met for share in (0.2, 0.44, 0.6)] == [False, True, False]
    assert "44.0 %" in with_share(0.44).came_out


def test_nothing_run_is_said_and_nothing_is_met():
    result = study.evaluate({}, SMALL, HARDWARE)
    assert {(row.came_out, row.met) for row in result.findings} == {(findings.NOT_RUN, None)}
    assert findings.NOT_RUN in markdown.text(study.report(result))


def test_files_and_figures(found, tmp_path):
    pytest.importorskip("matplotlib")
    result = study.evaluate(found, SMALL, HARDWARE)
    study.write(result, tmp_path)
    names = {name for experiment in result.experiments for name in experiment.figures}
    assert {path.name for path in tmp_path.iterdir()} == {"study.html", "study.md", "findings.csv"} | {
        f"{name}.csv" for name in names
    }
    assert 'class="bad"' in (tmp_path / "study.html").read_text()
    header, *rows = (tmp_path / "breakdown.csv").read_text().splitlines()
    assert header.startswith("workload,architecture,attention,account,category,time_s,share")
    assert len(rows) == len(SMALL.runs) * 2 * 2 * len(operators.CATEGORIES)


def test_what_muse_gains_is_shown_at_both_of_its_sizes_and_judged_at_the_larger(found):
    gains = operators.gains(found, SMALL)
    pairs = {row["transformer"]: row["end_to_end"] for row in operators.pairs(gains, SMALL)}
    assert list(pairs) == ["muse", "muse 256x256"]
    assert pairs["muse 256x256"] > pairs["muse"], "the fewer tokens, the less there is to gain"
    row = next(row for row in findings.findings(found, SMALL, HARDWARE) if "end to end" in row.finding)
    larger, smaller = (number(pairs[name]) for name in ("muse", "muse 256x256"))
    assert row.came_out == f"{larger} to {larger}; over muse 256x256 {smaller} to {smaller}"
    assert row.met == (1 <= pairs["muse"] <= 3)
    assert "muse 256x256" in row.span


def test_shares_are_of_the_baseline_and_of_themselves(found):
    rows = operators.shares(found, SMALL)
    for workload in ("stable-diffusion-1.5", "muse"):
        mine = [row for row in rows if row["workload"] == workload and row["account"] == "modules"]
        flash = [row for row in mine if row["attention"] == "flash"]
        baseline = [row for row in mine if row["attention"] == "baseline"]
        assert sum(row["share"] for row in flash) == pytest.approx(1)
        assert sum(row["of_baseline"] for row in baseline) == pytest.approx(1)
        assert sum(row["of_baseline"] for row in flash) < 1
        assert sum(row["of_eager_latency"] for row in flash) < 1


def test_sequence_lengths_of_stable_diffusion(found):
    """512x512: 4096 pixels of the latent image, a quarter at each level below."""
    row = next(r for r in sequences.variation(found, SMALL) if r["workload"] == "stable-diffusion-1.5")
    assert (row["shortest"], row["longest"], row["neighbours"], row["range"]) == (64, 4096, 4, 64)
    sizes = sequences.by_size(found, SMALL)
    assert {r["tokens"] for r in sizes if r["side"] == 128} == {256, 64, 16, 4}


def test_memory_grows_with_the_fourth_power(found):
    rows = image_sizes.memory(found, SMALL)
    assert slope(rows, "side", "largest_bytes") == pytest.approx(4)
    assert rows[-1]["largest_bytes"] == 2 * 8 * 1024 * 1024 * 2, "guidance, 8 heads, 1024 tokens, fp16"


def test_temporal_flops_are_frames_over_pixels_of_spatial(found):
    row, *_ = video.comparison("", found[DECODER.point])
    assert row["attention"] == "baseline"
    assert row["flops_ratio"] == pytest.approx(4 / 64, rel=0.1)
    assert row["temporal_copies_s"] > row["temporal_module_s"] > row["temporal_kernel_s"] > 0
    assert row["spatial_copies_s"] == row["spatial_module_s"], "nothing is turned around for it"
    exponents = {r["account"]: r for r in video.growth(video.over(found, SMALL, "frames"), "frames")}
    assert exponents["flops"]["temporal_exponent"] == pytest.approx(2, abs=0.1)
    assert exponents["flops"]["spatial_exponent"] == pytest.approx(1, abs=0.1)


def test_whole_make_a_video_attends_where_it_is_told():
    """At 8x8 only: spatial attention's FLOPs over temporal's are 64 positions over 16 frames, and over 76."""
    eight = next(assumption for assumption in Plan().attending if assumption.levels == (3,))
    assert eight.whole == point("whole", "make-a-video", levels=(3,))
    assert Plan().decoder.whole == point("run", "make-a-video"), "as the workload is"
    pytest.importorskip("torch")
    calls = attention_calls(attending_trace("make-a-video", eight.levels))
    for phase, frames in (("denoising", 16), ("interpolation", 76)):
        work = {
            domain: sum(c.flops for c in calls if (c.phase, c.domain) == (phase, domain))
            for domain in video.DOMAINS
        }
        assert {c.q_len for c in calls if (c.phase, c.domain) == (phase, "spatial")} == {64}
        assert work["spatial"] / work["temporal"] == pytest.approx(64 / frames)


def test_crossover():
    assert video._crossover([(8, 0.25), (16, 0.5), (32, 2.0)]) == pytest.approx(16 * math.sqrt(2))
    assert video._crossover([(8, 0.25), (16, 0.5)]) == pytest.approx(32), (
        "beyond, by the last two's power law"
    )
    assert video._crossover([(8, 2.0), (16, 1.5)]) is None
    assert video._crossover([(8, 0.5), (16, 0.25)]) is None


def test_unfused_attention_copies_what_is_packed():
    """Packed projections lie by token; a key-value cache lies by batch and head already."""
    packed = TensorUse(0, (2, 8, 64, 40), (64 * 960, 40, 960, 1), "fp16", "input", 2 * 64 * 960 * 2)
    cache = dataclasses.replace(packed, strides=(8 * 640 * 40, 640 * 40, 40, 1))
    alone = dataclasses.replace(packed, shape=(1, 8, 64, 40))
    assert [batches_count_as_one(use) for use in (packed, cache, alone)] == [False, True, True]


@pytest.mark.parametrize(("side", "spatial"), [(39, 2 / 3), (40, 2 / 3), (32, 0)])
def test_hit_rates_of_long_rows_and_of_temporal_attention(side, spatial):
    """Softmax over more than 1,024 pixels reads a row three times in the PyTorch of the study, whole vectors or not; up to
    1,024 pixels, and over a few frames, once. Products of a few frames share next to nothing."""
    pytest.importorskip("torch")
    trace = denoiser_trace(side=side, frames=16, widths=(64,), levels=(0,))
    rows = summarised(hit_rates(trace, HARDWARE))
    rate = {(row["class"], row["domain"]): row["l1_hit_rate"] for row in rows if row["layout"] == "copied"}
    assert rate["softmax", "spatial"] == pytest.approx(spatial, abs=0.01)
    assert rate["softmax", "temporal"] < 0.01
    assert rate["GEMM", "temporal"] < 0.01


def test_baseline_attention_has_copies_and_flash_has_none():
    trace = workload_trace("stable-diffusion-1.5")
    attention = next(
        op for op in trace.operators() if op.category == "Attention" and op.inputs[0].shape[0] > 1
    )
    kinds = {
        policy: [
            accounting.kernel_class(k) for k in Lowering(HARDWARE, Policy(policy)).lower(attention).kernels
        ]
        for policy in ("baseline", "flash")
    }
    assert kinds["baseline"].count(accounting.ELEMENTWISE) == 4
    assert set(kinds["flash"]) == {accounting.FUSED}


def test_the_command_names_what_is_wrong(tmp_path):
    pytest.importorskip("matplotlib")
    result = CliRunner().invoke(main, ["validate", "study", "--hw", "a200", "-o", str(tmp_path)])
    assert result.exit_code
    assert "a200" in result.output


# ---- going on where it stopped


def test_a_second_run_goes_on_from_what_is_kept(tmp_path, monkeypatch):
    pytest.importorskip("torch")
    points = [DECODER.point, point("run", "no-such-model")]
    seen = []
    first = lab.run_points(
        points, HARDWARE, tmp_path, workers=1, progress=lambda done, total: seen.append((done, total))
    )
    assert seen == [(0, 2), (1, 2), (2, 2)]
    assert "no-such-model" in first[points[1]]["error"]
    journal = tmp_path / lab.JOURNAL
    assert len(journal.read_text().splitlines()) == 1, "what did not come out is tried again"
    journal.write_text(journal.read_text() + '{"code": "cut o')
    seen.clear()
    again = lab.run_points(
        points[:1], HARDWARE, tmp_path, progress=lambda done, total: seen.append((done, total))
    )
    assert seen == [(1, 1)]
    assert again[DECODER.point]["flash"] == first[DECODER.point]["flash"]
    result = study.evaluate(first, SMALL, HARDWARE)
    assert any("no-such-model" in problem for problem in result.problems)
    assert "no-such-model" in markdown.text(study.report(result))
    monkeypatch.setattr(lab, "code_hash", lambda *more: "other code")
    assert not lab.Journal(journal, lab._fingerprint(HARDWARE)).read()
