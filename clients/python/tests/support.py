"""What the tests share. The Go test that runs them has the real system at TIDEGATE_URL: NATS, Postgres, consumer, gate and edge."""

from __future__ import annotations

import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from types import SimpleNamespace
from typing import Any

import tidegate

URL = os.environ["TIDEGATE_URL"]
TOKEN = os.environ["TIDEGATE_TOKEN"]  # for every port

USAGE = tidegate.Usage(input_tokens=70, output_tokens=30, provider="openai", model="gpt-5-mini")


def client(port: str, **settings: Any) -> tidegate.Client:
    return tidegate.Client(settings.pop("url", URL), settings.pop("token", TOKEN), **{"port": port, "feature": "test", "timeout": 30, **settings})


def eventually(what: str, true: Callable[[], bool], timeout: float = 20) -> None:
    end = time.monotonic() + timeout
    while not true():
        if time.monotonic() > end:
            raise AssertionError(f"not in {timeout} s: {what}")
        time.sleep(0.01)


_asking: dict[str, tidegate.Client] = {}


def ask(port: str) -> tidegate.Verdict:
    if port not in _asking:
        _asking[port] = client(port)
    return _asking[port].check()


def used(port: str) -> int:
    return ask(port).used_tokens


def wait_used(port: str, tokens: int) -> None:
    eventually(f"{tokens} tokens of {port} are used", lambda: used(port) >= tokens)
    if used(port) != tokens:
        raise AssertionError(f"{used(port)} tokens of {port} are used, want {tokens}")


def wait_free(port: str) -> None:
    eventually(f"nothing of {port} is held", lambda: ask(port).held_tokens == 0)


class Between:
    """Stands between a client and the edge, and spoils answers. `spoil` gets the number of the request, from 0, and
    returns a status with which it answers itself, "lose" to lose the edge's answer, or None."""

    def __init__(self, spoil: Callable[[int], int | str | None]) -> None:
        between, lock = self, Lock()
        self.seen: list[tuple[str, str, bytes]] = []

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                with lock:
                    n = len(between.seen)
                    between.seen.append((self.path, self.headers.get("Idempotency-Key", ""), body))
                what = spoil(n)
                if isinstance(what, int):
                    self.answer(what, b'{"title":"spoilt","detail":"by a test"}', {"Retry-After": "1"})
                    return
                headers = {name: self.headers[name] for name in ("Authorization", "Content-Type", "Idempotency-Key") if self.headers.get(name)}
                try:
                    with urllib.request.urlopen(urllib.request.Request(URL + self.path, body or None, headers, method=self.command), timeout=30) as real:
                        status, text = real.status, real.read()
                except urllib.error.HTTPError as err:
                    status, text = err.code, err.read()
                if what == "lose":
                    self.close_connection = True
                    self.connection.close()
                    return
                self.answer(status, text, {})

            do_POST = do_GET = do_DELETE = handle_any

            def answer(self, status: int, text: bytes, headers: dict[str, str]) -> None:
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(text)), "Content-Type": "application/json"}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_: Any) -> None:
                pass

            def finish(self) -> None:
                try:
                    super().finish()
                except OSError:  # it was closed by "lose"
                    pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.handle_error = lambda *_: None  # type: ignore[method-assign]
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def __enter__(self) -> Between:
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()


def fake(**fields: Any) -> SimpleNamespace:
    """An object of an SDK, with nested ones for dicts."""
    return SimpleNamespace(**{name: fake(**value) if isinstance(value, dict) else value for name, value in fields.items()})
