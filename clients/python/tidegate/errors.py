"""What goes wrong. A refusal is none of these where it is an answer: `check` and `reserve` return it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .verdict import Verdict


class TidegateError(Exception):
    """Any of the errors below."""


class Refused(TidegateError):
    """Raised by `with reserve(...)` instead of running its body: the port may not spend that much."""

    def __init__(self, verdict: Verdict) -> None:
        left = "no cap" if verdict.remaining_tokens is None else f"{verdict.remaining_tokens} left"
        when = "" if verdict.resets_at is None else f", until {verdict.resets_at.isoformat()}"
        super().__init__(f"{verdict.reason}: limit {verdict.limit}, {left}{when}")
        self.verdict = verdict


class Unavailable(TidegateError):
    """No answer within the timeout: no network, no edge, no gate, or too much to do. Whether to call
    nevertheless is yours to decide; see Client(on_unavailable="allow")."""


class RequestError(TidegateError):
    """The edge refuses the request: what it says is wrong, and how to mend it, is in `detail`."""

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        self.status = status
        self.type = str(problem.get("type", ""))
        self.title = str(problem.get("title", ""))
        self.detail = str(problem.get("detail", ""))
        super().__init__(f"{status} {self.title}: {self.detail}")


class QueueFull(TidegateError):
    """As much waits to be reported as `buffer_bytes` allows, and did so for `block` seconds. The event is not taken."""
