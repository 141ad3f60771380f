"""The runtimes that can load an exported graph: OpenVINO and ONNX Runtime, on the CPU. Both packages are optional."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from importlib.util import find_spec
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Precision = Literal["fp32", "bf16"]
Floats = NDArray[np.float32]
Session = Callable[
    [Mapping[str, NDArray[Any]]], Sequence[Floats]
]  # inputs by name to outputs; unknown names are ignored


class UnusableError(Exception):
    """A runtime cannot be used on this machine, or not for this model; the message says why."""


class Compiler(Protocol):
    """A runtime that can load an exported graph."""

    package: str  # distribution and module that it needs
    extra: str  # `pip install sagelink[EXTRA]`

    def precisions(self) -> tuple[Precision, ...]:
        """What this CPU can compute with it."""
        ...

    def compile(self, content: bytes, precision: Precision, threads: int) -> Session:
        """A thread-safe session of an ONNX model. Raises exceptions of the package."""
        ...


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
            "ENABLE_CPU_PINNING": False,  # pinned, all models of a machine run on its first core
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
        }
        compiled = core.compile_model(core.read_model(content), "CPU", options)
        request, lock = compiled.create_infer_request(), threading.Lock()
        names = [given.any_name for given in compiled.inputs]

        def run(values: Mapping[str, NDArray[Any]]) -> Sequence[Floats]:
            with lock:
                found = request.infer({name: values[name] for name in names}, share_inputs=True)
                return [np.array(found[output]) for output in compiled.outputs]

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
        session._model_bytes = None  # kept for a fallback to other providers: there is one, and they are the whole file
        names = [given.name for given in session.get_inputs()]

        def run(values: Mapping[str, NDArray[Any]]) -> Sequence[Floats]:
            found: Sequence[Floats] = session.run(None, {name: values[name] for name in names})
            return found

        return run


COMPILERS: dict[str, Compiler] = {"openvino": OpenVino(), "onnxruntime": OnnxRuntime()}


def compiled(runtime: str, content: bytes, precision: Precision, threads: int) -> Session:
    """A session of an exported graph. Raises UnusableError."""
    try:
        return COMPILERS[runtime].compile(content, precision, threads)
    except Exception as error:  # each runtime has its own kinds
        raise UnusableError(f"{type(error).__name__}: {str(error).strip().splitlines()[0][:200]}") from error


def version_of(compiler: Compiler) -> str | None:
    """The installed version; None if it is not installed."""
    if find_spec(compiler.package) is None:
        return None
    try:
        return metadata.version(compiler.package)
    except metadata.PackageNotFoundError:
        return "unknown"
