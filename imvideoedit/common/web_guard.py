"""What a page's server takes, and from whom: one guard in front of all pages, as an ASGI app.

A page on this machine can be reached by every website that its user opens, through the user's own browser. So a request
must name this machine (else another name was made to point here, "DNS rebinding"), and a browser must say that the page
itself sent it. Files come from the page's own folder only, and a body stops arriving once it is too large.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from imvideoedit.common.errors import UserError
from imvideoedit.common.json_file import parse_json
from imvideoedit.common.uploads import size_of

# The page's own files, and what its scripts and styles need; the browser requests nothing from other hosts.
POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'self'"
HEADERS = {
    "content-security-policy": POLICY,
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
OWN_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})  # that no website can have
TEXT_BYTES = 2**20  # most of a body without a file, and of what surrounds a file
KEPT_UPLOADS = 20  # of the largest size, together; old ones go after a while
_HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^\[\]:/?#@\s]+)(:\d{1,5})?")
_FILE = re.compile(r"/+(?:gradio_api/+)*file[=/](.*)", re.DOTALL)
# Of gradio: fetches from elsewhere, and what a page of ours has no part for.
_CLOSED = re.compile(r"/+(?:gradio_api/+)*(proxy=|vibe-|process_recording|run-history|deep_link|dev/)")


class Refusal(Exception):
    """Why a request is not served.

    Args:
        status: of HTTP.
    """

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status = status


@dataclass(frozen=True)
class Guard:
    """Serves an app to whoever may use it.

    Attributes:
        app: behind it.
        names: of this machine, besides ``OWN_NAMES`` and the address that a request reached, in small letters.
        folder: the only one whose files are served or may be named by a request.
        upload_bytes: most of an uploaded file.
    """

    app: ASGIApp
    names: frozenset[str]
    folder: Path
    upload_bytes: int

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request; 403 says that it may not be made, 413 that it is too large."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # no page of ours has a websocket
            await send({"type": "websocket.close", "code": 1008})
            return
        sending = _Sending(send)
        try:
            headers = Headers(scope=scope)
            self._check(scope, headers)
            most = self._most_bytes(headers)
            if headers.get("content-length", "0").isdecimal() and int(headers.get("content-length", "0")) > most:
                raise _too_large(most)
            if _is_upload(headers) and size_of(self.folder) > KEPT_UPLOADS * self.upload_bytes:
                raise Refusal(507, "too much was uploaded here of late; try again later")
            body = _Body(receive, most)
            arriving: Receive = body
            if not _is_upload(headers) and scope["method"] not in ("GET", "HEAD"):
                arriving = await self._read(body)
            await self._serve(scope, arriving, sending, body)
        except Refusal as refusal:
            await sending.refuse(refusal, scope)

    async def _serve(self, scope: Scope, receive: Receive, sending: "_Sending", body: "_Body") -> None:
        async def answer(message: Message) -> None:
            if not body.is_too_large:
                await sending(message)

        try:
            await self.app(scope, receive, answer)
        except Exception:
            if not body.is_too_large:  # else it is the app's answer to a body that broke off
                raise
        if body.is_too_large:
            raise _too_large(body.most)

    def _check(self, scope: Scope, headers: Headers) -> None:
        host = self._named(scope, headers)
        site, origin = headers.get("sec-fetch-site", "none"), headers.get("origin")
        opened = scope["method"] == "GET" and headers.get("sec-fetch-mode") == "navigate"  # by a link or a bookmark
        framed = headers.get("sec-fetch-dest", "document") != "document"
        if site not in ("none", "same-origin") and (not opened or framed):
            raise Refusal(403, "another website asked for this; open the page itself")
        if origin is not None and not _is_origin_of(origin, host):
            raise Refusal(403, "another website sent this; open the page itself")
        if _CLOSED.match(scope["path"]):
            raise Refusal(403, "this page has no such part")
        file = _FILE.fullmatch(scope["path"])
        if file:
            self._own(file[1])

    def _named(self, scope: Scope, headers: Headers) -> str:
        """The Host header of a request."""
        hosts = headers.getlist("host")
        found = _HOST.fullmatch(hosts[0]) if len(hosts) == 1 else None
        name = found[1].strip("[]").rstrip(".").lower() if found else ""
        reached = scope["server"][0] if scope.get("server") else None
        if name not in self.names | OWN_NAMES and name != reached:
            raise Refusal(
                403, "this page does not go by that name; start it with --allow-host and the name to permit it"
            )
        return hosts[0]

    def _own(self, name: str) -> None:
        """Refuse a file outside the folder, also through links and ``..``."""
        try:
            inside = bool(name) and Path(name).resolve().is_relative_to(self.folder.resolve())
        except (OSError, ValueError, RuntimeError):  # too long, with a zero byte, links in a circle
            inside = False
        if not inside:
            raise Refusal(403, "that file does not belong to this page; upload it again")

    def _most_bytes(self, headers: Headers) -> int:
        return self.upload_bytes + TEXT_BYTES if _is_upload(headers) else TEXT_BYTES

    async def _read(self, body: "_Body") -> Receive:
        """A body without files, read to its end; the files that it names must have been uploaded here."""
        messages: list[Message] = []
        while not messages or messages[-1].get("more_body"):
            messages.append(await body())
        if body.is_too_large:
            raise _too_large(body.most)
        text = b"".join(message.get("body", b"") for message in messages)
        try:
            for name in _paths(parse_json(text, "a request", object)) if text else ():
                self._own(name)
        except UserError:
            pass  # no JSON, which the app refuses itself

        async def replay() -> Message:
            return messages.pop(0) if messages else await body()

        return replay


class _Body:
    """The arriving body of a request; one that is too large breaks off."""

    def __init__(self, receive: Receive, most: int) -> None:
        self._receive, self.most, self._bytes = receive, most, 0

    @property
    def is_too_large(self) -> bool:
        return self._bytes > self.most

    async def __call__(self) -> Message:
        if not self.is_too_large:
            message = await self._receive()
            self._bytes += len(message.get("body", b""))
        return {"type": "http.disconnect"} if self.is_too_large else message


class _Sending:
    """The answer to a request, with the headers of every page."""

    def __init__(self, send: Send) -> None:
        self._send, self._begun = send, False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._begun = True
            added = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
            message = {**message, "headers": [*message.get("headers", []), *added]}
        await self._send(message)

    async def refuse(self, refusal: Refusal, scope: Scope) -> None:
        """Answer with the refusal, unless an answer has begun."""
        if not self._begun:
            # What is left of the body is not read, so the connection cannot be used again.
            response: Response = PlainTextResponse(f"{refusal}\n", refusal.status, {"connection": "close"})
            await response(scope, _no_more, self)


async def _no_more() -> Message:
    return {"type": "http.disconnect"}


def _too_large(most: int) -> Refusal:
    return Refusal(413, f"this exceeds the maximum allowed size of {most} bytes")


def _is_upload(headers: Headers) -> bool:
    return headers.get("content-type", "").strip().lower().startswith("multipart/form-data")


def _is_origin_of(origin: str, host: str) -> bool:
    """Whether an origin is the one of pages from ``host``, a Host header; a proxy may have added encryption."""
    try:
        own, parts = urlsplit(f"//{host}"), urlsplit(origin)
        usual = {"http": 80, "https": 443}[parts.scheme]
        return parts.hostname == own.hostname and (parts.port or usual) == (own.port or usual)
    except (ValueError, KeyError):  # such as null
        return False


def _paths(value: Any) -> Iterable[str]:
    """All values named ``path`` in a JSON value: gradio's files."""
    if isinstance(value, dict):
        if isinstance(value.get("path"), str):
            yield value["path"]
        value = list(value.values())
    if isinstance(value, list):
        for own in value:
            yield from _paths(own)
