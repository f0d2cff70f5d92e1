"""The code blocks that `make test` leaves out, with those of the same page that come before."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.end_to_end.docs.running import Page
from tests.end_to_end.docs.servers import Servers
from tests.end_to_end.docs.test_blocks import servers as servers
from tests.end_to_end.docs.test_blocks import workspace as workspace
from tests.end_to_end.docs.workspace import Workspace
from tests.support.blocks import PAGES, ROOT, Block, blocks_of


def waits(block: Block) -> bool:
    return block.when == "integration"


WITH_BLOCKS = [page for page in PAGES if any(map(waits, blocks_of(page)))]


@pytest.mark.parametrize("page", WITH_BLOCKS, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_blocks_of_a_page_run(page: Path, workspace: Workspace, servers: Servers) -> None:
    try:
        Page(page, workspace, servers).run(lambda block: block.when != "never")
    except ModuleNotFoundError as err:
        pytest.skip(f"the page needs {err.name}; `make lint` installs what pages need")
