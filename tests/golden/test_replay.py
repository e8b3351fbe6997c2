"""Recorded exchanges with a real Ollama, replayed against the addon over real sockets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

import pytest
from tests.golden.replay import MODELS, OLLAMA, VARIATIONS, Case, Outcome, Recording, Runner, compare, send
from tests.strict.ways import Tap
from tests.wire.conftest import Proxy

from ollama_lmstudio import routes
from ollama_lmstudio.sim import Sim, SimThread

CASES = {recording: recording.cases() for recording in (OLLAMA, VARIATIONS)}
ALL = [case for cases in CASES.values() for case in cases]

# What cannot be equal, and why. Of OpenAI's and Anthropic's APIs LM Studio has its own, whose bodies go through as they
# are: these are told by their paths.
PASSED_ON = "the body is LM Studio's own"
TOLD_WHY = "the body says why a host is refused, and which option lets it in"
NO_TEMPLATES = "LM Studio applies no template of Go's, and shows none of its own"
UNEQUAL: Mapping[Recording, Mapping[str, tuple[int, ...]]] = {
    OLLAMA: {
        "LM Studio has no image generation": (576, 621),
        NO_TEMPLATES: (580,),
        "LM Studio gives no logprobs of thoughts": (579,),
        "an alias has no layers": (640,),
        "there are no manifests on this disk": (655,),
        "the AI SDK wants a prompt_eval_count, also for a text without words": (591,),
        "LM Studio downloads from no registry of Ollama's": (656, 657),
        "recorded with an older Go: it redirected with a 301, later ones with the other recording's 307": (41,),
        TOLD_WHY: (43,),
    },
    VARIATIONS: {
        TOLD_WHY: (598, 618, 620),
        "the recorded runner gave no logprobs": (94,),
        "LM Studio embeds with embedding models only": (698,),
        "a name that could never be used, since models of the cloud are not looked up here, is refused": (706,),
    },
}
REASONS = {
    (recording, n): reason for recording, of in UNEQUAL.items() for reason, numbers in of.items() for n in numbers
}
# How much of what is compared must be equal.
EQUAL_SHARE = {OLLAMA: 0.96, VARIATIONS: 0.97}


def reason_of(case: Case) -> str:
    """Say why a case cannot be equal; empty for one that must be."""
    passed_on = any(route.path == case.path and case.method in route.allow for route in routes.COMPATIBLE)
    return PASSED_ON if passed_on else REASONS.get((case.recording, case.n), "")


Outcomes = Mapping[Case, Outcome]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    """Every case, replayed in the order of its recording: later ones build upon earlier ones."""
    done: dict[Case, Outcome] = {}
    for recording in CASES:
        runner = Runner(recording)
        with (
            SimThread(models=list(MODELS), generator=runner) as sim,
            Proxy(sim.url, state_dir=tmp_path_factory.mktemp("state")) as proxy,
            Tap(proxy.port) as tap,
        ):
            proxy.wait_for_log(r"\(\d+ models\)")
            _prepare(sim, proxy, recording)
            done |= dict(_replayed(recording, runner, proxy, tap))
    return done


def _prepare(sim: Sim, proxy: Proxy, recording: Recording) -> None:
    _create(proxy, recording.plain)
    for text, status, body in (("ERR", 400, '{"error":"embed boom"}'), ("STATUS", 503, '{"error":"busy"}')):
        sim.fault(path="/v1/embeddings", match=text, pre_error=(status, "application/json", body))


def _create(proxy: Proxy, body: Mapping[str, object]) -> None:
    with proxy.client() as client:
        client.post("/api/create", json=body).raise_for_status()


def _replayed(recording: Recording, runner: Runner, proxy: Proxy, tap: Tap) -> Iterator[tuple[Case, Outcome]]:
    for case in CASES[recording]:
        if case.missing is not None:
            _create(proxy, case.missing)
        runner.path = case.path
        yield case, compare(case, send(case, tap.port))


@pytest.mark.parametrize("case", [case for case in ALL if not reason_of(case)], ids=str)
def test_is_answered_as_ollama_does(case: Case, outcomes: Outcomes) -> None:
    assert outcomes[case].differences == []


@pytest.mark.parametrize("case", [case for case in ALL if reason_of(case)], ids=str)
def test_what_cannot_be_equal_is_answered(case: Case, outcomes: Outcomes) -> None:
    outcome = outcomes[case]
    assert outcome.answer.status != 502
    assert outcome.answer.body
    if reason_of(case) != PASSED_ON:
        assert outcome.differences, "this is equal by now: take it from the list"


@pytest.mark.parametrize("recording", CASES, ids=lambda recording: recording.file)
def test_summary(recording: Recording, outcomes: Outcomes, capsys: pytest.CaptureFixture[str]) -> None:
    cases = CASES[recording]
    compared = [case for case in cases if reason_of(case) != PASSED_ON]
    equal = [case for case in compared if not outcomes[case].differences]
    reasons = Counter(reason_of(case) for case in cases if outcomes[case].differences)
    with capsys.disabled():
        print(f"\n{recording.file}: {len(equal)} of {len(compared)} exchanges are answered as Ollama does; not:")
        for reason, count in reasons.most_common():
            print(f"{count:4} {reason}")
    assert {n for of, n in REASONS if of is recording} <= {case.n for case in cases}
    assert "" not in reasons
    assert len(equal) >= EQUAL_SHARE[recording] * len(compared)
