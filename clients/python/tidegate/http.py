"""HTTP to the edge: connections that are kept, and answers within a deadline."""

from __future__ import annotations

import http.client
import json
import random
import ssl
import threading
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from .errors import RequestError, Unavailable

_MOST_ANSWER = 4 << 20  # bytes: a report of 5,000 events is answered with fewer
_IDLE = 16  # connections that are kept
_AGAIN = (429, 500, 502, 503, 504)  # nothing was done, or doing it twice does no harm


@dataclass(frozen=True)
class Answer:
    status: int
    retry_after: float  # seconds; 0: it does not say
    body: Any  # None: no JSON object


class Transport:
    """Speaks HTTP. Its methods may be called from any thread."""

    def __init__(self, url: str, token: str) -> None:
        self.forget()
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment or parts.username:
            raise ValueError(f"url must be like http://127.0.0.1:8080, not {url!r}")
        if not token or not token.isascii() or any(c.isspace() for c in token):
            raise ValueError("token must be an API token, as `tidegate token create` prints it")
        self._host, self._port, self._path = parts.hostname, parts.port, parts.path.rstrip("/")
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json", "User-Agent": "tidegate-python/0.1"}

    def forget(self) -> None:
        """In a forked child: connections are the parent's, and a lock may have been held."""
        self._lock = threading.Lock()
        self._idle: list[http.client.HTTPConnection] = []

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def ask(self, method: str, path: str, question: Any, timeout: float, key: str = "") -> Any:
        """Asks until there is an answer that counts or the timeout is over. Tries after the first have the idempotency key, if
        there is one. Raises Unavailable and RequestError."""
        deadline = time.monotonic() + timeout
        body = None if question is None else json.dumps(question).encode()
        for attempt in range(1_000):
            try:
                answer = self.send(method, path, body, deadline, key if attempt else "", key)
            except OSError as err:
                wait, last = pause(attempt), Unavailable(f"{method} {path}: {err}")
                cause: Exception | None = err
            else:
                if answer.status < 300:
                    return answer.body
                problem = answer.body if isinstance(answer.body, dict) else {}
                refused = RequestError(answer.status, problem)
                if answer.status not in _AGAIN:
                    raise refused
                wait, last, cause = answer.retry_after or pause(attempt), Unavailable(f"{method} {path}: {refused}"), refused
            if time.monotonic() + wait >= deadline:
                raise last from cause
            time.sleep(wait)
        raise AssertionError("unreachable: each attempt waits")

    def send(self, method: str, path: str, body: bytes | None, deadline: float, key: str = "", again: str = "") -> Answer:
        """One request and its answer; with the key `again` if it is sent once more. Raises OSError if there is none in time."""
        connection, used = self._take()
        try:
            try:
                answer = self._exchange(connection, method, path, body, deadline, key)
            except (ConnectionError, http.client.RemoteDisconnected):
                connection.close()
                if not used:
                    raise
                # The edge has closed a connection that was idle: that says nothing about a new one.
                connection = self._connect()
                answer = self._exchange(connection, method, path, body, deadline, again)
        except http.client.HTTPException as err:
            connection.close()
            raise OSError(f"no HTTP answer: {err!r}") from err
        except BaseException:
            connection.close()
            raise
        self._give(connection)
        return answer

    def _exchange(self, connection: http.client.HTTPConnection, method: str, path: str, body: bytes | None, deadline: float, key: str) -> Answer:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        connection.timeout = left
        if connection.sock is not None:
            connection.sock.settimeout(left)
        headers = self._headers if not key else {**self._headers, "Idempotency-Key": key}
        connection.request(method, self._path + path, body, headers)
        response = connection.getresponse()
        text = response.read(_MOST_ANSWER)
        if response.read(1) or response.will_close:
            connection.close()
        retry = response.headers.get("Retry-After", "")
        try:
            answer = json.loads(text) if text else None
        except ValueError:  # whatever stands between here and the edge said it
            answer = None
        return Answer(response.status, float(retry) if retry.isdigit() else 0.0, answer if isinstance(answer, dict) else None)

    def _connect(self) -> http.client.HTTPConnection:
        if self._tls is None:
            return http.client.HTTPConnection(self._host, self._port)
        return http.client.HTTPSConnection(self._host, self._port, context=self._tls)

    def _take(self) -> tuple[http.client.HTTPConnection, bool]:
        with self._lock:
            if self._idle:
                return self._idle.pop(), True
        return self._connect(), False

    def _give(self, connection: http.client.HTTPConnection) -> None:
        with self._lock:
            if connection.sock is not None and len(self._idle) < _IDLE:
                self._idle.append(connection)
                return
        connection.close()


def pause(attempt: int) -> float:
    """Seconds to wait after so many attempts: some 0.1, doubling up to some 10, with jitter."""
    return min(0.1 * 2.0 ** min(attempt, 10), 10.0) * random.uniform(0.5, 1.0)
