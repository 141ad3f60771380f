"""Classifies camera errors: from the many errors of FFmpeg to one of a few kinds. OpenCV reports no reasons at all."""

from __future__ import annotations

import errno
import time

import av

from sagelink.pipeline.credentials import redact
from sagelink.stages.cameras.probe import probe
from sagelink.stages.cameras.supervisor import FaultKind

_KIND_BY_ERROR: list[tuple[type[Exception], FaultKind]] = [
    (av.error.HTTPUnauthorizedError, FaultKind.UNAUTHORISED),
    (av.error.HTTPForbiddenError, FaultKind.UNAUTHORISED),
    (av.error.HTTPNotFoundError, FaultKind.NOT_FOUND),
    (FileNotFoundError, FaultKind.NOT_FOUND),
    (ConnectionRefusedError, FaultKind.REFUSED),
    (av.error.ExitError, FaultKind.TIMED_OUT),  # our own time limit interrupted FFmpeg
    (TimeoutError, FaultKind.TIMED_OUT),
    (av.error.EOFError, FaultKind.END_OF_FILE),
    (ConnectionError, FaultKind.END_OF_FILE),
    (av.error.InvalidDataError, FaultKind.CODEC),
    (av.error.DecoderNotFoundError, FaultKind.CODEC),
]
_UNREACHABLE = {errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.EADDRNOTAVAIL}
_PROBE_S = 2.0


class CameraFault(Exception):
    """The connection to a camera has failed and cannot be used any more. The message holds no credentials."""

    def __init__(self, kind: FaultKind, detail: str = "") -> None:
        super().__init__(f"{kind}: {redact(detail)}" if detail else str(kind))
        self.kind = kind


def classify(error: Exception, address: str, late: bool) -> CameraFault:
    """The fault that an error of FFmpeg stands for; `late`: the time limit was reached, which overrides the error.

    Where FFmpeg reports only `I/O error`, the address is probed for the reason.
    """
    kind = next((kind for error_type, kind in _KIND_BY_ERROR if isinstance(error, error_type)), FaultKind.FAILED)
    code = getattr(error, "errno", None)
    if late:
        return CameraFault(FaultKind.TIMED_OUT)
    if code in _UNREACHABLE:
        kind = FaultKind.UNREACHABLE
    elif kind is FaultKind.FAILED and code == errno.EIO and "://" in address:
        kind = probe(address, _PROBE_S).fault or kind
    return CameraFault(kind, getattr(error, "strerror", None) or str(error))


def diagnose(address: str, timeout_s: float, options: dict[str, str]) -> CameraFault:
    """Finds out why a URL that answers cannot be opened, by opening it once more with FFmpeg."""
    began_s = time.monotonic()
    try:
        with av.open(address, options=options, timeout=timeout_s) as container:
            if not container.streams.video:
                return CameraFault(FaultKind.CODEC, "no video stream")
    except (av.FFmpegError, OSError, ValueError, IndexError) as error:
        return classify(error, address, late=time.monotonic() - began_s >= timeout_s)
    return CameraFault(FaultKind.FAILED, "the first attempt failed and the second succeeded")
