"""Derived fields: what stands in a file becomes a function of a frame.

What is missing in makes the result missing, unless the expression says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from batcher.config.pmml.document import Element
from batcher.core.spec import Array
from batcher.errors import ModelLoadError
from batcher.models.pmml.frame import (
    TYPES,
    Derived,
    Frame,
    cast,
    equals,
    full,
    in_interval,
    is_missing,
    number_of,
    numbers,
    texts,
)

Function = Callable[[Frame, list[Array]], Array]
EXPRESSIONS = (
    *("Constant", "FieldRef", "NormContinuous", "NormDiscrete", "Discretize", "MapValues", "Apply"),
)


_BESIDE = ("Extension", "Value", "Decisions")
"""What may stand beside an expression, for people."""


def unsupported(element: Element, what: str = "") -> ModelLoadError:
    """Return the error for an element that is not served."""
    return ModelLoadError(
        f"expected elements of PMML that are served; got {element}{f': {what}' * bool(what)}. "
        "docs/formats.md lists those that are; another way is to export the model to ONNX"
    )


def fields_in(element: Element | None, functions: Mapping[str, Function]) -> dict[str, Derived]:
    """Return the derived fields in an element, by their names."""
    fields = element.all("DerivedField") if element is not None else []
    return {field.get("name"): derived(field, functions) for field in fields}


def derived(field: Element, functions: Mapping[str, Function]) -> Derived:
    """Return what works out a derived field, as a column of the field's type."""
    inner = expression_in(field, functions)
    data_type = field.get("dataType", "double")
    if data_type not in TYPES:
        raise unsupported(field, f"dataType {data_type}")
    return lambda frame: cast(inner(frame), data_type)


def expression_in(element: Element, functions: Mapping[str, Function]) -> Derived:
    """Return the one expression in an element."""
    found = [child for child in element.children if child.tag not in _BESIDE]
    if len(found) != 1:
        raise unsupported(element, f"expected one expression in it; got {len(found)}")
    return expression(found[0], functions)


def expression(element: Element, functions: Mapping[str, Function]) -> Derived:
    """Return an expression as a function of a frame."""
    if element.tag == "Apply":
        return _apply(element, functions)
    maker = _MAKERS.get(element.tag)
    if maker is None:
        raise unsupported(element)
    return maker(element)


def user_functions(dictionary: Element | None) -> dict[str, Function]:
    """Return the functions that a file defines, by their names."""
    found: dict[str, Function] = {}
    for element in dictionary.all("DefineFunction") if dictionary is not None else ():
        names = [each.get("name") for each in element.all("ParameterField")]
        inner = [each for each in element.children if each.tag in EXPRESSIONS]
        if len(inner) != 1:
            raise unsupported(element)
        found[element.get("name")] = _user(names, expression(inner[0], found))
    return found


def _user(names: list[str], inner: Derived) -> Function:
    return lambda frame, values: inner(frame.with_more(dict(zip(names, values, strict=False)), {}))


def constant_of(element: Element) -> Any:
    """Return the value of a Constant: a number, a text, or None."""
    if element.get("missing") == "true":
        return None
    if element.get("dataType", "double") in ("string",):
        return element.text
    try:
        return float(element.text)
    except ValueError:
        return {"true": 1.0, "false": 0.0}.get(element.text.strip(), element.text)


def _constant(element: Element) -> Derived:
    value = constant_of(element)
    value = float("nan") if value is None else value
    return lambda frame: full(frame.rows, value)


def _mapped(element: Element, inner: Derived, source: Derived) -> Derived:
    """Return `inner`, with the element's `mapMissingTo` where `source` is missing."""
    if "mapMissingTo" not in element.attributes:
        return inner
    text = element.get("mapMissingTo")

    def mapped(frame: Frame) -> Array:
        column, lack = inner(frame), is_missing(source(frame))
        replaced = column.copy()
        replaced[lack] = text if column.dtype.hasobject else number_of(text)
        return replaced

    return mapped


def _field_ref(element: Element) -> Derived:
    name = element.get("field")

    def read(frame: Frame) -> Array:
        return frame[name]

    return _mapped(element, read, read)


def _source(element: Element) -> Derived:
    name = element.get("field")
    return lambda frame: frame[name]


def _norm_continuous(element: Element) -> Derived:
    points = [(each.number("orig"), each.number("norm")) for each in element.all("LinearNorm")]
    outliers = element.get("outliers", "asIs")
    if len({orig for orig, _ in points}) < max(len(points), 2):
        raise unsupported(element, "expected two LinearNorm or more, each with an orig of its own")
    origs, norms = (np.array(each) for each in zip(*sorted(points), strict=True))
    slopes = np.diff(norms) / np.diff(origs)
    source = _source(element)

    def norm(frame: Frame) -> Array:
        column = numbers(source(frame))
        place = np.clip(np.searchsorted(origs, column, "right") - 1, 0, len(slopes) - 1)
        result = norms[place] + (column - origs[place]) * slopes[place]
        outside = (column < origs[0]) | (column > origs[-1])
        if outliers == "asMissingValues":
            result = np.where(outside, np.nan, result)
        elif outliers == "asExtremeValues":
            result = np.clip(result, norms.min(), norms.max())
        return np.where(np.isnan(column), np.nan, result)

    return _mapped(element, norm, source)


def _norm_discrete(element: Element) -> Derived:
    source, value = _source(element), element.get("value")

    def norm(frame: Frame) -> Array:
        column = source(frame)
        lack = is_missing(column)
        return np.where(lack, np.nan, equals(column, value))

    return _mapped(element, norm, source)


def _discretize(element: Element) -> Derived:
    bins = [(each.need("Interval"), each.get("binValue")) for each in element.all("DiscretizeBin")]
    source, default = _source(element), element.attributes.get("defaultValue")
    is_number = element.get("dataType", "string") in ("double", "float", "integer")

    def discretize(frame: Frame) -> Array:
        column = numbers(source(frame))
        result = full(frame.rows, default)
        for interval, value in reversed(bins):
            result[in_interval(column, interval)] = value
        result[np.isnan(column)] = None
        return numbers(result) if is_number else result

    return _mapped(element, discretize, source)


def _table(element: Element, *columns: str) -> dict[Any, str]:
    """Return from the first of two columns of a table to the second; rows without one are none."""
    # A column may be named with the prefix of a namespace, which the elements have lost.
    first, second = (each.rpartition(":")[2] for each in columns)
    rows = [
        {child.tag: child.text for child in row.children}
        for row in element.need("InlineTable").all("row")
    ]
    return {row[first]: row[second] for row in rows if first in row and second in row}


def _map_values(element: Element) -> Derived:
    pairs = element.all("FieldColumnPair")
    if len(pairs) != 1:
        raise unsupported(element, "a table of several fields")
    name, default = pairs[0].get("field"), element.attributes.get("defaultValue")
    table = _table(element, pairs[0].get("column"), element.get("outputColumn"))
    keys = numbers(np.array([*table, None], object))[:-1].tolist()
    of_numbers: dict[Any, str] = dict(zip(keys, table.values(), strict=True))
    is_number = element.get("dataType", "string") in ("double", "float", "integer", "boolean")

    def mapped(frame: Frame) -> Array:
        source, found = frame[name], table if frame[name].dtype.hasobject else of_numbers
        result = np.empty(frame.rows, object)
        result[:] = [found.get(each, default) for each in source.tolist()]
        result[is_missing(source)] = None
        return numbers(result) if is_number else result

    return _mapped(element, mapped, lambda frame: frame[name])


_MAKERS: dict[str, Callable[[Element], Derived]] = {
    "Constant": _constant,
    "FieldRef": _field_ref,
    "NormContinuous": _norm_continuous,
    "NormDiscrete": _norm_discrete,
    "Discretize": _discretize,
    "MapValues": _map_values,
}


def _arithmetic(function: Callable[..., Any]) -> Function:
    def call(frame: Frame, values: list[Array]) -> Array:
        with np.errstate(all="ignore"):
            return np.asarray(function(*map(numbers, values)), np.float64)

    return call


def _many(function: Callable[..., Any]) -> Function:
    def call(frame: Frame, values: list[Array]) -> Array:
        return np.asarray(function(np.stack(list(map(numbers, values))), axis=0))

    return call


def _compare(function: Callable[..., Any]) -> Function:
    def call(frame: Frame, values: list[Array]) -> Array:
        first, second = values
        lack = is_missing(first) | is_missing(second)
        if first.dtype.hasobject or second.dtype.hasobject:
            found = np.array(function(texts(first), texts(second)), bool)
        else:
            found = function(first, second)
        return np.where(lack, np.nan, found)

    return call


def _truth(function: Callable[..., Any]) -> Function:
    return lambda frame, values: np.asarray(
        function(np.stack([numbers(value) == 1 for value in values]), axis=0), np.float64
    )


def _is_in(frame: Frame, values: list[Array]) -> Array:
    found = np.zeros(frame.rows, bool)
    for other in values[1:]:
        found |= _compare(np.equal)(frame, [values[0], other]) == 1
    return np.where(is_missing(values[0]), np.nan, found)


def _if(frame: Frame, values: list[Array]) -> Array:
    condition, first, *other = values
    second = other[0] if other else full(frame.rows, float("nan"))
    if first.dtype.hasobject or second.dtype.hasobject:
        first, second = texts(first), texts(second)
    chosen = np.where(numbers(condition) == 1, first, second)
    lack = np.isnan(numbers(condition))
    chosen[lack] = None if chosen.dtype.hasobject else np.nan
    return chosen


def _of_text(function: Callable[..., Any]) -> Function:
    def call(frame: Frame, values: list[Array]) -> Array:
        columns = [texts(value) for value in values]
        result = np.empty(frame.rows, object)
        result[:] = [
            None if any(each is None for each in row) else function(*row)
            for row in zip(*columns, strict=True)
        ]
        return result

    return call


def _substring(text: str, start: str, length: str) -> str:
    first = int(float(start)) - 1
    return text[first : first + int(float(length))]


FUNCTIONS: dict[str, Function] = {
    "+": _arithmetic(np.add),
    "-": _arithmetic(np.subtract),
    "*": _arithmetic(np.multiply),
    "/": _arithmetic(np.divide),
    "pow": _arithmetic(np.power),
    "exp": _arithmetic(np.exp),
    "expm1": _arithmetic(np.expm1),
    "ln": _arithmetic(np.log),
    "ln1p": _arithmetic(np.log1p),
    "log10": _arithmetic(np.log10),
    "sqrt": _arithmetic(np.sqrt),
    "abs": _arithmetic(np.abs),
    "floor": _arithmetic(np.floor),
    "ceil": _arithmetic(np.ceil),
    "round": _arithmetic(lambda value: np.floor(value + 0.5)),
    "sin": _arithmetic(np.sin),
    "cos": _arithmetic(np.cos),
    "tan": _arithmetic(np.tan),
    "tanh": _arithmetic(np.tanh),
    "modulo": _arithmetic(np.mod),
    "threshold": _arithmetic(lambda value, limit: np.where(np.isnan(value), np.nan, value > limit)),
    "min": _many(np.nanmin),
    "max": _many(np.nanmax),
    "avg": _many(np.nanmean),
    "sum": _many(np.nansum),
    "median": _many(np.nanmedian),
    "product": _many(np.nanprod),
    "equal": _compare(np.equal),
    "notEqual": _compare(np.not_equal),
    "lessThan": _compare(np.less),
    "lessOrEqual": _compare(np.less_equal),
    "greaterThan": _compare(np.greater),
    "greaterOrEqual": _compare(np.greater_equal),
    "and": _truth(np.all),
    "or": _truth(np.any),
    "not": lambda frame, values: np.where(np.isnan(numbers(values[0])), np.nan, values[0] == 0),
    "isMissing": lambda frame, values: is_missing(values[0]).astype(np.float64),
    "isNotMissing": lambda frame, values: (~is_missing(values[0])).astype(np.float64),
    "isIn": _is_in,
    "isNotIn": lambda frame, values: 1 - _is_in(frame, values),
    "if": _if,
    "uppercase": _of_text(str.upper),
    "lowercase": _of_text(str.lower),
    "trimBlanks": _of_text(str.strip),
    "concat": _of_text(lambda *parts: "".join(parts)),
    "substring": _of_text(_substring),
}
"""The functions of PMML that are served."""


def _apply(element: Element, functions: Mapping[str, Function]) -> Derived:
    name = element.get("function")
    function = functions.get(name) or FUNCTIONS.get(name)
    if function is None:
        raise unsupported(element, f"the function {name}")
    arguments = [
        expression(each, functions) for each in element.children if each.tag != "Extension"
    ]
    replacement = element.attributes.get("mapMissingTo")
    default = element.attributes.get("defaultValue")
    may_lack = name in ("isMissing", "isNotMissing", "if")

    def call(frame: Frame) -> Array:
        values = [argument(frame) for argument in arguments]
        result = function(frame, values)
        lacks = [is_missing(value) for value in values]
        lack = np.any(lacks, axis=0) if lacks else np.zeros(frame.rows, bool)
        if replacement is not None:
            result = _replaced(result, lack, replacement)
        if default is not None:
            result = _replaced(result, is_missing(result) & ~(lack & (not may_lack)), default)
        return result

    return call


def _replaced(column: Array, chosen: Array, text: str) -> Array:
    replaced = column.copy()
    replaced[chosen] = text if column.dtype.hasobject else number_of(text)
    return replaced
