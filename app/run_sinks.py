"""Opens the sinks of a run: results, example pictures, recording and annotated video, as the configuration asks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from sagelink.models.pair import Pair
from sagelink.pipeline.config import Config, DashboardConfig
from sagelink.pipeline.config_file import dump_config
from sagelink.pipeline.connection_overhead import OverheadLog
from sagelink.pipeline.errors import UsageError
from sagelink.pipeline.output_files import PICTURES, RESULTS, SUMMARY
from sagelink.pipeline.types import Verdict
from sagelink.stages.capture import Capture
from sagelink.stages.sinks.annotate import AnnotatedVideos, Painter
from sagelink.stages.sinks.contract import Sink
from sagelink.stages.sinks.highlights import Highlights
from sagelink.stages.sinks.jsonl import JsonLines
from sagelink.stages.sinks.recording_writer import RecordingWriter


def open_output_sinks(
    config: Config, models: Pair, captures: Sequence[Capture], live: bool, overhead: OverheadLog
) -> Iterator[Sink]:
    """Yields each sink as soon as it is open, so that the caller can close it when the next one fails.

    Raises UsageError when an output cannot be written.
    """
    output, labels = config.output, models.edge.labels
    painter = Painter(labels, models.server.grid, config.capture.resize)
    try:
        if output.out is not None:
            _prepare_folder(output.out)
            yield JsonLines(output.out / RESULTS, labels)
            if output.pictures:
                yield Highlights(output.out / PICTURES, painter, output.pictures)
        if output.record is not None:
            # A replay of the recording must not open the dashboard to the same viewers.
            recorded = dump_config(config.model_copy(update={"dashboard": DashboardConfig()}))
            yield RecordingWriter(output.record, recorded, labels, live, overhead.take)
        if output.annotate is not None:
            output.annotate.parent.mkdir(parents=True, exist_ok=True)
            yield AnnotatedVideos(output.annotate, painter, len(captures) > 1)
    except OSError as error:
        raise UsageError(f"output cannot be written: {error}") from None


def _prepare_folder(out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    (out / SUMMARY).unlink(missing_ok=True)  # left by an earlier run into the same folder


class VerdictCallback:
    """A sink that passes each verdict to a function."""

    def __init__(self, watch: Callable[[Verdict], None]) -> None:
        self.write = watch

    def close(self) -> None:
        pass
