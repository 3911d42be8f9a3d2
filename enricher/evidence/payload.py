"""
What one recorded payload says.

Reads the objects of the Assistants API (`thread.run`, `thread.run.step`, `thread.message`, lists of these, the
server-sent events of a streamed run) as decoded JSON, as JSON text, or as JSON text inside JSON text. A payload that
is cut off says nothing: half a number is worse than none.

Conversation text is never read as a payload, wherever it stands: whoever may write into a prompt or an answer could
otherwise write token counts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import orjson

from enricher.evidence import bounded_json
from enricher.evidence.bounded_json import COUNT_FROM
from enricher.otlp.attributes import digest
from enricher.semconv import SAFE_ID, TERMINAL

NEEDLES: Final = ("prompt_tokens", "assistant_id", "thread.run", "thread.message", "AgentFinish")
"""Texts of which every payload holds one."""

MAX_TEXT: Final = 16 << 20
"""Characters of one payload text that are read (16 MiB); a longer one is not an API answer."""

MAX_NODES: Final = 200_000
"""Values visited in one payload."""

MAX_COUNT: Final = (1 << 63) - 1
"""The largest integer that an attribute holds."""

MAX_NESTED: Final = 3
"""How often JSON text may stand inside JSON text."""

LINE_END: Final = re.compile(r"\r\n|\r|\n")

CONVERSATION: Final = frozenset(
    {"content", "text", "arguments", "instructions", "prompt", "input", "inputs", "metadata", "value", "tools"}
)
"""Keys of wrapping objects under which people's or models' words stand."""


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


@dataclass(slots=True)
class Said:
    """Everything that one payload text says."""

    runs: list[Run] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    bare: list[Usage] = field(default_factory=list)
    """Usage objects that stand alone, without a run around them."""
    mentioned: set[str] = field(default_factory=set)
    """Runs that are named without being shown: by their steps and messages."""
    unreadable: bool = False
    """It looks like a payload of ours and cannot be read: cut off, or not JSON."""

    def __bool__(self) -> bool:
        return bool(self.runs or self.messages or self.bare or self.mentioned or self.unreadable)


def looks_like_payload(text: str) -> bool:
    """Tell cheaply whether a text can hold anything that `read` reads."""
    return any(each in text for each in NEEDLES)


def read(text: str) -> Said:
    """Return what a payload text says. Never raises: what cannot be read says nothing."""
    said = Said()
    _read_text(text, said, nested=0, alone=True)
    return said


def read_value(value: Any) -> Said:
    """Return what an already structured value says, as log bodies are."""
    said = Said()
    _walk(value, said, nested=0, alone=True)
    return said


def _read_text(text: str, said: Said, nested: int, *, alone: bool) -> None:
    if len(text) > MAX_TEXT or nested > MAX_NESTED or not looks_like_payload(text):
        return
    body = text.lstrip("\ufeff \t\r\n")
    if body.startswith(("{", "[", '"')):
        value = _json(body)
        if value is None:
            said.unreadable = True
        else:
            _walk(value, said, nested, alone=alone)
    elif body.startswith(("data:", "event:", "id:", ":", "retry:")):
        _read_events(body, said)


def _json(text: str) -> Any:
    try:
        return bounded_json.loads(text.encode()) if len(text) > COUNT_FROM else orjson.loads(text)
    except ValueError:
        # What is too much of it, and lone surrogates, are no JSON either.
        return None


def _read_events(text: str, said: Said) -> None:
    """Read a transcript of server-sent events: the `data:` lines up to a blank line are one value."""
    data: list[str] = []
    # Not splitlines(): JSON may hold the separators that only Unicode takes for line ends.
    for line in [*LINE_END.split(text), ""]:
        if line.startswith("data:"):
            data.append(line[5:].removeprefix(" "))
        elif not line and data:
            event = "\n".join(data)
            data = []
            if event == "[DONE]":
                continue
            value = _json(event)
            if value is None:
                said.unreadable = True
            else:
                _walk(value, said, MAX_NESTED, alone=False)


def _walk(root: Any, said: Said, nested: int, *, alone: bool) -> None:
    """
    Visit a decoded value without recursion, so that no nesting can exhaust the stack.

    `alone` tells whether nothing stands around the value: only then can a usage object in it be bare.
    """
    stack: list[tuple[Any, bool, bool]] = [(root, alone, False)]
    nodes = 0
    while stack:
        value, stands_alone, listed = stack.pop()
        nodes += 1
        if nodes > MAX_NODES:
            said.unreadable = True
            return
        if isinstance(value, dict):
            _visit_object(value, said, stack, alone=stands_alone)
        elif isinstance(value, list):
            stack.extend((each, False, True) for each in reversed(value) if isinstance(each, dict | list | str))
        elif isinstance(value, str) and listed:
            _read_listed_text(value, said, nested)
        elif isinstance(value, str):
            _read_text(value, said, nested + 1, alone=stands_alone)


def _read_listed_text(text: str, said: Said, nested: int) -> None:
    """
    Read a text that stands in a list: LangChain lists messages so, and functions the answers that they return.

    An answer is a model's words. Were a run believed there, whoever talks to the model could write token counts.
    """
    found = Said()
    _read_text(text, found, nested + 1, alone=False)
    said.messages += found.messages
    said.mentioned |= found.mentioned


def _visit_object(value: dict[str, Any], said: Said, stack: list[tuple[Any, bool, bool]], *, alone: bool) -> None:
    kind = value.get("object")
    if kind == "thread.run" or (kind is None and _is_run(value)):
        run = _run(value)
        if run is None:
            said.unreadable = True
        else:
            said.runs.append(run)
    elif kind == "thread.run.step" or (kind is None and value.get("type") == "AgentFinish"):
        # What LangChain's agent finishes with names its run as a step does; what it returns are a model's words.
        _step(value, said)
    elif kind == "thread.message":
        message = _message(value)
        if message is not None:
            said.messages.append(message)
            if message.run_id:
                said.mentioned.add(message.run_id)
    elif kind is None or kind == "list":
        if "prompt_tokens" in value and "completion_tokens" in value:
            usage = _usage(value)
            if alone and usage is not None:
                said.bare.append(usage)
            return
        stack.extend(
            (each, False, False)
            for key, each in reversed(value.items())
            if key not in CONVERSATION and isinstance(each, dict | list | str)
        )


def _is_run(value: dict[str, Any]) -> bool:
    """Tell a run whose `object` was left out, as some serialisers do."""
    return (
        isinstance(value.get("id"), str)
        and value["id"].startswith("run_")
        and "status" in value
        and ("thread_id" in value or "assistant_id" in value)
    )


def _run(value: dict[str, Any]) -> Run | None:
    run_id = _id(value.get("id"))
    if run_id is None:
        return None
    status = value.get("status")
    status = status if isinstance(status, str) else None
    usage = _usage(value.get("usage"))
    return Run(
        run_id=run_id,
        thread_id=_id(value.get("thread_id")),
        assistant_id=_id(value.get("assistant_id")),
        model=_words(value.get("model")),
        status=status,
        # A count that the API shows before the end is not the run's count.
        usage=usage if status is None or status in TERMINAL else None,
    )


def _step(value: dict[str, Any], said: Said) -> None:
    """Read from a step only which message its run wrote. Its usage is a part of the run's and never added to it."""
    run_id = _id(value.get("run_id"))
    if run_id is None:
        return
    said.mentioned.add(run_id)
    details = value.get("step_details")
    created = details.get("message_creation") if isinstance(details, dict) else None
    message_id = _id(created.get("message_id")) if isinstance(created, dict) else None
    if message_id:
        said.messages.append(
            Message(message_id, run_id, _id(value.get("thread_id")), created_at=_count(value.get("created_at")))
        )


def _message(value: dict[str, Any]) -> Message | None:
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


def _usage(value: Any) -> Usage | None:
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
    return value if isinstance(value, str) and SAFE_ID.match(value) else None


def _words(value: Any) -> str | None:
    return value if isinstance(value, str) and 0 < len(value) <= 256 and value.isprintable() else None
