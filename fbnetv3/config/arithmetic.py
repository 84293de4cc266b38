"""Arithmetic in a yaml file, evaluated without running code.

detectron2's RetinaNet configs give their anchors as ``!!python/object/apply:eval``, which yaml's
unsafe loader would pass to Python's ``eval``. This evaluator only knows numbers, lists, tuples
(which it reads as lists), the operators + - * / // % ** and list comprehensions without conditions,
and takes a bounded number of steps.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Iterator, Mapping
from typing import Any

_OPERATORS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    # Computed in floats, because an integer power such as 9 ** 9 ** 9 would exhaust the memory.
    ast.Pow: lambda x, y: float(x) ** y,
    ast.USub: operator.neg,
}
_MAX_MAGNITUDE = 2.0**64  # largest absolute value of a number in an expression or of a result
_MAX_CHARACTERS = 1_000  # very long expressions can crash Python's parser
_MAX_STEPS = 10_000  # nested comprehensions could otherwise exhaust the memory


def evaluate(text: str) -> Any:
    """Returns the value of an expression of numbers and lists.

    Args:
        text: The expression, such as ``[x * 2 ** (1 / 3) for x in [32, 64]]``.

    Raises:
        ValueError: The expression has other parts (calls, strings, names of anything but loop
            variables), is too long, takes too many steps, has or yields too large a number, or
            cannot be evaluated.
    """
    if len(text) > _MAX_CHARACTERS:
        raise ValueError(
            f"an expression has {len(text)} characters; allowed: at most {_MAX_CHARACTERS}"
        )
    try:
        return _value(ast.parse(text.strip(), mode="eval").body, {}, iter(range(_MAX_STEPS)))
    except (SyntaxError, ArithmeticError, RecursionError, MemoryError, TypeError) as error:
        raise ValueError(f"{text!r} cannot be evaluated: {error}") from error


def _value(node: ast.expr, names: Mapping[str, Any], steps: Iterator[int]) -> Any:
    if next(steps, None) is None:
        raise ValueError(
            f"an expression takes more than {_MAX_STEPS} steps to evaluate; write its value instead"
        )
    match node:
        case ast.Constant(value=int() | float() as number):
            return _number(number)
        case ast.Name(id=name) if name in names:
            return names[name]
        case ast.List(elts=items) | ast.Tuple(elts=items):
            return [_value(item, names, steps) for item in items]
        case ast.UnaryOp(op=ast.USub(), operand=x):
            return -_number(_value(x, names, steps))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            sides = (_number(_value(side, names, steps)) for side in (left, right))
            return _number(_OPERATORS[type(op)](*sides))
        case ast.ListComp(elt=item, generators=[ast.comprehension() as loop]) if not loop.ifs:
            name, values = _loop_name(loop), _value(loop.iter, names, steps)
            return [_value(item, {**names, name: x}, steps) for x in values]
    raise ValueError(
        f"{ast.unparse(node)!r} is not supported; allowed: numbers, lists, "
        "+ - * / // % ** and list comprehensions"
    )


def _number(value: Any) -> float:
    # Lists are rejected as operands, because [0] * 10**9 would exhaust the memory.
    if not isinstance(value, (int, float)) or abs(value) > _MAX_MAGNITUDE:
        raise ValueError(
            f"{str(value)[:40]} is not a number of magnitude at most {_MAX_MAGNITUDE:g}"
        )
    return value


def _loop_name(loop: ast.comprehension) -> str:
    if not isinstance(loop.target, ast.Name):
        raise ValueError(f"{ast.unparse(loop.target)!r} is not a single loop variable")
    return loop.target.id
