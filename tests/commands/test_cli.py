"""The command line as a user calls it."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time

import pandas as pd
import places
import pytest

import simtti as package


def simtti(*arguments, **options):
    command = [sys.executable, "-m", "simtti.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


def refused(*arguments):
    """The one line of error of a call that must exit with 2."""
    done = simtti(*arguments)
    assert done.returncode == 2, done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("simtti: error: ")
    return lines[0]


def test_the_package_says_what_it_is_and_is_a_command():
    done = subprocess.run([sys.executable, "-m", "simtti"], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "advise" in done.stdout
    assert package.__version__.split(".")[0].isdecimal()
    assert {*package.__all__, "__version__"} == set(dir(package))


def test_run_prints_a_breakdown_a_person_can_read():
    done = simtti("run", "stable-diffusion", "--hw", "a100-sxm")
    assert done.returncode == 0, done.stderr
    for text in ("stable-diffusion-1.5", "denoising", "Convolution", "GroupNorm", "4096", "GiB", "Host"):
        assert text in done.stdout


def test_run_json_has_the_published_keys_and_they_add_up():
    done = simtti("run", "stable-diffusion-1.5", "--hw", "h100-sxm", "--steps", "20", "--json", "-")
    result = json.loads(done.stdout)
    assert {"latency_s", "energy_j", "peak_memory_bytes", "phases", "breakdown", "attention", "sequence_lengths",
            "utilisation", "configuration"} <= set(result)  # fmt: skip
    assert sum(result["breakdown"].values()) == pytest.approx(result["latency_s"], rel=1e-6)
    assert sum(phase["latency_s"] for phase in result["phases"]) == pytest.approx(
        result["latency_s"], rel=1e-6
    )
    assert [phase["name"] for phase in result["phases"]] == ["text_encoder", "denoising", "decoder"]
    assert set(result["sequence_lengths"]) == {4096, 1024, 256, 64}
    assert set(result["attention"]) == {"self", "cross", "spatial", "temporal"}
    assert result["configuration"]["steps"] == 20
    assert not result["unlowered"]


def test_the_same_run_gives_the_same_bytes():
    arguments = ("run", "stable-diffusion-2.1", "--hw", "a100-sxm-40gb", "--json", "-")
    assert simtti(*arguments).stdout == simtti(*arguments).stdout


def test_run_writes_a_timeline(tmp_path):
    path = tmp_path / "timeline.json"
    assert simtti("run", "stable-diffusion", "--hw", "h100-sxm", "--timeline", path).returncode == 0
    events = json.loads(path.read_text())["traceEvents"]
    assert {event["ph"] for event in events} == {"M", "X", "C", "s", "f"}
    timed = [event["ts"] for event in events if event["ph"] != "M"]
    assert timed == sorted(timed)
    kernels = sorted((e["ts"], e["ts"] + e["dur"]) for e in events if e.get("cat") == "kernel")
    assert all(end <= start + 1e-3 for (_, end), (start, _) in itertools.pairwise(kernels))


def test_predict_keeps_the_place_of_a_row_it_cannot_do(tmp_path):
    rows = pd.DataFrame(
        {"op": ["gemm", "gemm", "fft", "attention"], "dtype": "bf16", "m": [128, -1, 1, None], "n": 256, "k": 512,
         "batch": [None, None, None, 2], "heads": 8, "q_len": 1024, "kv_len": 1024, "head_dim": 64, "causal": False}
    )  # fmt: skip
    rows.to_csv(tmp_path / "in.csv", index=False)
    done = simtti("predict", tmp_path / "in.csv", "--hw", "h100-sxm", "--out", tmp_path / "out.parquet")
    assert done.returncode == 0, done.stderr
    out = pd.read_parquet(tmp_path / "out.parquet")
    assert list(out.time_us.notna()) == [True, False, False, True]
    assert "column 'm' is -1" in out.error[1]
    assert "unknown op 'fft'" in out.error[2]


def test_sweep_runs_every_row_and_says_why_one_has_no_result(tmp_path):
    rows = pd.DataFrame({"workload": ["stable-diffusion", "sdxl", "sdxl"], "hw": ["a100-sxm", "h100-sxm", "h10-sxm"],
                         "steps": [2, 3, 4], "frames": [None, None, None], "gpus": 1})  # fmt: skip
    rows.to_csv(tmp_path / "in.csv", index=False)
    done = simtti("sweep", tmp_path / "in.csv", "--out", tmp_path / "out.csv")
    assert done.returncode == 1
    assert "2 of 3 runs\nrow 3: unknown device 'h10-sxm'" in done.stderr
    out = pd.read_csv(tmp_path / "out.csv")
    assert list(out.latency_s.notna()) == [True, True, False]
    assert "unknown device 'h10-sxm'" in out.error[2]
    assert {"energy_j", "peak_memory_bytes"} <= set(out.columns)


def test_a_sweep_that_is_interrupted_goes_on_where_it_was(tmp_path):
    rows = pd.DataFrame(
        {"workload": "stable-diffusion", "hw": "a100-sxm", "steps": range(2, 400), "fidelity": "wave"}
    )
    rows.to_csv(tmp_path / "in.csv", index=False)
    command = [
        sys.executable,
        "-m",
        "simtti.cli",
        "sweep",
        tmp_path / "in.csv",
        "--out",
        tmp_path / "out.csv",
    ]
    journal = tmp_path / ".out.csv.partial.jsonl"
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    deadline = time.monotonic() + 60
    while not (journal.exists() and journal.read_text().count("\n") >= 3):
        assert time.monotonic() < deadline
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # Ctrl-C goes to the whole foreground group
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 2
    assert stderr.strip().splitlines() == [
        f"simtti: error: interrupted; what was finished is kept in {journal}, and the same command goes on from there"
    ]
    kept = journal.read_text().splitlines()
    assert len(kept) >= 3
    # Ask for the finished rows and two more: only those two are run.
    finished = [json.loads(json.loads(line)["key"])["steps"] for line in kept]
    fewer = rows[rows.steps.isin([*finished, 398, 399])]
    fewer.to_csv(tmp_path / "in.csv", index=False)
    assert subprocess.run(command, check=False, capture_output=True).returncode == 0
    out = pd.read_csv(tmp_path / "out.csv")
    assert out.latency_s.notna().all()
    assert len(out) == len(fewer)
    assert not journal.exists()
    by_steps = {json.loads(json.loads(line)["key"])["steps"]: json.loads(line)["figures"] for line in kept}
    for row in out[out.steps.isin(finished)].itertuples():
        assert row.latency_s == pytest.approx(by_steps[row.steps]["latency_s"])


def test_workloads_and_devices_are_listed():
    assert "stable-diffusion-1.5" in json.loads(simtti("workloads", "--json").stdout)
    assert "h200-sxm" in json.loads(simtti("hw", "--json").stdout)
    assert "sdxl" in simtti("workloads").stdout
    assert "whitepaper" in simtti("hw", "a100-sxm").stdout


def test_shapes_without_torch_are_listed():
    lines = simtti("workloads", "--shapes").stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert any(line.split() == ["2-16", "256-1024/64", "256-1024/64", "4.2"] for line in lines)
    assert "batch 2 to 16, height 256 to 1024 by 64" in simtti("workloads", "stable-diffusion").stdout
    found = json.loads(simtti("workloads", "stable-diffusion", "--json").stdout)["stable-diffusion-1.5"]
    assert {"from": 2, "to": 16, "by": 1} in [each.get("batch") for each in found["shapes"]]


def test_lists_fit_eighty_columns_and_are_searched():
    for verb in ("workloads", "hw"):
        lines = simtti(verb).stdout.splitlines()
        assert max(map(len, lines)) <= 80
        assert len(lines) > 30, "a row each, none wrapped"
    video = simtti("workloads", "video", "transformer").stdout
    assert "hunyuan-video" in video
    assert "608,205" in video, "TFLOP of an inference at its defaults"
    assert "sdxl" not in video
    assert "wan2.1-14b" not in simtti("workloads", "measured").stdout
    assert "CompVis" in simtti("workloads", "stable-diffusion").stdout, "an alias; one workload in full"
    ada = simtti("hw", "ADA").stdout
    assert all(name in ada for name in ("l4", "l20", "l40s", "rtx-4090"))
    assert "h100-sxm" not in ada
    assert set(json.loads(simtti("hw", "rtx", "5090", "--json").stdout)) == {"rtx-5090"}
    assert "unknown workload 'vdieo'" in refused("workloads", "vdieo")


def test_help_teaches():
    for verb in ("run", "predict", "sweep", "record", "workloads", "hw"):
        text = simtti(verb, "--help").stdout
        assert "Usage: " in text
        assert len(text) > 150


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "stable-difusion", "--hw", "h100-sxm"], ["unknown workload", "stable-diffusion"]),
        (["run", "sdxl", "--hw", "h10"], ["unknown device 'h10'", "h100-sxm"]),
        (["run", "sdxl", "--hw", "h100-sxm", "--batch", "-1"], ["batch", "-1"]),
        (
            ["run", "sdxl", "--hw", "h100-sxm", "--height", "1001"],
            ["height", "1001", "multiple of 8", "1000"],
        ),
        (["run", "sdxl", "--hw", "h100-sxm", "--frames", "8"], ["frames", "sdxl"]),
        (["run", "sdxl", "--hw", "h100-sxm", "--steps", "0"], ["steps", "0"]),
        (["run", "sdxl", "--hw", "h100-sxm", "--dtype", "fp4"], ["dtype", "fp4", "fp16"]),
        (["run", "sdxl", "--hw", "h100-sxm", "--attention", "flsh"], ["attention", "flsh", "flash"]),
        (["run", "sdxl", "--hw", "h100-sxm", "--launch", "fast"], ["launch", "fast", "graph"]),
        (["run", "sdxl", "--hw", "h100-sxm", "--fidelity", "x"], ["fidelity", "cta"]),
        (["run", "sdxl", "--hw", "h100-sxm", "--host", "mainframe"], ["host", "mainframe", "default"]),
        (["run", "sdxl", "--hw", "h100-sxm", "--gpus", "4", "--ulysses", "3"], ["ulysses", "4"]),
        (["run", "sdxl", "--hw", "h100-sxm", "--json", "/no/such/folder/x.json"], ["/no/such/folder"]),
        (["run", "sdxl", "--hw", "h100-sxm", "--timeline", "/"], ["folder"]),
        (["run", "--hw", "h100-sxm"], ["WORKLOAD", "--trace"]),
        (["run", "--trace", "none.parquet", "--hw", "h100-sxm"], ["none.parquet"]),
        (["run", "sdxl"], ["--hw"]),
        (["run", "sdxl", "--hw", "h100-sxm", "--batch", "two"], ["--batch", "two"]),
        (["sweep", "none.csv", "--out", "out.csv"], ["none.csv", "no such file"]),
        (["predict", "none.parquet", "--hw", "h100-sxm", "--out", "out.csv"], ["none.parquet"]),
        (["record", "sdxl", "-o", "/no/such/folder/x.parquet"], ["/no/such/folder"]),
        (["hw", "h101"], ["unknown device 'h101'"]),
        (["rnu"], ["rnu"]),
    ],
)
def test_a_mistake_is_one_line_with_exit_code_2(arguments, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    message = refused(*arguments)
    for word in words:
        assert word in message


def test_a_table_that_is_not_one_is_named(tmp_path):
    (tmp_path / "x.parquet").write_bytes(b"PAR1 not really")
    (tmp_path / "y.csv").write_text("workload,hw,bacth\nsdxl,h100-sxm,1\n")
    assert "x.parquet" in refused("sweep", tmp_path / "x.parquet", "--out", tmp_path / "o.csv")
    message = refused("sweep", tmp_path / "y.csv", "--out", tmp_path / "o.csv")
    assert "'bacth'" in message
    assert "'batch'" in message
    assert "x.parquet" in refused("run", "--trace", tmp_path / "x.parquet", "--hw", "h100-sxm")


def test_a_device_with_no_bandwidth_is_named(tmp_path):
    path = tmp_path / "chip.yaml"
    path.write_text(
        "base: h100-sxm\nname: chip\ndatasheet:\n  hbm_bytes_per_s: {value: 0.0, source: none at all}\n"
    )
    message = refused("run", "sdxl", "--hw", path)
    assert "chip.yaml" in message
    assert "hbm_bytes_per_s" in message


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full on this system")
def test_a_full_disk_is_one_line():
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "simtti.cli", "workloads", "--json"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert "No space left" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_terminal_without_the_characters_shows_question_marks():
    plain = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = simtti("run", "stable-diffusion", "--hw", "t4", "--steps", 1, env=plain)
    assert done.returncode == 0, done.stderr
    assert "???" in done.stdout  # the bars


TRACES = places.TRACES
needs_traces = pytest.mark.skipif(not TRACES.exists(), reason="no ../shared/traces beside the checkout")


@needs_traces
def test_a_kineto_file_is_imported_replayed_compared_and_exported(tmp_path):
    file = TRACES / "h100_timesformer.json.gz"
    trace = tmp_path / "trace.parquet"
    facts = json.loads(simtti("import", "kineto", file, "--out", trace, "--json", "-").stdout)
    assert {"operators", "kernels", "kernel_time_us", "kernels_with_shapes"} <= set(facts)
    measured = json.loads(
        simtti("run", "--trace", trace, "--hw", "h100-sxm", "--timing", "measured", "--json", "-").stdout
    )
    assert measured["latency_s"] == pytest.approx(measured["measured_s"], rel=0.03)
    hybrid = json.loads(
        simtti("run", "--trace", trace, "--hw", "a100-sxm", "--timing", "hybrid", "--json", "-").stdout
    )
    assert 1.3 < hybrid["latency_s"] / measured["latency_s"] < 3
    table = tmp_path / "operators.csv"
    figures = json.loads(simtti("validate", trace, "--json", "-", "--table", table).stdout)
    total = next(row for row in figures["by_category"] if row["category"] == "all")
    assert total["ratio"] == pytest.approx(1, abs=0.1)
    assert total["mape"] < 0.15
    assert {"measured_us", "predicted_us"} <= set(pd.read_csv(table).columns)
    read = package.import_trace(file)
    assert sum(kernel.kind == "kernel" for kernel in read.timing.kernels) == facts["kernels"]
    for what in (read, file, trace):
        assert package.validate(what).to_dict()["by_category"] == figures["by_category"]
    assert package.validate(read, hw="a100-sxm").hardware.name == "a100-sxm"
    assert simtti("export", "chrome", trace, "-o", tmp_path / "out.json").returncode == 0
    assert json.loads((tmp_path / "out.json").read_text())["traceEvents"]


@needs_traces
def test_hybrid_needs_to_know_the_device_it_was_taken_on(tmp_path):
    trace = tmp_path / "trace.parquet"
    simtti("import", "kineto", TRACES / "v100_resnet50_training.json.gz", "--out", trace)
    assert "V100" in refused("run", "--trace", trace, "--hw", "a100-sxm", "--timing", "hybrid")
    assert "--hw" in refused("validate", trace)


def test_a_workload_is_profiled_without_hardware(tmp_path):
    found = json.loads(simtti("profile", "svd", "--json", "-", "--plot", tmp_path / "svd.png").stdout)
    assert set(found["sequence_length_counts"]) == {"14", "144", "576", "2304", "9216"}
    attention = found["attention"]
    assert attention["spatial"]["flops"] > 100 * attention["temporal"]["flops"]
    assert (tmp_path / "svd.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads(json.dumps(package.profile("svd"))) == {
        key: found[key] for key in found if key != "scaling"
    }
    text = simtti("profile", "stable-diffusion").stdout
    assert "4096" in text
    assert "Convolution" in text


def test_the_score_matrix_grows_with_the_fourth_power_of_the_side(tmp_path):
    pytest.importorskip("diffusers")
    arguments = (
        "profile",
        "stable-diffusion",
        "--sizes",
        "256,512",
        "--json",
        "-",
        "--plot",
        tmp_path / "sizes.svg",
    )
    small, large = json.loads(simtti(*arguments).stdout)["scaling"]["sizes"]
    assert large["largest_score_bytes"] == 16 * small["largest_score_bytes"]
    assert large["longest_self_attention"] == 4 * small["longest_self_attention"]
    assert "<svg" in (tmp_path / "sizes.svg").read_text()
    assert "--sizes" in refused("profile", "sdxl", "--sizes", "big")


def test_temporal_attention_takes_fewer_flops_until_the_frames_reach_the_tokens():
    pytest.importorskip("diffusers")
    found = json.loads(simtti("profile", "modelscope-t2v", "--frame-counts", "8,16", "--json", "-").stdout)
    few, many = found["scaling"]["frames"]
    assert many["temporal_attention_flops"] == 4 * few["temporal_attention_flops"]
    assert many["spatial_attention_flops"] == 2 * few["spatial_attention_flops"]
    assert found["temporal_crossover_frames"] > 64


def test_timing_needs_a_timed_trace(tmp_path):
    assert "those that do" in refused(
        "run", "sdxl", "--hw", "h100-sxm", "--timing", "measured", "--height", "512", "--width", "512"
    )
    assert "measured" in refused("run", "sdxl", "--hw", "h100-sxm", "--timing", "exact")


def test_what_capture_cannot_take_is_said_before_it_begins(tmp_path):
    out = tmp_path / "captures"
    assert "are captured on their own" in refused("capture", "kernels", "sdxl", "-o", out)
    assert "takes no frames" in refused("capture", "svd", "sdxl", "--frames", 8, "-o", out)
    assert "unknown attention 'flush'" in refused("capture", "svd", "--attention", "flash,flush", "-o", out)
