"""The page's mask and inputs, painted and uploaded in a real browser."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import distance_transform_edt

pytest.importorskip("gradio", reason="gradio is not installed; pip install 'imvideoedit[app]'")

from tests.browser import browsing, parts, pick_sample, press, says, serving, status, until

pytestmark = pytest.mark.slow
FEATHER = 8  # pixels, the default


@pytest.fixture(scope="module")
def records(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("records")


@pytest.fixture(scope="module")
def server(records, tmp_path_factory) -> Iterator[str]:
    """The page of an adapter that declares a first frame and a text."""
    with serving(tmp_path_factory.mktemp("server"), "tests.page_with_inputs", str(records)) as address:
        yield address


@pytest.fixture
def browser(server, tmp_path) -> Iterator[Any]:
    with browsing(server, tmp_path) as driver:
        yield driver


def paint(driver, across: int, down: int, length: int, editor: str = "#mask") -> None:
    """A stroke to the right, from so many pixels off the canvas's middle."""
    from selenium.webdriver import ActionChains

    canvas = until(lambda: parts(driver, f"{editor} canvas")[0])
    driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", canvas)

    def stroked() -> Any:
        stroke = ActionChains(driver).move_to_element_with_offset(canvas, across, down).click_and_hold()
        stroke.move_by_offset(length // 2, 0).move_by_offset(length - length // 2, 0).release().perform()
        return parts(driver, f"{editor} button[aria-label=Undo]:not([disabled])")

    until(stroked)  # a canvas that is being drawn anew takes no stroke


def edit(driver, records: Path, button: str = "#run") -> dict[str, np.ndarray]:
    """Press the button; what the edit was given, and what came out."""
    number = len(list(records.iterdir()))
    press(driver, button)
    until(lambda: (records / f"{number}.npz").exists(), lambda: status(driver))
    says(driver, "17 frames, done")
    until(lambda: parts(driver, "#run:not([disabled])"))
    return dict(np.load(records / f"{number}.npz"))


def test_a_painted_mask_and_an_uploaded_first_frame_make_an_edit(browser, records, tmp_path):
    pick_sample(browser, 0, "red box")
    press(browser, "#run")
    says(browser, "needs the input first_frame")
    first = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(first).save(tmp_path / "first.png")
    until(lambda: parts(browser, "#input-first-frame input[type=file]")[0]).send_keys(str(tmp_path / "first.png"))
    until(lambda: parts(browser, "#input-first-frame img")[0].get_attribute("src"))
    press(browser, "#mask-part button")
    paint(browser, -60, -20, 50)
    parts(browser, "#input-style textarea")[0].send_keys("noir")
    made = edit(browser, records)
    assert np.array_equal(made["first_frame"][0], first) and str(made["style"]) == "noir"
    mask = made["mask"][0] > 0
    rows, columns = np.nonzero(mask)
    # A flat stroke in the upper left part of the frame.
    assert 8 < rows.min() and rows.max() < 40 and columns.max() < 40 and np.ptp(columns) > np.ptp(rows) > 3
    outside = distance_transform_edt(~mask) >= FEATHER
    assert outside.mean() > 0.4 and np.array_equal(made["edited"][:, outside], made["source"][:, outside])
    assert (made["edited"][:, mask] != made["source"][:, mask]).any()
    assert browser.execute_script("return document.documentElement.scrollWidth") == 390
    again = edit(browser, records, "#again")
    assert np.array_equal(again["mask"], made["mask"]) and np.array_equal(again["edited"], made["edited"])
    press(browser, "#mask button[aria-label='Clear canvas']")
    assert "mask" not in edit(browser, records)
    paint(browser, 20, 20, 30)
    other = edit(browser, records)["mask"][0] > 0
    assert not (other & mask).any() and other.any()
    pick_sample(browser, 1, "orange fish")
    assert "mask" not in edit(browser, records)


def test_the_page_shows_what_the_adapter_declares(browser):
    for control in ("#input-first-frame", "#input-style", "#mask-part"):
        until(lambda control=control: parts(browser, control))  # the page is drawn part by part
    assert not parts(browser, "#input-reference")
