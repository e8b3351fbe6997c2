"""Check a template as Go's `text/template` parses it, with its error texts: what is broken Ollama refuses to create.

The grammar is that of Go 1.24. What a template does is of no interest here: LM Studio applies its models' own.
A template becomes tokens first, the last of which is the end or an error; the parser walks over them.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Final, NamedTuple, NoReturn

from .quoting import quote

# The functions of text/template, and those that Ollama adds.
_GO_FUNCTIONS: Final = (
    *("and", "or", "not", "len", "index", "slice", "print", "printf", "println", "html", "js", "urlquery", "call"),
    *("eq", "ge", "gt", "le", "lt", "ne"),
)
FUNCTIONS: Final = frozenset((*_GO_FUNCTIONS, "json", "currentDate", "yesterdayDate", "toTypeScriptType"))

_LEFT: Final = "{{"
_RIGHT: Final = "}}"
_SPACES: Final = " \t\r\n"
_KEYWORDS: Final = frozenset(
    ("block", "break", "continue", "define", "else", "end", "if", "nil", "range", "template", "with")
)
_TERMINATORS: Final = frozenset(" \t\r\n.,|:()")
_OPERATORS: Final = {"=": "assign", "|": "pipe"}
# The tokens that an operand begins with, and those that stand for themselves and can be called or selected from by no
# one.
_OPERANDS: Final = frozenset(
    ("bool", "char constant", "dot", "field", "identifier", "nil", "number", "string", "variable", "(")
)
_CONSTANTS: Final = frozenset(("bool", "char constant", "dot", "nil", "number", "string"))
_PRINTED: Final = 10
"""How many characters of a token an error shows."""
_LAST_ASCII: Final = "\x7e"

_MAX_UINT64: Final = 2**64 - 1
_DECIMAL_LETTERS: Final = frozenset("0123456789_.eE+-")
# How many octal digits a number of 64 bits can have.
_MAX_DIGITS: Final = 22

_WORD: Final = re.compile(r"\w*")
_SPACE: Final = re.compile(r"[ \t\r\n]*")
_SCANNED_NUMBER: Final = re.compile(
    r"[+-]?(?:0[xX][0-9a-fA-F_]*(?:\.[0-9a-fA-F_]*)?(?:[pP][+-]?[0-9_]*)?"
    r"|0[oO][0-7_]*(?:\.[0-7_]*)?|0[bB][01_]*(?:\.[01_]*)?"
    r"|[0-9_]*(?:\.[0-9_]*)?(?:[eE][+-]?[0-9_]*)?)i?"
)
_DECIMAL: Final = (
    r"(?:[0-9](?:_?[0-9])*(?:\.(?:[0-9](?:_?[0-9])*)?)?|\.[0-9](?:_?[0-9])*)(?:[eE][+-]?[0-9](?:_?[0-9])*)?"
)
_NUMBER: Final = re.compile(
    r"[+-]?(?:0[xX](?:_?[0-9a-fA-F])+|0[oO](?:_?[0-7])+|0[bB](?:_?[01])+"
    r"|0[xX](?:_?[0-9a-fA-F])*\.?(?:[0-9a-fA-F](?:_?[0-9a-fA-F])*)?[pP][+-]?[0-9]+|" + _DECIMAL + r")i?"
    r"(?:[+-]" + _DECIMAL + r"i)?"
)
# No surrogates, and nothing above the last code point.
_ESCAPE: Final = (
    r"\\(?:[abfnrtv\\{quote}]|x[0-9a-fA-F]{{2}}|[0-3][0-7]{{2}}"
    r"|u(?![dD][89a-fA-F])[0-9a-fA-F]{{4}}|U00(?:0[0-9a-fA-F]|10)[0-9a-fA-F]{{4}})"
)
_STRING: Final = re.compile(r'"(?:[^"\\\n]|' + _ESCAPE.format(quote='"') + r')*"|`[^`]*`')
_CHARACTER: Final = re.compile(r"'(?:[^'\\\n]|" + _ESCAPE.format(quote="'") + r")")


class TemplateError(ValueError):
    """Raised for a template that Go does not parse, with Go's text."""


def check_template(text: str) -> None:
    """Raise TemplateError if Go would not parse a template."""
    try:
        _Parser(_Lexer(text).tokens).parse()
    except RecursionError:
        return  # nested deeper than is worth a look


class _Token(NamedTuple):
    kind: str
    text: str
    line: int

    def __str__(self) -> str:
        if self.kind in ("end of file", "error"):
            return self.text
        if self.kind == "dot" or self.kind in _KEYWORDS:
            return f"<{self.text}>"
        if len(self.text.encode("utf-8", "replace")) > _PRINTED:
            return quote(self.text[:_PRINTED]) + "..."
        return quote(self.text)


class _BadTokenError(Exception):
    pass


class _Lexer:
    """Cut a template into tokens."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = self._start = 0
        self._counted, self._line = 0, 1
        self.tokens: list[_Token] = []
        try:
            while self._at < len(text):
                self._outside()
        except _BadTokenError as problem:
            self.tokens.append(_Token("error", str(problem), self._line_at(self._start)))
        self.tokens.append(_Token("end of file", "EOF", self._line_at(self._start)))

    def _line_at(self, at: int) -> int:
        self._line += self._text.count("\n", self._counted, at)
        self._counted = max(self._counted, at)
        return self._line

    def _emit(self, kind: str) -> None:
        self.tokens.append(_Token(kind, self._text[self._start : self._at], self._line_at(self._start)))
        self._start = self._at

    def _skip(self, to: int) -> None:
        self._at = self._start = to

    def _outside(self) -> None:
        """Read the text up to the next action, and that action."""
        found = self._text.find(_LEFT, self._at)
        end = len(self._text) if found < 0 else found
        trims = self._trims_left(end + len(_LEFT))
        self._at += len(self._text[self._at : end].rstrip(_SPACES) if trims else self._text[self._at : end])
        if self._at > self._start:
            self._emit("text")
        self._skip(end)
        if found < 0:
            return
        self._at += len(_LEFT)
        inside = self._at + (2 if trims else 0)
        if self._text.startswith("/*", inside):
            self._skip(inside)
            self._comment()
            return
        self._emit("left delimiter")
        self._skip(inside)
        self._action()

    def _trims_left(self, at: int) -> bool:
        return self._text.startswith("-", at) and self._text[at + 1 : at + 2] in tuple(_SPACES)

    def _right_delimiter(self) -> int:
        """Return the length of the closing delimiter here, with its trim marker; 0 if there is none."""
        if self._text.startswith(_RIGHT, self._at):
            return len(_RIGHT)
        marked = self._text[self._at : self._at + 1] in tuple(_SPACES) and self._text.startswith(
            "-" + _RIGHT, self._at + 1
        )
        return 2 + len(_RIGHT) if marked else 0

    def _after_delimiter(self, length: int) -> None:
        self._skip(self._at)
        if length > len(_RIGHT):
            spaces = _SPACE.match(self._text, self._at)
            assert spaces is not None  # the pattern matches the empty string
            self._skip(spaces.end())

    def _comment(self) -> None:
        end = self._text.find("*/", self._at + 2)
        if end < 0:
            raise _BadTokenError("unclosed comment")
        self._at = end + 2
        length = self._right_delimiter()
        if not length:
            raise _BadTokenError("comment ends before closing delimiter")
        self._at += length
        self._after_delimiter(length)

    def _action(self) -> None:
        depth = 0
        while not (length := self._right_delimiter()):
            depth = self._inside(depth)
        if depth:
            raise _BadTokenError("unclosed left paren")
        self._skip(self._at + length - len(_RIGHT))
        self._at += len(_RIGHT)
        self._emit("right delimiter")
        self._after_delimiter(length)

    def _inside(self, depth: int) -> int:
        """Read one token of an action; return how many parentheses are open after it."""
        first = self._text[self._at : self._at + 1]
        following = self._text[self._at + 1 : self._at + 2]
        if not first:
            raise _BadTokenError("unclosed action")
        if first in _SPACES:
            self._space()
        elif first in "\"'`":
            self._quoted(first)
        elif first == "$" or (first == "." and following and not ("0" <= following <= "9")):
            self._field(first)
        elif first in "+-." or "0" <= first <= "9":
            self._number()
        elif first == "_" or first.isalnum():
            self._word()
        else:
            return self._mark(first, following, depth)
        return depth

    def _mark(self, first: str, following: str, depth: int) -> int:
        self._at += 1
        if first in "()":
            depth += 1 if first == "(" else -1
            if depth < 0:
                raise _BadTokenError("unexpected right paren")
            self._emit(first)
        elif first == ":":
            if following != "=":
                raise _BadTokenError("expected :=")
            self._at += 1
            self._emit("declare")
        elif first in _OPERATORS:
            self._emit(_OPERATORS[first])
        elif " " < first <= _LAST_ASCII:
            self._emit("char")
        else:
            raise _BadTokenError(f"unrecognized character in action: {_code_point(first)}")
        return depth

    def _space(self) -> None:
        while self._text[self._at : self._at + 1] in tuple(_SPACES) and not self._right_delimiter():
            self._at += 1
        self._emit("space")

    def _quoted(self, mark: str) -> None:
        what = {"'": "character constant", '"': "quoted string", "`": "raw quoted string"}[mark]
        end = self._at + 1
        while (character := self._text[end : end + 1]) != mark:
            if mark != "`" and character == "\\":
                end += 1
                character = self._text[end : end + 1]
            if not character or (character == "\n" and mark != "`"):
                raise _BadTokenError(f"unterminated {what}")
            end += 1
        self._at = end + 1
        self._emit("char constant" if mark == "'" else "string")

    def _field(self, first: str) -> None:
        self._at += 1
        word = _WORD.match(self._text, self._at)
        assert word is not None  # the pattern matches the empty string
        self._at = word.end()
        if not word[0] and not self._at_terminator():
            raise _BadTokenError(f"bad character {_code_point(self._text[self._at])}")
        self._check_terminator()
        kind = "variable" if first == "$" else "field" if word[0] else "dot"
        self._emit(kind)

    def _word(self) -> None:
        word = _WORD.match(self._text, self._at)
        assert word is not None  # the pattern matches the empty string
        self._at = word.end()
        self._check_terminator()
        text = word[0]
        self._emit(text if text in _KEYWORDS else "bool" if text in ("true", "false") else "identifier")

    def _number(self) -> None:
        for part in range(2):
            number = _SCANNED_NUMBER.match(self._text, self._at)
            assert number is not None  # the pattern matches the empty string
            self._at = number.end()
            following = self._text[self._at : self._at + 1]
            if following == "_" or following.isalnum():
                self._at += 1
                raise _BadTokenError(f"bad number syntax: {quote(self._text[self._start : self._at])}")
            if part and not number[0].endswith("i"):
                raise _BadTokenError(f"bad number syntax: {quote(self._text[self._start : self._at])}")
            # What follows may be the imaginary part.
            if following not in ("+", "-"):
                break
        self._emit("number")

    def _at_terminator(self) -> bool:
        character = self._text[self._at : self._at + 1]
        return not character or character in _TERMINATORS or self._text.startswith(_RIGHT, self._at)

    def _check_terminator(self) -> None:
        if not self._at_terminator():
            raise _BadTokenError(f"bad character {_code_point(self._text[self._at])}")


def _code_point(character: str) -> str:
    """Return a character as Go's `%#U` writes it."""
    shown = f" '{character}'" if character.isprintable() else ""
    return f"U+{ord(character):04X}{shown}"


@dataclass(slots=True)
class _Scope:
    """What is known while one template is parsed: its variables, and the ranges that are open."""

    variables: list[str]
    ranges: int = 0


class _Parser:
    """Walk over the tokens as Go's recursive descent does."""

    def __init__(self, tokens: list[_Token]) -> None:
        self._tokens = tokens
        self._at = self._furthest = 0
        self._action_line = 0
        self._scope = _Scope(["$"])
        self._defined: dict[str, bool] = {}

    def parse(self) -> None:
        """Parse the whole template."""
        while self._peek().kind != "end of file":
            before = self._at
            if self._next().kind == "left delimiter" and self._next_non_space().kind == "define":
                self._definition()
                continue
            self._at = before
            ended = self._text_or_action()
            if ended:
                self._fail(f"unexpected {{{{{ended}}}}}")

    # Tokens

    def _next(self) -> _Token:
        at = min(self._at, len(self._tokens) - 1)
        self._at, self._furthest = at + 1, max(self._furthest, at)
        return self._tokens[at]

    def _peek(self) -> _Token:
        token = self._next()
        self._at -= 1
        return token

    def _next_non_space(self) -> _Token:
        while (token := self._next()).kind == "space":
            pass
        return token

    def _peek_non_space(self) -> _Token:
        token = self._next_non_space()
        self._at -= 1
        return token

    def _fail(self, message: str) -> NoReturn:
        raise TemplateError(f"template: :{self._tokens[self._furthest].line}: {message}")

    def _unexpected(self, token: _Token, context: str) -> NoReturn:
        if token.kind != "error":
            self._fail(f"unexpected {token} in {context}")
        extra = ""
        if self._action_line not in (0, token.line):
            extra = "" if token.text.endswith(" action") else " in action"
            extra += f" started at :{self._action_line}"
        self._fail(f"{token}{extra}")

    def _expect(self, kind: str, context: str) -> _Token:
        token = self._next_non_space()
        if token.kind != kind:
            self._unexpected(token, context)
        return token

    # Templates and control structures

    def _definition(self) -> None:
        name = self._template_name(self._next_non_space(), "define clause")
        self._expect("right delimiter", "define clause")
        self._template(name, "define clause")

    def _template(self, name: str, context: str) -> None:
        """Parse a template within the template, up to its end."""
        outer, self._scope = self._scope, _Scope(["$"])
        before = self._at
        ended = self._list()
        self._scope = outer
        if ended != "end":
            self._fail(f"unexpected {{{{{ended}}}}} in {context}")
        tokens = self._tokens[before : self._at]
        empty = not any(token.text.strip() for token in tokens if token.kind == "text") and not any(
            token.kind not in ("text", "left delimiter", "right delimiter", "space", "end") for token in tokens
        )
        if not self._defined.get(name, True) and not empty:
            self._fail(f"template: multiple definition of template {quote(name)}")
        self._defined[name] = self._defined.get(name, True) and empty

    def _list(self) -> str:
        """Parse text and actions up to an end or an else; return which of them it was."""
        while True:
            if self._peek_non_space().kind == "end of file":
                self._fail("unexpected EOF")
            if ended := self._text_or_action():
                return ended

    def _text_or_action(self) -> str:
        token = self._next_non_space()
        if token.kind == "text":
            return ""
        if token.kind != "left delimiter":
            self._unexpected(token, "input")
        self._action_line = token.line
        ended = self._action()
        self._action_line = 0
        return ended

    def _action(self) -> str:
        token = self._next_non_space()
        match token.kind:
            case "block":
                name = self._template_name(self._next_non_space(), "block clause")
                self._pipeline("block clause")
                self._template(name, "block clause")
            case "break" | "continue":
                word = f"{{{{{token.kind}}}}}"
                self._expect("right delimiter", word)
                if not self._scope.ranges:
                    self._fail(f"{word} outside {{{{range}}}}")
            case "else":
                if self._peek_non_space().kind not in ("if", "with"):
                    self._expect("right delimiter", "else")
                return "else"
            case "end":
                self._expect("right delimiter", "end")
                return "end"
            case "if" | "range" | "with":
                self._control(token.kind)
            case "template":
                self._template_name(self._next_non_space(), "template clause")
                if self._next_non_space().kind != "right delimiter":
                    self._at -= 1
                    self._pipeline("template clause")
            case _:
                self._at -= 1
                self._pipeline("command")
        return ""

    def _template_name(self, token: _Token, context: str) -> str:
        if token.kind != "string":
            self._unexpected(token, context)
        self._check_string(token)
        return token.text[1:-1]

    def _control(self, context: str) -> None:
        known = len(self._scope.variables)
        self._pipeline(context)
        self._scope.ranges += context == "range"
        ended = self._list()
        self._scope.ranges -= context == "range"
        if ended == "else":
            if context in ("if", "with") and self._peek_non_space().kind == context:
                self._next_non_space()
                self._control(context)
            elif (ended := self._list()) != "end":
                self._fail(f"expected end; found {{{{{ended}}}}}")
        del self._scope.variables[known:]

    # Pipelines

    def _pipeline(self, context: str, end: str = "right delimiter") -> None:
        self._declarations(context)
        commands: list[str] = []
        while (token := self._next_non_space()).kind != end:
            if token.kind not in _OPERANDS:
                self._unexpected(token, context)
            self._at -= 1
            commands.append(self._command())
        if not commands:
            self._fail(f"missing value for {context}")
        for stage, first in enumerate(commands[1:], 2):
            if first in _CONSTANTS:
                self._fail(f"non executable command in pipeline stage {stage}")

    def _declarations(self, context: str) -> None:
        declared = 0
        while self._peek_non_space().kind == "variable":
            variable = self._next_non_space()
            before = self._at
            self._peek()
            token = self._next_non_space()
            if token.kind in ("assign", "declare"):
                self._scope.variables.append(variable.text)
                return
            if (token.kind, token.text) != ("char", ","):
                self._at = before - 1
                return
            self._scope.variables.append(variable.text)
            declared += 1
            if context != "range" or declared > 1:
                self._fail(f"too many declarations in {context}")
            if self._peek_non_space().kind not in ("variable", "right delimiter", ")"):
                self._fail("range can only initialize variables")

    def _command(self) -> str:
        """Parse a command; return the kind of its first operand."""
        first = ""
        while True:
            self._peek_non_space()
            operand = self._operand()
            first = first or operand
            token = self._next()
            if token.kind == "space":
                continue
            if token.kind in ("right delimiter", ")"):
                self._at -= 1
            elif token.kind != "pipe":
                self._unexpected(token, "operand")
            break
        if not first:
            self._fail("empty command")
        return first

    def _operand(self) -> str:
        token = self._peek_non_space()
        kind = self._term()
        if not kind or self._peek().kind != "field":
            return kind
        while self._peek().kind == "field":
            self._next()
        if kind in _CONSTANTS:
            self._fail(f"unexpected . after term {quote(token.text)}")
        return "chain"

    def _term(self) -> str:
        token = self._next_non_space()
        match token.kind:
            case "identifier" if token.text not in FUNCTIONS:
                self._fail(f"function {quote(token.text)} not defined")
            case "variable" if token.text not in self._scope.variables:
                self._fail(f"undefined variable {quote(token.text)}")
            case "char constant":
                self._check_character(token)
            case "number":
                self._check_number(token)
            case "string":
                self._check_string(token)
            case "(":
                self._pipeline("parenthesized pipeline", ")")
            case kind if kind not in _OPERANDS:
                self._at -= 1
                return ""
        return token.kind

    def _check_number(self, token: _Token) -> None:
        digits = token.text.lstrip("+-")
        if _NUMBER.fullmatch(token.text) is None or _is_too_large(digits):
            self._fail(f"illegal number syntax: {quote(token.text)}")
        if not digits.isdecimal():
            return
        # What looks like a whole number must be one of 64 bits; with a 0 before them, 8 and 9 are no octal digits.
        octal = digits.startswith("0")
        digits = digits.lstrip("0") or "0"
        is_odd = octal and not set("89").isdisjoint(digits)
        if is_odd or len(digits) > _MAX_DIGITS or int(digits, 8 if octal else 10) > _MAX_UINT64:
            self._fail(f"integer overflow: {quote(token.text)}")

    def _check_string(self, token: _Token) -> None:
        if _STRING.fullmatch(token.text) is None:
            self._fail("invalid syntax")

    def _check_character(self, token: _Token) -> None:
        match = _CHARACTER.match(token.text)
        if match is None:
            self._fail("invalid syntax")
        if token.text[match.end() :] != "'":
            self._fail(f"malformed character constant: {token.text}")


def _is_too_large(number: str) -> bool:
    """Return whether a decimal number is too large for a float of 64 bits."""
    return set(number) <= _DECIMAL_LETTERS and math.isinf(float(number))
