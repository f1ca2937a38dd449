"""One browser and one plain server for all tests; a page is loaded where a test needs it afresh.

Loading the page takes ten times as long as anything that a test does in it; a server, a browser and the list
of templates, with which the first visit begins, take the same again.
"""

import pytest

from tests.fakes.server_process import ServerProcess, install_live_pack
from tests.fakes.web_page import Page, start_browser


@pytest.fixture(scope="session")
def browser():
    """Chromium; its one tab shows the page that was opened last."""
    driver = start_browser()
    yield driver
    driver.quit()


@pytest.fixture(scope="session")
def live_server(tmp_path_factory):
    """A server without models and options, with the pack of `tests/fakes/live_pack`. All tests share it."""
    folder = tmp_path_factory.mktemp("live")
    install_live_pack(folder)
    with ServerProcess(folder) as server:
        yield server


@pytest.fixture(scope="session")
def shown():
    """The page that the browser shows now: a list that is empty, or holds it."""
    return []


@pytest.fixture
def open_page(browser, shown):
    """A function that opens the page of a server, as a browser that was never there.

    `is_first_visit`: nor was the user, whom the list of templates welcomes. `is_shared`: the page stays as it
    is, tidied up, where it is open and no test has changed it.
    """

    def opened(server, *, is_first_visit=False, is_shared=False):
        page = shown[0] if shown and shown[0].server is server else Page(server, browser)
        if is_shared and shown == [page] and not page.is_changed:
            return page.tidy()
        shown[:] = [page]
        if is_first_visit:
            return page.forget().open().close_templates()
        return page.forget().skip_templates().open()

    return opened
