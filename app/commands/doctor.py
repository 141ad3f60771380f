"""`sagelink doctor`: checks this machine, and prints one line per finding."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from importlib import metadata
from importlib.util import find_spec

from rich.text import Text

from sagelink.app.missing_package import LEFT_OUT
from sagelink.monitor.terminal.terminal import SafeConsole, outside

_PACKAGES = (
    "torch",
    "torchvision",
    "timm",
    "matplotlib",
    "numpy",
    "av",
    "pillow",
    "zstandard",
    "pydantic",
    "safetensors",
)
_OPENCV = ("opencv-python", "opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless")

Finding = tuple[bool, str, str]  # healthy, subject, detail


def print_diagnosis() -> bool:
    """Prints one line per finding; False when something must be repaired."""
    console = SafeConsole()
    healthy = True
    for check in (_versions, _opencv, _compute, _runtimes, _cameras, _models):
        for fine, subject, detail in check():
            healthy &= fine
            mark = Text("ok", "green") if fine else Text("fix", "red")
            console.print(
                Text.assemble(mark, " " * (5 - len(mark)), outside(f"{subject:<14} {detail}")), soft_wrap=True
            )
    return healthy


def _versions() -> Iterator[Finding]:
    yield True, "python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    box = _is_box()
    if box:
        yield True, "camera box", "without PyTorch: runs and replays with the models of `sagelink pack`"
    for name in ("sagelink", *_PACKAGES):
        try:
            yield True, name, metadata.version(name)
        except metadata.PackageNotFoundError:
            yield box and name in LEFT_OUT, name, "not installed"


def _opencv() -> Iterator[Finding]:
    """All OpenCV packages install into the folder cv2; two of them break each other silently."""
    installed = {dist.metadata["Name"].lower() for dist in metadata.distributions() if dist.metadata["Name"]}
    packages = sorted(installed & set(_OPENCV))
    if len(packages) > 1:
        yield False, "opencv", f"{' and '.join(packages)} overwrite each other: uninstall all of them, then install one"
        return
    try:
        import cv2
    except ImportError as error:
        yield False, "opencv", f"cannot be imported: {error}"
        return
    yield True, "opencv", f"{cv2.__version__} from {', '.join(packages) or 'outside pip'}"
    backends = [cv2.videoio_registry.getBackendName(number) for number in cv2.videoio_registry.getBackends()]
    yield "FFMPEG" in backends, "opencv video", ", ".join(backends)


def _is_box() -> bool:
    return find_spec("torch") is None


def _compute() -> Iterator[Finding]:
    from sagelink.pipeline.config.schema import Config

    yield True, "threads", f"{os.cpu_count()} cores; {Config().threads} per model by default"
    if _is_box():
        return
    import torch

    accelerators = [f"cuda:{i} {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        accelerators.append("mps")
    yield True, "accelerators", ", ".join(accelerators) or "none"


def _runtimes() -> Iterator[Finding]:
    """The runtimes of models, and what `edge.runtime=auto` and `server.runtime=auto` chose on this machine."""
    from sagelink.models.runtimes.compilers import COMPILERS, version_of

    if _is_box() and not any(map(version_of, COMPILERS.values())):
        yield False, "runtime", "none is installed: pip install onnxruntime, or openvino"
    for name, compiler in COMPILERS.items():
        if version := version_of(compiler):
            yield True, name, f"{version}, computes {', '.join(compiler.precisions())} on this CPU"
        else:
            yield True, name, f"not installed; pip install 'sagelink[{compiler.extra}]' makes models faster"
    if _is_box():
        return
    from sagelink.models.runtimes.choice import cached_choices

    newest = {(choice.role, choice.model): choice for choice in reversed(cached_choices())}
    for choice in newest.values():
        times = ", ".join(f"{name} {ms} ms" for name, ms in choice.milliseconds.items())
        yield True, f"{choice.role} runtime", f"{choice.model}: {choice.runtime} {choice.precision} ({times})"


def _cameras() -> Iterator[Finding]:
    from sagelink.stages.cameras.address import list_webcams

    yield True, "webcams", ", ".join(list_webcams()) or "none"


def _models() -> Iterator[Finding]:
    if _is_box():
        return
    from huggingface_hub.constants import HF_HUB_CACHE

    from sagelink.models.loading import DEMO_DIR, DEMO_MODELS, cached_file
    from sagelink.pipeline.config.models import MODEL_PAIRS

    missing = [name for name, role in DEMO_MODELS.items() if not (DEMO_DIR / f"{role}.safetensors").is_file()]
    yield not missing, "demo pair", f"missing: {', '.join(missing)}" if missing else "bundled"
    for name in MODEL_PAIRS["deit"][:2]:
        yield True, "model cache", f"{name}: {'cached' if cached_file(name) else 'not yet'} in {HF_HUB_CACHE}"
