"""Encoders of timm: every family gives a pyramid, trains a step and maps an odd tile, or is refused in one line."""

from __future__ import annotations

import math

import pytest
import timm
import torch
from common import examples, slow
from hypothesis import given, settings
from hypothesis import strategies as st
from model_common import trained_step
from safetensors.torch import save_file
from segmentation_models_pytorch.encoders import get_encoder
from torch import nn
from torch.nn import functional as F

from geopsp.errors import ModelError
from geopsp.models import encoder as encoders
from geopsp.models import timm_encoder
from geopsp.models.build import ModelSpec, build_network
from geopsp.models.check_weights import require_fitting_weights
from geopsp.models.encoder import build_encoder, shown_size, supported_backbones, usable_output_stride
from geopsp.models.encoder_stages import drop_unused_layers, encoder_stages
from geopsp.models.timm_layout import read_layout
from geopsp.models.weights import adapt_stem, init_encoder, load_encoder_weights

RGB = ("red", "green", "blue")
QUICK = settings(max_examples=examples(15), deadline=None)

TINY = {
    "tu-test_resnet": 8,
    "tu-test_nfnet": 8,
    "tu-test_convnext": 8,  # no map at stride 2
    "tu-test_mambaout": 32,  # the same, and channels last
    "tu-test_maxvit": 32,  # one size only, with a map at stride 2
    "tu-test_vit": 16,  # plain
    "tu-test_vit_relpos": 16,  # plain, one size only
    "tu-eva02_tiny_patch14_224": 16,  # plain, patches of 14 pixels
    "tu-efficientvit_m0": 32,  # maps at 16, 32 and 64 only
}
"""Small encoders of all kinds, and the output stride that they take for 8."""

FAMILIES = {
    "beit": "beit_base_patch16_224", "byoanet": "halonet_h1", "byobnet": "test_byobnet", "cait": "cait_xxs24_224",
    "coat": "coat_tiny", "convit": "convit_tiny", "convmixer": "convmixer_768_32", "convnext": "test_convnext",
    "cpubone": "cpubone_nano", "csatv2": "csatv2", "cspnet": "cs3darknet_focus_s", "cspnext": "cspnext_tiny",
    "davit": "davit_tiny", "deepseek_vit": "deepseek_vit_412m", "deit": "deit_tiny_patch16_224",
    "densenet": "densenet121", "dla": "dla46x_c", "dpn": "dpn48b", "edgenext": "edgenext_xx_small",
    "efficientformer": "efficientformer_l1", "efficientformer_v2": "efficientformerv2_s0",
    "efficientnet": "test_efficientnet", "efficientvim": "efficientvim_m1", "efficientvit_mit": "efficientvit_b0",
    "efficientvit_msra": "efficientvit_m0", "eva": "eva02_tiny_patch14_224", "fasternet": "fasternet_t0",
    "fastvit": "fastvit_t8", "focalnet": "focalnet_tiny_srf", "gcvit": "gcvit_xxtiny", "ghostnet": "ghostnet_050",
    "hardcorenas": "hardcorenas_b", "hgnet": "hgnetv2_b0", "hiera": "hiera_tiny_224",
    "hieradet_sam2": "sam2_hiera_tiny", "hrnet": "hrnet_w18_small", "iformer": "iformer_t",
    "inception_next": "inception_next_atto", "lcnetv2": "lcnetv2_small", "levit": "levit_128s",
    "lowformer": "lowformer_b0", "mambaout": "test_mambaout", "maxxvit": "test_coatnet",
    "metaformer": "poolformerv2_s12", "mlp_mixer": "gmlp_ti16_224", "mobilenetv3": "lcnet_035",
    "mobilenetv5": "mobilenetv5_base", "mobilevit": "mobilevit_xxs", "mvitv2": "mvitv2_tiny",
    "naflexvit": "naflexvit_base_patch16_parfac_gap", "nasnet": "nasnetalarge", "nest": "nest_tiny",
    "nextvit": "nextvit_small", "nfnet": "test_nfnet", "pit": "pit_ti_224", "pnasnet": "pnasnet5large",
    "pvt_v2": "pvt_v2_b0", "qwen3_vit": "qwen3_vit_88m", "rdnet": "rdnet_tiny", "regnet": "regnetx_002",
    "repghost": "repghostnet_050", "repvit": "repvit_m1", "res2net": "res2next50", "resnest": "resnest14d",
    "resnet": "test_resnet", "resnetv2": "resnetv2_18", "rexnet": "rexnet_100", "selecsls": "selecsls42",
    "senet": "legacy_seresnet18", "sequencer": "sequencer2d_s", "shvit": "shvit_s1", "sknet": "skresnet18",
    "starnet": "starnet_s050", "swiftformer": "swiftformer_xs", "swin_transformer": "swin_tiny_patch4_window7_224",
    "swin_transformer_v2": "swinv2_tiny_window8_256", "swin_transformer_v2_cr": "swinv2_cr_tiny_224",
    "tiny_vit": "tiny_vit_5m_224", "tnt": "tnt_s_legacy_patch16_224", "tresnet": "tresnet_m",
    "twins": "twins_svt_small", "vgg": "vgg11", "visformer": "visformer_tiny", "vision_transformer": "test_vit",
    "vision_transformer_hybrid": "vit_tiny_r_s16_p8_224", "vision_transformer_relpos": "test_vit_relpos",
    "vision_transformer_sam": "samvit_base_patch16_224", "vitamin": "vitamin_small_224", "volo": "volo_d1_224",
    "vovnet": "ese_vovnet19b_slim_dw", "xception_aligned": "xception41p", "xcit": "xcit_nano_12_p16_224",
}  # fmt: skip
"""The smallest model of each of timm's families that gives a pyramid."""

REFUSED = {
    "crossvit": "crossvit_tiny_240", "gemma4_vit": "gemma4_vit_167m", "inception_resnet_v2": "inception_resnet_v2",
    "inception_v3": "inception_v3", "inception_v4": "inception_v4", "xception": "legacy_xception",
}  # fmt: skip
"""A model of each family that gives none."""

NORMALISED_MEANS = {"resnest14d", "rexnet_100", "skresnet18"}
"""Models that normalise means of the whole tile over the batch, which cannot be done for a single tile."""

DECODERS = [{"decoder": "unet"}, {"decoder": "plain", "aux": "pixel", "pointrend": True}, {"decoder": "deeplab"}]


def spec_of(name, **options):
    depth = options.get("encoder_depth", 5)
    stride = usable_output_stride(name, min(8, 2**depth), depth=depth)
    return ModelSpec(
        **{"backbone": name, "bands": 4, "classes": 3, "pyramid_sizes": (1, 2), "output_stride": stride} | options
    )


def require_pyramid(maps, spec, size):
    """The shapes that `build_encoder` promises."""
    for level, features in enumerate(maps[1:], 1):
        stride = min(2**level, spec.output_stride)
        assert features.shape[-2:] == tuple(math.ceil(side / stride) for side in size)
        assert features.shape[1] > 0 or level == 1


# ---- every family


QUICKLY = ("tu-test_convnext", "tu-test_vit", "tu-efficientvit_m0")
"""One of convolutions, one plain, one of few maps."""


@pytest.mark.parametrize(
    "options",
    [
        DECODERS[1],
        *map(slow, (DECODERS[0], DECODERS[2], {"decoder": "deeplab", "pointrend": True, "encoder_depth": 3})),
    ],
)
@pytest.mark.parametrize("name", [name if name in QUICKLY else slow(name) for name in TINY])
def test_small_encoders_of_all_kinds_train_and_map_an_odd_tile(name, options):
    trained_step(spec_of(name, **options))


@pytest.mark.parametrize("name", [name if TINY[name] < 16 or name in QUICKLY else slow(name) for name in TINY])
def test_maps_have_the_strides_of_their_levels(name):
    spec = spec_of(name)
    assert spec.output_stride == TINY[name]
    encoder = build_encoder(name, bands=4, output_stride=spec.output_stride).eval()
    with torch.inference_mode():
        maps = encoder(torch.randn(2, 4, 64, 96))
    require_pyramid(maps, spec, (64, 96))
    assert [m.shape[1] for m in maps] == list(encoder.out_channels)


@pytest.mark.slow
@given(rows=st.integers(32, 100), columns=st.integers(32, 100), name=st.sampled_from(["tu-test_vit", "tu-test_maxvit"]))
@QUICK
def test_any_size_of_tile_is_mapped(rows, columns, name):
    encoder = build_encoder(name, bands=2, output_stride=32).to("meta").eval()
    maps = encoder(torch.zeros(1, 2, rows, columns, device="meta"))
    require_pyramid(maps, spec_of(name, output_stride=32), (rows, columns))


@pytest.mark.slow
def test_every_family_of_timm_is_listed_here():
    modules = {timm.models._registry._model_to_module[name] for name in timm.list_models()}
    assert modules == FAMILIES.keys() | REFUSED.keys()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", FAMILIES.values())
def test_every_family_of_timm_trains_and_maps(name):
    """Of large ones only the shapes of maps and the reach of gradients are computed."""
    spec = spec_of(f"tu-{name}", bands=3 if name == "csatv2" else 4, **DECODERS[len(name) % len(DECODERS)])
    with torch.device("meta"):
        encoder = build_encoder(spec.backbone, bands=spec.bands, output_stride=spec.output_stride)
        if sum(p.numel() for p in encoder.parameters()) > 15e6:
            maps = encoder(torch.zeros(2, spec.bands, 65, 97))
            torch.stack([m.sum() for m in maps[1:]]).sum().backward()
            assert all(p.grad is not None for p in encoder.parameters() if p.requires_grad)
            require_pyramid(encoder.eval()(torch.zeros(1, spec.bands, 64, 96)), spec, (64, 96))
            return
    trained_step(spec, batch_size=2 if name in NORMALISED_MEANS else 1)


@pytest.mark.slow
@pytest.mark.parametrize("name", supported_backbones())
def test_every_listed_backbone_trains_and_maps(name):
    trained_step(spec_of(name, **DECODERS[len(name) % len(DECODERS)]))


@pytest.mark.parametrize(
    "name",
    ["crossvit_tiny_240", "no_such_model", "resnet50.no_such_tag"]
    + [pytest.param(name, marks=pytest.mark.slow) for name in REFUSED.values()],
)
def test_other_models_are_refused_in_one_line(name):
    with pytest.raises(ModelError, match=name) as caught:
        build_encoder(f"tu-{name}", bands=3, output_stride=32)
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore:CSATv2 is designed for")
def test_a_stem_for_colors_alone_is_told():
    with pytest.raises(ModelError, match="'tu-csatv2' takes images of 3 bands only, not of 4"):
        build_encoder("tu-csatv2", bands=4, output_stride=32)


# ---- strides


@pytest.mark.parametrize("name", ["densenet121", "vgg11", "tu-vgg11", "tu-test_mambaout", "tu-test_maxvit"])
def test_an_encoder_that_cannot_be_dilated_keeps_its_stride(name):
    assert usable_output_stride(name, 8) == usable_output_stride(name, 16) == usable_output_stride(name, 32) == 32
    assert usable_output_stride(name, 8, depth=4) == 16
    with pytest.raises(ModelError, match=rf"'{name}' cannot be dilated to an output stride of 8.*`output_stride=32`"):
        build_encoder(name, bands=3, output_stride=8)


def test_encoders_that_take_the_stride_and_do_not_dilate_are_found_out(monkeypatch):
    create = timm.create_model

    def careless(name, output_stride=32, **options):
        return create(name, **options)

    build_encoder("tu-test_resnet", bands=3, output_stride=8)
    monkeypatch.setattr(timm, "create_model", careless)
    monkeypatch.setattr(timm_encoder, "can_be_dilated", timm_encoder.can_be_dilated.__wrapped__)  # asked anew
    with pytest.raises(ModelError, match="cannot be dilated"):
        build_encoder("tu-test_resnet", bands=3, output_stride=8)


@pytest.mark.parametrize(
    ("name", "wanted", "usable"),
    [
        ("tu-test_vit", 8, 16),
        ("tu-test_vit", 32, 16),
        slow("tu-vit_small_patch8_224", 8, 8),
        slow("tu-nest_tiny", 32, 16),
    ],
)
def test_maps_at_one_stride_are_resized_to_any(name, wanted, usable):
    assert usable_output_stride(name, wanted) == usable
    with torch.device("meta"):
        for stride in {32, usable}:
            encoder = build_encoder(name, bands=3, output_stride=stride).eval()
            require_pyramid(encoder(torch.zeros(1, 3, 64, 96)), spec_of(name, output_stride=stride), (64, 96))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("tu-test_resnet", {}),
        ("tu-test_convnext", {}),
        ("tu-test_convnext", {"depth": 3}),
        ("tu-regnetx_002", {"depth": 4}),
    ],
)
def test_convolutional_ones_are_those_of_smp(name, options):
    """The same names of weights and the same maps: saved models load and map as before."""
    own = build_encoder(name, bands=4, output_stride=8, **options).eval()
    theirs = get_encoder(name, in_channels=4, weights=None, output_stride=8, **options).eval()
    theirs.load_state_dict(own.state_dict(), strict=options == {})
    image = torch.randn(1, 4, 65, 96)
    with torch.inference_mode():
        for a, b in zip(own(image), theirs(image), strict=True):
            assert a.shape[1] == b.shape[1] == 0 or torch.equal(a, b)


# ---- plain vision transformers


def blocks_of(model, image, indices):
    """Maps of a whole model of timm, normalised over the channels."""
    with torch.inference_mode():
        maps = model.eval().forward_intermediates(image, indices=indices, norm=False, intermediates_only=True)
    return [F.layer_norm(m.permute(0, 2, 3, 1), m.shape[1:2]).permute(0, 3, 1, 2) for m in maps]


@pytest.mark.parametrize("size", [64, slow(160)])
def test_four_blocks_of_a_plain_transformer_make_the_pyramid(size):
    whole = timm.create_model("test_vit3", num_classes=0, img_size=160, dynamic_img_size=True)
    own = build_encoder("tu-test_vit3", bands=3, output_stride=32).eval()
    own.model.model.load_state_dict(whole.state_dict(), strict=False)
    image = torch.randn(2, 3, size, size)
    depth = len(whole.blocks)
    blocks = blocks_of(whole, image, [depth * k // 4 - 1 for k in range(1, 5)])
    with torch.inference_mode():
        _, empty, *maps = own(image)
    assert empty.shape == (2, 0, size // 2, size // 2)
    for stride, block, found in zip((4, 8, 16, 32), blocks, maps, strict=True):
        resized = F.interpolate(block, [size // stride] * 2, mode="bilinear", align_corners=False)
        torch.testing.assert_close(found, resized, rtol=1e-4, atol=1e-4)


def test_patches_of_14_pixels_show_16_pixels_of_the_tile():
    name = "tu-eva02_tiny_patch14_224"
    assert shown_size(name, 256, 512) == (224, 448)
    assert shown_size("tu-test_vit", 256, 512) == (256, 512)
    assert shown_size("tu-test_maxvit", 256, 512) == read_layout("tu-test_maxvit").input_size.fixed
    assert shown_size("resnet18", 33, 65) == (33, 65)
    own = build_encoder(name, bands=3, output_stride=16).eval()
    image = torch.randn(1, 3, 64, 96)
    shown = F.interpolate(image, (56, 84), mode="bilinear", align_corners=False, antialias=True)
    with torch.inference_mode():
        *_, second_last, last = own(image)
        expected = blocks_of(own.model.model, shown, [8, 11])
    torch.testing.assert_close((second_last, last), tuple(expected))


@pytest.mark.parametrize("name", ["tu-test_vit", *map(slow, ("tu-test_vit_relpos", "tu-eva02_tiny_patch14_224"))])
def test_maps_of_a_plain_transformer_lie_in_place(name):
    """What changes in one corner of a tile changes that corner of each map most."""
    own = build_encoder(name, bands=3, output_stride=16).eval()
    image = torch.randn(1, 3, 128, 128)
    changed = image.clone()
    changed[..., :32, 96:] += 3
    with torch.inference_mode():
        for before, after in list(zip(own(image), own(changed), strict=True))[2:]:
            change = F.adaptive_avg_pool2d((after - before).abs().mean(1), 4)[0]  # 4 4
            assert change.argmax() == 3
            assert change[0, 3] > 2 * change[2:, :2].max()


def test_invalid_pixels_do_not_reach_the_means(monkeypatch):
    network = build_network(spec_of("tu-test_vit")).eval()
    image, valid = torch.randn(1, 4, 64, 64), torch.ones(1, 1, 64, 64)
    image[..., 32:] = valid[..., 32:] = 0
    seen = []
    network.context.register_forward_pre_hook(lambda _, inputs: seen.append(inputs))
    with torch.inference_mode():
        network(image, valid)
    [(features, share)] = seen
    assert share[0, 0].mean(0).tolist() == [1, 1, 0, 0]
    assert features.shape[-2:] == (4, 4)


# ---- weights


@pytest.mark.parametrize(
    ("name", "bands"),
    [
        ("tu-test_vit", ("nir", "blue")),
        ("tu-test_convnext", RGB),
        ("tu-test_resnet", ("nir", "blue")),
        slow("tu-test_maxvit", RGB),
        slow("tu-eva02_tiny_patch14_224", ("nir", "blue")),
    ],
)
def test_timms_own_files_are_loaded(name, bands, tmp_path):
    whole = timm.create_model(name.removeprefix("tu-"))
    save_file(whole.state_dict(), tmp_path / "model.safetensors")
    network = build_network(spec_of(name, bands=len(bands)))
    before = network.encoder.state_dict()
    init_encoder(network, name, tmp_path / "model.safetensors", bands)
    stem = next(key for key, value in before.items() if value.ndim == 4 and key.endswith("weight"))
    given = {key.replace("_", "."): value for key, value in whole.state_dict().items()}
    for key, value in network.encoder.state_dict().items():
        expected = given[key.removeprefix("model.").removeprefix("model.").replace("_", ".")]
        torch.testing.assert_close(value, adapt_stem(expected, bands) if key == stem else expected)


def test_files_of_another_model_are_refused(tmp_path):
    save_file(timm.create_model("test_vit2").state_dict(), tmp_path / "vit2.safetensors")
    save_file(timm.create_model("test_resnet").state_dict(), tmp_path / "resnet.safetensors")
    encoder = build_encoder("tu-test_vit", bands=3, output_stride=16)
    for file in ("vit2", "resnet"):
        with pytest.raises(ModelError, match="do not fit tu-test_vit"):
            load_encoder_weights(
                encoder, "tu-test_vit", str(tmp_path / f"{file}.safetensors"), ("red", "green", "blue")
            )


def test_positional_embeddings_of_another_size_are_resized(tmp_path):
    whole = timm.create_model("test_vit", img_size=224)
    save_file(whole.state_dict(), tmp_path / "model.safetensors")
    encoder = build_encoder("tu-test_vit", bands=3, output_stride=16)
    load_encoder_weights(encoder, "tu-test_vit", str(tmp_path / "model.safetensors"), RGB)
    prefix = whole.num_prefix_tokens
    grid = whole.pos_embed[:, prefix:].unflatten(1, (14, 14)).permute(0, 3, 1, 2)
    own = encoder.model.model.pos_embed[:, prefix:].unflatten(1, (10, 10)).permute(0, 3, 1, 2)
    expected = F.interpolate(grid, (10, 10), mode="bicubic", antialias=True, align_corners=False)
    torch.testing.assert_close(own, expected)


@pytest.mark.parametrize(
    ("name", "which", "tag"),
    [
        slow("tu-vit_tiny_patch16_224", "imagenet", "augreg_in21k_ft_in1k"),
        slow("tu-vit_tiny_patch16_224.augreg_in21k", "imagenet", "augreg_in21k"),
        slow("tu-vit_tiny_patch16_224", "augreg_in21k", "augreg_in21k"),
        ("tu-test_convnext", "imagenet", "r160_in1k"),
        ("tu-test_vit.r160_in1k", "imagenet", "r160_in1k"),
    ],
)
def test_published_weights_are_picked_by_their_tag(name, which, tag, monkeypatch):
    donor = timm.create_model(name.removeprefix("tu-").partition(".")[0])
    asked = []

    def from_hub(model_id, *args, **options):
        asked.append(model_id)
        return dict(donor.state_dict())

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", from_hub)
    monkeypatch.setattr(encoders, "require_network", lambda name: None)
    encoder = build_encoder(name, bands=3, output_stride=usable_output_stride(name, 32))
    load_encoder_weights(encoder, name, which, RGB)
    assert asked == [f"timm/{name.removeprefix('tu-').partition('.')[0]}.{tag}"]
    given = {key.replace("_", "."): value for key, value in donor.state_dict().items()}
    for key, value in encoder.state_dict().items():
        assert torch.equal(value, given[key.replace("model.", "").replace("_", ".")])


def test_models_without_published_weights_say_so():
    encoder = build_encoder("tu-test_maxvit", bands=3, output_stride=32)
    with pytest.raises(ModelError, match="There are no ImageNet weights for tu-test_vit_relpos"):
        load_encoder_weights(encoder, "tu-test_vit_relpos", "imagenet", RGB)


@pytest.mark.parametrize("name", [*[*TINY][:2], *map(slow, [*TINY][2:])])
def test_saved_weights_are_checked_before_anything_is_built(name, tmp_path):
    spec = spec_of(name)
    save_file(build_network(spec).state_dict(), tmp_path / "weights.safetensors")
    read_layout.cache_clear()
    require_fitting_weights(spec, tmp_path / "weights.safetensors")


# ---- stages


@pytest.mark.parametrize("name", ["resnet18", "tu-test_resnet", *map(slow, ("mit_b0", *[*TINY][1:]))])
def test_each_parameter_belongs_to_one_stage(name):
    encoder = build_encoder(name, bands=4, output_stride=usable_output_stride(name, 32))
    encoder.requires_grad_(requires_grad=False)  # as frozen ones are
    stages = encoder_stages(encoder, 4)
    assert len(stages) > 1
    assert sorted(id(p) for stage in stages for p in stage) == sorted(id(p) for p in encoder.parameters())
    assert not any(p.is_meta for stage in stages for p in stage)


class Spare(nn.Module):
    """An encoder with layers that nothing depends on: one is never called, one is called with two arguments."""

    def __init__(self, pairs):
        super().__init__()
        self.pairs = pairs
        self.used, self.spare = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1)
        self.pair = nn.Bilinear(1, 1, 1)

    def forward(self, image):
        features = self.used(image)
        if self.pairs:
            self.pair(features[..., :1], features[..., 1:2])
        return [image, features]


@pytest.mark.parametrize("pairs", [False, True])
def test_layers_that_no_map_depends_on_go_unless_they_are_called(pairs):
    encoder = Spare(pairs)
    drop_unused_layers(encoder, 3)
    kept = {"used.weight", "used.bias"}
    spare = {"spare.weight", "spare.bias", "pair.weight", "pair.bias"} if pairs else set()
    assert dict(encoder.named_parameters()).keys() == kept | spare
    assert {name for name, p in encoder.named_parameters() if p.requires_grad} == kept
    assert encoder(torch.zeros(1, 3, 8, 8))[1].shape == (1, 4, 6, 6)


def test_stages_follow_depth():
    encoder = build_encoder("resnet18", bands=3, output_stride=8)
    children = [[encoder.conv1, encoder.bn1], [encoder.layer1], [encoder.layer2], [encoder.layer3], [encoder.layer4]]
    expected = [[p for child in stage for p in child.parameters()] for stage in children]
    for stage, parameters in zip(encoder_stages(encoder, 3), expected, strict=True):
        assert [id(p) for p in stage] == [id(p) for p in parameters]
    model = (vit := build_encoder("tu-test_vit", bands=3, output_stride=16)).model.model
    first, *_, last = ({id(p) for p in stage} for stage in encoder_stages(vit, 3))
    assert {id(model.pos_embed), id(model.cls_token), id(model.patch_embed.proj.weight)} <= first
    assert id(model.blocks[0].attn.qkv.weight) in first
    assert id(model.blocks[-1].mlp.fc2.weight) in last
