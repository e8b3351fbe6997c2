"""Ollama's errors: each text it can answer with, with its status.

A text is a `Text`: call it with its arguments to get the `OllamaError` to raise.
`{}` takes an argument as it is, `{:q}` quotes it as Go does.
"""

from __future__ import annotations

from dataclasses import dataclass

from .quoting import quote


class OllamaError(Exception):
    """Carry the status and the text of one error answer."""

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
        """Return the error with `arguments` filled in."""
        return OllamaError(self.status, self.template.format(*map(_Argument, arguments)))


# The body.
missing_request_body = Text(400, "missing request body")
bad_body = Text(400, "{}")

# The model. Chat, generate and delete echo the request's text in single quotes; show does so with the display
# name; the embedding endpoints and copy use double quotes.
model_required = Text(400, "model is required")
invalid_model_name = Text(400, "invalid model name")
conflicting_source = Text(400, "use either :local or :cloud, not both: {:q}")
model_not_found = Text(404, "model '{}' not found")
embedding_model_not_found = Text(404, "model {:q} not found, try pulling it first")
source_not_found = Text(404, "model {:q} not found")
invalid_source = Text(400, "source {:q} is invalid")
invalid_destination = Text(400, "destination {:q} is invalid")
invalid_name = Text(400, "name {:q} is invalid")
cloud_disabled = Text(403, "ollama cloud is disabled: {}")

# What a model cannot do. The first three take the requested name, the other two the canonical one.
chat_unsupported = Text(400, "{:q} does not support chat")
generate_unsupported = Text(400, "{:q} does not support generate")
thinking_unsupported = Text(400, "{:q} does not support thinking")
tools_unsupported = Text(400, "{} does not support tools")
insert_unsupported = Text(400, "{} does not support insert")

# Chat and generate.
top_logprobs_range = Text(400, "top_logprobs must be between 0 and 20")
raw_conflict = Text(400, "raw mode does not support template, system, or context")
invalid_think_value = Text(400, 'invalid think value: {:q} (must be "high", "medium", "low", "max", true, or false)')
invalid_think_type = Text(400, 'think must be a boolean or string ("high", "medium", "low", "max", true, or false)')
illegal_base64 = Text(400, "illegal base64 data at input byte {}")
malformed_object = Text(400, "Value looks like object, but can't find closing '}}' symbol")
unsupported_keep_alive = Text(400, "Unsupported type: '{}'")
invalid_format = Text(500, 'invalid format: {:q}; expected "json" or a valid JSON Schema object')
option_type = Text(500, "option {:q} must be of type {}")
option_strings = Text(500, "option {:q} must be of an array of strings")

# Embeddings.
invalid_input_type = Text(400, "invalid input type")
input_too_long = Text(400, "the input length exceeds the context length")
embedding_not_finite = Text(400, "embedding contains NaN or Inf values")

# Create, pull and blobs.
no_from_or_files = Text(400, "neither 'from' or 'files' was specified")
unknown_file_type = Text(400, "unknown type")
not_gguf = Text(400, "supplied file was not in GGUF format")
one_adapter_only = Text(400, "only one adapter is currently supported")
info_number_required = Text(400, "info field {:q} must be a number")
draft_quantize_without_draft = Text(400, "--draft-quantize requires a DRAFT model")
unsupported_quantization = Text(500, "unsupported quantization type {} - supported types are {}")
already_quantized = Text(500, "quantization is only supported for F16, BF16 and F32 models")
unqualified_name = Text(500, "unqualified name: {}")
relative_path_required = Text(400, "file path must be relative")
invalid_digest = Text(400, "invalid digest format")
blob_not_found = Text(404, "blob {:q} not found")
digest_mismatch = Text(400, "digest mismatch, expected {:q}, got {:q}")
insecure_protocol = Text(500, "insecure protocol http")
manifest_not_found = Text(500, "pull model manifest: file does not exist")

# The account.
account_unavailable = Text(503, "account unavailable")
signout_failed = Text(500, "there was an error signing out")
