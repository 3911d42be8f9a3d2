"""
The official SDKs of four languages in front of the stage: what each sent is what arrives, span by span, byte by byte.

What an SDK sends is recorded once without the stage. Through the stage it sends the same, and every span has to arrive
as those bytes; those of Assistant runs, which hold their payload, with the usage behind them.
"""

import os
import re
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from enricher.config.model import Config
from enricher.otlp import json, shallow
from enricher.otlp.shallow import Signal
from enricher.service import Service
from tests.support import clients
from tests.support.build import attributes
from tests.support.certificates import Authority
from tests.support.clients import BY_NAME, CLIENTS, USAGE
from tests.support.downstream import Downstream
from tests.support.http_downstream import HttpDownstream
from tests.support.waiting import until

pytestmark = pytest.mark.e2e

COUNT = 30
TOKEN = "a-token-of-the-tests"
OPTIONS = ("plain", "gzip", "TLS and token")
CASES = [(client.name, protocol, option) for client in CLIENTS for protocol in client.protocols for option in OPTIONS]
PAGE = Path(__file__).parents[2] / "docs" / "interoperability.md"
RUN_NAME = b"openai.assistant.run"


@pytest.fixture(scope="session")
def built():
    """Of the session, so they are built before the proxy settings are taken away."""
    return clients.Built()


@pytest.fixture(scope="session")
def recorded():
    """What was sent without the stage, by client and encoding."""
    return {}


def spans_of(requests):
    """Return each span's bytes, with those of its scope, by its ids."""
    found = {}
    for request in requests:
        for _, scoped, raw in shallow.items(shallow.parse(request)):
            span = Span.FromString(raw)
            found[span.trace_id, span.span_id] = (bytes(raw), b"".join(scoped.scope))
    return found


async def sent_by(protocol, command):
    """Return what the client sends to a server that only records."""
    if protocol == "grpc":
        async with Downstream() as recorder:
            await clients.send(command, f"http://{recorder.endpoint}", protocol, COUNT)
            return spans_of(each.request for each in recorder.received)
    async with HttpDownstream() as recorder:
        await clients.send(command, recorder.url, protocol, COUNT)
        bodies = [call.body for call in recorder.received if call.path == "/v1/traces"]
    if protocol == "http/json":
        # As the stage passes them on; that this says the same as protobuf is asked for apart.
        bodies = [json.decode(body, Signal.TRACES)[1] for body in bodies]
    return spans_of(bodies)


@asynccontextmanager
async def a_stage(downstream, protocol, option, folder):
    """Start a stage in this process, and give its address and what a client has to be told."""
    guard, settings = {}, {"compression": "gzip"} if option == "gzip" else {}
    if option == "TLS and token":
        authority = Authority(folder)
        pair = authority.issue("stage", host="localhost")
        guard = {
            "tls": {"cert_file": str(pair.cert), "key_file": str(pair.key)},
            "auth": {"bearer": {"token": TOKEN}},
        }
        settings = {"certificate": str(authority.ca), "headers": f"authorization=Bearer%20{TOKEN}"}
    kind = "grpc" if protocol == "grpc" else "http"
    receiver = {"protocols": {kind: {"endpoint": "127.0.0.1:0", **guard}}}
    service = Service(
        Config.model_validate(
            {
                "receivers": {"otlp": receiver},
                "exporters": {"otlp": {"endpoint": downstream.endpoint, "tls": {"insecure": True}}},
                "storage": {"directory": str(folder / "data")},
                "telemetry": {page: {"endpoint": "127.0.0.1:0"} for page in ("metrics", "health")},
            }
        )
    )
    await service.start()
    try:
        yield f"{'https' if guard else 'http'}://localhost:{service.receivers[kind].port}", settings
    finally:
        await service.shutdown(1)


@pytest.mark.parametrize("case", CASES, ids=[" ".join(case) for case in CASES])
async def test_what_an_sdk_sent_is_what_arrives(built, recorded, tmp_path, case):
    name, protocol, option = case
    command = built.command(name)
    if (name, protocol) not in recorded:
        recorded[name, protocol] = await sent_by(protocol, command)
    sent = recorded[name, protocol]
    async with Downstream() as downstream:
        async with a_stage(downstream, protocol, option, tmp_path) as (address, settings):
            await clients.send(command, address, protocol, COUNT, **settings)
            await until(lambda: len(spans_of(each.request for each in downstream.received)) >= len(sent))
        came = spans_of(each.request for each in downstream.received)
        count = sum(len(spans_of([each.request])) for each in downstream.received)

    assert len(sent) == COUNT * 2 + COUNT // 10
    assert came.keys() == sent.keys()
    assert count == len(sent)
    for identity, (raw, scope) in sent.items():
        arrived, above = came[identity]
        assert above == scope
        if RUN_NAME not in raw:
            assert arrived == raw
        else:
            assert arrived.startswith(raw)
            assert attributes(arrived)["gen_ai.usage.prompt_tokens"] == USAGE["prompt_tokens"]


@pytest.mark.parametrize("name", [client.name for client in CLIENTS if "http/json" in client.protocols])
async def test_jsn_01_to_14_what_an_sdk_says_in_json_is_what_it_says_in_protobuf(built, recorded, name):
    for protocol in ("http/json", "http/protobuf"):
        if (name, protocol) not in recorded:
            recorded[name, protocol] = await sent_by(protocol, built.command(name))
    as_json, as_protobuf = (recorded[name, protocol] for protocol in ("http/json", "http/protobuf"))

    assert as_json.keys() == as_protobuf.keys()
    for identity, (raw, _) in as_json.items():
        assert repr(Span.FromString(raw)) == repr(Span.FromString(as_protobuf[identity][0]))


def table():
    rows = [
        f"| {client.name} | {protocol} | {', '.join(OPTIONS)} |" for client in CLIENTS for protocol in client.protocols
    ]
    return "\n".join(["| SDK | protocol | tried |", "|---|---|---|", *rows])


def test_the_page_says_what_is_tried():
    text = PAGE.read_text(encoding="utf-8")
    begin, end = "<!-- table -->\n", "\n<!-- end of table -->"
    if os.environ.get("DOCS_WRITE"):
        PAGE.write_text(
            re.sub(f"(?s){begin}.*{end}", lambda _: f"{begin}{table()}{end}", text, count=1), encoding="utf-8"
        )
        return

    assert text[text.index(begin) + len(begin) : text.index(end)] == table()


def test_every_client_is_known_by_its_name():
    assert list(BY_NAME) == [client.name for client in CLIENTS]
