"""A report as one HTML file: nothing is loaded from elsewhere, and it reads on a phone, in light and in dark.

plotly.js travels inside, compressed; the browser unpacks it once and draws every chart.
"""

from __future__ import annotations

import base64
import functools
import gzip
import itertools
import json
import re
from html import escape

from simtti.errors import InputError
from simtti.validation.report.document import Chart, Report, Section, Table

STYLE = """
:root {
  color-scheme: light dark;
  --page: #f6f7f9; --card: #ffffff; --text: #1b2330; --muted: #667085; --line: #e2e6ec; --accent: #1f5fbf;
  --bad: #b42318; --bad-fill: #fdecea; --band: rgba(31, 95, 191, .12); --grid: #e9ecf1;
  --series-1: #1f5fbf; --series-2: #d9730d; --series-3: #2b8a57; --series-4: #8e4ec6; --series-5: #c2334d;
  --series-6: #0f8b9d; --series-7: #8a6d1d; --series-8: #5b6478;
}
@media (prefers-color-scheme: dark) { :root {
  --page: #11151c; --card: #191f29; --text: #e6e9ef; --muted: #98a2b3; --line: #2b3340; --accent: #7fb0ff;
  --bad: #ff9c90; --bad-fill: #44201d; --band: rgba(127, 176, 255, .16); --grid: #29303c;
  --series-1: #7fb0ff; --series-2: #ffae5c; --series-3: #6ed3a0; --series-4: #c9a2f5; --series-5: #ff8d9f;
  --series-6: #63d2e0; --series-7: #dcc067; --series-8: #a8b1c2;
} }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; scroll-behavior: smooth; }
body { margin: 0; background: var(--page); color: var(--text); font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto,
  "Noto Sans", "DejaVu Sans", sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 40px 24px 64px; }
h1 { font-size: 2rem; line-height: 1.2; letter-spacing: -.02em; margin: 0 0 4px; }
h2 { font-size: 1.3rem; line-height: 1.3; letter-spacing: -.01em; margin: 0 0 12px; }
p { margin: 0 0 12px; max-width: 76ch; }
.subtitle { color: var(--muted); margin-bottom: 24px; }
nav { display: flex; flex-wrap: wrap; gap: 6px 18px; margin: 20px 0 28px; font-size: .9rem; }
nav a { color: var(--accent); text-decoration: none; }
nav a:hover { text-decoration: underline; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 24px; margin: 0 0 20px; }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(170px, 1fr)); gap: 12px; margin: 0 0 20px; }
.fact { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 16px 18px; }
.fact b { display: block; font-size: 1.75rem; line-height: 1.25; letter-spacing: -.02em; font-variant-numeric: tabular-nums; }
.fact span { display: block; font-size: .85rem; }
.fact .hint { color: var(--muted); }
.summary p { font-size: 1.06rem; }
.cautions { margin: 0; padding-left: 1.2em; }
.cautions li { margin-bottom: 4px; max-width: 84ch; }
.more { margin-top: 8px; }
.scroll { overflow-x: auto; margin: 12px -24px 8px; padding: 0 24px; -webkit-overflow-scrolling: touch; }
table { border-collapse: collapse; min-width: 100%; font-size: .9rem; font-variant-numeric: tabular-nums; }
th { color: var(--muted); font-weight: 600; font-size: .8rem; vertical-align: bottom; border-bottom: 2px solid var(--line); }
th, td { text-align: right; padding: 6px 14px 6px 0; white-space: nowrap; }
th:last-child, td:last-child { padding-right: 0; }
td { border-bottom: 1px solid var(--line); vertical-align: top; }
tr:last-child td { border-bottom: 0; }
th.words, td.words { text-align: left; }
td.prose { white-space: normal; min-width: 20rem; overflow-wrap: anywhere; }
td.prose.hash { font-size: .8rem; }
td .bad { color: var(--bad); background: var(--bad-fill); border-radius: 5px; padding: 1px 5px; margin-right: -5px; }
.caption { color: var(--muted); font-size: .85rem; }
h3 { font-size: .95rem; margin: 12px 0 0; }
.chart { width: 100%; margin-top: 8px; }
.row { display: grid; grid-template-columns: repeat(auto-fill, minmax(230px, 1fr)); gap: 4px 18px; }
td.shape { white-space: normal; min-width: 11rem; }
summary { cursor: pointer; }
summary h2 { display: inline; }
details[open] summary { margin-bottom: 12px; }
@media (max-width: 640px) {
  main { padding: 24px 14px 48px; }
  h1 { font-size: 1.5rem; }
  section { padding: 18px 14px; border-radius: 10px; }
  .scroll { margin: 12px -14px 8px; padding: 0 14px; }
  .facts { grid-template-columns: 1fr 1fr; gap: 8px; }
  .fact { padding: 12px; }
  .fact b { font-size: 1.35rem; }
  td.prose { min-width: 15rem; }
}
@media print { section { break-inside: avoid; } nav { display: none; } }
"""

# Unpacks plotly.js, puts the page's colours in the charts, and again whenever light turns to dark.
SCRIPT = """
const read = id => document.getElementById(id).textContent;
const unpacked = async id => {
  const bytes = Uint8Array.from(atob(read(id)), character => character.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
};
const coloured = value => {
  const style = getComputedStyle(document.documentElement);
  const walk = item => typeof item === "string" && item.startsWith("var(")
    ? style.getPropertyValue(item.slice(4, -1)).trim()
    : Array.isArray(item) ? item.map(walk)
    : item && typeof item === "object" ? Object.fromEntries(Object.entries(item).map(([key, each]) => [key, walk(each)]))
    : item;
  return walk(value);
};
const axis = {gridcolor: "var(--grid)", zerolinecolor: "var(--muted)", linecolor: "var(--line)", automargin: true};
const themed = layout => {
  const found = {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", hovermode: "closest",
    margin: {l: 48, r: 12, t: 12, b: 44}, legend: {orientation: "h", y: 1.02, yanchor: "bottom", x: 0, traceorder: "normal", itemsizing: "constant",
      ...(innerWidth < 640 ? {entrywidth: 84, font: {size: 10}} : {entrywidth: 105})},
    hoverlabel: {bgcolor: "var(--card)", bordercolor: "var(--line)", font: {color: "var(--text)"}},
    ...layout,
    font: {family: getComputedStyle(document.body).fontFamily, size: 12, color: "var(--text)"},
  };
  for (const key of Object.keys(found)) if (/^[xy]axis/.test(key)) found[key] = {...axis, ...found[key]};
  return coloured(found);
};
const draw = () => {
  for (const [id, chart] of Object.entries(charts)) {
    Plotly.react(id, coloured(chart.data), themed(chart.layout), {responsive: true, displayModeBar: false});
  }
};
const charts = JSON.parse(read("charts"));
unpacked("plotly-js").then(source => {
  const script = document.createElement("script");
  script.textContent = source;
  document.head.append(script);
  draw();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  document.documentElement.dataset.drawn = "yes";
}).catch(() => {
  for (const id of Object.keys(charts)) {
    document.getElementById(id).textContent = "This browser cannot show the chart; one from 2023 or later can.";
  }
});
"""


@functools.cache
def plotly_js() -> str:
    """plotly.js as compressed text.

    Raises:
        InputError: plotly is not installed.
    """
    try:
        from plotly.offline import get_plotlyjs
    except ImportError:
        raise InputError("reports need plotly; run: pip install 'simtti[report]'") from None
    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), mtime=0)).decode()


def html(report: Report) -> str:
    """The page. The same report gives the same bytes."""
    charts = {chart.name: {"data": chart.data, "layout": chart.layout} for chart in report.charts()}
    data = json.dumps(charts, separators=(",", ":"), sort_keys=True).replace("<", "\\u003c")
    sections = "\n".join(_section(section, at) for at, section in enumerate(report.sections))
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(report.title)}</title>
<link rel="icon" href="data:,">
<style>{STYLE}</style>
</head>
<body>
<main>
<header>
<h1>{_words(report.title)}</h1>
<p class="subtitle">{_words(report.subtitle)}</p>
</header>
{_facts(report)}
{_summary(report)}
<nav aria-label="Sections">{"".join(_link(section, at) for at, section in enumerate(report.sections))}</nav>
{sections}
</main>
<script type="application/json" id="charts">{data}</script>
<script type="text/plain" id="plotly-js">{plotly_js()}</script>
<script>{SCRIPT}</script>
</body>
</html>
"""


def _words(text: str) -> str:
    """Text for the page; a number and its unit stay on a line."""
    return escape(_UNIT.sub("\\1\u00a0\\2", text))


def _facts(report: Report) -> str:
    if not report.facts:
        return ""
    facts = "".join(
        f'<div class="fact"><span>{_words(fact.name)}</span><b>{_words(fact.value)}</b>'
        f'<span class="hint">{_words(fact.hint)}</span></div>'
        for fact in report.facts
    )
    return f'<div class="facts">{facts}</div>'


# A digit, a space and what belongs to it.
_UNIT = re.compile(r"(\d) (%|us|ms|rows)")
# Cautions beyond these are folded.
# Characters beyond which a column of words is wrapped.
_LONG_WORDS = 40
_FIRST_CAUTIONS = 6


def _summary(report: Report) -> str:
    words = "".join(f"<p>{_words(text)}</p>" for text in report.summary)
    cautions = ""
    if report.cautions:
        first, rest = report.cautions[:_FIRST_CAUTIONS], report.cautions[_FIRST_CAUTIONS:]
        cautions = f"<h2>Where not to trust it</h2>{_list(first)}"
        if rest:
            cautions += (
                f'<details class="more"><summary>and {len(rest)} more</summary>{_list(rest)}</details>'
            )
    return f'<section class="summary"><h2>How good it is</h2>{words}{cautions}</section>'


def _list(lines: tuple[str, ...]) -> str:
    return '<ul class="cautions">' + "".join(f"<li>{_words(line)}</li>" for line in lines) + "</ul>"


def _link(section: Section, at: int) -> str:
    return f'<a href="#section-{at}">{_words(section.title)}</a>'


def _section(section: Section, at: int) -> str:
    body = "".join(f"<p>{_words(text)}</p>" for text in section.text)
    for small, blocks in itertools.groupby(
        section.blocks, lambda block: isinstance(block, Chart) and block.small
    ):
        shown = "".join(_chart(block) if isinstance(block, Chart) else _table(block) for block in blocks)
        body += f'<div class="row">{shown}</div>' if small else shown
    head = f"<h2>{_words(section.title)}</h2>"
    if section.folded:
        return f'<section id="section-{at}"><details><summary>{head}</summary>{body}</details></section>'
    return f'<section id="section-{at}">{head}{body}</section>'


def _chart(chart: Chart) -> str:
    title = f"<h3>{_words(chart.title)}</h3>" if chart.title else ""
    caption = f'<p class="caption">{_words(chart.caption)}</p>' if chart.caption else ""
    place = f'<div class="chart" id="{escape(chart.name)}" style="height:{chart.height_px}px"></div>'
    return f"<div>{title}{place}{caption}</div>"


def _table(table: Table) -> str:
    classes = [_classes(table, at) for at in range(len(table.columns))]
    head = "".join(
        f'<th scope="col"{kind}>{_words(name)}</th>'
        for name, kind in zip(table.columns, classes, strict=True)
    )
    rows = "".join(
        "<tr>"
        + "".join(
            f"<td{kind}>{_cell(cell.text, cell.mark)}</td>" for cell, kind in zip(row, classes, strict=True)
        )
        + "</tr>\n"
        for row in table.rows
    )
    caption = f'<p class="caption">{_words(table.caption)}</p>' if table.caption else ""
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead>\n<tbody>{rows}</tbody></table></div>{caption}'


def _classes(table: Table, at: int) -> str:
    if table.words_last and at == len(table.columns) - 1:
        return ' class="words prose"'
    long = any(len(row[at].text) > _LONG_WORDS for row in table.rows)
    if table.columns[at] == "Shape" or (table.is_text(at) and long):
        return ' class="words shape"'
    return ' class="words"' if table.is_text(at) else ""


def _cell(text: str, mark: str) -> str:
    return f'<span class="{mark}">{_words(text)}</span>' if mark else _words(text)
