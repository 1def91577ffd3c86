"""The reports: what a person reads in them, that nothing is loaded from elsewhere, that the same input gives the same bytes."""

import json

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from parsed_page import check

from simtti.cli import main
from simtti.hw_configs.devices import load
from simtti.pages import page
from simtti.pages.document import Cell, Report, Section, Table, table
from simtti.validation.judge.counters import compare_counters
from simtti.validation.judge.kernels import evaluate
from simtti.validation.judge.prediction import predicted_us
from simtti.validation.measurements.read import read_measurements
from simtti.validation.measurements.shipped import counters_file, kernels_file
from simtti.validation.report import charts, markdown
from simtti.validation.report import kernels as kernels_report
from simtti.validation.report.terminal import print_table
from simtti.words import joined, number, percent, signed

pytest.importorskip("matplotlib")


def call(*arguments):
    return CliRunner().invoke(main, [str(each) for each in arguments], env={"COLUMNS": "160"})


def refused(*arguments):
    """The one line of error of a call that must exit with 2."""
    done = call(*arguments)
    assert done.exit_code == 2, done.output
    (line,) = done.output.strip().splitlines()
    assert line.startswith("simtti: error: ")
    return line


@pytest.fixture(scope="module")
def kernels(tmp_path_factory):
    """A table of made-up measurements: the model's own times, off by a known factor."""
    rows = [
        {"op": "gemm", "dtype": "bf16", "m": m, "n": n, "k": k}
        for m in (16, 512, 4096)
        for n in (512, 1280, 4096, 10240)
        for k in (320, 1280, 4096)
    ] + [{"op": "softmax", "dtype": "fp16", "rows": rows, "cols": 1024} for rows in (64, 4096, 65536)]
    made = pd.DataFrame(rows).assign(
        hw="h100-sxm", source="made up", what_is_timed="back-to-back", time_us=1.0
    )
    made["time_us"] = predicted_us(made, load("h100-sxm"), workers=1) / 1.1
    twice = made.iloc[:5].assign(source="another <source>", time_us=made.time_us[:5] * 1.05)
    wall = made.iloc[-1:].assign(what_is_timed="wall", time_us=500.0)
    path = tmp_path_factory.mktemp("kernels") / "kernels.csv"
    pd.concat([made, twice, wall]).to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def reports(kernels):
    """Two reports made from the same table."""
    folders = [kernels.parent / name for name in ("one", "two")]
    outputs = [
        call("validate", "kernels", "--hw", "h100-sxm", "--measurements", kernels, "-o", folder)
        for folder in folders
    ]
    for done in outputs:
        assert done.exit_code == 0, done.output
    return folders, outputs[0].output


def test_the_terminal_says_how_far_off_the_model_is(reports):
    _, output = reports
    gemm = next(line for line in output.splitlines() if line.startswith("gemm "))
    assert "41" in gemm.split()
    assert "+9." in gemm  # 10 % on 36 rows, 5 % on the 5 that were measured twice
    assert "Roofline MAPE" in output
    assert "Wall times, not scored" in output


def test_the_figures_are_json_too(kernels):
    """What the terminal says in words, as numbers; and nothing else on standard output."""
    done = call("validate", "kernels", "--hw", "h100-sxm", "--measurements", kernels, "--json", "-")
    assert done.exit_code == 0, done.output
    rows = json.loads(done.stdout)
    gemm = [row for row in rows if row["family"] == "gemm"]
    assert sum(row["rows"] for row in gemm) == 41
    assert all(0.04 < row["mape"] < 0.101 and 0 <= row["within_50"] <= row["within_90"] <= 1 for row in gemm)
    assert {"all", "gemm", "softmax"} == {row["family"] for row in rows}


def test_the_report_has_its_sections_and_its_numbers(reports):
    (folder, _), _ = reports
    found = check((folder / "h100-sxm.html").read_text(encoding="utf-8"), names_in_tables=True)
    for head in ("How good it is", "Where not to trust it", "Predicted against measured", "By how long the kernel takes",
                 "How errors spread", "Error against each dimension of the shape", "The 20 worst rows",
                 "Wall times, shown and not scored", "The device's parameters", "Made from"):  # fmt: skip
        assert head in found.heads
    text = (folder / "h100-sxm.md").read_text()
    for words in (
        "| Family | Rows | MAPE |",
        "| gemm |",
        "| softmax |",
        "Noise",
        "hbm_efficiency",
        "sha256",
        "kernels.csv",
    ):
        assert words in text
    rows = pd.read_parquet(folder / "h100-sxm.parquet")
    assert len(rows) == 45
    assert {"family", "split", "size", "predicted_us", "roofline_us", "bottleneck", "other_us"} <= set(
        rows.columns
    )
    assert rows.other_us.notna().sum() == 10


def test_train_and_test_stand_apart_by_family_and_size(reports):
    (folder, _), output = reports
    assert "Training and held-out shapes" in output
    rows = pd.read_parquet(folder / "h100-sxm.parquet")
    gemm = rows[rows.scored & (rows.family == "gemm")]
    lines = (folder / "h100-sxm.md").read_text().splitlines()
    head, line = (next(text for text in lines if text.startswith(start)) for start in
                  ("| Family | Train rows", "| gemm | " + str((gemm.split == "train").sum())))  # fmt: skip
    assert head.count("| MAPE ") == 3  # train, test, and the softmax that the device file records no fit of
    assert [cell.strip() for cell in line.split("|")][8] == str((gemm.split == "test").sum())
    small = gemm[(gemm.time_us < 10) & (gemm.split == "test")]
    line = next(text for text in lines if text.startswith("| gemm | under 10 us | ") and text.count("|") > 12)
    assert [cell.strip() for cell in line.split("|")][9] == str(len(small))


def test_counters_and_captures_have_their_place_in_the_report():
    rows = read_measurements(kernels_file("h200-sxm"))
    found = evaluate("h200-sxm", rows, most_rows=3, workers=1)
    counters = compare_counters(pd.read_parquet(counters_file("h200-sxm")), found.hardware)
    captures = pd.DataFrame(
        [{"trace": "made-up", "hw": "h200-sxm", "attention": "flash", "operators": 1000, "measured_ms": 12.0, "ratio": 0.9,
          "p05": 0.8, "p25": 0.9, "p75": 1.0, "p95": 1.25,
          "weighted_error": 0.2, "largest_error": "Linear", "largest_error_share": 0.1}]
    )  # fmt: skip
    text = markdown.text(
        kernels_report.report(found, "h200-sxm", (), kernels_report.Beside(captures, counters))
    )
    assert "| attention fp16 flash spatial blhd 16x8x1024x1024x80 | flash-attention-2_96_128x64 |" in text
    assert (
        "| made-up | h200-sxm | flash | 1,000 | 12 ms | 0.900 | 0.80 to 1.25 | **20.0 %** | Linear 10.0 % |"
        in text
    )
    for group in ("conv3d", "temporal_attention", "attention_parts", "copy_bandwidth", "upsample"):
        assert f"| {group} |" in text


def test_the_page_needs_nothing_else_and_every_plot_is_drawn(reports):
    (folder, _), _ = reports
    found = check((folder / "h100-sxm.html").read_text(encoding="utf-8"), names_in_tables=True)
    assert {"kernels-scatter", "kernels-distribution", "kernels-by-size", "kernels-gemm-m"} <= set(found.ids)
    drawn = {drawing["label"]: drawing for drawing in found.drawings}
    assert drawn["Predicted against measured"]["tips"] == 44  # a mark a row, each with what it is
    assert any(tip.startswith("gemm m ") and "predicted" in tip for tip in found.tips)


def test_the_same_input_gives_the_same_bytes(reports):
    (one, two), _ = reports
    for name in ("h100-sxm.html", "h100-sxm.md", "h100-sxm.parquet"):
        assert (one / name).read_bytes() == (two / name).read_bytes()


def test_many_points_are_thinned_to_the_same_sample():
    count = 3 * charts.MOST_POINTS
    rows = pd.DataFrame({"time_us": np.arange(1.0, count + 1), "predicted_us": np.arange(1.0, count + 1)})
    rows = rows.assign(op="copy", family="copy", numel=rows.time_us)
    one, two = (charts.scatter(rows, "family", "points", "us") for _ in range(2))
    assert one == two
    assert one.wide.count("<use") >= charts.MOST_POINTS
    assert f"{charts.MOST_POINTS:,} of {count:,} points" in one.caption


def test_a_measurement_cannot_put_markup_on_the_page_or_break_a_table():
    evil = "<script>alert(1)</script>|"
    report = Report(
        evil, evil, (), (evil,), (evil,), (Section(evil, (evil,), (table((evil,), [[evil]], evil),)),)
    )
    text = page.html(report)
    assert "<script>alert" not in text
    assert "| <script>alert(1)</script>\\| |" in markdown.text(report)


def test_marked_cells_stand_out():
    report = Report("t", "", (), (), (), (Section("s", (), (table(("a",), [[Cell("9 %", "bad")]]),)),))
    assert '<span class="bad">9' in page.html(report)
    assert "**9 %**" in markdown.text(report)


def test_fewer_rows_are_taken_when_asked(kernels):
    done = call("validate", "kernels", "--hw", "h100-sxm", "--measurements", kernels, "--rows", 10)
    assert done.exit_code == 0, done.output
    assert "h100-sxm: 13 measured kernels" in done.output


def test_what_cannot_be_done_is_said_in_a_line(tmp_path, kernels):
    arguments = ("--measurements", kernels)
    assert "unknown device 'h100'" in refused("validate", "kernels", "--hw", "h100", *arguments)
    assert "no measurement of a kernel on a100-sxm" in refused(
        "validate", "kernels", "--hw", "a100-sxm", *arguments
    )
    missing = ("--hw", "h100-sxm", "--measurements", tmp_path / "no.csv")
    assert "no such file" in refused("validate", "kernels", *missing)
    bad = tmp_path / "bad.csv"
    pd.read_csv(kernels).assign(m=-1).to_csv(bad, index=False)
    assert "column 'm' is -1.0" in refused("validate", "kernels", "--hw", "h100-sxm", "--measurements", bad)
    (tmp_path / "file").write_text("")
    assert "file" in refused("validate", "kernels", "--hw", "h100-sxm", *arguments, "-o", tmp_path / "file")
    assert "no whole inference" in refused("validate", "runs", kernels)
    assert "'FILE...'" in refused("validate", "runs")


def test_a_file_after_validate_is_a_trace(tmp_path):
    assert "no trace file" in refused("validate", tmp_path / "no.parquet")
    assert "no trace file" in refused("validate", "--hw", "h100-sxm", tmp_path / "no.parquet")
    assert "no trace file" in refused("validate", "trace", tmp_path / "no.parquet")
    assert "kernels" in call("validate", "--help").output


def test_numbers_in_words():
    assert [percent(0.0654), signed(0.001), percent(float("nan"))] == ["6.5 %", "+0.1 %", ""]
    assert [number(value) for value in (0.85, 1.23456, 12.345, 1234.5, 5e-7, 2e9)] == [
        "0.85", "1.23", "12.3", "1,234", "5e-07", "2e+09",
    ]  # fmt: skip
    assert joined(["a", "b", "c"]) == "a, b and c"


def test_long_names_leave_the_numbers_their_columns(capsys, monkeypatch):
    """A terminal of 80 columns: names go on in the next line, nothing is lost of them or of numbers."""
    monkeypatch.setenv("COLUMNS", "80")
    names = [f"{'a/very/long/path/of/a/collection/' * 3}{which}.json" for which in range(2)]
    rows = tuple(tuple(map(Cell, (name, "5", "12.1 %", "2.2 %", "-3.0 %", "80 %"))) for name in names)
    print_table(Table(("Collection", "Rows", "MAPE", "Median", "Bias", "90 % cover"), rows))
    out = capsys.readouterr().out
    assert all(len(line) <= 80 for line in out.splitlines())
    first_column = "".join(line.split(" ")[0] for line in out.splitlines())
    assert first_column == "".join(["Collection", *names])
    for figure in ("5", "12.1", "2.2", "-3.0", "80"):
        assert out.split().count(figure) == 2
