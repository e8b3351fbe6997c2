"""Ollama's errors: each text that it can answer with, and the status.

Most were recorded from a server, the others are those of its source. Each is a `Text`: call it with its arguments to
get the `OllamaError` to raise. `{}` takes an argument as it is, `{:q}` quotes it as Go's `%q` does.
"""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus

from .quoting import quote

_BAD_REQUEST = HTTPStatus.BAD_REQUEST
_NOT_FOUND = HTTPStatus.NOT_FOUND
_SERVER_ERROR = HTTPStatus.INTERNAL_SERVER_ERROR


class OllamaError(Exception):
    """Raised to answer a request with an error: an HTTP status and the text of `{"error": ...}`."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class _Argument(str):
    __slots__ = ()

    def __format__(self, spec: str) -> str:
        return quote(self) if spec == "q" else str(self)


@dataclass(frozen=True, slots=True)
class Text:
    """Hold the status and the template of one error."""

    status: int
    template: str

    def __call__(self, *arguments: str) -> OllamaError:
        """Return the error, with `arguments` filled in."""
        return OllamaError(self.status, self.template.format(*map(_Argument, arguments)))


# The body.
missing_request_body = Text(_BAD_REQUEST, "missing request body")
bad_body = Text(_BAD_REQUEST, "{}")

# The model. Chat, generate and delete echo the request's text in single quotes; show does so with the display
# name; the embedding endpoints and copy use double quotes.
model_required = Text(_BAD_REQUEST, "model is required")
invalid_model_name = Text(_BAD_REQUEST, "invalid model name")
conflicting_source = Text(_BAD_REQUEST, "use either :local or :cloud, not both: {:q}")
model_not_found = Text(_NOT_FOUND, "model '{}' not found")
embedding_model_not_found = Text(_NOT_FOUND, "model {:q} not found, try pulling it first")
source_not_found = Text(_NOT_FOUND, "model {:q} not found")
invalid_source = Text(_BAD_REQUEST, "source {:q} is invalid")
invalid_destination = Text(_BAD_REQUEST, "destination {:q} is invalid")
invalid_name = Text(_BAD_REQUEST, "name {:q} is invalid")
cloud_disabled = Text(HTTPStatus.FORBIDDEN, "ollama cloud is disabled: {}")

# What a model cannot do. The first four take the requested name, the other two the canonical one (`Name.canonical`).
chat_unsupported = Text(_BAD_REQUEST, "{:q} does not support chat")
generate_unsupported = Text(_BAD_REQUEST, "{:q} does not support generate")
thinking_unsupported = Text(_BAD_REQUEST, "{:q} does not support thinking")
decision_unsupported = Text(_BAD_REQUEST, "{:q} does not support decision")
tools_unsupported = Text(_BAD_REQUEST, "{} does not support tools")
insert_unsupported = Text(_BAD_REQUEST, "{} does not support insert")

# Chat and generate.
top_logprobs_range = Text(_BAD_REQUEST, "top_logprobs must be between 0 and 20")
raw_conflict = Text(_BAD_REQUEST, "raw mode does not support template, system, or context")
invalid_think_value = Text(
    _BAD_REQUEST, 'invalid think value: {:q} (must be "high", "medium", "low", "max", true, or false)'
)
invalid_think_type = Text(
    _BAD_REQUEST, 'think must be a boolean or string ("high", "medium", "low", "max", true, or false)'
)
illegal_base64 = Text(_BAD_REQUEST, "illegal base64 data at input byte {}")
malformed_object = Text(_BAD_REQUEST, "Value looks like object, but can't find closing '}}' symbol")
unsupported_keep_alive = Text(_BAD_REQUEST, "Unsupported type: '{}'")
invalid_format = Text(_SERVER_ERROR, 'invalid format: {:q}; expected "json" or a valid JSON Schema object')
option_type = Text(_SERVER_ERROR, "option {:q} must be of type {}")
option_strings = Text(_SERVER_ERROR, "option {:q} must be of an array of strings")

# Embeddings.
invalid_input_type = Text(_BAD_REQUEST, "invalid input type")
input_too_long = Text(_BAD_REQUEST, "the input length exceeds the context length")
invalid_encoding_format = Text(
    _BAD_REQUEST, "Invalid value for 'encoding_format' = {}. Supported values: ['float', 'base64']."
)
embedding_not_finite = Text(_BAD_REQUEST, "embedding contains NaN or Inf values")

# Create, pull and blobs.
unknown_capability = Text(_BAD_REQUEST, "unknown capability: {:q}")
bad_remote = Text(_BAD_REQUEST, "bad remote")
bad_template = Text(_BAD_REQUEST, "template error: {}")
license_type = Text(_SERVER_ERROR, "json: cannot unmarshal {} into Go value of type {}")
no_such_file = Text(_SERVER_ERROR, "open {}: no such file or directory")
no_from_or_files = Text(_BAD_REQUEST, "neither 'from' or 'files' was specified")
unknown_file_type = Text(_BAD_REQUEST, "unknown type")
not_gguf = Text(_BAD_REQUEST, "supplied file was not in GGUF format")
one_adapter_only = Text(_BAD_REQUEST, "only one adapter is currently supported")
info_number_required = Text(_BAD_REQUEST, "info field {:q} must be a number")
draft_quantize_without_draft = Text(_BAD_REQUEST, "--draft-quantize requires a DRAFT model")
unsupported_quantization = Text(_SERVER_ERROR, "unsupported quantization type {} - supported types are {}")
already_quantized = Text(_SERVER_ERROR, "quantization is only supported for F16, BF16 and F32 models")
unqualified_name = Text(_SERVER_ERROR, "unqualified name: {}")
relative_path_required = Text(_BAD_REQUEST, "file path must be relative")
invalid_digest = Text(_BAD_REQUEST, "invalid digest format")
blob_not_found = Text(_NOT_FOUND, "blob {:q} not found")
digest_mismatch = Text(_BAD_REQUEST, "digest mismatch, expected {:q}, got {:q}")
insecure_protocol = Text(_SERVER_ERROR, "insecure protocol http")
manifest_refused = Text(_SERVER_ERROR, "pull model manifest: {}")
manifest_not_found = Text(_SERVER_ERROR, "pull model manifest: file does not exist")

# The account.
account_unavailable = Text(HTTPStatus.SERVICE_UNAVAILABLE, "account unavailable")
signout_failed = Text(_SERVER_ERROR, "there was an error signing out")
