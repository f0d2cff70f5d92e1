"""From text to validated settings that remember where each value was written.

    file ──► YAML nodes, with lines ──► Source: values, and an origin for each
                                           │  overridden by environment variables and flags
                                           ▼
                                        validate ──► frozen settings, or ConfigError

An origin is a text such as `config.yaml:12` or `--port`. Each error message begins with the origin
of the wrong value, or with that of the nearest value around it.

A key that is written twice is an error here; YAML readers usually keep the last one silently.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from difflib import SequenceMatcher, get_close_matches
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import BaseModel, BeforeValidator, Field, ValidationError
from pydantic.fields import FieldInfo

from batcher.config.redis_address import without_passwords
from batcher.config.service_links import is_service_link
from batcher.config.yaml_text import SECRETS, Key, dotted, parsed
from batcher.errors import ConfigError

Settings = TypeVar("Settings", bound=BaseModel)

ENVIRONMENT_PREFIX = "BATCHER_"


class Source:
    """Plain nested values, and for each value its origin: the place where it was written."""

    def __init__(self, values: dict[str, Any], origins: dict[Key, str]) -> None:
        """Hold `values`, and `origins` from the path of each value to its origin."""
        self.values = values
        self.origins = origins

    def __eq__(self, other: object) -> bool:
        """Return whether `other` is a source too."""
        # A private attribute of the settings, and settings are equal wherever they were written.
        return isinstance(other, Source)

    __hash__ = None  # type: ignore[assignment]  # as for any class that compares by its own rule

    def override(self, key: tuple[str, ...], value: Any, origin: str) -> None:
        """Set the value at `key` to `value`, which was written at `origin`."""
        section = self.values
        for step in key[:-1]:
            inner = section.get(step)
            if not isinstance(inner, dict):
                inner = section[step] = {}
            section = inner
        section[key[-1]] = value
        self.origins[key] = origin

    def origin(self, key: Key) -> str:
        """Return the origin of the value at `key`, or of the nearest value around it."""
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
    except FileNotFoundError as err:
        raise ConfigError(f"{path}: cannot be read: there is no such file") from err
    except (OSError, UnicodeDecodeError) as err:
        raise ConfigError(f"{path}: cannot be read: {err}") from err
    values, origins = parsed(text, path.name)
    if not isinstance(values, dict):
        raise ConfigError(
            f"{path.name}:1: expected a mapping of settings; got {type(values).__name__}"
        )
    # A copy: who reads a file may change what was read.
    return Source(deepcopy(values), {(): path.name, **origins})


def override_from_environment(source: Source, environment: Mapping[str, str]) -> None:
    """Override values of `source` by every `BATCHER_…` variable of `environment`.

    Two underscores are a step inwards, and a value is read as YAML:
    `BATCHER_DEFAULTS__MAX_BATCH_SIZE=32` sets `defaults.max_batch_size` to the number 32. What
    Kubernetes and Docker set for services of that name is passed over.
    """
    for name in sorted(environment):
        if name.startswith(ENVIRONMENT_PREFIX) and not is_service_link(name, environment):
            key = _spelt(source.values, name.removeprefix(ENVIRONMENT_PREFIX).split("__"))
            shown = name if key[0] != SECRETS else f"{ENVIRONMENT_PREFIX}{SECRETS.upper()}…"
            source.override(key, scalar(environment[name]), f"environment variable {shown}")


_PLATFORM: dict[str, tuple[tuple[str, Any], ...]] = {
    "PORT": (("port", None),),
    "SAGEMAKER_BIND_TO_PORT": (("port", None), ("sagemaker", True)),
    "AIP_HTTP_PORT": (("port", None),),
    "AIP_HEALTH_ROUTE": (("vertex_health_route", None),),
    "AIP_PREDICT_ROUTE": (("vertex_predict_route", None),),
}
"""From a variable that a cloud's platform sets in its containers to settings and their values.

A value of None stands for the value of the variable. The first one counts least.

Sources: Amazon SageMaker's and Google Vertex AI's requirements of custom containers; for `PORT`,
the container contract of Cloud Run, and the same variable of Heroku and App Engine flexible.
"""

PLATFORM_VARIABLES = frozenset(_PLATFORM)
"""Variables that set something, besides those that begin with `ENVIRONMENT_PREFIX`."""

_PORT_PLATFORMS = ("DYNO", "GAE_SERVICE", "K_SERVICE")
"""Variables by which Heroku, App Engine and Cloud Run tell that they have set `PORT`."""


def override_from_platform(source: Source, environment: Mapping[str, str]) -> None:
    """Override values of `source` by the variables of a cloud's platform.

    The platform calls the server from outside the container, so each of these variables also makes
    the server listen on all addresses. `PORT` alone, without a variable of a platform beside it,
    sets the port and no more: people set it on machines of their own, too.
    """
    inside = any(environment.get(name) for name in _PORT_PLATFORMS)
    for name in (name for name in _PLATFORM if environment.get(name)):
        origin = f"environment variable {name}"
        if name != "PORT" or inside:
            source.override(("host",), "0.0.0.0", origin)
        for key, value in _PLATFORM[name]:
            if value is None:
                value = scalar(environment[name]) if key == "port" else environment[name]
            source.override((key,), value, origin)


def _spelt(values: Any, steps: list[str]) -> tuple[str, ...]:
    """Return `steps`, of a variable's name, as they are spelt in `values`.

    A model's name may have capitals, so a key of `values` that differs only in case is taken as it
    is. A step that `values` does not hold is taken in small letters if it is all capitals.
    """
    key = []
    for step in steps:
        known = values if isinstance(values, dict) else {}
        if step not in known:
            spelt = {str(name).lower(): str(name) for name in known}
            step = spelt.get(step.lower(), step.lower() if step.isupper() else step)
        key.append(step)
        values = known.get(step)
    return tuple(key)


def scalar(text: str) -> Any:
    """Return one value as YAML reads it: `true`, `3`, `[1, 2]`, or the text itself."""
    try:
        return yaml.safe_load(text)
    # Not YAML, or one of Python's own errors that PyYAML lets through, as in `_check_scalar`.
    except Exception:
        return text


def validate(
    schema: type[Settings], source: Source, elsewhere: Mapping[str, str] = MappingProxyType({})
) -> Settings:
    """Return the values of `source` as settings of the class `schema`.

    Args:
        schema: what the values may be.
        source: the values.
        elsewhere: from the name of a setting that belongs into another place to that place.

    Raises:
        ConfigError: values are wrong; the message has one line for each: its origin, its name, what
            was expected, what came.
    """
    try:
        return schema.model_validate(source.values)
    except ValidationError as err:
        problems = [problem for problem in err.errors() if not _is_echo(problem)]
        raise ConfigError(
            "\n".join(_explain(schema, source, problem, elsewhere) for problem in problems)
        ) from None  # Pydantic's own text says the same, in words for programmers


def _is_echo(problem: Any) -> bool:
    """Whether `problem` only follows from others.

    Pydantic leaves the wrong items out of a list, and then finds the list too short.
    """
    return problem["type"] == "too_short" and len(problem["input"]) > 0


def _explain(
    schema: type[BaseModel], source: Source, problem: Any, elsewhere: Mapping[str, str]
) -> str:
    key = problem["loc"]
    if problem["type"] == "extra_forbidden":
        advice = _suggestion(schema, key, elsewhere)
        return f"{source.origin(key)}: unknown setting {dotted(key)}{advice}"
    if problem["type"] == "missing":
        return f"{source.origin(key)}: {dotted(key)} is missing"
    return (
        f"{source.origin(key)}: {dotted(key) or 'settings'}: expected {_expected(problem)}; got "
        f"{_got(problem)}{_quoting(problem)}"
    )


def _quoting(problem: Any) -> str:
    """Return the advice to quote a value that YAML takes for something else than text, or nothing.

    YAML reads `no`, `off` and `null` as false and as nothing, `1.10` as a number, `2024-05-01` as a
    date.
    """
    value = problem["input"]
    if problem["type"] != "string_type" or isinstance(value, dict | list | tuple):
        return ""
    if isinstance(value, bool):
        return '; YAML reads no, yes, on and off as false and true: quote it, as in "no"'
    return "; quote it to make it text" if value is not None else "; quote it to mean the text null"


def _expected(problem: Any) -> str:
    texts = {
        "byte_size": "a number of bytes, such as 64MiB",
        "dict_type": "a mapping, as {name: value}",
        "list_type": "a list, as [a, b]",
        "tuple_type": "a list, as [a, b]",
        "too_short": "at least 1 item",
        "string_pattern_mismatch": f"text like {problem.get('ctx', {}).get('pattern')}",
    }
    message: str = texts.get(problem["type"], problem["msg"])
    return message.removeprefix("Value error, ").removeprefix("Input should be ")


def _got(problem: Any) -> str:
    """Return the wrong value as text; of one that is or holds a secret, or all, less."""
    key, value = problem["loc"], problem["input"]
    if not key:  # of several settings that do not go together the whole file is the value
        return "something else"
    # Below a quota's key stand its plain values; Pydantic marks the key itself with "[key]".
    is_public = key[:1] != (SECRETS,) or (len(key) > 2 and key[-1] != "[key]")
    is_shown = is_public and key[-1:] != ("secret",)
    return without_passwords(repr(value)) if is_shown else type(value).__name__


def _suggestion(schema: type[BaseModel], key: Key, elsewhere: Mapping[str, str]) -> str:
    """Return the setting that is meant by `key`, here or in one of the places of `elsewhere`."""
    known, name = names_at(schema, key[:-1]), str(key[-1])
    here = get_close_matches(name, known, n=1, cutoff=0.5)
    likeness = _likeness(here[0], name) if here else 0.0
    # `default` for `defaults`: a slip here is likelier than a key of another file
    if name in elsewhere and likeness < 0.9:
        return f"; {name} belongs {elsewhere[name]}"
    there = get_close_matches(name, elsewhere, n=1, cutoff=0.75)
    if there and there[0] != name and _likeness(there[0], name) > likeness:
        return f"; did you mean {there[0]}? {there[0]} belongs {elsewhere[there[0]]}"
    return f"; did you mean {here[0]}?" if here else f"; known here: {', '.join(known)}"


def _likeness(known: str, name: str) -> float:
    # in this order, as `get_close_matches` has it: the reverse order may give another number
    return SequenceMatcher(None, known, name).ratio()


def names_at(schema: Any, key: Key = ()) -> list[str]:
    """Return the names of the settings at `key` below `schema`, as they stand in the file.

    `schema` is a section or a type that contains a section, such as a list or a mapping of it. A
    step of `key` through a list or a mapping is an index or a key, and leads to the section inside.
    """
    for step in key:
        section = _section_in(schema)
        if section is not schema:
            schema = section
        else:
            field = _fields_of(section).get(str(step))
            schema = field.annotation if field is not None else None
    return list(_fields_of(_section_in(schema)))


def _fields_of(section: type[BaseModel] | None) -> dict[str, FieldInfo]:
    """Return the fields of `section` by their names in the file."""
    fields = section.model_fields.items() if section is not None else ()
    return {field.alias or name: field for name, field in fields}


def _section_in(annotation: Any) -> type[BaseModel] | None:
    """Return the section that `annotation` is or contains, None if it has no section."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(
        (found for inner in getattr(annotation, "__args__", ()) if (found := _section_in(inner))),
        None,
    )


def refuse_boolean(kind: str) -> BeforeValidator:
    """Return a validator that refuses a boolean, which Python would accept as a number.

    Args:
        kind: what is expected instead, for the error message.
    """

    def check(value: Any) -> Any:
        if isinstance(value, bool):
            raise ValueError(kind)
        return value

    return BeforeValidator(check)


Integer = Annotated[int, refuse_boolean("a valid integer")]
Number = Annotated[float, Field(allow_inf_nan=False), refuse_boolean("a valid number")]
