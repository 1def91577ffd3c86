"""Whole numbers as they follow from the shape of an inference: sums of products of batch, height, width, frames.

    basis = Basis(("batch", "height"), [(1, 8), (2, 8), (3, 12), (5, 16)])
    basis.fit([512, 1024, 2304, 5120])      # [64, 3]: 64 x monomial number 3, batch x height
    at([64, 3], powers(("batch", "height"), (7, 20)))    # 8960

An expression is an int, or a flat list of coefficients and numbers of monomials. Coefficients are whole numbers, so that few points tell an
expression from a coincidence: one more than it has terms are asked for at least. Needs no torch.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

Expression: TypeAlias = "int | list[int]"
# Terms of an expression: (height + 2) x (width + 2) has four.
MOST_TERMS = 4
_MOST_SETS = 40_000  # of monomials tried of one size
_SIDES = ("height", "width")
_OF_BOTH = ("longer", "filled")  # what follows from both sides


class NotExact(Exception):  # noqa: N818
    """What is recorded at several shapes does not follow from them in the ways that are known."""


@functools.cache
def monomials(names: tuple[str, ...]) -> tuple[tuple[int, ...], ...]:
    """The exponents of each product that an expression may have as a term, by degree: of each variable once or not at all; of frames,
    of a prompt's tokens and of height and width together, also twice, as attention's scores have them. Of "height" and "height rest" one or the other, and
    what is left twice also of one side."""
    of = [name.partition(" ")[0] for name in names]
    most = [2 if name in (*_SIDES, "frames", "prompt_tokens") else 1 for name in of]
    found = []
    for exponents in itertools.product(*(range(each + 1) for each in most)):
        terms: dict[str, list[int]] = {}
        for name, power in zip(of, exponents, strict=True):
            terms.setdefault(name, []).append(power)
        of_sides = {sum(terms[side]) for side in _SIDES if side in terms}
        # Of a tile as high as all and less wide, what is left squared is that of one side.
        alone = of_sides == {0, 2} and any(terms[side][-1] == 2 for side in _SIDES if len(terms[side]) > 1)
        if (
            any(each.count(0) < len(each) - 1 for each in terms.values())
            or (2 in of_sides and len(of_sides) > 1 and not alone)
            or (any(sum(terms.get(name, ())) for name in _OF_BOTH) and any(of_sides))
        ):
            continue
        found.append(exponents)
    return tuple(sorted(found, key=lambda each: (sum(each), [-power for power in each])))


def powers(names: Sequence[str], values: Sequence[int]) -> list[int]:
    """Each monomial's value where the variables have these."""
    return [
        math.prod(value**power for value, power in zip(values, exponents, strict=True))
        for exponents in monomials(tuple(names))
    ]


def at(expression: Expression, values: Sequence[int]) -> int:
    """An expression's value where the monomials have these."""
    if isinstance(expression, int):
        return expression
    return sum(c * values[m] for c, m in zip(expression[::2], expression[1::2], strict=True))


class Basis:
    """Finds expressions in named variables from their values at some points."""

    def __init__(self, names: Sequence[str], points: Sequence[Sequence[int]]) -> None:
        self.table = np.array([powers(names, point) for point in points], dtype=np.int64)
        # Of monomials that are alike at all points, the one of the lowest degree.
        _, first = np.unique(self.table, axis=1, return_index=True)
        self.used = [int(each) for each in sorted(first) if self.table[:, each].any()]
        self._solvers: list[tuple[np.ndarray, np.ndarray]] = []
        self._known: dict[tuple[int, ...], Expression | None] = {}

    def fit(self, values: Sequence[int]) -> Expression:
        """The expression of the fewest terms, and of those the lowest degrees, that has these values at the points.

        Raises:
            NotExact: none has.
        """
        key = tuple(values)
        if key not in self._known:
            self._known[key] = self._fit(key)
        found = self._known[key]
        if found is None:
            raise NotExact(f"no sum of products has the values {str(list(key))[:160]}")
        return found

    def _fit(self, values: tuple[int, ...]) -> Expression | None:
        if len(set(values)) == 1:
            return values[0]
        exact = np.array(values, dtype=np.int64)
        for terms in range(1, MOST_TERMS + 1):
            if len(self.table) <= terms or len(self.used) < terms:
                return None
            sets, solver = self._of(terms)
            coefficients = np.rint(solver @ exact.astype(np.float64))
            fine = np.all((np.abs(coefficients) < 2.0**50) & (coefficients != 0), axis=1)
            for chosen, numbers in zip(sets[fine], coefficients[fine], strict=True):
                whole = numbers.astype(np.int64)
                if np.array_equal(self.table[:, chosen] @ whole, exact):
                    return [int(each) for pair in zip(whole, chosen, strict=True) for each in pair]
        return None

    def _of(self, terms: int) -> tuple[np.ndarray, np.ndarray]:
        """Sets of so many monomials that the points tell apart, and what gives each one's coefficients."""
        while len(self._solvers) < terms:
            size = len(self._solvers) + 1
            used = self.used
            while math.comb(len(used), size) > _MOST_SETS:
                used = used[:-1]  # those of the highest degree
            sets = np.array(list(itertools.combinations(used, size)))
            scale = self.table.max(axis=0).astype(np.float64)
            scaled = (self.table / np.where(scale > 0, scale, 1))[:, sets].transpose(1, 0, 2)
            fine = np.linalg.matrix_rank(scaled, tol=1e-9) == size
            sets, scaled = sets[fine], scaled[fine]
            self._solvers.append((sets, np.linalg.pinv(scaled) / scale[sets][:, :, None]))
        return self._solvers[terms - 1]
