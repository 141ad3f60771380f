"""Opens a camera with the library that its configuration names."""

from __future__ import annotations

import logging

from sagelink.pipeline.config import CameraConfig
from sagelink.stages.cameras.contract import CameraConnection, OpencvBusy, OpencvUnfit

log = logging.getLogger(__name__)

_MAY_MIRROR = ("http://", "https://")


def connect(config: CameraConfig) -> CameraConnection:
    """Opens the camera with the library that `config.backend` names. Raises CameraFault.

    PyAV replaces OpenCV while that is busy, and for streams that it would show wrongly: video files, which come by
    HTTP, may be mirrored, and OpenCV does not tell.
    """
    if config.backend == "opencv" and not config.source.startswith(_MAY_MIRROR):
        from sagelink.stages.cameras.with_opencv import OpencvConnection

        try:
            return OpencvConnection(config)
        except OpencvBusy:
            log.info("camera=%s event=opencv_busy backend=pyav", config.name)
        except OpencvUnfit as reason:
            log.info("camera=%s event=opencv_unfit reason=%r backend=pyav", config.name, str(reason))
    from sagelink.stages.cameras.with_pyav import PyavConnection

    return PyavConnection(config)
