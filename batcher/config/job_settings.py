"""What batch jobs a server takes: the setting `jobs` in `config.yaml`."""

from __future__ import annotations

from typing import Annotated

from pydantic import ByteSize, Field

from batcher.config.reading import Number
from batcher.config.values import Bytes, Count, Section


class UploadSettings(Section):
    """Files that clients upload, and batches over them, in OpenAI's form.

    Attributes:
        max_file_bytes: most bytes of a file.
        max_bytes: most bytes of all uploaded files together.
        max_requests: most requests of a batch.
        key_share: largest share that one API key has of `max_bytes`, of the 10,000 files that are
            kept, of the 32 that arrive at a time, and of the `most` jobs that have not ended; all
            clients without a key have one share together. 1 bounds no key.
    """

    max_file_bytes: Bytes = ByteSize(200 << 20)
    max_bytes: Bytes = ByteSize(10 << 30)
    max_requests: Count = 50_000
    key_share: Annotated[Number, Field(gt=0, le=1)] = 1.0


class JobSettings(Section):
    """The batch jobs of a server.

    Attributes:
        folder: folder in which the server notes its jobs, relative to the configuration file.
        inputs: folders and addresses of stores, such as `s3://bucket/folder`; the input of a job
            lies below one of them.
        outputs: the same of the output.
        at_once: most jobs that run at a time; others wait.
        most: most jobs that are noted; the job that ended first makes room.
        keep_days: days for which a job that has ended is noted; its output stays. Uploaded files,
            and batches with their outputs, are removed after as many days.
        uploads: files and batches in OpenAI's form (`/v1/files`, `/v1/batches`); None for none.
    """

    folder: Annotated[str, Field(min_length=1)] = "jobs"
    inputs: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    outputs: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    at_once: Count = 1
    most: Count = 1000
    keep_days: Annotated[Number, Field(gt=0, le=36_500)] = 7.0
    uploads: UploadSettings | None = None
