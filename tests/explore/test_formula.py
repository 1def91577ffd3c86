"""Formulas: arithmetic and nothing else."""

import pytest

from simtti.errors import InputError
from simtti.explore import formula


def test_formulas_are_arithmetic():
    values = {"sm_count": 60.0, "base.sm_count": 120.0}
    assert formula.evaluate("2 * sm_count / base.sm_count", values) == 1.0
    assert formula.evaluate("min(ceil(sm_count / 7), 8) ** 2", values) == 64.0
    assert formula.names("a + base.b * max(c, 1)") == {"a", "base.b", "c"}


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "(1).__class__",
        "sm_count.real",
        "open('x')",
        "[1][0]",
        "lambda: 1",
        "sm_count if 1 else 2",
        "9 ** 9 ** 9",
        "1 / 0",
        "1e308 * 10",
        "f'{sm_count}'",
        "sm_count +",
        "min(sm_count, key=open)",
        "1 +" * 400 + "1",
    ],
)
def test_formulas_are_nothing_but_arithmetic(text):
    with pytest.raises(InputError, match="formula"):
        formula.evaluate(text, {"sm_count": 2.0})
