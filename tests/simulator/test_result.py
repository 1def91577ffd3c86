"""What a result gives beside its numbers: files, a table in a notebook, a plot."""

import json
from html.parser import HTMLParser

import pytest
from click.testing import CliRunner

import simtti
from simtti.cli import main
from simtti.words import seconds


@pytest.fixture(scope="module")
def result():
    return simtti.run("stable-diffusion", hw="h100-sxm", steps=2)


def test_what_is_saved_is_what_the_command_writes(result, tmp_path):
    result.save(tmp_path / "a.json")
    done = CliRunner().invoke(
        main,
        ["run", "stable-diffusion", "--hw", "h100-sxm", "--steps", "2", "--json", str(tmp_path / "b.json"),
         "--timeline", str(tmp_path / "b.trace.json")],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    ours, theirs = (json.loads((tmp_path / name).read_text()) for name in ("a.json", "b.json"))
    assert theirs.pop("latency_by_host")  # the command asks for it
    assert not ours.pop("latency_by_host")
    assert ours == theirs
    result.timeline(tmp_path / "a.trace.json")
    assert (tmp_path / "a.trace.json").read_bytes() == (tmp_path / "b.trace.json").read_bytes()
    diff = CliRunner().invoke(main, ["diff", str(tmp_path / "a.json"), str(tmp_path / "b.json")])
    assert diff.exit_code == 0, diff.output


def test_a_page_is_not_what_save_writes(result, tmp_path):
    with pytest.raises(simtti.InputError, match=r"run\.html: a result is kept as \.json; simtti\.report"):
        result.save(tmp_path / "run.html")
    assert not list(tmp_path.iterdir())


class _Cells(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.rows = [], []

    def handle_starttag(self, tag, attrs):
        assert not attrs  # the notebook's own style
        self.open += [tag] if tag != "br" else []
        self.rows += [[]] if tag == "tr" else []

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1].append(text)


def test_a_notebook_shows_the_figures(result):
    found = _Cells()
    found.feed(result._repr_html_())
    assert not found.open
    rows = {row[0]: row[1:] for row in found.rows if len(row) > 1}
    assert rows["Latency"] == [
        seconds(result.latency_s),
        f"{seconds(result.interval.latency_s.p05)} to {seconds(result.interval.latency_s.p95)}",
    ]
    assert rows["denoising"][0] == str(result.phases[1].steps)
    assert rows["Convolution"][0] == seconds(result.breakdown["Convolution"])


def test_a_plot_is_a_figure_that_pyplot_does_not_keep(result):
    pytest.importorskip("matplotlib")
    from matplotlib import _pylab_helpers
    from matplotlib.figure import Figure

    figure = simtti.plot(result)
    assert isinstance(figure, Figure)
    assert not _pylab_helpers.Gcf.figs
    (axes,) = figure.axes
    assert [text.get_text().split("\n")[0] for text in axes.get_yticklabels()] == [
        "text encoder",
        "denoising",
        "decoder",
    ]
    assert max(patch.get_x() + patch.get_width() for patch in axes.patches) == pytest.approx(100, abs=0.5)
    assert figure._repr_png_().startswith(b"\x89PNG")


def test_a_device_is_replaced_in_part():
    device = simtti.load("h100-sxm").replace(hbm_bytes_per_s="2x", power_limit_w=500)
    assert device.hbm_bytes_per_s == 2 * simtti.load("h100-sxm").hbm_bytes_per_s
    assert device.power_limit_w == 500
    assert set(simtti.__all__) < set(dir(simtti))
