"""Names the large packages that `deploy/edge-requirements.txt` leaves out, and how to get what needs them."""

from __future__ import annotations

from sagelink.pipeline.errors import UsageError

LEFT_OUT = {
    "torch": "PyTorch",
    "torchvision": "torchvision",
    "timm": "timm",
    "huggingface_hub": "the Hugging Face client",
    "matplotlib": "matplotlib",
}


def missing_package(error: BaseException) -> UsageError | None:
    """The error for a user, where a package is missing that a camera box does not have; None for any other error."""
    name = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    if name not in LEFT_OUT:
        return None
    return UsageError(
        f"this needs {LEFT_OUT[name]}, which is not installed here, as on a camera box; accepted here: `run` and "
        "`replay` with packed models (`sagelink pack`, key packed) and ship.server; everything else: on a machine with "
        "the whole program, pip install sagelink"
    )
