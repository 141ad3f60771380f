"""Runs the exported edge pass in OpenVINO or ONNX Runtime, on the CPU: the same results as `vit.score`, in less time.

Both packages are optional. A pass computes one picture after the other: on a CPU a batch saves nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import metadata
from importlib.util import find_spec
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from timm.models.vision_transformer import VisionTransformer

from sagelink.models import vit
from sagelink.models.edge_export import INPUTS, OUTPUTS, ExportError, classifier_of, exported
from sagelink.models.loading import Model
from sagelink.models.readout import linear_reads
from sagelink.pipeline.types import Pixels

log = logging.getLogger(__name__)

Precision = Literal["fp32", "bf16"]
Floats = NDArray[np.float32]
Session = Callable[[Sequence[NDArray[Any]]], Sequence[Floats]]  # values of INPUTS to values of OUTPUTS


class UnusableError(Exception):
    """A runtime cannot be used on this machine, or not for this model; the message says why."""


class Compiler(Protocol):
    """A runtime that can load the exported graph."""

    package: str  # distribution and module that it needs
    extra: str  # `pip install sagelink[EXTRA]`

    def precisions(self) -> tuple[Precision, ...]:
        """What this CPU can compute with it."""
        ...

    def compile(self, content: bytes, precision: Precision, threads: int) -> Session: ...


class OpenVino:
    package, extra = "openvino", "openvino"

    def precisions(self) -> tuple[Precision, ...]:
        import openvino

        capable = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        return ("fp32", "bf16") if "BF16" in capable else ("fp32",)

    def compile(self, content: bytes, precision: Precision, threads: int) -> Session:
        import openvino

        core = openvino.Core()
        options = {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
        }
        compiled = core.compile_model(core.read_model(content), "CPU", options)
        request = compiled.create_infer_request()
        names = [given.any_name for given in compiled.inputs]

        def run(values: Sequence[NDArray[Any]]) -> Sequence[Floats]:
            found = request.infer(_named(values, names), share_inputs=True)
            return [np.array(found[name]) for name in OUTPUTS]

        return run


class OnnxRuntime:
    package, extra = "onnxruntime", "onnx"

    def precisions(self) -> tuple[Precision, ...]:
        return ("fp32",)

    def compile(self, content: bytes, precision: Precision, threads: int) -> Session:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # idle threads leave their core
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        names = [given.name for given in session.get_inputs()]

        def run(values: Sequence[NDArray[Any]]) -> Sequence[Floats]:
            found: Sequence[Floats] = session.run([*OUTPUTS], _named(values, names))
            return found

        return run


def _named(values: Sequence[NDArray[Any]], names: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Only the importance `gradient` reads the classifier."""
    return {name: value for name, value in zip(INPUTS, values, strict=True) if name in names}


COMPILERS: dict[str, Compiler] = {"openvino": OpenVino(), "onnxruntime": OnnxRuntime()}


def version_of(compiler: Compiler) -> str | None:
    """The installed version; None if it is not installed."""
    if find_spec(compiler.package) is None:
        return None
    try:
        return metadata.version(compiler.package)
    except metadata.PackageNotFoundError:
        return "unknown"


class CompiledPass:
    """The edge pass of one backbone in a compiled runtime. Not thread-safe.

    A kind of importance, and of classifier, is compiled when it is first used.
    """

    def __init__(self, runtime: str, precision: Precision, threads: int, backbone: Model) -> None:
        self.runtime = runtime
        self.precision = precision
        self._threads = threads
        self._backbone = backbone
        self._sessions: dict[tuple[vit.Importance, str | None], Session | None] = {}

    def __call__(self, network: VisionTransformer, pictures: Pixels, importance: vit.Importance) -> vit.Features:
        """As `vit.score`. `network`: the backbone with any classifier. `pictures`: RGB uint8 (B, S, S, 3).

        A classifier that the exported graph cannot take is computed by PyTorch; the log says so once.
        """
        run = self._session(network, importance)
        if run is None:
            return vit.score(network, self._backbone.normalise(pictures), importance)
        weight, bias = (value.detach().numpy() for value in classifier_of(network))
        found = [run([picture[None], weight, bias]) for picture in pictures]
        tokens, units = (torch.from_numpy(np.concatenate(values)) for values in zip(*found, strict=True))
        return vit.features_of_pass(network, tokens, units)

    def take_classifier(self, network: VisionTransformer) -> None:
        """Compiles, if needed, what the next call with this classifier needs: here it delays no frame."""
        for importance in {importance for importance, _ in self._sessions}:
            self._session(network, importance)

    def _session(self, network: VisionTransformer, importance: vit.Importance) -> Session | None:
        key = importance, linear_reads(network)
        if key not in self._sessions:
            try:
                self.prepare(network, importance)
            except (ExportError, UnusableError) as error:
                log.warning(
                    "model=%s runtime=%s event=not_used reason=%r", self._backbone.name, self.runtime, str(error)
                )
                self._sessions[key] = None
        return self._sessions[key]

    def prepare(self, network: VisionTransformer, importance: vit.Importance) -> None:
        """Compiles the pass for a kind of importance and of classifier. Raises ExportError or UnusableError."""
        content = exported(replace(self._backbone, vit=network), importance)
        try:
            session = COMPILERS[self.runtime].compile(content, self.precision, self._threads)
        except Exception as error:  # each runtime has its own kinds
            raise UnusableError(f"{type(error).__name__}: {str(error).strip().splitlines()[0][:200]}") from error
        self._sessions[importance, linear_reads(network)] = session
