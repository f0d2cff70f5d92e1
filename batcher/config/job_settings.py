"""What batch jobs a server takes: the setting `jobs` in `config.yaml`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from batcher.config.reading import Number
from batcher.config.values import Count, Section


class JobSettings(Section):
    """The batch jobs of a server.

    Attributes:
        folder: folder in which the server notes its jobs, relative to the configuration file.
        inputs: folders and addresses of stores, such as `s3://bucket/folder`; the input of a job
            lies below one of them.
        outputs: the same of the output.
        at_once: most jobs that run at a time; others wait.
        most: most jobs that are noted; the job that ended first makes room.
        keep_days: days for which a job that has ended is noted; its output stays.
    """

    folder: Annotated[str, Field(min_length=1)] = "jobs"
    inputs: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    outputs: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    at_once: Count = 1
    most: Count = 1000
    keep_days: Annotated[Number, Field(gt=0, le=36_500)] = 7.0
