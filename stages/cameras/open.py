"""Opens a camera with the library that its configuration names."""

from __future__ import annotations

import logging
import time

from sagelink.pipeline.config.camera import CameraConfig
from sagelink.stages.cameras.contract import CameraConnection, OpencvDeclines, one_viewer
from sagelink.stages.cameras.fault_kinds import CameraFault
from sagelink.stages.cameras.supervisor import FaultKind

log = logging.getLogger(__name__)


def connect(config: CameraConfig) -> CameraConnection:
    """Opens the camera with the library that `config.backend` names. Raises CameraFault.

    PyAV replaces OpenCV where that would block other cameras, for senders that accept one connection only, and for
    streams that it would show wrongly: video files, which come by HTTP, may be mirrored, and OpenCV does not report it.
    Both attempts together take at most
    `open_timeout`.
    """
    if config.backend == "opencv" and not one_viewer(config.source):
        from sagelink.stages.cameras.with_opencv import OpencvConnection

        began_s = time.monotonic()
        try:
            return OpencvConnection(config)
        except OpencvDeclines as refusal:
            log.info("camera=%s event=backend backend=pyav reason=%r", config.name, str(refusal))
        left_s = config.open_timeout - (time.monotonic() - began_s)
        if left_s <= 0:
            raise CameraFault(FaultKind.TIMED_OUT)
        config = config.model_copy(update={"open_timeout": left_s})
    from sagelink.stages.cameras.with_pyav import PyavConnection

    return PyavConnection(config)
