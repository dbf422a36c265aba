"""Twenty users of the editing page at a time, each with a video of another shape, through its HTTP interface."""

import re
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from imvideoedit.video.reader import read_video, write_video
from tests.browser import serving
from tests.processes import run as run_command
from tests.torture.table import Row

USERS, CROWD = 20, 26  # users, and sessions that submit at once, more than may wait
SECONDS = 120
PER_EDIT = 0.5  # most files that a repeated edit may add to the cache of uploads and results
REFUSALS = ("too many edits are waiting", "an edit of yours is running or waiting")
INSTRUCTION = "snow"
SETTINGS = {"steps": 1, "guidance": 1, "keep": 0}  # one pass of the model, and each pixel of the result is its own
WRONG = "its result is not the command line's"
DONE = re.compile(r"(\d+) frames, done")
RESULT = re.compile(r"/gradio_api/file=[^\"\\]+_edited\.mp4")


def run(scale: float, planted: bool) -> Iterator[Row]:
    """A row for a crowd that submits at once, and one for users who edit on."""
    users, crowd = max(3, round(USERS * min(1, 2 * scale))), max(6, round(CROWD * scale))
    row = Row("page_users: all at once", 0)
    lasting = Row(f"page_users: {users} users for {SECONDS * scale:.0f} s", 0)
    with tempfile.TemporaryDirectory() as name:
        files = Path(name) / "files"
        files.mkdir()
        (Path(name) / "server").mkdir()
        people = [User(files, number) for number in range(crowd)]
        edit_by_command(files, Path(name) / "edited")
        command = ["tests.torture.page_server", *["planted"] * planted, "--port", "0", "--device", "cpu"]
        try:
            with serving(Path(name) / "server", *command, forked=False) as address:
                for user in people:
                    user.open(address, Path(name) / "edited")
                _all_at_once(people, row)
                _for_a_while(people[:users], lasting, SECONDS * scale, Path(name) / "server")
        except AssertionError as error:
            lasting.failed.append(f"the server did not end well: {' '.join(str(error).split())[-300:]}")
    other = [each for each in row.failed + lasting.failed if not each.startswith(WRONG)]
    if planted and other:
        raise AssertionError(f"not the planted fault: {other[0]}")
    yield row
    yield lasting


def edit_by_command(files: Path, edited: Path) -> None:
    """Edit the users' videos as the page shall."""
    settings = [word for name, value in SETTINGS.items() for word in (f"--{name}", value)]
    options = ["--quality", "draft", *settings, "--device", "cpu", "--output", edited]
    done = run_command("imvideoedit.edit", files, INSTRUCTION, *options, forked=False)
    if done.returncode:
        raise AssertionError(f"the command line does not edit the users' videos: {done.stderr[-300:]}")
    for path in files.iterdir():
        if np.array_equal(read_video(path)[0], read_video(edited / f"{path.stem}_edited.mp4")[0]):
            raise AssertionError("an edit that changes nothing shows nothing of the page")


class User:
    """A browser tab with a video of its own; made in ``folder``."""

    def __init__(self, folder: Path, number: int) -> None:
        self._session, self._browser = uuid.uuid4().hex, uuid.uuid4().hex
        self._path = folder / f"{number}.mp4"
        write_video(self._path, np.full((1 + number % 7, 32 + 4 * (number // 7), 48, 3), 10 * number, np.uint8), fps=8)

    def open(self, address: str, edited: Path) -> None:
        """Open the page; the command line's edit lies in ``edited``."""
        self._client = httpx.Client(base_url=address, timeout=600)
        self._edited_FHWC = read_video(edited / f"{self._path.stem}_edited.mp4")[0]

    def edit(self, twice: bool = False) -> tuple[str, str]:
        """Submit an edit and wait; returns ``done`` or ``refused`` or ``failed``, and what the page said.

        Args:
            twice: submit it again at once, which must be refused.
        """
        config = self._client.get("/config").json()
        event, data = _event(config), self._data(config)
        order = {"data": data, "fn_index": event["id"], "session_hash": self._session, "trigger_id": event["trigger"]}
        for _ in range(1 + twice):
            joined = self._client.post("/gradio_api/queue/join", json=order)
            if joined.status_code != 200:
                return "failed", f"{joined.status_code} {joined.text[:200]}"
        said = self._client.get("/gradio_api/queue/data", params={"session_hash": self._session}).text
        refused = any(words in said for words in REFUSALS)
        if twice and not refused:
            return "failed", "a second edit of one tab was not refused"
        if refused and not (twice and DONE.search(said)):
            return "refused", said
        found = RESULT.findall(said)
        if not found or not DONE.search(said):
            return "failed", said[-400:]
        return self._checked(found[-1])

    def _checked(self, place: str) -> tuple[str, str]:
        """The frames that the page offers for download are those of the command line."""
        with tempfile.TemporaryDirectory() as name:
            path = Path(name) / "result.mp4"
            path.write_bytes(self._client.get(place).content)
            try:
                frames_FHWC = read_video(path)[0]
            except Exception as error:
                return "failed", f"its result cannot be read: {error}"
        if np.array_equal(frames_FHWC, self._edited_FHWC):
            return "done", ""
        return "failed", f"{WRONG}: {frames_FHWC.shape} for {self._edited_FHWC.shape}"

    def _data(self, config: dict[str, Any]) -> list[Any]:
        with self._path.open("rb") as file:
            stored = self._client.post("/gradio_api/upload", files={"files": (self._path.name, file)}).json()[0]
        video = {"path": stored, "meta": {"_type": "gradio.FileData"}, "orig_name": self._path.name}
        given = {"video": video, "instruction": INSTRUCTION, "quality": "draft", **SETTINGS}
        components = {each["id"]: each for each in config["components"]}
        return [self._value(components[number], given) for number in _event(config)["inputs"]]

    def _value(self, component: dict[str, Any], given: dict[str, Any]) -> Any:
        if component["type"] == "browserstate":
            return self._browser
        props = component["props"]
        return given.get(props.get("elem_id"), None if component["type"] == "imageeditor" else props.get("value"))


def _event(config: dict[str, Any]) -> dict[str, Any]:
    """The page's event of its button Edit: its number, its inputs, and the button's."""
    button = next(each["id"] for each in config["components"] if each["props"].get("elem_id") == "run")
    for event in config["dependencies"]:
        if [button, "click"] in event["targets"] and event["backend_fn"] and event["inputs"]:
            return {"id": event["id"], "inputs": event["inputs"], "trigger": button}
    raise LookupError("the page has no event for its button")


def _count(row: Row, lock: threading.Lock, edit: Callable[[], tuple[str, str]]) -> str:
    try:
        outcome, said = edit()
    except (httpx.HTTPError, LookupError, KeyError, ValueError) as error:
        outcome, said = "failed", f"{type(error).__name__}: {error}"
    with lock:
        row.tried += 1
        if outcome == "failed":
            row.failed.append(" ".join(said.split()))
    return outcome


def _all_at_once(people: list[User], row: Row) -> None:
    lock = threading.Lock()
    with ThreadPoolExecutor(len(people)) as pool:
        outcomes = list(pool.map(lambda user: _count(row, lock, partial(user.edit, user is people[0])), people))
    row.notes.append(
        f"{outcomes.count('done')} done as by the command line, {outcomes.count('refused')} refused in words"
    )
    if not outcomes.count("done"):
        row.failed.append("no edit was done")


def _for_a_while(people: list[User], row: Row, seconds: float, server: Path) -> None:
    lock, end = threading.Lock(), time.monotonic() + seconds
    middle: list[tuple[int, int]] = []

    def edit_on(user: User) -> int:
        done = 0
        while time.monotonic() < end:
            outcome = _count(row, lock, user.edit)
            done += outcome == "done"
            if outcome == "refused":
                with lock:
                    row.failed.append("a user alone in a tab was refused, although not too many were waiting")
            if time.monotonic() > end - seconds / 2 and not middle:
                middle.append((_cached(server), row.tried))
        return done

    with ThreadPoolExecutor(len(people)) as pool:
        done = sum(pool.map(edit_on, people))
    row.notes.append(f"{done} done as by the command line")
    if not done:
        row.failed.append("no edit was done")
    cached, tried = middle[0] if middle else (0, 0)
    row.notes.append(f"{_cached(server)} files of uploads and results at the end, {cached} after {tried} edits")
    if middle and _cached(server) - cached > max(len(people), PER_EDIT * (row.tried - tried)):
        row.failed.append(f"temporary files grow: from {cached} to {_cached(server)} by repeated edits")


def _cached(server: Path) -> int:
    return sum(path.is_file() for path in server.glob("imvideoedit-*/uploads/**/*"))
