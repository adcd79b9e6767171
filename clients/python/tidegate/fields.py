"""What a call is for, as questions and events name it. docs/wire.md says what each field may be."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, TypedDict

if TYPE_CHECKING:
    from .reporter import Rejection


class Call(TypedDict, total=False):
    feature: str  # the AI feature, as ocr or summary
    user_id: str
    run_id: str  # the agent run, conversation or job
    provider: str
    model: str


class Question(Call, total=False):
    estimated_input_tokens: int
    estimated_output_tokens: int
    explain: bool  # what each limit says by itself, in Verdict.raw["limits"]


class Event(Call, total=False):
    id: str  # default: a new UUIDv7
    occurred_at: str  # RFC 3339; beside an id that is no UUIDv7
    reservation_id: str
    request_id: str
    response_id: str


class Settings(Call, total=False):
    on_unavailable: Literal["raise", "allow"]
    timeout: float
    buffer_bytes: int
    block: float
    on_rejected: Callable[[Rejection], None] | None


def known(kind: type[Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The given fields, without those that are None or empty. Raises TypeError for one that there is not: an event with a
    misspelt user_id would be booked without it."""
    for name in given:
        if name not in kind.__annotations__:
            raise TypeError(f"unexpected argument {name!r}: there are {', '.join(sorted(kind.__annotations__))}")
    return {name: value for name, value in given.items() if value is not None and value != ""}
