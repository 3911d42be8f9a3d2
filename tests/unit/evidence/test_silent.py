"""Runs without a recorded text, by what a list of them would give."""

from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st

from enricher.evidence import silent
from enricher.evidence.known import KnownRun

TIMES = st.integers(0, 12)
IDS = st.integers(1, 9).map("run_{}".format)
SERVICES = st.lists(st.sampled_from(["a", "b"]), unique=True).map(tuple)
RUNS = st.builds(
    KnownRun, IDS, answered=TIMES, first=TIMES, services=SERVICES, texts=st.sampled_from([{}, {}, {b"said": None}])
)


@given(st.lists(RUNS | IDS, max_size=60), st.sampled_from(["a", "b", "c"]), TIMES, TIMES)
def test_who_may_have_been_speaking_is_found_whatever_was_learned_and_forgotten(steps, service, since, until):
    known = {}
    with patch.object(silent, "BLOCK", 3):
        runs = silent.SilentRuns()
        for step in steps:
            if isinstance(step, str):
                known.pop(step, None)
                runs.forget(step)
            else:
                known[step.run_id] = step
                runs.update(step)

        found = list(runs.between(service, since, until))

    assert sorted(found) == sorted(
        run.run_id
        for run in known.values()
        if service in run.services and not run.texts and run.first <= until and not 0 < run.answered < since
    )
    assert found == sorted(found, key=lambda run_id: known[run_id].answered or float("inf"))


def test_what_began_after_a_span_is_passed_over_block_by_block():
    runs = silent.SilentRuns()
    for number in range(5000):
        runs.update(KnownRun(f"run_{number}", answered=10 * number + 5, first=10 * number, services=("a",)))
    looked_at = []

    class Told(list):
        def __iter__(self):
            looked_at.append(self)
            return super().__iter__()

    for block in runs._of["a"]:
        block.runs = Told(block.runs)

    assert list(runs.between("a", 100, 120)) == ["run_10", "run_11", "run_12"]
    assert len(looked_at) == 1
