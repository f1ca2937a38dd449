"""A browser for each test that asks for a page."""

import pytest

from tests.fakes.web_page import Page


@pytest.fixture
def open_page():
    """A function that opens the page as a new user does; the browser is closed at the end."""
    pages = []

    def opened(server):
        pages.append(Page(server))
        return pages[-1].open().close_templates()

    yield opened
    for page in pages:
        page.driver.quit()
