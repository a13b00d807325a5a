"""Checks that every request passes first, and the security headers of every response."""

from __future__ import annotations

import asyncio
import ipaddress
import json
from typing import Any, Final
from urllib.parse import urlsplit

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS: Final = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
)
MOST_JSON: Final = 2 << 20
"""Maximum size in bytes of a request body that is no upload."""


def is_loopback(host: str) -> bool:
    """Return whether a host, as bound to or as requested, is the loopback interface of this machine."""
    name = host.strip("[]").lower()
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost" or name.endswith(".localhost")


class Gate:
    """ASGI middleware: rejects foreign hosts and origins and too large bodies, and adds the headers above.

    A page of another site can make a browser send requests to this server. Such a request has the other site as its
    Origin. If the name of that site resolves to this machine (DNS rebinding), it has that name as its Host.

    Args:
        app: the wrapped application.
        only_loopback: accept only loopback hosts.
        most_upload: maximum size of the body of an upload, in bytes.
    """

    def __init__(self, app: Any, only_loopback: bool, most_upload: int) -> None:
        self._app = app
        self._only_loopback = only_loopback
        self._most_upload = most_upload

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Forward a request, or reject it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        most = self._most_upload if scope["path"] == "/api/upload" else MOST_JSON
        refusal = self._refusal(headers)
        if refusal is None and _length(headers) > most:
            refusal = _too_large(most)
        if refusal is not None:
            await _refuse(_with_headers(send), *refusal)
            return
        body = _Body(receive, most)
        answer = _with_headers(send)

        async def send_unless_refused(message: Any) -> None:
            if not body.is_too_large:
                await answer(message)

        try:
            await self._app(scope, body.receive, send_unless_refused)
        except _TooLarge:
            await _refuse(answer, *_too_large(most))
        except asyncio.CancelledError:  # the server shuts down without waiting for this request
            await _refuse(answer, 503, "The server is shutting down.")
        else:
            if body.is_too_large:
                await _refuse(answer, *_too_large(most))

    def _refusal(self, headers: dict[str, str]) -> tuple[int, str] | None:
        host = headers.get("host", "")
        name = urlsplit(f"//{host}").hostname or ""
        if self._only_loopback and not is_loopback(name):
            return 421, "This server accepts only loopback requests; open it as http://127.0.0.1 or localhost."
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != host:
            return 403, "Requests from pages of other sites are rejected."
        return None


class _TooLarge(Exception):
    """The body exceeds the allowed size."""


class _Body:
    """A request body that counts the bytes received, because a request may not announce its length."""

    def __init__(self, receive: Any, most: int) -> None:
        self._receive, self._left = receive, most
        self.is_too_large = False

    async def receive(self) -> Any:
        message = await self._receive()
        self._left -= len(message.get("body", b""))
        if self._left < 0:
            self.is_too_large = True
            raise _TooLarge
        return message


def _too_large(most: int) -> tuple[int, str]:
    return 413, f"The request body is larger than the limit of {most:,} bytes."


def _length(headers: dict[str, str]) -> int:
    text = headers.get("content-length", "")
    return int(text[:20]) if text.isascii() and text.isdecimal() else 0


def _with_headers(send: Any) -> Any:
    async def answer(message: Any) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), *HEADERS]
        await send(message)

    return answer


async def _refuse(send: Any, status: int, reason: str) -> None:
    body = json.dumps({"error": reason}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
