"""Where each target begins: what the tests' own builders make, and words that the code looks for."""

from __future__ import annotations

import base64
import json
from itertools import product

import yaml

from enricher.evidence import collect
from enricher.otlp import json as otlp_json
from enricher.otlp.shallow import Signal
from enricher.rules import BUILT_IN
from enricher.semconv import FACT_OF_KEY
from tests.fuzz.targets import COMPRESS, HEADERS
from tests.support.build import (
    BODY,
    OPENLLMETRY_VERSIONS,
    a_chat_completion,
    a_list,
    a_log_record,
    a_message_payload,
    a_request,
    a_run_payload,
    a_span,
    a_step_payload,
    a_usage,
    an_http_span,
    an_sse_transcript,
    as_json,
    openllmetry_span,
    run_id,
    thread_id,
)

RUN_URL = f"https://api.openai.com/v1/threads/{thread_id()}/runs/{run_id()}"


def payloads() -> list[str]:
    """Return recorded answers."""
    shapes = [
        a_run_payload(),
        a_run_payload("in_progress", None),
        a_run_payload(usage=a_usage(1200, 340, cached=64, reasoning=128), object=...),
        a_message_payload(),
        a_step_payload(),
        a_usage(),
        a_chat_completion(),
        a_list([a_run_payload(), a_message_payload(), a_step_payload()]),
        {"response": {"body": as_json(a_run_payload())}},
        [as_json(a_message_payload())],
    ]
    texts = [as_json(each) for each in shapes]
    stream = an_sse_transcript(a_run_payload("in_progress", None), a_message_payload(), a_run_payload())
    return [*texts, *map(json.dumps, texts[:3]), stream, json.dumps(stream), texts[0][:-9]]


def requests() -> list[tuple[Signal, bytes]]:
    """Return export requests with candidates, answers and neither."""
    spans = [
        [openllmetry_span(version, stream=stream, existing=existing, usage=None if existing else (1200, 340), number=1)]
        for version, stream, existing in product(OPENLLMETRY_VERSIONS, (False, True), (False, True))
    ]
    spans += [[openllmetry_span("0.45.6", number=1, more=[(BODY, each)])] for each in payloads()]
    spans.append(
        [
            openllmetry_span("0.33.12", number=1, parent=9, usage=None),
            openllmetry_span("0.48.0", number=2, parent=9, existing=True, start=30, end=40),
            an_http_span(a_run_payload(), url=RUN_URL, number=3, start=18, parent=9),
            an_http_span(a_list([a_message_payload()]), number=4, start=19, parent=9),
            a_span("job", {"kinds": [None, True, -1, 0.5, b"\0", {"a": ["b"]}]}, number=9, start=1, end=50),
        ]
    )
    logs = [[a_log_record(each, {"gen_ai.system": "openai"})] for each in (a_run_payload(), *payloads())]
    return [
        (Signal.TRACES, b""),
        *((Signal.TRACES, a_request(each)) for each in spans),
        *((Signal.LOGS, a_request(each)) for each in logs),
    ]


def documents() -> list[bytes]:
    """Return requests as OTLP/JSON."""
    metric = {"name": "m", "sum": {"aggregationTemporality": 2, "dataPoints": [{"asInt": "-1"}, {"asDouble": "NaN"}]}}
    metrics = {"resourceMetrics": [{"scopeMetrics": [{"metrics": [metric]}]}]}
    return [b"{}", as_json(metrics).encode(), *(otlp_json.encode(*each) for each in requests())]


def recordings() -> list[bytes]:
    """Return files of recorded answers."""
    texts = payloads()
    entries = [
        {
            "request": {"method": "GET", "url": RUN_URL, "headers": []},
            "response": {"status": 200, "content": {"size": len(each), "mimeType": "application/json", **body}},
        }
        for each in texts
        for body in ({"text": each}, {"text": base64.b64encode(each.encode()).decode(), "encoding": "base64"})
    ]
    zipped = base64.b64encode(COMPRESS["gzip"](texts[0].encode())).decode()
    cassette = {
        "interactions": [
            {
                "request": {"method": "GET", "uri": RUN_URL},
                "response": {"status": {"code": 200}, "headers": {}, "body": {"string": each}},
            }
            for each in (texts[0], texts[0].encode(), COMPRESS["gzip"](texts[0].encode()))
        ],
        "version": 1,
    }
    return [
        *map(str.encode, texts),
        "\n".join(texts[:3]).encode(),
        ("\n".join(texts[:2]) + '\n{"id": "run_').encode(),
        *(as_json({"log": {"entries": entries[n : n + 2]}}).encode() for n in range(0, len(entries), 6)),
        as_json({"log": {"entries": [{**entries[0], "response": {"content": {"text": zipped}}}]}}).encode(),
        as_json(entries[:1]).encode(),
        yaml.safe_dump(cassette).encode(),
    ]


def seeds(target: str) -> list[bytes]:
    """Return inputs of a target."""
    match target:
        case "grpc":
            return [request for _, request in requests()]
        case "http":
            return [
                bytes([at]) + (COMPRESS[coding](body) if coding else body)
                for at, (coding, is_json, signal) in enumerate(HEADERS)
                for body in _bodies(signal, is_json=is_json)[at % 7 :: 7]
            ]
        case "inflate":
            return [b"", *(compress(text.encode() * 9) for compress in COMPRESS.values() for text in payloads()[::5])]
        case "json":
            return [*documents(), *(request for _, request in requests())]
        case "payload":
            return [each.encode() for each in payloads()]
        case _:
            return recordings()


def _bodies(signal: Signal, *, is_json: bool) -> list[bytes]:
    found = [request for of, request in requests() if of is signal] or [b""]
    return [otlp_json.encode(signal, each) for each in found] if is_json else found


def words(target: str) -> list[bytes]:
    """Return what the code looks for in a target's inputs, for the fuzzer to put there."""
    keys = [*FACT_OF_KEY, *map(bytes.decode, collect.NEEDLES), *(rule.span_name for rule in BUILT_IN if rule.span_name)]
    found = {each.encode() for each in keys}
    for text in (b"".join(documents()[1:9]), *recordings()[:14], b"log entries interactions content encoding string"):
        found |= {each.encode() for each in set(_names(text.decode()))}
    if target != "inflate":
        found |= {
            b'"',
            b"{",
            b"}",
            b"[",
            b"]",
            b"data: ",
            b"event: ",
            b"\n\n",
            b"null",
            b"1e400",
            b"\\ud800",
            b"!!binary ",
        }
    return sorted(found)


def _names(text: str) -> list[str]:
    return [
        each
        for each in text.replace('"', " ").replace("\\", " ").replace(":", " ").split()
        if each.isidentifier() and len(each) > 3
    ]
