from __future__ import annotations

import json
import logging
import multiprocessing
import os
import pathlib
import subprocess
import sys
import threading
import time
import unittest

from support import TOKEN, URL, USAGE, Between, ask, client, eventually, used, wait_free, wait_used

import tidegate
from tidegate.verdict import parse_time

logging.disable(logging.CRITICAL)  # what tests provoke


class Asking(unittest.TestCase):
    def test_a_refusal_is_an_answer(self) -> None:
        c = client("capped-1")
        verdict = c.check(1001, explain=True)
        self.assertEqual((verdict.allowed, verdict.reason, verdict.hard_cap_tokens, verdict.remaining_tokens), (False, "estimate_exceeds_hard_cap", 1000, 1000))
        self.assertEqual(verdict.raw["limits"][0]["limit"], "port")
        self.assertGreater(verdict.resets_at, verdict.as_of)
        self.assertTrue(c.check(1000).allowed)
        hold = c.reserve(1001)
        self.assertFalse(hold.allowed)
        hold.release()
        ran = False
        with self.assertRaises(tidegate.Refused) as raised:
            with hold:
                ran = True
        self.assertFalse(ran)
        self.assertIn("estimate_exceeds_hard_cap: limit port, 1000 left, until 20", str(raised.exception))
        self.assertEqual(c.budget()["hard_cap_tokens"], 1000)

    def test_with_settles(self) -> None:
        with client("capped-2") as c:
            with c.reserve(600, feature="ocr") as hold:
                self.assertEqual((hold.allowed, hold.granted_tokens), (True, 600))
                self.assertFalse(c.check(600).allowed)
                with self.assertRaisesRegex(TypeError, "tidegate.Usage.* dict"):
                    hold.settle({"input_tokens": 100})  # type: ignore[arg-type]
                hold.settle(USAGE)
                with self.assertRaises(RuntimeError):
                    hold.settle(USAGE)
            less = c.reserve(10_000, accept_less=True)
            self.assertGreater(less.granted_tokens, 0)
            less.release()
            less.release()
            self.assertTrue(c.flush())
            self.assertEqual(c.stats, tidegate.Stats(recorded=1, accepted=1))
        wait_used("capped-2", 100)
        wait_free("capped-2")

    def test_with_whose_body_fails(self) -> None:
        with client("capped-3") as c:
            with self.assertRaises(ZeroDivisionError):
                with c.reserve(300):
                    raise ZeroDivisionError  # before the call: nothing was spent
            with self.assertRaises(KeyboardInterrupt):
                with c.reserve(300) as hold:
                    hold.partial(tidegate.Usage(input_tokens=5, provider="p", model="m"))
                    hold.partial(tidegate.Usage(input_tokens=5, output_tokens=2, provider="p", model="m"))
                    raise KeyboardInterrupt
            with c.reserve(300) as hold:
                pass  # nobody called
            self.assertTrue(c.flush())
            self.assertEqual(c.stats.accepted, 1)
        wait_used("capped-3", 7)
        wait_free("capped-3")

    def test_nobody_answers(self) -> None:
        closed = "http://127.0.0.1:1"
        with self.assertRaises(tidegate.Unavailable):
            client("p", url=closed, timeout=0.2).check()
        c = client("p", url=closed, timeout=0.2, on_unavailable="allow")
        verdict = c.check()
        self.assertEqual((verdict.allowed, verdict.reason), (True, "gate_unavailable"))
        with c.reserve(10) as hold:  # and there is nothing to release
            self.assertEqual(hold.verdict.reservation_id, "")

    def test_503_is_asked_again_within_the_timeout(self) -> None:
        with Between(lambda n: 503 if n == 0 else None) as between:
            began = time.monotonic()
            self.assertTrue(client("p", url=between.url).check(10).allowed)
            self.assertGreaterEqual(time.monotonic() - began, 1, "Retry-After is not waited for")
        with Between(lambda n: 503) as between:
            began = time.monotonic()
            with self.assertRaises(tidegate.Unavailable):
                client("p", url=between.url, timeout=0.5).check(10)
            self.assertLess(time.monotonic() - began, 5)

    def test_a_reservation_that_is_asked_for_again(self) -> None:
        with Between(lambda n: "lose" if n < 3 else None) as between:
            c = client("capped-4", url=between.url)
            hold = c.reserve(300)
            self.assertTrue(hold.allowed)
            first, *again = [key for _, key, _ in between.seen]
            self.assertEqual(first, "", "only without a key may a gate hold from memory")
            self.assertTrue(again[0])
            self.assertEqual(len(set(again)), 1, "each try makes a hold of its own")
            hold.release()
        # What the first try holds nobody knows: it expires.
        eventually("what was asked with the key is released", lambda: ask("capped-4").held_tokens == 300)

    def test_what_is_wrong_is_said(self) -> None:
        with self.assertRaises(tidegate.RequestError) as raised:
            client("p").check(-1)
        self.assertEqual(raised.exception.status, 422)
        self.assertIn("estimated_tokens", raised.exception.detail)
        with self.assertRaises(tidegate.RequestError) as raised:
            client("p", token=os.environ["TIDEGATE_TOKEN_OF_OTHER"]).check()
        self.assertEqual(raised.exception.status, 403)
        with self.assertRaises(TypeError):
            json.dumps(client("p"))
        self.assertNotIn(TOKEN, repr(vars(client("p"))))
        for url, token in (("ftp://x", "t"), ("127.0.0.1:8080", "t"), (URL, ""), (URL, "a b")):
            with self.assertRaises(ValueError):
                tidegate.Client(url, token, port="p")

    def test_what_is_installed(self) -> None:
        installed = pathlib.Path(tidegate.__file__).parent
        self.assertEqual(installed.parent.name, "site-packages")
        self.assertTrue((installed / "py.typed").exists(), "type checkers ignore it")

    def test_times(self) -> None:
        for text, micros in (("2026-11-23T15:30:06Z", 0), ("2026-11-23T15:30:06.2Z", 200_000), ("2026-11-23T16:30:06.123456789+01:00", 123_456)):
            self.assertEqual(parse_time(text).isoformat(), "2026-11-23T15:30:06" + (f".{micros:06}" if micros else "") + "+00:00")
        self.assertIsNone(parse_time(None))


class Reporting(unittest.TestCase):
    def test_sending_again_books_once(self) -> None:
        with Between(lambda n: "lose" if n < 2 else 503 if n == 2 else None) as between, client("again", url=between.url) as c:
            ids = {c.report(USAGE) for _ in range(50)}
            self.assertTrue(c.flush())
            self.assertEqual((len(ids), c.stats.accepted), (50, 50))
            self.assertGreaterEqual(len(between.seen), 4)
            self.assertEqual(len(set(body for _, _, body in between.seen[:4])), 1, "another body is another event")
        wait_used("again", 5_000)

    def test_an_event_that_is_refused_is_told_and_holds_back_no_other(self) -> None:
        told: list[tidegate.Rejection] = []
        with client("rejected", on_rejected=told.append) as c:
            c.report(USAGE)
            bad = c.report(USAGE, feature="f" * 65)
            c.report(USAGE)
            self.assertTrue(c.flush())
            self.assertEqual(c.stats, tidegate.Stats(recorded=3, accepted=2, rejected=1))
        self.assertEqual([(r.event["id"], r.field) for r in told], [(bad, "feature")])
        self.assertIn("64", told[0].rule)
        with self.assertRaises(ValueError):
            client("rejected").report(USAGE, run_id="n" * 17_000)
        with self.assertRaises(TypeError):
            client("rejected").report(USAGE, user="ada")
        wait_used("rejected", 200)

    def test_a_body_that_is_refused_is_taken_apart(self) -> None:
        told: list[tidegate.Rejection] = []
        with Between(lambda n: 413 if b"no such luck" in between.seen[n][2] else None) as between, client("apart", url=between.url, on_rejected=told.append) as c:
            for n in range(5):
                c.report(USAGE, run_id="no such luck" if n == 2 else "r")
            self.assertTrue(c.flush())
            self.assertEqual((c.stats.accepted, c.stats.rejected, len(told)), (4, 1, 1))
        wait_used("apart", 400)

    def test_a_token_that_is_refused_loses_nothing_that_there_is_time_for(self) -> None:
        with Between(lambda n: 401 if n < 1 else None) as between, client("renewed", url=between.url) as c:
            c.report(USAGE)
            self.assertTrue(c.flush())
        wait_used("renewed", 100)

    def test_memory_is_bounded(self) -> None:
        c = client("full", url="http://127.0.0.1:1", buffer_bytes=16 << 10, block=0.05)
        with self.assertRaises(tidegate.QueueFull):
            for _ in range(100):
                c.report(USAGE)
        taken = c.stats.recorded
        self.assertGreater(taken, 10)
        began = time.monotonic()
        self.assertFalse(c.close(0.3))
        self.assertLess(time.monotonic() - began, 5)
        self.assertEqual((c.stats.lost, c.stats.pending), (taken, 0))
        with self.assertRaises(RuntimeError):
            c.report(USAGE)

    def test_a_full_queue_makes_callers_wait(self) -> None:
        with client("waiting", buffer_bytes=16 << 10, block=10) as c:
            threads = [threading.Thread(target=lambda: [c.report(USAGE) for _ in range(50)]) for _ in range(8)]
            for t in threads:
                t.start()
            for t in threads:
                t.join()
            self.assertTrue(c.flush())
            self.assertEqual(c.stats.accepted, 400)
        wait_used("waiting", 40_000)

    def test_a_settle_without_room_releases_nothing(self) -> None:
        c = client("capped-5", buffer_bytes=16 << 10, block=0)
        c._reporter._transport._port = 1  # nobody is there
        with self.assertRaises(tidegate.QueueFull):
            for _ in range(100):
                c.report(USAGE)
        with self.assertRaises(tidegate.QueueFull):
            with c.reserve(100) as hold:
                hold.settle(USAGE)
        self.assertFalse(c.reserve(901).allowed)
        c.close(0)


# What a program does that ends without close().
PROGRAM = """
import os, sys, tidegate
c = tidegate.Client(os.environ["TIDEGATE_URL"], os.environ["TIDEGATE_TOKEN"], port=sys.argv[1], feature="exit")
for _ in range(20):
    c.report(tidegate.Usage(input_tokens=5, provider="openai", model="gpt-5-mini"))
"""


class Ending(unittest.TestCase):
    def run_program(self, port: str, end: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-c", PROGRAM + end, port], text=True, capture_output=True, timeout=60)

    def test_exit(self) -> None:
        for port, end, code in (("exit-1", "", 0), ("exit-2", "raise SystemExit(3)", 3), ("exit-3", "1/0", 1)):
            with self.subTest(port):
                self.assertEqual(self.run_program(port, end).returncode, code)
                wait_used(port, 100)

    def test_exit_without_an_answer_is_told(self) -> None:
        done = subprocess.run([sys.executable, "-c", PROGRAM + "import tidegate.reporter as r; r._EXIT = 0.2", "p"], text=True, capture_output=True, timeout=60,
                              env={**os.environ, "TIDEGATE_URL": "http://127.0.0.1:1"})
        self.assertIn("20 events are lost", done.stderr)

    def test_fork(self) -> None:
        with Between(lambda n: time.sleep(0.3) if n == 0 else None) as between, client("fork", url=between.url) as c:
            c.report(USAGE)
            eventually("the parent's event is on its way", lambda: len(between.seen) == 1)
            c.report(USAGE)  # waits
            child = os.fork()
            if child == 0:
                code = 1
                try:
                    c.report(USAGE)
                    code = 0 if c.check().allowed and c.close() and c.stats.recorded == 1 else 2
                finally:
                    os._exit(code)
            self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), 0)
            self.assertTrue(c.flush())
            self.assertEqual(c.stats, tidegate.Stats(recorded=2, accepted=2))
        wait_used("fork", 300)

    def test_multiprocessing(self) -> None:
        for method in ("fork", "spawn"):
            child = multiprocessing.get_context(method).Process(target=report_and_return, args=(f"mp-{method}",))
            child.start()
            child.join(60)
            self.assertEqual(child.exitcode, 0)
            wait_used(f"mp-{method}", 100)


def report_and_return(port: str) -> None:
    client(port).report(USAGE)


if __name__ == "__main__":
    unittest.main()
