"""The web page as it is used: the command, a real server, and a real browser without a screen."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from imvideoedit.video.reader import read_video, write_video
from tests.processes import PATIENCE, command_environment, run
from tests.test_edit import assert_one_line

pytest.importorskip("gradio", reason="gradio is not installed; pip install 'imvideoedit[app]'")
pytestmark = pytest.mark.slow

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
APP = [sys.executable, "-m", "imvideoedit.app.command"]


def app(*arguments) -> subprocess.CompletedProcess:
    return run("imvideoedit.app.command", *arguments)


def test_mistakes_on_the_command_line_cost_one_line(tmp_path):
    assert_one_line(app("--adapter", tmp_path / "none.safetensors"), "no adapter", "none.safetensors")
    assert_one_line(app("--max-seconds", "0"), "--max-seconds")
    assert_one_line(app("--device", "cuda:99", "--port", "0"), "--device cuda:99")
    assert_one_line(app("--port", "99999"), "99999")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert_one_line(app("--port", port), str(port), "in use")


def test_without_gradio_it_says_what_to_install():
    without = (
        "import importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda name, *rest: None if name == 'gradio' else find(name, *rest)\n"
        "from imvideoedit.app.command import main; main([])"
    )
    done = subprocess.run([sys.executable, "-c", without], env=command_environment(), capture_output=True, text=True)
    assert_one_line(done, "gradio is not installed", "imvideoedit[app]")


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[tuple[str, Path]]:
    """The page's address and a folder for its temporary files; ends as it should."""
    folder = tmp_path_factory.mktemp("server")
    environment = command_environment() | {"TMPDIR": str(folder)}
    command = [*APP, "--port", "0", "--device", "cpu", "--max-megabytes", "1", "--max-seconds", "5"]
    with (folder / "errors").open("w") as errors:
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True)
    assert process.stdout is not None
    found = re.search(r"http://127\.0\.0\.1:\d+", process.stdout.readline())
    assert found, (folder / "errors").read_text()
    yield found[0], folder
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE) == 0
    assert (folder / "errors").read_text() == ""
    assert [path.name for path in folder.iterdir()] == ["errors"], "temporary files are left"


@pytest.fixture
def browser(server, tmp_path) -> Iterator[Any]:
    """A phone's browser at the page; it must not have asked anyone else for anything."""
    if BROWSER is None or DRIVER is None:
        pytest.skip("Chromium and its driver are not installed; apt-get install chromium chromium-driver")
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for flag in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "window-size=1280,1200"):
        options.add_argument(f"--{flag}")
    options.add_experimental_option("prefs", {"download.default_directory": str(tmp_path)})
    options.add_experimental_option("mobileEmulation", {"deviceMetrics": {"width": 390, "height": 844}})
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    try:
        driver.get(server[0])
        until(lambda: parts(driver, "#samples .gallery-item")[2])
        yield driver
        errors = [entry for entry in driver.get_log("browser") if entry["source"] in ("javascript", "security")]
        assert not errors, "the page's scripts fail or want what they may not have"
        messages = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
        asked = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
        assert all(url.startswith((server[0], "data:", "blob:")) for url in asked), asked
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


def test_a_sample_is_edited_compared_seen_again_and_downloaded(browser, tmp_path):
    pick_sample(browser, 1, "orange fish")
    press(browser, "#run")
    until(lambda: parts(browser, "#preview img")[0].get_attribute("src"))
    says(browser, "17 frames, done")
    assert len(until(lambda: parts(browser, "#slider img")[1:] and parts(browser, "#slider img"))) == 2
    assert "a navy wavy background" in until(lambda: parts(browser, "#prompt textarea")[0].get_property("value"))
    shown = parts(browser, "#slider img")[1].get_attribute("src")
    parts(browser, "#frame input[type=number]")[0].send_keys("\ue009a\ue0003\ue007")  # all, 3, enter
    until(lambda: parts(browser, "#slider img")[1].get_attribute("src") != shown)
    press(browser, "#result button[role=tab]", 1)
    video = until(lambda: parts(browser, "#both video")[0])
    until(lambda: browser.execute_script("return arguments[0].readyState", video) >= 2)
    assert browser.execute_script("return [arguments[0].videoWidth, arguments[0].videoHeight]", video) == [640, 320]
    assert browser.execute_script("return document.documentElement.scrollWidth") == 390
    press(browser, "#download")
    downloaded = until(lambda: next(tmp_path.glob("*_edited.mp4"), None))
    assert read_video(downloaded)[0].shape == (17, 64, 64, 3)
    parts(browser, "#prompt textarea")[0].send_keys(", a red ball")
    press(browser, "#again")
    until(lambda: parts(browser, "#history .gallery-item")[1])
    assert parts(browser, "#prompt textarea")[0].get_property("value").endswith(", a red ball")
    browser.refresh()
    press(browser, "#history .gallery-item button", 1)
    says(browser, "17 frames, done")
    assert "red ball" not in until(lambda: parts(browser, "#prompt textarea")[0].get_property("value"))


def test_a_wrong_or_long_file_gets_one_line(browser, tmp_path):
    from tests.test_app_queue import wrong_files

    words = {"text": "as a video", "empty": "is empty", "sound": "only sound"}
    for name, path in wrong_files(tmp_path).items():
        upload(browser, path)
        says(browser, words[name])
        assert f"{name}.mp4" in status(browser) and os.sep not in status(browser)
    (tmp_path / "big.mp4").write_bytes(bytes(2**20 + 1))
    upload(browser, tmp_path / "big.mp4")
    until(lambda: "maximum allowed size of 1" in parts(browser, ".toast-body")[0].text)
    write_video(tmp_path / "long.mp4", np.zeros((12, 16, 16, 3), np.uint8), fps=2)
    upload(browser, tmp_path / "long.mp4")
    says(browser, "at most 5 s")
    press(browser, "#run")
    says(browser, "no instruction")


def test_an_upload_can_be_cancelled_and_a_closed_page_stops_its_edit(browser, tmp_path):
    write_video(tmp_path / "mine.mp4", np.full((9, 48, 64, 3), 90, np.uint8), fps=4)
    upload(browser, tmp_path / "mine.mp4")
    says(browser, "9 frames, 64×48")
    press(browser, "#settings button")
    steps = until(lambda: parts(browser, "#steps input")[0])
    best = int(steps.get_property("value"))
    press(browser, "#quality input")  # draft
    until(lambda: int(steps.get_property("value")) < best)
    steps.send_keys("00000")
    parts(browser, "#instruction textarea")[0].send_keys("add a red ball")
    press(browser, "#run")
    says(browser, "Editing")
    press(browser, "#cancel")
    says(browser, "Cancelled.")
    press(browser, "#run")
    says(browser, "Editing")
    browser.refresh()
    pick_sample(browser, 0, "red box")
    press(browser, "#run")
    says(browser, "17 frames, done")
