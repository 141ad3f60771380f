"""The sub-label of an event as a message in the queue on disk: key is the event, content is label, score and camera."""

from __future__ import annotations

import json
from dataclasses import dataclass

from sagelink.pipeline.files.json_text import to_json
from sagelink.pipeline.files.outbox import OutboxItem

RECEIVER = "frigate"
ANSWERED = "answered"  # notes of events that are over


@dataclass(frozen=True, slots=True)
class SubLabel:
    """A finer name for the object of an event."""

    event: str
    label: str
    score: float  # probability
    camera: str  # of the event

    @classmethod
    def of(cls, item: OutboxItem) -> SubLabel:
        """From its message."""
        content = json.loads(item.content)
        return cls(item.key, content["label"], content["score"], content.get("camera", ""))

    def content(self) -> str:
        """For its message."""
        return to_json({"label": self.label, "score": self.score, "camera": self.camera})

    def differs(self, other: SubLabel) -> bool:
        """Whether another sub-label of the event is worth a message: by its label, or its score by 0.01."""
        return self.label != other.label or round(self.score, 2) != round(other.score, 2)
