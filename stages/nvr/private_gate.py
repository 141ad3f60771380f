"""Private gate: a frame that must not leave the site keeps its edge answer. Nothing of it reaches the later stages."""

from __future__ import annotations

from sagelink.pipeline.types import Drop, EdgeOnly, Scored


class PrivateGate:
    """The first stage of the chain that may send a frame."""

    async def process(self, scored: Scored) -> Scored | EdgeOnly:
        return EdgeOnly(scored, Drop.PRIVATE) if scored.frame.private else scored
