"""What a gate answers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any

_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d+))?(Z|[+-]\d\d:\d\d)")


def parse_time(text: str | None) -> datetime | None:
    """RFC 3339. datetime.fromisoformat reads neither Z nor any number of decimals before Python 3.11."""
    if not text:
        return None
    found = _TIME.fullmatch(text)
    if found is None:
        raise ValueError(f"no RFC 3339 time: {text!r}")
    seconds, fraction, zone = found.groups()
    at = datetime.fromisoformat(seconds + ("+00:00" if zone == "Z" else zone))
    return (at + timedelta(microseconds=int((fraction or "0").ljust(6, "0")[:6]))).astimezone(timezone.utc)


@dataclass(frozen=True)
class Verdict:
    """May the port spend this much? docs/wire.md explains each field. Times are in UTC."""

    allowed: bool
    reason: str = ""  # of a refusal: hard_cap_reached, estimate_exceeds_hard_cap, gate_stale; gate_unavailable is this client's own
    soft_cap_warning: bool = False
    limit: str = ""  # whose figures these are; "port" for the port's own caps
    limit_value: str = ""
    unit: str = "tokens"
    used_tokens: int = 0
    held_tokens: int = 0
    soft_cap_tokens: int | None = None
    hard_cap_tokens: int | None = None
    remaining_tokens: int | None = None  # None: no cap
    period: str = ""
    period_start: datetime | None = None
    resets_at: datetime | None = None
    as_of: datetime | None = None
    reservation_id: str = ""
    granted_tokens: int = 0
    expires_at: datetime | None = None
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False)  # all of the answer

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> Verdict:
        times = {name: parse_time(answer.get(name)) for name in ("period_start", "resets_at", "as_of", "expires_at")}
        plain = ("reason", "soft_cap_warning", "limit", "limit_value", "unit", "used_tokens", "held_tokens", "soft_cap_tokens",
                 "hard_cap_tokens", "remaining_tokens", "period", "reservation_id", "granted_tokens")
        given: dict[str, Any] = {name: answer[name] for name in plain if answer.get(name) is not None}
        given.update(times)
        return cls(allowed=answer.get("allowed") is True, raw=answer, **given)
