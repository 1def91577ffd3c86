"""What the study found beside what came out. Sources: its abstract (arXiv 2312.14385); what is marked second-hand is from
accounts of it by others. The bounds were set before anything was simulated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from simtti.hw_configs.hardware import Hardware
from simtti.validation.study import beside, counters, image_sizes, operators, roofline, sequences, video
from simtti.validation.study.experiment import Rows, slope
from simtti.validation.study.plan import Plan
from simtti.validation.study.points import POLICIES, Point, point
from simtti.words import number, percent

NOT_RUN = "not run"


class Finding(NamedTuple):
    """met: None where it was not run, or is shown without a bound. span: what it comes to under other assumptions or accounts.
    measured: what captures of real inferences say of it, and predicted: the simulator of the same ones (`beside`)."""

    finding: str
    source: str
    wanted: str
    came_out: str
    span: str
    met: bool | None
    measured: str = ""
    predicted: str = ""


def findings(found: Mapping[Point, dict[str, Any]], plan: Plan, hardware: Hardware) -> list[Finding]:
    shares, gains = operators.shares(found, plan), operators.gains(found, plan)
    pairs = operators.pairs(gains, plan)
    both = [
        (_convolution(found, shares, plan), beside.convolution(found, plan)),
        (_linear(shares, plan), beside.linear(found, plan)),
        *((_gain(pairs, plan, measure, words), beside.gain(found, plan, measure)) for measure, words in (
            ("end_to_end", "end to end"), ("attention_module", "in attention modules"),
        )),
        (_lengths(found, plan), beside.lengths(found, plan)),
        *((_temporal_time(found, plan, name), beside.temporal_time(found, plan, name)) for name in reversed(POLICIES)),
        *((_temporal_share(found, plan, name), beside.temporal_share(found, plan, name)) for name in reversed(POLICIES)),
        (_temporal_growth(found, plan), beside.temporal_growth(found, plan)),
        (_l1(found, plan), beside.l1(counters.hit_rates() if plan.captured else [])),
        (_memory(found, plan), beside.Beside()),
        (_intensity(found, plan, hardware), beside.Beside()),
    ]  # fmt: skip
    return [finding._replace(**captures._asdict()) for finding, captures in both]


def _missing(finding: str, source: str, wanted: str) -> Finding:
    return Finding(finding, source, wanted, NOT_RUN, "", None)


def _span(values: list[float], form: Any = number) -> str:
    return f"{form(min(values))} to {form(max(values))}"


def _largest(
    shares: Rows, workloads: tuple[str, ...], category: str, account: str, field: str = "share"
) -> dict[str, Any] | None:
    rows = [
        row for row in shares
        if row["workload"] in workloads and (row["attention"], row["account"], row["category"]) == ("flash", account, category)
    ]  # fmt: skip
    return max(rows, key=lambda row: row[field], default=None)


def _leader(shares: Rows, workload: str, account: str) -> str:
    rows = [
        r for r in shares if (r["workload"], r["attention"], r["account"]) == (workload, "flash", account)
    ]
    return str(max(rows, key=lambda row: row["time_s"])["category"])


def _convolution(found: Mapping[Point, dict[str, Any]], shares: Rows, plan: Plan) -> Finding:
    said = (
        "convolution's share after Flash Attention, diffusion TTI", "up to 44 %",
        "largest 36 to 52 %, and convolution the largest category of Stable Diffusion",
    )  # fmt: skip
    top = _largest(shares, plan.diffusion, "Convolution", "modules")
    first = plan.diffusion[0]
    if top is None or not any(row["workload"] == first for row in shares):
        return _missing(*said)
    each = [
        f"{w} {percent(row['share'])}"
        for w in plan.diffusion
        if (row := _largest(shares, (w,), "Convolution", "modules"))
    ]
    eager = [
        row["of_eager_latency"]
        for w in plan.diffusion
        if (row := _largest(shares, (w,), "Convolution", "modules"))
    ]
    leads = _leader(shares, first, "modules")
    phases = [
        phase["modules"].get("Convolution", 0.0) / phase["kernel_s"]
        for phase in found[point("run", top["workload"])]["flash"]["phases"].values()
        if phase["kernel_s"] > 0.02 * top["time_s"] / top["share"]
    ]
    return Finding(
        *said, f"{percent(top['share'])} ({top['workload']}); largest of {first}: {leads}",
        f"{', '.join(each)}; of the latency with the host's time {_span(eager, percent)}; {top['workload']} by phase "
        f"{_span(phases, percent)}, which bounds it for any number of steps of each",
        0.36 <= top["share"] <= 0.52 and leads == "Convolution",
    )  # fmt: skip


def _linear(shares: Rows, plan: Plan) -> Finding:
    said = (
        "linear's share after Flash Attention, transformer TTI", "up to 49 %",
        "largest 40 to 60 %, and linear the largest category",
    )  # fmt: skip
    top = _largest(shares, plan.transformer, "Linear", "modules")
    if top is None:
        return _missing(*said)
    leads = _leader(shares, top["workload"], "modules")
    both = [
        f"{w} {percent(_largest(shares, (w,), 'Linear', 'modules')['share'])} by module, "  # type: ignore[index]
        f"{percent(_largest(shares, (w,), 'Linear', 'operators')['share'])} by operator"  # type: ignore[index]
        for w in (*plan.transformer, *(asked.label for asked in plan.other_sizes))
        if _largest(shares, (w,), "Linear", "modules")
    ]  # fmt: skip
    return Finding(
        *said, f"{percent(top['share'])} ({top['workload']}), whose largest category is {leads}", "; ".join(both),
        0.40 <= top["share"] <= 0.60 and leads == "Linear",
    )  # fmt: skip


def _gain(pairs: Rows, plan: Plan, measure: str, words: str) -> Finding:
    said = (
        f"Flash Attention's gain {words}, diffusion over transformer",
        "1.1 to 2.5 times",
        "every pair 1.0 to 3.0",
    )
    if not pairs:
        return _missing(*said)
    values = [row[measure] for row in pairs if row["transformer"] in plan.transformer]
    each = ", ".join(f"{row['diffusion']} over {row['transformer']} {number(row[measure])}" for row in pairs)
    others: dict[str, list[float]] = {}
    for row in pairs:
        if row["transformer"] not in plan.transformer:
            others.setdefault(row["transformer"], []).append(row[measure])
    came_out = "; ".join([_span(values), *(f"over {name} {_span(mine)}" for name, mine in others.items())])
    return Finding(*said, came_out, each, all(1.0 <= value <= 3.0 for value in values))


def _lengths(found: Mapping[Point, dict[str, Any]], plan: Plan) -> Finding:
    said = (
        "sequence length within a diffusion step",
        "varies up to 4x",
        "4 between neighbouring levels of a UNet, from the modules",
    )
    rows = {row["workload"]: row for row in sequences.variation(found, plan)}
    own = [rows[name] for name in plan.diffusion if name in rows]
    if not own:
        return _missing(*said)
    largest = max(row["neighbours"] for row in own)
    each = ", ".join(f"{row['workload']} {number(row['range'])}" for row in own)
    return Finding(
        *said, f"{number(largest)} between neighbours", f"whole range of a pass: {each}", largest == 4.0
    )


def _decoder(found: Mapping[Point, dict[str, Any]], plan: Plan, policy: str) -> dict[str, Any] | None:
    out = found.get(plan.decoder.point)
    rows = video.comparison("", out) if out and "error" not in out else []
    return next((row for row in rows if row["attention"] == policy), None)


WITH = {"baseline": "baseline attention", "flash": "Flash Attention"}


def _temporal_time(found: Mapping[Point, dict[str, Any]], plan: Plan, policy: str) -> Finding:
    said = (
        f"temporal over spatial attention, Make-A-Video, {WITH[policy]}", "2x the time (second-hand)",
        "1.5 to 3 times the time, with fewer FLOPs",
    )  # fmt: skip
    row = _decoder(found, plan, policy)
    if row is None:
        return _missing(*said)
    ranges = [entry for entry in video.assumed(found, plan) if entry["attention"] == policy]
    spans = [
        f"{account} {_span([entry[f'{account}_ratio'] for entry in ranges])}" for account in video.ACCOUNTS
    ]
    whole = ", ".join(
        f"{entry['what']} {number(entry['copies_ratio'])} times, {number(entry['flops_ratio'])} of the FLOPs"
        for entry in video.whole_assumed(found, plan)
        if entry["attention"] == policy
    )
    return Finding(
        *said,
        f"{number(row['copies_ratio'])} times (modules and copies), {number(row['flops_ratio'])} of the FLOPs",
        f"kernels {number(row['kernel_ratio'])}, modules {number(row['module_ratio'])}; over all assumptions: {', '.join(spans)}; "
        f"whole inference: {whole}",
        1.5 <= row["copies_ratio"] <= 3 and row["flops_ratio"] < 1,
    )  # fmt: skip


def _temporal_share(found: Mapping[Point, dict[str, Any]], plan: Plan, policy: str) -> Finding:
    said = (f"temporal share of attention time in TTV, {WITH[policy]}", "over 60 %", "over 50 %")
    row = _decoder(found, plan, policy)
    if row is None:
        return _missing(*said)
    others = [
        f"{entry['what']} {percent(entry['copies_share'])}"
        for entry in (*video.systems(found, plan), *video.whole_assumed(found, plan))
        if entry["attention"] == policy
    ]
    return Finding(
        *said, f"{percent(row['copies_share'])} (Make-A-Video's decoder, modules and copies)",
        f"whole inferences: {', '.join(others)}", row["copies_share"] > 0.5,
    )  # fmt: skip


def _temporal_growth(found: Mapping[Point, dict[str, Any]], plan: Plan) -> Finding:
    said = ("temporal attention against frames", "grows fastest", "superlinear, crossover shown")
    rows = [
        r for r in video.growth(video.over(found, plan, "frames"), "frames") if r["attention"] == "baseline"
    ]
    by_account = {row["account"]: row for row in rows}
    if "kernel" not in by_account:
        return _missing(*said)
    kernel, flops = by_account["kernel"], by_account["flops"]
    crossings = [
        f"{account} {number(row['crossover'])}" for account, row in by_account.items() if row["crossover"]
    ]
    return Finding(
        *said,
        f"frames^{number(kernel['temporal_exponent'])} against spatial's frames^{number(kernel['spatial_exponent'])} (kernels, "
        "baseline)",
        f"FLOPs frames^{number(flops['temporal_exponent'])}; overtakes spatial at frames: {', '.join(crossings)}",
        kernel["temporal_exponent"] > 1 and kernel["temporal_exponent"] > kernel["spatial_exponent"] and bool(crossings),
    )  # fmt: skip


def _l1(found: Mapping[Point, dict[str, Any]], plan: Plan) -> Finding:
    said = (
        "L1 hit rate, temporal against spatial GEMM and softmax",
        "far lower",
        "at least 3 times lower, both",
    )
    rows = [row for row in video.l1_ratios(video.classes(found, plan)) if row["layout"] == "copied"]
    own = {row["class"]: row for row in rows if row["what"] == plan.decoder.caches.label}
    if not {"GEMM", "softmax"} <= set(own):
        return _missing(*said)

    def words(row: dict[str, Any]) -> str:
        return f"{row['class']} {percent(row['spatial'])} to {percent(row['temporal'])}"

    met = all((own[kind]["ratio"] or 0) >= 3 for kind in ("GEMM", "softmax"))
    labels = {assumption.caches.label: assumption.label for assumption in plan.assumptions}
    others = [
        f"{labels.get(row['what'], row['what'])}: {words(row)}"
        for row in rows if row["what"] != plan.decoder.caches.label and row["class"] != "elementwise"
    ]  # fmt: skip
    return Finding(*said, ", ".join(words(own[kind]) for kind in ("GEMM", "softmax")), "; ".join(others), met)


def _memory(found: Mapping[Point, dict[str, Any]], plan: Plan) -> Finding:
    said = (
        "attention's memory against the image's side",
        "fourth power (second-hand)",
        "exponent 3.9 to 4.1 of the largest layer",
    )
    rows = image_sizes.memory(found, plan)
    if len(rows) < 2:
        return _missing(*said)
    power = slope(rows, "side", "largest_bytes")
    crossed = [
        f"{row['attention']}, {row['account']}: {number(row['side']) if row['side'] else 'nowhere'}"
        for row in image_sizes.crossings(image_sizes.times(found, plan))
    ]
    return Finding(
        *said,
        number(power),
        f"attention overtakes convolution at pixels: {'; '.join(crossed)}",
        3.9 <= power <= 4.1,
    )


def _intensity(found: Mapping[Point, dict[str, Any]], plan: Plan, hardware: Hardware) -> Finding:
    said = ("arithmetic intensity, diffusion TTI over decoding of text", "up to 100 times (second-hand)", "")
    ratio = roofline.decode_ratio(roofline.placements(found, plan, hardware), plan)
    if ratio is None:
        return _missing(*said)
    return Finding(
        *said,
        f"{number(ratio)} times",
        "shown, not judged: what the study counts as bytes is not known",
        None,
    )
