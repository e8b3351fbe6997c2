"""What the strictest clients take, one model for each answer of Ollama's endpoints.

Each rule is one on which a real client breaks, or one that Ollama itself keeps; together they are more than any client
needs. Where Ollama breaks clients itself, as with dates of few digits, these are stricter than Ollama.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

# The oldest version that Codex takes; others take older ones.
LEAST_VERSION = (0, 13, 4)


# Values


def _time(text: str) -> str:
    datetime.fromisoformat(text)
    return text


def _version(text: str) -> str:
    if tuple(map(int, text.split("."))) < LEAST_VERSION:
        raise ValueError("too old for Codex")
    return text


def _different(items: list[Any]) -> list[Any]:
    if len(set(items)) != len(items):
        raise ValueError("the same twice")
    return items


Text = Annotated[str, StringConstraints(min_length=1)]
Positive = Annotated[int, Field(ge=1)]
Size = Annotated[int, Field(ge=0, lt=2**63)]
# At least six digits of a second: langchain4j drops fewer, Swift and .NET want some.
_TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6,9}"
Now = Annotated[str, StringConstraints(pattern=rf"^{_TIME}Z$"), AfterValidator(_time)]
Time = Annotated[str, StringConstraints(pattern=rf"^{_TIME}(Z|[+-]\d\d:\d\d)$"), AfterValidator(_time)]
Hexadecimal = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Digest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
Vector = Annotated[list[float], Field(min_length=1)]
# JetBrains' Koog knows no other words but the last two, which only models have that are for nothing else.
Capability = Literal["completion", "tools", "insert", "vision", "embedding", "thinking", "audio", "decision", "speech"]
Capabilities = Annotated[list[Capability], Field(min_length=1), AfterValidator(_different)]


class Strict(BaseModel):
    """An object with a closed set of keys in Ollama's order; a key without a value is left out, never null or empty."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _in_order(cls, value: Any) -> Any:
        known = [info.alias or name for name, info in cls.model_fields.items()]
        given = [key for key in value if key in known] if isinstance(value, dict) else []
        if given != [key for key in known if key in given]:
            raise ValueError(f"the order of keys is not Ollama's: {given}")
        return value


# Answers


class Error(Strict):
    """An error, alone or as the last line."""

    error: Text


class Function(Strict):
    index: Size
    name: Text
    arguments: dict[str, Any]


class ToolCall(Strict):
    """A call; Zed wants an id, and `arguments` that are text are dropped or refused everywhere."""

    id: Text
    function: Function


Calls = Annotated[list[ToolCall], Field(min_length=1)]


class Message(Strict):
    role: Literal["assistant"]
    content: str
    thinking: Text = ""
    tool_calls: Calls = []


class Token(Strict):
    token: str
    logprob: Annotated[float, Field(le=0)]
    bytes: Annotated[list[Annotated[int, Field(ge=0, le=255)]], Field(min_length=1)] = []


class Logprob(Token):
    top_logprobs: list[Token] = []


Logprobs = Annotated[list[Logprob], Field(min_length=1)]


class EmptyMessage(Strict):
    role: Literal["assistant"]
    content: Literal[""]


class ChatLine(Strict):
    """A line that is not the last: text, thoughts or one call, as Zed and Continue look at one of them only."""

    model: Text
    created_at: Now
    message: Message
    done: Literal[False]
    logprobs: Logprobs = []

    @model_validator(mode="after")
    def _one_thing(self) -> Self:
        message = self.message
        if bool(message.content) + bool(message.thinking) + len(message.tool_calls) > 1:
            raise ValueError("more than one thing in a line")
        return self


class ChatAnswer(Strict):
    """A whole answer. Counts are missing only where LM Studio tells none."""

    model: Text
    created_at: Now
    message: Message
    done: Literal[True]
    done_reason: Literal["stop", "length"]
    logprobs: Logprobs = []
    total_duration: Positive
    load_duration: Positive
    prompt_eval_count: Positive = 0
    prompt_eval_cached_count: Size = 0
    prompt_eval_duration: Positive
    eval_count: Positive = 0
    eval_duration: Positive


class ChatLast(ChatAnswer):
    """The last line: the AI SDK and AnythingLLM drop what it says."""

    message: EmptyMessage  # type: ignore[assignment]


class ChatLoaded(Strict):
    model: Text
    created_at: Now
    message: EmptyMessage
    done: Literal[True]
    done_reason: Literal["load", "unload"]


class GenerateLine(Strict):
    model: Text
    created_at: Now
    response: str
    thinking: Text = ""
    done: Literal[False]
    tool_calls: Calls = []
    logprobs: Logprobs = []

    @model_validator(mode="after")
    def _one_thing(self) -> Self:
        if bool(self.response) + bool(self.thinking) + len(self.tool_calls) > 1:
            raise ValueError("more than one thing in a line")
        return self


class GenerateAnswer(Strict):
    model: Text
    created_at: Now
    response: str
    thinking: Text = ""
    done: Literal[True]
    done_reason: Literal["stop", "length"]
    context: Annotated[list[Size], Field(min_length=1)] = []
    total_duration: Positive
    load_duration: Positive
    prompt_eval_count: Positive = 0
    prompt_eval_cached_count: Size = 0
    prompt_eval_duration: Positive
    eval_count: Positive = 0
    eval_duration: Positive
    tool_calls: Calls = []
    logprobs: Logprobs = []


class GenerateLast(GenerateAnswer):
    """The last line, which says nothing either."""

    response: Literal[""]
    thinking: Annotated[str, Field(max_length=0)] = ""


class GenerateLoaded(Strict):
    model: Text
    created_at: Now
    response: Literal[""]
    done: Literal[True]
    done_reason: Literal["load", "unload"]


class Embedded(Strict):
    """Vectors; the AI SDK wants all of the measurements."""

    model: Text
    embeddings: Annotated[list[Vector], Field(min_length=1)]
    total_duration: Positive
    load_duration: Positive
    prompt_eval_count: Positive


class NothingEmbedded(Strict):
    model: Text
    embeddings: Annotated[list[Vector], Field(max_length=0)]


class Embedding(Strict):
    embedding: list[float]


class Details(Strict):
    """What a model is; of one null among these Zed shows no model at all."""

    parent_model: str
    format: Text
    family: Text
    families: Annotated[list[Text], Field(min_length=1)]
    parameter_size: Text
    quantization_level: Text


class TagDetails(Details):
    context_length: Positive = 0
    embedding_length: Positive = 0


class Named(Strict):
    """An entry of a list, which has its name twice."""

    name: Text
    model: Text

    @model_validator(mode="after")
    def _same_name(self) -> Self:
        if self.name != self.model:
            raise ValueError("two names")
        return self


class Tag(Named):
    modified_at: Time
    size: Size
    digest: Hexadecimal
    details: TagDetails
    capabilities: Capabilities


class Running(Named):
    size: Size
    digest: Hexadecimal
    details: Details
    expires_at: Time
    size_vram: Size
    context_length: Size


class Tags(Strict):
    models: list[Tag]

    @model_validator(mode="after")
    def _all_different(self) -> Self:
        _different([tag.name for tag in self.models])
        return self


class RunningList(Strict):
    models: list[Running]


class SavedFunction(Strict):
    index: Size
    name: str
    arguments: dict[str, Any]


class SavedCall(Strict):
    id: str
    function: SavedFunction


class SavedMessage(Strict):
    """A message that an alias puts before a conversation, as it was given."""

    role: str
    content: str
    thinking: Text = ""
    images: list[Text] = []
    tool_calls: list[SavedCall] = []
    tool_name: Text = ""
    tool_call_id: Text = ""


def _info(info: dict[str, Any]) -> dict[str, Any]:
    """Check the facts: Smart Connections, LlamaIndex and Roo take the first `context_length`, and must find one."""
    if list(info) != sorted(info):
        raise ValueError("not sorted")
    if any(value is None or isinstance(value, dict) for value in info.values()):
        raise ValueError("a null or an object")
    architecture = info.get("general.architecture")
    if not isinstance(architecture, str) or not isinstance(info.get("general.basename"), str):
        raise ValueError("no architecture or no name")
    lengths = [key for key in info if "context_length" in key]
    if lengths not in ([], [f"{architecture}.context_length"]):
        raise ValueError(f"not the one context_length: {lengths}")
    for key in (*lengths, f"{architecture}.embedding_length", "general.parameter_count"):
        if key in info and (type(info[key]) is not int or info[key] < 1):
            raise ValueError(f"{key} is no count")
    return info


class ThinkingChoices(Strict):
    """What `think` can be; what is not listed is the default."""

    values: Annotated[list[bool | Text], Field(min_length=1), AfterValidator(_different)]
    default: bool | Text

    @model_validator(mode="after")
    def _default_is_listed(self) -> Self:
        if self.default not in self.values:
            raise ValueError("a default that is no value")
        return self


class Shown(Strict):
    """What is known of a model; the texts are there even where they are empty, for Swift and Rust."""

    license: str
    modelfile: Text
    parameters: str
    template: Text
    system: Text = ""
    renderer: Text = ""
    parser: Text = ""
    details: Details
    messages: Annotated[list[SavedMessage], Field(min_length=1)] = []
    info: Annotated[dict[str, Any], AfterValidator(_info), Field(alias="model_info")]
    capabilities: Capabilities
    thinking: ThinkingChoices | None = None
    modified_at: Time
    requires: Text = ""

    @model_validator(mode="after")
    def _template_tells(self) -> Self:
        """LiteLLM looks for tools in the template, Continue for a suffix."""
        for word, capability in ((".Tools", "tools"), (".Suffix", "insert")):
            if word in self.template and capability not in self.capabilities and not self.license:
                raise ValueError(f"{word}, but no {capability}")
        return self


class Progress(Strict):
    status: Text
    digest: Digest = ""
    total: Positive = 0
    completed: Positive = 0


class Decided(Strict):
    """The answers of a decision model, each as LM Studio gives it."""

    model: Text
    answers: dict[str, dict[str, Any]]
    usage: dict[str, int]


class Version(Strict):
    version: Annotated[str, StringConstraints(pattern=r"^\d+\.\d+\.\d+$"), AfterValidator(_version)]


class Cloud(Strict):
    disabled: bool
    source: Literal["none", "env", "config", "both"]


class Status(Strict):
    cloud: Cloud


class Recommendations(Strict):
    recommendations: Annotated[list[Any], Field(max_length=0)]


class OpenAIProblem(Strict):
    message: Text
    type: Text
    param: str | None
    code: str | None


class OpenAIError(Strict):
    error: OpenAIProblem


class AnthropicProblem(Strict):
    type: Text
    message: Text


class AnthropicError(Strict):
    type: Literal["error"]
    error: AnthropicProblem
    request_id: Text


class AnyError(Strict):
    """An error of which nobody knows whose API it belongs to."""

    error: Text | OpenAIProblem


class AnyList(Strict):
    """A list of models of either kind."""

    models: list[Tag] | list[Running]


class OpenAIVector(Strict):
    object: Literal["embedding"]
    embedding: list[float] | Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]*={0,2}$")]
    index: Size


class OpenAIEmbeddings(Strict):
    """LM Studio's answer, with other vectors."""

    object: Literal["list"]
    data: list[OpenAIVector]
    model: Text
    usage: dict[str, Size]


class OpenAIModel(Strict):
    id: Text
    object: Literal["model"]
    created: Size
    owned_by: Text


# Endpoints


@dataclass(frozen=True)
class Endpoint:
    """What an endpoint answers: one object, lines, or nothing."""

    whole: type[Strict] | None = None
    line: type[Strict] | None = None
    last: type[Strict] | None = None
    loaded: type[Strict] | None = None
    text: str = ""


_PROGRESS = Endpoint(Progress, Progress, Progress)
ENDPOINTS: Mapping[str, Endpoint] = {
    "/": Endpoint(text="Ollama is running"),
    "/api/version": Endpoint(Version),
    "/api/status": Endpoint(Status),
    "/api/tags": Endpoint(Tags),
    "/api/ps": Endpoint(RunningList),
    "/api/show": Endpoint(Shown),
    "/api/chat": Endpoint(ChatAnswer, ChatLine, ChatLast, ChatLoaded),
    "/api/generate": Endpoint(GenerateAnswer, GenerateLine, GenerateLast, GenerateLoaded),
    "/api/embed": Endpoint(Embedded, loaded=NothingEmbedded),
    "/api/embeddings": Endpoint(Embedding),
    "/v1/systemone": Endpoint(Decided),
    "/api/create": _PROGRESS,
    "/api/pull": _PROGRESS,
    "/api/push": _PROGRESS,
    "/api/copy": Endpoint(),
    "/api/delete": Endpoint(),
    "/api/experimental/model-recommendations": Endpoint(Recommendations),
}
