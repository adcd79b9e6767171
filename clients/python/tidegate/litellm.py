"""Reports what goes through LiteLLM, from inside LiteLLM:

    litellm.callbacks = [tidegate.litellm.Logger("http://127.0.0.1:8080", token, user="end_user")]

It does what LiteLLM's own `generic_api` callback does with docs/integrations/litellm.md, and more: a batch that is not
answered for is sent again, and prompts and answers stay where they are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from .http import Transport
from .reporter import Destination, Rejection, Reporter, Stats, log

if TYPE_CHECKING:
    CustomLogger = object
else:
    try:
        from litellm.integrations.custom_logger import CustomLogger  # LiteLLM calls nothing else
    except ImportError:
        CustomLogger = object

_FIELDS = ("id", "trace_id", "call_type", "status", "cache_hit", "custom_llm_provider", "model", "model_group", "prompt_tokens", "completion_tokens",
           "total_tokens", "startTime", "endTime", "end_user", "request_tags")
_METADATA = ("user_api_key_team_id", "user_api_key_team_alias", "user_api_key_alias", "user_api_key_org_id", "user_api_key_user_id", "usage_object")


class Logger(CustomLogger):
    """A CustomLogger for `litellm.callbacks`, and for the `callbacks` of LiteLLM's proxy.

    port, feature, user, run: which field of LiteLLM's record is the event's, as in docs/integrations/litellm.md. Without `port` the token
    must be for one port. The other settings are those of tidegate.Client. No method raises: LiteLLM goes on.
    """

    def __init__(
        self,
        url: str,
        token: str,
        *,
        port: str = "",
        feature: str = "",
        user: str = "",
        run: str = "",
        buffer_bytes: int = 8 << 20,
        on_rejected: Callable[[Rejection], None] | None = None,
    ) -> None:
        super().__init__()
        query = urlencode({name: value for name, value in {"port": port, "feature": feature, "user": user, "run": run}.items() if value})
        destination = Destination("/v1/integrations/litellm" + ("?" + query if query else ""), "records", ("quarantined",))
        self._reporter = Reporter(Transport(url, token), destination, buffer_bytes, 0.0, 10.0, on_rejected)

    def log_success_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        self._report(kwargs)

    def log_failure_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        self._report(kwargs)

    async def async_log_success_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        self._report(kwargs)

    async def async_log_failure_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        self._report(kwargs)

    def _report(self, kwargs: Any) -> None:
        try:
            record = kwargs["standard_logging_object"]
            metadata = record.get("metadata") or {}
            kept = {name: record[name] for name in _FIELDS if name in record}
            self._reporter.put({**kept, "metadata": {name: metadata[name] for name in _METADATA if name in metadata}})
        except Exception:  # whatever it is, the call was made and its caller must get the answer
            log.exception("a call of LiteLLM is not reported")

    def flush(self, timeout: float = 10.0) -> bool:
        return self._reporter.flush(timeout)

    def close(self, timeout: float = 10.0) -> bool:
        return self._reporter.close(timeout)

    @property
    def stats(self) -> Stats:
        return self._reporter.stats()
