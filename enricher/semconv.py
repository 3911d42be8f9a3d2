"""
Names of the field: which attribute keys carry which fact, in both vocabularies, and what ids look like.

Sources: OpenTelemetry GenAI semantic conventions v1.27 to v1.41 (`gen_ai.system` became
`gen_ai.provider.name` in v1.37; `cache_read` came in v1.40, `reasoning` in v1.41) and the keys that
OpenLLMetry wrote before them.
"""

from __future__ import annotations

import re
from enum import StrEnum
from functools import lru_cache
from typing import Final


class Convention(StrEnum):
    """The two vocabularies that backends read."""

    LEGACY = "legacy"
    CURRENT = "current"


class Fact(StrEnum):
    """What a span should say about its run."""

    SYSTEM = "system"
    PROVIDER = "provider"
    REQUEST_MODEL = "request_model"
    RESPONSE_MODEL = "response_model"
    PROMPT = "prompt_tokens"
    COMPLETION = "completion_tokens"
    TOTAL = "total_tokens"
    CACHED = "cached_tokens"
    REASONING = "reasoning_tokens"
    RUN_ID = "run_id"
    THREAD_ID = "thread_id"
    ASSISTANT_ID = "assistant_id"


KEYS: Final[dict[Fact, dict[Convention, str]]] = {
    Fact.SYSTEM: {Convention.LEGACY: "gen_ai.system"},
    Fact.PROVIDER: {Convention.CURRENT: "gen_ai.provider.name"},
    Fact.REQUEST_MODEL: dict.fromkeys(Convention, "gen_ai.request.model"),
    Fact.RESPONSE_MODEL: dict.fromkeys(Convention, "gen_ai.response.model"),
    Fact.PROMPT: {Convention.LEGACY: "gen_ai.usage.prompt_tokens", Convention.CURRENT: "gen_ai.usage.input_tokens"},
    Fact.COMPLETION: {
        Convention.LEGACY: "gen_ai.usage.completion_tokens",
        Convention.CURRENT: "gen_ai.usage.output_tokens",
    },
    Fact.TOTAL: dict.fromkeys(Convention, "gen_ai.usage.total_tokens"),
    Fact.CACHED: {
        Convention.LEGACY: "gen_ai.usage.cache_read_input_tokens",
        Convention.CURRENT: "gen_ai.usage.cache_read.input_tokens",
    },
    Fact.REASONING: {Convention.CURRENT: "gen_ai.usage.reasoning.output_tokens"},
    Fact.RUN_ID: {Convention.CURRENT: "gen_ai.response.id"},
    Fact.THREAD_ID: {Convention.CURRENT: "gen_ai.conversation.id"},
    Fact.ASSISTANT_ID: {Convention.CURRENT: "gen_ai.agent.id"},
}
"""Where each fact is written. A fact with the same key in both vocabularies is written once."""

ALIASES: Final[dict[str, tuple[Fact, ...]]] = {
    "llm.request.model": (Fact.REQUEST_MODEL,),
    "llm.response.model": (Fact.RESPONSE_MODEL,),
    "llm.usage.prompt_tokens": (Fact.PROMPT,),
    "llm.usage.completion_tokens": (Fact.COMPLETION,),
    "llm.usage.total_tokens": (Fact.TOTAL,),
    "gen_ai.usage.cache_read_input_tokens": (Fact.CACHED,),
    "llm.usage.cache_read_input_tokens": (Fact.CACHED,),
    "gen_ai.usage.reasoning_tokens": (Fact.REASONING,),
    "llm.usage.reasoning_tokens": (Fact.REASONING,),
    "llm.model_name": (Fact.RESPONSE_MODEL,),
    "llm.token_count.prompt": (Fact.PROMPT,),
    "llm.token_count.completion": (Fact.COMPLETION,),
    "llm.token_count.total": (Fact.TOTAL,),
    "llm.token_count.prompt_details.cache_read": (Fact.CACHED,),
    "llm.token_count.completion_details.reasoning": (Fact.REASONING,),
    "gen_ai.thread.run.id": (Fact.RUN_ID,),
    "gen_ai.thread.id": (Fact.THREAD_ID,),
}
"""Other keys whose value states a fact: read, never written."""

COUNTS: Final = frozenset({Fact.PROMPT, Fact.COMPLETION, Fact.TOTAL, Fact.CACHED, Fact.REASONING})
"""Facts whose value is an integer; all others are strings."""

FACT_OF_KEY: Final[dict[str, tuple[Fact, ...]]] = {
    **{key: (fact,) for fact, keys in KEYS.items() for key in keys.values()},
    **ALIASES,
}

SYSTEM_OF_PROVIDER: Final = {
    "azure.ai.openai": "az.ai.openai",
    "azure.ai.inference": "az.ai.inference",
    # No registered value is the agent service's: `azure-ai-agents` writes one, `azure-ai-projects` the other.
    "microsoft.foundry": "az.ai.agents",
}
"""Values of `gen_ai.provider.name` that `gen_ai.system` spelt otherwise (renamed in v1.35); others are the same."""

PROVIDER_OF_SYSTEM: Final = {system: provider for provider, system in SYSTEM_OF_PROVIDER.items()}

OPENINFERENCE_PROVIDER: Final = "llm.provider"

PROVIDER_OF_OPENINFERENCE: Final = {"azure": "azure.ai.openai"}
"""Values of OpenInference's `llm.provider` that `gen_ai.provider.name` spells otherwise."""

FRAMEWORKS: Final = frozenset(
    {"langchain", "langgraph", "llamaindex", "llama_index", "semantic_kernel", "crewai", "haystack", "autogen", "dspy"}
)
"""Values of `gen_ai.provider.name` and `gen_ai.system` that name who called the API, not who serves it."""

INSERTED: Final = "enricher.inserted"
REASON: Final = "enricher.reason"
EVIDENCE_PLACE: Final = "enricher.evidence.place"
REPLACED: Final = "enricher.replaced"

RUN_STATUS: Final = "gen_ai.thread.run.status"

TERMINAL: Final = frozenset({"completed", "failed", "cancelled", "expired", "incomplete"})
"""Statuses of a run that is finished."""

RUN_ID: Final = re.compile(r"run_(?=[a-z]*[A-Z0-9])[A-Za-z0-9]{16,124}\Z")
THREAD_ID: Final = re.compile(r"thread_(?=[a-z]*[A-Z0-9])[A-Za-z0-9]{16,121}\Z")
"""Ids under keys that do not promise one. The API's have 24 letters and digits; `run_assistant` is a function."""

MESSAGE_ID: Final = re.compile(r"msg_[A-Za-z0-9_-]{1,124}\Z")

SAFE_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,128}\Z")
"""What ids are made of: they become dictionary keys, log fields and attribute values."""

MASK: Final = re.compile(
    r"(?:[x-]{3,}|masked|hidden|removed|filtered|scrubbed|anonymi[sz]ed|null|none|undefined)\Z",
)
"""What stands as the last part of an id that was taken out: as the id of every run, it would make one of all."""

NAME: Final = re.compile(r"[^\s{}\[\]\"]{1,256}\Z")
"""Names of providers and models, and ids. What else stands under their keys, a whole payload say, is not one."""

SPOKEN: Final = re.compile(
    r"(?:gen_ai|llm)\.(?:prompts?|completions?|input|output|input_messages|output_messages|prompt_template|content)\."
    r"|gen_ai\.(?:input|output)\.messages\Z|gen_ai\.system_instructions\Z|gen_ai\.event\.content\Z"
    r"|gen_ai\.(?:prompt|completion)\Z|gen_ai\.tool\.|(?:input\.value|llm\.invocation_parameters)\Z"
    r"|traceloop\.entity\.input\Z|gen_ai\.task\.input\Z|langfuse\.observation\.input\Z|mlflow\.spanInputs\Z"
    r"|http\.request\.body|request_data\Z|db\.(?:statement|query\.text)\Z|exception\."
    r"|(?:prompt|completion|content|question)\Z",
)
"""Keys that hold words, requests or statements: what stands there was not answered by the API (decision 0001)."""

RUN_URL: Final = re.compile(
    r"/threads/(thread_[A-Za-z0-9_-]{1,121})(?:/(runs)(?:/(run_[A-Za-z0-9_-]{1,124}))?)?(?=[/?#]|\Z)",
)
"""The Assistants API's paths, whatever stands before them (OpenAI, Azure, a proxy)."""

ANY_RUN: Final = "runs"
"""Where a path names a thread's runs and none of them: there one is begun."""

AZURE_HOST: Final = re.compile(
    r"(?:\.openai\.azure\.(?:com|us|cn)|\.cognitiveservices\.azure\.(?:com|us|cn)|\.services\.ai\.azure\.(?:com|us|cn)"
    r"|\.api\.cognitive\.microsoft\.com)\.?\Z",
    re.IGNORECASE,
)
"""Hosts at which Azure serves OpenAI's API."""


def is_id(text: str) -> bool:
    """Tell whether a text can be the id of one thing: the only ids that are believed at all."""
    return SAFE_ID.match(text) is not None and not _is_masked(text)


@lru_cache(maxsize=1024)
def _is_masked(text: str) -> bool:
    """Tell whether a text of an id's letters and length is a mask. Ids recur: a run is polled, its thread is named."""
    lower = text.lower()
    # Every new id comes by here: one expression for all three takes four times as long.
    return "redact" in lower or "xxxxxx" in lower or MASK.match(lower.rstrip("_").rpartition("_")[2]) is not None


def served_by_azure(address: str) -> bool:
    """Tell whether a URL, a `host:port` or a bare host is one at which Azure serves the API."""
    host = re.split(r"[/?#]", address.split("://", 1)[-1], maxsplit=1)[0].rsplit("@", 1)[-1].split(":", 1)[0]
    return AZURE_HOST.search(host) is not None
