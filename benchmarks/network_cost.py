"""What each part of a network costs, beside smp's networks of the same encoder.

    python benchmarks/network_cost.py [--backbones resnet18,tu-tf_efficientnet_lite0] [--size 256] [--batch 4]
        [--rounds 3] [--smoke]

Multiply-adds (GMAC) are counted by torch's FlopCounterMode, for one image, without gradients; they are exact, and the
same on all machines. Milliseconds are processor time of a batch on one thread, in training mode: forward, and forward
and backward. Processor time leaves out that others use the machine, too; all networks of a backbone take turns, and the
smallest of the rounds counts. "step of smp.Unet" divides by that of smp.Unet in the same run. The parts of a network
are timed forward, in evaluation mode. Prints two tables for each backbone and, last, one line of JSON.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import segmentation_models_pytorch as smp
import torch
from common import option_parser, print_json, table
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from geopsp.models.build import ModelSpec, build_network, count_parameters
from geopsp.models.network import SegmentationNetwork
from geopsp.training.presets import DECODER_WIDTH, PRESETS

CLASSES, BANDS = 6, 3
BACKBONES = "resnet18,tu-tf_efficientnet_lite0"
STRIDES, DEPTHS = (8, 16, 32), (5, 4, 3)
UNET = "smp.Unet"

Make = Callable[[str], nn.Module]


def ours(**fields: object) -> Make:
    """Return a function that builds our network on a backbone."""
    return lambda backbone: build_network(ModelSpec(backbone, BANDS, CLASSES, **fields))  # type: ignore[arg-type]


def theirs(kind: type[nn.Module]) -> Make:
    """Return a function that builds a network of smp on a backbone."""
    return lambda backbone: kind(backbone, encoder_weights=None, in_channels=BANDS, classes=CLASSES)


def preset(name: str) -> Make:
    """Return a function that builds the network of a preset."""
    chosen = PRESETS[name]
    return ours(
        output_stride=chosen.output_stride,
        encoder_depth=chosen.encoder_depth,
        decoder_width=chosen.decoder_width,
        decoder_stride=chosen.decoder_stride,
        pointrend=chosen.pointrend,
        aux="pixel" if chosen.aux_loss else "none",
    )


NEW = {"decoder_width": DECODER_WIDTH}
NETWORKS: dict[str, Make] = {
    UNET: theirs(smp.Unet),
    "smp.DeepLabV3Plus": theirs(smp.DeepLabV3Plus),
    "smp.FPN": theirs(smp.FPN),
    **{f"preset {name}": preset(name) for name in PRESETS},
    **{
        f"stride {stride}, {depth} stages": ours(output_stride=stride, encoder_depth=depth, **NEW)
        for depth in DEPTHS
        for stride in STRIDES
        if stride <= 2**depth
    },
    "stride 32, fixed widths (before)": ours(output_stride=32),
    "stride 16, fixed widths (before)": ours(output_stride=16),
    "stride 8, fixed widths (before)": ours(output_stride=8),
    "stride 32, U-Net to stride 4": ours(output_stride=32, decoder_stride=4, **NEW),
    "stride 32, no pyramid": ours(output_stride=32, pyramid_sizes=(), **NEW),
    "stride 32, auxiliary loss": ours(output_stride=32, aux="pixel", **NEW),
    "stride 32, PointRend": ours(output_stride=32, pointrend=True, **NEW),
}
"""Ours are PSPNets with the U-Net decoder."""

SPLIT = {f"stride {stride}": ours(output_stride=stride, aux="pixel", pointrend=True, **NEW) for stride in STRIDES}
"""Networks whose parts are measured one by one."""

REST = "valid mask, upsampling, joining"

SMOKE = (UNET, "preset fast", "stride 32, fixed widths (before)")


def main() -> None:
    parser = option_parser(__doc__)
    parser.add_argument("--backbones", default=BACKBONES)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    networks, split = NETWORKS, SPLIT
    if options.smoke:
        options.backbones, options.size, options.batch, options.rounds = "tu-test_resnet", 64, 1, 1
        networks, split = {name: NETWORKS[name] for name in SMOKE}, dict([*SPLIT.items()][-1:])
    torch.set_num_threads(1)
    torch.manual_seed(0)
    result: dict[str, float | str] = {}
    for backbone in options.backbones.split(","):
        result |= report(backbone, networks, split, options)
    print_json(result)


def report(
    backbone: str, networks: dict[str, Make], split: dict[str, Make], options: argparse.Namespace
) -> dict[str, float | str]:
    """Print both tables of a backbone; return what a step costs beside smp.Unet, by network."""
    image = torch.randn(options.batch, BANDS, options.size, options.size).contiguous(memory_format=torch.channels_last)
    built = {name: make(backbone).to(memory_format=torch.channels_last) for name, make in networks.items()}
    seconds = step_seconds(built, image, options.rounds)
    rows, result = [], {}
    for name, network in built.items():
        gmac, (forward, step) = count_gmac(network, image[:1]), seconds[name]
        ratio = step / seconds[UNET][1]
        rows.append([name, gmac, count_parameters(network) / 1e6, 1e3 * forward, 1e3 * step, ratio])
        result[f"{backbone}, {name}: of smp.Unet"] = ratio
    print(f"\n{backbone}: batches of {options.batch} images of {options.size} x {options.size} pixels\n")
    print(table(["network", "GMAC", "parameters, M", "forward ms", "step ms", "step of smp.Unet"], rows))
    rows = []
    for name, make in split.items():
        rows += [[name, *row] for row in parts(make(backbone), image, options.rounds)]
    print(f"\n{backbone}: the parts, with the auxiliary head (only in training) and PointRend\n")
    print(table(["network", "part", "GMAC", "parameters, M", "forward ms"], rows))
    return result


def step_seconds(networks: dict[str, nn.Module], image: Tensor, rounds: int) -> dict[str, tuple[float, float]]:
    """Return the seconds of forward, and of forward and backward; the smallest of rounds in which all take turns."""
    best: dict[str, tuple[float, float]] = {}
    for number in range(rounds + 1):  # the first warms up
        for name, network in networks.items():
            found = one_step(network.train(), image)
            if number:
                best[name] = tuple(map(min, found, best.get(name, found)))  # type: ignore[assignment]
    return best


def one_step(network: nn.Module, image: Tensor) -> tuple[float, float]:
    start = time.process_time()
    output = network(image)
    outputs = [output] if isinstance(output, Tensor) else [output.logits, output.aux, output.point_logits]
    loss = sum(part.square().mean() for part in outputs if part is not None)
    forward = time.process_time() - start
    loss.backward()
    step = time.process_time() - start
    network.zero_grad()
    return forward, step


def count_gmac(network: nn.Module, image: Tensor) -> float:
    """Return the multiply-adds of a forward pass in evaluation mode, in thousand millions."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.eval()(image)
    return counter.get_total_flops() / 2e9


def parts(network: SegmentationNetwork, image: Tensor, rounds: int) -> list[list[str | float]]:
    """Return name, GMAC, parameters in millions, and milliseconds forward of each part of our network."""
    network.eval().to(memory_format=torch.channels_last)
    named, valid = named_parts(network), torch.ones_like(image[:, :1])
    of_part = {id(module): name for name, modules in named.items() for module in modules}
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        gmac = {
            name: flops / 2e9 / len(image)
            for name, flops in one_pass(network, image, valid, of_part, counter.get_total_flops).items()
        }
    best: dict[str, float] = {}
    for _ in range(rounds + 1):
        with torch.no_grad():
            found = one_pass(network, image, valid, of_part, time.process_time)
        best = {name: min(seconds, best.get(name, seconds)) for name, seconds in found.items()}
    sizes = {name: sum(map(count_parameters, modules)) / 1e6 for name, modules in named.items()}
    return [[name, gmac[name], sizes.get(name, 0.0), 1e3 * seconds] for name, seconds in best.items()]


def named_parts(network: SegmentationNetwork) -> dict[str, list[nn.Module]]:
    """Return the modules of each part; the encoder's stages are those of ResNets and EfficientNets."""
    layers = dict(getattr(network.encoder, "model", network.encoder).named_children())
    if "layer1" in layers:
        stages = [
            [layers["conv1"]],
            *([layers[f"layer{number}"]] for number in range(1, 5) if f"layer{number}" in layers),
        ]
    else:
        blocks = list(layers["blocks"])
        stages = [[layers["conv_stem"], *blocks[:1]], blocks[1:2], blocks[2:3], blocks[3:5], blocks[5:]]
    decoder = network.decoder
    steps = zip(decoder.levels, decoder.reduce, decoder.blocks, strict=True)
    return {
        **{f"encoder, stage {number}": modules for number, modules in enumerate(stages, 1)},
        "context (pyramid)": [network.context],
        **{f"decoder, stride {2**level}": [reduce, block] for level, reduce, block in steps},
        "classifier": [decoder.classify],
        "auxiliary head": [network.aux],
        "PointRend": [network.pointrend],
    }


def one_pass(
    network: SegmentationNetwork, image: Tensor, valid: Tensor, of_part: dict[int, str], measure: Callable[[], float]
) -> dict[str, float]:
    """Return by how much `measure()` grows in each part of a forward pass, and in what is between them."""
    found: dict[str, float] = dict.fromkeys(of_part.values(), 0.0)
    since: list[float] = []

    def after(module: nn.Module, *_: object) -> None:
        found[of_part[id(module)]] += measure() - since.pop()

    hooks = []
    for module in network.modules():
        if id(module) in of_part:
            hooks.append(module.register_forward_pre_hook(lambda *_: since.append(measure())))
            hooks.append(module.register_forward_hook(after))
    start = measure()
    features = network.encoder(image)
    share = F.adaptive_avg_pool2d(valid, features[-1].shape[-2:])
    coarse, fine = network.decoder(network.context(features[-1], share), features)
    F.interpolate(coarse.float(), image.shape[-2:], mode="bilinear")
    whole = measure() - start
    found[REST] = whole - sum(found.values())
    network.aux(features[-2], F.adaptive_avg_pool2d(valid, features[-2].shape[-2:]))
    start = measure()
    network.pointrend.refine(coarse, fine, valid)
    found["PointRend"] = measure() - start
    for hook in hooks:
        hook.remove()
    return found


if __name__ == "__main__":
    main()
