"""Opens the sinks of a run: results, example pictures, recording and annotated video, as the configuration asks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from sagelink.app.edge.disk import RunDisk
from sagelink.app.edge.heads import HeadsOfRun
from sagelink.app.replay.recorded_config import to_record
from sagelink.models.run_models import RunModels
from sagelink.pipeline.budget.wire_ledger import WireLedger
from sagelink.pipeline.config.schema import Config
from sagelink.pipeline.files.output_files import PICTURES, RESULTS, cannot_open
from sagelink.pipeline.types import Verdict
from sagelink.stages.sinks.annotate import AnnotatedVideos, Painter
from sagelink.stages.sinks.contract import Sink
from sagelink.stages.sinks.file_sink import FileSink
from sagelink.stages.sinks.highlights import Highlights
from sagelink.stages.sinks.jsonl import JsonLines
from sagelink.stages.sinks.recording_writer import RecordingWriter


def open_output_sinks(
    config: Config,
    models: RunModels,
    heads: HeadsOfRun,
    videos: Mapping[str, Path],
    live: bool,
    wire_ledger: WireLedger,
    disk: RunDisk,
    recorded: Mapping[str, bytes],
) -> Iterator[Sink]:
    """Yields each sink as soon as it is open, so that the caller can close it when the next one fails.

    `videos`: path of the annotated video of each camera. `recorded`: further files of a recording, by name. Raises
    SagelinkError when an output cannot be opened.
    """
    output, labels = config.output, models.edge.labels

    def head_content(fingerprint: bytes) -> bytes:
        head = heads.by_fingerprint(fingerprint)
        assert head is not None, "a frame was scored with a head that the run does not have"
        return head.file_content()

    def opened(path: Path, make: Callable[[Path], Sink], resumes: bool = True) -> Sink:
        try:
            return FileSink(make(path), path, disk.keeper, resumes)
        except OSError as error:
            raise cannot_open(path, error) from None

    painter = Painter(labels, models.server.grid, config.capture.resize)
    if output.out is not None:
        yield opened(output.out / RESULTS, lambda path: JsonLines(disk.lines(path), labels))
        if output.pictures:
            yield opened(output.out / PICTURES, lambda path: Highlights(path, painter, output.pictures))
    if output.record is not None:
        text, files = to_record(config)
        yield opened(
            output.record,
            lambda path: RecordingWriter(
                *(path, text, files | dict(recorded), labels, live, wire_ledger.take, head_content),
                *(output.rotate, disk.recording_keeper),
            ),
        )
    if output.annotate is not None:
        yield opened(output.annotate, lambda path: AnnotatedVideos(videos, painter), resumes=False)


class VerdictCallback:
    """A sink that passes each verdict to a function."""

    def __init__(self, watch: Callable[[Verdict], None]) -> None:
        self.write = watch

    def close(self) -> None:
        pass
