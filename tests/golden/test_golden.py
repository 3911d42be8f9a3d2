"""Recorded cases come out as they were recorded; every reason, every rung and every rule has one."""

import os

import pytest

from enricher.expect import differences
from enricher.outcome import Reason, Rung
from enricher.rules import BUILT_IN
from tests.golden import generate
from tests.golden.generate import CASES, DIRECTORY, REASONS, RUNGS

REGENERATE = "GOLDEN_WRITE"
"""Set it to write the cases anew; the run then fails, so that it cannot be left on."""


@pytest.fixture(params=sorted(CASES))
def name(request):
    if os.environ.get(REGENERATE):
        generate.write(request.param)
        pytest.fail(f"{request.param} was written anew because {REGENERATE} is set; read it and unset {REGENERATE}")
    return request.param


def test_what_comes_out_is_what_was_recorded(name):
    directory = DIRECTORY / name
    actual = generate.run(directory, CASES[name].broken)
    stem = next(file for file in actual if file.startswith("expected"))
    expected, requests = generate.read(directory, "expected"), _read_back(stem, actual[stem])

    assert list(differences(expected, requests)) == []
    assert [signal for signal, _ in expected] == [signal for signal, _ in requests]
    if stem.endswith(".binpb"):
        assert actual[stem] == (directory / stem).read_bytes()


def test_what_is_said_is_what_was_recorded(name):
    directory = DIRECTORY / name
    actual = generate.run(directory, CASES[name].broken)["outcome.txt"].decode()

    assert actual == (directory / "outcome.txt").read_text(encoding="utf-8")


def test_what_goes_in_is_what_the_generator_builds(name):
    directory = DIRECTORY / name
    recorded = {path.name: path.read_bytes() for path in directory.iterdir()}
    built = generate.recorded_input(CASES[name])

    assert {file: recorded.get(file) for file in built} == built
    assert recorded.keys() - built.keys() in ({"expected.jsonl", "outcome.txt"}, {"expected.binpb", "outcome.txt"})


def test_every_reason_has_a_case_that_ends_in_it():
    assert REASONS.keys() == set(Reason)
    for reason in Reason:
        said = (DIRECTORY / reason / "outcome.txt").read_text(encoding="utf-8")
        assert f"  outcome      {reason}: " in said


def test_every_rung_has_a_case_that_it_decides():
    assert RUNGS.keys() == set(Rung)
    for rung in Rung:
        said = (DIRECTORY / rung / "outcome.txt").read_text(encoding="utf-8")
        assert f"  decided by   {rung}: " in said


def test_every_rule_has_a_case_in_which_it_recognises():
    said = "".join(path.read_text(encoding="utf-8") for path in DIRECTORY.glob("*/outcome.txt"))

    assert [rule.name for rule in BUILT_IN if f"  rule         {rule.name}, " not in said] == []


def test_every_directory_is_a_case():
    assert {path.name for path in DIRECTORY.iterdir() if path.is_dir() and path.name != "__pycache__"} == CASES.keys()


def _read_back(file, data):
    if file.endswith(".binpb"):
        return [(generate.Signal.TRACES, data)]
    return [generate.json.decode(line, None) for line in data.splitlines()]
