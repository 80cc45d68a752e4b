"""Names of backbones, for shells that complete them: those of segmentation-models-pytorch without loading torch."""

from __future__ import annotations

ENCODER_NAMES = (
    "resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "densenet121", "densenet161", "densenet169",
    "densenet201", "dpn107", "dpn131", "dpn68", "dpn68b", "dpn92", "dpn98", "efficientnet-b0", "efficientnet-b1",
    "efficientnet-b2", "efficientnet-b3", "efficientnet-b4", "efficientnet-b5", "efficientnet-b6",
    "efficientnet-b7", "inceptionresnetv2", "inceptionv4", "mit_b0", "mit_b1", "mit_b2", "mit_b3", "mit_b4",
    "mit_b5", "mobilenet_v2", "mobileone_s0", "mobileone_s1", "mobileone_s2", "mobileone_s3", "mobileone_s4",
    "resnext101_32x16d", "resnext101_32x32d", "resnext101_32x48d", "resnext101_32x4d", "resnext101_32x8d",
    "resnext50_32x4d", "se_resnet101", "se_resnet152", "se_resnet50", "se_resnext101_32x4d", "se_resnext50_32x4d",
    "senet154", "vgg11", "vgg11_bn", "vgg13", "vgg13_bn", "vgg16", "vgg16_bn", "vgg19", "vgg19_bn", "xception",
)  # fmt: skip
"""ResNets first; more are those of timm, as tu-NAME. A test compares them with the library."""


def names_beginning(text: str) -> list[str]:
    """Return the backbones whose names begin so; those of timm, a thousand, only after "tu-"."""
    if not text.startswith("tu-"):
        return [name for name in ENCODER_NAMES if name.startswith(text)]
    from timm import list_models

    return [name for model in list_models() if (name := f"tu-{model}").startswith(text)]
