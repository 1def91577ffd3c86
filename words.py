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
