"""Arithmetic that is written as a text, with numbers from links."""

from __future__ import annotations

import ast
import math
import operator
import string

from comfy_api.latest import ComfyExtension, io

LONGEST_EXPRESSION = 10_000  # characters
LONGEST_INTEGER_BITS = 16_384  # of any step: what is longer is no float any more, and takes ever more time
LARGEST_EXPONENT = 4000


class ExpressionRefused(ValueError):
    """The text is no formula, or its value cannot be computed."""


def _integer_bits(*values):
    return [abs(value).bit_length() for value in values if isinstance(value, int)]


def _bounded(bits):
    if bits > LONGEST_INTEGER_BITS:
        raise ExpressionRefused(f"a whole number gets longer than {LONGEST_INTEGER_BITS} bits")


def _times(a, b):
    _bounded(sum(_integer_bits(a, b)))
    return a * b


def _power(base, exponent):
    if abs(exponent) > LARGEST_EXPONENT:
        raise ExpressionRefused(f"the exponent {exponent} is beyond {LARGEST_EXPONENT}")
    if isinstance(exponent, int):
        _bounded(max(_integer_bits(base), default=0) * abs(exponent))
    return base**exponent


def _shift_left(value, places):
    _bounded(max(_integer_bits(value), default=0) + max(places, 0))
    return value << places


def _sum(*values):
    return sum(values[0] if len(values) == 1 and isinstance(values[0], list) else values)


def _round(value, places=None):
    if places is not None and abs(places) > LARGEST_EXPONENT:
        raise ExpressionRefused(f"round() to {places} places is beyond {LARGEST_EXPONENT}")
    return round(value, places)


FUNCTIONS = {
    "abs": abs,
    "ceil": math.ceil,
    "cos": math.cos,
    "float": float,
    "floor": math.floor,
    "int": int,
    "log": math.log,
    "log10": math.log10,
    "log2": math.log2,
    "max": max,
    "min": min,
    "pow": _power,
    "round": _round,
    "sin": math.sin,
    "sqrt": math.sqrt,
    "sum": _sum,
    "tan": math.tan,
}
BOUNDED_OPERATORS = {
    ast.Mult: _times,
    ast.Pow: _power,
    ast.LShift: _shift_left,
    ast.RShift: operator.rshift,
}
REFUSED_SYNTAX = (ast.Attribute, ast.JoinedStr, ast.Lambda)


def _parsed(expression):
    if len(expression) > LONGEST_EXPRESSION:
        raise ExpressionRefused(f"it has {len(expression)} characters; {LONGEST_EXPRESSION} are the most")
    tree = ast.parse(expression.strip(), mode="eval")
    for node in ast.walk(tree):
        is_text = isinstance(node, ast.Constant) and not isinstance(node.value, (int, float))
        if is_text or isinstance(node, REFUSED_SYNTAX):
            raise ExpressionRefused("only numbers, names, operators and functions may stand in it")
        if isinstance(node, ast.Constant):
            _bounded(max(_integer_bits(node.value), default=0))
    return tree.body


def compute(expression, names):
    """The value of a formula. `names` are numbers or lists of them. ExpressionRefused tells what is wrong.

    Time and memory are bounded: no loops, no texts, whole numbers of a limited length.
    """
    import simpleeval

    try:
        evaluator = simpleeval.SimpleEval(
            operators={**simpleeval.DEFAULT_OPERATORS, **BOUNDED_OPERATORS}, functions=FUNCTIONS, names=names
        )
        value = evaluator.eval(expression, previously_parsed=_parsed(expression))
    except ExpressionRefused:
        raise
    except (SyntaxError, RecursionError, MemoryError) as error:
        raise ExpressionRefused(f"it cannot be read ({error})") from error
    except (ArithmeticError, ValueError, TypeError, LookupError, simpleeval.InvalidExpression) as error:
        raise ExpressionRefused(str(error) or type(error).__name__) from error
    if not isinstance(value, (int, float)):
        raise ExpressionRefused(f"its value is a {type(value).__name__}, not a number")
    return value


class MathExpressionNode(io.ComfyNode):
    """The value of a formula."""

    @classmethod
    def define_schema(cls):
        number = io.MultiType.Input("value", [io.Float, io.Int, io.Boolean])
        many = io.Autogrow.TemplateNames(number, names=list(string.ascii_lowercase), min=1)
        return io.Schema(
            node_id="ComfyMathExpression",
            display_name="Math Expression",
            category="utilities",
            description=f"Computes a formula of the values a, b, c, ... Functions: {', '.join(FUNCTIONS)}; "
            "`values` is the list of all values.",
            search_aliases=["expression", "formula", "calculate", "calculator", "eval", "math"],
            inputs=[
                io.String.Input(
                    "expression", default="a + b", multiline=True, tooltip="Such as: min(a, b) * 2 ** 0.5"
                ),
                io.Autogrow.Input("values", many),
            ],
            outputs=[
                io.Float.Output(display_name="FLOAT"),
                io.Int.Output(display_name="INT", tooltip="The value without what follows the point."),
                io.Boolean.Output(display_name="BOOL", tooltip="False for 0."),
            ],
        )

    @classmethod
    def execute(cls, expression, values):
        if not expression.strip():
            raise ValueError("The expression is empty. Write a formula, such as: a + b")
        given = {name: value for name, value in values.items() if value is not None}
        try:
            value = compute(expression, {**given, "values": list(given.values())})
            number = float(value)
            if not math.isfinite(number):
                raise ExpressionRefused(f"its value is {number}")
        except (ExpressionRefused, OverflowError) as error:
            shown = expression if len(expression) <= 200 else expression[:200] + "..."
            raise ValueError(
                f"The expression {shown!r} with {given} cannot be computed: {error}. "
                f"It may use + - * / // % **, comparisons, and/or/not, if/else, and {', '.join(FUNCTIONS)}."
            ) from error
        return io.NodeOutput(number, int(value), bool(value))


class MathExtension(ComfyExtension):
    """The nodes of this topic."""

    async def get_node_list(self):
        return [MathExpressionNode]


def comfy_entrypoint():
    return MathExtension()
