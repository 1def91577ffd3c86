"""The table of measurements: what it takes and refuses, and the readers of public databases."""

import json

import pandas as pd
import places
import pytest
from click.testing import CliRunner

from simtti.cli import main
from simtti.errors import InputError
from simtti.simulator.predict import predict
from simtti.validation.measurements import sources
from simtti.validation.measurements import table as measured
from simtti.validation.measurements.read import read_measurements
from simtti.validation.measurements.shipped import kernels_file
from simtti.validation.measurements.sources import names
from simtti.validation.measurements.sources.ml_energy import DEFAULTS
from simtti.workloads.catalogue import WORKLOADS

MEASURED = places.MEASURED
needs_measurements = pytest.mark.skipif(not MEASURED.exists(), reason="no measurements beside the repository")

GEMM = {"op": "gemm", "hw": "h100-sxm", "dtype": "bf16", "m": 64, "n": 128, "k": 256, "time_us": 5.0, "source": "a test",
        "what_is_timed": "back-to-back"}  # fmt: skip
ATTENTION = {"op": "attention", "hw": "h100-sxm", "dtype": "bf16", "batch": 1, "heads": 8, "q_len": 64, "kv_len": 64,
             "head_dim": 64, "causal": False, "kernel": "flash-attention-3", "time_us": 9.0, "source": "a test",
             "what_is_timed": "kernels"}  # fmt: skip
RUN = {"workload": "sdxl", "hw": "h100-sxm", "dtype": "fp16", "batch": 1, "steps": 20, "latency_s": 2.0,
       "source": "a test", "what_is_timed": "run"}  # fmt: skip


def write(tmp_path, rows, name="table.csv"):
    path = tmp_path / name
    table = pd.DataFrame(rows)
    table.to_csv(path, index=False) if path.suffix == ".csv" else table.to_parquet(path, index=False)
    return path


@pytest.mark.parametrize("name", ["table.csv", "table.parquet"])
def test_a_table_reads_back_as_rows_of_predict_and_of_sweep(tmp_path, name):
    table = read_measurements(write(tmp_path, [GEMM, ATTENTION, RUN], name))
    assert list(table.columns) == list(measured.columns())
    gemm, attention = measured.operators(table, "gemm"), measured.operators(table, "attention")
    answer = predict(pd.concat([gemm, attention]), "h100-sxm")
    assert (answer["error"] == "").all()
    assert (answer["time_us"] > 0).all()
    assert measured.runs(table)["latency_s"].tolist() == [2.0]
    assert measured.points(table).columns.tolist() == ["workload", "hw", "batch", "steps", "dtype"]


def test_several_files_are_one_table(tmp_path):
    one, two = write(tmp_path, [GEMM], "one.csv"), write(tmp_path, [RUN, RUN], "two.parquet")
    assert len(read_measurements([one, two])) == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"m": 0}, r"table.csv: row 2: column 'm' is 0.0; it must be a whole number of at least 1"),
        ({"k": None}, r"row 2: column 'k' is empty; gemm needs it"),
        ({"n": "many"}, r"row 2: column 'n' is 'many'; it must be a number"),
        ({"time_us": -1.0}, r"row 2: column 'time_us' is -1.0; it must be a number above 0"),
        ({"time_us": None}, r"row 2: column 'time_us' is empty; it must be a number above 0"),
        ({"power_w": 0.0}, r"row 2: column 'power_w' is 0.0"),
        ({"op": "gem"}, r"row 2: column 'op' is 'gem'; it must be one of gemm"),
        ({"op": None}, r"row 2: column 'op' is empty; a row has either an op or a workload"),
        ({"workload": "sdxl"}, r"row 2: column 'op' is 'gemm'; a row has either"),
        ({"hw": None}, r"row 2: column 'hw' is empty"),
        ({"dtype": "bfloat16"}, r"row 2: column 'dtype' is 'bfloat16'; it must be one of bf16, fp16, fp32"),
        ({"what_is_timed": "cpu"}, r"row 2: column 'what_is_timed' is 'cpu'; it must be one of back-to-back"),
        ({"head_dim": 64}, r"row 2: column 'head_dim' is 64.0; gemm has no such column"),
        ({"tiem_us": 1.0}, r"table.csv: unknown column 'tiem_us'; did you mean 'time_us'"),
    ],
)
def test_a_row_that_is_no_measurement_is_named(tmp_path, change, message):
    path = write(tmp_path, [GEMM, GEMM | change])
    with pytest.raises(InputError, match=message):
        read_measurements(path)


def test_every_family_of_predict_has_its_columns():
    from simtti.simulator.lowering.registry import FAMILIES

    for op, family in FAMILIES.items():
        dtype = "fp16" if "fp16" in (family.dtypes or ("fp16",)) else family.dtypes[0]
        row = dict.fromkeys(measured.shape_of(op).needed, 64) | {"op": op, "dtype": dtype}
        assert predict(pd.DataFrame([row]), "a100-sxm")["error"].tolist() == [""]


def test_every_workload_of_the_readers_exists():
    assert set(names.WORKLOADS.values()) <= set(WORKLOADS)
    assert set(DEFAULTS) <= set(names.WORKLOADS.values())


# ---- aiconfigurator: the columns its collectors write (collector/*/collect_gemm.py, collect_encoder_attention.py)

COLLECTED = {"framework": "VLLM", "version": "0.24.0", "device": "NVIDIA H100 80GB HBM3"}


def collect(root, relative, rows):
    path = root / "src/aiconfigurator/systems/data" / relative
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame([COLLECTED | row for row in rows])
    table.to_parquet(path, index=False) if path.suffix == ".parquet" else table.to_csv(path, index=False)


def test_aiconfigurator_gemm_and_attention(tmp_path):
    gemm = {"op_name": "gemm", "kernel_source": "torch.nn.functional.linear", "m": 8, "n": 32, "k": 64}
    collect(tmp_path, "h100_sxm/gemm/vllm/0.24.0/gemm_perf.parquet", [
        gemm | {"gemm_dtype": "bfloat16", "latency": 0.0025, "power": 150.0, "power_limit": 700.0},
        gemm | {"gemm_dtype": "fp8", "latency": 0.002, "power": 150.0, "power_limit": 700.0},
    ])  # fmt: skip
    encoder = {
        "op_name": "encoder_attention",
        "batch_size": 2,
        "num_heads": 12,
        "head_dim": 72,
        "attn_dtype": "bfloat16",
    }
    collect(tmp_path, "b200_sxm/sglang/0.5.10/encoder_attention_perf.txt", [
        encoder | {"kernel_source": "flash_attention_v4", "seqlen": 26, "latency": 0.011},
        encoder | {"kernel_source": "triton", "seqlen": 26, "latency": 0.012},
    ])  # fmt: skip
    found = sources.import_measurements("aiconfigurator", tmp_path)
    one = measured.operators(found.table, "gemm").iloc[0]
    assert (one["hw"], one["dtype"], one["m"], one["n"], one["k"]) == ("h100-sxm", "bf16", 8, 32, 64)
    assert (one["time_us"], one["power_w"]) == (2.5, 150.0)
    assert one["source"] == "aiconfigurator h100_sxm/gemm/vllm/0.24.0"
    two = measured.operators(found.table, "attention").iloc[0]
    assert (two["hw"], two["kernel"], two["q_len"], two["kv_len"], two["heads"]) == (
        "b200-sxm", "flash-attention-4", 26, 26, 12,
    )  # fmt: skip
    assert two["time_us"] == 11.0
    assert not two["causal"]
    assert len(found.table) == 2
    assert sum(found.left_out.values()) == 2


def test_a_clone_without_its_large_files_says_so(tmp_path):
    path = tmp_path / "data/h100_sxm/gemm/vllm/1/gemm_perf.parquet"
    path.parent.mkdir(parents=True)
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 826723\n")
    with pytest.raises(InputError, match=r"gemm_perf.parquet: a Git LFS pointer.*git lfs pull"):
        sources.import_measurements("aiconfigurator", tmp_path)


@needs_measurements
def test_the_database_and_the_folder_give_the_same_rows(tmp_path):
    """Rows of the folder, written as the database holds them, come back as the folder's reader gives them."""
    gemm = pd.read_parquet(MEASURED / "gemm.parquet").query("hw == 'h200-sxm'").head(50)
    collect(tmp_path, "h200_sxm/gemm/vllm/0.24.0/gemm_perf.parquet", [
        {"op_name": "gemm", "kernel_source": "torch.nn.functional.linear", "gemm_dtype": "bfloat16", "m": row.m, "n": row.n,
         "k": row.k, "latency": row.time_us / 1e3} for row in gemm.itertuples()
    ])  # fmt: skip
    ours = measured.operators(sources.import_measurements("aiconfigurator", tmp_path).table, "gemm")
    theirs = measured.operators(sources.import_measurements("folder", MEASURED).table, "gemm")
    theirs = theirs[(theirs["hw"] == "h200-sxm")].head(50).reset_index(drop=True)
    pd.testing.assert_frame_equal(ours.drop(columns="power_w"), theirs.drop(columns="power_w"))
    assert theirs["power_w"].between(60, 700).all()


# ---- ml-energy/leaderboard

NEW = {  # public/data/models/PixArt-alpha__PixArt-Sigma-XL-2-1024-MS__text-to-image.json, one configuration of it
    "configurations": [{
        "avg_power_watts": 869.4152457055719, "batch_latency_s": 0.9523196816444397, "batch_size": 1,
        "energy_per_image_joules": 827.9612500071526, "gpu_model": "H100", "image_height": 1024, "image_width": 1024,
        "inference_steps": 20, "num_gpus": 2, "parallelization": {"ring_degree": 1, "ulysses_degree": 2},
        "throughput_images_per_sec": 1.0500675553331285,
    }],
    "model_id": "PixArt-alpha/PixArt-Sigma-XL-2-1024-MS", "task": "text-to-image", "weight_precision": "bfloat16",
}  # fmt: skip
OLD = {  # data/diffusion/text-to-image/A100-SXM4-40GB/30/prompthero/openjourney-v4/bs1.json
    "Model": "prompthero/openjourney-v4", "GPU model": "NVIDIA A100-SXM4-40GB", "Batch size": 1,
    "Number of inference steps": 30, "Batch latency (s)": 1.0873956441879273, "Batch energy (J)": 307.3757999999449,
    "Energy per image (J)": 307.3757999999449,
}  # fmt: skip


def leaderboard(root):
    new = root / "public/data/models/PixArt-alpha__PixArt-Sigma-XL-2-1024-MS__text-to-image.json"
    old = root / "data/diffusion/text-to-image/A100-SXM4-40GB/30/prompthero/openjourney-v4/bs1.json"
    unknown = root / "data/diffusion/text-to-image/A100-SXM4-40GB/30/stabilityai/stable-cascade/bs1.json"
    language = root / "public/data/models/Qwen__Qwen3-8B__gpqa.json"
    other = OLD | {"Model": "stabilityai/stable-cascade"}
    for path, content in (
        (new, NEW),
        (old, OLD),
        (unknown, other),
        (language, {"model_id": "Qwen/Qwen3-8B"}),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))


def test_ml_energy_of_both_ages(tmp_path):
    leaderboard(tmp_path)
    found = sources.import_measurements("ml-energy", tmp_path)
    rows = {row["workload"]: row for row in measured.runs(found.table).to_dict("records")}
    assert set(rows) == {"pixart-sigma", "stable-diffusion-1.5"}
    new, old = rows["pixart-sigma"], rows["stable-diffusion-1.5"]
    assert (new["hw"], new["gpus"], new["ulysses"], new["ring"], new["dtype"]) == (
        "h100-sxm",
        2,
        2,
        1,
        "bf16",
    )
    assert (old["hw"], old["steps"], old["height"], old["dtype"]) == ("a100-sxm-40gb", 30, 512, "fp16")
    assert old["energy_j"] == OLD["Batch energy (J)"]
    assert found.left_out == {"no workload for stabilityai/stable-cascade": 1}


@needs_measurements
def test_ml_energy_gives_the_row_that_the_folder_has(tmp_path):
    leaderboard(tmp_path)
    found = measured.runs(sources.import_measurements("ml-energy", tmp_path).table)
    ours = found[found["workload"] == "pixart-sigma"].reset_index(drop=True)
    folder = measured.runs(sources.import_measurements("folder", MEASURED).table)
    keys = ["workload", "hw", "gpus", "ulysses", "ring", "batch"]
    both = folder.merge(ours[keys])
    pd.testing.assert_frame_equal(both, ours, rtol=1e-5)


# ---- LambdaLabsML/lambda-diffusers: heads that end in a comma, -1 where the memory did not suffice

LAMBDA = """device,precision,autocast,xformers,runtime,n_samples,latency,memory,
NVIDIA A10,half,FALSE,{xformers},pytorch,1,2.5,3.4
NVIDIA A10,single,FALSE,{xformers},pytorch,4,20.5,9
NVIDIA A10,half,TRUE,{xformers},pytorch,1,2.6,3.4
NVIDIA A10,half,FALSE,{xformers},pytorch,16,-1,-1
NVIDIA A10,half,FALSE,{xformers},pytorch,32,90.5,3.4
NVIDIA H100 PCIe MIG 1g.10gb,half,FALSE,{xformers},pytorch,1,5.4,3.5
"""


def test_lambda_diffusers_gives_runs_by_attention_each_once(tmp_path):
    (tmp_path / "benchmarks").mkdir()
    for name, xformers in (("", "TRUE"), ("_no_xformers", "FALSE"), ("_H100_MIG", "FALSE")):
        (tmp_path / f"benchmarks/benchmark{name}.csv").write_text(LAMBDA.format(xformers=xformers))
    found = sources.import_measurements("lambda-diffusers", tmp_path)
    runs = measured.runs(found.table)
    assert set(zip(runs.hw, runs.attention, runs.dtype, runs.batch, runs.latency_s, strict=True)) == {
        ("a10", kind, dtype, batch, time)
        for kind in ("efficient", "baseline")
        for dtype, batch, time in (("fp16", 1, 2.5), ("fp32", 4, 20.5))
    }
    assert len(runs) == 4
    assert found.left_out == {
        "runs with autocast or another runtime than PyTorch": 3,
        "runs that did not fit the memory": 3,
        "more than 16 images, decoded one after another": 3,
        "no device for NVIDIA H100 PCIe MIG 1g.10gb": 3,
        "runs that another file has as well": 2,
    }


def test_thirty_evaluations_are_what_is_simulated():
    """DDIM evaluates the network as often as it has steps, the sampler of the workload once more."""
    from simtti.validation.measurements.sources.lambda_diffusers import _COMMON
    from simtti.workloads.record import workload_trace

    trace = workload_trace(_COMMON["workload"], steps=_COMMON["steps"])
    (denoising,) = (phase for phase in trace.phases if phase.name == "denoising")
    assert sum(step.count for step in denoising.steps) == 30


@needs_measurements
def test_published_runs_of_the_folder_say_how_they_compute():
    runs = measured.runs(sources.import_measurements("folder", MEASURED).table)
    fast = runs[runs["source"] == "diffusion-fast"].set_index("latency_s")
    assert fast[["attention", "dtype"]].to_dict("index") == {
        7.36: {"attention": "baseline", "dtype": "fp32"},
        4.63: {"attention": "baseline", "dtype": "bf16"},
        3.31: {"attention": "flash", "dtype": "bf16"},
    }


@needs_measurements
def test_the_folder_is_whole():
    """No row is lost: each is taken or counted as left out; of what is taken, all that is tried can be predicted."""
    found = sources.import_measurements("folder", MEASURED)
    table = found.table
    for op in ("gemm", "attention"):
        theirs = pd.read_parquet(MEASURED / f"{op}.parquet")
        taken = table[(table["op"] == op) & table["source"].str.startswith("aiconfigurator")]
        assert sorted(taken["time_us"]) == sorted(theirs["time_us"])
    runs = measured.runs(table)
    assert runs["source"].str.startswith("ml-energy").sum() == len(pd.read_csv(MEASURED / "end_to_end.csv"))
    assert (runs["attention"] == "baseline").any()
    for op in ("conv2d", "conv3d", "layer_norm", "softmax", "elementwise", "copy", "attention"):
        rows = measured.operators(table, op)
        rows = rows[rows["hw"] == "h100-sxm"].head(40)
        assert (predict(rows, "h100-sxm")["error"] == "").all()
    published = len(pd.read_csv(MEASURED / "end_to_end_2026.csv"))
    taken = int(runs["source"].str.contains(r"\(end_to_end_2026 \d+\)$").sum())
    assert 0 < taken < published


def test_the_command_writes_a_table_that_reads_back(tmp_path):
    leaderboard(tmp_path)
    out = tmp_path / "runs.csv"
    done = CliRunner().invoke(main, ["import", "measurements", "ml-energy", str(tmp_path), "--out", str(out)])
    assert done.exit_code == 0
    assert "2 measurements on a100-sxm-40gb, h100-sxm" in done.stderr
    assert "left out: 1 of no workload for stabilityai/stable-cascade" in done.stderr
    assert len(read_measurements(out)) == 2


@pytest.mark.parametrize(
    ("kind", "folder", "message"),
    [
        ("aiconfig", ".", "unknown kind of measurements 'aiconfig'; did you mean 'aiconfigurator'"),
        ("ml-energy", "nowhere", "nowhere: no such folder"),
        ("folder", ".", "no measurements of folder found in it"),
    ],
)
def test_a_wrong_source_is_named(tmp_path, kind, folder, message):
    done = CliRunner().invoke(
        main, ["import", "measurements", kind, str(tmp_path / folder), "--out", str(tmp_path / "t.csv")]
    )
    assert done.exit_code == 2
    assert message in done.stderr


def test_a_capture_is_read_whole_without_what_the_events_take():
    found = read_measurements(kernels_file("h200-sxm"))
    captured = pd.read_parquet(kernels_file("h200-sxm"))
    launches = captured[captured.family == "launch"]
    events_us = launches[launches.function == "view"].cold_us.iloc[0]
    assert events_us == pytest.approx(1.25, abs=0.01)
    assert set(found.group) == set(captured.family) - {"launch"}
    convolutions = captured[captured.op == "conv2d"].cold_us.dropna()
    assert found[found.op == "conv2d"].time_us.tolist() == pytest.approx((convolutions - events_us).tolist())
    assert set(found[found.op == "attention"].kernel) == {
        "flash-attention-2",
        "efficient",
        "cudnn",
        "baseline",
    }
    # Moves that are views launch nothing.
    moves = captured[captured.op == "move"].cold_us - events_us
    assert (found.op == "move").sum() == (moves > 0.5).sum() < len(moves)
