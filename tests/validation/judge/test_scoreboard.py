"""Published runs: which options they are, what is left out, and how the predictions are held against them."""

from collections import Counter

import pandas as pd
import pytest
from click.testing import CliRunner

from simtti.cli import main
from simtti.errors import InputError
from simtti.validation.judge.runs import evaluate_runs
from simtti.validation.judge.scoreboard import read_collections, with_predictions
from simtti.validation.measurements.sources.public_runs import read_end_to_end, read_questions
from simtti.validation.report import markdown
from simtti.validation.report import scoreboard as content

RUN = {
    "source": "somebody", "gpu": "H100 80GB", "n_gpus": 1, "model": "Stable Diffusion 1.5", "engine": "diffusers", "dtype": "fp16",
    "attention": "torch SDPA", "width": 512, "height": 512, "frames": 1, "steps": 50, "guidance": "CFG batched", "batch": 1,
    "parallelism": None, "compile": None, "quantisation": None, "cache": None, "offload": None, "scope": "e2e", "latency_s": 1.7,
    "peak_mem_gib": 2.6, "mem_metric": "allocated", "modified_algo": 0, "note": None,
}  # fmt: skip


def read(*changes):
    left_out: Counter[str] = Counter()
    return list(read_end_to_end(pd.DataFrame([RUN | change for change in changes]), left_out)), left_out


def test_a_row_becomes_options():
    (row,), left_out = read({})
    wanted = {
        "workload": "stable-diffusion-1.5", "hw": "h100-sxm", "dtype": "fp16", "batch": 1, "steps": 50, "gpus": 1, "engine": "diffusers",
        "attention": "flash", "what_is_timed": "run", "latency_s": 1.7, "memory_bytes": 2.6 * 2**30,
    }  # fmt: skip
    assert row.items() >= wanted.items()
    assert "frames" not in row
    assert not left_out


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({"compile": "max-autotune"}, {"launch": "compiled-graph"}),
        ({"compile": "torch.compile NHWC"}, {"launch": "compiled", "layout": "channels-last"}),
        ({"quantisation": "fp8dqrow"}, {"quantization": "fp8-row"}),
        ({"quantisation": "svdq_nvfp4_r32", "gpu": "RTX 5090"}, {"quantization": "svdq-nvfp4"}),
        ({"engine": "diffusers + torchao (torch nightly, late 2024)"}, {"attention": "cudnn"}),
        ({"source": "sayakpaul/diffusers-torchao README", "attention": None}, {"attention": "cudnn"}),
        ({"model": "CogVideoX-5b", "source": "sayakpaul/diffusers-torchao README.md"}, {"vae": "whole"}),
        (
            {"engine": "SGLang diffusion", "attention": None},
            {"engine": "sglang"},
        ),
        ({"engine": "vLLM-Omni", "compile": "eager"}, {"engine": "vllm-omni", "launch": "eager"}),
        (
            {
                "engine": "cosmos-predict2 repo",
                "model": "Cosmos-Predict2-14B-Video2World",
                "height": 480,
                "width": 832,
            },
            {"engine": "cosmos", "height": 432, "width": 768},
        ),
        (
            {"engine": "SGLang", "n_gpus": 2, "parallelism": "engine default for 2 GPUs"},
            {"cfg_parallel": 2, "ulysses": 1},
        ),
        (
            {
                "engine": "SGLang",
                "n_gpus": 2,
                "parallelism": "engine default for 2 GPUs",
                "guidance": "embedded",
            },
            {"cfg_parallel": 1, "ulysses": 2},
        ),
        ({"engine": "SGLang", "model": "Wan2.2-T2V-A14B", "frames": 24}, {"frames": 21}),
        ({"n_gpus": 4, "parallelism": "Ulysses-2 x Ring-2"}, {"gpus": 4, "ulysses": 2, "ring": 2}),
        (
            {"n_gpus": 8, "parallelism": "cfg2 ulysses1 ring1 pipefusion4"},
            {"gpus": 8, "cfg_parallel": 2, "ulysses": 1, "ring": 1, "pipefusion": 4},
        ),
        ({"n_gpus": 4, "parallelism": "tp4 vae-patch4"}, {"tensor": 4, "parallel_vae": "true"}),
        ({"scope": "stage: VAE decode"}, {"what_is_timed": "decoder"}),
        (
            {
                "n_gpus": 2,
                "parallelism": "ulysses2 ring1 cfg1",
                "source": "xdit-project/xDiT docs/performance/consisid.md",
            },
            {"set": "interconnect=host", "ulysses": 2},
        ),
        (
            {"model": "Sana_1600M_4Kpx", "source": "xdit-project/xDiT docs/performance/sana.md"},
            {"workload": "sana-1.6b-4k", "what_is_timed": "denoising"},
        ),
        (
            {"scope": "denoise step (median)", "latency_s": 0.03},
            {"what_is_timed": "denoising", "latency_s": pytest.approx(1.5)},
        ),
    ],
)
def test_what_words_are(change, wanted):
    (row,), _ = read(change)
    assert row.items() >= wanted.items()


def test_a_video_is_decoded_as_it_mostly_is_where_nothing_else_is_known():
    (row, fused), _ = read({"model": "CogVideoX-5b"}, {"note": "fused qkv"})
    assert "vae" not in row
    # The joined weights lie beside those that they were joined of.
    assert "memory_bytes" in row
    assert "memory_bytes" not in fused


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"model": "a model of tomorrow"}, "no workload for a model of tomorrow"),
        ({"gpu": "MI350X"}, "no device for MI350X"),
        ({"modified_algo": 1}, "another algorithm"),
        ({"n_gpus": 2, "parallelism": "engine default for 2 GPUs"}, "several GPUs by"),
        ({"n_gpus": 4, "parallelism": "tp4 vae-patch2"}, "whose VAE some of the GPUs share"),
        ({"quantisation": "fp6"}, "runs in fp6"),
        ({"steps": "fifty"}, "rows whose steps is no number"),
        ({"steps": 49.5}, "rows whose steps is no whole number"),
        ({"latency_s": float("inf")}, "rows whose latency_s is no number"),
        ({"scope": "seconds a video"}, "times of seconds a video"),
        ({"latency_s": None}, "rows without a time"),
        ({"steps": None}, "steps are not stated"),
        ({"engine": "SGLang", "scope": "denoise step (median)", "steps": 4}, "does not wait"),
        ({"height": None}, "size that is not stated"),
    ],
)
def test_what_no_option_says_is_left_out_and_counted(change, reason):
    rows, left_out = read(change, {})
    assert len(rows) == 1
    assert [reason in each for each in left_out] == [True]


def test_questions_have_less():
    asked = {
        "source": "a thread", "gpu": "H100 x2", "model": "FLUX.1-dev", "pipeline_or_engine": "xDiT", "dtype": "bf16", "height": 1024,
        "width": 1024, "frames": None, "steps": 28, "batch": 1, "guidance": "3.5", "compile": "no", "quantisation": "none",
        "latency_s": 4.4, "peak_memory_gib": None, "note": "2 GPUs, Ring-2",
    }  # fmt: skip
    (row,) = read_questions(pd.DataFrame([asked]), Counter())
    assert row.items() >= {"gpus": 2, "ring": 2, "engine": "xdit", "launch": "eager"}.items()
    # A note of how others of the table were compiled says nothing of a row that was not.
    for compiled, launch in (("no", "eager"), ("yes", "compiled-graph")):
        rows = pd.DataFrame([asked | {"compile": compiled, "note": "2 GPUs, Ring-2; compile: max-autotune"}])
        assert [row["launch"] for row in read_questions(rows, Counter())] == [launch]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("board")
    changes = ({}, {"scope": "denoise", "latency_s": 1.6}, {"scope": "stage: VAE decode", "latency_s": 0.02},
               {"engine": "SGLang diffusion", "attention": None, "source": "sglang", "steps": 25, "latency_s": 0.9})  # fmt: skip
    pd.DataFrame([RUN | change for change in changes]).to_csv(folder / "runs.csv", index=False)
    read = read_collections([folder / "runs.csv"])
    return evaluate_runs(read.table, folder / "board.parquet", traces=folder / "traces", workers=1)


def test_stages_are_held_against_stages(found):
    assert (found.error == "").all()
    whole, loop, decoder = found.predicted_s[:3]
    assert decoder < loop < whole
    assert loop + decoder < whole * (1 + 1e-9)
    assert found.memory_ratio[0] == pytest.approx(1, abs=0.15)


def test_boards_by_every_side(found):
    rows = content.sided(found)
    assert set(rows.collection) == {"somebody", "sglang"}
    by_engine = content.board(rows, "engine")
    assert [row[0].text for row in by_engine.rows] == ["diffusers", "sglang", "all"]
    page = markdown.text(content.report(found, (("runs.csv", "x"),)))
    assert "By engine" in page
    assert "Peak memory" in page


def test_a_failure_is_counted_not_forgotten(found):
    failed = found.copy()
    failed.loc[0, ["predicted_s", "ratio"]] = float("nan")
    failed.loc[0, "error"] = "no such thing"
    assert "1 rows without a prediction, counted as 100 % off: no such thing" in content.failures(failed)
    board = content.board(content.sided(failed), "collection")
    assert "(1 missing)" in board.rows[0][1].text


def test_others_predictions_stand_beside(found, tmp_path):
    path = tmp_path / "theirs.csv"
    pd.DataFrame({"source": found.source[:2], "roofline": found.latency_s[:2] / 2}).to_csv(path, index=False)
    both, names = with_predictions(found, path)
    assert names == ("roofline",)
    last = content.board(content.sided(both), "engine", names).rows[-1][-1]
    assert last.text == "50.0 % (2)"
    for text, reason in (
        ("roofline\n1\n", "'source' is missing"),
        ("source,roofline\nnobody,1\n", "no row of"),
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=reason):
            with_predictions(found, path)
    for seconds in (-1.0, 1e300):
        pd.DataFrame({"source": found.source[:1], "roofline": [seconds]}).to_csv(path, index=False)
        with pytest.raises(InputError, match=f"row 1: column 'roofline' is {seconds:g}".replace("+", r"\+")):
            with_predictions(found, path)
    pd.DataFrame({"source": [found.source[0]] * 2, "roofline": [1.0, 2.0]}).to_csv(path, index=False)
    with pytest.raises(InputError, match="stands there twice"):
        with_predictions(found, path)


def test_the_command_writes_a_table_and_a_page(tmp_path):
    runs = tmp_path / "runs.csv"
    pd.DataFrame([RUN, RUN | {"gpu": "MI350X"}]).to_csv(runs, index=False)
    done = CliRunner().invoke(main, ["scoreboard", str(runs), "-o", str(tmp_path / "out"), "--workers", "1"])
    assert done.exit_code == 0, done.output
    assert "left out: 1 rows: no device for MI350X" in done.output
    table = pd.read_csv(tmp_path / "out" / "scoreboard.csv")
    assert list(table.collection) == ["somebody"]
    assert (tmp_path / "out" / "scoreboard.html").exists()
    empty = CliRunner().invoke(main, ["scoreboard", str(tmp_path / "no.csv"), "-o", str(tmp_path / "out")])
    assert empty.exit_code == 2
    assert "no.csv" in empty.output
