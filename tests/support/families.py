"""Spans of runs as instrumentations other than OpenLLMetry write them: one builder each, with what tells them apart."""

from __future__ import annotations

from typing import Any

from tests.support.build import (
    MODEL,
    Attributes,
    Item,
    a_message_payload,
    a_span,
    as_json,
    assistant_id,
    run_id,
    thread_id,
)

OPENINFERENCE = ("openinference.instrumentation.openai", "0.1.66")
LOGFIRE = ("logfire.openai", "5.2.0")
AZURE_AGENTS = ("azure.core.tracing.ext.opentelemetry_span", "1.0.0b13")
LANGFUSE = ("langfuse-sdk", "4.14.3")
MLFLOW = ("mlflow.tracing.provider", "")
OPENLLMETRY_LANGCHAIN = ("opentelemetry.instrumentation.langchain", "0.62.1")
OPENINFERENCE_LANGCHAIN = ("openinference.instrumentation.langchain", "0.1.80")
SEMANTIC_KERNEL = ("semantic_kernel.utils.telemetry.agent_diagnostics.decorators", "")


def _pairs(attributes: Attributes) -> dict[str, Any]:
    return dict(attributes)


def openinference_span(
    answer: Any = None, *, name: str = "Run", served_by: str | None = "openai", more: Attributes = (), **where: Any
) -> Item:
    """Return the span of one API call; `answer` is what the API said, None where it streamed."""
    found: dict[str, Any] = {"llm.system": "openai", "openinference.span.kind": "LLM", "input.value": "{}"}
    if served_by is not None:
        found["llm.provider"] = served_by
    if answer is not None:
        text = answer if isinstance(answer, str) else as_json(answer)
        found |= {"output.value": text, "output.mime_type": "application/json"}
    return a_span(name, found | _pairs(more), scope=OPENINFERENCE, **where)


def logfire_span(
    path: str | None = None,
    usage: dict[str, Any] | None = None,
    *,
    number_of_run: int = 1,
    answered: str | None = "",
    more: Attributes = (),
    **where: Any,
) -> Item:
    """Return the span of one API call about a run; `answered` is the id of what it gave, None where it has none."""
    run = run_id(number_of_run)
    found: dict[str, Any] = {
        "url": f"/threads/{thread_id(number_of_run)}/runs/{run}" if path is None else path,
        "gen_ai.system": "openai",
        "gen_ai.provider.name": "openai",
    }
    if answered is not None:
        found |= {"gen_ai.response.model": MODEL, "gen_ai.response.id": answered or run}
    if usage is not None:
        found |= {
            "gen_ai.usage.input_tokens": usage["prompt_tokens"],
            "gen_ai.usage.output_tokens": usage["completion_tokens"],
            "gen_ai.usage.raw": as_json(usage),
        }
    return a_span("OpenAI API call to {url!r}", found | _pairs(more), scope=LOGFIRE, **where)


def older_logfire_span(
    path: str | None = None, usage: tuple[int, int] | None = None, *, model: str | None = MODEL, **where: Any
) -> Item:
    """Return the span of one API call as Logfire wrote it up to 4: without ids. Steps that it gives have no model."""
    found: dict[str, Any] = {
        "url": f"/threads/{thread_id()}/runs/{run_id()}" if path is None else path,
        "gen_ai.system": "openai",
    }
    if model is not None:
        found["gen_ai.response.model"] = model
    if usage is not None:
        found |= {"gen_ai.usage.input_tokens": usage[0], "gen_ai.usage.output_tokens": usage[1]}
    return a_span("OpenAI API call to {url!r}", found, scope=("logfire.openai", "3.25.0"), **where)


def azure_span(
    operation: str = "get_thread_run",
    status: str | None = "completed",
    usage: tuple[int, int] | None = None,
    *,
    number_of_run: int = 1,
    more: Attributes = (),
    **where: Any,
) -> Item:
    """Return the span of an operation on a run in Azure's agent service."""
    found: dict[str, Any] = {
        "gen_ai.system": "az.ai.agents",
        "gen_ai.operation.name": operation,
        "server.address": "https://acme.services.ai.azure.com",
        "gen_ai.thread.id": thread_id(number_of_run),
        "gen_ai.agent.id": assistant_id(),
    }
    if status is not None:
        found |= {"gen_ai.thread.run.status": status, "gen_ai.thread.run.id": run_id(number_of_run)}
        found["gen_ai.response.model"] = MODEL
    if usage is not None:
        found |= {"gen_ai.usage.input_tokens": usage[0], "gen_ai.usage.output_tokens": usage[1]}
    return a_span(operation, found | _pairs(more), scope=AZURE_AGENTS, **where)


def langfuse_span(returned: Any, *, name: str = "ask_tutor", more: Attributes = (), **where: Any) -> Item:
    """Return the span of a function under `@observe`; texts stand as they are, anything else as JSON."""
    text = returned if isinstance(returned, str) else as_json(returned)
    found = {"langfuse.observation.type": "span", "langfuse.observation.output": text}
    return a_span(name, found | _pairs(more), scope=LANGFUSE, **where)


def mlflow_span(returned: Any, *, name: str = "ask_tutor", more: Attributes = (), **where: Any) -> Item:
    """Return the span of a function under `@mlflow.trace`: every value is JSON, texts too."""
    found = {"mlflow.spanType": '"UNKNOWN"', "mlflow.spanOutputs": as_json(returned)}
    return a_span(name, found | _pairs(more), scope=MLFLOW, **where)


def langchain_span(*, openinference: bool = False, run: int = 1, more: Attributes = (), **where: Any) -> Item:
    """Return the span of LangChain's assistant, under one instrumentation or the other; it gives the run's messages."""
    message = a_message_payload(number=run, run=run, thread=run)
    if openinference:
        found: dict[str, Any] = {"openinference.span.kind": "CHAIN", "output.value": as_json([message])}
        return a_span("OpenAIAssistantRunnable", found | _pairs(more), scope=OPENINFERENCE_LANGCHAIN, **where)
    found = {
        "gen_ai.provider.name": "langchain",
        "gen_ai.operation.name": "invoke_agent",
        "gen_ai.agent.id": "01a20b09-0000-7439-82b6-52a6c0b87e56",
        "traceloop.entity.output": as_json({"outputs": [as_json(message)]}),
    }
    return a_span("OpenAIAssistantRunnable.workflow", found | _pairs(more), scope=OPENLLMETRY_LANGCHAIN, **where)


def kernel_span(agent: str = "", *, more: Attributes = (), **where: Any) -> Item:
    """Return the span of a Semantic Kernel agent, which does not say whose API it calls."""
    found = {
        "gen_ai.operation.name": "invoke_agent",
        "gen_ai.agent.id": agent or assistant_id(),
        "gen_ai.agent.name": "tutor",
    }
    return a_span("invoke_agent tutor", found | _pairs(more), scope=SEMANTIC_KERNEL, **where)
