"""A real page server, and a phone's browser without a screen at it."""

import contextlib
import json
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.processes import PATIENCE, Command, command_environment

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
FLAGS = ("headless=new", "no-sandbox", "disable-gpu", "enable-unsafe-swiftshader", "window-size=1280,1200")


@contextlib.contextmanager
def serving(folder: Path, module: str, *arguments: str, forked: bool = True) -> Iterator[str]:
    """The address of the page that a command serves, with ``folder`` for temporary files; it must end as it should."""
    before = {path.name for path in folder.iterdir()}
    environment = command_environment() | {
        "TMPDIR": str(folder),
        "TORCHINDUCTOR_CACHE_DIR": str(folder.parent / "torch"),
    }
    process: Command | subprocess.Popen[str]
    if forked:
        process = Command(module, *arguments, env=environment)
    else:
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        process = subprocess.Popen([sys.executable, "-m", module, *arguments], env=environment, **pipes)
    yield address_of(process)
    process.send_signal(signal.SIGTERM)
    errors = process.communicate()[1]
    assert (process.returncode, errors) == (0, ""), f"it ended with {process.returncode}: {errors}"
    left = {path.name for path in folder.iterdir()} - before
    assert not left, f"temporary files are left: {left}"


def address_of(process: "Command | subprocess.Popen[str]") -> str:
    """The address that a command prints as it begins to serve; its page is guarded."""
    line = process.first_line() if isinstance(process, Command) else process.stdout.readline()
    found = re.search(r"http://127\.0\.0\.1:\d+", line)
    assert found, process.communicate()[1]
    refuses_strangers(found[0])
    return found[0]


def refuses_strangers(address: str) -> None:
    """A page is guarded: names that were made to point here, other websites, and files of this machine."""
    for path, headers in (
        ("/config", {"Host": "evil.example"}),
        ("/config", {"Origin": "http://evil.example"}),
        ("/gradio_api/file=/etc/passwd", {}),
    ):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(urllib.request.Request(address + path, headers=headers))
        assert refused.value.code == 403


@contextlib.contextmanager
def browsing(address: str, downloads: Path) -> Iterator[Any]:
    """A phone's browser at the page; it must not have asked anyone else for anything."""
    if BROWSER is None or DRIVER is None:
        pytest.skip("Chromium and its driver are not installed; apt-get install chromium chromium-driver")
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for flag in FLAGS:
        options.add_argument(f"--{flag}")
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    options.add_experimental_option("mobileEmulation", {"deviceMetrics": {"width": 390, "height": 844}})
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    # Else a browser asks before it saves another file without a click of its user.
    driver.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(downloads)})
    try:
        driver.get(address)
        until(lambda: parts(driver, "#samples .gallery-item")[2])
        yield driver
        errors = [entry for entry in driver.get_log("browser") if entry["source"] in ("javascript", "security")]
        assert not errors, "the page's scripts fail or want what they may not have"
        messages = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
        asked = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
        assert all(url.startswith((address, "data:", "blob:")) for url in asked), asked
    finally:
        driver.quit()


def until(found: Callable[[], Any], what: Callable[[], str] = lambda: "") -> Any:
    """The first true value, or a failure after some time; the page may be half-drawn meanwhile."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        try:
            if value := found():
                return value
        except Exception as error:
            if not isinstance(error, IndexError) and "selenium" not in type(error).__module__:
                raise
        time.sleep(0.1)
    pytest.fail(f"waited in vain; {what()}")


def parts(driver, selector: str) -> list[Any]:
    return driver.find_elements("css selector", selector)


def press(driver: Any, selector: str, number: int = 0) -> None:
    """As a click, wherever the page is scrolled to."""
    driver.execute_script("arguments[0].click()", until(lambda: parts(driver, selector)[number]))


def pick_sample(driver, number: int, words: str) -> None:
    press(driver, "#samples .gallery-item button", number)
    until(lambda: words in parts(driver, "#instruction textarea")[0].get_property("value"))


def status(driver) -> str:
    return parts(driver, "#status")[0].text


def says(driver, words: str) -> None:
    until(lambda: words in status(driver), lambda: f"wanted {words!r}, the page says {status(driver)!r}")


def upload(driver, path: Path) -> None:
    until(lambda: parts(driver, "#video input[type=file]")[0]).send_keys(str(path))
