"""The client for threads."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

from .errors import Refused, TidegateError, Unavailable
from .fields import Call, Event, Question, known
from .http import Transport
from .reporter import Destination, Rejection, Reporter, Stats
from .usage import Usage, a_usage, new_id
from .verdict import Verdict

if TYPE_CHECKING:
    from typing_extensions import Unpack

log = logging.getLogger("tidegate")


class Client:
    """Asks and reports for one port. It may be used by many threads, and in forked children. Make one for a process.

    url: where the edge is, as http://127.0.0.1:8080.
    token: an API token with usage.report and budget.reserve for the port. It is never logged.
    port: the tenant.
    feature, user_id, run_id, provider, model: for calls that do not say their own.
    on_unavailable: what `check` and `reserve` do when no gate answers in time. "raise": raise Unavailable.
        "allow": answer allowed, with the reason gate_unavailable; caps may be overrun until somebody answers again.
    timeout: seconds that a question may take, attempts included. Questions are asked again while they last.
    buffer_bytes: of events that wait to be reported; an event has some 400.
    block: seconds that `report` and `settle` wait when the buffer is full. Then they raise QueueFull.
    on_rejected: is told of each event that the edge refuses, on the thread that reports. They are logged in any case.
    """

    def __init__(
        self,
        url: str,
        token: str,
        *,
        port: str,
        feature: str = "",
        user_id: str = "",
        run_id: str = "",
        provider: str = "",
        model: str = "",
        on_unavailable: Literal["raise", "allow"] = "raise",
        timeout: float = 5.0,
        buffer_bytes: int = 8 << 20,
        block: float = 1.0,
        on_rejected: Callable[[Rejection], None] | None = None,
    ) -> None:
        if on_unavailable not in ("raise", "allow"):
            raise ValueError('on_unavailable must be "raise" or "allow"')
        if timeout <= 0:
            raise ValueError("timeout must be more than 0 seconds")
        self.port = port
        self._defaults = known(Call, {"feature": feature, "user_id": user_id, "run_id": run_id, "provider": provider, "model": model})
        self._on_unavailable, self._timeout = on_unavailable, timeout
        self._transport = Transport(url, token)
        self._reporter = Reporter(Transport(url, token), Destination(), buffer_bytes, block, 10.0, on_rejected)

    def check(self, estimated_tokens: int = 0, **question: Unpack[Question]) -> Verdict:
        """May the port spend this much now? Holds nothing. A refusal is an answer: look at `allowed`.

        Raises Unavailable, RequestError.
        """
        return self._ask("check", self._question(estimated_tokens, question))

    def reserve(self, estimated_tokens: int = 0, *, ttl_seconds: int = 300, accept_less: bool = False, **question: Unpack[Question]) -> Hold:
        """The same, and holds the tokens until the call is settled, the hold is released, or `ttl_seconds` are over. With
        `accept_less`, what is left is granted where the estimate does not fit.

        Use it in `with`: its body runs only if the call is allowed, and otherwise Refused is raised. Without `with`, look at
        `allowed`, and call `settle` or `release`. Raises Unavailable, RequestError.
        """
        asked = self._question(estimated_tokens, question)
        more = {"ttl_seconds": ttl_seconds, **({"accept_less": True} if accept_less else {})}
        # A hold of the first try may be there, though no answer came; it expires. Other tries share a key, so that they make one
        # more at most. The first has none, as in Go: a gate holds from memory only without.
        return Hold(self, self._ask("reserve", {**asked, **more}, key=new_id()), asked)

    def report(self, usage: Usage, **fields: Unpack[Event]) -> str:
        """Reports a finished call in the background and returns the event's id.

        The event is kept until the edge has answered for it, through outages of any length. Raises QueueFull, and
        ValueError if it is larger than 16 KiB.
        """
        return self._report(usage, fields, None)

    def _report(self, usage: Usage, fields: Mapping[str, Any], block: float | None) -> str:
        event = {"v": 1, "id": new_id(), "port_id": self.port, **self._defaults, **a_usage(usage).fields(), **known(Event, fields)}
        self._reporter.put(event, block)
        return str(event["id"])

    def release(self, reservation_id: str) -> None:
        """Gives held tokens back: the call did not happen. A hold that has ended is no error. Raises Unavailable, RequestError."""
        self._transport.ask("DELETE", f"{self._path()}/reservations/{quote(reservation_id, safe='')}", None, self._timeout)

    def budget(self) -> dict[str, Any]:
        """The port's budget as it is stored. Raises Unavailable, RequestError."""
        return dict(self._transport.ask("GET", f"{self._path()}/budget", None, self._timeout))

    def flush(self, timeout: float = 10.0) -> bool:
        """Waits until all that was reported is in the stream. False: not yet; it is tried for as long as the process lives."""
        return self._reporter.flush(timeout)

    def close(self, timeout: float = 10.0) -> bool:
        """Sends what waits, for `timeout` seconds at most. False: events are lost; the log says how many. The end of the process
        does the same, unless it is os._exit or a signal that it does not handle."""
        done = self._reporter.close(timeout)
        self._transport.close()
        return done

    @property
    def stats(self) -> Stats:
        """Counts of events."""
        return self._reporter.stats()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _path(self) -> str:
        return f"/v1/ports/{quote(self.port, safe='')}"

    def _question(self, estimated_tokens: int, question: Mapping[str, Any]) -> dict[str, Any]:
        estimate = {"estimated_tokens": estimated_tokens} if estimated_tokens else {}
        return {**self._defaults, **estimate, **known(Question, question)}

    def _ask(self, what: str, question: dict[str, Any], key: str = "") -> Verdict:
        try:
            return Verdict.of(self._transport.ask("POST", f"{self._path()}/{what}", question, self._timeout, key))
        except Unavailable as err:
            if self._on_unavailable == "raise":
                raise
            log.warning("allowed without an answer: %s", err)
            return Verdict(allowed=True, reason="gate_unavailable")


class Hold:
    """Tokens that are held for a call, or the refusal to. It belongs to one call and one thread.

    In `with`: if the body settles, that is all. If it does not, and told with `partial` what the call has cost so far, that
    is reported, as partial. Otherwise the call did not happen, and the tokens are released. An exception of the body
    changes nothing about this, and goes on.
    """

    def __init__(self, client: Client, verdict: Verdict, asked: dict[str, Any]) -> None:
        self.verdict = verdict
        self._client = client
        self._call = {name: asked[name] for name in ("feature", "user_id", "run_id", "provider", "model") if name in asked}
        self._partial: Usage | None = None
        self._ended = self._spent = False

    @property
    def allowed(self) -> bool:
        return self.verdict.allowed

    @property
    def granted_tokens(self) -> int:
        """What the call may cost: limit it to that."""
        return self.verdict.granted_tokens

    def settle(self, usage: Usage, **fields: Unpack[Event]) -> str:
        """Reports what the call cost, as Client.report does, and ends the hold once that is booked. Returns the event's id."""
        return self._settle(usage, fields, None)

    def _settle(self, usage: Usage, fields: Mapping[str, Any], block: float | None) -> str:
        if self._ended:
            raise RuntimeError("this hold is settled or released already: report what else was called with Client.report")
        self._spent = True  # even if there is no room to report it
        event_id = self._client._report(usage, {**self._call, **a_usage(usage).names(), "reservation_id": self.verdict.reservation_id, **fields}, block)
        self._ended = True
        return event_id

    def partial(self, usage: Usage) -> None:
        """Notes what the call has cost so far, as a stream tells it. The last one counts, if the body ends without `settle`."""
        self._partial = usage

    def release(self) -> None:
        """Gives the tokens back: the call did not happen. Raises Unavailable, RequestError; then they are held until they expire."""
        if not self._ended and self.verdict.reservation_id:
            self._client.release(self.verdict.reservation_id)
        self._ended = True

    def __enter__(self) -> Hold:
        if not self.allowed:
            raise Refused(self.verdict)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            self._end(None)
        except TidegateError as err:  # must not hide the body's own
            log.error("the hold %s is left to expire: %s", self.verdict.reservation_id, err)

    def _end(self, block: float | None) -> None:
        if self._ended:
            return
        if self._partial is not None:
            self._settle(replace(self._partial, status="partial", measured_by="partial"), {}, block)
        elif not self._spent:
            self.release()
