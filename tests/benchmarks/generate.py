"""
Makes export requests for the benchmarks: ordinary HTTP and database spans with a chosen share of Assistant runs.

Everything is built with the real messages and then serialised, and depends on the seed alone. A *candidate* is an
`openai.assistant.run` span of 0.33.12, which lacks system and usage; the recorded answer that holds them sits on the
candidate itself (`own`) or on an HTTP client span beside it in the same trace (`sibling`).
"""

from __future__ import annotations

import random
import string
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import orjson
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.proto.resource.v1.resource_pb2 import Resource

ASSISTANT_SCOPE = "opentelemetry.instrumentation.openai.v1"
ASSISTANT_SPAN = "openai.assistant.run"
PAYLOAD_KEY = "http.response.body"

_START = 1_750_000_000
_RESOURCE_SPANS = 128  # a batch of 512 comes from four services, as after a Collector's batch processor
_ALPHANUMERIC = string.ascii_letters + string.digits
_PROSE = "the order was delayed because a part is missing and will leave our house on monday please answer soon"
_WORDS = _PROSE.split()
_ROUTES = (
    ("GET", "/api/v1/orders/{order_id}"),
    ("GET", "/api/v1/customers/{customer_id}/addresses"),
    ("POST", "/api/v1/customers/{customer_id}/orders/{order_id}/items"),
    ("PATCH", "/api/v2/warehouses/{warehouse_id}/stock/{article_number}"),
    ("GET", "/healthz"),
    ("DELETE", "/api/v1/baskets/{basket_id}/items/{item_id}"),
    ("POST", "/api/v1/payments"),
)
_AGENTS = (
    "Mozilla/5.0 (X11; Linux x86_64) Gecko/20100101 Firefox/128.0",
    "okhttp/4.12.0",
    "python-requests/2.32.3",
)
_TABLES = ("orders", "order_items", "customers", "stock_movements", "baskets")
_SERVICES = ("checkout", "catalogue", "customer-accounts", "warehouse-api", "payments", "support-desk")


@dataclass(frozen=True)
class Kind:
    """What a request holds: `share` is the percentage of spans that are candidates."""

    spans: int
    share: int
    payload: Literal["own", "sibling"] = "own"

    def __str__(self) -> str:
        return f"{self.spans} spans, {self.share} %" + (" sibling" if self.payload == "sibling" else "")

    def candidates(self, index: int) -> int:
        """Return how many candidates the request at `index` holds; the share is exact over 100 requests."""
        return (index + 1) * self.spans * self.share // 100 - index * self.spans * self.share // 100


def requests(kind: Kind, count: int, seed: int = 0) -> list[bytes]:
    """Return `count` serialised requests; raises `ValueError` for a share that leaves no room for the siblings."""
    if kind.payload == "sibling" and kind.share > 30:
        raise ValueError(f"share {kind.share} %: a candidate with a sibling takes three spans, so 30 % is the most")
    rng = random.Random(f"{seed} {kind}")
    return [_request(rng, kind, kind.candidates(index)).SerializeToString() for index in range(count)]


def _request(rng: random.Random, kind: Kind, candidates: int) -> ExportTraceServiceRequest:
    request = ExportTraceServiceRequest()
    resources = -(-kind.spans // _RESOURCE_SPANS)
    for index in range(resources):
        spans = kind.spans // resources + (index < kind.spans % resources)
        share = candidates // resources + (index < candidates % resources)
        _fill(rng, request.resource_spans.add(), kind, spans, share)
    return request


def _fill(rng: random.Random, resource: ResourceSpans, kind: Kind, spans: int, candidates: int) -> None:
    _set(
        resource.resource,
        {
            "service.name": rng.choice(_SERVICES),
            "service.version": f"{rng.randrange(9)}.{rng.randrange(30)}.{rng.randrange(10)}",
            "service.instance.id": _hex(rng, 16),
            "deployment.environment.name": "production",
            "k8s.pod.name": f"{rng.choice(_SERVICES)}-{_hex(rng, 4)}-{_hex(rng, 3)}",
            "telemetry.sdk.language": "python",
            "telemetry.sdk.name": "opentelemetry",
            "telemetry.sdk.version": "1.30.0",
        },
    )
    http = _scope(resource, "opentelemetry.instrumentation.fastapi", "0.51b0")
    database = _scope(resource, "opentelemetry.instrumentation.asyncpg", "0.51b0")
    if candidates:
        assistant = _scope(resource, ASSISTANT_SCOPE, "0.33.12")
        client = (
            _scope(resource, "opentelemetry.instrumentation.httpx", "0.51b0") if kind.payload == "sibling" else None
        )
        for _ in range(candidates):
            spans -= _assistant_run(rng, assistant, client, http)
    while spans > 0:
        server = http.spans.add()
        _http_server(rng, server, rng.randbytes(16))
        children = min(rng.randrange(4), spans - 1)
        for _ in range(children):
            _database(rng, database.spans.add(), server)
        spans -= 1 + children


def _scope(resource: ResourceSpans, name: str, version: str) -> ScopeSpans:
    scope = resource.scope_spans.add()
    scope.scope.name, scope.scope.version = name, version
    return scope


def _assistant_run(rng: random.Random, assistant: ScopeSpans, client: ScopeSpans | None, http: ScopeSpans) -> int:
    """Add one candidate and, with a `client` scope, its trace's root and the sibling; return the number of spans."""
    run = _thread_run(rng)
    body = orjson.dumps(run, option=orjson.OPT_INDENT_2).decode()
    span = assistant.spans.add()
    if client is None:
        _begin(rng, span, ASSISTANT_SPAN, rng.randbytes(16), rng.randbytes(8))
        _set(span, _assistant_attributes(rng, run) | {PAYLOAD_KEY: body})
        return 1
    root = http.spans.add()
    _http_server(rng, root, rng.randbytes(16))
    _begin(rng, span, ASSISTANT_SPAN, root.trace_id, root.span_id)
    _set(span, _assistant_attributes(rng, run))
    sibling = client.spans.add()
    _begin(rng, sibling, "GET", root.trace_id, root.span_id)
    url = f"https://api.openai.com/v1/threads/{run['thread_id']}/runs/{run['id']}"
    _set(sibling, {"http.method": "GET", "http.url": url, "http.status_code": 200, PAYLOAD_KEY: body})
    sibling.start_time_unix_nano = span.start_time_unix_nano
    sibling.end_time_unix_nano = span.end_time_unix_nano - 1_000_000
    return 3


def _assistant_attributes(rng: random.Random, run: Mapping[str, object]) -> dict[str, str | int | bool]:
    return {
        "llm.request.type": "chat",
        "gen_ai.request.model": str(run["model"]),
        "gen_ai.response.model": str(run["model"]),
        "gen_ai.prompt.0.role": "system",
        "gen_ai.prompt.0.content": str(run["instructions"]),
        "gen_ai.completion.0.role": "assistant",
        "gen_ai.completion.0.content": _text(rng, 10, 120),
    }


def _thread_run(rng: random.Random) -> dict[str, object]:
    """Return a completed run as the API answers it, with ids and numbers of its own."""
    prompt, completion = rng.randrange(50, 20_000), rng.randrange(5, 4_000)
    created = _START + rng.randrange(86_400)
    return {
        "id": _id(rng, "run"),
        "object": "thread.run",
        "created_at": created,
        "assistant_id": _id(rng, "asst"),
        "thread_id": _id(rng, "thread"),
        "status": "completed",
        "started_at": created + 1,
        "expires_at": None,
        "cancelled_at": None,
        "failed_at": None,
        "completed_at": created + rng.randrange(2, 40),
        "required_action": None,
        "last_error": None,
        "model": rng.choice(("gpt-4o", "gpt-4o-mini", "gpt-4-turbo")),
        "instructions": _text(rng, 10, 60),
        "tools": [{"type": "file_search"}],
        "tool_resources": {},
        "metadata": {},
        "temperature": 1.0,
        "top_p": 1.0,
        "max_completion_tokens": None,
        "max_prompt_tokens": None,
        "truncation_strategy": {"type": "auto", "last_messages": None},
        "incomplete_details": None,
        "usage": {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
            "prompt_token_details": {"cached_tokens": rng.randrange(prompt)},
            "completion_tokens_details": {"reasoning_tokens": rng.randrange(completion)},
        },
        "response_format": "auto",
        "tool_choice": "auto",
        "parallel_tool_calls": True,
    }


def _http_server(rng: random.Random, span: Span, trace_id: bytes) -> None:
    method, route = rng.choice(_ROUTES)
    _begin(rng, span, f"{method} {route}", trace_id, b"")
    path = "/".join(str(rng.randrange(10**7)) if part.startswith("{") else part for part in route.split("/"))
    status = rng.choice((200, 200, 200, 201, 204, 404, 500))
    _set(
        span,
        _common(rng)
        | {
            "http.request.method": method,
            "http.route": route,
            "url.scheme": "https",
            "url.path": path,
            "url.query": f"page={rng.randrange(40)}&sort={rng.choice(('name', '-created_at'))}",
            "http.response.status_code": status,
            # Real keys that begin like those of a recorded answer: the search for payloads has to live with them.
            "http.request.body.size": rng.randrange(20_000),
            "http.response.body.size": rng.randrange(200_000),
            "network.protocol.version": "1.1",
            "client.address": ".".join(str(rng.randrange(256)) for _ in range(4)),
            "user_agent.original": rng.choice(_AGENTS),
            "enduser.id": str(rng.randrange(10**6)),
            "app.cache.hit": rng.random() < 0.5,
        },
    )
    if status == 500:
        span.status.code = span.status.STATUS_CODE_ERROR


def _database(rng: random.Random, span: Span, parent: Span) -> None:
    table = rng.choice(_TABLES)
    _begin(rng, span, f"SELECT {table}", parent.trace_id, parent.span_id)
    columns = ", ".join(rng.sample(("id", "customer_id", "created_at", "state", "amount"), rng.randint(1, 5)))
    _set(
        span,
        _common(rng)
        | {
            "db.system.name": "postgresql",
            "db.namespace": "shop",
            "db.collection.name": table,
            "db.operation.name": "SELECT",
            "db.query.text": f"SELECT {columns} FROM {table} WHERE customer_id = $1",
            "db.query.summary": f"SELECT {table}",
            "db.response.returned_rows": rng.randrange(500),
            "db.pool.name": "primary",
            "db.user": "shop_reader",
            "network.transport": "tcp",
            "network.type": "ipv4",
            "app.query.digest": _hex(rng, 4),
            "app.lag_ms": rng.randrange(300),
        },
    )


def _common(rng: random.Random) -> dict[str, str | int | bool]:
    return {
        "server.address": f"{rng.choice(_SERVICES)}.shop",
        "server.port": rng.choice((443, 5432, 8080)),
        "network.peer.address": f"10.{rng.randrange(256)}.{rng.randrange(256)}.{rng.randrange(256)}",
        "network.peer.port": rng.randrange(30_000, 60_000),
        "thread.id": rng.randrange(10**14, 10**15),
        "thread.name": f"worker-{rng.randrange(32)}",
        "code.function": f"shop.{rng.choice(_WORDS)}",
        "code.line.number": rng.randrange(1, 900),
        "app.request.id": _hex(rng, 4),
        "app.tenant": str(rng.randrange(400)),
        "app.region": rng.choice(("eu", "us")),
        "app.feature": rng.choice(_WORDS),
    }


def _begin(rng: random.Random, span: Span, name: str, trace_id: bytes, parent: bytes) -> None:
    span.trace_id, span.span_id, span.parent_span_id = trace_id, rng.randbytes(8), parent
    span.name, span.flags = name, 0x101
    span.kind = Span.SPAN_KIND_CLIENT if parent else Span.SPAN_KIND_SERVER
    span.start_time_unix_nano = _START * 10**9 + rng.randrange(86_400 * 10**9)
    span.end_time_unix_nano = span.start_time_unix_nano + rng.randrange(2 * 10**6, 5 * 10**9)


def _set(owner: Span | Resource, values: Mapping[str, str | int | bool]) -> None:
    for key, value in values.items():
        added = owner.attributes.add(key=key).value
        if isinstance(value, bool):
            added.bool_value = value
        elif isinstance(value, int):
            added.int_value = value
        else:
            added.string_value = value


def _text(rng: random.Random, least: int, most: int) -> str:
    return " ".join(rng.choices(_WORDS, k=rng.randint(least, most)))


def _hex(rng: random.Random, size: int) -> str:
    return rng.randbytes(size).hex()


def _id(rng: random.Random, prefix: str) -> str:
    return f"{prefix}_{''.join(rng.choices(_ALPHANUMERIC, k=24))}"
