"""A server link that is observed passes everything on, and tells what it passed."""

from __future__ import annotations

from collections.abc import AsyncIterator

from sagelink.transport.camera_observer import ObservedLink
from sagelink.transport.link import CameraInfo, Message
from tests.transport.mqtt.test_console import Notes

INFO = CameraInfo(14, 16, "0123", 5.0)


class OneMessage:
    """A ServerLink with one camera and one message."""

    def __init__(self) -> None:
        self.cameras = {"node/door": INFO}
        self.replies: list[bytes] = []

    async def messages(self) -> AsyncIterator[Message]:
        yield Message("node/door", b"evidence", 1.0)

    async def reply(self, message: Message, data: bytes) -> bool:
        self.replies.append(data)
        return True


async def test_it_passes_on_and_tells() -> None:
    link, notes = OneMessage(), Notes()
    observed = ObservedLink(link, notes, lambda size: 10 * size)
    passed = [message async for message in observed.messages()]
    assert [message.data for message in passed] == [b"evidence"]
    assert [(message.data, bits) for message, bits in notes.messages] == [(b"evidence", 80)]
    assert notes.cameras == {"node/door": "online"}
    assert await observed.reply(passed[0], b"answer")
    assert link.replies == notes.replies == [b"answer"]
    assert observed.cameras is link.cameras
    link.cameras = {}
    observed._look()
    assert notes.cameras == {"node/door": "the connection ended"}
