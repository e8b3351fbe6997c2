"""The request bodies of Ollama's endpoints, with the fields and types of its `api` package.

`decode` refuses what Ollama's own decoding refuses: types, `keep_alive`, images, tool arguments. What Ollama
checks later, partly after it has looked up the model, is a `check_...` method or `options.check_options`.
"""

from __future__ import annotations

import binascii
import re
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Annotated, Any, Self, get_args, get_origin, get_type_hints

from ..threads import run_in_thread_if_large
from . import errors
from .decode import (
    ANYTHING,
    BOOL,
    INT,
    KEEP,
    OBJECT,
    STRING,
    UINT8,
    Custom,
    Decoding,
    Dictionary,
    GoType,
    Pairs,
    Pointer,
    Slice,
    Struct,
    decode,
    member_text,
    unmarshal,
)
from .durations import KeepAlive, parse_keep_alive

JSONObject = dict[str, Any]

# What a model can be said to be able to do.
CAPABILITIES = frozenset(
    ("completion", "tools", "insert", "vision", "embedding", "thinking", "image", "audio", "decision", "speech")
)

THINK_LEVELS = ("high", "medium", "low", "max")
"""The words of `think` that every model takes. Since 0.34 a model can have words of its own."""

_MAX_TOP_LOGPROBS = 20


# The types that decode themselves (Go's json.Unmarshaler), and `format`.


class _Content:
    """Decode the `content` of a message.

    The AI SDK sends `[]` with images, which Ollama refuses; here it is accepted as no text.
    """

    name = STRING.name
    zero = str

    def decode(self, value: Any, decoding: Decoding) -> Any:
        return "" if value == [] and not isinstance(value, Pairs) else STRING.decode(value, decoding)


class _Image:
    """Decode base64 (RFC 4648, section 4) or an array of bytes, as Go does for `[]byte`.

    The AI SDK sends an object of bytes, `{"0": 137, "1": 80}`, which Ollama refuses; here it is accepted.
    """

    name = "api.ImageData"
    zero = bytes
    _BYTES = Slice(UINT8, name)

    def decode(self, value: Any, decoding: Decoding) -> Any:
        if isinstance(value, Pairs) and value and all(key == str(at) for at, (key, _) in enumerate(value)):
            value = [item for _, item in value]
        if not isinstance(value, str):
            items = self._BYTES.decode(value, decoding)
            return items if items is KEEP else bytes(items)
        data = value.encode()
        try:
            return _decode_base64(data.replace(b"\r", b"").replace(b"\n", b""))
        except binascii.Error:
            decoding.save(errors.illegal_base64(str(_illegal_base64_at(data))))
            return KEEP


def _decode_base64(data: bytes) -> bytes:
    # `strict_mode` does not check the amount of padding.
    if len(data) % _BASE64_GROUP or data.endswith(b"==="):
        raise binascii.Error
    return binascii.a2b_base64(data, strict_mode=True)


def _illegal_base64_at(data: bytes) -> int:
    """Return the index in Go's `base64.CorruptInputError`, as its `decodeQuantum` finds it.

    Line breaks are skipped, but count for the index.
    """
    match = _BASE64.match(data)
    assert match is not None  # the pattern matches the empty string
    at = match.end()
    letters = at - data.count(b"\r", 0, at) - data.count(b"\n", 0, at)
    place = letters % _BASE64_GROUP
    if at == len(data):
        # The last group is incomplete: Go reports its beginning.
        return at - place
    if data[at : at + 1] != b"=" or place < _LETTERS_OF_A_BYTE:
        return at
    # Padding: it is wrong, or something follows it.
    rest = (letter.start() for letter in _NO_NEWLINE.finditer(data, at + 1))
    if place == _LETTERS_OF_A_BYTE:
        following = next(rest, None)
        if following is None:
            return len(data)
        if data[following : following + 1] != b"=":
            return following - 1
    return next(rest)


# Four letters are three bytes; one byte alone takes two letters and two paddings.
_BASE64_GROUP = 4
_LETTERS_OF_A_BYTE = 2
_BASE64 = re.compile(rb"[A-Za-z0-9+/\r\n]*")
_NO_NEWLINE = re.compile(rb"[^\r\n]")


def _think(value: Any) -> bool | str:
    if isinstance(value, bool):
        return value
    if not isinstance(value, str):
        raise errors.invalid_think_type()
    return value


def _arguments(value: Any) -> JSONObject:
    if value is not None and not isinstance(value, Pairs):
        raise errors.malformed_object()
    return unmarshal(ANYTHING, value) or {}


_KEEP_ALIVE = Pointer(Custom("api.Duration", lambda value: parse_keep_alive(unmarshal(ANYTHING, value)), lambda: None))
_THINK = Pointer(Custom("api.ThinkValue", _think, lambda: None))
_IMAGES = Slice(_Image())


class _Format:
    """Decode a `format` of any type; `check_format` refuses the wrong ones."""

    name = "json.RawMessage"

    def zero(self) -> None:
        return None

    def decode(self, value: Any, decoding: Decoding) -> Any:
        return None if value == "" else ANYTHING.decode(value, decoding)


_FORMAT = _Format()


# Messages.


@dataclass(frozen=True, slots=True)
class MessageToolCall:
    """Hold a tool call in a message; `arguments` keep their order."""

    id: str = ""
    index: int = 0
    name: str = ""
    arguments: JSONObject = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Message:
    """Hold one message; as in Ollama, the role may be any text, and is in lower case."""

    role: str = ""
    content: str = ""
    thinking: str = ""
    images: list[bytes] = field(default_factory=list)
    tool_calls: list[MessageToolCall] = field(default_factory=list)
    tool_name: str = ""
    tool_call_id: str = ""


_TOOL_CALL_FUNCTION = Struct(
    "ToolCallFunction",
    {"index": INT, "name": STRING, "arguments": Custom("api.ToolCallFunctionArguments", _arguments, dict)},
    lambda values, _: values,
)
_TOOL_CALL = Struct(
    "ToolCall",
    {"id": STRING, "function": _TOOL_CALL_FUNCTION},
    lambda values, _: MessageToolCall(id=values["id"], **values["function"]),
)
# Ollama's Message decodes itself through a type named Alias, which its error texts show.
_MESSAGE_ALIAS = Struct(
    "Alias",
    {
        "role": STRING,
        "content": _Content(),
        "thinking": STRING,
        "images": _IMAGES,
        "tool_calls": Slice(_TOOL_CALL),
        "tool_name": STRING,
        "tool_call_id": STRING,
    },
    lambda values, _: Message(**values | {"role": values["role"].lower()}),
)
_MESSAGES = Slice(Custom("api.Message", lambda value: unmarshal(_MESSAGE_ALIAS, value), Message))


# Tools. They are checked as Ollama's structs, but kept as they were sent: Ollama drops keys that its structs do not
# have (`default`, `$ref`, `additionalProperties`), which the model should see.


class _Checked(Struct):
    def __init__(self, name: str, fields: dict[str, GoType]) -> None:
        super().__init__(name, fields, lambda values, extras: {})

    def decode(self, value: Any, decoding: Decoding) -> Any:
        checked = super().decode(value, decoding)
        return checked if checked is KEEP else ANYTHING.decode(value, decoding)


def _check_properties(value: Any) -> None:
    if not isinstance(value, Pairs):
        raise errors.malformed_object()
    for _, item in value:
        unmarshal(_PROPERTY, item)


def _check_property_type(value: Any) -> None:
    if value is not None and not isinstance(value, str):
        unmarshal(_STRINGS, value)


_STRINGS = Slice(STRING)
_PROPERTIES = Pointer(Custom("api.ToolPropertiesMap", _check_properties, lambda: None))
_PROPERTY = _Checked(
    "ToolProperty",
    {
        "type": Custom("api.PropertyType", _check_property_type, lambda: None),
        "items": ANYTHING,
        "description": STRING,
        "enum": Slice(ANYTHING),
        "properties": _PROPERTIES,
        "required": _STRINGS,
    },
)
_PROPERTY.add("anyOf", Slice(_PROPERTY))

_TOOLS = Slice(
    _Checked(
        "Tool",
        {
            "type": STRING,
            "items": ANYTHING,
            "function": _Checked(
                "ToolFunction",
                {
                    "name": STRING,
                    "description": STRING,
                    "parameters": _Checked(
                        "ToolFunctionParameters",
                        {
                            "type": STRING,
                            "$defs": ANYTHING,
                            "items": ANYTHING,
                            "required": _STRINGS,
                            "properties": _PROPERTIES,
                        },
                    ),
                },
            ),
        },
    ),
    name="api.Tools",
)


# Requests.


# The annotation of a field has its Go type, and its JSON name if that cannot be a Python name.
String = Annotated[str, STRING]
Bool = Annotated[bool, BOOL]
Int = Annotated[int, INT]
Stream = Annotated[bool, Pointer(BOOL, nil=True)]
Flag = Annotated[bool | None, Pointer(BOOL)]
AnyValue = Annotated[Any, ANYTHING]
Object = Annotated[JSONObject | None, OBJECT]
Files = Annotated[dict[str, str] | None, Dictionary(STRING)]
Images = Annotated[list[bytes], _IMAGES]
Strings = Annotated[list[str], _STRINGS]
Messages = Annotated[list[Message], _MESSAGES]
MaybeKeepAlive = Annotated[KeepAlive | None, _KEEP_ALIVE]


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestBody:
    """Hold the body of a request; `extras` are the keys that Ollama does not know."""

    extras: JSONObject = field(default_factory=dict)

    @classmethod
    def decode(cls, body: bytes) -> Self:
        """Decode a body. Raises OllamaError (400) with Ollama's text."""
        request, text = decode(_struct_of(cls), body)
        settled: Self = request.settle(text)
        return settled

    @classmethod
    async def read(cls, body: bytes) -> Self:
        """Decode a body like `decode`; a large one in a thread, as images can make it megabytes."""
        return await run_in_thread_if_large(len(body), cls.decode, body)

    def settle(self, text: str) -> Self:
        """Return the request completed from the `text` it was decoded from."""
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class _ModelRequest(RequestBody):
    """A request that names its model in `model`, or in `name`, as in older versions of the API."""

    model: String = ""
    name: String = ""

    def settle(self, text: str) -> Self:
        return self if self.model else replace(self, model=self.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class _RunRequest(RequestBody):
    """The fields that chat and generate have in common."""

    model: String = ""
    stream: Stream = True
    format: Annotated[JSONObject | str | None, _FORMAT] = None
    keep_alive: MaybeKeepAlive = None
    options: Object = None
    think: Annotated[bool | str | None, _THINK] = None
    truncate: Flag = None
    shift: Flag = None
    debug_render_only: Annotated[bool, BOOL, "_debug_render_only"] = False
    logprobs: Bool = False
    top_logprobs: Int = 0
    format_text: str = ""  # the JSON of a `format` that is not valid, for the error

    def settle(self, text: str) -> Self:
        if self.format is None or self.format == "json" or isinstance(self.format, dict):
            return self
        return replace(self, format_text=member_text(text, "format"))

    def check_top_logprobs(self) -> None:
        """Check the range of `top_logprobs`, as Ollama does first. Raises OllamaError (400)."""
        if not 0 <= self.top_logprobs <= _MAX_TOP_LOGPROBS:
            raise errors.top_logprobs_range()

    def check_debug(self) -> None:
        """Refuse to return the rendered prompt (`_debug_render_only`), which LM Studio does not show.

        Raises OllamaError (501).
        """
        if self.debug_render_only:
            raise errors.OllamaError(
                HTTPStatus.NOT_IMPLEMENTED, "LM Studio does not show what its templates make of a prompt"
            )

    def check_format(self) -> None:
        """Check that `format` is absent, `"json"` or an object, as Ollama does last.

        Raises OllamaError (500).
        """
        if self.format_text:
            raise errors.invalid_format(self.format_text)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest(_RunRequest):
    """The body of POST /api/chat; `tools` are as they were sent."""

    messages: Messages = field(default_factory=list)
    tools: Annotated[list[JSONObject], _TOOLS] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateRequest(_RunRequest):
    """The body of POST /api/generate."""

    prompt: String = ""
    suffix: String = ""
    system: String = ""
    template: String = ""
    context: Annotated[list[int], Slice(INT)] = field(default_factory=list)
    raw: Bool = False
    images: Images = field(default_factory=list)

    def check_raw(self) -> None:
        """Check that `raw` comes without template, system and context. Raises OllamaError (400)."""
        if self.raw and (self.template or self.system or self.context):
            raise errors.raw_conflict()


def _embedded_text(item: Any) -> str:
    """Return the text of an input to embed. Raises OllamaError (400)."""
    if isinstance(item, str):
        return item
    parts = {key.lower(): value for key, value in item.items() if value} if isinstance(item, dict) else {}
    if media := [name for name in ("image", "audio", "video") if name in parts]:
        raise errors.OllamaError(
            HTTPStatus.BAD_REQUEST, f"LM Studio embeds texts only: the input has {' and '.join(media)}"
        )
    text = item.get("text") if isinstance(item, dict) else None
    if not isinstance(text, str):
        raise errors.invalid_input_type()
    return text


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedRequest(RequestBody):
    """The body of POST /api/embed."""

    model: String = ""
    input: AnyValue = None
    truncate: Flag = None
    dimensions: Int = 0
    keep_alive: MaybeKeepAlive = None
    options: Object = None

    def inputs(self) -> list[str]:
        """Return the texts to embed; an empty list only loads the model.

        Raises OllamaError (400) for what is neither a text nor a list of texts. Ollama checks this before it looks up
        the model. Since 0.36, an object stands for a text, an image or a sound.
        """
        match self.input:
            case None | "":
                return []
            case list(items):
                return [_embedded_text(item) for item in items]
            case item:
                return [_embedded_text(item)]


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingRequest(RequestBody):
    """The body of POST /api/embeddings."""

    model: String = ""
    prompt: String = ""
    keep_alive: MaybeKeepAlive = None
    options: Object = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemOneRequest(RequestBody):
    """The body of POST /v1/systemone; LM Studio checks the questions."""

    model: String = ""
    state: AnyValue = None
    questions: AnyValue = None
    images: Images = field(default_factory=list)
    keep_alive: MaybeKeepAlive = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ShowRequest(_ModelRequest):
    """The body of POST /api/show."""

    system: String = ""
    template: String = ""
    verbose: Bool = False
    options: Object = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyRequest(RequestBody):
    """The body of POST /api/copy."""

    source: String = ""
    destination: String = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteRequest(_ModelRequest):
    """The body of DELETE /api/delete."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _TransferRequest(_ModelRequest):
    stream: Stream = True
    insecure: Bool = False
    username: String = ""
    password: String = field(default="", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class PullRequest(_TransferRequest):
    """The body of POST /api/pull."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PushRequest(_TransferRequest):
    """The body of POST /api/push."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateRequest(_ModelRequest):
    """The body of POST /api/create; `quantization` is the old name of `quantize`."""

    stream: Stream = True
    from_: Annotated[str, STRING, "from"] = ""
    files: Files = None
    adapters: Files = None
    draft_files: Files = None
    template: String = ""
    license: AnyValue = None
    system: String = ""
    parameters: Object = None
    messages: Messages = field(default_factory=list)
    quantize: String = ""
    quantization: String = ""
    draft_quantize: String = ""
    renderer: String = ""
    parser: String = ""
    requires: String = ""
    capabilities: Strings = field(default_factory=list)
    info: Object = None
    remote_host: String = ""

    def settle(self, text: str) -> Self:
        # `slots=True` creates the class a second time, so super() without arguments refers to the wrong one.
        request = super(CreateRequest, self).settle(text)
        return request if request.quantize else replace(request, quantize=request.quantization)


def _struct(request: type[RequestBody]) -> Struct:
    """Return the struct of a request class, from the annotations of its fields."""
    go_types: dict[str, GoType] = {}
    attributes: dict[str, str] = {}
    for attribute, hint in get_type_hints(request, include_extras=True).items():
        if get_origin(hint) is Annotated:
            _, go_type, *names = get_args(hint)
            name = names[0] if names else attribute
            go_types[name] = go_type
            attributes[name] = attribute

    def build(values: dict[str, Any], extras: JSONObject) -> RequestBody:
        return request(extras=extras, **{attributes[name]: value for name, value in values.items()})

    return Struct(request.__name__, go_types, build)


_STRUCTS: dict[type, Struct] = {}


def _struct_of(request: type[RequestBody]) -> Struct:
    """Return the struct of a request class, which is made when it is first asked for."""
    if request not in _STRUCTS:
        _STRUCTS[request] = _struct(request)
    return _STRUCTS[request]
