"""Payload files under any bytes: nothing is raised, nothing is made up, and how a file came to be does not show."""

import gzip
import itertools
import json
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from enricher.errors import CaptureError
from enricher.evidence import bounded_json, files, plain_yaml
from enricher.evidence.collect import Evidence
from enricher.payload_files import read_once
from enricher.payload_files.watched import Watched
from tests.support.build import (
    a_list,
    a_message_payload,
    a_run_payload,
    a_step_payload,
    an_sse_transcript,
    as_json,
    run_id,
    thread_id,
)

ADDRESS = f"https://api.openai.com/v1/threads/{thread_id()}/runs/{run_id()}"
TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc"]) | st.sampled_from("\n\t"), max_size=20)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)
PAYLOADS = st.one_of(
    st.builds(
        lambda number, status, usage: a_run_payload(status, usage, number=number),
        st.integers(1, 3),
        st.sampled_from(["completed", "in_progress"]),
        st.none() | st.tuples(st.integers(0, 9999), st.integers(0, 9999)),
    ),
    st.builds(lambda text, number: a_message_payload(text, number=number, run=number), TEXTS, st.integers(1, 3)),
    st.builds(lambda number: a_step_payload(number=number, run=number, message=number), st.integers(1, 3)),
)
DOCUMENTS = st.lists(PAYLOADS | VALUES, max_size=4)


def har(documents):
    request, texts = {"url": ADDRESS}, [as_json(each) for each in documents]
    entries = [{"request": request, "response": {"content": {"text": text}}} for text in texts]
    return json.dumps({"log": {"entries": entries}}, indent=1)


def cassette(documents):
    texts = [as_json(each) for each in documents]
    bodies = [gzip.compress(text.encode()) if number % 2 else text for number, text in enumerate(texts)]
    recorded = [{"request": {"uri": ADDRESS}, "response": {"body": {"string": body}}} for body in bodies]
    return yaml.safe_dump({"interactions": recorded}, allow_unicode=True)


SHAPES = [
    lambda documents: as_json(a_list(documents)),
    lambda documents: "".join(as_json(each) + "\n" for each in documents),
    lambda documents: an_sse_transcript(*(each for each in documents if isinstance(each, dict) and "object" in each)),
    har,
    cassette,
]
FILES = st.builds(lambda shape, documents: shape(documents).encode(), st.sampled_from(SHAPES), DOCUMENTS)


@st.composite
def damaged(draw):
    """Return a file of which a few bytes were changed, taken away or put in."""
    data = bytearray(draw(FILES))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        data[at : at + draw(st.integers(0, 3))] = draw(
            st.binary(max_size=3) | st.sampled_from([b"{", b"[", b'"', b"\n", b"*"])
        )
    return bytes(data)


ANY = st.binary(max_size=200) | VALUES.map(lambda each: as_json(each).encode()) | FILES | damaged()


def facts(items):
    """Return what evidence says of runs, whatever the place."""
    said = [each.said for each in items if isinstance(each, Evidence)]
    runs = {(run.run_id, run.thread_id, run.status, run.usage) for each in said for run in each.runs}
    return runs | {(each.message_id, each.run_id, each.texts) for one in said for each in one.messages}


@given(ANY)
def test_any_bytes_give_evidence_and_errors_and_raise_nothing(data):
    for each in files.read(data, "f"):
        if isinstance(each, CaptureError):
            assert each.offset is None or 0 <= each.offset <= len(data)
        else:
            assert each.place == (each.place.where, "", b"", b"", 0, 0)
            assert not each.said.bare
            assert not each.said.unreadable


@given(FILES, st.data())
def test_the_beginning_of_a_file_says_nothing_that_the_file_does_not(data, draw):
    end = draw.draw(st.integers(0, len(data)))

    assert facts(files.read(data[:end], "f")) <= facts(files.read(data, "f"))


@given(st.lists(PAYLOADS | VALUES, min_size=1, max_size=4), st.sampled_from(SHAPES))
def test_a_run_is_said_as_it_was_recorded(documents, shape):
    recorded = {
        (each["id"], each["usage"] and (each["usage"]["prompt_tokens"], each["usage"]["completion_tokens"]))
        for each in documents
        if isinstance(each, dict) and each.get("object") == "thread.run" and each["status"] == "completed"
    }

    said = [each.said for each in files.read(shape(documents).encode(), "f") if isinstance(each, Evidence)]
    runs = [run for each in said for run in each.runs if run.status == "completed"]
    assert {(run.run_id, run.usage and run.usage[:2]) for run in runs} == recorded


@given(st.lists(PAYLOADS | VALUES.filter(lambda each: isinstance(each, dict | list | str)), max_size=6), st.data())
def test_how_lines_came_into_a_file_does_not_show(documents, draw):
    whole = "".join(as_json(each) + "\n" for each in documents).encode()
    cuts = sorted(draw.draw(st.sets(st.integers(0, len(whole)), max_size=5)))
    with TemporaryDirectory() as folder:
        file, watched, found = Path(folder, "log"), Watched([f"{folder}/*"], lambda: 0.0), []
        for start, end in itertools.pairwise([0, *cuts, len(whole)]):
            with file.open("ab") as handle:
                handle.write(whole[start:end])
            found += [each for each in watched.look() if each is not None]

        assert not any(isinstance(each, CaptureError) for each in found)
        assert facts(found) == facts(read_once([str(file)])) == facts(files.read(whole, "f"))


@given(ANY, st.sampled_from([bytes, gzip.compress, zstandard.compress]), st.booleans())
def test_any_file_is_read_or_named(data, compress, cut):
    content = compress(data)
    with TemporaryDirectory() as folder:
        file = Path(folder, "f")
        file.write_bytes(content[: len(content) // 2] if cut else content)
        found = list(read_once([str(file)]))

    if not cut:
        assert facts(found) == facts(files.read(data, "f"))


@given(
    st.dictionaries(
        TEXTS, st.recursive(TEXTS | st.binary(max_size=9), lambda e: st.lists(e) | st.dictionaries(TEXTS, e))
    )
)
def test_plain_yaml_is_what_was_written(value):
    assert plain_yaml.load(yaml.safe_dump(value, allow_unicode=True).encode()) == value


@given(st.binary(max_size=100) | TEXTS.map(str.encode))
def test_plain_yaml_of_any_bytes_is_a_value_or_an_error(data):
    with suppress(plain_yaml.PlainYamlError):
        plain_yaml.load(data)


@given(ANY)
def test_bounded_json_agrees_with_json_or_refuses(data):
    try:
        value = bounded_json.loads(data)
    except bounded_json.BoundedJsonError:
        return
    assert value == json.loads(data.decode("utf-8-sig"))
