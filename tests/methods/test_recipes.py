"""The table of recipes, its published values, and the rules that scale them."""

from __future__ import annotations

import pytest
from torch import nn

from polysense.errors import PolysenseError
from polysense.methods.optimisation import Optimisation
from polysense.methods.scaling import Circumstances, scaled_optimisation, scaled_options
from polysense.methods.table import find, recipes
from tests.toys import RowEncoder

PUBLISHED = {
    "simclr": {"temperature": 0.1, "out": 128, "layers": 3},
    "moco_v2": {"temperature": 0.2, "queue": 65536, "momentum": 0.999, "hidden": 2048, "out": 128},
    "moco_v3": {"temperature": 0.2, "momentum": 0.99, "hidden": 4096, "out": 256, "layers": 3},
    "nnclr": {"temperature": 0.1, "queue": 98304, "hidden": 2048, "out": 256},
    "directclr": {"temperature": 0.1, "share": 360 / 2048},
    "supcon": {"temperature": 0.1, "hidden": 2048, "out": 128},
    "byol": {"momentum": 0.996, "hidden": 4096, "out": 256},
    "vicreg": {"invariance": 25.0, "variance": 25.0, "covariance": 1.0, "hidden": 8192, "out": 8192},
    "barlow_twins": {"off_diagonal": 0.0051, "hidden": 8192, "out": 8192},
    "wmse": {"hidden": 1024, "out": 64, "sub_batch": 128, "iterations": 1, "shrink": 0.0},
    "lejepa": {"regularisation": 0.05, "slices": 1024, "knots": 17, "hidden": 2048},
    "densecl": {"momentum": 0.999, "queue": 65536, "temperature": 0.2, "dense_weight": 0.5, "out": 128},
    "deep_infomax": {"estimator": "jsd", "out": 2048},
    "vicregl": {
        "alpha": 0.75,
        "invariance": 25.0,
        "variance": 25.0,
        "covariance": 1.0,
        "matches": 20 / 49,
        "out": 8192,
        "local_out": 512,
    },
    "dino": {
        "momentum": 0.996,
        "prototypes": 65536,
        "student_temperature": 0.1,
        "teacher_temperature": 0.04,
        "hidden": 2048,
        "bottleneck": 256,
    },
    "swav": {
        "temperature": 0.1,
        "epsilon": 0.05,
        "iterations": 3,
        "prototypes": 3000,
        "hidden": 2048,
        "out": 128,
        "queue": 3840,
    },
    "deepcluster_v2": {"temperature": 0.1, "prototypes": 3000, "clusterings": 3, "hidden": 2048, "out": 128},
    "simsiam": {"hidden": 2048, "out": 2048, "predictor_hidden": 512},
    "ibot": {
        "momentum": 0.996,
        "prototypes": 8192,
        "student_temperature": 0.1,
        "teacher_temperature": 0.07,
        "patch_temperature": 0.07,
        "least_masked": 0.1,
        "most_masked": 0.5,
        "masked_samples": 0.5,
    },
    "dinov2": {
        "momentum": 0.992,
        "prototypes": 65536,
        "teacher_temperature": 0.07,
        "sinkhorn_iterations": 3,
        "spread": 0.1,
        "least_masked": 0.1,
        "most_masked": 0.5,
        "masked_samples": 0.5,
    },
    "data2vec": {"momentum": 0.9998, "layers": 6, "beta": 2.0, "mask_ratio": 0.6},
    "msn": {
        "momentum": 0.996,
        "prototypes": 1024,
        "temperature": 0.1,
        "teacher_temperature": 0.025,
        "entropy_weight": 1.0,
        "mask_ratio": 0.15,
        "out": 256,
    },
    "distill": {"tokens": 0.0, "hidden": 1024, "layers": 4},
    "mae": {"mask_ratio": 0.75, "normalise": True, "decoder_width": 512, "decoder_depth": 8},
    "simmim": {"mask_ratio": 0.6, "mask_unit": 2},
    "beit": {"mask_ratio": 0.4, "prototypes": 8192},
    "maskfeat": {"mask_ratio": 0.4, "cell": 8, "bins": 9},
    "ijepa": {
        "momentum": 0.996,
        "targets": 4,
        "predictor_width": 384,
        "predictor_depth": 12,
    },
    "image_gpt": {"mask_ratio": 0.15},
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_defaults(name: str) -> None:
    published = find(name).published
    assert {option: published[option] for option in PUBLISHED[name]} == PUBLISHED[name]


def test_every_recipe_says_where_it_is_from_and_what_collapse_means() -> None:
    for recipe in recipes().values():
        places = (
            "https://arxiv.org/abs/",
            "https://proceedings.mlr.press/",
            "https://proceedings.neurips.cc/",
        )
        assert recipe.paper.startswith(places)
        assert recipe.summary.endswith(".")
        assert recipe.collapse
        assert recipe.title


def test_dino_asks_for_two_global_and_eight_local_crops() -> None:
    views = find("dino").views
    assert (views.globals_, views.locals_) == (2, 8)
    assert views.options["image"]["scale"] == (0.4, 1.0)
    assert views.options["image"]["local"]["scale"] == (0.05, 0.4)


def test_unknown_method_and_option_name_the_nearest() -> None:
    with pytest.raises(PolysenseError, match="unknown method 'simcler'; did you mean 'simclr'"):
        find("simcler")
    with pytest.raises(
        PolysenseError, match=r"unknown option of simclr 'temprature'; did you mean 'temperature'"
    ):
        find("simclr").options({"temprature": 1}, {})


def test_an_option_that_no_configuration_can_hold_is_refused() -> None:
    with pytest.raises(PolysenseError, match="tokenizer of beit is a Linear, which a run's configuration"):
        find("beit").options({"tokenizer": nn.Linear(1, 1)}, {})


def test_what_the_user_gives_wins_over_what_a_rule_scales() -> None:
    options = find("simclr").options({"hidden": 7}, {"hidden": 5, "out": 6})
    assert (options["hidden"], options["out"]) == (7, 6)


def test_widths_follow_the_data() -> None:
    few, many = Circumstances(samples=4000), Circumstances(samples=1_281_167)
    assert scaled_options(find("vicreg").published, few) == {"hidden": 512, "out": 512}
    assert scaled_options(find("vicreg").published, many) == {}


def test_decoders_and_predictors_follow_the_data() -> None:
    few, many = Circumstances(samples=4000), Circumstances(samples=1_281_167)
    assert scaled_options(find("mae").published, few) == {"decoder_width": 128, "decoder_depth": 2}
    assert scaled_options(find("mae").published, many) == {}
    small = {"predictor_width": 96, "predictor_depth": 3}
    assert small.items() <= scaled_options(find("ijepa").published, few).items()


def test_momentum_follows_the_length_of_training() -> None:
    published = find("byol").published
    assert scaled_options(published, Circumstances(steps=1000))["momentum"] == 0.99
    assert "momentum" not in scaled_options(published, Circumstances(steps=100_000))
    assert scaled_options(published, Circumstances(steps=None))["momentum"] == 0.99


def test_prototypes_follow_the_data() -> None:
    published = find("dino").published
    assert scaled_options(published, Circumstances(samples=3822))["prototypes"] == 1024
    assert "prototypes" not in scaled_options(published, Circumstances(samples=1_281_167))


def test_lars_is_for_large_batches() -> None:
    published = Optimisation("lars", lr=0.3, weight_decay=1e-4)
    assert scaled_optimisation(published, Circumstances(batch=4096)) == published
    small = scaled_optimisation(published, Circumstances(batch=64))
    assert small.name == "adamw"
    assert small.rate(64) == pytest.approx(0.001)


def test_an_encoder_that_cannot_hide_is_refused_by_a_masked_method() -> None:
    class Plain(RowEncoder):
        pass

    encoder = Plain(8)
    encoder.trunk = nn.Linear(8, 32)
    with pytest.raises(PolysenseError, match="the encoder Linear cannot hide tokens; choose a ViT"):
        find("mae").build(encoder, "table")
