"""Keeps AI spending inside a budget: asks Tidegate before a call, reports what it cost.

    client = tidegate.Client("http://127.0.0.1:8080", token, port="p1", feature="summary")
    with client.reserve(estimated_tokens=2000) as hold:  # raises Refused at the cap
        response = openai.chat.completions.create(...)
        hold.settle(tidegate.usage_of(response))

It speaks HTTP to the role `edge`. docs/integrations/python.md says what happens when nothing answers,
when an event is refused, and at the end of a process.
"""

from .aio import AsyncClient, AsyncHold
from .client import Client, Hold
from .errors import QueueFull, Refused, RequestError, TidegateError, Unavailable
from .reporter import Rejection, Stats
from .usage import Usage, usage_of
from .verdict import Verdict

__all__ = [
    "AsyncClient",
    "AsyncHold",
    "Client",
    "Hold",
    "QueueFull",
    "Refused",
    "Rejection",
    "RequestError",
    "Stats",
    "TidegateError",
    "Unavailable",
    "Usage",
    "Verdict",
    "usage_of",
]
