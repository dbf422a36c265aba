"""The raters' page as it is used: the command, a real server, a real browser without a screen."""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.browser import BROWSER, DRIVER, parts, press, refuses_strangers, until
from tests.edited_clips import write_edits
from tests.processes import PATIENCE, command_environment, interruptible

pytest.importorskip("gradio", reason="gradio is not installed; pip install 'imvideoedit[app]'")
pytestmark = pytest.mark.slow


@pytest.fixture(params=["ratings", "pairs"])
def study(request, tmp_path) -> Iterator[tuple]:
    """Mode, address, folder of results, and the process."""
    edits, out = write_edits(tmp_path / "edits", count=2), tmp_path / "out"
    command = [sys.executable, "-m", "imvideoedit.evaluate", "+suite=study", f"edits={edits}", f"out={out}"]
    command += [f"suite.mode={request.param}", "suite.port=0"]
    with (tmp_path / "errors").open("w") as errors:
        pipes = {"stdout": subprocess.PIPE, "stderr": errors, "text": True}
        process = subprocess.Popen(command, env=command_environment(), preexec_fn=interruptible, **pipes)
    assert process.stdout is not None
    found = re.search(r"http://127\.0\.0\.1:\d+", process.stdout.readline())
    assert found, (tmp_path / "errors").read_text()
    refuses_strangers(found[0])
    yield request.param, found[0], out, process
    process.kill()
    process.wait()


@pytest.fixture
def browser(study) -> Iterator:
    if BROWSER is None or DRIVER is None:
        pytest.skip("Chromium and its driver are not installed; apt-get install chromium chromium-driver")
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for flag in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "window-size=1280,1000"):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    try:
        yield driver
        messages = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
        asked = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
        assert all(url.startswith((study[1], "data:", "blob:", "file:")) for url in asked), asked
        served = [url for url in asked if url.startswith(study[1])]
        assert not any("ours" in url or "other" in url for url in served), "an address tells the method"
    finally:
        driver.quit()


def begin(driver, address: str, name: str) -> None:
    driver.get(address)
    until(lambda: parts(driver, "#name textarea, #name input")[0]).send_keys(name)
    press(driver, "#begin")


def status(driver) -> str:
    return parts(driver, "#status")[0].text


def test_a_rater_answers_leaves_comes_back_and_the_report_counts_it(study, browser, tmp_path):
    mode, address, out, process = study
    count = 4 if mode == "ratings" else 2
    begin(browser, address, "Ann")
    until(lambda: f"Question 1 of {count}" in status(browser))
    places = ["source", "edited"] if mode == "ratings" else ["source", "left", "right"]
    for place in places:
        video = until(lambda place=place: parts(browser, f"#{place} video")[0])
        until(lambda video=video: browser.execute_script("return arguments[0].readyState", video) >= 2)
        assert browser.execute_script("return arguments[0].videoWidth", video) == 288
    assert "make scene" in parts(browser, "#instruction")[0].text
    page = browser.page_source
    assert "ours" not in page and "other/" not in page, "the page tells the method"
    press(browser, "#next")
    until(lambda: "Choose an answer first" in status(browser))
    browser.save_screenshot(str(tmp_path / "study.png"))
    press(browser, "#choice input")
    press(browser, "#next")
    until(lambda: f"Question 2 of {count}" in status(browser))
    begin(browser, address, "ann")
    until(lambda: f"Question 2 of {count}" in status(browser), lambda: status(browser))
    for number in range(2, count + 1):
        until(lambda number=number: f"Question {number} of {count}" in status(browser))
        press(browser, "#choice input", 1)
        press(browser, "#next")
    until(lambda: "All are answered" in status(browser))
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE) == 0
    assert len(list((out / "ratings").glob("*/*.json"))) == count
    text = (out / "report" / "report.html").read_text()
    assert f"Answers: {count}, raters: 1, questions: {count}" in text
    browser.get((out / "report" / "report.html").as_uri())
    assert parts(browser, "h2") and all(
        browser.execute_script("return arguments[0].naturalWidth", image) > 0 for image in parts(browser, "img")
    )
