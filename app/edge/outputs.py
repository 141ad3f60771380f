"""Claims the outputs of a run before its sources are opened, and prepares them when it begins."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from glob import escape
from pathlib import Path

from sagelink.app.edge.folder import RECORDING_FILES, RUN_FILES, RunFolder
from sagelink.app.edge.summary import write_summary
from sagelink.pipeline.config.camera import CameraConfig
from sagelink.pipeline.config.schema import Config
from sagelink.pipeline.credentials import expand_variables
from sagelink.pipeline.files.disk_keeper import DiskKeeper
from sagelink.pipeline.files.output_files import check_output_file
from sagelink.stages.cameras.address import is_camera


class RunOutputs:
    """The output folder, the recording folder and the annotated videos of one run."""

    def __init__(self, config: Config, sources: Sequence[Path] = ()) -> None:
        """`sources`: files and folders that the run reads. Raises UsageError when an output cannot be written, or when
        writing it would destroy something."""
        self._out = config.output.out
        self._begun = False
        self._folders: list[tuple[RunFolder, list[str]]] = []
        cameras, annotate = config.all_cameras, config.output.annotate
        self.videos = video_paths(annotate, cameras)
        try:
            for path, files in _folders(config, self.videos.values()):
                self._folders.append((RunFolder(path, sources), files))
            for video in self.videos.values():
                from sagelink.stages.sinks.annotate import is_annotated_video

                check_output_file(video, is_annotated_video, "`sagelink run --annotate`", sources)
        except BaseException:
            self.release()
            raise

    def begin(self) -> None:
        """Moves what earlier runs left in the folders to their `runs/`. Raises SagelinkError."""
        for folder, files in self._folders:
            folder.begin(files)
        self._begun = True

    def write_summary(self, summary: Mapping[str, object], keeper: DiskKeeper | None = None) -> None:
        """Raises SagelinkError; with a `keeper`, not for a full disk. Does nothing before `begin`, or without an output
        folder."""
        if self._begun and self._out is not None:
            write_summary(self._out, summary, keeper)

    def release(self) -> None:
        """Lets other runs write the folders."""
        while self._folders:
            self._folders.pop()[0].release()


def source_files(cameras: Sequence[CameraConfig]) -> list[Path]:
    """The files and folders that cameras are read from."""
    sources = [expand_variables(camera.source) for camera in cameras]
    return [Path(source) for source in sources if not is_camera(source) and not source.startswith("synthetic:")]


def video_paths(annotate: Path | None, cameras: Sequence[CameraConfig]) -> dict[str, Path]:
    """The annotated video of each camera; with several cameras its name holds the camera's."""
    if annotate is None:
        return {}
    if len(cameras) == 1:
        return {cameras[0].name: annotate}
    return {camera.name: annotate.with_stem(f"{annotate.stem}-{camera.name}") for camera in cameras}


def _folders(config: Config, videos: Iterable[Path]) -> Iterator[tuple[Path, list[str]]]:
    """Each folder with the names that this run writes into it, as patterns; a folder before those inside it."""
    folders: dict[Path, tuple[Path, list[str]]] = {}  # by absolute path
    recorded = [*RECORDING_FILES, *(f"{camera.name}-[0-9]*.ts" for camera in config.all_cameras)]
    for path, files in ((config.output.out, [*RUN_FILES]), (config.output.record, recorded)):
        if path is not None:
            folders.setdefault(path.resolve(), (path, []))[1].extend(files)
    for video in videos:
        if (folder := video.parent.resolve()) in folders:
            folders[folder][1].append(escape(video.name))
    yield from (folders[path] for path in sorted(folders, key=lambda path: len(path.parts)))
