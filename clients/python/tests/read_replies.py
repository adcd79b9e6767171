"""Prints what usage_of reads off each reply on stdin, a JSON object a line: {"api": …, "body": …}. For test/acceptance."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from types import SimpleNamespace
from typing import Any

import tidegate


def as_sdk(value: Any, rename: bool) -> Any:
    """An object with attributes, as SDKs make them: Gemini's names in snake case, the others' as they are."""
    if isinstance(value, dict):
        names = {re.sub(r"(?<!^)([A-Z])", r"_\1", name).lower() if rename else name: part for name, part in value.items()}
        return SimpleNamespace(**{name: as_sdk(part, rename) for name, part in names.items()})
    return [as_sdk(part, rename) for part in value] if isinstance(value, list) else value


for line in sys.stdin:
    reply = json.loads(line)
    usage = tidegate.usage_of(as_sdk(json.loads(reply["body"]), reply["api"] == "gemini"))
    print(json.dumps(dataclasses.asdict(usage)))
