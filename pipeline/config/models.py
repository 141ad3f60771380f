"""The configuration of the two models, and the pairs that have a name."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from sagelink.pipeline.accepted import Accepts
from sagelink.pipeline.config.section import Section


class PairDefaults(NamedTuple):
    """The names of the two models of a pair."""

    edge: str
    server: str


MODEL_PAIRS = {
    "deit": PairDefaults("deit_tiny_patch16_224.fb_in1k", "deit_base_patch16_224.fb_in1k"),
    "demo": PairDefaults("demo-edge", "demo-server"),
}
DEMO_LIMIT = (
    "the demo models only know 16 drawn classes; on pictures of a camera or a photograph their answers mean nothing"
)
Device = Annotated[str, Field(pattern=r"^(cpu|cuda(:\d+)?|mps)$"), Accepts("`cpu`, `cuda`, `cuda:N`, `mps`", "cuda:0")]


class ModelConfig(Section):
    """The model of one side (edge or server), and what computes it."""

    model: str = Field("", description="timm name, demo-edge or demo-server; empty: the one of the pair in `models`")
    checkpoint: Path | None = Field(None, description="safetensors file with the model's weights")
    labels: Path | None = Field(None, description="Text file with one class name per line")
    device: Device = Field("cpu", description="PyTorch device")
    runtime: Literal["auto", "torch", "openvino", "onnxruntime"] = Field(
        "auto",
        description="What computes the model. torch: PyTorch; openvino, onnxruntime: these packages, on the CPU; auto: "
        "the fastest that is installed and gives the answers of PyTorch, measured once per model and machine",
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto",
        description="Numbers that the runtime computes with. bf16 needs openvino and a CPU with bf16 instructions; "
        "auto: bf16 if the pictures in `calibration` confirm it, otherwise fp32",
    )
    calibration: Path | None = Field(
        None, description="Folder with 64 or more pictures of your cameras: `auto` compares runtimes on them"
    )
