"""The text format of Protocol Buffers, as `config.pbtxt` is written in: fields, each with its line.

    name: "densenet"                       a value: text, a number, or a word such as TYPE_FP32
    input [ { name: "x" }, { … } ]         several messages, or several values `dims: [ 3, 224 ]`
    dynamic_batching { }                   a message; also in < >, and with a colon before it
    # a comment

Nothing is known here of which fields there are. Texts beside each other are one text. What a file
may nest is bounded, so that none exhausts the stack.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import NamedTuple

from batcher.errors import ConfigError

MAX_DEPTH = 32
"""Messages within messages: real files have six."""

_TOKEN = re.compile(
    r"""(?P<blank>[\s,;]+|\#[^\n]*)
    |(?P<name>[A-Za-z_]\w*)
    |(?P<number>[-+]?\.?\d[\w.+-]*)
    |(?P<text>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')
    |(?P<sign>[{}<>\[\]:])""",
    re.VERBOSE,
)
_ESCAPE = re.compile(
    r"\\(x[0-9a-fA-F]{1,2}|[0-7]{1,3}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|.)", re.DOTALL
)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}
_CLOSING = {"{": "}", "<": ">"}


class Word(str):
    """A word without quotes: a constant such as TYPE_FP32, `true`, or a number."""

    __slots__ = ()


@dataclass(slots=True)
class Message:
    """The fields of a message, in the order of the file.

    Attributes:
        line: the line that the message begins on.
        fields: name, value and line of each field; a list of values is several fields.
    """

    line: int
    fields: list[Field] = field(default_factory=list)


class Field(NamedTuple):
    """A field of a message.

    Attributes:
        name: its name.
        value: a text, a Word, or a message.
        line: the line it stands on.
    """

    name: str
    value: str | Word | Message
    line: int


class _Token(NamedTuple):
    kind: str
    text: str
    line: int


def parse(text: str, file: str) -> Message:
    """Return the message in `text`, the content of `file`.

    Raises:
        ConfigError: the text is not of this format; the message names the line.
    """
    return _Parser(_tokens(text, file), file).top()


def _tokens(text: str, file: str) -> list[_Token]:
    found, place, line = [], 0, 1
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None:
            raise ConfigError(f"{file}:{line}: expected a field; got {text[place : place + 20]!r}")
        kind, token = str(match.lastgroup), match[0]
        if kind != "blank":
            found.append(_Token(kind, token, line))
        line += token.count("\n")
        place = match.end()
    return found


class _Parser:
    """Reads tokens, one after the other."""

    def __init__(self, tokens: list[_Token], file: str) -> None:
        self._tokens = tokens
        self._file = file
        self._place = 0

    def top(self) -> Message:
        message = Message(1)
        self._fill(message, "", 0)
        return message

    def _fill(self, message: Message, closing: str, depth: int) -> None:
        """Read the fields of `message` up to the sign `closing`, or up to the end of the file."""
        if depth > MAX_DEPTH:
            line = self._tokens[self._place - 1].line
            raise ConfigError(
                f"{self._file}:{line}: expected at most {MAX_DEPTH} messages within each other; "
                "got more"
            )
        while True:
            token = self._next(f"a field{f', or {closing}' if closing else ''}", bool(closing))
            if token is None or token.text == closing:
                return
            if token.kind != "name":
                raise self._wrong(token, "the name of a field")
            self._add(message, token, depth)

    def _add(self, message: Message, name: _Token, depth: int) -> None:
        """Read the value, or the values, of the field `name` into `message`."""
        token = self._needed(f"a value of {name.text}")
        has_colon = token.text == ":"
        if has_colon:
            token = self._needed(f"a value of {name.text}")
        if token.text != "[":
            value = self._value(token, name, has_colon, depth)
            message.fields.append(Field(name.text, value, name.line))
            return
        while (token := self._needed(f"a value of {name.text}, or ]")).text != "]":
            value = self._value(token, name, True, depth)
            message.fields.append(Field(name.text, value, token.line))

    def _value(
        self, token: _Token, name: _Token, has_colon: bool, depth: int
    ) -> str | Word | Message:
        if token.text in _CLOSING:
            message = Message(token.line)
            self._fill(message, _CLOSING[token.text], depth + 1)
            return message
        if not has_colon or token.kind == "sign":
            raise self._wrong(token, f"`{name.text}:` and a value, or {name.text} {{ … }}")
        if token.kind != "text":
            return Word(token.text)
        parts = [_unquoted(token.text)]
        while self._place < len(self._tokens) and self._tokens[self._place].kind == "text":
            parts.append(_unquoted(self._tokens[self._place].text))
            self._place += 1
        return "".join(parts)

    def _next(self, expected: str, is_needed: bool) -> _Token | None:
        if self._place < len(self._tokens):
            self._place += 1
            return self._tokens[self._place - 1]
        if is_needed:
            raise ConfigError(f"{self._file}: expected {expected}; got the end of the file")
        return None

    def _needed(self, expected: str) -> _Token:
        token = self._next(expected, True)
        assert token is not None
        return token

    def _wrong(self, token: _Token, expected: str) -> ConfigError:
        return ConfigError(f"{self._file}:{token.line}: expected {expected}; got {token.text:.40}")


def _unquoted(token: str) -> str:
    """Return the text in a quoted token, whose escapes are those of C: bytes of UTF-8."""
    text = _ESCAPE.sub(_unescaped, token[1:-1])
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _unescaped(match: re.Match[str]) -> str:
    escape = match[1]
    if escape[0] in "uU" and len(escape) > 1:
        code = int(escape[1:], 16)
        return chr(code) if code < 0xD800 or 0xDFFF < code <= 0x10FFFF else "\ufffd"
    if escape[0] == "x":
        return _byte(int(escape[1:], 16)) if len(escape) > 1 else "x"
    if escape[0] in "01234567":
        return _byte(int(escape, 8) & 0xFF)
    return _ESCAPES.get(escape, escape)


def _byte(value: int) -> str:
    """Return a byte as a character; one that is no ASCII as `surrogateescape` has it."""
    return chr(value) if value < 0x80 else chr(0xDC00 + value)
