"""What a run may keep on disk: `output.rotate` and `output.keep`."""

from __future__ import annotations

from pathlib import Path

from sagelink.app.run_folder import RECORDING_FILES, RUN_FILES
from sagelink.pipeline.config import OutputConfig
from sagelink.pipeline.disk_keeper import DiskKeeper
from sagelink.pipeline.output_files import EVENT_PICTURES, EVENTS, PICTURES, RESULTS, RUNS
from sagelink.pipeline.rotating_lines import RotatingLines, part_patterns


class RunDisk:
    """The files of lines in the output folder of a run."""

    def __init__(self, output: OutputConfig) -> None:
        self._rotate = output.rotate
        self.keeper: DiskKeeper | None = None
        if output.out is not None and output.keep is not None:
            parts = (*part_patterns(RESULTS), *part_patterns(EVENTS))
            earlier = (*RUN_FILES, *RECORDING_FILES, "*-[0-9]*.ts", f"{PICTURES}/*.jpg")
            patterns = [*parts, f"{EVENT_PICTURES}/*.jpg", *(f"{RUNS}/*/{name}" for name in earlier)]
            self.keeper = DiskKeeper(output.out, patterns, output.keep)

    def lines(self, path: Path) -> RotatingLines:
        """Opens a new file of lines. Raises OSError."""
        return RotatingLines(path, self._rotate, self.keeper)

    @property
    def lost(self) -> int:
        """Lines and pictures that a full disk did not take."""
        return 0 if self.keeper is None else self.keeper.lost
