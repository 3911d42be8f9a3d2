"""Answers in files, while the stage runs: the file is written, and the span that waited for it leaves."""

import pytest

from tests.support import peers
from tests.support.build import a_message_payload, a_request, a_run_payload, as_json, attributes, items_of
from tests.support.build import openllmetry_span as a_run_span
from tests.support.downstream import Downstream
from tests.support.stage import relay

pytestmark = pytest.mark.e2e

ANSWERS = (a_run_payload(), a_message_payload())


def watching(downstream, folder):
    config = relay(downstream.endpoint)
    config["hold"] = {"wait_duration": "5m", "evidence_ttl": "10m"}
    config["enrichment"] = {"payload_files": [f"{folder}/*.json*"]}
    return config


def tokens(received):
    return [attributes(raw).get("gen_ai.usage.prompt_tokens") for each in received for raw in items_of(each.request)]


async def test_a_span_that_waits_leaves_when_its_answer_is_written(stage, tmp_path):
    folder = tmp_path / "answers"
    folder.mkdir()
    async with Downstream() as downstream:
        running = await stage(watching(downstream, folder))
        await peers.export(running.grpc_endpoint, a_request([a_run_span("0.50.0", usage=None)]))
        (folder / "one.jsonl").write_text("".join(as_json(each) + "\n" for each in ANSWERS))

        assert tokens(await downstream.requests(1)) == [1200]


async def test_f35_what_is_there_at_the_start_is_known_and_a_broken_file_is_named(stage, tmp_path):
    folder = tmp_path / "answers"
    folder.mkdir()
    (folder / "broken.json").write_text('{"object": "thread.run", "id": ')
    (folder / "one.jsonl").write_text("".join(as_json(each) + "\n" for each in ANSWERS))
    async with Downstream() as downstream:
        running = await stage(watching(downstream, folder))
        await peers.export(running.grpc_endpoint, a_request([a_run_span("0.50.0", usage=None)]))

        assert tokens(await downstream.requests(1)) == [1200]
        await running.until_logged("broken.json")
