"""The guard of all pages, by sockets to a running server: who is served, which files, and how much may be sent."""

import ast
import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

pytest.importorskip("gradio", reason="gradio is not installed; pip install 'imvideoedit[app]'")

from imvideoedit.app.command import build_parser
from tests.processes import CHECKOUT, PATIENCE, command_environment
from tests.small_page import UPLOAD

JSON = {"content-type": "application/json"}
FORM = {"content-type": "multipart/form-data; boundary=edge"}
API = "/gradio_api"


@dataclass(frozen=True)
class Page:
    """A running server."""

    port: int
    folder: Path

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes, dict]:
        """Status, body and headers of the answer; ``_`` in a header's name stands for ``-``."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        with contextlib.closing(connection):
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            if body is not None:
                named.setdefault("content-length", str(len(body)))
            for name, value in ({"host": f"127.0.0.1:{self.port}"} | named).items():
                connection.putheader(name, value)
            connection.endheaders(body)
            answer = connection.getresponse()
            return answer.status, answer.read(), dict(answer.getheaders())

    def status(self, method: str = "GET", path: str = "/config", body: bytes | None = None, **headers: str) -> int:
        return self.ask(method, path, body, **headers)[0]

    def say(self, given: object, **headers: str) -> tuple[int, bytes, dict]:
        """Run the page's event on a file and a text."""
        return self.ask("POST", f"{API}/run/say", json.dumps({"data": [given, "hello"]}).encode(), **JSON | headers)

    def upload(self, *contents: bytes) -> tuple[int, bytes]:
        """Send files, ``0.mp4`` and so on."""
        return self.ask("POST", f"{API}/upload", form(*contents), **FORM)[:2]

    def files(self) -> list[Path]:
        return [path for path in self.folder.rglob("*") if path.is_file()]


def form(*contents: bytes) -> bytes:
    head = 'Content-Disposition: form-data; name="files"; filename="{}.mp4"\r\n\r\n'
    parts = [f"--edge\r\n{head.format(n)}".encode() + content + b"\r\n" for n, content in enumerate(contents)]
    return b"".join([*parts, b"--edge--\r\n"])


def file_data(path: object) -> dict:
    return {"path": str(path), "meta": {"_type": "gradio.FileData"}}


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> Iterator[dict[str, Page]]:
    """Running servers by what is special about each; they must end as they should."""
    given = ["local,127.0.0.1,3600,Studio.example", "public,0.0.0.0,3600,studio.example"]
    given += ["full,127.0.0.1,3600", "forgetful,127.0.0.1,1"]
    command = [sys.executable, "-m", "tests.small_page", *given]
    environment = command_environment() | {"TMPDIR": str(tmp_path_factory.mktemp("pages"))}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, cwd=CHECKOUT)
    assert process.stdout is not None
    ids, found = [], {}
    for _ in range(2 * len(given)):  # and a line for people
        line = process.stdout.readline()
        if not line.startswith("open "):
            name, number, port, folder = line.split()
            ids.append(int(number))
            found[name] = Page(int(port), Path(folder))
    yield found
    for number in ids:
        os.kill(number, signal.SIGTERM)
    assert process.wait(PATIENCE) == 0 and not any(page.folder.exists() for page in found.values())


@pytest.fixture(scope="module")
def page(pages) -> Page:
    return pages["local"]


def until(condition) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_only_this_machine_can_connect_unless_it_is_asked_otherwise(page):
    with socket.socket() as probe, pytest.raises(OSError):
        probe.connect(("127.0.0.2", page.port))
    assert build_parser().parse_args([]).host == "127.0.0.1"


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "LocalHost.", "[::1]", "studio.example", "STUDIO.example."])
def test_a_name_of_this_machine_or_the_users_is_served_at_any_port(page, name):
    for host in (name, f"{name}:{page.port}", f"{name}:80"):
        assert page.status(host=host) == 200, host


NAMES = ["evil.example", "127.0.0.1.evil.example", "studio.example.evil.example", "localhost@evil.example", "", "[::2]"]
NAMES += ["evil.example:7860", "127.0.0.2", "xstudio.example", "evil.example/127.0.0.1", "localhost evil", "2130706433"]


@pytest.mark.parametrize("name", NAMES)
def test_another_name_that_was_made_to_point_here_is_refused(page, name):
    for method, path in (("GET", "/"), ("GET", "/config"), ("POST", f"{API}/run/say"), ("OPTIONS", "/config")):
        status, body, _ = page.ask(method, path, host=name)
        assert status == 403 and b"gradio" not in body and len(body.splitlines()) == 1
    assert page.status(host=name, x_forwarded_host="localhost") == 403


def test_a_public_page_knows_the_address_that_was_reached_and_given_names_only(pages):
    for host, status in (("127.0.0.1", 200), ("studio.example", 200), ("evil.example", 403), ("10.9.8.7", 403)):
        assert pages["public"].status(host=host) == status, host
    with socket.create_connection(("127.0.0.2", pages["public"].port)) as connection:  # as from another machine
        for host, status in (("127.0.0.2", b"200"), ("evil.example", b"403")):
            connection.sendall(f"HEAD / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            assert connection.recv(10_000).split()[1] == status


def test_what_another_website_sends_is_refused(page):
    own = f"http://127.0.0.1:{page.port}"
    assert page.say(None)[0] == 200  # no browser
    assert page.say(None, origin=own, sec_fetch_site="same-origin")[0] == 200
    for origin in ("http://evil.example", "null", f"http://localhost:{page.port}", f"http://127.0.0.1:{page.port + 1}"):
        status, _, headers = page.say(None, origin=origin)
        assert status == 403 and "access-control-allow-origin" not in {name.lower() for name in headers}
        assert page.status(origin=origin) == 403, "it could read the answer"
        assert page.status("OPTIONS", origin=origin, access_control_request_method="POST") == 403
    for site in ("cross-site", "same-site"):  # another port of this machine is of the same site
        assert page.say(None, sec_fetch_site=site)[0] == 403
        assert page.status(sec_fetch_site=site, sec_fetch_mode="no-cors", sec_fetch_dest="image") == 403
        opened = {"sec_fetch_site": site, "sec_fetch_mode": "navigate"}
        assert page.status(path="/", **opened, sec_fetch_dest="document") == 200  # a link to the page
        assert page.status(path="/", **opened, sec_fetch_dest="iframe") == 403
        assert page.status("POST", f"{API}/run/say", b"{}", **JSON, **opened, sec_fetch_dest="document") == 403


def test_files_are_those_of_the_page_only(page, tmp_path):
    secret = tmp_path / "secret.mp4"
    secret.write_bytes(b"planted words")
    status, body = page.upload(b"mine")
    mine = Path(json.loads(body)[0])
    assert status == 200 and page.ask("GET", f"{API}/file={mine}")[1] == b"mine"
    assert page.say(file_data(mine))[1].count(b"hello") == 1
    linked = mine.with_name("linked.mp4")
    linked.symlink_to(secret)
    up = mine.parent / ("../" * 30)
    outside = [secret, linked, f"{up}{secret}", f"{mine.parent}/../../../{secret.name}", "/etc/hostname", "", "."]
    outside += [f"file://{secret}", "http://127.0.0.1:1/x.mp4", "https://example.com/x.mp4", page.folder, "~/.netrc"]
    for path in map(str, outside):
        for address in (f"{API}/file={path}", f"{API}/file/{path}", f"/file={path}", f"/{API}/file={path}"):
            status, body, _ = page.ask("GET", address)
            assert status in (403, 404) and b"planted" not in body, address
        status, body, _ = page.say(file_data(path))
        assert status == 403 and b"hello" not in body and b"planted" not in body, path
    assert page.say({"a": [{"b": [file_data(secret)]}]})[0] == 403
    assert page.status(path=f"{API}/file=%00") == page.status(path=f"{API}/file={'x' * 9000}") == 403
    assert page.status(path=f"{API}/proxy=http://127.0.0.1:1/") == 403
    assert not any(b"planted" in path.read_bytes() for path in page.files() if not path.is_symlink())
    linked.unlink()


def test_what_is_too_large_is_refused_while_it_arrives(page):
    before = len(page.files())
    limit = UPLOAD + 2**20
    for kind, most in ((FORM, limit), (JSON, 2**20)):  # by what is announced, before a byte of it
        path = f"{API}/upload" if kind is FORM else f"{API}/run/say"
        assert page.status("POST", path, content_length=str(most + 1), **kind) == 413
    assert page.upload(b"a" * (UPLOAD + 1))[0] == 413
    for kind, body in ((FORM, form(*[b"b" * (UPLOAD // 2)] * 20)), (JSON, b'{"data": ["' + b"c" * 2**21)):
        assert endless(page, f"{API}/upload" if kind is FORM else f"{API}/run/say", kind, body) < 40 * 2**20
    assert page.upload(b"d" * UPLOAD)[0] == 200
    whole = [path for path in page.files() if not path.name.startswith("tmp")]  # which go a while later
    assert len(whole) <= before + 1


def endless(page: Page, path: str, headers: dict, body: bytes) -> int:
    """Send a body in pieces without an end until the server answers; how many bytes it took. The answer is 413."""
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    begun = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n{head}\r\n".encode()
    sent = 0
    with socket.create_connection(("127.0.0.1", page.port), timeout=PATIENCE) as connection:
        connection.sendall(begun)
        with contextlib.suppress(ConnectionError):  # the server has answered, and is gone
            while sent < 100 * 2**20:
                piece = body[sent : sent + 60_000] if sent < len(body) else b"e" * 60_000
                connection.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
                sent += len(piece)
                connection.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    assert connection.recv(100, socket.MSG_PEEK).startswith(b"HTTP/1.1 413")
                    return sent
                connection.settimeout(PATIENCE)
        connection.settimeout(PATIENCE)
        with contextlib.suppress(ConnectionResetError):
            assert connection.recv(100).startswith(b"HTTP/1.1 413")
    return sent


def test_many_uploads_do_not_fill_the_disk(pages):
    page = pages["full"]
    statuses = [page.upload(os.urandom(UPLOAD))[0] for _ in range(25)]
    assert statuses[:20] == [200] * 20 and statuses[-1] == 507
    assert sum(path.stat().st_size for path in page.files()) < 23 * UPLOAD


def test_old_files_are_removed_and_those_of_the_page_stay(pages):
    page = pages["forgetful"]
    paths = json.loads(page.upload(b"first", b"second")[1])
    with socket.create_connection(("127.0.0.1", page.port)) as connection:  # an upload that breaks off
        head = f"POST {API}/upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999\r\n"
        connection.sendall((head + "".join(f"{name}: {value}\r\n" for name, value in FORM.items()) + "\r\n").encode())
        connection.sendall(form(b"half")[:-12])
        until(lambda: any(path.name.startswith("tmp") for path in page.files()))
    until(lambda: not page.files() and not any(Path(path).parent.exists() for path in paths))
    assert (page.folder / "uploads").is_dir() and page.upload(b"again")[0] == 200


def test_every_answer_says_what_a_browser_may_do_with_it(page):
    for path in ("/", "/config", "/nowhere", f"{API}/file=/etc/passwd"):
        headers = {name.lower(): value for name, value in page.ask("GET", path)[2].items()}
        assert "frame-ancestors 'self'" in headers["content-security-policy"], path
        assert headers["x-content-type-options"] == "nosniff"


def test_no_server_but_this_one():
    """Each page is served by ``common.web``: nothing else listens."""
    listens = {"uvicorn", "fastapi", "starlette", "http.server", "socketserver", "flask", "aiohttp"}
    for path in [*(CHECKOUT / "imvideoedit").rglob("*.py"), *(CHECKOUT / "data_recipes").rglob("*.py")]:
        if path.name in ("web.py", "web_guard.py"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                assert not {alias.name for alias in node.names} & listens, path
            if isinstance(node, ast.ImportFrom):
                assert node.module is None or node.module not in listens, path
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                assert node.func.attr not in ("launch", "create_server", "mount_gradio_app"), path
