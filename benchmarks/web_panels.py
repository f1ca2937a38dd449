"""How long the panels of the web page take with a long history and a long queue, in a real browser.

    python benchmarks/web_panels.py [--history 3000] [--queue 500]

A server runs `--history` tiny prompts, then one that lasts, with `--queue` prompts behind it; another one
runs one prompt and has one waiting. The page is opened, and each panel is clicked until its rows stand there.
Errors in the console are printed, and the exit code is 1 if there are any. Needs Chromium and chromedriver.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.fakes.server_process import ServerProcess, install_live_pack  # noqa: E402
from tests.fakes.web_page import Page, start_browser  # noqa: E402

PANELS = {
    "job panel of the page": (
        "[data-testid=queue-overlay-toggle]",
        "[data-job-id], [role=tabpanel] [role=listitem]",
    ),
    "media panel of the page": ("[data-testid=assets-tab-button]", ".sidebar-content-container img"),
    "Depot panel": ("[data-testid=comfyui-depot-tab-button]", ".depot-run .depot-row"),
}


def picture(number: int) -> dict:
    return {"1": {"class_type": "LivePicture", "inputs": {"red": number % 256}}}


def fill(server: ServerProcess, history: int, queue: int) -> None:
    """Run prompts, then leave others waiting."""
    with ThreadPoolExecutor(4) as pool:
        for _ in pool.map(
            lambda number: server.post_json("/prompt", {"prompt": picture(number), "force": True}),
            range(history),
        ):
            pass
    while server.get_json("/prompt")["exec_info"]["queue_remaining"]:
        time.sleep(0.2)
    slow = {"1": {"class_type": "LiveSlow", "inputs": {"steps": 100_000, "seconds": 0.05}}}
    server.post_json("/prompt", {"prompt": slow})
    for number in range(queue):
        server.post_json("/prompt", {"prompt": picture(number)})


def seconds_of(server: ServerProcess) -> tuple[dict[str, float], list[str]]:
    """(seconds until the page and each panel stand there, errors in the console)."""
    page, seconds = Page(server, start_browser()), {}
    try:
        started = time.perf_counter()
        page.open()
        seconds["page"] = time.perf_counter() - started
        page.close_templates()
        for name, (button, row) in PANELS.items():
            started = time.perf_counter()
            page.driver.execute_script("document.querySelector(arguments[0]).click()", button)
            page.wait(f"return document.querySelector({row!r}) !== null")
            seconds[name] = time.perf_counter() - started
        time.sleep(2)
        return seconds, page.errors()
    finally:
        page.driver.quit()


def measure(history: int, queue: int) -> tuple[dict[str, float], list[str]]:
    """The same, with a server of its own that has so much behind it and before it."""
    with tempfile.TemporaryDirectory() as folder:
        install_live_pack(Path(folder))
        with ServerProcess(Path(folder)) as server:
            fill(server, history, queue)
            return seconds_of(server)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--history", type=int, default=3000)
    parser.add_argument("--queue", type=int, default=500)
    options = parser.parse_args()
    short, errors = measure(history=1, queue=1)
    long, more_errors = measure(options.history, options.queue)
    title = f"{options.history} + {options.queue}"
    print(f"{'seconds until it is shown':<26} {'1 + 1':>12} {title:>12} {'ratio':>6}")
    for name, seconds in short.items():
        print(f"{name:<26} {seconds:12.2f} {long[name]:12.2f} {long[name] / seconds:6.2f}")
    print("\n".join(errors + more_errors) or "No error in the console.")
    return 1 if errors + more_errors else 0


if __name__ == "__main__":
    sys.exit(main())
