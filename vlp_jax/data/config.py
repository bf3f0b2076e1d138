"""The `data` section of a config."""

import dataclasses

from vlp_jax.config.fields import between, section
from vlp_jax.config.section import Section
from vlp_jax.data.images.boxes import BoxesConfig
from vlp_jax.data.images.config import AugmentationConfig
from vlp_jax.data.images.preprocessing import ImagesConfig
from vlp_jax.data.target import TargetConfig
from vlp_jax.data.text.captions import TextsConfig
from vlp_jax.data.text.dependency_parses import DependenciesConfig
from vlp_jax.data.text.tokenizer import TextConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class MixturePartConfig(Section):
    """One source of a mixture. None takes the value of `data.train`."""

    source: str | None = None  # KIND:PATTERN; required
    # relative share of the examples; set for every part or for none
    weight: float | None = between(None, 0.0)
    # passes over this source per epoch; with weights, only sets an epoch's length
    repeat: float = between(1.0, 0.0)
    caption: float | None = between(None, 0.0)
    caption_and_keywords: float | None = between(None, 0.0)
    keywords: float | None = between(None, 0.0)
    caption_fields: dict[str, float] | None = None
    prompts: tuple[str, ...] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainSourceConfig(TextsConfig):
    """Training data: one source, or a mixture of several."""

    # KIND:PATTERN, quoted where it has braces; None with a mixture
    source: str | None = "embedded:emoji/train"
    mixture: dict[str, MixturePartConfig] = section(dict)  # by name


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig(Section):
    """The input pipeline."""

    batch_size: int = between(256, 1)  # examples per step, over all devices and hosts
    train: TrainSourceConfig = section(TrainSourceConfig)
    # Processes that decode; 0: threads of this process; None: by the number of cores of this
    # machine (data/cores.py)
    workers: int | None = between(None, 0, 1024)
    threads: int = between(2, 1, 1024)  # decoding threads in each process
    prefetch: int = between(4, 1, 10_000)  # batches read ahead
    # of the examples used; more than that ends the run
    max_bad_fraction: float = between(0.05, 0.0, 1.0)
    images: ImagesConfig = section(ImagesConfig)
    augmentation: AugmentationConfig = section(AugmentationConfig)
    text: TextConfig = section(TextConfig)
    targets: dict[str, TargetConfig] = section(dict)  # by name, for objectives that predict them
    boxes: BoxesConfig | None = None  # for model.fusion.regions="boxes"
    dependencies: DependenciesConfig | None = None  # for model.fusion.words="dependencies"
    # of the additional views of some objectives; None: that of the image
    view_augmentation: AugmentationConfig | None = None
