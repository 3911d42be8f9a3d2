"""`enricher queue` as an operator types it, beside a running stage and after it."""

import json

import grpc
import pytest

from tests.e2e.test_cli import enricher
from tests.support import peers
from tests.support.build import a_request, a_span, span_id
from tests.support.downstream import Downstream, ok, refuse
from tests.support.waiting import until

pytestmark = pytest.mark.e2e

BAD = refuse(grpc.StatusCode.INVALID_ARGUMENT, "not mine")


async def test_f09_dead_letters_are_listed_shown_sent_again_and_deleted(stage):
    async with Downstream(BAD, BAD) as downstream:
        running = await stage({"exporters": {"otlp": {"endpoint": downstream.endpoint, "tls": {"insecure": True}}}})
        where = ("--set", f"storage.directory={running.config['storage']['directory']}")
        for number in (1, 2):
            await peers.export(running.grpc_endpoint, a_request([a_span(number=number)]))

        code, out, _ = await enricher("queue", "list", "--json", *where)
        letters = json.loads(out)["letters"]
        assert (code, [each["reason"] for each in letters]) == (0, ["not mine"] * 2)
        _, out, _ = await enricher("queue", "list", *where)
        assert "not mine" in out
        _, out, _ = await enricher("queue", "show", letters[0]["id"], *where)
        assert json.loads(out)["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["spanId"] == span_id(1).hex()
        downstream.otherwise = ok()
        assert (await enricher("queue", "resend", letters[0]["id"], *where))[:2] == (0, "1 queued again\n")
        await until(lambda: len(downstream.taken) == 1)
        await running.stop()

        assert (await enricher("queue", "drop", "--all", *where))[:2] == (0, "1 deleted\n")
        code, _, err = await enricher("queue", "drop", "7", *where)
        assert (code, "no dead letters" in err) == (1, True)
        assert (await enricher("queue", "drop", *where))[0] == 2


async def test_a_directory_that_is_no_stages_is_told(tmp_path):
    code, _, err = await enricher("queue", "list", "--set", f"storage.directory={tmp_path}")

    assert (code, "holds no store" in err) == (1, True)


async def test_f27_what_opening_the_store_sets_aside_is_told_although_no_stage_started(tmp_path):
    where = ("--set", f"storage.directory={tmp_path}")
    (tmp_path / "store.db").write_bytes(b"no database" * 1000)
    code, out, err = await enricher("queue", "list", "--json", *where)

    assert (code, json.loads(out)["letters"]) == (0, [])
    assert "it is kept as" in err
    assert (await enricher("queue", "list", *where))[2] == ""
