"""Arithmetic over named numbers: the formulas that tie a design's parameters. Nothing else can be written in them."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping

from simtti.errors import InputError

_BINARY: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
_UNARY: dict[type[ast.unaryop], Callable[[float], float]] = {ast.UAdd: operator.pos, ast.USub: operator.neg}
FUNCTIONS: dict[str, Callable[..., float]] = {
    "min": min,
    "max": max,
    "round": round,
    "floor": math.floor,
    "ceil": math.ceil,
    "sqrt": math.sqrt,
    "log2": math.log2,
}
_LONGEST = 500  # characters


def names(text: str) -> set[str]:
    """The names a formula uses; `base.clock_hz` is one.

    Raises:
        InputError: it is not a formula.

    >>> sorted(names("2 * clock_hz * base.sm_count"))
    ['base.sm_count', 'clock_hz']
    """
    found: set[str] = set()

    def value(name: str) -> float:
        found.add(name)
        return 1.0

    try:
        _walk(_parse(text), value, text)
    except (ArithmeticError, TypeError) as error:
        raise InputError(f"formula {text!r}: {error}") from None
    return found


def evaluate(text: str, values: Mapping[str, float]) -> float:
    """The number a formula gives.

    Raises:
        InputError: it is not a formula, uses an unknown name, or has no finite value.

    >>> evaluate("max(2 * sm_count, 100) / 4", {"sm_count": 60})
    30.0
    """

    def value(name: str) -> float:
        if name not in values:
            raise InputError(f"formula {text!r}: unknown name {name!r}")
        return values[name]

    try:
        number = float(_walk(_parse(text), value, text))
    except (ArithmeticError, ValueError, TypeError) as error:
        raise InputError(f"formula {text!r}: {error}") from None
    if not math.isfinite(number):
        raise InputError(f"formula {text!r}: its value is {number}")
    return number


def _parse(text: str) -> ast.expr:
    if len(text) > _LONGEST:
        raise InputError(f"formula of {len(text)} characters; at most {_LONGEST} are allowed")
    try:
        return ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError):
        raise InputError(
            f"formula {text!r} is not arithmetic (numbers, names, + - * / and brackets)"
        ) from None


def _walk(node: ast.expr, value: Callable[[str], float], text: str) -> float:
    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            return number
        case ast.Name(id=name):
            return value(name)
        case ast.Attribute(value=ast.Name(id="base"), attr=name):
            return value(f"base.{name}")
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            first, second = _walk(left, value, text), _walk(right, value, text)
            if isinstance(op, ast.Pow) and abs(second) > 64:
                raise InputError(f"formula {text!r}: the power {second} is too large")
            return _BINARY[type(op)](float(first), float(second))
        case ast.UnaryOp(op=op, operand=operand) if type(op) in _UNARY:
            return _UNARY[type(op)](_walk(operand, value, text))
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in FUNCTIONS:
            return FUNCTIONS[name](*(_walk(argument, value, text) for argument in arguments))
    allowed = f"numbers, names, + - * / // % ** and {', '.join(FUNCTIONS)}"
    raise InputError(f"formula {text!r}: {ast.unparse(node)!r} is not allowed; only {allowed}")
