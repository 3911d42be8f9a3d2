"""The commands as users type them, in processes of their own."""

import asyncio
import gzip
import json
import sys
from pathlib import Path

import grpc
import pytest

import enricher as package
from enricher import capture
from enricher.otlp.shallow import Signal
from tests.support import peers, waiting
from tests.support import stage as stages
from tests.support.build import (
    a_log_record,
    a_message_payload,
    a_request,
    a_run_payload,
    a_span,
    as_json,
    attributes,
    items_of,
    openllmetry_span,
    span_id,
)
from tests.support.downstream import Downstream, partial, refuse

pytestmark = pytest.mark.e2e

SPANS = [openllmetry_span("0.33.12", number=1, parent=9), a_span("ask", number=9, start=5, end=25)]


async def enricher(*arguments, stdin=b""):
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "enricher",
        *map(str, arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate(stdin)
    return process.returncode, out.decode(), err.decode()


@pytest.fixture
def recording(tmp_path):
    """A folder in which the answer lies in a log of another file than the span."""
    folder = tmp_path / "recording"
    folder.mkdir()
    (folder / "1.binpb").write_bytes(a_request(SPANS))
    with capture.open_writer(str(folder / "2.logs.jsonl.gz")) as writer:
        writer.write(Signal.LOGS, a_request([a_log_record(as_json(a_run_payload()), seconds=18)]))
    return folder


def mended(path):
    spans = [
        raw for item in capture.read([str(path)]) if item.signal is Signal.TRACES for raw in items_of(item.request)
    ]
    return {
        each["gen_ai.usage.prompt_tokens"] for each in map(attributes, spans) if "gen_ai.usage.prompt_tokens" in each
    }


@pytest.mark.parametrize("name", ["out.jsonl", "out.binpb", "out.jsonl.gz", "out.binpb.zst"])
async def test_replay_mends_by_what_any_file_says_and_writes_what_the_name_says(recording, tmp_path, name):
    code, _, err = await enricher("replay", recording, "--output", tmp_path / name)

    assert (code, mended(tmp_path / name)) == (0, {1200})
    assert "candidates: enriched 1" in err


async def test_replay_reads_standard_input_and_writes_standard_output(recording):
    data = (recording / "1.binpb").read_bytes()
    code, out, _ = await enricher("replay", "-", "--output", "-", stdin=data)

    assert code == 0
    assert json.loads(out)["resourceSpans"]


async def test_replay_sends_to_an_endpoint(recording):
    async with Downstream(partial(1, "one too many")) as downstream:
        code, _, err = await enricher("replay", recording, "--endpoint", f"http://{downstream.endpoint}")
        received = await downstream.requests(2)

    assert {each.signal for each in received} == {Signal.TRACES, Signal.LOGS}
    assert code == 1
    assert "rejected 1 items: one too many" in err


async def test_replay_warns_of_tls_to_a_collector_of_this_machine_before_it_tries(tmp_path):
    (tmp_path / "empty.jsonl").touch()
    code, _, err = await enricher("replay", tmp_path / "empty.jsonl", "--endpoint", "localhost:1")

    assert code == 0
    assert "TLS is on" in err


async def test_what_an_endpoint_refuses_is_named_and_the_rest_is_sent(recording):
    async with Downstream(refuse(grpc.StatusCode.INVALID_ARGUMENT, "not mine")) as downstream:
        code, _, err = await enricher("replay", recording, "--endpoint", f"http://{downstream.endpoint}")
        received = await downstream.requests(2)

    assert (code, len(received)) == (1, 2)
    assert "1.binpb: byte 0" in err
    assert "not mine" in err


async def test_replay_expect_holds_a_recording_and_says_differences_in_words(recording, tmp_path):
    expected = tmp_path / "expected.jsonl"
    await enricher("replay", recording, "--output", expected)
    code, out, _ = await enricher("replay", recording, "--expect", expected)
    assert (code, out) == (0, "")

    expected.write_text(expected.read_text().replace('"intValue":"1200"', '"intValue":"1201"'))
    code, out, err = await enricher("replay", recording, "--expect", expected)

    assert code == 1
    assert f"span {span_id(1).hex()} 'openai.assistant.run'" in out
    assert (
        "attribute gen_ai.usage.prompt_tokens: expected ('int_value', 1201)" in out
        or "expected 1201, found 1200" in out
    )
    assert "differences" in err


async def test_a_file_that_cannot_be_read_is_named_with_its_offset_and_the_others_are_done(recording, tmp_path):
    good = (recording / "2.logs.jsonl.gz").read_bytes()
    (recording / "3.jsonl").write_bytes(gzip.decompress(good) + b'{"resourceLogs": [{"scopeLogs": 7}]}\n')
    code, _, err = await enricher("replay", recording, "--output", tmp_path / "out.jsonl")

    assert code == 1
    assert f"3.jsonl: byte {len(gzip.decompress(good))}:" in err
    assert mended(tmp_path / "out.jsonl") == {1200}


async def test_replay_believes_answers_in_payload_files(tmp_path):
    (tmp_path / "spans.binpb").write_bytes(a_request([openllmetry_span("0.50.0", usage=None)]))
    answers = tmp_path / "answers.jsonl"
    answers.write_text("".join(as_json(each) + "\n" for each in (a_run_payload(), a_message_payload())))
    to = ("replay", tmp_path / "spans.binpb", "--output", tmp_path / "out.jsonl")

    code, _, _ = await enricher(*to)
    assert (code, mended(tmp_path / "out.jsonl")) == (0, set())
    code, _, err = await enricher(*to, "--payloads", answers)
    assert (code, mended(tmp_path / "out.jsonl")) == (0, {1200}), err
    code, _, _ = await enricher(*to, "--set", f"enrichment.payload_files=[{answers}]")
    assert (code, mended(tmp_path / "out.jsonl")) == (0, {1200})


async def test_explain_believes_answers_in_payload_files(tmp_path):
    (tmp_path / "spans.binpb").write_bytes(a_request([openllmetry_span("0.50.0", usage=None)]))
    answers = tmp_path / "answers.jsonl"
    answers.write_text("".join(as_json(each) + "\n" for each in (a_run_payload(), a_message_payload())))

    assert "payload_absent" in (await enricher("explain", tmp_path / "spans.binpb"))[1]
    code, out, _ = await enricher("explain", tmp_path / "spans.binpb", "--payloads", answers)
    assert (code, "gen_ai.usage.prompt_tokens = 1200" in out) == (0, True)


@pytest.mark.parametrize("command", ["explain", "audit"])
async def test_where_nothing_could_be_read_no_rule_is_advised(command, tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    code, out, err = await enricher(command, tmp_path / "notes.txt")

    assert (code, out) == (1, "no span was read\n")
    assert "notes.txt: byte 0: neither" in err


async def test_a_payload_file_that_is_not_there_is_named_and_the_rest_is_done(recording, tmp_path):
    code, _, err = await enricher(
        "replay", recording, "--output", tmp_path / "out.jsonl", "--payloads", tmp_path / "no.har"
    )

    assert (code, mended(tmp_path / "out.jsonl")) == (1, {1200})
    assert "no.har" in err


async def test_explain_says_what_was_lacked_found_decided_and_written(recording):
    code, out, _ = await enricher("explain", recording)

    assert code == 0
    for words in (
        "lacked",
        "evidence",
        "only_run_in_trace",
        "gen_ai.usage.prompt_tokens = 1200",
        "enriched:",
    ):
        assert words in out


async def test_explain_of_one_span_and_of_none(recording):
    code, out, _ = await enricher("explain", recording, "--span", span_id(1).hex()[:-1])
    assert (code, "openai.assistant.run" in out) == (0, True)
    code, _, err = await enricher("explain", recording, "--span", "ffff")

    assert code == 1
    assert "no candidate's span id begins with ffff" in err


async def test_validate_names_every_mistake_with_its_place(tmp_path):
    config = tmp_path / "enricher.yaml"
    config.write_text("exporters:\n  otlp:\n    endpont: x:1\nhold: {wait_duration: 5}\n")
    code, out, _ = await enricher("validate", "--config", config)

    assert code == 1
    assert f"{config}:3:5 error exporters.otlp.endpont" in out
    assert f"{config}:4:23 error hold.wait_duration" in out
    code, out, _ = await enricher("validate", "--config", config, "--format", "json")
    assert (code, {each["severity"] for each in json.loads(out)}) == (1, {"error"})


async def test_run_with_a_wrong_configuration_says_so_and_does_not_start():
    code, _, err = await enricher("run", "--set", "hold.wait_duration=5")

    assert code == 1
    assert "hold.wait_duration" in err


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="only Linux tells what is resident")
async def test_run_takes_less_than_60_mib_at_rest(tmp_path):
    file = peers.written(stages.with_defaults({}, tmp_path), tmp_path / "stage")
    running = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "enricher", "run", "--config", file, cwd=tmp_path, stderr=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(waiting.PATIENCE_SECONDS):
            while b"] ready" not in (line := await running.stderr.readline()):
                assert line, "ended before it was ready"

        assert peers.rss_bytes(running.pid) < 60 << 20
    finally:
        running.terminate()
        await running.communicate()


async def test_a7_run_refuses_a_protobuf_that_a_request_can_exhaust(monkeypatch):
    monkeypatch.setenv("PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION", "python")
    code, _, err = await enricher("run")

    assert code == 1
    assert "protobuf's implementation is 'python'; expected 'upb'" in " ".join(err.split())


async def test_demo_shows_the_span_before_and_after():
    code, out, _ = await enricher("demo")

    assert code == 0
    assert "before: openai.assistant.run" in out
    assert "+ gen_ai.usage.prompt_tokens" in out


async def test_wrong_usage_is_two_and_a_missing_file_is_one(tmp_path):
    assert (await enricher("replay", tmp_path))[0] == 2
    assert (await enricher("nonsense"))[0] == 2
    code, _, err = await enricher("explain", tmp_path / "nothing.jsonl")
    assert code == 1
    assert "nothing.jsonl" in err


async def test_the_python_interface_gives_requests_and_outcomes(recording):
    replayed = package.replay(recording)

    assert [str(each.reason) for each in replayed.outcomes] == ["enriched"]
    assert len(replayed.requests) == 2
