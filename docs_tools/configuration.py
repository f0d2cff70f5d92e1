"""The reference of both files that people write: `config.yaml` and `model.yaml`.

What a key is stands in the docstring of its class. The default, and the reason for the default, are
those of the `config.yaml` in the repository.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel

from batcher.config.cache import Cache
from batcher.config.image_file import ImageFile
from batcher.config.job_settings import JobSettings, UploadSettings
from batcher.config.model_file import ModelFile
from batcher.config.model_settings import ModelOverrides, ModelSettings
from batcher.config.model_tensors import InputFile, OutputFile
from batcher.config.pipelines.step_file import StepFile, StepOutputFile
from batcher.config.quota import Quota
from batcher.config.ray_settings import RaySettings
from batcher.config.settings import ServerSettings
from batcher.config.traffic import Canary, Latest, Shadow
from batcher.config.values import TakesEffect
from docs_tools.docstrings import section, sentence, table

ROOT = Path(__file__).resolve().parent.parent
_LINE = re.compile(r"^( *)([a-z]\w*):(?: (.*?))?(?: # (.*))?$")


class Default(NamedTuple):
    """What `config.yaml` says of a setting."""

    value: str
    reason: str


def defaults() -> dict[tuple[str, ...], Default]:
    """Return what `config.yaml` says, by the path of the setting; `defaults` are one section."""
    found: dict[tuple[str, ...], Default] = {}
    above: list[str] = []
    for line in (ROOT / "config.yaml").read_text().splitlines():
        match = _LINE.match(line)
        if line.lstrip().startswith("#"):
            above.append(line.lstrip("# "))
        elif match is None:
            above = []
        else:
            indent, key, value, reason = match.groups()
            path = ("defaults", key) if indent else (key,)
            parts = [" ".join(above), reason or ""]
            found[path] = Default(value or "", " ".join(map(_full_sentence, filter(None, parts))))
            above = []
    return found


def settings_page() -> str:
    """Return the page of `config.yaml`."""
    said = defaults()
    server = [
        (f"`{name}`", _value(said[name,]), sentence(text), said[name,].reason, _when(name))
        for name, text in section(ServerSettings.__doc__, "Attributes").items()
        if name not in ("defaults", "models")
    ]
    model = [
        (f"`{name}`", _value(said["defaults", name]), sentence(text), said["defaults", name].reason)
        for name, text in _texts(ModelSettings).items()
    ]
    own = section(ModelOverrides.__doc__, "Attributes")["path"]
    return f"""# Settings: every key of `config.yaml`

`config.yaml` says how a server runs: where it listens, what it bounds, how each model is batched.
What a model *is* (its format, its inputs and outputs) stands in the model's own
[`model.yaml`](model_yaml.md); [which key belongs to which
file](model_yaml.md#which-file-a-key-belongs-to) stands there. [How settings are put
together](../configuration.md): flags override variables, variables override the file, and the
file overrides the defaults.

## Of the server

{table(("setting", "default", "what", "why this default", "a change takes effect"), server)}
## Of each model

Keys of `defaults` hold for every model, and those of `models.NAME` for one. A changed value takes
effect at the next reload.

{table(("setting", "default", "what", "why this default"), model)}
`models.NAME` has one more key, `path`: {own}

## Of `shadow`

Below a model, `shadow` names a version that gets copies of requests ([how](../rollouts.md#shadow)).

{_fields(Shadow)}
## Of `canary`

Below a model, `canary` names a version that is tried ([how](../rollouts.md#canary)).

{_fields(Canary)}
## Of `cache`

Below a model, or below `defaults`, `cache` has answers kept ([how](../cache.md)).

{_fields(Cache)}
## Of `ray`

Below a model, or below `defaults`, `ray` says what an instance with `worker: ray` takes
([how](../ray.md)).

{_fields(RaySettings)}
## Of `jobs`

`jobs` lets clients have files read and written by batch jobs ([how](../jobs.md#jobs-of-a-server)).

{_fields(JobSettings)}
## Of `jobs.uploads`

`uploads` lets clients upload files for OpenAI's batches
([how](../jobs.md#batches-in-openais-form)).

{_fields(UploadSettings)}
## Of a quota

Each entry of `quotas` has a client's key for its name, or `"*"`.

{_fields(Quota)}"""


def model_page() -> str:
    """Return the page of `model.yaml`."""
    return f"""# Every key of `model.yaml`

`model.yaml` stands in the folder of a version, beside the model's files, and says what the model
is. [Your own model](../own_model.md) shows whole examples. A key that is not here is refused,
with the nearest one that is. How a model is run (batch size, deadline, device, worker) stands in
[`config.yaml`](settings.md).

## Of the file

{_fields(ModelFile)}
## Of an input

{_fields(InputFile)}
## Of an output

{_fields(OutputFile)}
## Of a step

Format `pipeline` has `steps` ([how](../pipelines.md)).

{_fields(StepFile)}
## Of an output of a step

A step with `class` says what its code returns; name, dtype and shape are those of any output.

{_fields(StepOutputFile)}
## Of `image`

The key `image` of an input says how a picture becomes one row: `value = (pixel * scale - mean) /
std`. With `image: {{mode: rgb, mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225]}}` a pixel
of 255 becomes (1 - 0.485) / 0.229 = 2.25 in the red channel, as most models of torchvision want
it. An input of dtype UINT8 without `scale` takes pixels as they are, 0 to 255.

{_fields(ImageFile)}
## Which file a key belongs to

{table(("key", "file", "place"), _places())}"""


def _places() -> list[tuple[str, str, str]]:
    rows = [
        *((name, "config.yaml", "at the top") for name in ServerSettings.model_fields),
        *(
            (name, "config.yaml", "under `defaults`, or under `models.NAME` for one model")
            for name in ModelSettings.model_fields
        ),
        ("path", "config.yaml", "under `models.NAME`"),
        *((name, "config.yaml", "under `jobs`") for name in JobSettings.model_fields),
        *((name, "config.yaml", "under `jobs.uploads`") for name in UploadSettings.model_fields),
        *((name, "config.yaml", "under a key of `quotas`") for name in Quota.model_fields),
        *((name, "config.yaml", "under `versions`") for name in Latest.model_fields),
        *((name, "config.yaml", "under `shadow`") for name in Shadow.model_fields),
        *((name, "config.yaml", "under `canary`") for name in Canary.model_fields),
        *((name, "config.yaml", "under `cache`") for name in Cache.model_fields),
        *((name, "config.yaml", "under `ray`") for name in RaySettings.model_fields),
        *((_key(ModelFile, name), "model.yaml", "at the top") for name in ModelFile.model_fields),
        *((name, "model.yaml", "under an input") for name in InputFile.model_fields),
        *(
            (_key(OutputFile, name), "model.yaml", "under an output")
            for name in OutputFile.model_fields
        ),
        *((_key(StepFile, name), "model.yaml", "under a step") for name in StepFile.model_fields),
        *((name, "model.yaml", "under `image` of an input") for name in ImageFile.model_fields),
    ]
    return [(f"`{name}`", f"`{file}`", place) for name, file, place in sorted(rows)]


def _full_sentence(text: str) -> str:
    return sentence(text) if text.endswith(".") else f"{sentence(text)}."


def _value(default: Default) -> str:
    return f"`{default.value}`" if default.value else ""


def _when(name: str) -> str:
    metadata = ServerSettings.model_fields[name].metadata
    (mark,) = [mark for mark in metadata if isinstance(mark, TakesEffect)]
    return mark.value


def _key(owner: type[BaseModel], name: str) -> str:
    """Return how people write the key of a field."""
    return owner.model_fields[name].alias or name


def _fields(owner: type[BaseModel]) -> str:
    texts = _texts(owner)
    rows = [
        (f"`{_key(owner, name)}`", _default(owner, name), sentence(texts[name]))
        for name in owner.model_fields
    ]
    return table(("key", "without it", "what"), rows)


def _texts(owner: type[BaseModel]) -> dict[str, str]:
    """Return what each field of `owner` is, those of its bases first."""
    texts: dict[str, str] = {}
    for each in reversed(owner.__mro__):
        texts |= section(each.__doc__, "Attributes")
    return {name: texts[name] for name in owner.model_fields}


def _default(owner: type[BaseModel], name: str) -> str:
    field = owner.model_fields[name]
    if field.is_required():
        return "needed"
    value: Any = field.get_default(call_default_factory=True)
    if value is None or value in ((), {}):
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return f"`{', '.join(f'{each:g}' for each in value)}`"
    return "`1/255`" if value == 1 / 255 else f"`{value}`"
