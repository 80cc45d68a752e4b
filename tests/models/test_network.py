"""Every composition of the parts in training, in use, compiled and exported; what decides their shapes."""

from __future__ import annotations

import pytest
import torch
from common import examples, slow
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from geopsp.errors import ModelError
from geopsp.models.aux_heads import PresenceHead
from geopsp.models.build import build_network, count_parameters
from geopsp.models.context import ASPP, Bottleneck, PyramidPooling
from geopsp.models.decoder import DecoderInput
from geopsp.models.device import device_name, pick_device
from geopsp.models.encoder import RESNETS
from geopsp.models.network import SegmentationNetwork, TrainingOutput
from geopsp.models.parts import DECODERS
from geopsp.models.spec import ATROUS_RATES, AUX_HEADS, ModelSpec, check_tile_size

QUICK = settings(max_examples=examples(12), deadline=None)

TINY = "tu-test_resnet"

COMPOSITIONS = {
    "pspnet, unet of the encoder's widths, points": {
        "decoder": "unet", "decoder_width": 256, "decoder_stride": 4, "output_stride": 32, "pointrend": True,
    },
    "fcn": {"pyramid_sizes": (), "decoder": "plain", "aux": "presence"},
    "pspnet": {"decoder": "plain", "aux": "pixel"},
    "pspnet, points": {"decoder": "plain", "pointrend": True},
    "pspnet, unet": {"decoder": "unet", "aux": "presence"},
    "pspnet, unet, points": {"decoder": "unet", "aux": "pixel", "pointrend": True},
    "unet": {"pyramid_sizes": (), "decoder": "unet", "output_stride": 32, "aux": "presence"},
    "pspnet on three stages": {"decoder": "unet", "aux": "pixel", "encoder_depth": 3},
    "deeplab": {"pyramid_sizes": (), "atrous_rates": ATROUS_RATES[16], "decoder": "deeplab", "output_stride": 16},
    "deeplab of 2017": {
        "pyramid_sizes": (), "atrous_rates": (6, 12, 18, 24), "decoder": "atrous", "pointrend": True, "aux": "pixel",
    },
    "deeplab, points": {
        "pyramid_sizes": (), "atrous_rates": ATROUS_RATES[8], "decoder": "deeplab", "aux": "pixel", "pointrend": True,
    },
}  # fmt: skip


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)
    torch.compiler.reset()


def composed(name, bands=3):
    return build_network(ModelSpec(TINY, bands, 3, **COMPOSITIONS[name]))


def traced(name):
    """With two bins in place of four, which is quicker to trace."""
    fewer = {"pyramid_sizes": (1, 3)} if COMPOSITIONS[name].get("pyramid_sizes", True) else {}
    return build_network(ModelSpec(TINY, 3, 3, **COMPOSITIONS[name] | fewer))


every_composition = pytest.mark.parametrize("name", COMPOSITIONS)
RICHEST = "pspnet, unet, points"
"""What torch has the most trouble with."""
but_one_slow = pytest.mark.parametrize("name", [name if name == RICHEST else slow(name) for name in COMPOSITIONS])


def tensors(output):
    return [part for part in output if part is not None]


# ---- training and use


def check_training_at_batch_one(network, spec, size=(65, 97)):
    output = network.train()(torch.randn(1, spec.bands, *size))
    shapes = {"none": None, "pixel": (1, spec.classes, *size), "presence": (1, spec.classes)}
    assert output.logits.shape == (1, spec.classes, *size)
    assert (output.aux if output.aux is None else output.aux.shape) == shapes[spec.aux]
    assert (output.points is not None) == (output.point_logits is not None) == spec.pointrend
    sum(part.square().mean() for part in tensors(output)).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


@every_composition
def test_every_composition_trains_a_batch_of_one_and_gives_logits_at_odd_sizes(name):
    network = composed(name, bands=4)
    check_training_at_batch_one(network, ModelSpec(TINY, 4, 3, **COMPOSITIONS[name]))
    with torch.inference_mode():
        logits = network.eval()(torch.randn(2, 4, 37, 53))
    assert logits.shape == (2, 3, 37, 53)
    assert logits.dtype == torch.float32
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize("name", ["tu-test_convnext", *map(slow, ("mit_b0", "mobilenet_v2", "tu-resnet10t"))])
def test_other_families_train_with_every_decoder(name):
    """The first has no map at stride 2."""
    for kind in ("pspnet, unet, points", "deeplab, points"):
        spec = ModelSpec(name, 2, 3, **COMPOSITIONS[kind])
        network = build_network(spec)
        output = network.train()(torch.randn(1, 2, 64, 96))
        sum(part.sum() for part in tensors(output)).backward()
        with torch.inference_mode():
            assert network.eval()(torch.randn(1, 2, 64, 96)).shape == (1, 3, 64, 96)


@pytest.mark.parametrize("aux", ["pixel", "presence"])
def test_the_auxiliary_loss_alone_trains_the_encoder(aux):
    """In arcgis.learn its hook detaches, so that it never does."""
    network = build_network(ModelSpec("resnet18", 3, 3, aux=aux)).train()
    network(torch.randn(1, 3, 64, 64)).aux.square().sum().backward()
    state = dict(network.named_parameters())
    assert state["encoder.conv1.weight"].grad.abs().sum() > 0
    assert state["encoder.layer3.1.conv2.weight"].grad.abs().sum() > 0
    assert state["encoder.layer4.1.conv2.weight"].grad is None
    assert all(p.grad is None for p in network.decoder.parameters())


class Untouchable(nn.Module):
    def forward(self, *_):
        raise AssertionError("not needed outside training")


def test_the_auxiliary_head_rests_outside_training():
    network = composed("pspnet").eval()
    network.aux = Untouchable()
    network(torch.randn(1, 3, 32, 32))


def test_presence_is_judged_by_valid_ground_alone():
    head, features = PresenceHead(8, 16, 3, 0.1).eval(), torch.randn(2, 8, 6, 10)
    weight = torch.ones(2, 1, 6, 10)
    weight[..., 5:] = 0
    alone = head(features[..., :5], torch.ones(2, 1, 6, 5))
    torch.testing.assert_close(head(features, weight), alone)
    assert alone.shape == (2, 3)
    assert torch.isfinite(head(features, 0 * weight)).all()


@pytest.mark.parametrize("aux", ["pixel", "presence"])
@pytest.mark.parametrize("stride", [8, 32])
def test_a_network_knows_the_valid_share_of_each_map(aux, stride):
    """At stride 32 the auxiliary head's map is finer than the context's."""
    network = build_network(ModelSpec("resnet18", 3, 2, aux=aux, output_stride=stride)).train()
    valid = torch.ones(2, 1, 64, 96)
    valid[..., 48:] = 0
    seen = {}
    for name in ("context", "aux"):
        part = getattr(network, name)
        part.register_forward_pre_hook(lambda _, inputs, name=name: seen.update({name: inputs}))
    network(torch.randn(2, 3, 64, 96), valid)
    for features, weight in seen.values():
        assert torch.equal(weight, F.adaptive_avg_pool2d(valid, features.shape[-2:]))
        assert 0 < weight.mean() < 1


def test_the_map_of_a_tile_does_not_depend_on_its_companions():
    network = build_network(ModelSpec("resnet18", 3, 4, pointrend=True)).eval()
    one, other = torch.randn(2, 1, 3, 64, 64)
    with torch.inference_mode():
        alone, together = network(one), network(torch.cat([one, other]))[:1]
    torch.testing.assert_close(alone, together, rtol=1e-4, atol=1e-4)


@but_one_slow  # where the processor has no bfloat16
def test_bfloat16_autocast_gives_finite_float32_logits(name):
    network, valid = composed(name), torch.ones(2, 1, 64, 64)
    valid[:, :, :20] = 0
    with torch.autocast("cpu", torch.bfloat16):
        output: TrainingOutput = network.train()(torch.randn(2, 3, 64, 64), valid)
        logits = network.eval()(torch.randn(2, 3, 64, 64), valid)
    assert all(part.dtype == torch.float32 for part in tensors((output.logits, output.aux, output.points)))
    assert logits.dtype == torch.float32
    assert torch.isfinite(logits).all()


@every_composition
def test_a_tile_without_a_valid_pixel_gives_finite_results(name):
    network, nothing = composed(name), (torch.zeros(1, 3, 64, 64), torch.zeros(1, 1, 64, 64))
    assert torch.isfinite(network.eval()(*nothing)).all()
    assert all(torch.isfinite(part).all() for part in tensors(network.train()(*nothing)))


@pytest.mark.parametrize("sizes", [(1,), (4,), (1, 2, 3), (5, 7, 9, 11, 13)])
def test_any_pyramid_sizes_train_at_a_batch_of_one(sizes):
    network = build_network(ModelSpec("resnet18", 3, 2, pyramid_sizes=sizes)).train()
    network(torch.randn(1, 3, 32, 32)).logits.sum().backward()
    with torch.inference_mode():
        assert network.eval()(torch.randn(1, 3, 40, 72)).shape == (1, 2, 40, 72)


@pytest.mark.parametrize(("sizes", "rates", "reaches"), [((), (), False), ((1,), (), True), ((), (1,), True)])
def test_only_with_pooling_does_a_far_pixel_count(sizes, rates, reaches):
    """The receptive field of the plain network is smaller than the picture; that of the others is not."""
    image = torch.randn(1, 3, 1024, 32)
    other = image.clone()
    other[:, :, -32:] += 10
    spec = ModelSpec("resnet18", 3, 2, sizes, rates, decoder="plain")
    network = build_network(spec).eval()
    with torch.inference_mode():
        moved = (network(image) - network(other))[:, :, 0].abs().max() > 1e-6
    assert bool(moved) == reaches


# ---- compiled, exported, laid out otherwise


def tiles(batch, size=64):
    valid = torch.ones(batch, 1, size, size)
    valid[:, :, :20, :30] = 0
    return torch.randn(batch, 3, size, size) * valid, valid


@pytest.mark.slow
@every_composition
def test_every_composition_exports_for_any_batch_size(name):
    network = traced(name).eval()
    batch = {0: torch.export.Dim("batch", min=1, max=64)}
    program = torch.export.export(network, tiles(2), dynamic_shapes={"image": batch, "valid": batch})
    other = tiles(3)
    with torch.inference_mode():
        torch.testing.assert_close(program.module()(*other), network(*other), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@every_composition
def test_every_composition_compiles_whole(name):
    network, inputs = traced(name).eval(), tiles(2)
    with torch.inference_mode():
        quick = torch.compile(network, fullgraph=True, backend="eager")(*inputs)
        torch.testing.assert_close(quick, network(*inputs), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "backend"),
    [(RICHEST, "eager"), slow("fcn", "eager"), *(slow(name, "aot_eager") for name in COMPOSITIONS)],
)
def test_training_compiles_whole(name, backend):
    """With the gradients; dropout and points are drawn alike from one seed."""
    network, inputs, found = traced(name).train(), tiles(2), []
    for form in (network, torch.compile(network, fullgraph=True, backend=backend)):
        torch.manual_seed(1)
        network.zero_grad()
        output = form(*inputs)
        sum(part.square().mean() for part in tensors(output)).backward()
        found.append([*tensors(output), *(p.grad.clone() for p in network.parameters())])
    for plain, quick in zip(*found, strict=True):
        torch.testing.assert_close(quick, plain, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # inductor's own
@pytest.mark.parametrize("name", ["pspnet, unet, points", "deeplab"])
def test_inductor_gives_the_same_map(name):
    network, inputs = composed(name).eval(), tiles(2)
    with torch.inference_mode():
        quick, plain = torch.compile(network, fullgraph=True)(*inputs), network(*inputs)
    agree = quick.argmax(1) == plain.argmax(1)
    assert agree.float().mean() > 0.999


@every_composition
def test_channels_last_changes_nothing(name):
    network, (image, valid) = composed(name).eval(), tiles(2)
    with torch.inference_mode():
        plain = network(image, valid)
        laid_out = network.to(memory_format=torch.channels_last)(image.to(memory_format=torch.channels_last), valid)
    torch.testing.assert_close(laid_out, plain, rtol=1e-3, atol=1e-4)


# ---- build


@pytest.mark.parametrize("name", RESNETS)
def test_resnets_build(name):
    with torch.device("meta"):
        network = build_network(ModelSpec(name, 3, 5))
    assert count_parameters(network) > 10e6


@pytest.mark.parametrize(("decoder", "millions"), [("plain", 46.6), ("unet", 49.2)])
def test_the_parameter_count_is_that_of_the_architecture(decoder, millions):
    with torch.device("meta"):
        network = build_network(ModelSpec("resnet50", 3, 10, decoder=decoder))
    assert count_parameters(network) / 1e6 == pytest.approx(millions, abs=0.05)


@pytest.mark.parametrize(
    ("sizes", "rates", "kind"), [((1, 2), (), PyramidPooling), ((), (6, 12), ASPP), ((), (), Bottleneck)]
)
def test_the_context_is_what_was_asked_for(sizes, rates, kind):
    with torch.device("meta"):
        network = build_network(ModelSpec("resnet18", 3, 2, sizes, rates))
    assert isinstance(network, SegmentationNetwork)
    assert type(network.context) is kind


@pytest.mark.parametrize(
    ("decoder", "output_stride", "strides"),
    [
        ("unet", 8, [8, 4, 2]),
        ("unet", 16, [8, 4, 2]),
        ("unet", 32, [16, 8, 4, 2]),
        ("deeplab", 8, [4]),
        ("deeplab", 16, [4]),
        ("deeplab", 32, [4]),
    ],
)
def test_the_decoder_joins_these_strides(decoder, output_stride, strides):
    with torch.device("meta"):
        network = build_network(ModelSpec("resnet18", 3, 2, decoder=decoder, output_stride=output_stride))
        features = network.encoder(torch.zeros(1, 3, 64, 96))
        coarse, fine = network.decoder(torch.zeros(1, 128, 64 // output_stride, 96 // output_stride), features)
    assert [2**level for level in network.decoder.levels] == strides
    assert coarse.shape[-2:] == fine.shape[-2:] == (64 // strides[-1], 96 // strides[-1])
    if decoder == "deeplab":
        assert network.decoder.reduce[0][0].out_channels == 48
        assert fine.shape[1] == 256


@pytest.mark.parametrize(
    ("backbone", "depth"),
    [
        ("resnet18", 3),
        slow("mobilenet_v2", 4),
        slow("tu-tf_efficientnet_lite0", 3),
        *map(slow, ("resnet18", "mobilenet_v2", "tu-tf_efficientnet_lite0"), (4, 3, 4)),
    ],
)
def test_of_fewer_stages_the_rest_is_left_out(backbone, depth):
    """Nothing is kept that training would not reach, and what is kept is the whole encoder's."""
    network = build_network(ModelSpec(backbone, 3, 3, encoder_depth=depth, aux="pixel")).train()
    out = network(torch.randn(1, 3, 64, 64))
    (out.logits.sum() + out.aux.sum()).backward()
    assert not [name for name, p in network.named_parameters() if p.grad is None]
    whole = build_network(ModelSpec(backbone, 3, 3)).encoder
    assert count_parameters(network.encoder) < count_parameters(whole)
    assert network.encoder.state_dict().keys() < whole.state_dict().keys()
    network.encoder.load_state_dict({name: whole.state_dict()[name] for name in network.encoder.state_dict()})
    image = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        ours, theirs = network.encoder.eval()(image), whole.eval()(image)
    assert len(ours) == depth + 1
    for mine, other in zip(ours, theirs[: depth + 1], strict=True):
        torch.testing.assert_close(mine, other)


@pytest.mark.parametrize("level", [1, 2, 3])
def test_the_unet_hears_each_of_the_maps_that_it_joins(level):
    decoder = build_network(ModelSpec("resnet18", 3, 2)).decoder.eval()
    channels = (3, 64, 64, 128, 256, 512)
    features = [torch.randn(1, c, 64 // s, 64 // s) for c, s in zip(channels, (1, 2, 4, 8, 8, 8), strict=True)]
    context = torch.randn(1, 128, 8, 8)
    before, _ = decoder(context, features)
    features[level] = features[level] + 1
    after, _ = decoder(context, features)
    assert (after - before).abs().max() > 1e-4


@pytest.mark.parametrize("rates", [(12,), (6, 12, 18, 24)])
def test_the_sum_of_atrous_classifiers(rates):
    """Beside each tap of the kernels, shifted and added by hand."""
    spec = ModelSpec("resnet18", 3, 4, (), rates, "atrous")
    network = build_network(spec).eval()
    image, state = torch.randn(1, 3, 64, 96), network.state_dict()
    with torch.inference_mode():
        found = network(image)
        features = network.encoder(image)[-1]  # 1 512 8 12
        height, width = features.shape[-2:]
        expected = torch.zeros(1, 4, height, width)
        for number, rate in enumerate(rates):
            kernel, bias = (state[f"decoder.classify.{number}.{name}"] for name in ("weight", "bias"))
            padded = F.pad(features, (rate,) * 4)
            for row in range(3):
                for col in range(3):
                    top, left = row * rate, col * rate
                    shifted = padded[:, :, top : top + height, left : left + width]
                    expected += torch.einsum("nchw,kc->nkhw", shifted, kernel[:, :, row, col])
            expected += bias[None, :, None, None]
    torch.testing.assert_close(found, F.interpolate(expected, (64, 96), mode="bilinear"), rtol=1e-4, atol=1e-4)
    assert not [name for name in state if name.startswith("context")], "neither a context nor a mean of the tile"


CHANNELS = {
    "resnet18": (3, 64, 64, 128, 256, 512),
    "resnet50": (3, 64, 256, 512, 1024, 2048),
    "lite0": (3, 16, 24, 40, 112, 320),
    "mit_b0": (3, 0, 32, 64, 160, 256),
}
WIDTHS = {
    ("resnet18", 256): [256, 128, 64, 32],
    ("resnet18", 64): [64, 32, 16, 16],
    ("resnet50", 256): [256, 128, 64, 32],
    ("lite0", 256): [112, 40, 24, 16],
    ("mit_b0", 256): [160, 64, 32, 16],
}
"""At strides 16, 8, 4 and 2, by encoder and `decoder_width`; the last has no map at stride 2."""


@pytest.mark.parametrize(("encoder", "most"), WIDTHS)
@pytest.mark.parametrize("decoder_stride", [2, 4])
def test_the_unets_widths_follow_the_encoder(encoder, most, decoder_stride):
    """At most smp's (256, 128, 64, 32), at least 16; PointRend's map has the last."""
    decoder, fine = DECODERS["unet"].make(DecoderInput(128, CHANNELS[encoder], 32, 2, 0.1, most, decoder_stride))
    expected = WIDTHS[encoder, most][: 4 if decoder_stride == 2 else 3]
    assert [block[1][0].out_channels for block in decoder.blocks] == expected
    assert fine == expected[-1]


@pytest.mark.parametrize("decoder_stride", [2, 4])
def test_the_unet_ends_at_its_stride(decoder_stride):
    network = build_network(ModelSpec("resnet18", 3, 2, decoder_width=256, decoder_stride=decoder_stride)).eval()
    seen = []
    network.decoder.register_forward_hook(lambda _, __, output: seen.append(output[0].shape[-2:]))
    with torch.inference_mode():
        assert network(torch.randn(1, 3, 64, 96)).shape == (1, 2, 64, 96)
    assert seen == [(64 // decoder_stride, 96 // decoder_stride)]


def test_a_description_of_an_earlier_version_has_its_widths():
    row = ModelSpec("resnet18", 3, 2).to_json()
    assert not {"decoder_width", "decoder_stride"} & row.keys()
    blocks = build_network(ModelSpec.from_json(row)).decoder.blocks
    assert [block[1][0].out_channels for block in blocks] == [128, 64, 32]
    later = ModelSpec("resnet18", 3, 2, decoder_width=128, decoder_stride=4)
    assert later.to_json()["decoder_width"] == 128
    assert ModelSpec.from_json(later.to_json()) == later


@pytest.mark.parametrize(
    "wrong",
    [
        {"bands": 0},
        {"decoder_width": 8},
        {"decoder": "atrous"},
        {"decoder_width": 4096},
        {"decoder_stride": 1},
        {"classes": 1},
        {"encoder_depth": 2},
        {"pyramid_sizes": (1, 0)},
        {"pyramid_sizes": (), "atrous_rates": (6, 0)},
        {"atrous_rates": (6, 12)},
        {"decoder": "fpn"},
        {"aux": "edges"},
        {"output_stride": 4},
    ],
)
def test_a_spec_out_of_range_is_refused(wrong):
    with pytest.raises(ModelError, match=r"but must|but a network has one context|Give at least one rate"):
        ModelSpec(**({"backbone": "resnet18", "bands": 3, "classes": 2} | wrong))


@given(
    bands=st.integers(1, 20),
    classes=st.integers(2, 99),
    sizes=st.lists(st.integers(1, 9), max_size=5).map(tuple),
    rates=st.lists(st.integers(1, 36), max_size=4).map(tuple),
    decoder=st.sampled_from(sorted(DECODERS)),
    points=st.booleans(),
    aux=st.sampled_from(AUX_HEADS),
    stride=st.sampled_from([8, 16, 32]),
)
@QUICK
def test_a_spec_comes_back_from_json(bands, classes, sizes, rates, decoder, points, aux, stride):
    if not DECODERS[decoder].has_context:
        sizes, rates = (), rates or (6,)
    spec = ModelSpec("resnet18", bands, classes, sizes, () if sizes else rates, decoder, points, aux, stride)
    row = {name: list(value) if isinstance(value, tuple) else value for name, value in spec.to_json().items()}
    assert ModelSpec.from_json(row) == spec


@pytest.mark.parametrize(("use_unet", "decoder"), [(True, "unet"), (False, "plain")])
def test_models_of_the_first_version_still_fit(use_unet, decoder):
    """It had a pyramid and a pixelwise auxiliary head always, and no name for the decoder."""
    row = {"backbone": "resnet18", "bands": 3, "classes": 2, "use_unet": use_unet, "pyramid_sizes": [1, 2],
           "pointrend": True, "output_stride": 8}  # fmt: skip
    spec = ModelSpec.from_json(row)
    assert spec == ModelSpec("resnet18", 3, 2, (1, 2), (), decoder, pointrend=True, aux="pixel")
    ours, theirs = build_network(spec), build_network(spec)
    old = {
        name.replace("context.", "pyramid.", 1).replace("aux.layers.", "aux.", 1): value
        for name, value in theirs.state_dict().items()
    }
    assert {"pyramid.branches.0.0.weight", "pyramid.bottleneck.0.weight", "aux.0.0.weight", "aux.2.bias"} <= old.keys()
    ours.load_state_dict(old)
    assert all(torch.equal(value, theirs.state_dict()[name]) for name, value in ours.state_dict().items())
    assert "pyramid.bottleneck.0.weight" in old


@pytest.mark.parametrize("size", [32, 64, 96, 256, 512])
def test_good_tiles(size):
    check_tile_size(size)


@pytest.mark.parametrize(("size", "hint"), [(0, 32), (31, 32), (33, 64), (100, 128), (500, 512)])
def test_bad_tiles_are_answered_with_a_good_one(size, hint):
    with pytest.raises(ModelError, match=rf"e\.g\. {hint}\."):
        check_tile_size(size)


def test_a_tile_must_leave_more_than_one_cell():
    """At stride 32 a tile of 32 is one cell, which BatchNorm cannot normalise at batch one."""
    check_tile_size(64, output_stride=32)
    with pytest.raises(ModelError, match=r"e\.g\. 64\."):
        check_tile_size(32, output_stride=32)


def test_devices():
    assert pick_device("cpu").type == "cpu"
    assert "CPU" in device_name(torch.device("cpu"))
    for name in ("cuda:77", "nonsense"):
        with pytest.raises(ModelError, match=name):
            pick_device(name)
