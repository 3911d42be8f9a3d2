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
from typing import TYPE_CHECKING, Any, Final

import orjson

from enricher.evidence import bounded_json, objects
from enricher.evidence.bounded_json import COUNT_FROM

if TYPE_CHECKING:
    from enricher.evidence.objects import Message, Run, Usage

NEEDLES: Final = ("prompt_tokens", "assistant_id", "thread.run", "thread.message", "AgentFinish")
"""Texts of which every payload holds one."""

MAX_TEXT: Final = 16 << 20
"""Characters of one payload text that are read (16 MiB); a longer one is not an API answer."""

MAX_NODES: Final = 200_000
"""Values visited in one payload."""

MAX_NESTED: Final = 3
"""How often JSON text may stand inside JSON text."""

LINE_END: Final = re.compile(r"\r\n|\r|\n")

CONVERSATION: Final = frozenset(
    {"content", "text", "arguments", "instructions", "prompt", "input", "inputs", "metadata", "value", "tools"}
)
"""Keys of wrapping objects under which people's or models' words stand."""


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
    if kind == "thread.run" or (kind is None and objects.is_run(value)):
        run = objects.run(value)
        if run is None:
            said.unreadable = True
        else:
            said.runs.append(run)
    elif kind == "thread.run.step" or (kind is None and value.get("type") == "AgentFinish"):
        # What LangChain's agent finishes with names its run as a step does; what it returns are a model's words.
        _read_step(value, said)
    elif kind == "thread.message":
        message = objects.message(value)
        if message is not None:
            said.messages.append(message)
            if message.run_id:
                said.mentioned.add(message.run_id)
    elif kind is None or kind == "list":
        if "prompt_tokens" in value and "completion_tokens" in value:
            usage = objects.usage(value)
            if alone and usage is not None:
                said.bare.append(usage)
            return
        stack.extend(
            (each, False, False)
            for key, each in reversed(value.items())
            if key not in CONVERSATION and isinstance(each, dict | list | str)
        )


def _read_step(value: dict[str, Any], said: Said) -> None:
    step = objects.step(value)
    if step is not None:
        run_id, message = step
        said.mentioned.add(run_id)
        said.messages += [message] if message is not None else []
