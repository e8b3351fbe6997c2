"""Recorded exchanges with a real Ollama, replayed against the addon over real sockets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

import pytest
from tests.golden.replay import ALIAS, MODELS, Case, Outcome, Runner, compare, recorded, send
from tests.strict.ways import Tap
from tests.wire.conftest import Proxy

from ollama_lmstudio import routes
from ollama_lmstudio.sim import Sim, SimThread

CASES = recorded()

# What cannot be equal, and why. Of OpenAI's and Anthropic's APIs LM Studio has its own, whose bodies go through as they
# are: these are told by their paths.
PASSED_ON = "the body is LM Studio's own"
UNEQUAL: Mapping[str, tuple[int, ...]] = {
    "LM Studio has no image generation": (576, 621),
    "LM Studio applies no template of Go's, and shows none of its own": (565, 580),
    "LM Studio gives no logprobs of thoughts": (579,),
    "an alias has no layers": (640,),
    "there are no manifests on this disk": (655,),
    "the AI SDK wants a prompt_eval_count, also for a text without words": (591,),
    "LM Studio downloads from no registry of Ollama's": (656, 657),
}
REASONS = {n: reason for reason, numbers in UNEQUAL.items() for n in numbers}


def reason_of(case: Case) -> str:
    """Say why a case cannot be equal; empty for one that must be."""
    passed_on = any(route.path == case.path and case.method in route.allow for route in routes.COMPATIBLE)
    return PASSED_ON if passed_on else REASONS.get(case.n, "")


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[int, Outcome]]:
    """Every case, replayed in the order of the recording: later ones build upon earlier ones."""
    runner = Runner()
    with (
        SimThread(models=list(MODELS), generator=runner) as sim,
        Proxy(sim.url, state_dir=tmp_path_factory.mktemp("state")) as proxy,
        Tap(proxy.port) as tap,
    ):
        proxy.wait_for_log(r"\d+ models at")
        _prepare(sim, proxy)
        done: dict[int, Outcome] = {}
        for case in CASES:
            runner.path = case.path
            done[case.n] = compare(case, send(case, tap.port))
        yield done


def _prepare(sim: Sim, proxy: Proxy) -> None:
    with proxy.client() as client:
        client.post("/api/create", json=ALIAS).raise_for_status()
    for text, status, body in (("ERR", 400, '{"error":"embed boom"}'), ("STATUS", 503, '{"error":"busy"}')):
        sim.fault(path="/v1/embeddings", match=text, pre_error=(status, "application/json", body))


@pytest.mark.parametrize("case", [case for case in CASES if not reason_of(case)], ids=str)
def test_is_answered_as_ollama_does(case: Case, outcomes: dict[int, Outcome]) -> None:
    assert outcomes[case.n].differences == []


@pytest.mark.parametrize("case", [case for case in CASES if reason_of(case)], ids=str)
def test_what_cannot_be_equal_is_answered(case: Case, outcomes: dict[int, Outcome]) -> None:
    outcome = outcomes[case.n]
    assert outcome.answer.status != 502
    assert outcome.answer.body
    if reason_of(case) != PASSED_ON:
        assert outcome.differences, "this is equal by now: take it from the list"


def test_summary(outcomes: dict[int, Outcome], capsys: pytest.CaptureFixture[str]) -> None:
    unequal = [outcome.case for outcome in outcomes.values() if outcome.differences]
    reasons = Counter(map(reason_of, unequal))
    with capsys.disabled():
        print(
            f"\n{len(outcomes) - len(unequal)} of {len(outcomes)} recorded exchanges are answered as Ollama does; not:"
        )
        for reason, count in reasons.most_common():
            print(f"{count:4} {reason}")
    assert set(REASONS) <= {case.n for case in CASES}
    assert "" not in reasons
