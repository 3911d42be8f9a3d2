"""`enricher audit` as users type it."""

import json

import pytest

from tests.e2e.test_cli import enricher, recording  # noqa: F401 - a fixture
from tests.support.build import a_request, openllmetry_span

pytestmark = pytest.mark.e2e


async def test_audit_prints_tables_and_writes_a_page(recording, tmp_path):  # noqa: F811
    code, out, err = await enricher("audit", recording, "--html", tmp_path / "page.html")

    assert (code, err) == (0, "")
    assert "1 run on 1 Assistant-run span\n" in out
    assert (tmp_path / "page.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


async def test_audit_prints_json_for_machines(recording):  # noqa: F811
    code, out, _ = await enricher("audit", recording, "--json")

    assert code == 0
    assert json.loads(out)["total"]["coverage"]["usage"]["inserted"] == 1


async def test_audit_of_nothing_but_gaps_is_no_error(tmp_path):
    (tmp_path / "spans.binpb").write_bytes(a_request([openllmetry_span("0.33.12")]))
    code, out, _ = await enricher("audit", tmp_path / "spans.binpb")

    assert code == 0
    assert "usage 1" in out


async def test_audit_names_what_cannot_be_read_and_counts_the_rest(recording):  # noqa: F811
    (recording / "3.jsonl").write_text('{"resourceLogs": [{"scopeLogs": 7}]}\n')
    code, out, err = await enricher("audit", recording, "--json")

    assert code == 1
    assert "3.jsonl: byte 0: $.resourceLogs[0].scopeLogs" in err
    assert json.loads(out)["read"]["unreadable"] == 1
    assert json.loads(out)["total"]["runs"] == 1


async def test_audit_believes_payload_files(tmp_path):
    (tmp_path / "spans.binpb").write_bytes(a_request([openllmetry_span("0.33.12")]))
    code, out, err = await enricher("audit", tmp_path / "spans.binpb", "--json", "--payloads", tmp_path / "no.har")

    assert (code, json.loads(out)["read"]["unreadable"]) == (1, 1)
    assert "no.har" in err


async def test_audit_does_not_write_its_page_over_an_input_nor_where_nothing_can_be(tmp_path):
    spans = tmp_path / "spans.binpb"
    spans.write_bytes(a_request([openllmetry_span("0.33.12")]))
    code, _, err = await enricher("audit", spans, "--html", spans)
    assert (code, "spans.binpb" in err, spans.read_bytes()[:1]) == (1, True, b"\n")
    code, _, err = await enricher("audit", spans, "--html", tmp_path / "no" / "page.html")

    assert code == 1
    assert "the page cannot be written: No such file or directory" in err
