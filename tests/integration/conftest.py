"""What several modules share: the image, which takes minutes to build.

`TEST_IMAGE` names one that is there already, for whoever works on these tests.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.integration.images import built


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Yield the name of the image that `Containerfile` describes."""
    if there := os.environ.get("TEST_IMAGE"):
        yield there
        return
    with built(tmp_path_factory.mktemp("image")) as name:
        yield name
