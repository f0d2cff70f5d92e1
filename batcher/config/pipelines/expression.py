"""The language of conditions: `when: max(small.scores) < 0.9 and tag == "new"`.

A condition says for each row whether a step gets that row. Python's own parser makes a tree of the
text; the tree is never run. Only the nodes below are taken over, each into a value of this file.
Whatever else the text holds (calls of other names, attributes of attributes, lambdas, indexing of
names) is refused with the text that was found.

    value       what it stands for, for each row
    ---------   ----------------------------------------------------------------
    0.9, "new"  a number, or a text
    true, false a truth value
    tag         the request's input `tag`; it has one value a row
    a.scores    the output `scores` of the step `a`
    max(a.x)    one number of all values of a row; so min, sum, mean, argmax
    len(a.x)    the size of a row's first axis: how many boxes were found
    abs(x)      the number without its sign
    x[3]        one element of a row with one axis

They are joined by `+ - * /`, compared by `< <= == != >= >`, and comparisons are joined by `and`,
`or` and `not`. A comparison with NaN is false, but for `!=`.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches

REDUCTIONS = ("max", "min", "sum", "mean", "argmax", "len")
"""Functions that make one number of all values of a row."""

FUNCTIONS = (*REDUCTIONS, "abs")

MAX_CHARS = 1000
"""Characters of a condition: nobody reads more, and Python's parser takes deep ones badly."""

MAX_DEPTH = 40
"""Most steps from the whole condition down to a name."""

_COMPARISONS: dict[type[ast.cmpop], str] = {
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Eq: "==",
    ast.NotEq: "!=",
    ast.GtE: ">=",
    ast.Gt: ">",
}
_OPERATORS: dict[type[ast.operator], str] = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.Div: "/",
}


@dataclass(frozen=True, slots=True)
class Constant:
    """A number, a truth value or a text."""

    value: bool | int | float | str


@dataclass(frozen=True, slots=True)
class Name:
    """A value of the pipeline: an input of the request, or `step.output`."""

    reference: str


@dataclass(frozen=True, slots=True)
class Function:
    """One of `FUNCTIONS`, called with one argument."""

    name: str
    argument: Node


@dataclass(frozen=True, slots=True)
class Element:
    """The element `index` of each row."""

    of: Name
    index: int


@dataclass(frozen=True, slots=True)
class Operation:
    """An operator between numbers, truth values or texts: `+`, `<`, `and`, `not` (on the right)."""

    operator: str
    left: Node | None
    right: Node


Node = Constant | Name | Function | Element | Operation


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition that was parsed.

    Attributes:
        text: as it was written.
        root: what it means.
    """

    text: str
    root: Node

    @property
    def references(self) -> tuple[str, ...]:
        """The values of the pipeline that it looks at, each once."""
        return tuple(dict.fromkeys(_references(self.root)))


def parse_condition(text: str) -> Condition:
    """Return what `text` says.

    Raises:
        ValueError: it is no condition; the message says what was expected and what came.
    """
    if len(text) > MAX_CHARS:
        raise ValueError(f"a condition of at most {MAX_CHARS} characters")
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as err:
        reason = err.msg if isinstance(err, SyntaxError) else str(err)
        raise ValueError(f"a condition such as `max(a.scores) < 0.9` ({reason})") from None
    return Condition(text, _node(tree.body, 0))


def _references(node: Node | None) -> Iterator[str]:
    match node:
        case Name(reference):
            yield reference
        case Function(_, inner) | Element(inner, _):
            yield from _references(inner)
        case Operation(_, left, right):
            yield from _references(left)
            yield from _references(right)


def _node(tree: ast.expr, depth: int) -> Node:
    if depth > MAX_DEPTH:
        raise ValueError(f"a condition that is nested at most {MAX_DEPTH} times")
    below = depth + 1
    match tree:
        case ast.Constant(value=bool() | int() | float() | str() as value):
            return Constant(value)
        case ast.Name(id=("true" | "false") as word):  # as in YAML; Python's are constants
            return Constant(word == "true")
        case ast.Name(id=name):
            return Name(name)
        case ast.Attribute(value=ast.Name(id=step), attr=output):
            return Name(f"{step}.{output}")
        case ast.Call(func=ast.Name(id=name), args=[argument], keywords=[]):
            return Function(_known_function(name), _node(argument, below))
        case ast.Subscript(value=of, slice=ast.Constant(value=int() as index)):
            return _element(of, index, below)
    return _operation(tree, below)


def _operation(tree: ast.expr, below: int) -> Node:
    match tree:
        case ast.BoolOp(op=operator, values=values):
            return _chain("and" if isinstance(operator, ast.And) else "or", values, below)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return Operation("not", None, _node(operand, below))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return Operation("-", Constant(0), _node(operand, below))
        case ast.BinOp(left=left, op=operator, right=right) if type(operator) in _OPERATORS:
            sign = _OPERATORS[type(operator)]
            return Operation(sign, _node(left, below), _node(right, below))
        case ast.Compare(left=left, ops=operators, comparators=others):
            return _comparison([left, *others], operators, below)
    raise ValueError(
        f"names, numbers, texts, {', '.join(FUNCTIONS)}, + - * /, comparisons, and, or, not; not "
        f"`{_text(tree)}`"
    )


def _text(tree: ast.expr) -> str:
    """Return the beginning of what `tree` was made of."""
    try:
        return ast.unparse(tree)[:80]
    except RecursionError:  # hundreds of signs in front of one name
        return type(tree).__name__


def _known_function(name: str) -> str:
    if name in FUNCTIONS:
        return name
    close = get_close_matches(name, FUNCTIONS, 1)
    meant = f"; did you mean {close[0]}?" if close else ""
    raise ValueError(f"one of the functions {', '.join(FUNCTIONS)}, not {name[:80]!r}{meant}")


def _element(of: ast.expr, index: int, depth: int) -> Element:
    inner = _node(of, depth)
    if not isinstance(inner, Name) or isinstance(index, bool):
        raise ValueError(f"a name before `[{index}]`, not `{_text(of)}`")
    return Element(inner, index)


def _chain(operator: str, values: list[ast.expr], depth: int) -> Node:
    return _joined(operator, [_node(value, depth) for value in values])


def _joined(operator: str, nodes: list[Node]) -> Node:
    """Return `nodes` joined by `operator`, in a tree that is as flat as can be."""
    if len(nodes) == 1:
        return nodes[0]
    half = len(nodes) // 2
    return Operation(operator, _joined(operator, nodes[:half]), _joined(operator, nodes[half:]))


def _comparison(sides: list[ast.expr], operators: list[ast.cmpop], depth: int) -> Node:
    """Return `a < b < c` as `a < b and b < c`."""
    # What stands in the middle comes twice: one in another would come four times, and so on.
    if any(isinstance(each, ast.Compare) for side in sides[1:-1] for each in ast.walk(side)):
        raise ValueError("no comparison in the middle of another one, as in `a < (b < c) < d`")
    nodes = [_node(side, depth) for side in sides]
    pairs: list[Node] = []
    for left, operator, right in zip(nodes, operators, nodes[1:], strict=False):
        if type(operator) not in _COMPARISONS:
            raise ValueError(f"a comparison by one of {' '.join(_COMPARISONS.values())}")
        pairs.append(Operation(_COMPARISONS[type(operator)], left, right))
    return _joined("and", pairs)
