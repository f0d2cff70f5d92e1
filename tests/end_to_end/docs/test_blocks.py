"""Every code block of README and docs/ runs, and prints what the page shows."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.docs.running import Page
from tests.end_to_end.docs.servers import Servers, running_servers
from tests.end_to_end.docs.workspace import Workspace
from tests.support.blocks import PAGES, ROOT, Block, blocks_of
from tests.test_docs import RUN_ELSEWHERE


def runs(block: Block) -> bool:
    return block.when == "test"


WITH_BLOCKS = [
    page for page in PAGES if page not in RUN_ELSEWHERE and any(map(runs, blocks_of(page)))
]


NEEDED = {"protocols.md": ("tritonclient",)}
"""Page to the modules that its blocks import and `make test` does not install; `make lint` does."""


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return Workspace(tmp_path_factory.mktemp("workspace"))


@pytest.fixture(scope="module")
def servers(workspace: Workspace) -> Iterator[Servers]:
    with running_servers(workspace) as servers:
        yield servers


@pytest.mark.skipif(shutil.which("curl") is None, reason="the pages ask by curl; it is not here")
@pytest.mark.parametrize("page", WITH_BLOCKS, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_blocks_of_a_page_run(page: Path, workspace: Workspace, servers: Servers) -> None:
    for module in NEEDED.get(page.name, ()):
        pytest.importorskip(module)
    assert Page(page, workspace, servers).run(runs)
