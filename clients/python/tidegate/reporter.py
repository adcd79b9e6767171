"""Reports in the background: from memory that is bounded, until the edge has answered for each event."""

from __future__ import annotations

import atexit
import json
import logging
import os
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from .errors import QueueFull
from .http import Answer, Transport, pause

log = logging.getLogger("tidegate")

_LINGER = 0.02  # seconds that an event waits for others
_MOST_EVENTS = 500  # of a request
_MOST_BYTES = 512 << 10  # of a request: half of what the edge takes
_MOST_EVENT = 16 << 10
_EXIT = 10.0  # seconds that a process that ends waits


@dataclass(frozen=True)
class Rejection:
    """An event that will not be booked as it is: the edge says why."""

    event: Mapping[str, Any]
    reason: str
    field: str = ""
    value: str = ""
    rule: str = ""


@dataclass(frozen=True)
class Stats:
    """Counts of events. recorded = accepted + rejected + lost + pending."""

    recorded: int = 0
    accepted: int = 0
    rejected: int = 0  # told to on_rejected, and logged
    lost: int = 0  # what close() or the end of the process had to give up; logged
    pending: int = 0


@dataclass(frozen=True)
class Destination:
    """Where events go, and what the answer says of each."""

    path: str = "/v1/usage"
    list: str = "events"
    rejected: tuple[str, ...] = ("refused",)


class Reporter:
    def __init__(self, transport: Transport, destination: Destination, buffer_bytes: int, block: float, timeout: float, on_rejected: Callable[[Rejection], None] | None) -> None:
        if buffer_bytes < _MOST_EVENT or block < 0 or timeout <= 0:
            raise ValueError(f"buffer_bytes must be at least {_MOST_EVENT}, block at least 0, timeout more than 0")
        self._transport, self._destination = transport, destination
        self._buffer_bytes, self._block, self._timeout, self._on_rejected = buffer_bytes, block, timeout, on_rejected
        self._begin()
        _live.add(self)

    def _begin(self) -> None:
        """At the beginning, and in a forked child: the thread and what waits are the parent's."""
        self._changed = threading.Condition()
        self._waiting: deque[tuple[Mapping[str, Any], bytes]] = deque()
        self._bytes = 0  # of what waits, and of what is on its way
        self._stats = Stats()
        self._closed = False
        self._deadline = float("inf")  # of close()
        self._thread: threading.Thread | None = None

    def forked(self) -> None:
        closed = self._closed
        self._begin()
        self._closed = closed
        self._transport.forget()

    def stats(self) -> Stats:
        with self._changed:
            return self._stats

    def put(self, event: Mapping[str, Any], block: float | None = None) -> None:
        """Takes an event. Raises ValueError if it can never be reported, QueueFull if there is no room for `block` seconds."""
        text = json.dumps(event, allow_nan=False).encode()
        if len(text) > _MOST_EVENT:
            raise ValueError(f"an event must be at most {_MOST_EVENT} bytes, this one has {len(text)}")
        block = self._block if block is None else block
        with self._changed:
            room = self._changed.wait_for(lambda: self._closed or self._bytes + len(text) <= self._buffer_bytes, block)
            if self._closed:
                raise RuntimeError("the client is closed")
            if not room:
                raise QueueFull(f"{self._stats.pending} events wait to be reported")
            self._waiting.append((event, text))
            self._bytes += len(text)
            self._count(recorded=1, pending=1)
            self._start()
            self._changed.notify_all()

    def _count(self, **more: int) -> None:
        self._stats = replace(self._stats, **{name: getattr(self._stats, name) + n for name, n in more.items()})

    def _start(self) -> None:
        if self._thread is not None:
            return
        self._thread = threading.Thread(target=self._run, name="tidegate-reporter", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:  # the interpreter ends: close(), which comes yet, sends it
            self._thread = None
        # A child of multiprocessing ends without atexit.
        process = sys.modules.get("multiprocessing.process")
        if process is not None and process.parent_process() is not None:
            from multiprocessing import util

            util.Finalize(self, Reporter.close, args=(self, _EXIT), exitpriority=100)

    def flush(self, timeout: float) -> bool:
        """Waits until all that was taken is answered for. False: not in that time; it is still tried."""
        with self._changed:
            return self._changed.wait_for(lambda: self._stats.pending == 0, timeout)

    def close(self, timeout: float) -> bool:
        """Takes no more, and gives up after `timeout` seconds. False: events are lost; they are counted and logged."""
        with self._changed:
            self._closed = True
            self._deadline = min(self._deadline, time.monotonic() + timeout)
            self._changed.notify_all()
            thread = self._thread
        if thread is None:
            self._run()
        elif thread is not threading.current_thread():  # on_rejected may call this
            thread.join(timeout + 0.5)
        with self._changed:
            if self._stats.pending:
                log.error("%d events are lost: the edge does not answer", self._stats.pending)
            return self._stats.pending == 0 and self._stats.lost == 0

    def _run(self) -> None:
        while (batch := self._next()) is not None:
            self._deliver(batch)
        with self._changed:
            if self._waiting and time.monotonic() >= self._deadline:
                self._lose(list(self._waiting))
                self._waiting.clear()

    def _next(self) -> list[tuple[Mapping[str, Any], bytes]] | None:
        """What is sent next; None if there will be nothing more."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            if not self._closed:
                self._changed.wait_for(lambda: self._closed or len(self._waiting) >= _MOST_EVENTS, _LINGER)
            if not self._waiting or time.monotonic() >= self._deadline:
                return None
            batch: list[tuple[Mapping[str, Any], bytes]] = []
            size = 0
            while self._waiting and len(batch) < _MOST_EVENTS and size + len(self._waiting[0][1]) < _MOST_BYTES:
                batch.append(self._waiting.popleft())
                size += len(batch[-1][1])
            return batch

    def _deliver(self, batch: list[tuple[Mapping[str, Any], bytes]]) -> None:
        """Sends a batch until the edge has answered for each of its events, or close() gives up."""
        body = b"[" + b",".join(text for _, text in batch) + b"]"
        attempt = 0
        while True:
            wait = pause(attempt)
            attempt += 1
            try:
                answer = self._transport.send("POST", self._destination.path, body, min(time.monotonic() + self._timeout, self._deadline))
            except OSError as err:
                why = str(err)
            else:
                outcomes = answer.body.get(self._destination.list) if answer.body else None
                if isinstance(outcomes, list) and len(outcomes) == len(batch):
                    return self._settle(batch, outcomes)
                why = _problem(answer)
                if answer.status in (400, 413, 422):  # about the body, not about who sends it or when
                    return self._halve(batch, answer)
                wait = answer.retry_after or wait
            if attempt in (1, 5) or attempt % 50 == 0:
                log.warning("%d events are not reported yet, and are tried again: %s", len(batch), why)
            if self._sleep(wait):
                return self._lose(batch)

    def _sleep(self, wait: float) -> bool:
        """Waits before the next attempt; after close() only briefly. True: there is no time for one."""
        began = time.monotonic()
        with self._changed:
            while (left := min(began + (min(wait, 0.2) if self._closed else wait), self._deadline) - time.monotonic()) > 0:
                self._changed.wait(left)
            return time.monotonic() >= self._deadline

    def _halve(self, batch: list[tuple[Mapping[str, Any], bytes]], answer: Answer) -> None:
        """One event may be what the edge does not take; it must not cost the others."""
        if len(batch) > 1:
            middle = len(batch) // 2
            self._deliver(batch[:middle])
            return self._deliver(batch[middle:])
        self._settle(batch, [{"status": self._destination.rejected[0], "reason": "malformed", "rule": _problem(answer)}])

    def _settle(self, batch: list[tuple[Mapping[str, Any], bytes]], outcomes: list[Any]) -> None:
        rejections = []
        for (event, _), o in zip(batch, outcomes, strict=True):
            if isinstance(o, dict) and o.get("status") in self._destination.rejected:
                rejections.append(Rejection(event, *(str(o.get(name, "")) for name in ("reason", "field", "value", "rule"))))
        for rejection in rejections:
            log.error("an event is not booked: %s: %s = %s: %s", rejection.reason, rejection.field, rejection.value, rejection.rule)
            if self._on_rejected is not None:
                try:
                    self._on_rejected(rejection)
                except Exception:
                    log.exception("on_rejected failed")
        self._done(batch, accepted=len(batch) - len(rejections), rejected=len(rejections))

    def _lose(self, batch: list[tuple[Mapping[str, Any], bytes]]) -> None:
        log.error("%d events are lost: the edge did not answer for them in time", len(batch))
        self._done(batch, lost=len(batch))

    def _done(self, batch: list[tuple[Mapping[str, Any], bytes]], **counts: int) -> None:
        with self._changed:
            self._bytes -= sum(len(text) for _, text in batch)
            self._count(pending=-len(batch), **counts)
            self._changed.notify_all()


def _problem(answer: Answer) -> str:
    body = answer.body or {}
    return f"{answer.status} {body.get('title', '')}: {body.get('detail', '')}"


_live: weakref.WeakSet[Reporter] = weakref.WeakSet()


def _at_exit() -> None:
    for reporter in list(_live):
        reporter.close(_EXIT)


def _in_child() -> None:
    for reporter in list(_live):
        reporter.forked()


atexit.register(_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
