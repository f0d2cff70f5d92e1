"""From YAML text to plain values, and the line that each of them was written in."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import islice
from typing import Any

import yaml

from batcher.core.names import is_unicode
from batcher.errors import ConfigError

Key = tuple[str | int, ...]

SECRETS = "quotas"
"""The setting whose own keys are secrets: messages name the line of a secret and never its text."""

MAX_VALUES = 200_000
"""Values of a file, those that an alias repeats included: some hundred bytes of aliases of aliases
stand for more than any memory holds.
"""

KEPT = 1 << 16
"""Most characters of a file that is read once for all times that it has this text."""

_MERGE_TAG = "tag:yaml.org,2002:merge"


def parsed(text: str, file: str) -> tuple[Any, dict[Key, str]]:
    """Return the values of `text`, {} for an empty text, and their origins in `file`.

    Both are shared with who reads the same text later.

    Raises:
        ConfigError: the text is not YAML, is nested too deeply, sets a key twice, or has a value
            that is none of YAML's, or too many values.
    """
    try:
        return _kept(text, file) if len(text) <= KEPT else _parsed(text, file)
    except RecursionError as err:
        deep = "lists or mappings nested too deeply"
        raise ConfigError(f"{file}: expected settings; got {deep}") from err
    except yaml.YAMLError as err:
        mark = getattr(err, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = getattr(err, "problem", None) or err
        raise ConfigError(f"{file}{line}: not YAML: {problem}") from err


def _parsed(text: str, file: str) -> tuple[Any, dict[Key, str]]:
    loader = yaml.SafeLoader(text)
    node = loader.get_single_node()
    if node is None:
        return {}, {}
    # Origins first: they are read from the nodes, which building the values flattens.
    found = list(islice(_origins(node, (), file, ()), MAX_VALUES + 1))
    if len(found) > MAX_VALUES:
        raise ConfigError(
            f"{file}: expected at most {MAX_VALUES} values, aliases counted; got more"
        )
    origins = dict(found)
    values = loader.construct_document(node)
    return {} if values is None else values, origins


# A reload reads mostly what was read before, and a file takes milliseconds of the interpreter lock.
_kept = lru_cache(maxsize=64)(_parsed)


def _origins(
    node: yaml.Node, key: Key, file: str, around: tuple[yaml.Node, ...]
) -> Iterator[tuple[Key, str]]:
    """Yield the origin of each value in `node`, which stands at `key` inside the nodes `around`."""
    place = f"{file}:{node.start_mark.line + 1}"
    if node in around:
        raise ConfigError(f"{place}: {dotted(key)} contains itself")
    if key:
        yield key, place
    if isinstance(node, yaml.MappingNode):
        yield from _origins_in_mapping(node, key, file, (*around, node))
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield from _origins(value, (*key, index), file, (*around, node))
    else:
        _check_scalar(node, place)


def _origins_in_mapping(
    node: yaml.MappingNode, key: Key, file: str, around: tuple[yaml.Node, ...]
) -> Iterator[tuple[Key, str]]:
    seen: set[str] = set()
    for name, value in node.value:
        place = f"{file}:{name.start_mark.line + 1}"
        if not isinstance(name, yaml.ScalarNode):
            raise ConfigError(f"{place}: expected the name of a setting; got a {name.id}")
        if name.tag != _MERGE_TAG:
            _check_scalar(name, place)
        if name.value in seen:
            raise ConfigError(f"{place}: {dotted((*key, name.value))} is set twice")
        seen.add(name.value)
        yield from _origins(value, (*key, name.value), file, around)
        yield (*key, name.value), place


def _check_scalar(node: yaml.Node, place: str) -> None:
    # A name with half a character in it could be written to no page, log or metric.
    if not is_unicode(node.value):
        raise ConfigError(
            f"{place}: expected whole characters, such as \\U0001F600; got {node.value!r:.60}"
        )
    try:
        yaml.SafeLoader("").construct_object(node)
    except yaml.YAMLError:
        raise
    # For a date such as 2024-13-45 or digits that are no number, PyYAML lets Python's own errors
    # through.
    except Exception as err:
        raise ConfigError(f"{place}: expected a value; got {node.value!r:.60}: {err}") from err


def dotted(key: Key) -> str:
    """Return `key` as text for messages: its steps joined by dots, a secret as `<key>`."""
    if key[:1] == (SECRETS,) and len(key) > 1:
        key = (SECRETS, "<key>", *(step for step in key[2:] if step != "[key]"))
    return ".".join(map(str, key))
