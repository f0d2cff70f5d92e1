"""Which texts of an exported program are arithmetic of sizes, and nothing else.

PyTorch evaluates two kinds of texts in an archive as Python:

    kind      example                                  evaluated by
    size      Mul(Integer(2), Symbol('s0'))            sympy, with all of sympy's names
    guard     L['x'].size()[0] <= 100                  Python, when the program is made callable

Both kinds are parsed here and never run. A text passes if each node of its syntax tree is on a
list: numbers, arithmetic, comparisons, and calls of terms whose names are listed. So nothing passes
that reads an attribute, calls a method, or calls a function of another name. Powers and shifts pass
with a small constant as their exponent alone: a power of large numbers fills the memory.
"""

from __future__ import annotations

import ast
import re

MAX_CHARS = 20_000
"""Characters of a text: the sizes of real programs take some hundreds."""

MAX_INTEGER = 10**20
"""Above the largest integer of 64 bits, which bounds the ranges of sizes."""

MAX_EXPONENT = 64
"""The largest exponent and the longest shift: sizes are numbers of 64 bits."""


def _words(text: str) -> frozenset[str]:
    """Return the words of `text`. Any thread."""
    return frozenset(text.split())


_TERMS = _words(
    "Symbol Integer Rational Float Add Mul Pow Max Min Mod Abs ceiling floor sqrt sign "
    "Eq Ne Lt Le Gt Ge Equality Unequality LessThan GreaterThan StrictLessThan StrictGreaterThan "
    "And Or Not Xor Piecewise ExprCondPair ITE Where FloorDiv CleanDiv CeilDiv PythonMod "
    "ModularIndexing IntTrueDiv FloatTrueDiv PowByNatural FloatPow LShift RShift ToFloat "
    "TruncToFloat TruncToInt RoundToInt RoundDecimal CeilToInt FloorToInt Identity "
    "IsNonOverlappingAndDenseIndicator"
)
"""Functions of sympy, and of PyTorch for sympy, that a size may call."""

_CONSTANTS = _words("true false oo int_oo zoo nan Zero One NegativeOne Half Infinity")
_SYMBOL = re.compile(r"[suz][a-z]{0,2}\d{1,18}")
_QUOTED = {
    "Symbol": re.compile(r"[A-Za-z]\w{0,60}", re.ASCII),
    "Integer": re.compile(r"-?\d{1,20}", re.ASCII),
    "Rational": re.compile(r"-?\d{1,20}(/\d{1,20})?", re.ASCII),
    "Float": re.compile(r"-?[\d.]{1,40}(e[-+]?\d{1,3})?", re.ASCII),
}
"""What may stand in quotes, by the term that is called with it."""

_POWERS = frozenset({"Pow", "PowByNatural", "FloatPow", "LShift"})

_PLAIN_NODES = (
    *(ast.Expression, ast.UnaryOp, ast.BinOp, ast.BoolOp, ast.Compare, ast.IfExp),
    *(ast.Load, ast.USub, ast.UAdd, ast.Not, ast.Invert, ast.And, ast.Or),
    *(ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow, ast.LShift),
    *(ast.BitAnd, ast.BitOr, ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE),
)
"""Nodes that say nothing by themselves: only their parts are looked at."""

_GUARD_FUNCTIONS = _words(
    "max min int float bool abs round IsNonOverlappingAndDenseIndicator "
    "cast_symbool_to_symint_guardless"
)
_GUARD_METHODS = frozenset({"size", "stride", "storage_offset", "dim", "numel"})
_GUARD_MODULES = {
    "math": re.compile(r"floor|ceil|trunc|sqrt|inf|log2|isinf|isnan"),
    "torch": re.compile(r"_?sym_[a-z0-9_]+"),
}
_SAFE_TEXT = re.compile(r"[\w .:/+-]*")
"""Text that may stand in quotes in a guard, which is printed into Python code in quotes."""


def is_size(text: str) -> bool:
    """Return whether `text` is an expression of sizes, as sympy writes one. Any thread."""
    return _passes(text, _Sizes())


def is_guard(text: str) -> bool:
    """Return whether `text` is a condition on the sizes of inputs. Any thread."""
    # A comment or a line's end could hide a part of the text from this parser.
    return not re.search(r"[#\\\n\r]", text) and _passes(text, _Guards())


def is_key(text: str) -> bool:
    """Return whether `text` may be a key of an output, or the name of a weight.

    PyTorch writes it into code in quotes, which `text` cannot end. Any thread.
    """
    return text.isprintable() and not re.search(r"[\"'\\]", text)


def is_word(text: str) -> bool:
    """Return whether `text` may be a key of an input.

    PyTorch writes the names of keywords into the code of a function, and not only in quotes.

    Any thread.
    """
    return re.fullmatch(r"[\w .-]*", text) is not None


def _passes(text: str, grammar: _Sizes) -> bool:
    """Return whether `text` is of `grammar`. Any thread."""
    if len(text) > MAX_CHARS:
        return False
    try:
        tree = ast.parse(text.strip(), mode="eval")
        return grammar.allows(tree)
    # The last two: an expression may be nested too deep for the parser, or for this walk.
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False


class _Sizes:
    """The grammar of sizes."""

    def allows(self, node: ast.AST) -> bool:
        """Return whether `node` and all its parts are of the grammar. Any thread."""
        if isinstance(node, ast.Call):
            return self._call(node)
        if isinstance(node, ast.Name):
            return node.id in _CONSTANTS or _SYMBOL.fullmatch(node.id) is not None
        if isinstance(node, ast.Constant):
            return self._constant(node.value)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow | ast.LShift):
            return self._power(node.left, node.right)
        if not isinstance(node, _PLAIN_NODES):
            return False
        return all(self.allows(part) for part in ast.iter_child_nodes(node))

    def _constant(self, value: object) -> bool:
        """Return whether `value` is a truth value or a number that is not too large. Any thread."""
        if isinstance(value, int):
            return abs(value) < MAX_INTEGER
        return isinstance(value, float)

    def _call(self, node: ast.Call) -> bool:
        """Return whether `node` calls a term with arguments of the grammar. Any thread."""
        if not isinstance(node.func, ast.Name) or node.func.id not in _TERMS:
            return False
        # Assumptions on a symbol: `integer=True`.
        assumed = [keyword.value for keyword in node.keywords]
        if not all(isinstance(value, ast.Constant) and self.allows(value) for value in assumed):
            return False
        if node.func.id in _POWERS:
            return len(node.args) == 2 and self._power(node.args[0], node.args[1])
        quoted = _QUOTED.get(node.func.id)
        return all(
            self.allows(argument) or (quoted is not None and _is_quoted(argument, quoted))
            for argument in node.args
        )

    def _power(self, base: ast.expr, exponent: ast.expr) -> bool:
        """Return whether a power or shift cannot become large. Any thread."""
        try:
            number = _number(exponent)
        except ValueError:
            return False
        if any(_is_power(node) for node in ast.walk(base)):
            return False
        return abs(number) <= MAX_EXPONENT and self.allows(base)


class _Guards(_Sizes):
    """The grammar of guards: sizes of inputs, `L['x'].size()[0]`, in Python's own arithmetic."""

    def allows(self, node: ast.AST) -> bool:
        """Return whether `node` and all its parts are of the grammar. Any thread."""
        if isinstance(node, ast.Subscript):
            return self._part(node)
        if isinstance(node, ast.Attribute):
            return _of_module(node)
        return super().allows(node)

    def _constant(self, value: object) -> bool:
        """Return whether `value` is a number, or plain text. Any thread."""
        if isinstance(value, str):
            return _SAFE_TEXT.fullmatch(value) is not None
        return super()._constant(value)

    def _part(self, node: ast.expr) -> bool:
        """Return whether `node` is an input, a part of one, or a size of one. Any thread."""
        if isinstance(node, ast.Subscript):
            key = node.slice.operand if isinstance(node.slice, ast.UnaryOp) else node.slice
            is_plain = isinstance(key, ast.Constant) and self._constant(key.value)
            is_input = isinstance(node.value, ast.Name) and node.value.id == "L"
            return is_plain and (is_input or self._part(node.value))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            indices = all(isinstance(argument, ast.Constant) for argument in node.args)
            is_size = node.func.attr in _GUARD_METHODS and not node.keywords
            return is_size and indices and self._part(node.func.value)
        return False

    def _call(self, node: ast.Call) -> bool:
        """Return whether `node` asks for a size, or calls a listed function. Any thread."""
        if self._part(node):
            return True
        function = node.func
        if isinstance(function, ast.Name):
            listed = function.id in _GUARD_FUNCTIONS
        else:
            listed = isinstance(function, ast.Attribute) and _of_module(function)
        return listed and not node.keywords and all(map(self.allows, node.args))


def _of_module(node: ast.Attribute) -> bool:
    """Return whether `node` is a listed name of a module, such as `math.floor`. Any thread."""
    if not isinstance(node.value, ast.Name):
        return False
    names = _GUARD_MODULES.get(node.value.id)
    return names is not None and names.fullmatch(node.attr) is not None


def _is_quoted(node: ast.expr, pattern: re.Pattern[str]) -> bool:
    """Return whether `node` is a text of that pattern. Any thread."""
    return (
        isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and pattern.fullmatch(node.value) is not None
    )


def _is_power(node: ast.AST) -> bool:
    """Return whether `node` is a power or a shift. Any thread."""
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id in _POWERS
    return isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow | ast.LShift)


def _number(node: ast.expr) -> float:
    """Return the number that `node` writes: `2`, `-1`, `Integer(2)`, `Float('0.5')`.

    Raises:
        ValueError: `node` is no number.

    Any thread.
    """
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return node.value
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_number(node.operand)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args:
        # A fraction is at most as large as its numerator.
        if node.func.id in ("Integer", "Rational"):
            return _number(node.args[0])
        if node.func.id == "Float" and _is_quoted(node.args[0], _QUOTED["Float"]):
            return float(ast.literal_eval(node.args[0]))
    raise ValueError(ast.dump(node))
