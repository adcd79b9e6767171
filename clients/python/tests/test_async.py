from __future__ import annotations

import asyncio
import unittest

from support import TOKEN, URL, USAGE, Between, wait_free, wait_used

import tidegate


def client(port: str, url: str = URL, timeout: float = 30) -> tidegate.AsyncClient:
    return tidegate.AsyncClient(url, TOKEN, port=port, feature="test", timeout=timeout)


class Async(unittest.IsolatedAsyncioTestCase):
    async def test_calls(self) -> None:
        async with client("async-capped-1") as c:
            self.assertFalse((await c.check(1001)).allowed)
            with self.assertRaises(tidegate.Refused):
                async with c.reserve(1001):
                    self.fail("the body ran")

            async def call() -> None:
                async with c.reserve(100) as hold:
                    await hold.settle(USAGE)

            await asyncio.gather(*(call() for _ in range(8)))
            hold = await c.reserve(100)
            self.assertEqual((hold.allowed, hold.granted_tokens), (True, 100))
            await hold.release()
            await c.report(USAGE)
            self.assertEqual((await c.budget())["hard_cap_tokens"], 1000)
            self.assertTrue(await c.flush())
            self.assertEqual(c.stats.accepted, 9)
        wait_used("async-capped-1", 900)
        wait_free("async-capped-1")

    async def test_a_body_that_is_cancelled(self) -> None:
        async with client("async-capped-2") as c:
            inside = asyncio.Event()

            async def stream(partial: bool) -> None:
                async with c.reserve(300) as hold:
                    if partial:
                        hold.partial(tidegate.Usage(input_tokens=9, provider="p", model="m"))
                    inside.set()
                    await asyncio.sleep(60)

            for partial in (True, False):
                inside.clear()
                task = asyncio.create_task(stream(partial))
                await inside.wait()
                task.cancel()
                with self.assertRaises(asyncio.CancelledError):
                    await task
        wait_used("async-capped-2", 9)
        wait_free("async-capped-2")

    async def test_a_reservation_that_nobody_waits_for_is_given_back(self) -> None:
        loop, asked = asyncio.get_running_loop(), asyncio.Event()

        def seen(n: int) -> None:
            loop.call_soon_threadsafe(asked.set)

        with Between(seen) as between:
            async with client("async-capped-3", between.url) as c:
                task = asyncio.create_task(c.reserve(300)._begin())
                await asked.wait()
                task.cancel()
                with self.assertRaises(asyncio.CancelledError):
                    await task
                for _ in range(200):
                    if between.seen[-1][0].startswith("/v1/ports/async-capped-3/reservations/"):
                        break
                    await asyncio.sleep(0.02)
                else:
                    self.fail(f"not released: {between.seen}")
        wait_free("async-capped-3")

    async def test_the_loop_goes_on(self) -> None:
        with Between(lambda n: 503) as between:
            c = client("p", between.url, timeout=3)  # its thread asks for so long, and the end of the test waits for it
            task = asyncio.create_task(c.check())
            for _ in range(10):
                await asyncio.sleep(0.001)
            self.assertFalse(task.done())
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
