"""Opens a camera with the library that its configuration names."""

from __future__ import annotations

import contextlib
import logging

from sagelink.pipeline.config import CameraConfig
from sagelink.stages.cameras.contract import CameraConnection, OpencvBusy

log = logging.getLogger(__name__)


def connect(config: CameraConfig) -> CameraConnection:
    """Opens the camera with the library that `config.backend` names, or with PyAV while OpenCV is busy.

    Raises CameraFault.
    """
    if config.backend == "opencv":
        from sagelink.stages.cameras.with_opencv import OpencvConnection

        with contextlib.suppress(OpencvBusy):
            return OpencvConnection(config)
        log.info("camera=%s event=opencv_busy backend=pyav", config.name)
    from sagelink.stages.cameras.with_pyav import PyavConnection

    return PyavConnection(config)
