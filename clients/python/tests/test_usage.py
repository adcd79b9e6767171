from __future__ import annotations

import time
import unittest

from support import TOKEN, URL, fake, wait_used

import tidegate
import tidegate.litellm


class UsageOf(unittest.TestCase):
    def test_openai(self) -> None:
        chat = fake(id="chatcmpl-1", model="gpt-5-mini", _request_id="req_1", usage={
            "prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120, "prompt_tokens_details": {"cached_tokens": 60, "cache_write_tokens": 5}, "completion_tokens_details": {"reasoning_tokens": 8}})
        self.assertEqual(tidegate.usage_of(chat), tidegate.Usage(100, 20, 60, 5, 8, "openai", "gpt-5-mini", "chatcmpl-1", "req_1"))
        usage = {"input_tokens": 100, "output_tokens": 20, "total_tokens": 120, "input_tokens_details": {"cached_tokens": 60}, "output_tokens_details": {"reasoning_tokens": 8}}
        want = tidegate.Usage(100, 20, 60, 0, 8, "openai", "gpt-5", "resp_1")
        self.assertEqual(tidegate.usage_of(fake(id="resp_1", model="gpt-5", usage=usage)), want)
        self.assertEqual(tidegate.usage_of({"type": "response.completed", "response": {"id": "resp_1", "model": "gpt-5", "usage": usage}}), want)
        embedding = fake(model="text-embedding-3-small", usage={"prompt_tokens": 9, "total_tokens": 9})
        self.assertEqual(tidegate.usage_of(embedding), tidegate.Usage(9, provider="openai", model="text-embedding-3-small"))
        grok = fake(id="x", model="grok-4", usage={"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 35, "completion_tokens_details": {"reasoning_tokens": 20}})
        self.assertEqual(tidegate.usage_of(grok, provider="xai"), tidegate.Usage(10, 25, 0, 0, 20, "xai", "grok-4", "x"))

    def test_anthropic(self) -> None:
        message = fake(id="msg_1", type="message", model="claude-sonnet-5", _request_id="req_2", usage={
            "input_tokens": 3, "output_tokens": 33, "cache_read_input_tokens": 1111, "cache_creation_input_tokens": 418, "output_tokens_details": {"thinking_tokens": 9}})
        self.assertEqual(tidegate.usage_of(message), tidegate.Usage(1532, 33, 1111, 418, 9, "anthropic", "claude-sonnet-5", "msg_1", "req_2"))
        message.usage.iterations = [fake(type="compaction", input_tokens=100, output_tokens=10), fake(type="message", input_tokens=1, output_tokens=1)]
        usage = tidegate.usage_of(message)
        self.assertEqual((usage.input_tokens, usage.output_tokens), (1632, 43))

    def test_gemini(self) -> None:
        response = fake(response_id="r1", model_version="gemini-3-pro", usage_metadata={
            "prompt_token_count": 100, "tool_use_prompt_token_count": 10, "candidates_token_count": 20, "thoughts_token_count": 30, "cached_content_token_count": 40, "total_token_count": 160})
        self.assertEqual(tidegate.usage_of(response), tidegate.Usage(110, 50, 40, 0, 30, "google", "gemini-3-pro", "r1"))

    def test_no_usage(self) -> None:
        for response in (fake(id="x", usage=None), {}, None, "text"):
            with self.assertRaises(ValueError):
                tidegate.usage_of(response)
        odd = fake(id=7, model=None, usage={"prompt_tokens": 5, "completion_tokens": None, "total_tokens": True})
        self.assertEqual(tidegate.usage_of(odd), tidegate.Usage(5, provider="openai"))


class LiteLLM(unittest.TestCase):
    def test_logger(self) -> None:
        told: list[tidegate.Rejection] = []
        logger = tidegate.litellm.Logger(URL, TOKEN, port="team_id", feature="tag:feature", on_rejected=told.append)
        now = time.time()
        record = {
            "id": "chatcmpl-9", "call_type": "completion", "status": "success", "custom_llm_provider": "openai", "model": "gpt-5-mini", "prompt_tokens": 70, "completion_tokens": 30,
            "total_tokens": 100, "startTime": now - 1, "endTime": now, "request_tags": ["feature:ocr"], "messages": [{"content": "secret"}],
            "metadata": {"user_api_key_team_id": "litellm", "usage_object": {"prompt_tokens": 70}}, "response_cost": float("nan"),
        }
        kwargs = {"standard_logging_object": record}
        logger.log_success_event(kwargs, None, None, None)
        logger.log_success_event(kwargs, None, None, None)  # LiteLLM calls both ways at times
        logger.log_failure_event({"standard_logging_object": {**record, "status": "failure", "prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}}, None, None, None)
        logger.log_success_event({"standard_logging_object": {**record, "metadata": {"user_api_key_team_id": "Sales Team"}}}, None, None, None)
        logger.log_success_event({}, None, None, None)
        logger.log_success_event(None, None, None, None)
        self.assertTrue(logger.flush())
        self.assertEqual((logger.stats.accepted, logger.stats.rejected), (3, 1))
        self.assertEqual([r.field for r in told], ["port_id"])
        self.assertNotIn("secret", str(told[0].event))
        self.assertTrue(logger.close())
        wait_used("litellm", 100)


if __name__ == "__main__":
    unittest.main()
