"""Changes settings in the text of a configuration file, and leaves all else as its owner wrote it.

Reading a YAML file and writing it anew would lose comments and the owner's way of writing. So the
places of the values are taken from the YAML nodes, and the text is changed at these places alone:

    what stands there                          what becomes of it
    a value of the setting                     the new value, with a comment, up to the line's end
    a section without the setting              a new first line of the section
    no such section                            a new section, at the end of what is around it
    a section in braces, {a: 1, b: 2}          first a line for each of its settings

The result is read again and compared with what was asked for, so that a form of YAML that this file
does not know becomes an error and never a wrong configuration.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any, NamedTuple

import yaml

from batcher.errors import ConfigError


class NewValue(NamedTuple):
    """A value to be written.

    Attributes:
        value: the value.
        reason: a comment of one line that stands behind the value; empty for none.
    """

    value: Any
    reason: str = ""


Key = tuple[str, ...]


def with_settings(text: str, section: Key, values: Mapping[str, NewValue]) -> str:
    """Return the YAML `text` with `values` in its `section`, such as ("models", "digits").

    Raises:
        ConfigError: the text is not YAML, or is written in a form that cannot be changed here.
    """
    try:
        before = yaml.safe_load(text)
        changed = _changed(text, section, values)
        after = yaml.safe_load(changed)
    except yaml.YAMLError as err:
        raise _cannot_edit(section) from err
    if after != _merged(before, section, values):
        raise _cannot_edit(section)
    return changed


def lines_of(section: Key, values: Mapping[str, NewValue]) -> str:
    """Return `values` in their `section` as lines of YAML, as they stand in a file of their own."""
    lines = [f"{_indent(depth)}{_scalar(step)}:" for depth, step in enumerate(section)]
    lines += [f"{_indent(len(section))}{_line(key, new)}" for key, new in values.items()]
    return "\n".join(lines) + "\n"


def _cannot_edit(section: Key) -> ConfigError:
    return ConfigError(
        f"expected a configuration in which {'.'.join(section)} can be changed; got a form of YAML "
        "that only a person should edit: copy the lines above into the file"
    )


def _changed(text: str, section: Key, values: Mapping[str, NewValue]) -> str:
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    for depth, step in enumerate(section):
        if not isinstance(node, yaml.MappingNode) or not node.value:
            return _with_section(text, node, section, depth, values)
        if node.flow_style:
            return _changed(_unfolded(text, node, depth), section, values)
        inner = _value_of(node, step)
        if inner is None:
            rest = "\n".join(_indented(lines_of(section[depth:], values), _column(node)))
            return _inserted(text, node, depth, rest)
        node = inner
    if not isinstance(node, yaml.MappingNode) or not node.value:
        return _with_section(text, node, section, len(section), values)
    if node.flow_style:
        return _changed(_unfolded(text, node, len(section)), section, values)
    for key, new in values.items():
        text = _with_value(text, section, key, new)
    return text


def _with_value(text: str, section: Key, key: str, new: NewValue) -> str:
    """Return `text` with one value of a section that has lines of its own."""
    node: Any = yaml.compose(text, Loader=yaml.SafeLoader)
    for step in section:
        node = _value_of(node, step)
    old = _value_of(node, key)
    if old is None:
        return _inserted(text, node, len(section), " " * _column(node) + _line(key, new))
    start, end = old.start_mark.index, old.end_mark.index
    line_end = text.find("\n", end)
    line_end = len(text) if line_end < 0 else line_end
    comment = f" # {new.reason}" if new.reason else ""
    return text[:start] + _scalar(new.value) + comment + text[line_end:]


def _with_section(
    text: str, node: yaml.Node | None, section: Key, depth: int, values: Mapping[str, NewValue]
) -> str:
    """Return `text` with the rest of `section`, where `node` is empty: {}, null or nothing."""
    rest = lines_of(section[depth:], values)
    if node is None:
        return text + ("" if text.endswith("\n") or not text else "\n") + rest
    begin = text.rfind("\n", 0, node.start_mark.index) + 1
    column = len(text[begin:]) - len(text[begin:].lstrip(" ")) + 2 if depth else 0
    start, end = node.start_mark.index, node.end_mark.index
    line_end = text.find("\n", end)
    line_end = len(text) if line_end < 0 else line_end
    head = text[:start].rstrip(" ") if depth else text[:start]
    lines = "\n".join(_indented(rest, column))
    return f"{head}{text[end:line_end]}\n{lines}{text[line_end:] or chr(10)}"


def _unfolded(text: str, node: yaml.MappingNode, depth: int) -> str:
    """Return `text` with a line for each entry of `node`, which stands in braces."""
    begin = text.rfind("\n", 0, node.start_mark.index) + 1
    column = len(text[begin:]) - len(text[begin:].lstrip(" ")) + 2 if depth else 0
    lines = [
        " " * column
        + f"{text[key.start_mark.index : key.end_mark.index]}: "
        + text[value.start_mark.index : value.end_mark.index]
        for key, value in node.value
    ]
    start, end = node.start_mark.index, node.end_mark.index
    line_end = text.find("\n", end)
    line_end = len(text) if line_end < 0 else line_end
    head = text[:start].rstrip(" ") + text[end:line_end] + "\n" if depth else text[:start]
    return head + "\n".join(lines) + text[line_end:]


def _inserted(text: str, node: yaml.MappingNode, depth: int, lines: str) -> str:
    """Return `text` with `lines` before the first entry of `node`; at the top, at the end."""
    if not depth:
        return text + ("" if text.endswith("\n") else "\n") + lines + "\n"
    begin = text.rfind("\n", 0, node.start_mark.index) + 1
    return text[:begin] + lines + "\n" + text[begin:]


def _value_of(node: yaml.Node, key: str) -> Any:
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    return next((value for each, value in pairs if each.value == key), None)


def _column(node: yaml.MappingNode) -> int:
    return node.start_mark.column


def _indent(depth: int) -> str:
    return "  " * depth


def _indented(lines: str, column: int) -> list[str]:
    return [" " * column + line for line in lines.splitlines()]


def _line(key: str, new: NewValue) -> str:
    comment = f" # {new.reason}" if new.reason else ""
    return f"{_scalar(key)}: {_scalar(new.value)}{comment}"


def _scalar(value: Any) -> str:
    written = yaml.safe_dump(value, default_flow_style=True, width=1 << 20).strip()
    return written.removesuffix("...").strip()


def _merged(before: Any, section: Key, values: Mapping[str, NewValue]) -> Any:
    after = deepcopy(before) if before is not None else {}
    inner = after
    for step in section:
        if inner.get(step) is None:
            inner[step] = {}
        inner = inner[step]
        if not isinstance(inner, dict):
            return None  # no text that is written can be that
    inner.update({key: new.value for key, new in values.items()})
    return after
