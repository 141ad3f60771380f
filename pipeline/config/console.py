"""The configuration of the console, and of what an edge sends for it."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from sagelink.pipeline.quantities import Duration, Size

DIGEST_MIN_BPS = 8000  # below it, an edge sends a digest only with `console.digest: true`


class ConsoleConfig(BaseModel):
    """`sagelink console`: a page of all cameras, beside the servers. Its tokens come from SAGELINK_CONSOLE_VIEW_TOKEN
    and SAGELINK_CONSOLE_CONTROL_TOKEN."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    http: str = Field(
        "127.0.0.1:8700",
        description="host:port of the page; other machines can reach it only with a token",
    )
    digest: bool | None = Field(
        None,
        description="Edge: over MQTT, messages of a live run also hold the edge's own answer (4 bytes), and once a "
        "minute each camera sends its counts, budget and settings (about 400 bytes on the wire). Both are charged; "
        "empty: true for a budget of at least 8 kbit/s",
    )
    store: Path | None = Field(
        None, description="Folder for evidence, answers, events and changes, to search them; empty: nothing is stored"
    )
    keep: Duration = Field(30 * 86_400.0, description="Age at which stored data is deleted")
    size: Size = Field(
        2_000_000_000,
        description="Maximum size of the stored data; beyond it, the oldest evidence of the node with the most goes",
    )
