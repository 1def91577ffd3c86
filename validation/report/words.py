"""Numbers as reports say them."""

from __future__ import annotations

from simtti.validation.report.document import Cell

# Bias beyond which a group of rows is marked, and a MAPE beyond which it is not to be trusted.
BIAS_LIMIT = 0.05
MAPE_LIMIT = 0.15


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
    return f"{value:,}"


def error_cell(value: float) -> Cell:
    return Cell(percent(value), "bad" if value > MAPE_LIMIT else "")


def bias_cell(value: float) -> Cell:
    return Cell(signed(value), "bad" if abs(value) > BIAS_LIMIT else "")


def joined(items: list[str]) -> str:
    """'a, b and c'."""
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + " and " + items[-1]
