"""The server stage: evidence bytes in, reply bytes out, and the graph that serves a link with it."""

from __future__ import annotations

import logging
import time

from pipeline.graph import Graph
from pipeline.threads import InThread
from pipeline.types import Reply
from server.classify import Classifier
from server.receive import receive
from transport.link import Message, ServerLink
from transport.wire import MalformedMessage, encode_reply, peek_seq

log = logging.getLogger(__name__)


class Answerer:
    """Decodes, classifies and replies. Blocking. Every message whose frame can be told gets a reply."""

    def __init__(self, classifier: Classifier) -> None:
        self._classifier = classifier

    def __call__(self, message: Message) -> tuple[str, bytes] | None:
        """The address and bytes of the reply."""
        reply = self._answer(message.data)
        return None if reply is None else (message.sender, encode_reply(reply))

    def _answer(self, message: bytes) -> Reply | None:
        began = time.perf_counter()
        try:
            received = receive(message, self._classifier.canvas)
            ((classes, log_probs),) = self._classifier([received])
        except MalformedMessage as error:
            return _refusal(message, str(error))
        except RuntimeError as error:  # out of memory, a lost device: this frame fails, the server lives
            log.warning("stage=server event=failed error=%r", str(error))
            return _refusal(message, "the server failed on this frame")
        server_ms = (time.perf_counter() - began) * 1e3
        return Reply(received.seq, None, classes, log_probs, len(received.units), server_ms)


def _refusal(message: bytes, reason: str) -> Reply | None:
    seq = peek_seq(message)
    if seq is None:
        log.warning("stage=server event=malformed reason=%r", reason)
        return None
    return Reply(seq, reason, (), (), 0, 0.0)


class _Send:
    def __init__(self, link: ServerLink) -> None:
        self._link = link

    async def process(self, reply: tuple[str, bytes]) -> None:
        await self._link.reply(*reply)


def server_graph(link: ServerLink, classifier: Classifier) -> Graph:
    """receive -> decode and classify -> reply, until the link is closed."""
    graph = Graph()
    messages = graph.source(link.messages(), name="receive")
    replies = graph.stage(InThread("server", Answerer(classifier)), messages, name="classify")
    graph.stage(_Send(link), replies, name="reply")
    return graph
