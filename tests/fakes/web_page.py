"""The web page of a server in a real browser: headless Chromium, driven by selenium."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

# The page asks whether the user has these; "404" is how the server says "no", and the browser writes it down.
NORMALLY_ABSENT = (
    "/user.css ",
    "/api/userdata/user.css ",
    "/api/userdata/comfy.templates.json ",
    "/api/userdata/workflows%2F.index.json ",
    "/api/userdata?dir=workflows&",
    "/api/userdata?dir=subgraphs&",
    "/api/experiment/models/preview/",
)
# The page asks sites outside for what only they know: sizes of models that a workflow lacks, packs of nodes.
OUTSIDE = ("https://huggingface.co/", "https://civitai.com/", "https://api.comfy.org/")
IS_READY = "return window.app?.vueAppReady && document.querySelector('[data-testid=queue-button]')"


def executable(*names):
    """Path of the first program that is installed."""
    import shutil

    return next((path for name in names if (path := shutil.which(name))), None)


TIDY = """
const done = arguments[0];
import('/extensions/depot/force.js').then(({force}) => {
    force.problem = null;
    force.set({choice: 'usual', cache: 'read'});
    document.querySelector('.depot-menu:popover-open')?.hidePopover();
    app.extensionManager.sidebarTab.activeSidebarTabId = null;
    app.extensionManager.toast.dismissAll();
    done();
}).catch(done);
"""


def is_expected(error):
    """Whether a line of the console is one that an ordinary visit leaves too."""
    is_absent = " 404 " in error and any(part in error for part in NORMALLY_ABSENT)
    return is_absent or ("net::ERR_NAME_NOT_RESOLVED" in error and error.startswith(OUTSIDE))


def start_browser():
    """Headless Chromium that can reach nothing but this machine; a selenium driver. It takes two seconds."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = executable("chromium", "chromium-browser", "google-chrome")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--disable-gpu",
        "--window-size=1600,1000",
        "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
    ):
        options.add_argument(argument)
    return webdriver.Chrome(options=options, service=Service(executable("chromedriver")))


class Page:
    """The web page of a server in a browser. Another server's page in the same browser takes its place."""

    def __init__(self, server, driver):
        self.server, self.driver = server, driver
        self.is_changed = False
        """Whether a test has put something of its own into the page, so that it must be loaded again."""

    def forget(self):
        """Be as a browser that has never been here: nothing is stored, nothing stands in the console."""
        self.driver.get("about:blank")
        self.driver.execute_cdp_cmd(
            "Storage.clearDataForOrigin", {"origin": self.server.url, "storageTypes": "all"}
        )
        self.driver.get_log("browser")
        return self

    def open(self):
        """Load the page and wait until it can be used."""
        self.driver.get(self.server.url)
        self.wait(IS_READY)
        self.is_changed = False
        return self

    def tidy(self):
        """Close panels and notes and take choices back, which is much faster than to load the page again."""
        problem = self.driver.execute_async_script(TIDY)
        assert problem is None, problem
        self.driver.get_log("browser")
        return self

    def skip_templates(self):
        """Let the page be that of a user who has been here: no list of templates comes up."""
        self.server.request("POST", "/settings/Comfy.TutorialCompleted", True)
        return self

    def close_templates(self):
        """Leave the list of templates, with which the first visit of a new user begins."""
        self.wait("return document.querySelector('[role=dialog]')?.innerText.includes('Templates')")
        while self.driver.execute_script("return document.querySelector('[role=dialog]') !== null"):
            self.driver.find_element("tag name", "body").send_keys("\ue00c")
            time.sleep(0.3)
        return self

    def wait(self, script, *, seconds=90):
        """Run a script until it gives something that is neither empty nor false, and return that."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if found := self.driver.execute_script(script):
                return found
            time.sleep(0.1)
        raise AssertionError(f"Nothing came of: {script}\n{self.errors()}\n{self.server.log()}")

    def load_workflow(self, file: Path, node_count: int):
        """Open a workflow file as the page's own 'Open' does."""
        from selenium.webdriver.common.by import By

        self.driver.find_element(By.ID, "comfy-file-input").send_keys(str(file))
        self.wait(f"return app.graph.nodes.length === {node_count}")

    def run(self):
        """Press the page's Run button."""
        from selenium.webdriver.common.by import By

        self.driver.find_element(By.CSS_SELECTOR, "[data-testid=queue-button]").click()

    def click(self, selector):
        """Click the first element that a CSS selector finds, as soon as it is there."""
        from selenium.webdriver.common.by import By

        self.wait(f"return document.querySelector({json.dumps(selector)})?.checkVisibility()")
        self.driver.find_element(By.CSS_SELECTOR, selector).click()

    def text(self, selector):
        """What can be read in the first element that a CSS selector finds; None if there is none."""
        return self.driver.execute_script("return document.querySelector(arguments[0])?.innerText", selector)

    def press(self, *keys):
        """Press keys together, wherever the cursor is."""
        from selenium.webdriver.common.action_chains import ActionChains

        chain = ActionChains(self.driver)
        for key in keys:
            chain.key_down(key)
        for key in reversed(keys):
            chain.key_up(key)
        chain.perform()

    def errors(self):
        """What stands in the console as an error since the last call, failed requests among it.

        Left out are files that are normally absent, and sites outside that a test cannot reach.
        """
        severe = [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]
        return [text for text in severe if not is_expected(text)]

    def save_screenshot(self, name, *, seconds=0):
        """Keep a picture of the page in the folder that SCREENSHOTS names, if it names one.

        It is taken after so many seconds: notes go, and the canvas comes to rest.
        """
        if folder := os.environ.get("SCREENSHOTS"):
            time.sleep(seconds)
            Path(folder).mkdir(parents=True, exist_ok=True)
            self.driver.save_screenshot(str(Path(folder) / name))
