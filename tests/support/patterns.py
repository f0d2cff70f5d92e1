"""Regular expressions that can backtrack: found by their structure, without running them.

A pattern takes more than linear time only where two repetitions can match the same character:

- one within another, as in `(a+)+`, where n characters can be cut in 2**n ways;
- one behind another, with nothing between that must match something else, as in `a*a*b`.

Repetitions of at most SHORT turns are no danger. A pattern that is found may still be harmless,
since what stands behind its repetitions cannot fail; it is to be written in a way that shows so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from re import _constants as kinds  # type: ignore[attr-defined]  # no public way to the tree
from re import _parser as parser  # type: ignore[attr-defined]  # likewise
from typing import Any

SHORT = 64

Characters = frozenset[int]
ALL: Characters = frozenset(range(256))
NONE: Characters = frozenset()
_CLASSES = {
    kinds.CATEGORY_DIGIT: r"\d",
    kinds.CATEGORY_NOT_DIGIT: r"\D",
    kinds.CATEGORY_SPACE: r"\s",
    kinds.CATEGORY_NOT_SPACE: r"\S",
    kinds.CATEGORY_WORD: r"\w",
    kinds.CATEGORY_NOT_WORD: r"\W",
}


def ambiguities(pattern: re.Pattern[Any]) -> list[str]:
    """Return what is ambiguous in `pattern`, in words; empty if it takes linear time."""
    return list(_found(_opened(parser.parse(pattern.pattern, pattern.flags))))


def _opened(tokens: Any) -> list[Any]:
    """Return tokens with groups in place of which their contents stand."""
    found: list[Any] = []
    for token in tokens:
        found += _opened(token[1][3]) if token[0] is kinds.SUBPATTERN else [token]
    return found


def _found(tokens: list[Any]) -> Iterator[str]:
    before = NONE  # what repetitions can match that nothing has ended so far
    for token in tokens:
        for inner in _parts(token):
            yield from _found(inner)
        repeated = _characters([token]) if _is_long(token) else NONE
        if before & repeated:
            yield f"repetitions behind each other: {token}"
        if repeated and any(_overlaps(_parts(token)[0], _first(_parts(token)[0]))):
            yield f"repetitions within each other: {token}"
        if not _may_be_empty([token]):
            before &= _characters([token])
        before |= repeated


def _overlaps(body: list[Any], next_turn: Characters) -> Iterator[bool]:
    """Yield whether each last repetition of `body` can match what the next turn begins with."""
    for place, token in enumerate(body):
        if _may_be_empty(body[place + 1 :]):
            if _is_long(token):
                yield bool(_characters([token]) & next_turn)
            for inner in _parts(token):
                yield from _overlaps(inner, next_turn)


def _is_long(token: Any) -> bool:
    return token[0] in (kinds.MAX_REPEAT, kinds.MIN_REPEAT) and token[1][1] > SHORT


def _parts(token: Any) -> list[list[Any]]:
    kind, value = token
    if kind in (kinds.MAX_REPEAT, kinds.MIN_REPEAT):
        return [_opened(value[2])]
    return [_opened(branch) for branch in value[1]] if kind is kinds.BRANCH else []


def _may_be_empty(tokens: list[Any]) -> bool:
    return parser.SubPattern(parser.State(), tokens).getwidth()[0] == 0


def _first(tokens: list[Any]) -> Characters:
    """Return what a match of `tokens` can begin with."""
    found = NONE
    for token in tokens:
        parts = _parts(token)
        found |= NONE.union(*map(_first, parts)) if parts else _characters([token])
        if not _may_be_empty([token]):
            break
    return found


def _characters(tokens: list[Any]) -> Characters:
    """Return what can stand anywhere in a match of `tokens`."""
    found = NONE
    for token in tokens:
        kind, value = token
        if kind is kinds.LITERAL:
            found |= {value}
        elif kind is kinds.NOT_LITERAL:
            found |= ALL - {value}
        elif kind is kinds.ANY:
            found |= ALL
        elif kind is kinds.IN:
            found |= _of_set(value)
        else:
            found = found.union(*map(_characters, _parts(token)))
    return found


def _of_set(items: list[Any]) -> Characters:
    found: set[int] = set()
    for kind, value in items:
        if kind is kinds.LITERAL:
            found.add(value)
        elif kind is kinds.RANGE:
            found.update(range(value[0], min(value[1], 255) + 1))
        elif kind is kinds.CATEGORY:
            found.update(code for code in ALL if re.match(_CLASSES[value], chr(code)))
    return ALL - found if items[0][0] is kinds.NEGATE else frozenset(found)
