"""What the command line prints of answers: devices side by side, the difference of two results, a scheduler's costs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.text import Text

from simtti.commands.console import Column, plain_console, print_table
from simtti.commands.options import records
from simtti.hw_configs.changes import split
from simtti.hw_configs.hardware import PYTORCH
from simtti.simulator.advise import MEETS
from simtti.simulator.compare import certain
from simtti.words import gib, number, seconds, whole

if TYPE_CHECKING:
    import pandas as pd

    from simtti.simulator.advise import Advice


_LEAST_SHARE = 0.0005  # what would be printed as 0.0 % is not
_MOST_REASONS = 3  # why candidates have no figures
_VERDICTS = (MEETS, "does not fit", "too slow", "over the limit of memory")
_SAME = 1e-6  # a change below this share is of rounding


def _best(is_best: bool) -> str:
    return "bold green" if is_best else ""


def _times(value: float | None, shown: bool) -> str:
    """Over the first device's, behind the figure."""
    return "" if value is None or not shown else f" {value:.2f}x"


def _thousand(usd: float | None) -> str:
    return "" if usd is None else number(1000 * usd)


def _between(low_s: float, high_s: float) -> str:
    """Two times, with the unit once where it is the same.

    >>> _between(0.0912, 0.15)
    '91.2-150 ms'
    """
    low, high = seconds(low_s), seconds(high_s)
    (least, unit), (_, other) = low.split(), high.split()
    return f"{least}-{high}" if unit == other else f"{low}-{high}"


def _many(row: dict[str, Any], changed: Mapping[str, int]) -> str:
    """A row's device, with how many of it, and a number for what is changed of it."""
    name = str(row["hw"])
    if name in changed:
        name = f"{split(name)[0]} [{changed[name]}]"
    return f"{row['gpus']} {name}" if row["gpus"] > 1 else name


def print_comparison_of_devices(found: pd.DataFrame, workload: str) -> None:
    """One row a device and batch; the fastest, the most efficient and what does not fit stand out."""
    console = plain_console()
    console.print(f"[bold]{workload}[/]\n")
    rows = records(found)
    marks = {
        said: mark
        for mark, said in enumerate(dict.fromkeys(filter(None, (split(name)[1] for name in found.hw))), 1)
    }
    changed = {name: marks[split(name)[1]] for name in found.hw if split(name)[1]}
    several, priced = found.hw.nunique() > 1, bool(found.usd_per_output.notna().any())
    by_second = bool(found.usd_per_video_s.notna().any())
    priced = priced and not by_second
    many = bool((found.batch > 1).any())  # alone, outputs a second say nothing beside the latency
    intervals = "latency_p05_s" in found
    many = many and not intervals  # there is no room for both
    columns: list[Column | str] = [
        Column("Device", "name"),
        "Batch",
        "Latency",
        *["9 of 10"] * intervals,
        *["Out/s"] * many,
        "J/out",
    ]
    columns += [*["$/1000"] * priced, *["$/video s"] * by_second, "GiB", "Most", Column("Bottleneck", "name")]
    table = []
    fitting = [row for row in rows if not row["error"] and row["fits"] is not False]
    most = max((row["outputs_per_s"] for row in fitting), default=None)
    least = min((row["energy_per_output_j"] for row in fitting), default=None)
    cheapest = min((row["usd_per_output"] for row in fitting if row["usd_per_output"]), default=None)
    for row in rows:
        if row["error"]:
            continue
        energy_j = row["energy_per_output_j"]
        table.append(
            (
                _many(row, changed),
                str(row["batch"]),
                seconds(row["latency_s"]) + _times(row["latency_x"], several),
                *([_between(row["latency_p05_s"], row["latency_p95_s"])] if intervals else []),
                *[Text(f"{row['outputs_per_s']:.3g}", style=_best(row["outputs_per_s"] == most))] * many,
                Text(
                    f"{energy_j:,.0f}" if energy_j >= 100 else f"{energy_j:.3g}",
                    style=_best(energy_j == least),
                ),
                *[Text(_thousand(row["usd_per_output"]), style=_best(row["usd_per_output"] == cheapest))]
                * priced,
                *["" if row["usd_per_video_s"] is None else number(row["usd_per_video_s"])] * by_second,
                Text(
                    ""
                    if row["peak_memory_bytes"] is None
                    else gib(row["peak_memory_bytes"]).removesuffix(" GiB"),
                    style="red" if row["fits"] is False else "",
                ),
                whole(row["largest_batch"]),
                row["bottleneck"] if intervals else f"{row['bottleneck']} {row['bottleneck_share']:.0%}",
            )
        )
    print_table(columns, table, keys=2)
    notes = [
        "9 of 10: such runs take so long" if intervals else "",
        "x: over the first device, same batch" if several else "",
        "$/1000: of as many outputs" if priced else "",
        "Most: the largest batch that fits",
    ]
    console.print("; ".join(filter(None, notes)), style="dim")
    for said, mark in marks.items():
        console.print(f"[{mark}] {said}", markup=False)
    for row in rows:
        if row["error"]:
            console.print(
                f"{_many(row, changed)} at batch {whole(row['batch']) or 'its own'}: {row['error']}",
                style="yellow",
                markup=False,
            )
        if row["fits"] is False:
            needs = f"{gib(row['peak_memory_bytes'])} does not fit into memory"
            console.print(
                f"{_many(row, changed)} at batch {row['batch']}: {needs}", style="red", markup=False
            )
    if intervals:
        for line in certain(found):
            console.print(line, markup=False)
    releases = sorted({str(row["pytorch"]) for row in rows if isinstance(row["pytorch"], str)})
    if len(releases) > 1:
        words = "; ".join(
            f"{release} on {', '.join(dict.fromkeys(split(row['hw'])[0] for row in rows if row['pytorch'] == release))}"
            for release in releases
        )
        console.print(
            f"\nKernels of different releases of PyTorch: {words}. --pytorch {PYTORCH[0]} compares like with like."
        )


def _ratio(value: float) -> str:
    if value != value:
        return "new"
    return f"{value:.2f}x" if value < 100 else f"{value:,.0f}x"


def print_difference(found: pd.DataFrame, names: tuple[str, str]) -> None:
    """By phase, by category, and by both: seconds of each, and the change."""
    console = plain_console()
    console.print(f"A  [bold]{escape(names[0])}[/]\nB  [bold]{escape(names[1])}[/]\n")
    largest = max(found.a_s.max(), found.b_s.max())
    table: list[tuple[str, ...]] = []
    rows: list[dict[str, Any]] = found.to_dict("records")  # type: ignore[assignment]
    before = None
    for row in rows:
        if max(row["a_s"], row["b_s"]) < _LEAST_SHARE * largest:
            continue
        if before is not None and (row["phase"] != before):
            table.append(("",) * 6)
        sign = "-" if row["change_s"] < 0 else "+"
        table.append(
            (
                str(row["phase"]) if row["phase"] != before else "",
                str(row["category"]),
                seconds(row["a_s"]),
                seconds(row["b_s"]),
                "0" if abs(row["change_s"]) < _SAME * row["a_s"] else sign + seconds(abs(row["change_s"])),
                _ratio(row["ratio"]),
            )
        )
        before = row["phase"]
    print_table(
        [Column("Phase", "name"), Column("Category", "name"), "A", "B", "Change", "B/A"], table, keys=2
    )


_LIMITS = {"latency_s": "an inference takes at most", "memory_bytes": "each GPU holds at most"}


def print_advice(found: Advice, workload: str, limits: Mapping[str, float | None]) -> None:
    """The best few for each aim, and what became of the others."""
    console = plain_console()
    kept = [
        f"{words} {gib(limit) if name == 'memory_bytes' else seconds(limit)}"
        for name, words in _LIMITS.items()
        if (limit := limits.get(name)) is not None
    ]
    console.print(f"[bold]{escape(workload)}[/]{'   ' if kept else ''}{', '.join(kept)}")
    counts = found.table.verdict.where(
        found.table.verdict.isin(_VERDICTS), "cannot be simulated"
    ).value_counts()
    console.print(
        f"{len(found.table)} candidates: "
        + ", ".join(
            f"{count} {'meet the limits' if name == MEETS else name}" for name, count in counts.items()
        )
    )
    failed = found.table[~found.table.verdict.isin(_VERDICTS)]
    for reason, count in failed.verdict.value_counts(sort=True).head(_MOST_REASONS).items():
        console.print(f"  {count}: {reason}", style="dim", markup=False)
    if not (found.table.verdict == MEETS).any():
        fitting = found.table[found.table.fits.eq(True)].sort_values("latency_s", kind="stable")
        if len(fitting):
            near = records(fitting.head(1))[0]
            console.print(
                f"None keeps the limits. The fastest that fits its device: {_way(near)}, {seconds(near['latency_s'])}, "
                f"{gib(near['peak_memory_bytes'])}",
                style="yellow",
                markup=False,
            )
    quantized, batched = bool(found.table.quantization.notna().any()), found.table.batch.nunique() > 1
    limit_s = limits.get("latency_s")
    for aim, best in found.best.items():
        if best.empty:
            continue
        words = (aim.capitalize(), "Launch", *["Precision"] * quantized)
        figures = [*["Batch"] * batched, "Latency", "9 of 10", "J/out", "$/1000", "GiB"]
        table = []
        for row in records(best):
            late = limit_s is not None and row["latency_p95_s"] is not None and row["latency_p95_s"] > limit_s
            table.append(
                (
                    _way(row),
                    row["launch"],
                    *[row["quantization"] or "-"] * quantized,
                    *[whole(row["batch"])] * batched,
                    seconds(row["latency_s"]),
                    ""
                    if row["latency_p05_s"] is None
                    else _between(row["latency_p05_s"], row["latency_p95_s"]) + "*" * late,
                    number(row["energy_per_output_j"]),
                    _thousand(row["usd_per_output"]),
                    ""
                    if row["peak_memory_bytes"] is None
                    else gib(row["peak_memory_bytes"]).removesuffix(" GiB"),
                )
            )
        console.print()
        print_table([*(Column(each, "name") for each in words), *figures], table)
    if any(not best.empty for best in found.best.values()):
        notes = "9 of 10: such runs take so long; $/1000: of as many outputs"
        console.print(
            "\n" + notes + ("; *: may be over the limit" if limit_s is not None else ""), style="dim"
        )


def _way(row: dict[str, Any]) -> str:
    """A candidate's GPUs: '4 h100-sxm, ulysses'."""
    return f"{row['gpus']} {row['hw']}, {row['way']}" if row["gpus"] > 1 else str(row["hw"])


def print_costs(table: pd.DataFrame, workload: str) -> None:
    """A row a run."""
    console = plain_console()
    console.print(f"[bold]{escape(workload)}[/]\n")
    shown: list[tuple[str | Text, ...]] = []
    intervals = "step_p05_s" in table
    rows = records(table)
    for row in rows:
        size = "" if row["height"] is None else f"{row['height']:.0f}x{row['width']:.0f}"
        cells = [str(row["hw"]), str(row["gpus"]), str(row["batch"]), size]
        if row["latency_s"] is None:
            continue
        text, step, decoder, latency = (
            "" if row[name] is None else seconds(row[name])
            for name in ("text_encoder_s", "step_s", "decoder_s", "latency_s")
        )
        lies = _between(row["step_p05_s"], row["step_p95_s"]) if intervals and row["step_p05_s"] else ""
        held = row["peak_memory_bytes"]
        memory = "" if held is None else gib(held).removesuffix(" GiB")
        style = "red" if row["fits"] is False else ""
        shown.append((*cells, text, step, *[lies] * intervals, decoder, latency, Text(memory, style=style)))
    between = ["9 of 10"] * intervals
    figures = ("GPUs", "Batch", "Size", "Text", "Step", *between, "Decoder", "Latency", "GiB")
    print_table([Column("Device", "name"), *figures], shown, keys=4)
    if intervals:
        console.print("9 of 10: such steps take so long", style="dim")
    for row in rows:
        what = f"{row['gpus']} {row['hw']}, batch {row['batch']}"
        if row["latency_s"] is None:
            console.print(f"{what}: {row['error']}", style="yellow", markup=False)
        elif row["fits"] is False:
            console.print(f"{what}: does not fit into memory", style="red", markup=False)
