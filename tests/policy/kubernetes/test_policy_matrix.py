"""All pairs at once agree with pair by pair."""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from policy_build import one
from policy_worlds import small

from mcdoctor.policy.matrix import all_pairs
from mcdoctor.policy.path import ask
from mcdoctor.policy.question import PodName, Question
from mcdoctor.policy.verdict import Verdict


@pytest.mark.parametrize("cni", ["kube-router", ""])
@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 10**9), port=st.sampled_from([(80, "TCP"), (8080, "TCP"), (5432, "UDP")]))
def test_the_matrix_agrees_with_single_questions(cni: str, seed: int, port: tuple[int, str]) -> None:
    engine = one(*small(random.Random(seed)), cni=cni)
    matrix = all_pairs(engine, "a", *port)
    counted = dict.fromkeys(Verdict, 0)
    for source in matrix.pods:
        for destination in matrix.pods:
            if source is destination:
                continue
            question = Question(
                PodName(source.namespace, source.name), PodName(destination.namespace, destination.name), *port
            )
            verdict = ask(engine, question).verdict
            counted[verdict] += 1
            assert matrix.verdict(source, destination) is verdict, (source, destination)
    assert {v: matrix.count(v) for v in Verdict} == counted
    assert sum(n for cell in matrix.cells().values() for n in cell.values()) == matrix.total
