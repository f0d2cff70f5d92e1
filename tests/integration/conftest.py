"""What several modules share: the image, which takes minutes to build.

`TEST_IMAGE` names one that is there already, for whoever works on these tests.
"""

from __future__ import annotations

import os

import pytest

from tests.integration.images import built


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the name of the image that `Containerfile` describes."""
    return os.environ.get("TEST_IMAGE") or built(tmp_path_factory.mktemp("image"))
