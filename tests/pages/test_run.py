"""The report of a run: what a person reads in it, and that it needs nothing else."""

import re

import pytest
from click.testing import CliRunner
from parsed_page import check

import simtti
from simtti.cli import main
from simtti.pages.drawing import drawing
from simtti.pages.run_plots import kernel_uses
from simtti.simulator.power_of_run import power_over_time
from simtti.simulator.what_ifs import what_ifs
from simtti.words import seconds

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")


def call(*arguments):
    return CliRunner().invoke(main, ["run", "stable-diffusion", "--hw", "h100-sxm", *map(str, arguments)])


@pytest.fixture(scope="module")
def result():
    return simtti.run("stable-diffusion", hw="h100-sxm", steps=8, by_host=True)


@pytest.fixture(scope="module")
def page(result, tmp_path_factory):
    """Its page, written twice: from Python, and by the command of another run of the same."""
    folder = tmp_path_factory.mktemp("run")
    simtti.report(result, folder / "one.html")
    done = call("--steps", "8", "--report", folder / "two.html")
    assert done.exit_code == 0, done.output
    assert "two.html: open it in a browser" in done.output
    assert (folder / "one.html").read_bytes() == (folder / "two.html").read_bytes()
    return (folder / "one.html").read_text(encoding="utf-8")


def test_the_page_answers_where_time_goes_and_why(page, result):
    found = check(page)
    heads = ["In short", "Where the time goes", "What limits it", "Phases", "What more of a resource would buy", "Roofline", "Kernels",
             "Power and clock", "Memory", "Attention", "Configuration", "Made from"]  # fmt: skip
    assert [head for head in found.heads if head in heads] == heads
    assert len(found.drawings) == 2 * 8  # for a wide screen and for a phone
    text = "".join(found.texts).replace("\u00a0", " ")
    assert seconds(result.latency_s) in text
    assert (
        f"{seconds(result.interval.latency_s.p05)} to {seconds(result.interval.latency_s.p95)} in 9 of 10"
        in text
    )
    for words in (
        "flash-attention-2",
        "it has no head dim 512",
        "text encoder",
        "sha256",
        "h100-sxm.yaml",
        "0.42.1",
    ):
        assert words in text
    assert not re.search(r"20\d\d-\d\d-\d\d", text)  # no clock
    assert any("limited by" in tip for tip in found.tips)
    assert any(tip.startswith("Convolution: ") for tip in found.tips)


def test_markup_in_a_plot_is_text():
    def draw(plot):
        (mark,) = plot.figure.add_subplot().plot([1], [1], "o")
        plot.tip(mark, "<script>alert(1)</script>")

    text = drawing("evil", draw, 100, title='"><script>alert(1)</script>').wide
    assert "<script>" not in text
    assert "&lt;script&gt;alert" in text


def test_kernels_are_all_of_the_kernel_time(result):
    uses = kernel_uses(result)
    assert sum(use.time_s for use in uses) == pytest.approx(result.totals["kernel_s"])
    assert sum(use.launches for use in uses) == result.totals["kernels"]
    assert [use.time_s for use in uses] == sorted((use.time_s for use in uses), reverse=True)


def test_power_over_time_is_the_energy_and_has_no_gaps(result):
    windows = power_over_time(result)
    assert sum(window.power_w * (window.end_s - window.start_s) for window in windows) == pytest.approx(
        result.energy_j
    )
    assert [window.start_s for window in windows] == [0.0, *(window.end_s for window in windows[:-1])]
    assert windows[-1].end_s == pytest.approx(result.latency_s)


def test_what_ifs_find_what_limits(result):
    by = {each.resource: 1 - each.latency_s / result.latency_s for each in what_ifs(result)}
    assert max(by, key=by.get) == "Host"  # it waits for Python for half of its time
    graph = simtti.run("stable-diffusion", hw="h100-sxm", steps=8, launch="graph")
    by = {each.resource: 1 - each.latency_s / graph.latency_s for each in what_ifs(graph)}
    assert by["Host"] == pytest.approx(0.0, abs=1e-3)
    assert max(by, key=by.get) in ("SMs", "SM clock")
    assert 0 < by["HBM bandwidth"] < 0.1
    again = simtti.run(
        "stable-diffusion",
        hw="h100-sxm",
        steps=8,
        launch="graph",
        set="hbm_bytes_per_s=1.1x",
        fidelity="closed",
    )
    base = simtti.run("stable-diffusion", hw="h100-sxm", steps=8, launch="graph", fidelity="closed")
    assert 1 - again.latency_s / base.latency_s == pytest.approx(by["HBM bandwidth"])


def test_what_cannot_be_written_is_said_before_the_work(tmp_path):
    done = call("--report", tmp_path / "no" / "run.html")
    assert done.exit_code == 2
    assert done.output.startswith("simtti: error: ")
    assert len(done.output.splitlines()) == 1
