"""
The shipped Collectors in front of two stages: what belongs together meets in one stage, and all arrives once.

The files of `config/` are used as they are but for ports and times. Every stage signs what it sends with a header, so
that one downstream sees which way a span took.
"""

from __future__ import annotations

import asyncio
import importlib.util
import subprocess
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import yaml
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from enricher.config.values import parse_duration
from tests.support import build, peers
from tests.support.downstream import Downstream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tests.support.build import Item
    from tests.support.downstream import Received
    from tests.support.stage import Stage

pytestmark = pytest.mark.e2e

CONFIG = Path(__file__).parents[2] / "config"
BY_SERVICE, BY_TRACE, STAGE = (
    "loadbalancing-service.yaml",
    "loadbalancing-traceid.yaml",
    "stage-between-collectors.yaml",
)

NUMBERS = range(1, 25)
"""Services. Ports differ each time and with them who goes where; that one stage gets all happens once in 2^23 times."""

APART = 1000
"""What is added to the number of a trace whose evidence travels in another request."""

DURING = {"start": 18, "end": 19}
"""When the answers came: inside the spans of `build.openllmetry_span`."""

ROOT = 1_000_000
"""What is added to the number of a trace for its root, so that no other span has that number."""


# ---- what runs ---------------------------------------------------------------------------------------------------


def shipped(name: str) -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load((CONFIG / name).read_text(encoding="utf-8"))
    return config


def front(name: str, backends: list[str], past: str) -> dict[str, Any]:
    """Return a shipped Collector's configuration with free ports; what takes no stage goes to `past`."""
    config = shipped(name)
    config["receivers"]["otlp"]["protocols"] = {"grpc": {}, "http": {}}
    config["exporters"]["load_balancing"]["resolver"]["static"]["hostnames"] = backends
    config["exporters"]["otlp_grpc"]["endpoint"] = past
    return config


def behind(downstream: Downstream, name: str, hold: dict[str, Any]) -> dict[str, Any]:
    """Return the shipped stage's configuration with free ports and signed by `name`."""
    config = shipped(STAGE)
    for section in ("receivers", "telemetry", "storage"):
        del config[section]
    config["exporters"]["otlp"] |= {"endpoint": downstream.endpoint, "headers": {"x-stage": name}}
    config["hold"] = config.get("hold", {}) | hold
    return config


async def two_stages(stage, downstream: Downstream, **hold: Any) -> list[Stage]:
    return [await stage(behind(downstream, name, hold)) for name in ("one", "two")]


# ---- what is sent ------------------------------------------------------------------------------------------------


def service(number: int) -> str:
    return f"desk-{number}"


def prompt_tokens(number: int) -> int:
    return 1000 + number


def a_trace(number: int, trace: int) -> tuple[list[Item], list[Item]]:
    """Return the HTTP span with the answer, and the root with the run's span, of one trace of a service."""
    of: dict[str, Any] = {"service": service(number), "trace": trace}
    payload = build.a_run_payload(number=trace, usage=(prompt_tokens(number), 7))
    root = build.a_span("POST /ask", number=ROOT + trace, **of)
    run = build.openllmetry_span("0.33.12", existing=True, parent=ROOT + trace, **of)
    return [build.an_http_span(payload, parent=ROOT + trace, **DURING, **of)], [root, run]


def traffic() -> list[list[Item]]:
    """Return requests of many services with two traces each: one whole in a request, one whose answer is ahead."""
    whole = [a_trace(number, number) for number in NUMBERS]
    apart = [a_trace(number, APART + number) for number in NUMBERS]
    return [
        [item for answer, run in whole for item in [*answer, *run]],
        [item for answer, _ in apart for item in answer],
        [item for _, run in apart for item in run],
    ]


def a_run_with_its_message(number: int) -> Item:
    """Return a run's span that names its message."""
    of: dict[str, Any] = {"service": service(number), "trace": number}
    return build.openllmetry_span("0.45.6", existing=True, usage=None, messages=[number], **of)


def its_evidence(number: int) -> list[dict[str, Any]]:
    """Return what the API says of that message and its run."""
    run = build.a_run_payload(number=number, usage=(prompt_tokens(number), 7))
    return [build.a_list([build.a_message_payload(number=number, run=number)]), run]


async def send(endpoint: str, items: Iterable[Item], *, of: str = "traces") -> None:
    await peers.export(endpoint, build.a_request(items), of=of)


# ---- what came out -----------------------------------------------------------------------------------------------


class Arrived(NamedTuple):
    """A span or log record at the far end; `stage` is empty for what came past the stages."""

    stage: str
    service: str
    message: Any

    @property
    def attributes(self) -> dict[str, Any]:
        return build.attributes(self.message.SerializeToString())


def arrived(received: Iterable[Received], signal: str = "traces") -> list[Arrived]:
    found = []
    for call in received:
        if call.signal != signal:
            continue
        stage = str(dict(call.metadata).get("x-stage", ""))
        if signal == "traces":
            above: Any = ExportTraceServiceRequest.FromString(call.request).resource_spans
            each = [(r.resource, item) for r in above for scope in r.scope_spans for item in scope.spans]
        else:
            above = ExportLogsServiceRequest.FromString(call.request).resource_logs
            each = [(r.resource, item) for r in above for scope in r.scope_logs for item in scope.log_records]
        for resource, item in each:
            names = [pair.value.string_value for pair in resource.attributes if pair.key == "service.name"]
            found.append(Arrived(stage, names[0], item))
    return found


async def until_arrived(downstream: Downstream, count: int, signal: str = "traces") -> list[Arrived]:
    """Return what came once it is so much; raises `TimeoutError` after a while."""
    calls = 0
    while True:
        received = await downstream.requests(calls)
        if len(found := arrived(received, signal)) >= count:
            return found
        calls = len(received) + 1


def stages_by(key: Callable[[Arrived], Any], found: Iterable[Arrived]) -> list[set[str]]:
    """Return which stages each service or trace went through."""
    taken: dict[Any, set[str]] = defaultdict(set)
    for each in found:
        taken[key(each)].add(each.stage)
    return list(taken.values())


def runs(found: Iterable[Arrived]) -> dict[int, dict[str, Any]]:
    """Return the attributes of each run's span by the number of its trace."""
    return {
        int.from_bytes(each.message.trace_id, "big"): each.attributes
        for each in found
        if each.message.name == "openai.assistant.run"
    }


def assert_all_once(found: Iterable[Arrived], requests: Iterable[Iterable[Item]]) -> None:
    sent = [item.span for request in requests for item in request]
    assert sorted(ids(each.message) for each in found) == sorted(map(ids, sent))


def ids(span: Any) -> tuple[bytes, bytes]:
    return span.trace_id, span.span_id


def assert_one_stage_each(taken: list[set[str]], *, each: int) -> None:
    """So many services or traces went through one stage each, and both stages had some."""
    assert sorted(map(len, taken)) == [1] * each
    assert set().union(*taken) == {"one", "two"}


# ---- by service --------------------------------------------------------------------------------------------------


async def test_by_service_all_of_a_service_goes_through_one_stage_and_arrives_once(stage, collector):
    """Stages that hold nothing fill in what one request holds; of the rest they can say the provider only."""
    requests = traffic()
    async with Downstream() as downstream:
        stages = await two_stages(stage, downstream, enabled=False)
        ahead = await collector(front(BY_SERVICE, [each.grpc_endpoint for each in stages], downstream.endpoint))
        for request in requests:
            await send(ahead.grpc_endpoint, request)
        found = arrived(downstream.received)

    assert_all_once(found, requests)
    assert_one_stage_each(stages_by(lambda each: each.service, found), each=len(NUMBERS))
    mended = runs(found)
    assert all(attributes["gen_ai.system"] == "openai" for attributes in mended.values())
    for number in NUMBERS:
        assert mended[number]["gen_ai.usage.prompt_tokens"] == prompt_tokens(number)
        assert "gen_ai.usage.prompt_tokens" not in mended[APART + number]


@pytest.mark.skipif(importlib.util.find_spec("enricher.hold") is None, reason="no `enricher.hold`: stages do not wait")
async def test_by_service_evidence_in_other_requests_traces_and_signals_finds_the_stage_that_holds_the_span(
    stage, collector
):
    """Nothing is released for its age here, so what is filled was filled by evidence that came to the right stage."""
    spans = {number: a_run_with_its_message(number) for number in NUMBERS}
    in_spans, in_records, ahead_of_it = NUMBERS[0::3], NUMBERS[1::3], NUMBERS[2::3]
    evidence = {
        number: [
            build.a_log_record(
                build.as_json(payload), service=service(number), trace=APART + number, seconds=DURING["end"]
            )
            if number in in_records
            else build.an_http_span(payload, service=service(number), trace=APART + number, **DURING)
            for payload in its_evidence(number)
        ]
        for number in NUMBERS
    }
    early, late, logs = (
        [item for number in part for item in evidence[number]] for part in (ahead_of_it, in_spans, in_records)
    )
    async with Downstream() as downstream:
        stages = await two_stages(stage, downstream, wait_duration="2m")
        if not all(each.config["hold"].get("enabled", True) for each in stages):
            pytest.skip(f"{STAGE} turns hold off, so no span waits for its evidence")
        ahead = await collector(front(BY_SERVICE, [each.grpc_endpoint for each in stages], downstream.endpoint))
        await send(ahead.grpc_endpoint, early)
        await send(ahead.grpc_endpoint, spans.values())
        await send(ahead.grpc_endpoint, late)
        await send(ahead.grpc_endpoint, logs, of="logs")
        requests = [early, late, list(spans.values())]
        found = await until_arrived(downstream, sum(map(len, requests)))
        records = arrived(downstream.received, "logs")

    assert_all_once(found, requests)
    assert len(records) == len(logs)
    assert_one_stage_each(stages_by(lambda each: each.service, [*found, *records]), each=len(NUMBERS))
    filled = {number: attributes.get("gen_ai.usage.prompt_tokens") for number, attributes in runs(found).items()}
    assert filled == {number: prompt_tokens(number) for number in NUMBERS}


async def test_by_service_only_the_part_of_a_stage_that_is_away_is_sent_again(stage, collector):
    requests = traffic()
    async with Downstream() as downstream:
        stages = await two_stages(stage, downstream, enabled=False)
        config = front(BY_SERVICE, [each.grpc_endpoint for each in stages], downstream.endpoint)
        # The shipped 8 s are for a stage that restarts, not for a machine that is busy with other tests.
        balancing = config["exporters"]["load_balancing"]
        retries = balancing["protocol"]["otlp"]["retry_on_failure"]
        # Tries end with the call that they are part of.
        assert parse_duration(balancing["timeout"]) > parse_duration(retries["max_elapsed_time"])
        retries["max_elapsed_time"] = balancing["timeout"] = "60s"
        ahead = await collector(config)
        assert await stages[1].stop() == 0

        sending = asyncio.create_task(send(ahead.grpc_endpoint, requests[0]))
        await ahead.until_logged("Exporting failed. Will retry the request after interval.")
        await stage(stages[1].config)
        await sending
        found = arrived(downstream.received)

    assert_all_once(found, requests[:1])
    assert_one_stage_each(stages_by(lambda each: each.service, found), each=len(NUMBERS))


# ---- by trace ----------------------------------------------------------------------------------------------------


async def test_by_trace_each_trace_goes_through_one_stage_as_one_request_and_arrives_once(stage, collector):
    """Gathered ahead of the stages, evidence of another request is there too, although stages hold nothing."""
    requests = traffic()
    record = build.a_log_record("low stock")
    async with Downstream() as downstream:
        stages = await two_stages(stage, downstream, enabled=False)
        config = front(BY_TRACE, [each.grpc_endpoint for each in stages], downstream.endpoint)
        config["processors"]["groupbytrace"]["wait_duration"] = "3s"
        ahead = await collector(config)
        for request in requests:
            await send(ahead.grpc_endpoint, request)
        await send(ahead.grpc_endpoint, [record], of="logs")
        found = await until_arrived(downstream, sum(map(len, requests)))
        (passed,) = await until_arrived(downstream, 1, "logs")

    assert_all_once(found, requests)
    assert_one_stage_each(stages_by(lambda each: each.message.trace_id, found), each=2 * len(NUMBERS))
    assert passed.stage == ""
    filled = {number: attributes.get("gen_ai.usage.prompt_tokens") for number, attributes in runs(found).items()}
    assert filled == {base + number: prompt_tokens(number) for base in (0, APART) for number in NUMBERS}


# ---- the Collector's side ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["service", "traceID"])
async def test_the_exporters_own_keys_send_log_records_elsewhere_than_spans(collector, key):
    """Why the shipped files use neither for log records. If this fails, the Collector has changed: simplify them."""
    of = [{"service": service(number), "trace": number} for number in NUMBERS]
    async with Downstream() as one, Downstream() as two:
        config = front(BY_SERVICE, [one.endpoint, two.endpoint], one.endpoint)
        exporter = config["exporters"]["load_balancing"]
        del exporter["routing_attributes"]
        exporter["routing_key"] = key
        ahead = await collector(config)
        await send(ahead.grpc_endpoint, [build.a_span(**each) for each in of])
        await send(ahead.grpc_endpoint, [build.a_log_record("said", **each) for each in of], of="logs")
        spans, records = (
            {each.message.trace_id for each in arrived(one.received, signal)} for signal in ("traces", "logs")
        )

    assert spans != records


@pytest.mark.parametrize(
    "file", [path for path in sorted(CONFIG.glob("*.yaml")) if "service" in shipped(path.name)], ids=lambda f: f.name
)
def test_the_collector_takes_its_shipped_files(otelcol, file):
    done = subprocess.run(
        [otelcol, "validate", "--config", file], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr
