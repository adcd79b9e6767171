"""What a call cost, and how to read it off the answers of the providers' SDKs."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


def new_id() -> str:
    """A UUIDv7: an event's identity and its time in one. It is made once for an event, so that sending it
    again books nothing twice."""
    raw = bytearray(int(time.time() * 1000).to_bytes(6, "big") + os.urandom(10))
    raw[6] = 0x70 | raw[6] & 0x0F
    raw[8] = 0x80 | raw[8] & 0x3F
    text = raw.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


@dataclass(frozen=True)
class Usage:
    """What a call cost. Input includes cached tokens, output includes reasoning."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_input_tokens: int = 0
    cache_write_input_tokens: int = 0
    reasoning_output_tokens: int = 0
    provider: str = ""
    model: str = ""
    response_id: str = ""
    request_id: str = ""
    measured_by: str = "provider"  # partial, estimate
    status: str = "ok"  # partial, error

    def fields(self) -> dict[str, Any]:
        """The event's fields, without those that are empty."""
        details = {name: getattr(self, name) for name in ("cache_read_input_tokens", "cache_write_input_tokens", "reasoning_output_tokens")}
        figures = {"input_tokens": self.input_tokens, "output_tokens": self.output_tokens, "details": details}
        return {**figures, "measured_by": self.measured_by, "status": self.status, **self.names()}

    def names(self) -> dict[str, str]:
        texts = {name: getattr(self, name) for name in ("provider", "model", "response_id", "request_id")}
        return {name: text for name, text in texts.items() if text}


def a_usage(given: object) -> Usage:
    """What is given, if it is a Usage. Raises TypeError."""
    if not isinstance(given, Usage):
        raise TypeError(f"usage must be a tidegate.Usage, as usage_of(response) returns, and is a {type(given).__name__}")
    return given


def usage_of(response: Any, *, provider: str = "") -> Usage:
    """Reads the usage off a response of the SDKs of OpenAI (chat completions, their last chunk, responses, embeddings),
    Anthropic and Google Gemini, or of whoever speaks the same; also off their `model_dump()`. `provider` says who was
    paid where it is none of these three.

    Raises ValueError where the response tells no usage, as chunks of a stream do unless it was asked to
    (`stream_options={"include_usage": True}`). Then report an estimate: Usage(..., measured_by="estimate").
    """
    gemini = _get(response, "usage_metadata")
    if gemini is not None:
        return _gemini(response, gemini, provider or "google")
    if _get(response, "usage") is None and _get(response, "response") is not None:
        response = _get(response, "response")  # a response.completed event
    usage = _get(response, "usage")
    if usage is None:
        raise ValueError(f"the {type(response).__name__} tells no usage")
    # "type": "message" is Anthropic's alone. Others' input_tokens include what was cached.
    if _get(response, "type") == "message":
        return _anthropic(response, usage, provider or "anthropic")
    return _openai(response, usage, provider or "openai")


def _openai(response: Any, usage: Any, provider: str) -> Usage:
    chat = _get(usage, "input_tokens") is None
    given = _count(usage, "prompt_tokens" if chat else "input_tokens")
    made = _count(usage, "completion_tokens" if chat else "output_tokens")
    total = _count(usage, "total_tokens")
    if given == made == 0:
        given = total  # Voyage's embeddings
    details = _get(usage, "prompt_tokens_details" if chat else "input_tokens_details")
    read = _count(details, "cached_tokens") or _count(usage, "cached_tokens") or _count(usage, "prompt_cache_hit_tokens")  # Moonshot, DeepSeek
    reasoning = _count(_get(usage, "completion_tokens_details" if chat else "output_tokens_details"), "reasoning_tokens")
    given, made, reasoning = _whole(given, made, read, reasoning, total)
    return _usage(response, provider, given, made, read, _count(details, "cache_write_tokens"), reasoning)


def _anthropic(response: Any, usage: Any, provider: str) -> Usage:
    totals = [0, 0, 0, 0, 0]
    iterations = [i for i in _get(usage, "iterations") or () if _get(i, "type") in ("compaction", "advisor_message")]
    for part in (usage, *iterations):  # which are billed beside the usage above them
        for n, name in enumerate(("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")):
            totals[n] += _count(part, name)
        totals[4] += _count(_get(part, "output_tokens_details"), "thinking_tokens")
    given, made, read, written, thoughts = totals
    return _usage(response, provider, given + read + written, made, read, written, thoughts)


def _gemini(response: Any, usage: Any, provider: str) -> Usage:
    given = _count(usage, "prompt_token_count") + _count(usage, "tool_use_prompt_token_count")
    thoughts, read = _count(usage, "thoughts_token_count"), _count(usage, "cached_content_token_count")
    made = _count(usage, "candidates_token_count") + thoughts
    given, made, thoughts = _whole(given, made, read, thoughts, _count(usage, "total_token_count"))
    return _usage(response, provider, given, made, read, 0, thoughts)


def _whole(given: int, made: int, read: int, reasoning: int, total: int) -> tuple[int, int, int]:
    """The provider's total decides whether something is missing from its parts: what was thought (xAI), or what was cached."""
    missing = total - given - made
    if missing > 0 and missing == read and missing != reasoning:
        given += missing
    elif missing > 0:
        made, reasoning = made + missing, max(reasoning, missing)
    return given, made, reasoning


def _usage(response: Any, provider: str, given: int, made: int, read: int, written: int, reasoning: int) -> Usage:
    return Usage(
        input_tokens=given, output_tokens=made, provider=provider,
        cache_read_input_tokens=min(read, given), cache_write_input_tokens=min(written, given - min(read, given)), reasoning_output_tokens=min(reasoning, made),
        model=_first(response, ("model", "model_version")), response_id=_first(response, ("id", "response_id")), request_id=_first(response, ("_request_id",)),
    )


def _get(of: Any, name: str) -> Any:
    return of.get(name) if isinstance(of, Mapping) else getattr(of, name, None)


def _count(of: Any, name: str) -> int:
    value = _get(of, name)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _first(of: Any, names: Iterable[str]) -> str:
    return next((text for text in (_get(of, name) for name in names) if isinstance(text, str)), "")
