"""Commands of an operator to an edge: a change of a camera's settings or of its head (docs/wire.md). Pure: no I/O.

`encode_command` and `encode_outcome` make the messages; both travel with a MAC. `CommandReceiver` is the edge's side:
it assembles a pushed head, and ignores a command that it has carried out before.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum

from sagelink.transport.envelope import MalformedMessage, MessageKind, open_message, seal_message
from sagelink.transport.head_messages import FINGERPRINT_BYTES, MAX_HEAD_BYTES, HeadAssembly, HeadPart

_COMMAND = struct.Struct("!QB")  # number, action
_NAME = struct.Struct("!B")  # bytes of the name of a further head, then the name; not in a change of settings
_PUSH = struct.Struct(f"!{FINGERPRINT_BYTES}sII")  # fingerprint, bytes of the file, offset; then the part
_OUTCOME = struct.Struct("!QB")  # number, whether it was carried out; then text
_PUSH_BYTES = 4000  # of a head file in one part: the downlink is not the thin side
_MAX_CHANGE = 512  # bytes of the settings in a command
_MAX_TEXT = 1000  # bytes of an outcome's text


class Action(IntEnum):
    PUSH = 1
    RESTORE = 2
    SHOW = 3
    CHANGE = 4  # of settings


@dataclass(frozen=True, slots=True)
class OperatorCommand:
    """A command, or a part of a push."""

    number: int  # rises from command to command; all parts of a push have one
    action: Action
    part: HeadPart | None = None  # of a push
    change: bytes = b""  # JSON object of the settings to change
    head: str = ""  # name of a further head, which the command is about; empty: the first head


@dataclass(frozen=True, slots=True)
class CommandOutcome:
    """What the edge answers to a command."""

    number: int
    done: bool
    text: str  # what holds now, or why nothing changed


def encode_command(command: OperatorCommand) -> bytes:
    content = _COMMAND.pack(command.number, command.action) + command.change
    if command.action is not Action.CHANGE:
        name = command.head.encode()
        content += _NAME.pack(len(name)) + name
    if command.part is not None:
        part = command.part
        content += _PUSH.pack(part.fingerprint, part.total_bytes, part.offset) + part.data
    return seal_message(MessageKind.COMMAND, content)


def decode_command(data: bytes) -> OperatorCommand:
    """Raises MalformedMessage."""
    opened = open_message(data, MessageKind.COMMAND, _COMMAND)
    number, action = opened.fields
    if action not in set(Action):
        raise MalformedMessage(f"action {action} of a command")
    rest = opened.rest
    if action == Action.CHANGE:
        if len(rest) > _MAX_CHANGE:
            raise MalformedMessage(f"a change of {len(rest)} bytes; accepted: up to {_MAX_CHANGE}")
        return OperatorCommand(number, Action.CHANGE, change=rest)
    head, rest = _split_name(rest)
    if action != Action.PUSH:
        return OperatorCommand(number, Action(action), head=head)
    if len(rest) <= _PUSH.size:
        raise MalformedMessage("a push without a part")
    fingerprint, total_bytes, offset = _PUSH.unpack_from(rest)
    part = HeadPart(fingerprint, total_bytes, offset, rest[_PUSH.size :])
    if not 0 < total_bytes <= MAX_HEAD_BYTES or len(part.data) > _PUSH_BYTES or offset + len(part.data) > total_bytes:
        raise MalformedMessage(f"{len(part.data)} bytes at {offset} of a head of {total_bytes} bytes")
    return OperatorCommand(number, Action.PUSH, part, head=head)


def _split_name(data: bytes) -> tuple[str, bytes]:
    """The name of a head at the start of `data`, and the rest. Raises MalformedMessage."""
    end = _NAME.size + (data[0] if data else 0)
    if not data or len(data) < end:
        raise MalformedMessage("a command about a head without the name of the head")
    try:
        return data[_NAME.size : end].decode(), data[end:]
    except UnicodeDecodeError:
        raise MalformedMessage("the name of a head is not UTF-8") from None


def encode_outcome(outcome: CommandOutcome) -> bytes:
    content = _OUTCOME.pack(outcome.number, outcome.done) + outcome.text.encode()[:_MAX_TEXT]
    return seal_message(MessageKind.OUTCOME, content)


def decode_outcome(data: bytes) -> CommandOutcome:
    """Raises MalformedMessage."""
    opened = open_message(data, MessageKind.OUTCOME, _OUTCOME)
    number, done = opened.fields
    return CommandOutcome(number, done == 1, opened.rest[:_MAX_TEXT].decode(errors="replace"))


def push_commands(number: int, fingerprint: bytes, content: bytes, head: str = "") -> Iterator[OperatorCommand]:
    """The commands that push a head file. `head`: name of the further head that it replaces."""
    for offset in range(0, len(content), _PUSH_BYTES):
        part = HeadPart(fingerprint, len(content), offset, content[offset : offset + _PUSH_BYTES])
        yield OperatorCommand(number, Action.PUSH, part, head=head)


class CommandReceiver:
    """The commands to one camera. `carry_out` gets the action, the content of a pushed head file or of a change, and
    the name of a further head (empty: the first); it returns what holds now, and raises ValueError with the reason why
    nothing changed."""

    def __init__(self, carry_out: Callable[[Action, bytes, str], str]) -> None:
        self._carry_out = carry_out
        self._done = -1  # number of the newest command that was carried out or refused
        self._number = -1  # of the push that arrives
        self._assembly: HeadAssembly | None = None

    def take(self, command: OperatorCommand) -> CommandOutcome | None:
        """Takes an authentic command. None while parts are missing, and for a command that was taken before."""
        if command.number <= self._done or command.number < self._number:
            return None
        content: bytes | None = command.change
        if command.part is not None:
            if self._assembly is None or command.number > self._number:
                self._number = command.number
                self._assembly = HeadAssembly(command.part.fingerprint, command.part.total_bytes)
            try:
                content = self._assembly.add(command.part)
            except MalformedMessage as error:
                return self._end(command.number, False, str(error))
        if content is None:
            return None
        try:
            return self._end(command.number, True, self._carry_out(command.action, content, command.head))
        except ValueError as error:
            return self._end(command.number, False, str(error))

    def _end(self, number: int, done: bool, text: str) -> CommandOutcome:
        self._done, self._assembly = number, None
        return CommandOutcome(number, done, text)
