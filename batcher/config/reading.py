"""From text to validated settings, never losing the place where a value was written.

A YAML file is composed into nodes first, which know their lines; duplicate keys, which YAML readers usually swallow, are
errors here. Environment variables and command-line flags are laid over the file's values, each with its own origin. When
validation fails, the origin of the nearest enclosing value begins the message.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from batcher.errors import ConfigError

Settings = TypeVar("Settings", bound=BaseModel)
Key = tuple[str | int, ...]

ENVIRONMENT_PREFIX = "BATCHER_"


class Source:
    """Plain nested values and, for each of them, where it came from."""

    def __init__(self, values: dict[str, Any], origins: dict[Key, str]) -> None:
        """Hold `values`, and `origins` from the path of each value to the place it was written at."""
        self.values = values
        self.origins = origins

    def override(self, key: tuple[str, ...], value: Any, origin: str) -> None:
        """Lay `value` over whatever stands at `key`; `origin` is what a message about it will name."""
        place = self.values
        for step in key[:-1]:
            inner = place.get(step)
            if not isinstance(inner, dict):
                inner = place[step] = {}
            place = inner
        place[key[-1]] = value
        self.origins[key] = origin

    def origin(self, key: Key) -> str:
        """Return the place of the value at `key`, or of the nearest value around it."""
        while key and key not in self.origins:
            key = key[:-1]
        return self.origins.get(key, "settings")


def read_yaml(path: Path) -> Source:
    """Read a YAML file whose top is a mapping.

    Raises:
        ConfigError: the file cannot be read, is not YAML, repeats a key or is not a mapping at its top.
    """
    try:
        loader = yaml.SafeLoader(path.read_text(encoding="utf-8"))
        node = loader.get_single_node()
        origins = dict(_origins(node, (), path.name)) if node is not None else {}
        values = loader.construct_document(node) if node is not None else {}
    except (OSError, UnicodeDecodeError) as err:
        raise ConfigError(f"{path}: cannot be read: {err}") from err
    except yaml.YAMLError as err:
        mark = getattr(err, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise ConfigError(f"{path.name}{line}: not YAML: {getattr(err, 'problem', None) or err}") from err
    if not isinstance(values, dict):
        raise ConfigError(f"{path.name}:1: expected a mapping of settings; got {type(values).__name__}")
    return Source(values, {(): path.name, **origins})


def _origins(node: yaml.Node, key: Key, file: str) -> Iterator[tuple[Key, str]]:
    if key:
        yield key, f"{file}:{node.start_mark.line + 1}"
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for name, value in node.value:
            place = f"{file}:{name.start_mark.line + 1}"
            if name.value in seen:
                raise ConfigError(f"{place}: {_dotted((*key, name.value))} is set twice")
            seen.add(name.value)
            yield from _origins(value, (*key, name.value), file)
            yield (*key, name.value), place
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield from _origins(value, (*key, index), file)


def override_from_environment(source: Source, environment: Mapping[str, str]) -> None:
    """Lay every `BATCHER_…` variable over `source`; two underscores stand for a step inwards, values are YAML scalars.

    `BATCHER_DEFAULTS__MAX_BATCH_SIZE=32` sets `defaults.max_batch_size`.
    """
    for name in sorted(environment):
        if name.startswith(ENVIRONMENT_PREFIX):
            key = tuple(name.removeprefix(ENVIRONMENT_PREFIX).lower().split("__"))
            source.override(key, scalar(environment[name]), f"environment variable {name}")


def scalar(text: str) -> Any:
    """Read one value as YAML would: `true`, `3`, `[1, 2]`, or the text itself."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def validate(schema: type[Settings], source: Source) -> Settings:
    """Return `source` as a `schema`.

    Raises:
        ConfigError: one line for each value that is wrong: where it stands, its name, what was expected, what came.
    """
    try:
        return schema.model_validate(source.values)
    except ValidationError as err:
        raise ConfigError("\n".join(_explain(schema, source, problem) for problem in err.errors())) from err


def _explain(schema: type[BaseModel], source: Source, problem: Any) -> str:
    key = tuple(step for step in problem["loc"] if step not in ("function-after", "function-before"))
    if problem["type"] == "extra_forbidden":
        return f"{source.origin(key)}: unknown setting {_dotted(key)}{_suggestion(schema, key)}"
    if problem["type"] == "missing":
        return f"{source.origin(key)}: {_dotted(key)} is missing"
    expected = problem["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    return f"{source.origin(key)}: {_dotted(key) or 'settings'}: expected {expected}; got {problem['input']!r}"


def _suggestion(schema: type[BaseModel], key: Key) -> str:
    known = _fields_at(schema, key[:-1])
    close = get_close_matches(str(key[-1]), known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else f"; known here: {', '.join(known)}"


def _fields_at(schema: Any, key: Key) -> list[str]:
    for step in key:
        if isinstance(schema, type) and issubclass(schema, BaseModel):
            fields = {field.alias or name: field for name, field in schema.model_fields.items()}
            schema = fields[str(step)].annotation if step in fields else None
        schema = next((inner for inner in _inner_types(schema) if issubclass(inner, BaseModel)), schema)
    if isinstance(schema, type) and issubclass(schema, BaseModel):
        return [field.alias or name for name, field in schema.model_fields.items()]
    return []


def _inner_types(annotation: Any) -> Iterator[type]:
    for inner in getattr(annotation, "__args__", ()):
        if isinstance(inner, type):
            yield inner
        else:
            yield from _inner_types(inner)


def _dotted(key: Key) -> str:
    return ".".join(map(str, key))
