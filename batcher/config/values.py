"""The kinds of value that settings have, and what every section of them has in common."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ByteSize, ConfigDict, Field

from batcher.config.reading import Integer, Number, refuse_boolean

Seconds = Annotated[Number, Field(gt=0, le=86_400, allow_inf_nan=False)]
SecondsOrNone = Annotated[Number, Field(ge=0, le=86_400, allow_inf_nan=False)]
Milliseconds = Annotated[Number, Field(gt=0, le=86_400_000, allow_inf_nan=False)]
MillisecondsOrNone = Annotated[Number, Field(ge=0, le=86_400_000, allow_inf_nan=False)]
Count = Annotated[Integer, Field(ge=1, le=1 << 31)]
Bytes = Annotated[ByteSize, refuse_boolean("a number of bytes, such as 64MiB"), Field(ge=1)]


def _path(value: str) -> str:
    if not re.fullmatch(r"/[^{}<>?#%\s]*", value):
        raise ValueError("a path such as /health, without a query and without percent-encoding")
    return value


def _key(value: str) -> str:
    if not re.fullmatch(r"[!-~]+", value):
        raise ValueError("a key of visible ASCII characters, which a header can carry")
    return value


Route = Annotated[str, AfterValidator(_path)]
QuotaKey = Annotated[str, AfterValidator(_key)]

MIB = 1 << 20


class Section(BaseModel):
    """A mapping of known keys, which does not change once it was read."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())
