"""The bundled demo pair: two small ViTs trained by `sagelink.lab.train_demo` on the synthetic world."""

from __future__ import annotations

from timm.models.vision_transformer import VisionTransformer

IMAGE_SIZE = 112
PATCH_SIZE = 8
NUM_CLASSES = 16
ARCHITECTURES = {
    "edge": {"embed_dim": 64, "depth": 4, "num_heads": 2},
    "server": {"embed_dim": 128, "depth": 6, "num_heads": 4},
}


PICTURE = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "interpolation": "bicubic", "crop_pct": 1.0}


def build(role: str) -> VisionTransformer:
    """An untrained model of the pair; `role` is a key of ARCHITECTURES."""
    model = VisionTransformer(
        img_size=IMAGE_SIZE, patch_size=PATCH_SIZE, num_classes=NUM_CLASSES, **ARCHITECTURES[role]
    )
    model.pretrained_cfg = {"input_size": (3, IMAGE_SIZE, IMAGE_SIZE), **PICTURE}  # read by timm.data
    return model
