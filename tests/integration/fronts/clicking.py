"""Click through one page: `clicking.py ADDRESS BROWSER PICTURE TEXT [BUTTON]`.

This program runs in the environment of the front-ends, which has playwright. The page gets PICTURE
in its file field, and BUTTON is clicked where the page has one. Then TEXT, a regular expression,
must appear. One line of JSON tells what was seen:

    {"seen": true, "foreign": [addresses that the page asked besides its own], "text": "..."}

Every request to another host is refused, as without a network.
"""

from __future__ import annotations

import json
import re
import sys
from urllib.parse import urlsplit

from playwright.sync_api import Page, Route, TimeoutError, sync_playwright

LIMIT_MS = 60_000
"""For each step: a busy machine draws a page within seconds, so more is a failure."""


def click_through(page: Page, address: str, picture: str, text: str, button: str) -> bool:
    """Return whether `text` appears once the page has the picture."""
    page.goto(address)
    try:
        page.locator("input[type=file]").first.set_input_files(picture)
        if button:
            page.get_by_role("button", name=button, exact=True).click()
        page.get_by_text(re.compile(text)).first.wait_for()
    except TimeoutError:
        return False
    return True


def main(address: str, browser: str, picture: str, text: str, button: str = "") -> None:
    """Click through the page, and print what was seen."""
    foreign: list[str] = []

    def refuse_foreign(route: Route) -> None:
        if urlsplit(route.request.url).hostname in (None, "127.0.0.1", "localhost"):
            route.continue_()
        else:
            foreign.append(route.request.url)
            route.abort()

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        page = chromium.new_page()
        page.set_default_timeout(LIMIT_MS)
        page.route("**/*", refuse_foreign)
        seen = click_through(page, address, picture, text, button)
        found = {"seen": seen, "foreign": foreign, "text": page.locator("body").inner_text()}
        chromium.close()
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
