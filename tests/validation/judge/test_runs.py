"""Whole inferences beside their measurements: their traces, their ratios, each model left out of the fit."""

import json

import pandas as pd
import pytest
from click.testing import CliRunner

from simtti.cli import main
from simtti.errors import InputError
from simtti.hw_configs.devices import load
from simtti.hw_configs.hardware import with_parameters
from simtti.validation.fit import energy, leave_out
from simtti.validation.judge import runs
from simtti.validation.judge.recordings import record_all, with_trace
from simtti.validation.measurements.check import check
from simtti.validation.measurements.read import read_measurements
from simtti.validation.report import runs as content
from simtti.workloads.trace import Trace


def run_table(*rows):
    common = {"workload": "stable-diffusion-1.5", "hw": "h100-sxm", "gpus": 1, "batch": 1, "steps": 25, "source": "one",
              "energy_j": 100.0, "predicted_j": 110.0, "error": ""}  # fmt: skip
    return pd.DataFrame([common | row for row in rows])


def test_batch_scaling_and_device_ratios_pair_runs_that_differ_in_that_alone():
    table = run_table(
        {"latency_s": 1.0, "predicted_s": 2.0},
        {"batch": 4, "latency_s": 3.0, "predicted_s": 6.6},
        {"batch": 4, "steps": 50, "latency_s": 9.0, "predicted_s": 9.0},
        {"hw": "a100-sxm-40gb", "latency_s": 2.0, "predicted_s": 4.4},
        {"batch": 8, "source": "two", "latency_s": 9.0, "predicted_s": 9.0},
    )
    (scaling,) = runs.batch_scaling(table).to_dict("records")
    assert (scaling["batch"], scaling["measured"], scaling["ratio"]) == (4, 3.0, pytest.approx(1.1))
    (ratio,) = runs.device_ratios(table).to_dict("records")
    assert (ratio["hw"], ratio["base"]) == ("h100-sxm", "a100-sxm-40gb")
    assert ratio["measured"] == 0.5
    assert ratio["ratio"] == pytest.approx(1 / 1.1)


def test_runs_that_two_sources_measured_are_shown_side_by_side():
    table = run_table(
        {"latency_s": 1.0, "predicted_s": 1.0},
        {"latency_s": 1.1, "predicted_s": 1.0, "source": "two"},
        {"batch": 2, "latency_s": 2.0, "predicted_s": 2.0},
    )
    assert runs.two_sources(table).latency_s.tolist() == [1.0, 1.1]


@pytest.fixture(scope="module")
def whole_runs(tmp_path_factory):
    """Two runs at the shape that ships, measured by nobody: the numbers are made up."""
    folder = tmp_path_factory.mktemp("runs")
    common = {
        "workload": "stable-diffusion-1.5",
        "dtype": "fp16",
        "batch": 1,
        "steps": 3,
        "what_is_timed": "run",
    }
    rows = [
        {**common, "hw": "h100-sxm", "latency_s": 0.2, "energy_j": 30.0, "source": "one"},
        {**common, "hw": "h100-sxm", "latency_s": 0.1, "energy_j": None, "source": "two"},
        {**common, "hw": "a100-sxm", "latency_s": 0.2, "energy_j": 40.0, "source": "one"},
        {**common, "hw": "no-such-device", "latency_s": 0.2, "energy_j": 40.0, "source": "one"},
    ]
    pd.DataFrame(rows).to_csv(folder / "runs.csv", index=False)
    return folder


def test_validate_runs_tells_error_by_model_and_leaves_out_unknown_devices(whole_runs):
    arguments = [
        "validate",
        "runs",
        str(whole_runs / "runs.csv"),
        "-o",
        str(whole_runs / "out"),
        "--leave-one-model-out",
        "--workers",
        "1",
    ]
    done = CliRunner().invoke(main, arguments, env={"COLUMNS": "160"})
    assert done.exit_code == 0, done.output
    for text in (
        "stable-diffusion-1.5",
        "1 runs on no-such-device are left out",
        "3 runs not simulated with their model left out",
        "two sources, the same run",
    ):
        assert text in done.output
    table = pd.read_parquet(whole_runs / "out" / "runs.parquet")
    assert table.latency_s.tolist() == [0.2, 0.1, 0.2, 0.2]
    assert (table.predicted_s[:3] > 0).all()
    assert table.predicted_s[0] == table.predicted_s[1]
    assert "no-such-device" in table.error[3]
    text = (whole_runs / "out" / "runs.md").read_text()
    assert "The same run measured by two sources" in text
    assert "h100-sxm / a100-sxm" in text
    assert (whole_runs / "out" / "runs.html").exists()


def evaluated(whole_runs, table, name="found.csv", **options):
    return runs.evaluate_runs(table, whole_runs / name, traces=whole_runs / "traces", workers=1, **options)


def test_a_run_that_was_interrupted_goes_on(whole_runs, monkeypatch):
    table = read_measurements(whole_runs / "runs.csv").iloc[:1]
    journal, lines = whole_runs / ".resumed.csv.partial.jsonl", []
    from simtti.journal import Journal

    append = Journal.append

    def watched(self, *done):
        append(self, *done)
        lines.append(journal.read_text())

    monkeypatch.setattr(Journal, "append", watched)
    first = evaluated(whole_runs, table, "resumed.csv")
    assert not journal.exists()
    entry = json.loads(lines[-1].splitlines()[-1])
    entry["figures"]["latency_s"] = 42.0
    journal.write_text(json.dumps(entry) + "\n")
    assert evaluated(whole_runs, table, "resumed.csv").predicted_s.tolist() == [42.0]
    assert first.predicted_s[0] != 42.0


def stopped_at(stage, least=1):
    def progress(what, done, total):
        if what == stage and done >= least:
            raise KeyboardInterrupt

    return progress


def interrupted_run(table, out, traces, stage, **options):
    with pytest.raises(KeyboardInterrupt):
        runs.evaluate_runs(table, out, traces=traces, workers=1, progress=stopped_at(stage), **options)
    assert not out.exists()


def simulations(monkeypatch):
    """The devices of the runs that are simulated from now on."""
    from simtti.simulator import run as running

    found, original = [], running.run

    def watched(workload, hw, **options):
        found.append(hw if isinstance(hw, str) else hw.name)
        return original(workload, hw, **options)

    monkeypatch.setattr(running, "run", watched)
    return found


def test_what_is_kept_follows_from_devices_and_hosts_by_what_their_files_say(
    tmp_path, whole_runs, monkeypatch
):
    base, host, out = tmp_path / "base.yaml", tmp_path / "host.yaml", tmp_path / "out.csv"

    def write(clock_hz, speed):
        base.write_text(
            f"base: h100-sxm\nname: base\ndatasheet: {{clock_hz: {{value: {clock_hz}, source: a test}}}}\n"
        )
        (tmp_path / "mine.yaml").write_text(f"base: {base}\nname: mine\n")
        host.write_text(f"base: default\nspeed: {speed}\nsource: a test\n")
        load.cache_clear()

    table = read_measurements(whole_runs / "runs.csv").iloc[:2].copy()
    table["hw"] = [str(tmp_path / "mine.yaml"), "a100-sxm"]
    table["host"] = ["", str(host)]
    found = simulations(monkeypatch)
    write(1.5e9, 1.0)
    interrupted_run(table, out, tmp_path / "traces", "simulate")
    assert found == [str(tmp_path / "mine.yaml")]
    for clock_hz, speed, again in (
        (1.5e9, 1.0, ["a100-sxm"]),
        (1.2e9, 1.0, [str(tmp_path / "mine.yaml"), "a100-sxm"]),
    ):
        found.clear()
        write(clock_hz, speed)
        runs.evaluate_runs(table, out, traces=tmp_path / "traces", workers=1)
        assert found == again
        out.unlink()
        write(1.5e9, 1.0)
        interrupted_run(table, out, tmp_path / "traces", "simulate")
    interrupted_run(table.iloc[::-1], out, tmp_path / "traces", "simulate")
    found.clear()
    write(1.5e9, 2.0)
    runs.evaluate_runs(table, out, traces=tmp_path / "traces", workers=1)
    assert found == ["a100-sxm"]


def test_models_left_out_are_kept_too(tmp_path, whole_runs, monkeypatch):
    monkeypatch.setattr(leave_out, "LEAST_RUNS", 1)
    one = read_measurements(whole_runs / "runs.csv").iloc[:1]
    table = pd.concat([one, one.assign(workload="phenaki", dtype="fp32")], ignore_index=True)
    common = {"leave_one_model_out": True}
    whole = runs.evaluate_runs(table, tmp_path / "whole.csv", traces=tmp_path / "traces", workers=1, **common)
    assert whole.left_out_s.notna().all()
    cut, found = tmp_path / "cut.csv", simulations(monkeypatch)
    interrupted_run(table, cut, tmp_path / "traces", "each model left out", **common)
    assert len(found) == 2 + 4 + 1
    found.clear()
    runs.evaluate_runs(table, cut, traces=tmp_path / "traces", workers=1, **common)
    assert len(found) == 1
    assert cut.read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_a_trace_is_recorded_once_and_taken_from_then_on(whole_runs, tmp_path):
    table = read_measurements(whole_runs / "runs.csv")
    asked = {"workload": "stable-diffusion", "dtype": "fp16", "batch": 1, "steps": 3}
    record_all([asked, asked | {"hw": "a100-sxm"}], tmp_path)
    (path,) = tmp_path.iterdir()
    assert with_trace(asked, tmp_path) == {"workload": "stable-diffusion", "trace": str(path)}
    assert with_trace(asked | {"steps": 4}, tmp_path) == asked | {"steps": 4}
    asked_of_nobody = {"workload": "no-such-workload", "steps": 3}
    record_all([asked_of_nobody], tmp_path)
    assert with_trace(asked_of_nobody, tmp_path) == asked_of_nobody
    # What the file holds is what is simulated: here ten times the steps.
    before = evaluated(whole_runs, table.iloc[:1]).predicted_s[0]
    Trace.load(path).with_steps(30).save(path)
    after = runs.evaluate_runs(table.iloc[:1], tmp_path / "out.csv", traces=tmp_path, workers=1).predicted_s[
        0
    ]
    assert after > 5 * before


def test_a_table_without_whole_runs_is_an_error(tmp_path):
    kernels = pd.DataFrame({"op": ["copy"], "hw": "h100-sxm", "dtype": "fp16", "numel": 64, "time_us": 1.0, "source": "a test",
                            "what_is_timed": "back-to-back"})  # fmt: skip
    kernels = check(kernels, "a test")
    with pytest.raises(InputError, match="no whole inference"):
        runs.evaluate_runs(kernels, tmp_path / "out.csv", traces=tmp_path)


def test_attention_is_paired_with_the_fused_one_of_the_same_run():
    table = run_table(
        {"attention": "efficient", "latency_s": 2.0, "predicted_s": 2.0},
        {"attention": "baseline", "latency_s": 3.0, "predicted_s": 3.3},
        {"attention": "baseline", "batch": 4, "latency_s": 9.0, "predicted_s": 9.0},
        {"attention": "efficient", "hw": "a10", "latency_s": 4.0, "predicted_s": 4.0},
    )
    (pair,) = runs.attention_ratios(table).to_dict("records")
    assert (pair["attention"], pair["base"], pair["measured"]) == ("baseline", "efficient", 1.5)
    assert pair["ratio"] == pytest.approx(1.1)
    assert runs.attention_ratios(run_table({"latency_s": 1.0, "predicted_s": 1.0})).empty


# ---- each model left out


@pytest.fixture
def closed_form(monkeypatch):
    """Runs whose work is made up from their batch, worked out here and now."""

    def work_of(asked, hardware):
        busy_s = asked["batch"] * {"sdxl": 1.0, "svd": 2.0, "flux-dev": 5.0}[asked["workload"]]
        tensor = {"sdxl": 1e14, "svd": 2e14, "flux-dev": 0.5e14}[asked["workload"]]
        return energy.Work(
            busy_s, 1.2 * busy_s, 0, tensor * busy_s, 1e12 * busy_s, 0, 0, 0, 4e12 * busy_s, 1e12 * busy_s
        )

    def simulate(asked, hardware):
        return 1.0, energy.energy_j(work_of(asked, hardware), hardware)

    monkeypatch.setattr(energy, "work_of", work_of)
    monkeypatch.setattr(leave_out, "_simulate", simulate)
    rows = [
        {
            "op": "",
            "workload": workload,
            "hw": "a100-sxm",
            "gpus": 1,
            "attention": "",
            "launch": "",
            "batch": batch,
        }
        for workload in ("sdxl", "svd", "flux-dev")
        for batch in (1, 2, 4, 8, 16)
    ]
    hotter = with_parameters(load("a100-sxm"), {"tensor_j_per_flop": 2e-12})
    joules = [energy.energy_j(work_of(row, hotter), hotter) for row in rows]
    return pd.DataFrame(rows).assign(energy_j=joules)


def test_a_model_that_is_left_out_has_no_say_in_its_own_prediction(closed_form):
    found = leave_out.left_out(closed_form, workers=1)
    assert (found.left_out_j / closed_form.energy_j - 1).abs().max() < 0.06
    wrong = closed_form.assign(
        energy_j=closed_form.energy_j.where(closed_form.workload != "svd", 1.3 * closed_form.energy_j)
    )
    other = leave_out.left_out(wrong, workers=1)
    mine = closed_form.workload == "svd"
    assert other.left_out_j[mine].tolist() == found.left_out_j[mine].tolist()
    assert (other.left_out_j[~mine] / found.left_out_j[~mine]).max() > 1.02


def test_runs_that_set_no_energy_are_not_left_out_of_it(closed_form):
    table = pd.concat([closed_form] * 2, ignore_index=True)
    table.loc[0, "gpus"] = 2
    table.loc[1, "hw"] = "no-such-device"
    table.loc[2, "energy_j"] = None
    table.loc[3, "attention"] = "baseline"
    assert leave_out.left_out(table, workers=1).left_out_j.isna().tolist() == [True] * 4 + [False] * 26
    assert leave_out.left_out(closed_form[closed_form.workload != "svd"], workers=1).left_out_j.isna().all()


def test_the_report_says_how_far_off_models_are_that_were_left_out(closed_form):
    table = closed_form.assign(
        latency_s=1.0, predicted_s=1.1, predicted_j=1.0, source="one", error="", left_out_s=1.25, left_out_j=1.0,
        host_bound_share=0.0, ratio=1.1, energy_ratio=1.0, energy_j=1.0,
    )  # fmt: skip
    table.loc[0, "left_out_s"] = None
    assert any(
        "1 runs not simulated with their model left out" in text
        for text in content.report(table, ()).cautions
    )
    (section,) = (s for s in content.report(table, ()).sections if s.title == content.LEFT_OUT)
    by_model = {row[1].text: row for row in section.blocks[0].rows}
    assert by_model["svd"][3].text == "25.0 %"
