"""OTLP over HTTP with the real Collector on both sides of a stage in a process of its own."""

from __future__ import annotations

import aiohttp
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from enricher.otlp import json
from enricher.otlp.shallow import Signal
from tests.support import collector as collectors
from tests.support import peers
from tests.support.build import a_request, a_span
from tests.support.downstream import Downstream

pytestmark = pytest.mark.e2e


def in_front_of(url: str, **exporter: object) -> dict:
    """Return the configuration of a stage without state that sends on over HTTP."""
    exporter = {"endpoint": url, "sending_queue": {"enabled": False}, **exporter}
    return {"hold": {"enabled": False}, "exporters": {"otlphttp": exporter}}


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
async def test_json_over_http_arrives_at_a_collector_behind_http(stage, collector, compression):
    request = a_request([a_span(number=number) for number in range(1, 51)])
    async with Downstream() as downstream:
        behind = collectors.relay(downstream.endpoint)
        behind["receivers"]["otlp"]["protocols"]["http"] = {}
        url = f"http://{(await collector(behind)).http_endpoint}"
        running = await stage(in_front_of(url, compression=compression))
        entry = running.config["receivers"]["otlp"]["protocols"]["http"]["endpoint"]
        async with (
            aiohttp.ClientSession() as session,
            session.post(
                f"http://{entry}/v1/traces",
                data=json.encode(Signal.TRACES, request),
                headers={"Content-Type": "application/json"},
            ) as response,
        ):
            answer = response.status, await response.read()
        arrived = await downstream.requests(1)

    assert answer == (200, b"{}")
    assert parsed(arrived[-1].request) == parsed(request)


@pytest.mark.parametrize("encoding", ["proto", "json"])
@pytest.mark.parametrize("compression", ["none", "gzip", "zstd", "deflate", "zlib"])
async def test_a_collector_in_front_sends_over_http(stage, collector, encoding, compression):
    request = a_request([a_span(number=number) for number in range(1, 51)])
    async with Downstream() as downstream:
        running = await stage(
            {
                "hold": {"enabled": False},
                "exporters": {
                    "otlp": {"endpoint": f"http://{downstream.endpoint}", "sending_queue": {"enabled": False}}
                },
            }
        )
        entry = running.config["receivers"]["otlp"]["protocols"]["http"]["endpoint"]
        ahead = collectors.relay("unused:1")
        ahead["exporters"] = {
            "otlp_http": {
                "endpoint": f"http://{entry}",
                "encoding": encoding,
                "compression": compression,
                "sending_queue": {"enabled": False},
                "retry_on_failure": {"enabled": False},
            }
        }
        for pipeline in ahead["service"]["pipelines"].values():
            pipeline["exporters"] = ["otlp_http"]
        await peers.export((await collector(ahead)).grpc_endpoint, request)
        arrived = await downstream.requests(1)

    assert parsed(arrived[-1].request) == parsed(request)


def parsed(request: bytes) -> ExportTraceServiceRequest:
    """Return the request with a status on every span: the Collector adds an empty one where there was none."""
    found = ExportTraceServiceRequest.FromString(request)
    for resource in found.resource_spans:
        for scope in resource.scope_spans:
            for span in scope.spans:
                span.status.SetInParent()
    return found
