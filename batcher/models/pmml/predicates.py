"""Conditions: for each row true, false, or unknown where a value is missing."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from batcher.config.pmml.document import Element
from batcher.core.spec import Array
from batcher.models.pmml.expressions import unsupported
from batcher.models.pmml.frame import Frame, equals, is_missing, numbers


class Truth(NamedTuple):
    """For each row whether a condition holds, and whether that is unknown."""

    holds: Any
    unknown: Any


Predicate = Callable[[Frame], Truth]
PREDICATES = ("SimplePredicate", "CompoundPredicate", "SimpleSetPredicate", "True", "False")
_TEXT = re.compile(r'"((?:[^"\\]|\\.)*)"|\S+', re.DOTALL)
_ORDERED: dict[str, Callable[[Array, float], Array]] = {
    "lessThan": np.less,
    "lessOrEqual": np.less_equal,
    "greaterThan": np.greater,
    "greaterOrEqual": np.greater_equal,
}


def predicate_in(element: Element) -> Predicate:
    """Return the condition in an element. Raises ModelLoadError: there is none that is served."""
    for child in element.children:
        if child.tag in PREDICATES:
            return predicate(child)
    raise unsupported(element, "no condition in it")


def predicate(element: Element) -> Predicate:
    """Return a condition as a function of a frame."""
    if element.tag in ("True", "False"):
        value = element.tag == "True"
        return lambda frame: Truth(np.full(frame.rows, value), np.zeros(frame.rows, bool))
    if element.tag == "SimplePredicate":
        return _simple(element)
    if element.tag == "SimpleSetPredicate":
        return _set(element)
    return _compound(element)


def _simple(element: Element) -> Predicate:
    name, operator, value = (element.get(key) for key in ("field", "operator", "value"))
    if operator in ("isMissing", "isNotMissing"):

        def lacks(frame: Frame) -> Truth:
            found = is_missing(frame[name])
            found = found if operator == "isMissing" else ~found
            return Truth(found, np.zeros(frame.rows, bool))

        return lacks
    if operator not in ("equal", "notEqual"):
        return _ordered(element, name, operator)

    def same(frame: Frame) -> Truth:
        lack = is_missing(frame[name])
        found = equals(frame[name], value)
        return Truth((found if operator == "equal" else ~found) & ~lack, lack)

    return same


def _ordered(element: Element, name: str, operator: str) -> Predicate:
    compare = _ORDERED.get(operator)
    if compare is None:
        raise unsupported(element, operator)
    limit = element.number("value")

    def ordered(frame: Frame) -> Truth:
        column = frame[name]
        column = numbers(column) if column.dtype.hasobject else column  # a float stays one
        return Truth(compare(column, limit), np.isnan(column))

    return ordered


def array_texts(array: Element) -> list[str]:
    """Return the values of an Array as texts; a text with blanks stands in quotes."""
    found = _TEXT.finditer(array.text)
    return [
        each[0] if each[1] is None else re.sub(r"\\(.)", r"\1", each[1], flags=re.DOTALL)
        for each in found
    ]


def array_numbers(array: Element) -> list[float]:
    """Return the values of an Array as numbers."""
    return [float(each) for each in array.text.split()]


def _set(element: Element) -> Predicate:
    name, is_in = element.get("field"), element.get("booleanOperator") == "isIn"
    values = array_texts(element.need("Array"))

    def within(frame: Frame) -> Truth:
        column = frame[name]
        lack = is_missing(column)
        found = np.any([equals(column, value) for value in values], axis=0)
        return Truth((found if is_in else ~found) & ~lack, lack)

    return within


def _compound(element: Element) -> Predicate:
    operator = element.get("booleanOperator")
    parts = [predicate(each) for each in element.children if each.tag in PREDICATES]
    if operator not in ("and", "or", "xor", "surrogate"):
        raise unsupported(element, operator)
    if not parts:
        raise unsupported(element, "no condition in it")

    def compound(frame: Frame) -> Truth:
        found = [part(frame) for part in parts]
        holds = np.stack([each.holds for each in found])
        unknown = np.stack([each.unknown for each in found])
        if operator == "surrogate":
            return _first_known(holds, unknown)
        if operator == "xor":
            any_unknown = unknown.any(0)
            return Truth((holds.sum(0) % 2 == 1) & ~any_unknown, any_unknown)
        if operator == "and":
            fails = (~holds & ~unknown).any(0)
            return Truth(holds.all(0), unknown.any(0) & ~fails)
        return Truth(holds.any(0), unknown.any(0) & ~holds.any(0))

    return compound


def _first_known(holds: Array, unknown: Array) -> Truth:
    place = np.argmin(unknown, axis=0)
    rows = np.arange(holds.shape[1])
    return Truth(holds[place, rows] & ~unknown[place, rows], unknown.all(0))
