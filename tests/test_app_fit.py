"""The page's fits: one process at a time, cancelled and gone on with; the whole walk in a real browser."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("gradio", reason="gradio is not installed; pip install 'imvideoedit[app]'")

from imvideoedit.app.fit_queue import Fit, FitQueue, cost_of
from imvideoedit.app.texts import fit_progress
from imvideoedit.common.errors import UserError
from imvideoedit.editing.fitted_clip import FittedClip
from imvideoedit.video.reader import Clip, read_video, write_video
from imvideoedit.world.render import render
from imvideoedit.world.scenes import Scene, Thing
from tests.browser import browsing, parts, press, serving, until
from tests.fits import SIZE, image_to_video_folder, make_clip
from tests.processes import PATIENCE, command_environment
from tests.test_app_inputs import paint

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def clip(wan_folder, tmp_path_factory):
    base = image_to_video_folder(wan_folder, tmp_path_factory.mktemp("base") / "i2v")
    return make_clip(tmp_path_factory.mktemp("clip"), base)


@pytest.fixture
def queue(monkeypatch) -> Iterator[FitQueue]:
    for name, value in command_environment().items():
        monkeypatch.setenv(name, value)
    queue = FitQueue(threading.Lock())
    yield queue
    queue.close()


def fit_of(clip, out: Path, tab: str = "tab", **given: Any) -> Fit:
    arguments = [str(each) for each in clip.command(out, *given.pop("more", ()), **given)]
    at = arguments.index("--out")
    return Fit([*arguments[:at], *arguments[at + 2 :]], out, tab)


def wait_for(what: Callable[[], Any]) -> None:
    end = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_fit_says_how_far_it_is_is_cancelled_and_goes_on_where_it_was(clip, queue, tmp_path):
    out = tmp_path / "fits" / "one"
    more = ("--steps", 1500, "--checkpoint-every", 1)
    fit = fit_of(clip, out, more=more)
    queue.submit(fit)
    with pytest.raises(UserError, match="a fit of yours is running or waiting"):
        queue.submit(fit_of(clip, out))
    wait_for(lambda: "of 1500 steps" in fit.phase and fit.share > 0)
    assert 0 < fit.share < 1 and "<progress" in fit_progress(fit, 0) and str(tmp_path) not in fit.phase
    queue.cancel("another tab")
    assert not fit.cancelled.is_set()
    queue.cancel("tab")
    assert fit.finished.wait(PATIENCE) and fit.state == "cancelled" and not queue.holds("tab")
    saved = list((out / "stage_1").glob("*.ckpt"))
    assert saved and not (out / "adapter.safetensors").exists()
    again = fit_of(clip, out, more=more)
    queue.submit(again)
    assert again.finished.wait(PATIENCE) and (again.state, again.problem) == ("done", "")
    assert again.share == 1 and len(Clip(out / "clip_edited.mp4")) == 9


def test_what_is_wrong_is_one_line_without_folders(clip, queue, tmp_path):
    white = tmp_path / "fits" / "white.png"
    white.parent.mkdir()
    Image.new("L", SIZE[::-1], 255).save(white)
    fit = fit_of(clip, tmp_path / "fits" / "one", mask=white)
    queue.submit(fit)
    assert fit.finished.wait(PATIENCE) and fit.state == "failed"
    assert "white.png is white in all of every frame" in fit.problem and str(tmp_path) not in fit.problem
    with pytest.raises(UserError, match=r"white\.png is white"):
        cost_of(fit)
    lines = cost_of(fit_of(clip, tmp_path / "fits" / "two"))
    assert any("TFLOP" in line for line in lines) and any("--offload on" in line for line in lines)
    assert not (tmp_path / "fits" / "two").exists()


def test_no_fit_runs_beside_an_edit(clip, tmp_path):
    working = threading.Lock()
    queue = FitQueue(working)
    try:
        with working:
            fit = fit_of(clip, tmp_path / "fits" / "one")
            queue.submit(fit)
            assert not fit.finished.wait(1) and fit.state == "waiting" and "another edit" in fit_progress(fit, 0)
            queue.cancel("tab")
        assert fit.finished.wait(PATIENCE) and fit.state == "cancelled" and not (fit.out / "mask").exists()
    finally:
        queue.close()


@pytest.fixture
def browser(tmp_path) -> Iterator[Any]:
    (tmp_path / "server").mkdir()
    options = ("--port", "0", "--device", "cpu", "--max-megabytes", "1", "--max-seconds", "5")
    with (
        serving(tmp_path / "server", "imvideoedit.app.command", *options, forked=False) as address,
        browsing(address, tmp_path) as driver,
    ):
        press(driver, "#fit-tab-button")
        yield driver


def says(driver: Any, words: str) -> None:
    until(lambda: words in parts(driver, "#fit-status")[0].text, lambda: parts(driver, "#fit-status")[0].text)


def give(driver: Any, place: str, path: Path) -> None:
    until(lambda: parts(driver, f"{place} input[type=file]")[0]).send_keys(str(path))


def set_steps(driver: Any, count: int) -> None:
    parts(driver, "#fit-steps input")[0].send_keys(f"\ue009a\ue000{count}\ue007")  # all, its number, enter


def test_the_page_walks_through_clip_mask_frame_cost_fit_and_edit(browser, tmp_path):
    scene = Scene("teal", "plain", (Thing("box", "red", motion="moving right", x=0.4, y=0.5, size="large"),))
    frames = render(scene, 9)
    write_video(tmp_path / "mine.mp4", frames, 8, codec="lossless")
    press(browser, "#fit-run")
    says(browser, "there is no clip")
    give(browser, "#fit-video", tmp_path / "mine.mp4")
    says(browser, "9 frames, 64×64")
    press(browser, "#fit-run")
    says(browser, "there is no mask")
    paint(browser, -60, 0, 90, "#fit-mask")
    press(browser, "#fit-run")
    says(browser, "no edited first frame")
    press(browser, "#fit-original")
    original = until(lambda: next(tmp_path.glob("*_first_frame.png"), None))
    assert np.array_equal(np.asarray(Image.open(original)), read_video(tmp_path / "mine.mp4")[0][0])
    Image.fromarray(render(scene.with_thing(0, color="blue"), 1)[0]).save(tmp_path / "edited.png")
    give(browser, "#fit-first", tmp_path / "edited.png")
    until(lambda: parts(browser, "#fit-first img")[0].get_attribute("src"))
    press(browser, "#fit-run")
    says(browser, "there is no description")
    parts(browser, "#fit-prompt textarea")[0].send_keys("a blue box on a teal plain background")
    press(browser, "#fit-cost")
    says(browser, "TFLOP")
    set_steps(browser, 5000)
    press(browser, "#fit-run")
    says(browser, "of 5000 steps")
    press(browser, "#fit-cancel")
    says(browser, "Cancelled")
    set_steps(browser, 2)
    press(browser, "#fit-run")
    says(browser, "Done.")
    press(browser, "#fit-download")
    edited = until(lambda: next(tmp_path.glob("mine_edited*.mp4"), None))
    assert read_video(edited)[0].shape == frames.shape
    press(browser, "#fit-adapter")
    adapter = until(lambda: next(tmp_path.glob("adapter*.safetensors"), None))
    fitted = FittedClip.of(adapter)
    assert fitted is not None and (fitted.name, fitted.frames) == ("mine.mp4", 9)
    assert browser.execute_script("return document.documentElement.scrollWidth") == 390
