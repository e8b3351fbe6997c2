"""What LM Studio knows: models, loaded instances, downloads. No I/O, no clock but the one it is handed."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Literal

from .models import SimModel, Version
from .wire import ApiError, JsonObject, native_error, openai_error

HUGGING_FACE = "https://huggingface.co/"
PARALLEL = 4
DEFAULT_TTL = 3600.0
# "The clock says 0" is this moment, for the dates that downloads have.
EPOCH = datetime(2026, 9, 19, 12, 0, 0, tzinfo=UTC)

GUARDRAIL = (
    "Model loading was stopped due to insufficient system resources. Under the current settings, this model "
    "requires approximately {gigabytes:.2f} GB of memory, and continuing to load it would likely overload your "
    "system and cause it to freeze. If you think this is incorrect, you can adjust the model loading "
    "guardrails in settings."
)
OLD_GUARDRAIL = (
    "Model loading aborted due to insufficient system resources. Overloading the system will likely cause it "
    "to freeze. If you believe this is a mistake, you can try to change the model loading guardrails in the settings."
)
CRASH = "Engine protocol runtime llama-server for {key} exited before becoming healthy. exitCode=1, signal=null"
ABORT = "Engine protocol startup was aborted"
# What LM Studio shows when a device of LM Link goes (its issue 2184). What its server answers then is not known.
LINK_LOST = "LM Link connection entered error state: peer_keepalive_timeout"
NO_MODELS = "No models loaded. Please load a model in the developer page or use the 'lms load' command."
OLD_NO_MODELS = "No models loaded. Please load a model in the developer page or use the `lms load` command."


@dataclass(eq=False)
class Instance:
    """One loaded model. `ttl` is in seconds and only instances loaded on demand (`jit`) have one."""

    id: str
    model: SimModel
    context_length: int
    jit: bool = False
    ttl: float | None = None
    last_used: float = 0.0
    busy: int = 0
    wedged: bool = False
    parallel: int = PARALLEL
    config: JsonObject = field(default_factory=dict)

    def remaining_ttl(self, now: float) -> float | None:
        """Return the seconds of idleness left, or None without a TTL."""
        return None if self.ttl is None else self.ttl - (now - self.last_used)


@dataclass(eq=False)
class Loading:
    """A load under way. `problem` is why it will fail, if it will; one that is `aborted` fails at once."""

    model: SimModel
    problem: str | None = None
    aborted: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(frozen=True)
class SimDownload:
    """A model that can be downloaded, and how that goes: evenly over `seconds`, then `outcome`.

    `stuck` stays at 0 % for ever. `paused_at` is a fraction at which it halts for `paused_seconds`. A repository that
    is not `compatible` has no files that LM Studio can run.
    """

    model: str
    total_size_bytes: int = 2_279_145_003
    seconds: float = 0.0
    outcome: Literal["completed", "failed", "stuck"] = "completed"
    error_message: str = "Download failed: connect ETIMEDOUT"
    paused_at: float | None = None
    paused_seconds: float = 0.0
    compatible: bool = True


@dataclass
class Job:
    """A download under way, and the model that it will be."""

    id: str
    plan: SimDownload
    started: float
    downloaded: SimModel


class SimState:
    """Models, instances and downloads, and the rules of who answers to a name.

    Linked devices have models of their own, perhaps with the same keys, which are listed and used as if they were here.
    A device names its instances itself, so that two can have the same id. Its models are loaded without a time to live,
    and neither evicted nor evicting (LM Studio's issue 2051). A device that is not connected keeps its instances.
    """

    def __init__(
        self,
        models: Iterable[SimModel],
        *,
        version: Version,
        clock: Callable[[], float],
        downloads: Iterable[SimDownload] = (),
        jit: bool = True,
        auto_evict: bool = True,
        default_ttl: float = DEFAULT_TTL,
        abort_concurrent_loads: bool = False,
        preferred_device: str | None = None,
        lists_each_device: bool = True,
    ) -> None:
        models = list(models)
        self.models: dict[str, SimModel] = {model.key: model for model in models if not model.device}
        self.linked = [model for model in models if model.device]
        self.disconnected: dict[str, bool] = {}
        """The devices that are gone, and whether their models are still listed."""
        self.preferred_device = preferred_device
        """Which device a key is for that several have; None for none, and an empty name for this machine."""
        self.lists_each_device = lists_each_device
        """Whether a key that several devices have is listed for each of them; else once, as LM Studio's SDK does."""
        self.version = version
        self.clock = clock
        self.downloads = {download.model: download for download in downloads}
        self.jit = jit
        self.auto_evict = auto_evict
        self.default_ttl = default_ttl
        self.abort_concurrent_loads = abort_concurrent_loads
        self.memory: int | None = None
        """How many bytes the loaded models may have together, in the eyes of the guardrails; None for any."""
        self.instances: list[Instance] = []
        self.loading: list[Loading] = []
        self.jobs: dict[str, Job] = {}
        self._random = random.Random(0)
        self._started = clock()
        for model in models:
            if model.loaded:
                self.add(model)

    def on_disk(self) -> list[SimModel]:
        """Return the downloaded models: those of this machine, then those of the linked devices."""
        linked = [model for model in self.linked if self.disconnected.get(model.device, True)]
        return [*self.models.values(), *linked]

    def listed(self) -> list[SimModel]:
        """Return the models that the lists show."""
        models = self.on_disk()
        return models if self.lists_each_device else [model for model in models if self.find(model.key) is model]

    # Instances

    def expire(self) -> list[Instance]:
        """Drop the instances whose idle time is over, and return them."""
        now = self.clock()
        gone = [
            instance
            for instance in self.instances
            if not instance.busy and (left := instance.remaining_ttl(now)) is not None and left <= 0
        ]
        for instance in gone:
            self.instances.remove(instance)
        return gone

    def loaded(self, kind: Literal["llm", "embedding", "decision"] | None = None) -> list[Instance]:
        """Return the loaded instances, of one type if asked, in the order they were loaded."""
        self.expire()
        return [
            instance
            for instance in self.instances
            if kind in (None, instance.model.type) and instance.model.device not in self.disconnected
        ]

    def instances_of(self, model: SimModel) -> list[Instance]:
        """Return the loaded instances of a model, on its device."""
        return [instance for instance in self.loaded() if _place(instance.model) == _place(model)]

    def instance(self, instance_id: str) -> Instance | None:
        """Find an instance by its id, exactly; of several, that of the preferred device, else of this machine."""
        found = [instance for instance in self.loaded() if instance.id == instance_id]
        return min(found, key=lambda i: (self._is_elsewhere(i.model), bool(i.model.device)), default=None)

    def find(self, name: str) -> SimModel | None:
        """Find a downloaded model by its key or one of its variants, in any case of letters.

        Of several it is that of the preferred device, else one that is loaded, else the first.
        """
        folded = name.lower()
        found = [model for model in self.on_disk() if folded in model.names]
        return min(found, key=lambda m: (self._is_elsewhere(m), not self.instances_of(m)), default=None)

    def prefers(self, model: SimModel | None, instance: Instance) -> bool:
        """Return whether the preferred device has this model, and the instance of the same name is on another."""
        return model is not None and self._is_elsewhere(instance.model) and not self._is_elsewhere(model)

    def _is_elsewhere(self, model: SimModel) -> bool:
        return self.preferred_device not in (None, model.device)

    def add(
        self,
        model: SimModel,
        *,
        jit: bool = False,
        ttl: float | None = None,
        context_length: int | None = None,
        instance_id: str | None = None,
        config: JsonObject | None = None,
    ) -> Instance:
        """Load a model at once. A second instance of a key is called `key:2`, and so on."""
        if model.device:
            jit, ttl = False, None
        taken = {instance.id for instance in self.loaded() if instance.model.device == model.device}
        instance = Instance(
            id=instance_id or next(name for name in _instance_ids(model.key) if name not in taken),
            model=model,
            context_length=model.granted_context_length or context_length or model.context_length,
            jit=jit,
            ttl=(self.default_ttl if ttl is None else ttl) if jit else ttl,
            last_used=self.clock(),
            config=config or {},
        )
        self.instances.append(instance)
        return instance

    def remove(self, instance: Instance) -> None:
        """Unload an instance, if it is still loaded."""
        if instance in self.instances:
            self.instances.remove(instance)

    def touch(self, instance: Instance) -> None:
        """Start the idle time of an instance again."""
        instance.last_used = self.clock()

    def evicted_by(self, model: SimModel) -> list[Instance]:
        """Return what a load on demand of `model` unloads first: whatever else was loaded on demand."""
        if not self.auto_evict or model.device:
            return []
        return [instance for instance in self.loaded() if instance.jit and instance.model.key != model.key]

    # Loads

    def begin_load(self, model: SimModel) -> Loading:
        """Begin a load; loads of two models at once can abort each other."""
        loading = Loading(model, self._load_problem(model))
        others = [o for o in self.loading if o.model.device == model.device and o.model.key != model.key]
        if self.abort_concurrent_loads and others:
            for aborted in (loading, *others):
                aborted.problem = ABORT
                aborted.aborted.set()
        self.loading.append(loading)
        if model.device in self.disconnected:
            self._lose(loading)
        return loading

    def end_load(self, loading: Loading) -> None:
        """End a load."""
        self.loading.remove(loading)

    def disconnect(self, device: str, *, listed: bool = False) -> list[Instance]:
        """Lose the connection to a device, whose loads fail; return its instances. With `listed`, nobody notices."""
        instances = [instance for instance in self.loaded() if instance.model.device == device]
        self.disconnected[device] = listed
        for loading in self.loading:
            if loading.model.device == device:
                self._lose(loading)
        return instances

    def connect(self, device: str) -> None:
        """Have a device back, with what it has loaded."""
        self.disconnected.pop(device, None)

    @staticmethod
    def _lose(loading: Loading) -> None:
        loading.problem = LINK_LOST
        loading.aborted.set()

    def _load_problem(self, model: SimModel) -> str | None:
        here = [instance.model for instance in self.loaded() if instance.model.device == model.device]
        size = sum(loaded.size_bytes for loaded in here) + model.size_bytes
        outcome = "guardrail" if self.memory is not None and size > self.memory else model.load_outcome
        match outcome:
            case "guardrail":
                text = GUARDRAIL if self.version.has("jit_error_400") else OLD_GUARDRAIL
                return text.format(gigabytes=model.size_bytes * 1.2 / 1e9)
            case "crash":
                return CRASH.format(key=model.key)
            case "abort":
                return ABORT
            case _:
                return None

    # Names

    def resolve(self, name: object, kind: Literal["llm", "embedding"]) -> Instance | SimModel:
        """Return who answers to a request's `model`: an instance, or a model that is to be loaded first.

        A name nobody knows is answered by the only model loaded, if there is exactly one. Raises ApiError.
        """
        loaded = self.loaded(kind)
        if name is None:
            if loaded:
                return loaded[0]
            raise self.no_models()
        if not isinstance(name, str) or not name:
            raise self.unknown(name if isinstance(name, str) else str(name))
        instance, model = self.instance(name), self.find(name)
        if instance and instance.model.type == kind and not self.prefers(model, instance):
            return instance
        if model and model.type != kind:
            raise (self.load_failure(name, "Model is not embedding.") if kind == "embedding" else self.unknown(name))
        if model:
            if instances := self.instances_of(model):
                return instances[0]
            if self.jit:
                return model
            raise self.unknown(name) if loaded else self.no_models()
        if len(loaded) == 1:
            return loaded[0]
        raise self.no_models() if not loaded and not self.jit else self.unknown(name)

    def unknown(self, name: str) -> ApiError:
        """Return the error for a name that no model has."""
        examples = [
            example for model in self.listed() if model.type == "llm" for example in (*model.variants, model.key)
        ]
        hint = f" (e.g., {', '.join(examples[:3])})" if examples else ""
        return openai_error(
            f'Invalid model identifier "{name}". Please specify a valid downloaded model{hint}.',
            status=self._model_error_status,
        )

    def no_models(self) -> ApiError:
        """Return the error for a request when nothing is loaded and nothing may be."""
        text = NO_MODELS if self.version.has("jit_error_400") else OLD_NO_MODELS
        return openai_error(text, code=None, status=self._model_error_status)

    def load_failure(self, name: str, reason: str) -> ApiError:
        """Return the error for a load on demand that failed."""
        return openai_error(f'Failed to load model "{name}". Error: {reason}', status=self._model_error_status)

    @property
    def _model_error_status(self) -> int:
        return 400 if self.version.has("jit_error_400") else 404

    # Downloads

    def start_download(self, name: str, quantization: str | None = None) -> JsonObject:
        """Begin a download and describe it, as the answer to the POST does. Raises ApiError."""
        plan = self.downloads.get(name)
        downloaded = self._downloaded_as(name, quantization, plan)
        if self.find(downloaded.key):
            return {"status": "already_downloaded"}
        if plan is None:
            raise native_error(f"Model {name} not found", code="model_not_found", status=404)
        if not plan.compatible:
            message = f"No compatible download options found for hugging face URL {name}"
            raise ApiError(404, {"error": {"type": "model_not_found", "message": message}})
        job = Job(f"job_{self._random.getrandbits(40):010x}", plan, self.clock(), downloaded)
        self.jobs[job.id] = job
        return {
            "job_id": job.id,
            "status": "downloading",
            "total_size_bytes": plan.total_size_bytes,
            "started_at": self._date(job.started),
        }

    def _downloaded_as(self, name: str, quantization: str | None, plan: SimDownload | None) -> SimModel:
        """Return the model that a download becomes: of a Hugging Face repository, its name without `-GGUF`.

        A second quantization of one repository has the quantization in its key.
        """
        size = plan.total_size_bytes if plan else 0
        if not name.startswith(HUGGING_FACE):
            return SimModel(name, size_bytes=size)
        publisher, _, repository = name.removeprefix(HUGGING_FACE).partition("/")
        key = repository.lower().removesuffix("-gguf")
        first = self.find(key)
        quantization = (quantization or (first and first.quantization) or "Q4_K_M").upper().removeprefix("UD-")
        if first and first.quantization != quantization:
            key = f"{key}@{quantization.lower()}"
        return SimModel(key, publisher=publisher, quantization=quantization, size_bytes=size)

    def download_status(self, job_id: str) -> JsonObject:
        """Describe a download as it stands by the clock. Raises ApiError for an unknown one."""
        job = self.jobs.get(job_id)
        if job is None:
            raise ApiError(
                404,
                {"error": {"type": "job_not_found", "message": f"Download job with id '{job_id}' not found"}},
            )
        plan, elapsed = job.plan, self.clock() - job.started
        fraction, paused = _progress(plan, elapsed)
        finished = fraction >= 1.0
        body: JsonObject = {
            "job_id": job.id,
            "status": "paused" if paused else plan.outcome if finished else "downloading",
        }
        if not finished and not paused:
            speed = 0.0 if plan.outcome == "stuck" else plan.total_size_bytes / plan.seconds
            body["bytes_per_second"] = speed
            if speed:
                body["estimated_completion"] = self._date(job.started + _duration(plan))
        if finished and plan.outcome == "completed":
            body["completed_at"] = self._date(job.started + _duration(plan))
            if not self.find(job.downloaded.key):
                self.models[job.downloaded.key] = job.downloaded
        body["total_size_bytes"] = plan.total_size_bytes
        body["downloaded_bytes"] = int(plan.total_size_bytes * fraction)
        body["started_at"] = self._date(job.started)
        if finished and plan.outcome == "failed":
            body["error_message"] = plan.error_message
        return body

    def _date(self, moment: float) -> str:
        date = EPOCH + timedelta(seconds=moment - self._started)
        return date.strftime("%Y-%m-%dT%H:%M:%S.") + f"{date.microsecond // 1000:03d}Z"


def _place(model: SimModel) -> tuple[str, str]:
    return model.device, model.key


def _instance_ids(key: str) -> Iterator[str]:
    yield key
    number = 2
    while True:
        yield f"{key}:{number}"
        number += 1


def _duration(plan: SimDownload) -> float:
    return plan.seconds + (plan.paused_seconds if plan.paused_at is not None else 0.0)


def _progress(plan: SimDownload, elapsed: float) -> tuple[float, bool]:
    """Return how much is downloaded, and whether it is halted."""
    if plan.outcome == "stuck":
        return 0.0, False
    if plan.paused_at is not None:
        halt = plan.seconds * plan.paused_at
        if halt <= elapsed < halt + plan.paused_seconds:
            return plan.paused_at, True
        if elapsed >= halt:
            elapsed -= plan.paused_seconds
    return (1.0 if elapsed >= plan.seconds else elapsed / plan.seconds), False
