"""
One object of the Assistants API, decoded from JSON, and what it says of a run.

Every field may be of any kind: what is not as the API writes it is as good as absent.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from enricher.otlp.attributes import digest
from enricher.semconv import TERMINAL, is_id

MAX_COUNT: Final = (1 << 63) - 1
"""The largest integer that an attribute holds."""


class Usage(NamedTuple):
    """Token counts of one run. `cached` is a part of `prompt`, `reasoning` a part of `completion`."""

    prompt: int
    completion: int
    total: int
    cached: int | None = None
    reasoning: int | None = None


class Run(NamedTuple):
    """One revision of a run. `usage` is set only where the run is finished: before, the API answers null."""

    run_id: str
    thread_id: str | None = None
    assistant_id: str | None = None
    model: str | None = None
    status: str | None = None
    usage: Usage | None = None

    @property
    def ended(self) -> bool:
        """The run is finished in this revision."""
        return self.status in TERMINAL or self.usage is not None


class Message(NamedTuple):
    """A message of a thread, or a step's word that its run wrote one. `created_at` orders messages of one thread."""

    message_id: str
    run_id: str | None = None
    thread_id: str | None = None
    from_assistant: bool = True
    created_at: int | None = None
    texts: tuple[bytes, ...] = ()


def is_run(value: dict[str, Any]) -> bool:
    """Tell a run whose `object` was left out, as some serialisers do."""
    return (
        isinstance(value.get("id"), str)
        and value["id"].startswith("run_")
        and "status" in value
        and ("thread_id" in value or "assistant_id" in value)
    )


def run(value: dict[str, Any]) -> Run | None:
    """Return what a run says of itself; None without an id that can be one."""
    run_id = _id(value.get("id"))
    if run_id is None:
        return None
    status = value.get("status")
    status = status if isinstance(status, str) else None
    counts = usage(value.get("usage"))
    return Run(
        run_id=run_id,
        thread_id=_id(value.get("thread_id")),
        assistant_id=_id(value.get("assistant_id")),
        model=_words(value.get("model")),
        status=status,
        # A count that the API shows before the end is not the run's count.
        usage=counts if status is None or status in TERMINAL else None,
    )


def step(value: dict[str, Any]) -> tuple[str, Message | None] | None:
    """
    Return which run a step is of and the message that it wrote.

    Its usage is a part of the run's and never added to it.
    """
    run_id = _id(value.get("run_id"))
    if run_id is None:
        return None
    details = value.get("step_details")
    created = details.get("message_creation") if isinstance(details, dict) else None
    message_id = _id(created.get("message_id")) if isinstance(created, dict) else None
    if not message_id:
        return run_id, None
    thread_id, created_at = _id(value.get("thread_id")), _count(value.get("created_at"))
    return run_id, Message(message_id, run_id, thread_id, created_at=created_at)


def message(value: dict[str, Any]) -> Message | None:
    """Return what a message says of itself, and digests of its texts; None without an id that can be one."""
    message_id = _id(value.get("id"))
    if message_id is None:
        return None
    content = value.get("content")
    texts = []
    for part in content if isinstance(content, list) else ():
        text = part.get("text") if isinstance(part, dict) else None
        words = text.get("value") if isinstance(text, dict) else text
        if isinstance(words, str) and words:
            texts.append(digest(words))
    return Message(
        message_id=message_id,
        run_id=_id(value.get("run_id")),
        thread_id=_id(value.get("thread_id")),
        from_assistant=value.get("role") != "user",
        created_at=_count(value.get("created_at")),
        texts=tuple(texts),
    )


def usage(value: Any) -> Usage | None:
    """Return the counts if they are whole: both present, and the total, where it stands, their sum."""
    if not isinstance(value, dict):
        return None
    prompt, completion = _count(value.get("prompt_tokens")), _count(value.get("completion_tokens"))
    if prompt is None or completion is None or prompt + completion > MAX_COUNT:
        return None
    if value.get("total_tokens") is not None and _count(value["total_tokens"]) != prompt + completion:
        return None
    # The Assistants API writes `prompt_token_details`; the plural is what its documentation and other APIs say.
    cached = _detail(value, ("prompt_token_details", "prompt_tokens_details"), "cached_tokens")
    reasoning = _detail(value, ("completion_tokens_details", "completion_token_details"), "reasoning_tokens")
    return Usage(
        prompt,
        completion,
        prompt + completion,
        cached if cached is not None and cached <= prompt else None,
        reasoning if reasoning is not None and reasoning <= completion else None,
    )


def _detail(value: dict[str, Any], outer: tuple[str, ...], inner: str) -> int | None:
    for key in outer:
        details = value.get(key)
        count = _count(details.get(inner)) if isinstance(details, dict) else None
        if count is not None:
            return count
    return None


def _count(value: Any) -> int | None:
    """Return a non-negative whole number. Log pipelines turn integers into doubles on their way."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_COUNT:
        return value
    return None


def _id(value: Any) -> str | None:
    return value if isinstance(value, str) and is_id(value) else None


def _words(value: Any) -> str | None:
    return value if isinstance(value, str) and 0 < len(value) <= 256 and value.isprintable() else None
