"""The client for asyncio. It asks on threads of its own: the standard library has no HTTP for asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from .client import Client, Hold
from .errors import QueueFull, Refused, TidegateError
from .fields import Event, Question, Settings
from .reporter import Stats
from .usage import Usage
from .verdict import Verdict

if TYPE_CHECKING:
    from typing_extensions import Unpack

log = logging.getLogger("tidegate")
T = TypeVar("T")

_THREADS = 32  # questions at once


class AsyncClient:
    """As Client, with the same settings, methods and errors; each method is awaited. No method blocks the loop."""

    def __init__(self, url: str, token: str, *, port: str, **settings: Unpack[Settings]) -> None:
        self._client = Client(url, token, port=port, **settings)
        self._threads: ThreadPoolExecutor | None = None
        self._process = 0

    async def check(self, estimated_tokens: int = 0, **question: Unpack[Question]) -> Verdict:
        return await self._run(self._client.check, estimated_tokens, **question)

    def reserve(self, estimated_tokens: int = 0, *, ttl_seconds: int = 300, accept_less: bool = False, **question: Unpack[Question]) -> _Reserving:
        """`async with client.reserve(...) as hold`, or `hold = await client.reserve(...)`."""
        return _Reserving(self, functools.partial(self._client.reserve, estimated_tokens, ttl_seconds=ttl_seconds, accept_less=accept_less, **question))

    async def report(self, usage: Usage, **fields: Unpack[Event]) -> str:
        return await self._put(functools.partial(self._client._report, usage, fields))

    async def release(self, reservation_id: str) -> None:
        await self._run(self._client.release, reservation_id)

    async def budget(self) -> dict[str, Any]:
        return await self._run(self._client.budget)

    async def flush(self, timeout: float = 10.0) -> bool:
        return await self._run(self._client.flush, timeout)

    async def close(self, timeout: float = 10.0) -> bool:
        done = await self._run(self._client.close, timeout)
        if self._threads is not None:
            self._threads.shutdown(wait=False)
        return done

    @property
    def stats(self) -> Stats:
        return self._client.stats

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _submit(self, call: Callable[..., T], *args: Any, **more: Any) -> Future[T]:
        if self._threads is None or self._process != os.getpid():  # in a forked child there are no threads
            self._threads, self._process = ThreadPoolExecutor(_THREADS, "tidegate"), os.getpid()
        return self._threads.submit(call, *args, **more)

    async def _run(self, call: Callable[..., T], *args: Any, **more: Any) -> T:
        return await asyncio.wrap_future(self._submit(call, *args, **more))

    async def _put(self, put: Callable[[float | None], T]) -> T:
        """Without a thread as long as there is room."""
        with contextlib.suppress(QueueFull):
            return put(0)
        return await self._run(put, None)


class AsyncHold:
    """As Hold, for one task."""

    def __init__(self, client: AsyncClient, hold: Hold) -> None:
        self._client, self._hold = client, hold

    @property
    def verdict(self) -> Verdict:
        return self._hold.verdict

    @property
    def allowed(self) -> bool:
        return self._hold.allowed

    @property
    def granted_tokens(self) -> int:
        return self._hold.granted_tokens

    async def settle(self, usage: Usage, **fields: Unpack[Event]) -> str:
        return await self._client._put(functools.partial(self._hold._settle, usage, fields))

    def partial(self, usage: Usage) -> None:
        self._hold.partial(usage)

    async def release(self) -> None:
        await self._client._run(self._hold.release)


class _Reserving:
    def __init__(self, client: AsyncClient, reserve: Callable[[], Hold]) -> None:
        self._client, self._reserve = client, reserve
        self._held: AsyncHold | None = None

    def __await__(self) -> Generator[Any, None, AsyncHold]:
        return self._begin().__await__()

    async def _begin(self) -> AsyncHold:
        future = self._client._submit(self._reserve)
        try:
            return AsyncHold(self._client, await asyncio.wrap_future(future))
        except asyncio.CancelledError:
            future.add_done_callback(_give_back)  # nobody will know of what it holds
            raise

    async def __aenter__(self) -> AsyncHold:
        held = await self._begin()
        if not held.allowed:
            raise Refused(held.verdict)
        self._held = held
        return held

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        assert self._held is not None
        hold = self._held._hold
        if hold._ended:
            return
        try:
            # A task that is cancelled once more while it waits here has still done it: the thread goes on.
            await self._client._put(hold._end) if hold._partial is not None else await self._client._run(hold._end, None)
        except TidegateError as err:
            log.error("the hold %s is left to expire: %s", hold.verdict.reservation_id, err)


def _give_back(future: Future[Hold]) -> None:
    if not future.cancelled() and future.exception() is None:
        try:
            future.result().release()
        except TidegateError as err:
            log.warning("a hold that nobody waits for is left to expire: %s", err)
