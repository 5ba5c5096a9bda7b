"""A request to a server and its reply, within a time that holds whatever the other side does.

A socket that is open and says nothing, or says a byte now and then, is closed from outside when its time is up.
Connections go straight to the address; redirects are not followed, so that a token goes nowhere else.
"""

import contextlib
import http.client
import queue
import socket
import ssl
import threading
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from schemas.errors import SettingsError


@dataclass(frozen=True)
class Address:
    """Where a server is, as a setting names it, with a bearer token."""

    host: str
    port: int | None
    tls: bool
    path: str
    """With its query, if there is one."""
    shown: str
    """For logs and records: without the query."""
    token: str | None = field(default=None, repr=False)

    @classmethod
    def of(cls, url: str, *, setting: str, token: str | None) -> "Address":
        """Raises `SettingsError` where the URL or the token can't be used; `setting` is what holds the URL."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise SettingsError(f"{setting} must be a URL that begins with http:// or https://")
        if parts.username is not None or parts.password is not None:
            raise SettingsError(
                f"{setting} must hold no user and password: put a bearer token into {setting.removesuffix('_URL')}"
                "_TOKEN_FILE"
            )
        if token is not None and (not token.isascii() or not token.isprintable()):
            raise SettingsError(f"the token for {setting} must be one line of printable ASCII")
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        shown = f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}{parts.path}"
        return cls(parts.hostname, parts.port, parts.scheme == "https", path, shown, token)

    def headers(self) -> dict[str, str]:
        """For a request of JSON."""
        headers = {"Content-Type": "application/json", "Accept": "application/json", "Connection": "close"}
        return headers if self.token is None else headers | {"Authorization": f"Bearer {self.token}"}

    def connection(self, seconds: float) -> http.client.HTTPConnection:
        """One that is not yet open."""
        if not self.tls:
            return http.client.HTTPConnection(self.host, self.port, timeout=seconds)
        context = ssl.create_default_context()
        return http.client.HTTPSConnection(self.host, self.port, timeout=seconds, context=context)


@dataclass(frozen=True)
class Reply:
    status: int
    body: bytes
    cut_off: bool


class Exchange:
    """One request and its reply, in a thread of its own: resolving, shaking hands and reading all end in time."""

    def __init__(self, address: Address, path: str, body: bytes, *, limit: int, seconds: float) -> None:
        self._connection, self._limit = address.connection(seconds), limit
        self._request = (path, body, address.headers())
        self._socket: socket.socket | None = None
        self._box: queue.SimpleQueue[Reply | Exception] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="exchange", daemon=True).start()

    def result(self, seconds: float) -> Reply | Exception:
        """The reply, or why there is none; what is still under way after `seconds` is cut off and forgotten."""
        try:
            return self._box.get(timeout=seconds)
        except queue.Empty:
            if self._socket is not None:
                with contextlib.suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)
            return TimeoutError(f"no whole reply in {seconds:.2g} s")

    def _run(self) -> None:
        try:
            self._box.put(self._exchanged())
        except (OSError, http.client.HTTPException, ValueError) as error:
            self._box.put(error)

    def _exchanged(self) -> Reply:
        path, body, headers = self._request
        with contextlib.closing(self._connection) as connection:
            connection.connect()
            self._socket = connection.sock  # the connection lets go of it once the reply has begun
            connection.request("POST", path, body=body, headers=headers)
            with connection.getresponse() as response:
                read = response.read(self._limit + 1)
                return Reply(response.status, read, bool(response.length))
