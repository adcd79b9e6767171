"""Runs every snippet of the pages about the client, in order, as one program."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pathlib
import unittest
from types import SimpleNamespace
from typing import Any

from support import TOKEN, URL, fake, wait_free, wait_used

SNIPPETS = pathlib.Path(os.environ["TIDEGATE_SNIPPETS"])  # a list, in JSON


def completion(stream: bool = False, **_: Any) -> Any:
    whole = fake(id="chatcmpl-1", model="gpt-5-mini", usage={"prompt_tokens": 70, "completion_tokens": 30, "total_tokens": 100})
    return [fake(usage=None), fake(usage=None), whole] if stream else whole


def message(**_: Any) -> Any:
    return fake(id="msg_1", type="message", model="claude-sonnet-5", usage={"input_tokens": 10, "output_tokens": 30, "cache_read_input_tokens": 60, "cache_creation_input_tokens": 0})


class Docs(unittest.TestCase):
    def test_snippets(self) -> None:
        snippets = json.loads(SNIPPETS.read_text())
        names: dict[str, Any] = {
            "TOKEN": TOKEN, "token": TOKEN, "messages": [{"role": "user", "content": "What is a marina?"}],
            "openai": SimpleNamespace(chat=SimpleNamespace(completions=SimpleNamespace(create=completion))), "anthropic": SimpleNamespace(messages=SimpleNamespace(create=message)),
        }
        printed = io.StringIO()
        for snippet in snippets:
            with contextlib.redirect_stdout(printed):
                exec(compile(snippet.replace("http://127.0.0.1:8080", URL).replace('"p1"', '"docs"'), "a page", "exec"), names)
        self.assertRegex(printed.getvalue(), r"^estimate_exceeds_hard_cap 7\d00 20")
        self.assertIn("\n4 0 0\n", printed.getvalue())
        wait_used("docs", 100 + 100 + 100 + 1500 + 80 + 100 + 100)
        wait_free("docs")
