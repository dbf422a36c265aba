"""The web page as it is used: the command, a real server, and a real browser without a screen."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from imvideoedit.video.reader import read_video, write_video
from tests.browser import browsing, parts, pick_sample, press, says, serving, status, until, upload
from tests.processes import command_environment, run
from tests.test_edit import assert_one_line
from tests.torture.page_users import User, edit_by_command

pytest.importorskip("gradio", reason="gradio is not installed; pip install 'imvideoedit[app]'")
pytestmark = pytest.mark.slow

APP = "imvideoedit.app.command"


def app(*arguments) -> subprocess.CompletedProcess:
    return run(APP, *arguments)


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
def server(tmp_path_factory) -> Iterator[str]:
    """The page's address."""
    options = ("--port", "0", "--device", "cpu", "--max-megabytes", "1", "--max-seconds", "5")
    with serving(tmp_path_factory.mktemp("server"), APP, *options, forked=False) as address:
        yield address


@pytest.fixture
def browser(server, tmp_path) -> Iterator[Any]:
    with browsing(server, tmp_path) as driver:
        yield driver


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


def test_an_edit_may_be_ordered_before_the_page_has_taken_in_the_upload(server, tmp_path):
    (tmp_path / "files").mkdir()
    user = User(tmp_path / "files", 9)
    edit_by_command(tmp_path / "files", tmp_path / "edited")
    user.open(server, tmp_path / "edited")
    assert user.edit() == ("done", "")  # with the values that the page begins with, and the command line's frames


def test_an_adapter_that_declares_no_inputs_has_a_brush_for_a_mask_and_no_other_upload(browser):
    assert until(lambda: parts(browser, "#mask-part"))
    assert not parts(browser, "[id^=input-]")
    assert len(parts(browser, "input[type=file]")) == 1  # the video


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
    steps.send_keys("000")  # minutes of steps
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
