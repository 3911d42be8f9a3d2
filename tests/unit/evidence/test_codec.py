"""Evidence as bytes and back, whatever was recorded."""

import pytest

from enricher.evidence import codec
from tests.support.build import (
    a_list,
    a_log_record,
    a_message_payload,
    a_run_payload,
    a_span,
    a_step_payload,
    a_usage,
    an_http_span,
    an_sse_transcript,
    as_json,
    evidence_of,
    run_id,
    thread_id,
)

RECORDED = [
    an_http_span(a_run_payload()),
    an_http_span(a_run_payload("in_progress", None)),
    an_http_span(a_list([a_message_payload(), a_message_payload(run=None, role="user", number=2)])),
    an_http_span(an_sse_transcript(a_step_payload(), a_message_payload(), a_run_payload())),
    an_http_span(url=f"https://x.openai.azure.com/openai/threads/{thread_id()}/runs/{run_id()}"),
    an_http_span(as_json(a_run_payload())[:300]),
    a_span("work", {"usage": as_json(a_usage())}),
    a_log_record(as_json(a_run_payload())),
]


@pytest.mark.parametrize("item", RECORDED)
def test_evidence_comes_back_as_it_was(item):
    found = evidence_of(item)

    assert found
    assert [codec.unpack(codec.pack(each)) for each in found] == found


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"[2,1,2,3,4,5,6,7,8]", b"[1,1,2,3,4,5,6,7,8]", b"null", b"\xff"])
def test_bytes_that_are_no_evidence_of_this_version_are_none(data):
    assert codec.unpack(data) is None


def test_an_owner_comes_back_as_it_was_and_is_no_evidence():
    owner = ("tutor", "openai 1", "rule", 17)
    packed = codec.pack_owner(run_id(), owner)

    assert codec.unpack_owner(packed) == (run_id(), owner)
    assert codec.unpack(packed) is None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        b'["owner",1,"run_1",[1,2,3]]',
        b'["owner",1,"run_1",5]',
        b'["owner",2,"run_1",["a","b","c",4]]',
        b'["other",1,"run_1",["a","b","c",4]]',
        *(codec.pack(each) for each in evidence_of(RECORDED[0])),
    ],
)
def test_what_is_no_owner_is_none(data):
    assert codec.unpack_owner(data) is None
