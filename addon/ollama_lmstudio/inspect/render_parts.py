"""What several of the views have in them: a message, a body, a call of the bridge's own."""

from __future__ import annotations

from ..record.record import Record
from ..units import size
from . import jsontext, response_data
from .conversation import ParsedMessage
from .sheet import TEXT_CHARACTERS, Sheet
from .snapshot import Snapshot

# A text of a conversation may have so many characters, however many there are.
MESSAGE_CHARACTERS = 1000
# Of roles with the ids of tool calls, which clients choose.
ROLE_CHARACTERS = 60
# Of the images of one message, so many are described.
MAX_ATTACHMENTS = 4
# The rest of a body, and of each string in it, is left out.
BODY_CHARACTERS = 200_000
STRING_CHARACTERS = 4000


def add_message(sheet: Sheet, message: ParsedMessage, limit: int = TEXT_CHARACTERS) -> None:
    """Add a message: what it thinks, what it says and holds, and the tools that it calls."""
    who = jsontext.one_line(f"{message.role} {message.answers}", ROLE_CHARACTERS)
    if message.thinking:
        sheet.text(f"{who} thinks", message.thinking, limit)
    if message.text or message.attachments or not (message.tool_calls or message.thinking):
        # Beside the role, where no text can be taken for it.
        shown = (who, *map(str, message.attachments[:MAX_ATTACHMENTS]))
        more = len(message.attachments) - MAX_ATTACHMENTS
        sheet.text(" ".join(shown) + (f" and {more} more" if more > 0 else ""), message.text, limit)
    for call in message.tool_calls:
        sheet.text(f"{who} calls", f"{call}{f'  {call.id}' if call.id else ''}", limit)


def note_if_cut(sheet: Sheet, record: Record, whole: int, kept: int) -> None:
    """Add how much of a body is kept, if that is not all of it."""
    if record.is_cut(whole, kept):
        sheet.value("kept", f"{size(kept)} of {size(whole)}")


def add_internal_call(sheet: Sheet, snapshot: Snapshot) -> None:
    """Add a call that the bridge has made on its own."""
    sheet.heading(f"The bridge's own call: {snapshot.record.purpose}".rstrip(": "))
    sheet.heading(f"{snapshot.method} {snapshot.path}")
    add_body(sheet, snapshot.body)


def add_body(sheet: Sheet, body: bytes) -> None:
    """Add a body: JSON is indented, everything else stays as it is."""
    if not body:
        return
    value, problem = jsontext.read(body)
    if problem:
        sheet.text("body", readable(body.decode("utf-8", "replace")), 2 * BODY_CHARACTERS)
    else:
        sheet.raw(excerpt(value))


def excerpt(value: object, characters: int = BODY_CHARACTERS) -> str:
    """Return a value as indented JSON without base64, cut to about `characters`, with its long parts cut."""
    return jsontext.excerpt(value, characters, STRING_CHARACTERS, response_data.FIRST_VALUES)


def readable(text: str) -> str:
    """Return JSON text without base64, with long strings and lists of numbers cut."""
    text = jsontext.shortened(jsontext.without_base64(text), STRING_CHARACTERS, response_data.FIRST_VALUES)
    return jsontext.cut(text, BODY_CHARACTERS)
