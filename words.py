"""Numbers and times as people read them: one word for one thing, on the terminal, in reports and in errors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_MINUTES_FROM_S = 600.0  # below, seconds say it in three figures
_KWH_FROM_J = 3.6e5


def joules(value: float) -> str:
    """An energy, in kWh beside where it is a tenth of one or more.

    >>> joules(232.4), joules(1710783)
    ('232 J', '1,710,783 J (0.475 kWh)')
    """
    return f"{value:,.0f} J" + (f" ({value / 3.6e6:.3g} kWh)" if value >= _KWH_FROM_J else "")


def seconds(value: float) -> str:
    """A time with the unit that keeps three figures, '' for NaN.

    >>> seconds(0.0123)
    '12.3 ms'
    >>> seconds(3439)
    '57 min'
    """
    if value != value:
        return ""
    if value >= _MINUTES_FROM_S:
        return f"{value / 60:.0f} min" if value < 100 * 60 else f"{value / 3600:.3g} h"
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if value >= scale:
            return f"{value / scale:.3g} {unit}" if value / scale < 1000 else f"{value / scale:.0f} {unit}"
    return f"{value * 1e9:.3g} ns"


def percent(value: float, digits: int = 1) -> str:
    """'6.5 %', '' for NaN."""
    return f"{100 * value:.{digits}f} %" if value == value else ""


def signed(value: float, digits: int = 1) -> str:
    """'+6.5 %', '' for NaN."""
    return f"{100 * value:+.{digits}f} %" if value == value else ""


def number(value: float) -> str:
    """Three significant digits: '12.3', '1,230', '0.00123'."""
    if value != value:
        return ""
    if value and not 1e-3 <= abs(value) < 1e6:
        return f"{value:.3g}"
    whole = len(str(int(abs(value)))) if abs(value) >= 1 else 0
    return f"{value:,.{max(0, 3 - whole)}f}" if whole else f"{value:.3g}"


def count(value: int) -> str:
    """'1,230'."""
    return f"{value:,}"


def whole(value: float | None) -> str:
    """'1230', '' for None and NaN: a column that a gap has made floats."""
    return "" if value is None or value != value else f"{value:.0f}"


def gib(nbytes: float, digits: int = 1) -> str:
    """Bytes of memory: '12.3 GiB'."""
    return f"{nbytes / 2**30:.{digits}f} GiB"


def plain(text: str) -> str:
    """`text` without what a terminal or a file could take for anything but text: control characters and lone surrogates are
    spelled out.

    >>> plain("a" + chr(27) + "[2Jb")
    'a\\\\x1b[2Jb'
    """
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


def joined(items: list[str]) -> str:
    """'a, b and c'."""
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + " and " + items[-1]


def inference_shape(options: Mapping[str, Any]) -> str:
    """An inference's shape in a few words.

    >>> inference_shape({"height": 512, "width": 768, "batch": 2, "steps": 30, "dtype": "fp16"})
    '512x768, batch 2, 30 steps, fp16'
    """
    words = {
        "frames": "{} frames",
        "batch": "batch {}",
        "steps": "{} steps",
        "prompt_tokens": "{} prompt tokens",
        "dtype": "{}",
        "quantization": "{}",
        "strength": "strength {}",
        "guided": "guided {}",
        "cache": "{}",
        "cache_hits": "{} hits",
        "lora": "LoRA of rank {}",
        "guidance": "guidance {}",
        "vae": "VAE {}",
        "offload": "offload {}",
    }
    size = [f"{options['height']}x{options['width']}"] if "height" in options and "width" in options else []
    return ", ".join(
        size + [text.format(options[name]) for name, text in words.items() if options.get(name) is not None]
    )


# What time is limited by (closed_form.bottleneck, Result.bottlenecks, a result's gaps).
BOUNDS = {
    "tensor": "tensor cores", "fp32": "FP32 units", "issue": "instruction issue", "sfu": "special functions", "shared": "shared memory",
    "l2_port": "SM's port to L2", "l2": "L2 bandwidth", "hbm": "HBM bandwidth", "link": "link", "copy": "copies over the host's link",
    "latency": "latency", "launch": "launch gaps", "host": "waiting for the host", "Launch": "launch gaps", "Host-idle": "waiting for the host",
}  # fmt: skip

# The unit that an identifier ends with, the longest ending first, and how it is read; '' for one that is said by the name alone.
_ENDINGS = (
    ("_bytes_per_cycle_sm", "bytes a cycle and SM"), ("_flops_per_cycle_sm", "FLOPs a cycle and SM"), ("_ops_per_cycle_sm", "a cycle and SM"),
    ("_bytes_per_s", "bytes/s"), ("_j_per_output", "J an output"), ("_per_s", "a second"), ("_bytes", "bytes"), ("_mm2", "mm²"), ("_usd", "US$"),
    ("_hz", "Hz"), ("_w", "W"), ("_j", "J"), ("_s", "s"),
)  # fmt: skip
_PER = {
    "perf_per_w": "throughput per W",
    "perf_per_mm2": "throughput per mm²",
    "perf_per_usd": "throughput per US$",
}
_CAPITALS = {
    name.lower(): name
    for name in ("HBM", "L1", "L2", "SM", "SMs", "GPU", "GPUs", "FP32", "FP16", "FP8", "FP4", "TF32", "INT8", "INT4", "SFU", "CTAs", "CFG",
                 "VAE", "LoRA", "CUDA", "PyTorch")
}  # fmt: skip


def label(identifier: str) -> str:
    """An identifier as people say it, with its unit; a workload behind a dot in brackets.

    >>> label("latency_s"), label("hbm_bytes_per_s"), label("text_encoder"), label("latency_s.sdxl"), label("perf_per_w")
    ('latency, s', 'HBM, bytes/s', 'text encoder', 'latency (sdxl), s', 'throughput per W')
    """
    name, dot, of = identifier.partition(".")
    unit = ""
    if name in _PER:
        name = _PER[name]
    for ending, reads in _ENDINGS:
        if name.endswith(ending) and name != ending:
            name, unit = name.removesuffix(ending), f", {reads}"
            break
    said = " ".join(_CAPITALS.get(word.lower(), word) for word in name.split("_") if word)
    return said + (f" ({of.replace('_', ' ')})" if dot else "") + unit


def si(value: float, unit: str) -> str:
    """A quantity with the prefix that keeps it short.

    >>> si(3.35e12, "B/s"), si(0.0, "FLOP"), si(512.0, "FLOP/B")
    ('3.35 TB/s', '0 FLOP', '512 FLOP/B')
    """
    for prefix, scale in (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= scale:
            return f"{value / scale:.3g} {prefix}{unit}"
    return f"{value:.3g} {unit}"
