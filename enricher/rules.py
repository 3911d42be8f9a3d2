"""
The rule table: which spans are Assistant runs.

Rules are data: a span is a candidate when one rule's scope, name and attributes all match; the first rule that
matches names it. Rules of the configuration stand before the built-in ones. Every rule has a needle, bytes that
a request must hold for the rule to match at all, so that requests without candidates are never looked into. A rule
that names a scope needs no search: whether a request has the scope is seen when it is parsed.
"""

from __future__ import annotations

import fnmatch
import re
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple, TypedDict

from enricher.otlp import attributes as otlp

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from opentelemetry.proto.common.v1.common_pb2 import AnyValue
    from opentelemetry.proto.trace.v1.trace_pb2 import Span

    Matcher = Callable[[str], bool]

OPENLLMETRY: Final = "opentelemetry.instrumentation.openai*"

SUBJECT_LIMIT: Final = 512
"""Characters of a name or value that a pattern is held against."""

RUN_OBJECT: Final = b"thread.run"
"""Bytes that every payload of a run holds, its steps' too."""

SHORTEST_NEEDLE: Final = 6
"""Shorter literals of a name are common words; a longer one from the scope or the attributes finds less."""


class StandsFor(StrEnum):
    """What one span of a rule is: that decides whether it may own the usage of its run."""

    RUN = "run"
    """The whole run, from its start to its answer."""
    CALL = "call"
    """One request about a run, of which there are many: its creation, a poll, a look back."""


@dataclass(frozen=True, eq=False)
class Rule:
    """
    One way to recognise an Assistant run.

    `scope`, `span_name` and the attribute values are exact texts or globs (`*`, `?`); None matches anything.
    `system` and `provider` are written where neither the span nor its evidence names another; empty ones mean that the
    span does not show whose API it calls, which is not known before its run is. `answer` is the attribute
    in which a finished run must stand for the rule to match at all.
    """

    name: str
    scope: str | None = None
    span_name: str | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)
    system: str = "openai"
    provider: str = "openai"
    stands_for: StandsFor = StandsFor.RUN
    answer: str | None = None

    @cached_property
    def needle(self) -> bytes:
        """Bytes that a request with a match holds; empty if the patterns hold no literal text."""
        name = _literal(self.span_name)
        if len(name) >= SHORTEST_NEEDLE:
            return name.encode()
        return max((name, *self.attributes, _literal(self.scope)), key=len).encode()

    @cached_property
    def needle_in_span(self) -> bytes:
        """Bytes that every span that matches holds; empty if only the scope's name is literal."""
        if self.answer is not None:
            return RUN_OBJECT
        name = _literal(self.span_name)
        return (name if len(name) >= SHORTEST_NEEDLE else max((name, *self.attributes), key=len)).encode()

    @cached_property
    def _matchers(self) -> tuple[Matcher, Matcher, tuple[tuple[str, Matcher], ...]]:
        return (
            _matcher(self.scope),
            _matcher(self.span_name),
            tuple((k, _matcher(v)) for k, v in self.attributes.items()),
        )

    def matches_scope(self, scope_name: str) -> bool:
        """Tell whether spans of the scope can match."""
        return self._matchers[0](scope_name)

    def matches_span(self, span: Span) -> bool:
        """Tell whether the span matches, its scope apart."""
        _, name, wanted = self._matchers
        if not name(span.name):
            return False
        if not wanted:
            return True
        values = otlp.first_values(span.attributes)
        return all(key in values and matches(_subject(values[key])) for key, matches in wanted)


class _AzureAgents(TypedDict):
    scope: str
    attributes: Mapping[str, str]
    system: str
    provider: str


def _literal(pattern: str | None) -> str:
    """Return the longest text that stands in whatever the pattern matches."""
    return max(re.split(r"[*?]+", pattern or ""), key=len)


def _matcher(pattern: str | None) -> Matcher:
    if pattern is None:
        return lambda _: True
    if not re.search(r"[*?]", pattern):
        return pattern.__eq__
    # fnmatch builds patterns that do not backtrack, and the subject is cut: none can take long (attack A16).
    compiled = re.compile(fnmatch.translate(pattern.replace("[", "[[]")))
    return lambda subject: compiled.match(subject[:SUBJECT_LIMIT]) is not None


def _subject(value: AnyValue) -> str:
    plain = otlp.plain(value)
    return plain if isinstance(plain, str) else str(plain)


AZURE_AGENTS: Final[_AzureAgents] = {
    "scope": "azure.core.tracing.ext.opentelemetry_span",
    "attributes": {"gen_ai.thread.run.id": "run_*"},
    "system": "az.ai.agents",
    "provider": "microsoft.foundry",
}

BUILT_IN: Final = (
    Rule("openllmetry-assistant-run", scope=OPENLLMETRY, span_name="openai.assistant.run"),
    Rule("openllmetry-assistant-run-stream", scope=OPENLLMETRY, span_name="openai.assistant.run_stream"),
    # Formats without scopes lose the name on their way (Zipkin, older Jaeger).
    Rule("unscoped-assistant-run", scope="", span_name="openai.assistant.run"),
    Rule("unscoped-assistant-run-stream", scope="", span_name="openai.assistant.run_stream"),
    # Forks rename the scope and keep the attributes.
    Rule("forked-assistant-run", span_name="openai.assistant.run*", attributes={"llm.request.type": "*"}),
    Rule("forked-assistant-run-genai", span_name="openai.assistant.run*", attributes={"gen_ai.operation.name": "*"}),
    Rule("forked-assistant-run-model", span_name="openai.assistant.run*", attributes={"gen_ai.request.model": "*"}),
    # A span for each API call, named by the type of what it answered.
    Rule("openinference-run", scope="openinference.instrumentation.openai", span_name="Run", stands_for=StandsFor.CALL),
    # Lists and streams share the URL; only where one run was answered is there its id.
    Rule(
        "logfire-run",
        scope="logfire.openai",
        attributes={"url": "*/threads/thread_*/runs*", "gen_ai.response.id": "run_*"},
        stands_for=StandsFor.CALL,
    ),
    # Up to 4 it writes no id. A step's path holds its run's too, and its usage is its own; but it has no model.
    Rule(
        "logfire-run-by-path",
        scope="logfire.openai",
        attributes={"url": "*/threads/thread_*/runs/run_*", "gen_ai.response.model": "*"},
        stands_for=StandsFor.CALL,
    ),
    # Up to 1.1 `create_and_process` is called `start_thread_run` too; the status tells it from the start inside.
    Rule("azure-agents-process-run", span_name="process_thread_run", **AZURE_AGENTS),
    Rule("azure-agents-start-run", span_name="start_thread_run", **AZURE_AGENTS),
    Rule("azure-agents-get-run", span_name="get_thread_run", stands_for=StandsFor.CALL, **AZURE_AGENTS),
    Rule("azure-agents-submit-outputs", span_name="submit_tool_outputs", stands_for=StandsFor.CALL, **AZURE_AGENTS),
    # The betas of `azure-ai-projects` name the thread alone.
    Rule(
        "azure-projects-process-run",
        scope=AZURE_AGENTS["scope"],
        span_name="process_thread_run",
        attributes={"gen_ai.system": AZURE_AGENTS["system"], "gen_ai.thread.id": "thread_*"},
        system=AZURE_AGENTS["system"],
        provider=AZURE_AGENTS["provider"],
    ),
    # Spans of functions, named by whoever wrote them: only what they returned tells.
    Rule(
        "langfuse-observed-run",
        scope="langfuse-sdk*",
        answer="langfuse.observation.output",
        stands_for=StandsFor.CALL,
    ),
    Rule("mlflow-traced-run", scope="mlflow.*", answer="mlflow.spanOutputs", stands_for=StandsFor.CALL),
    Rule(
        "langchain-assistant-openllmetry",
        scope="opentelemetry.instrumentation.langchain*",
        span_name="OpenAIAssistant*Runnable*",
    ),
    Rule(
        "langchain-assistant-openinference",
        scope="openinference.instrumentation.langchain*",
        span_name="OpenAIAssistant*Runnable*",
    ),
    # The same span stands for agents of OpenAI, of Azure OpenAI and of Azure's agent service.
    Rule(
        "semantic-kernel-agent",
        scope="semantic_kernel.*",
        span_name="invoke_agent*",
        attributes={"gen_ai.agent.id": "asst_*"},
        system="",
        provider="",
    ),
)


class Wanted(NamedTuple):
    """Rules that spans of one scope can match, and needles of which such a span holds one."""

    rules: tuple[Rule, ...] = ()
    needles: tuple[bytes, ...] = ()


@dataclass(frozen=True, eq=False)
class Recogniser:
    """The rules in the order in which they are asked."""

    rules: tuple[Rule, ...] = BUILT_IN

    @cached_property
    def needles(self) -> tuple[bytes, ...]:
        """The fewest needles of which a match of a rule without scope holds one; `b""` is in every request."""
        return _fewest({rule.needle for rule in self.rules if not rule.scope})

    @cached_property
    def bound(self) -> tuple[Rule, ...]:
        """Rules that are looked for by their scope, because none of the needles leads to them."""
        return tuple(
            rule for rule in self.rules if rule.scope and not any(needle in rule.needle for needle in self.needles)
        )

    def of_scope(self, scope_name: str, *, bound: bool = False) -> Wanted:
        """Return what spans of this scope can match; only `bound` rules if the request holds no needle."""
        return _of_scope(self, scope_name, bound)


@lru_cache(maxsize=2048)
def _of_scope(recogniser: Recogniser, scope_name: str, bound: bool) -> Wanted:
    rules = recogniser.bound if bound else recogniser.rules
    matching = tuple(rule for rule in rules if rule.matches_scope(scope_name))
    return Wanted(matching, _fewest({rule.needle_in_span for rule in matching}))


def _fewest(needles: set[bytes]) -> tuple[bytes, ...]:
    """Leave out needles that are found wherever a shorter one is looked for."""
    return tuple(sorted(n for n in needles if not any(other != n and other in n for other in needles)))
