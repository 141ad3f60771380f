"""What a run may keep on disk: `output.rotate` and `output.keep`."""

from __future__ import annotations

from pathlib import Path

from sagelink.app.edge.folder import PART_FILES, RECORDING_FILES, RUN_FILES
from sagelink.pipeline.config.output import OutputConfig
from sagelink.pipeline.files.disk_keeper import DiskKeeper
from sagelink.pipeline.files.output_files import EVENT_PICTURES, PARTS, PICTURES, RUNS
from sagelink.pipeline.files.rotating_lines import RotatingLines

_CLOSED_PART = f"{PARTS}/{'[0-9]' * 6}"  # folder of a part of a recording


class RunDisk:
    """The files in the folders of a run that rotate, and what deletes them."""

    def __init__(self, output: OutputConfig) -> None:
        self._rotate = output.rotate
        self.keeper: DiskKeeper | None = None
        self.recording_keeper: DiskKeeper | None = None
        files = {*RUN_FILES, *RECORDING_FILES} - {PICTURES, PARTS}
        earlier = (*files, "*-[0-9]*.ts", f"{PICTURES}/*.jpg", f"{PARTS}/*")
        patterns = [*PART_FILES, f"{EVENT_PICTURES}/*.jpg", _CLOSED_PART, *(f"{RUNS}/*/{name}" for name in earlier)]
        if output.out is not None and output.keep is not None:
            self.keeper = DiskKeeper(output.out, patterns, output.keep)
        if output.record is not None and output.keep is not None:
            same = output.out is not None and output.out.resolve() == output.record.resolve()
            self.recording_keeper = self.keeper if same else DiskKeeper(output.record, patterns, output.keep)

    def lines(self, path: Path) -> RotatingLines:
        """Opens a new file of lines. Raises OSError."""
        return RotatingLines(path, self._rotate, self.keeper)

    @property
    def lost(self) -> int:
        """Lines and pictures that a full disk did not take."""
        return sum(keeper.lost for keeper in {self.keeper, self.recording_keeper} if keeper is not None)
