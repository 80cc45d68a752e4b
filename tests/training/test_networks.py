"""The networks of the literature, as compositions of the same parts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from common import slow

from geopsp import DeepLab, FCNClassifier, PixelClassifier, PSPNetClassifier, UnetClassifier, prepare_data
from geopsp.errors import ModelError, OptionError
from geopsp.models.losses import LossSpec, total_loss
from geopsp.models.saved_model import save_model
from geopsp.training.presets import PRESETS, Preset

KINDS = (PSPNetClassifier, FCNClassifier, UnetClassifier, DeepLab)
SMALL = {"backbone": "tu-test_resnet", "encoder_weights": None}


@pytest.fixture(scope="module")
def data(small_world):
    return prepare_data(small_world["chips"], batch_size=8, chip_size=32, cache=small_world["cache"])


@pytest.fixture(scope="module")
def large(small_world, tmp_path_factory):
    from geopsp import export_training_data

    folder = tmp_path_factory.mktemp("large") / "chips"
    export_training_data(small_world["scene"], small_world["labels"], folder, "kind", 64, background="ignore")
    return prepare_data(folder, batch_size=4, cache=folder.parent / "cache")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", [{"pointrend": True, "output_stride": 16}, slow({})])
def test_every_network_trains_saves_and_comes_back(kind, options, large, tmp_path):
    model = kind(large, **SMALL, **options)
    model.fit(1, 1e-3)
    folder = model.save(tmp_path / "model", compute_metrics=False)
    image, valid = torch.randn(1, 2, 64, 64), torch.ones(1, 1, 64, 64)
    with torch.inference_mode():
        expected = model.model.network(image, valid)
        for loader in (kind, PixelClassifier):
            again = loader.from_model(folder)
            assert again.model.spec == model.model.spec
            torch.testing.assert_close(again.model.network(image, valid), expected)
    assert kind.__name__ in repr(model)


@pytest.mark.parametrize(
    ("name", "use_unet", "stride", "note"),
    [
        ("tu-test_vit", False, 16, "tu-test_vit has an output stride of 16; the network's own would be 8."),
        slow("tu-test_maxvit", True, 32, "tu-test_maxvit is shown tiles of 64 x 64 pixels resized to 160 x 160."),
    ],
)
def test_transformers_train_save_and_come_back(name, use_unet, stride, note, large, tmp_path, caplog):
    with caplog.at_level("INFO"):
        model = PSPNetClassifier(large, name, use_unet=use_unet, encoder_weights=None)
    assert note in caplog.text
    assert model.model.spec.output_stride == stride
    model.fit(1, 1e-3)
    image, valid = torch.randn(1, 2, 64, 64), torch.ones(1, 1, 64, 64)
    again = PixelClassifier.from_model(model.save(tmp_path / "model", compute_metrics=False))
    with torch.inference_mode():
        torch.testing.assert_close(again.model.network(image, valid), model.model.network(image, valid))


def test_an_output_stride_that_an_encoder_does_not_have(large):
    deeplab = DeepLab(large, "tu-test_mambaout", encoder_weights=None).model.spec
    assert (deeplab.output_stride, deeplab.atrous_rates) == (32, (3, 6, 9))
    assert UnetClassifier(large, "tu-test_vit", encoder_weights=None).model.spec.output_stride == 16
    with pytest.raises(ModelError, match=r"'tu-test_mambaout' cannot be dilated to an output stride of 16"):
        DeepLab(large, "tu-test_mambaout", encoder_weights=None, output_stride=16)


@pytest.mark.parametrize("name", ["tu-hf-hub:timm/test_vit", "tu-../test_vit"])
def test_names_that_are_addresses_are_refused_before_timm_sees_them(name, large, monkeypatch):
    monkeypatch.setattr("timm.create_model", lambda *args, **options: pytest.fail("timm was asked"))
    with pytest.raises(ModelError, match="must be"):
        PSPNetClassifier(large, name, encoder_weights=None)


def test_another_network_is_not_taken_for_ones_own(large, tmp_path):
    folder = FCNClassifier(large, **SMALL).save(tmp_path / "model")
    with pytest.raises(ModelError, match=r"is a FCNClassifier.*FCNClassifier\.from_model"):
        DeepLab.from_model(folder)


def test_what_the_networks_are_made_of(large):
    shapes = {
        PSPNetClassifier: ((1, 2, 3, 6), (), "unet", "none", 16),
        FCNClassifier: ((), (), "plain", "pixel", 8),
        UnetClassifier: ((), (), "unet", "none", 32),
        DeepLab: ((), (6, 12, 18), "deeplab", "none", 16),
    }
    for kind, shape in shapes.items():
        spec = kind(large, **SMALL).model.spec
        assert (spec.pyramid_sizes, spec.atrous_rates, spec.decoder, spec.aux, spec.output_stride) == shape
    assert DeepLab(large, **SMALL, output_stride=8).model.spec.atrous_rates == (12, 24, 36)


def decided(spec):
    """What a preset decides, as the network has it."""
    return Preset(
        use_unet=spec.decoder == "unet", output_stride=spec.output_stride, encoder_depth=spec.encoder_depth,
        decoder_width=spec.decoder_width, decoder_stride=spec.decoder_stride, pointrend=spec.pointrend,
        aux_loss=spec.aux != "none",
    )  # fmt: skip


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_trains_a_step_and_maps_an_odd_tile(name, large, tmp_path):
    data = replace(large, chip_size=128)  # large enough for every stride
    model = PSPNetClassifier(data, **SMALL, preset=name)
    assert decided(model.model.spec) == PRESETS[name]
    assert model.model.spec.pyramid_sizes == (1, 2, 3, 6)
    network = model.model.network.train()
    total_loss(
        network(torch.randn(2, 2, 128, 128)), torch.randint(0, data.c, (2, 128, 128)), torch.ones(2, 1, 128, 128),
        LossSpec(), None,
    ).backward()  # fmt: skip
    torch.optim.SGD(network.parameters(), lr=0.01).step()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.parameters())
    with torch.inference_mode():
        assert network.eval()(torch.randn(1, 2, 69, 101)).shape == (1, data.c, 69, 101)
    assert model.model.settings["preset"] == name
    folder = save_model(model.model, tmp_path / "model")
    assert PSPNetClassifier.from_model(folder).model.settings["preset"] == name


def test_a_preset_is_balanced_unless_one_is_named(large):
    assert PSPNetClassifier(large, **SMALL).model.spec == PSPNetClassifier(large, **SMALL, preset="balanced").model.spec
    with pytest.raises(OptionError, match="`preset` is 'slow', but must be one of 'fast', 'balanced', 'best'"):
        PSPNetClassifier(large, **SMALL, preset="slow")


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize(
    "given",
    [
        {"pointrend": True}, {"pointrend": False}, {"encoder_depth": 4}, {"encoder_depth": 5}, {"decoder_stride": 2},
        {"decoder_stride": 4}, {"decoder_width": 32}, {"decoder_width": 256}, {"output_stride": 8},
        {"output_stride": 16}, {"aux_loss": True}, {"aux_loss": False}, {"use_unet": True},
    ],
)  # fmt: skip
def test_an_option_beats_the_preset_and_changes_nothing_else(name, given, large):
    data = replace(large, chip_size=128)
    expected = PRESETS[name].with_options(given)
    if "encoder_depth" in given:
        expected = replace(expected, output_stride=min(expected.output_stride, 2 ** given["encoder_depth"]))
    assert decided(PSPNetClassifier(data, **SMALL, preset=name, **given).model.spec) == expected


def test_a_preset_has_as_many_stages_as_a_stride_needs(large):
    data = replace(large, chip_size=128)
    spec = PSPNetClassifier(data, **SMALL, preset="fast", output_stride=32).model.spec
    assert (spec.output_stride, spec.encoder_depth) == (32, 5)


@pytest.mark.parametrize(
    ("version", "stride", "decoder", "rates"),
    [
        slow(1, None, "atrous", (12,)), slow(2, None, "atrous", (6, 12, 18, 24)), (2, 16, "atrous", (3, 6, 9, 12)),
        (3, None, "deeplab", (6, 12, 18)),
    ],
)  # fmt: skip
def test_versions_of_deeplab(version, stride, decoder, rates, large, tmp_path):
    model = DeepLab(large, **SMALL, version=version, output_stride=stride)
    spec = model.model.spec
    assert (spec.decoder, spec.atrous_rates, spec.aux, spec.pyramid_sizes) == (decoder, rates, "none", ())
    assert spec.output_stride == (stride or (16 if version == 3 else 8))
    model.fit(1, 1e-3)
    again = DeepLab.from_model(model.save(tmp_path / "model", compute_metrics=False))
    assert again.model.spec == spec
    assert ("sum of atrous classifiers" in repr(again)) == (version < 3)


def test_another_version_of_deeplab(large):
    with pytest.raises(OptionError, match="`version` is 4, but must be one of 1, 2, 3"):
        DeepLab(large, **SMALL, version=4)


@pytest.mark.parametrize("name", PRESETS)
def test_the_plain_decoder_has_its_stride_and_auxiliary_loss(name, large):
    spec = PSPNetClassifier(replace(large, chip_size=128), **SMALL, preset=name, use_unet=False).model.spec
    assert (spec.decoder, spec.output_stride, spec.aux, spec.decoder_width) == ("plain", 8, "pixel", None)


@pytest.mark.parametrize(("chip_size", "stride"), [(32, 8), (64, 16), (96, 16), (128, 32), (256, 32)])
def test_small_chips_leave_four_cells(chip_size, stride, large):
    assert PSPNetClassifier(replace(large, chip_size=chip_size), **SMALL).model.spec.output_stride == stride


@pytest.mark.parametrize("given", [{"decoder_width": 64}, {"decoder_stride": 4}])
def test_the_plain_decoder_has_no_widths(given, large):
    with pytest.raises(OptionError, match=rf"`{next(iter(given))}` only applies to the U-Net decoder"):
        PSPNetClassifier(large, **SMALL, use_unet=False, **given)


@pytest.mark.parametrize(
    ("options", "aux"),
    [
        ({}, "none"),
        ({"unet_aux_loss": True}, "pixel"),
        ({"unet_aux_loss": True, "aux": "presence"}, "presence"),
        ({"use_unet": False}, "pixel"),
        ({"use_unet": False, "aux": "presence"}, "presence"),
    ],
)
def test_unet_aux_loss_means_what_it_means_in_arcgis(data, options, aux):
    assert PSPNetClassifier(data, **SMALL, **options).model.spec.aux == aux


def test_an_unknown_option(data):
    with pytest.raises(OptionError, match="has no option `colour`"):
        PSPNetClassifier(data, **SMALL, colour="red")


def test_ignored_classes_belong_to_their_model_alone(data):
    """In arcgis.learn they leak into later models."""
    one = PSPNetClassifier(data, **SMALL, ignore_classes=["a"])
    other = PSPNetClassifier(data, **SMALL)
    assert one.model.losses.ignore_classes == ("a",)
    assert other.model.losses == LossSpec()
    counts, all_counts = one.evaluate().counts.sum(axis=1), other.evaluate().counts.sum(axis=1)
    assert counts[1] == 0
    assert (counts[[0, 2]] == all_counts[[0, 2]]).all()
    assert all_counts[1] > 0
    with torch.no_grad():
        one.model.network.decoder.classify.bias[1] = 100.0
    assert one.evaluate().counts[:, 1].sum() == 0, "nor is it ever found"
    assert np.isnan(one.evaluate().iou()[1])


@pytest.mark.parametrize(
    ("kind", "options", "error", "says"),
    [
        (PSPNetClassifier, {"aux": "presence"}, OptionError, "has no auxiliary loss"),
        (PSPNetClassifier, {"pretrained_path": "a.pth"}, OptionError, "both given"),
        (DeepLab, {"encoder_depth": 3, "output_stride": 16}, ModelError, "so few stages reach a stride of 8 at most"),
        (FCNClassifier, {"pointrend": True, "output_stride": 12}, OptionError, "`output_stride` is 12"),
    ],
)
def test_options_that_would_do_nothing_are_refused(data, kind, options, error, says):
    with pytest.raises(error, match=says):
        kind(data, "resnet18", encoder_weights="b.pth" if "pretrained_path" in options else None, **options)


def test_the_auxiliary_loss_can_be_overruled(data):
    assert PSPNetClassifier(data, **SMALL, use_unet=False, aux_loss=False).model.spec.aux == "none"
    assert PSPNetClassifier(data, **SMALL, aux_loss=True).model.spec.aux == "pixel"


def test_rates_follow_the_stride_of_fewer_stages(data):
    spec = DeepLab(data, **SMALL, encoder_depth=3).model.spec
    assert (spec.output_stride, spec.atrous_rates) == (8, (12, 24, 36))


def test_a_loaded_model_is_trained_on_at_its_own_size(data, large, tmp_path, capsys):
    folder = PSPNetClassifier(data, **SMALL, aux_loss=False).save(tmp_path / "model", compute_metrics=False)
    model = PSPNetClassifier.from_model(folder, replace(large, chips=large.chips))
    assert model.data.chip_size == 32
    assert model.model.settings["batch_size"] == 4
    assert "used at 32 x 32" in capsys.readouterr().err


@pytest.mark.parametrize("names", [["c"], ["a", "b"]])
def test_classes_that_cannot_be_ignored(data, names):
    with pytest.raises(OptionError, match="at least two must remain"):
        PSPNetClassifier(data, **SMALL, ignore_classes=names)


def test_loss_options_come_back_with_the_model(data, tmp_path):
    """arcgis.learn's from_model forgets them."""
    options = {
        "class_balancing": True, "mixup": True, "dice_loss_fraction": 0.2, "dice_loss_average": "macro", "ohem": 0.5,
        "ignore_classes": ["b"], "label_smoothing": 0.1, "lovasz_fraction": 0.1, "tversky_fraction": 0.1,
    }  # fmt: skip
    model = PSPNetClassifier(data, **SMALL, **options)
    again = PSPNetClassifier.from_model(model.save(tmp_path / "model", compute_metrics=False), data)
    assert again.model.losses == model.model.losses != LossSpec()


def test_a_batch_size_left_open_is_found(small_world, capsys):
    open_data = prepare_data(small_world["chips"], batch_size=None)
    model = PSPNetClassifier(open_data, **SMALL)
    assert model.data.batch_size == 8, "the largest power of two with ten steps of 95 chips"
    assert "Batch size: 8" in capsys.readouterr().err
    assert model.model.settings["batch_size"] == 8
    assert open_data.batch_size is None


def test_training_starts_from_another_models_weights(data, tmp_path, capsys):
    first = PSPNetClassifier(data, **SMALL)
    folder = first.save(tmp_path / "model", compute_metrics=False)
    second = PSPNetClassifier(data, "tu-test_resnet", pretrained_path=folder)
    assert "the whole network's weights" in capsys.readouterr().err
    for name, value in first.model.network.state_dict().items():
        assert torch.equal(second.model.network.state_dict()[name], value)
    third = FCNClassifier(data, "tu-test_resnet", pretrained_path=folder / "weights.safetensors")
    assert "the encoder's weights" in capsys.readouterr().err
    encoder = first.model.network.encoder.state_dict()
    assert all(torch.equal(value, encoder[name]) for name, value in third.model.network.encoder.state_dict().items())
    with pytest.raises(ModelError, match="do not fit resnet18"):
        FCNClassifier(data, "resnet18", pretrained_path=folder)
    with pytest.raises(ModelError, match="No weight file"):
        FCNClassifier(data, "resnet18", pretrained_path=tmp_path / "nothing.pth")
