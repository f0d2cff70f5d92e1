"""From text to validated settings, never losing the place where a value was written.

A YAML file is composed into nodes first, which know their lines; duplicate keys, which YAML readers
usually swallow, are errors here. Environment variables and command-line flags are laid over the
file's values, each with its own origin. When validation fails, the origin of the nearest enclosing
value begins the message.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import BaseModel, BeforeValidator, Field, ValidationError

from batcher.errors import ConfigError

Settings = TypeVar("Settings", bound=BaseModel)
Key = tuple[str | int, ...]

ENVIRONMENT_PREFIX = "BATCHER_"
SECRETS = "quotas"
"""The setting whose own keys are secrets: no message shows one, its line must do."""

_MERGE_TAG = "tag:yaml.org,2002:merge"


class Source:
    """Plain nested values and, for each of them, where it came from."""

    def __init__(self, values: dict[str, Any], origins: dict[Key, str]) -> None:
        """Hold `values`, and `origins` from the path of each value to the place it was written at."""
        self.values = values
        self.origins = origins

    def __eq__(self, other: object) -> bool:
        """Return whether `other` is a source too.

        Settings are equal wherever their values were written.
        """
        return isinstance(other, Source)

    __hash__ = None  # type: ignore[assignment]  # as for any class that compares by its own rule

    def override(self, key: tuple[str, ...], value: Any, origin: str) -> None:
        """Lay `value` over whatever stands at `key`.

        `origin` is what a message about it will name.
        """
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
        ConfigError: the file cannot be read, is not YAML, repeats a key or is not a mapping at its
            top.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as err:
        raise ConfigError(f"{path}: cannot be read: {err}") from err
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        origins = dict(_origins(node, (), path.name, ())) if node is not None else {}
        values = loader.construct_document(node) if node is not None else None
    except RecursionError as err:
        raise ConfigError(
            f"{path.name}: expected settings; got lists or mappings nested too deeply"
        ) from err
    except yaml.YAMLError as err:
        mark = getattr(err, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise ConfigError(
            f"{path.name}{line}: not YAML: {getattr(err, 'problem', None) or err}"
        ) from err
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise ConfigError(
            f"{path.name}:1: expected a mapping of settings; got {type(values).__name__}"
        )
    return Source(values, {(): path.name, **origins})


def _origins(
    node: yaml.Node, key: Key, file: str, around: tuple[yaml.Node, ...]
) -> Iterator[tuple[Key, str]]:
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
    try:
        yaml.SafeLoader("").construct_object(node)
    except yaml.YAMLError:
        raise
    # a date that there is not, digits that are none: PyYAML lets Python's own errors through
    except Exception as err:
        raise ConfigError(f"{place}: expected a value; got {node.value!r:.60}: {err}") from err


def override_from_environment(source: Source, environment: Mapping[str, str]) -> None:
    """Lay every `BATCHER_…` variable over `source`.

    Two underscores stand for a step inwards, values are YAML scalars.

    `BATCHER_DEFAULTS__MAX_BATCH_SIZE=32` sets `defaults.max_batch_size`.
    """
    for name in sorted(environment):
        if name.startswith(ENVIRONMENT_PREFIX):
            key = _spelt(source.values, name.removeprefix(ENVIRONMENT_PREFIX).split("__"))
            shown = name if key[0] != SECRETS else f"{ENVIRONMENT_PREFIX}{SECRETS.upper()}…"
            source.override(key, scalar(environment[name]), f"environment variable {shown}")


_PLATFORM: dict[str, tuple[tuple[str, Any], ...]] = {
    "SAGEMAKER_BIND_TO_PORT": (("port", None), ("sagemaker", True)),
    "AIP_HTTP_PORT": (("port", None),),
    "AIP_HEALTH_ROUTE": (("vertex_health_route", None),),
    "AIP_PREDICT_ROUTE": (("vertex_predict_route", None),),
}
"""Variables that a cloud's platform sets in its containers, and the settings that they mean.

None is the variable's value.

Sources: Amazon SageMaker's and Google Vertex AI's requirements of custom containers.
"""


def override_from_platform(source: Source, environment: Mapping[str, str]) -> None:
    """Lay the variables of a cloud's platform over `source`.

    The platform is outside, so they have the server listen to it.
    """
    for name in sorted(name for name in environment.keys() & _PLATFORM.keys() if environment[name]):
        origin = f"environment variable {name}"
        source.override(("host",), "0.0.0.0", origin)
        for key, value in _PLATFORM[name]:
            given = environment[name]
            source.override(
                (key,),
                (scalar(given) if key == "port" else given) if value is None else value,
                origin,
            )


def _spelt(values: Any, steps: list[str]) -> tuple[str, ...]:
    """Return `steps` as they are spelt in `values`, where a model's name may have capitals.

    Else in small letters.
    """
    key = []
    for step in steps:
        known = values if isinstance(values, dict) else {}
        spelt = {str(name).lower(): str(name) for name in known}
        key.append(
            step
            if step in known
            else spelt.get(step.lower(), step.lower() if step.isupper() else step)
        )
        values = known.get(key[-1])
    return tuple(key)


def scalar(text: str) -> Any:
    """Read one value as YAML would: `true`, `3`, `[1, 2]`, or the text itself."""
    try:
        return yaml.safe_load(text)
    except (
        Exception
    ):  # not YAML, or one of Python's own errors that PyYAML lets through, as in `_check_scalar`
        return text


def validate(schema: type[Settings], source: Source) -> Settings:
    """Return `source` as a `schema`.

    Raises:
        ConfigError: one line for each value that is wrong: where it stands, its name, what was
            expected, what came.
    """
    try:
        return schema.model_validate(source.values)
    except ValidationError as err:
        problems = [problem for problem in err.errors() if not _is_echo(problem)]
        raise ConfigError(
            "\n".join(_explain(schema, source, problem) for problem in problems)
        ) from err


def _is_echo(problem: Any) -> bool:
    """Whether the problem only follows from others.

    A list that is too short because its wrong items were left out.
    """
    return problem["type"] == "too_short" and len(problem["input"]) > 0


def _explain(schema: type[BaseModel], source: Source, problem: Any) -> str:
    key = problem["loc"]
    if problem["type"] == "extra_forbidden":
        return f"{source.origin(key)}: unknown setting {dotted(key)}{_suggestion(schema, key)}"
    if problem["type"] == "missing":
        return f"{source.origin(key)}: {dotted(key)} is missing"
    return (
        f"{source.origin(key)}: {dotted(key) or 'settings'}: expected {_expected(problem)}; got "
        f"{_got(problem)}"
    )


def _expected(problem: Any) -> str:
    told = {
        "byte_size": "a number of bytes, such as 64MiB",
        "too_short": "at least 1 item",
        "string_pattern_mismatch": f"text like {problem.get('ctx', {}).get('pattern')}",
    }
    message: str = told.get(problem["type"], problem["msg"])
    return message.removeprefix("Value error, ").removeprefix("Input should be ")


def _got(problem: Any) -> str:
    """Return what came; of what may be a secret, or hold one, only its kind."""
    key, value = problem["loc"], problem["input"]
    shown = key[:1] != (SECRETS,) or (len(key) > 2 and key[-1] != "[key]")
    return repr(value) if shown else type(value).__name__


def _suggestion(schema: type[BaseModel], key: Key) -> str:
    known = _fields_at(schema, key[:-1])
    close = get_close_matches(str(key[-1]), known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else f"; known here: {', '.join(known)}"


def _fields_at(schema: Any, key: Key) -> list[str]:
    """Return the names of the settings at `key`, through sections, lists of sections and mappings of sections."""
    for step in key:
        section = _section_in(schema)
        fields = (
            {field.alias or name: field for name, field in section.model_fields.items()}
            if section
            else {}
        )
        schema = (
            section
            if section is not schema
            else fields[str(step)].annotation
            if step in fields
            else None
        )
    section = _section_in(schema)
    return [field.alias or name for name, field in section.model_fields.items()] if section else []


def _section_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(
        (found for inner in getattr(annotation, "__args__", ()) if (found := _section_in(inner))),
        None,
    )


def refuse_boolean(kind: str) -> BeforeValidator:
    """Return a validator that takes no boolean for a number, which Python would.

    `kind` says what was expected.
    """

    def check(value: Any) -> Any:
        if isinstance(value, bool):
            raise ValueError(kind)
        return value

    return BeforeValidator(check)


Integer = Annotated[int, refuse_boolean("a valid integer")]
Number = Annotated[float, Field(allow_inf_nan=False), refuse_boolean("a valid number")]


def dotted(key: Key) -> str:
    """Return `key` as messages have it: steps joined by dots, one that is a secret left out."""
    if key[:1] == (SECRETS,) and len(key) > 1:
        key = (SECRETS, "<key>", *(step for step in key[2:] if step != "[key]"))
    return ".".join(map(str, key))
