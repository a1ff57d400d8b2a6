"""Every YAML of conf/ composes, and builds what it names."""

from pathlib import Path

import lightning as L
import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

import train  # noqa: F401  # registers the resolver that the configs use
from datagen.sample import CaptchaSample
from detector.training.data import CaptchaData, CocoSource
from detector.training.run import build_task

CONF = Path(__file__).parent.parent / "conf"


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def compose_training(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("train", [*overrides, "hydra.runtime.output_dir=unused"], return_hydra_config=True)
    HydraConfig.instance().set_config(config)
    return config


def test_every_group_has_options() -> None:
    groups = {path.name for path in CONF.iterdir() if path.is_dir()}
    assert groups == {
        "charset", "data", "experiment", "family", "knobs", "model", "optimizer", "scale", "sweep", "trainer",
    }  # fmt: skip
    assert all(options(group) for group in groups)


@pytest.mark.parametrize("family", options("family"))
def test_families_draw(family: str) -> None:
    source = instantiate(compose_training(f"family={family}").family)
    assert isinstance(source.sample(np.random.default_rng(0)), CaptchaSample)


@pytest.mark.parametrize(
    ("overrides", "held_out"),
    [
        (["family=universal"], False),  # validation draws what training draws
        (["family=universal", "+family@val_family=universal_heldout"], True),
        (["experiment=flagship_cpu"], True),
    ],
)
def test_validation_draws_the_family_or_another(overrides: list[str], held_out: bool) -> None:
    config = compose_training(*overrides)
    assert instantiate(config.data.val.family).renderer.sampler.held_out is held_out
    assert instantiate(config.data.train.family) is not None


def test_validation_draws_with_the_values_of_training() -> None:
    config = compose_training("family=kcaptcha_generator", "family.text.max_length=3")
    assert instantiate(config.data.val.family).text.max_length == 3


@pytest.mark.parametrize("charset", options("charset"))
def test_a_charset_fits_its_network(charset: str) -> None:
    config = compose_training(f"charset={charset}", "data.val_count=1")
    data = instantiate(config.data)
    assert isinstance(data, CaptchaData)
    task = build_task(config, data)
    assert task.model.predict.out_channels == 1 + len(data.charset) + 4


@pytest.mark.parametrize("experiment", sorted({*options("experiment")} - {"adapt"}))  # see test_adapt.py
def test_experiments_compose_and_resolve(experiment: str) -> None:
    config = compose_training(f"experiment={experiment}")
    OmegaConf.to_container(config.data, resolve=True)
    data = instantiate(config.data)
    assert len(data.charset) == 62
    data.train_chunks()
    build_task(config, data)


@pytest.mark.parametrize("task", [name for name in options("experiment/comparison") if name != "protocol"])
def test_the_tasks_of_the_comparison_build_a_baseline(task: str) -> None:
    config = compose_training(f"experiment=comparison/{task}", "model=multi_head")
    data = instantiate(config.data)
    model = build_task(config, data).model
    longest = {"mixed62": 8, "universal": 14, "lengths": 6, "kcaptcha2": 2, "kcaptcha4to7": 7}.get(task, 4)
    assert model.max_length == longest
    assert data.heights == (64,)
    assert data.stretch == (1.0, 1.0)
    for family in config.tests.values():
        assert isinstance(instantiate(family).sample(np.random.default_rng(0)), CaptchaSample)


@pytest.mark.parametrize("model", options("model"))
def test_networks_have_their_optimiser(model: str) -> None:
    config = compose_training(f"model={model}", "data.val_count=1")
    data = instantiate(config.data)
    task = build_task(config, data)
    optimizer = task.make_optimizer(task.model.parameters(), lr=config.task.learning_rate, weight_decay=0.0)
    large = model.startswith(("multi_head", "faster_rcnn"))
    assert type(optimizer).__name__ == ("AdamW" if large else "Muon")
    assert config.label == model


def test_optimisers_can_be_chosen() -> None:
    config = compose_training("optimizer=adamw", "task.learning_rate=0.003")
    assert (config.task.optimizer._target_, config.task.learning_rate) == ("detector.training.task.adamw", 0.003)


@pytest.mark.parametrize("scale", options("scale"))
def test_the_plan_of_the_comparison_composes(scale: str) -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        plan = compose("comparison", [f"scale={scale}"]).scale
    for part in plan.trainings:
        assert part.images % plan.epoch_images == 0
        assert set(part.networks) <= set(plan.networks)
        assert part.task in options("experiment/comparison")
    assert plan.search.images % plan.epoch_images == 0
    for network in plan.networks.values():
        config = compose_training("experiment=comparison/digits4", *plan.options, *network.options)
        assert config.trainer_data.batch_size * config.trainer_data.epoch_batches == plan.epoch_images
        for part in (config.data, config.task, config.model, config.trainer):
            OmegaConf.to_container(part, resolve=True)


@pytest.mark.parametrize("trainer", options("trainer"))
def test_trainers_resolve(trainer: str) -> None:
    config = OmegaConf.to_container(compose_training(f"trainer={trainer}", "run_dir=runs/one").trainer, resolve=True)
    assert isinstance(config, dict)
    assert config["reload_dataloaders_every_n_epochs"] == 1  # CaptchaData relies on it
    if trainer == "cpu":
        assert isinstance(instantiate(config), L.Trainer)


def test_the_folder_data_names_its_folders(tmp_path: Path) -> None:
    (tmp_path / "annotations.json").write_text('{"images": [], "annotations": [], "categories": []}')
    config = compose_training("data=folder", f"data.train.folder={tmp_path}", f"data.val.folder={tmp_path}")
    assert isinstance(instantiate(config.data).val_source, CocoSource)


@pytest.mark.parametrize("override", ["no_such_option=1", "model.no_such=1", "family=no_such"])
def test_unknown_keys_are_refused(override: str) -> None:
    from hydra.errors import ConfigCompositionException

    with pytest.raises(ConfigCompositionException):
        compose_training(override)
