"""A short run of the fuzzer's targets without the fuzzer: their seeds, and what one change makes of each."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.mutate import mutated
from tests.fuzz.seeds import seeds
from tests.fuzz.targets import TARGETS

SEEDS = {target: seeds(target) for target in TARGETS}


@pytest.mark.parametrize("target", TARGETS)
def test_the_seeds_keep_every_promise(target):
    for each in SEEDS[target]:
        TARGETS[target](each)


@pytest.mark.parametrize("target", TARGETS)
@given(number=st.integers(0, 1 << 30), seed=st.integers(0, 1 << 30))
@settings(max_examples=100)
def test_a7_a8_f39_changed_seeds_keep_every_promise(target, number, seed):
    def changed_bytes(data, size):
        rng = random.Random(seed)
        at = rng.randint(0, len(data))
        return (data[:at] + rng.randbytes(rng.randint(0, 3)) + data[at + rng.randint(0, 3) :])[:size]

    data = SEEDS[target][number % len(SEEDS[target])]

    TARGETS[target](mutated(target, data, 1 << 14, seed, changed_bytes))
