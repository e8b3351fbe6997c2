from __future__ import annotations

from typing import Any

import pytest

from ollama_lmstudio.sim.models import SimModel, Version, embedder
from ollama_lmstudio.sim.state import Instance, SimDownload, SimState
from ollama_lmstudio.sim.wire import ApiError

from .conftest import Clock

CHAT_A, CHAT_B = SimModel("pub/Model-A", variants=("pub/model-a@q4_k_m", "pub/model-a@q8_0")), SimModel("model-b")
EMBED = embedder("text-embedding-e")


def make(clock: Clock, *, loaded: str = "", version: str = "0.4.25", **settings: Any) -> SimState:
    state = SimState([CHAT_A, CHAT_B, EMBED], version=Version(version), clock=clock, **settings)
    for key in loaded.split():
        state.add(state.models[key])
    return state


def refused(state: SimState, name: object, kind: Any = "llm") -> ApiError:
    with pytest.raises(ApiError) as caught:
        state.resolve(name, kind)
    return caught.value


# Who answers to a name


@pytest.mark.parametrize("name", ["pub/Model-A", "PUB/MODEL-A", "pub/model-a@Q4_K_M", "pub/model-a@q8_0", None])
def test_names_of_what_is_loaded(clock: Clock, name: str | None) -> None:
    state = make(clock, loaded="pub/Model-A text-embedding-e")
    assert state.resolve(name, "llm") is state.instances[0]


def test_a_key_means_its_first_instance_and_an_id_the_one_that_has_it(clock: Clock) -> None:
    state = make(clock, loaded="model-b model-b model-b")
    assert [instance.id for instance in state.instances] == ["model-b", "model-b:2", "model-b:3"]
    assert state.resolve("model-b", "llm") is state.instances[0]
    assert state.resolve("model-b:3", "llm") is state.instances[2]
    state.add(CHAT_A)
    assert refused(state, "MODEL-B:3").status == 400, "ids of instances are case-sensitive"


def test_a_freed_id_is_used_again(clock: Clock) -> None:
    state = make(clock, loaded="model-b model-b")
    state.remove(state.instances[0])
    assert state.resolve("model-b", "llm") is state.instances[0], "the key still finds model-b:2"
    assert state.add(CHAT_B).id == "model-b"


def test_an_alias_is_the_id_of_an_instance(clock: Clock) -> None:
    state = make(clock)
    instance = state.add(CHAT_B, instance_id="my-alias")
    assert state.resolve("my-alias", "llm") is instance
    assert state.resolve("model-b", "llm") is instance


def test_what_is_not_loaded_is_to_be_loaded(clock: Clock) -> None:
    state = make(clock, loaded="pub/Model-A")
    assert state.resolve("model-b", "llm") is CHAT_B
    assert state.resolve("model-b@q4_k_m", "llm") is CHAT_B
    assert state.resolve("text-embedding-e", "embedding") is EMBED


def test_the_only_model_loaded_answers_to_any_name(clock: Clock) -> None:
    state = make(clock, loaded="pub/Model-A text-embedding-e")
    for name in ("nobody", "pub/model-a:latest", "gpt-4"):
        assert state.resolve(name, "llm") is state.instances[0]
    assert state.resolve("bogus-model-xyz", "embedding") is state.instances[1]


UNKNOWN = (
    'Invalid model identifier "nobody". Please specify a valid downloaded model '
    "(e.g., pub/model-a@q4_k_m, pub/model-a@q8_0, pub/Model-A)."
)


@pytest.mark.parametrize("loaded", ["", "pub/Model-A model-b", "pub/Model-A pub/Model-A"])
def test_unknown_names_are_refused_unless_one_model_is_loaded(clock: Clock, loaded: str) -> None:
    problem = refused(make(clock, loaded=loaded), "nobody")
    error = {"message": UNKNOWN, "type": "invalid_request_error", "param": "model", "code": "model_not_found"}
    assert (problem.status, problem.body) == (400, {"error": error})


def test_an_empty_name_is_refused(clock: Clock) -> None:
    problem = refused(make(clock, loaded="model-b"), "")
    assert problem.body["error"]["message"].startswith('Invalid model identifier "". Please specify')


def test_nothing_loaded_and_no_loads_on_demand(clock: Clock) -> None:
    state = make(clock, jit=False)
    for name in ("model-b", "nobody", None):
        error = refused(state, name).body["error"]
        assert error["message"] == (
            "No models loaded. Please load a model in the developer page or use the 'lms load' command."
        )
        assert error["code"] is None
    assert refused(make(clock), None).body["error"]["code"] is None, "no name is no reason to load"


def test_without_loads_on_demand_what_is_not_loaded_is_unknown(clock: Clock) -> None:
    state = make(clock, loaded="pub/Model-A", jit=False)
    assert refused(state, "model-b").body["error"]["code"] == "model_not_found"


def test_models_of_the_other_type_are_refused(clock: Clock) -> None:
    state = make(clock, loaded="pub/Model-A text-embedding-e")
    assert refused(state, "text-embedding-e").body["error"]["code"] == "model_not_found"
    problem = refused(state, "pub/Model-A", "embedding")
    assert problem.body["error"]["message"] == 'Failed to load model "pub/Model-A". Error: Model is not embedding.'


def test_0_3_5_has_other_texts_and_404(clock: Clock) -> None:
    problem = refused(make(clock, jit=False, version="0.3.5"), "model-b")
    assert problem.status == 404
    assert "the `lms load` command" in problem.body["error"]["message"]


# Time


def test_models_loaded_on_demand_live_an_hour_after_their_last_use(clock: Clock) -> None:
    state = make(clock)
    instance = state.add(CHAT_B, jit=True)
    clock.now = 3000
    assert instance.remaining_ttl(clock.now) == 600
    state.touch(instance)
    clock.now = 6599
    assert state.loaded() == [instance]
    clock.now = 6600
    assert state.loaded() == []
    assert state.resolve("model-b", "llm") is CHAT_B


def test_ttl_of_the_load_counts(clock: Clock) -> None:
    state = make(clock, default_ttl=100)
    short, default = state.add(CHAT_A, jit=True, ttl=10), state.add(CHAT_B, jit=True)
    assert (short.ttl, default.ttl) == (10, 100)
    clock.now = 10
    assert state.loaded() == [default]


def test_what_is_busy_or_loaded_explicitly_does_not_expire(clock: Clock) -> None:
    state = make(clock, loaded="pub/Model-A")
    busy = state.add(CHAT_B, jit=True, ttl=1)
    busy.busy = 1
    clock.now = 1e9
    assert len(state.loaded()) == 2
    busy.busy = 0
    assert [instance.model for instance in state.loaded()] == [CHAT_A]


def test_loads_on_demand_evict_only_each_other(clock: Clock) -> None:
    state = make(clock, loaded="pub/Model-A")
    on_demand = state.add(EMBED, jit=True)
    assert state.evicted_by(CHAT_B) == [on_demand]
    assert state.evicted_by(EMBED) == []
    state.auto_evict = False
    assert state.evicted_by(CHAT_B) == []


def test_context_lengths(clock: Clock) -> None:
    state = make(clock)
    model = SimModel("m", max_context_length=8192, default_context_length=4096)
    assert state.add(model).context_length == 4096
    assert state.add(model, context_length=1_000_000).context_length == 1_000_000, "neither clamped nor refused"
    guarded = SimModel("g", granted_context_length=4864)
    assert state.add(guarded, context_length=16384).context_length == 4864
    assert state.add(SimModel("x", max_context_length=99)).context_length == 99


# Loads


@pytest.mark.parametrize(
    ("outcome", "text"),
    [("ok", None), ("guardrail", "approximately 2.42 GB"), ("crash", "exitCode=1"), ("abort", "startup was aborted")],
)
def test_how_loads_end(clock: Clock, outcome: Any, text: str | None) -> None:
    loading = make(clock).begin_load(SimModel("m", load_outcome=outcome))
    assert (loading.problem is None) if text is None else (text in (loading.problem or ""))


def test_loads_at_the_same_time_can_abort_each_other(clock: Clock) -> None:
    state = make(clock, abort_concurrent_loads=True)
    first, second = state.begin_load(CHAT_A), state.begin_load(CHAT_B)
    assert first.problem == second.problem == "Engine protocol startup was aborted"
    state.end_load(first)
    state.end_load(second)
    one, other = state.begin_load(CHAT_A), state.begin_load(CHAT_A)
    assert (one.problem, other.problem) == (None, None), "the same model does not"


# Downloads

PLAN = SimDownload("ibm/granite-4-micro", total_size_bytes=1000, seconds=10)


def downloading(clock: Clock, plan: SimDownload) -> tuple[SimState, str]:
    state = make(clock, downloads=[plan])
    started = state.start_download(plan.model)
    assert started["status"] == "downloading"
    assert started["total_size_bytes"] == 1000
    return state, started["job_id"]


def test_a_download_from_start_to_end(clock: Clock) -> None:
    state, job = downloading(clock, PLAN)
    clock.now = 2.5
    assert state.download_status(job) == {
        "job_id": job,
        "status": "downloading",
        "bytes_per_second": 100.0,
        "estimated_completion": "2026-09-19T12:00:10.000Z",
        "total_size_bytes": 1000,
        "downloaded_bytes": 250,
        "started_at": "2026-09-19T12:00:00.000Z",
    }
    assert state.find(PLAN.model) is None
    clock.now = 10
    assert state.download_status(job) == {
        "job_id": job,
        "status": "completed",
        "completed_at": "2026-09-19T12:00:10.000Z",
        "total_size_bytes": 1000,
        "downloaded_bytes": 1000,
        "started_at": "2026-09-19T12:00:00.000Z",
    }
    assert state.find(PLAN.model) is not None
    assert state.start_download(PLAN.model) == {"status": "already_downloaded"}


def test_job_ids_are_ten_hex_digits_and_differ(clock: Clock) -> None:
    state = make(clock, downloads=[PLAN])
    ids = {state.start_download(PLAN.model)["job_id"] for _ in range(20)}
    assert len(ids) == 20
    assert all(len(job) == 14 and int(job.removeprefix("job_"), 16) >= 0 for job in ids)


def test_a_download_that_fails(clock: Clock) -> None:
    state, job = downloading(clock, SimDownload("m", 1000, 10, "failed", "disk full"))
    clock.now = 11
    status = state.download_status(job)
    assert (status["status"], status["error_message"]) == ("failed", "disk full")
    assert state.find("m") is None


def test_a_download_that_is_stuck(clock: Clock) -> None:
    state, job = downloading(clock, SimDownload("m", 1000, 10, "stuck"))
    clock.now = 1e6
    status = state.download_status(job)
    assert (status["status"], status["downloaded_bytes"], status["bytes_per_second"]) == ("downloading", 0, 0)


def test_a_download_that_is_paused_for_a_while(clock: Clock) -> None:
    state, job = downloading(clock, SimDownload("m", 1000, 10, paused_at=0.5, paused_seconds=5))
    seen = []
    for clock.now in (4, 5, 9, 10, 12, 15):
        status = state.download_status(job)
        seen.append((status["status"], status["downloaded_bytes"]))
    assert seen == [
        ("downloading", 400),
        ("paused", 500),
        ("paused", 500),
        ("downloading", 500),
        ("downloading", 700),
        ("completed", 1000),
    ]


def test_unknown_downloads_and_jobs(clock: Clock) -> None:
    state = make(clock)
    with pytest.raises(ApiError) as caught:
        state.start_download("nobody/nothing")
    assert (caught.value.status, caught.value.body["error"]["code"]) == (404, "model_not_found")
    with pytest.raises(ApiError) as caught:
        state.download_status("job_0")
    assert caught.value.status == 404
    assert caught.value.body == {
        "error": {"type": "job_not_found", "message": "Download job with id 'job_0' not found"}
    }


def test_instances_differ_even_if_alike() -> None:
    assert Instance("a", CHAT_A, 1) != Instance("a", CHAT_A, 1)
