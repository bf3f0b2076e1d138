"""What a config may say: one frozen dataclass a section, with its default, its type and its range.

`parse.py` turns an `ml_collections.ConfigDict` into a `Config`; everything behind that point receives these checked
values and never a loose dictionary. A field is documented here, where its default stands.
"""

import dataclasses
from typing import Literal

from vlp_jax.config.data_schema import AnyTarget as AnyTarget
from vlp_jax.config.data_schema import Augmentation as Augmentation
from vlp_jax.config.data_schema import Boxes as Boxes
from vlp_jax.config.data_schema import Classes as Classes
from vlp_jax.config.data_schema import ClassTarget as ClassTarget
from vlp_jax.config.data_schema import Data as Data
from vlp_jax.config.data_schema import Dependencies as Dependencies
from vlp_jax.config.data_schema import Images as Images
from vlp_jax.config.data_schema import MixturePart as MixturePart
from vlp_jax.config.data_schema import NumberTarget as NumberTarget
from vlp_jax.config.data_schema import RandAugment as RandAugment
from vlp_jax.config.data_schema import ScoresTarget as ScoresTarget
from vlp_jax.config.data_schema import Text as Text
from vlp_jax.config.data_schema import Texts as Texts
from vlp_jax.config.data_schema import TextTarget as TextTarget
from vlp_jax.config.data_schema import TrainSource as TrainSource
from vlp_jax.config.decoder_schema import AnyDecoder as AnyDecoder
from vlp_jax.config.decoder_schema import Decoder as Decoder
from vlp_jax.config.decoder_schema import GruDecoder as GruDecoder
from vlp_jax.config.decoder_schema import LstmDecoder as LstmDecoder
from vlp_jax.config.decoder_schema import RecurrentDecoder as RecurrentDecoder
from vlp_jax.config.fields import between, positive, section
from vlp_jax.config.fusion_schema import BilinearFusion as BilinearFusion
from vlp_jax.config.fusion_schema import CoAttentionFusion as CoAttentionFusion
from vlp_jax.config.fusion_schema import ConcatenationFusion as ConcatenationFusion
from vlp_jax.config.fusion_schema import CrossAttentionFusion as CrossAttentionFusion
from vlp_jax.config.fusion_schema import Fusion as Fusion
from vlp_jax.config.fusion_schema import GatedFusion as GatedFusion
from vlp_jax.config.fusion_schema import GraphFusion as GraphFusion
from vlp_jax.config.fusion_schema import MergedFusion as MergedFusion
from vlp_jax.config.fusion_schema import PooledFusion as PooledFusion
from vlp_jax.config.fusion_schema import TextTowerFusion as TextTowerFusion
from vlp_jax.config.fusion_schema import VisualAttentionFusion as VisualAttentionFusion
from vlp_jax.config.model_schema import Model as Model
from vlp_jax.config.objective_schema import AnsweringObjective as AnsweringObjective
from vlp_jax.config.objective_schema import CaptioningObjective as CaptioningObjective
from vlp_jax.config.objective_schema import Classification as Classification
from vlp_jax.config.objective_schema import ContrastiveObjective as ContrastiveObjective
from vlp_jax.config.objective_schema import HidesWords as HidesWords
from vlp_jax.config.objective_schema import ImageViews as ImageViews
from vlp_jax.config.objective_schema import MaskedAutoencoder as MaskedAutoencoder
from vlp_jax.config.objective_schema import MaskedImage as MaskedImage
from vlp_jax.config.objective_schema import MaskedJoint as MaskedJoint
from vlp_jax.config.objective_schema import MaskedLanguage as MaskedLanguage
from vlp_jax.config.objective_schema import Matching as Matching
from vlp_jax.config.objective_schema import MomentumContrastive as MomentumContrastive
from vlp_jax.config.objective_schema import Objective as Objective
from vlp_jax.config.objective_schema import Regression as Regression
from vlp_jax.config.objective_schema import SigmoidContrastive as SigmoidContrastive
from vlp_jax.config.objective_schema import SoftmaxContrastive as SoftmaxContrastive
from vlp_jax.config.objective_schema import Supervised as Supervised
from vlp_jax.config.objective_schema import Triplet as Triplet
from vlp_jax.config.objective_schema import Weighted as Weighted
from vlp_jax.config.tower_schema import AnyImageTower as AnyImageTower
from vlp_jax.config.tower_schema import AnyTextTower as AnyTextTower
from vlp_jax.config.tower_schema import BagTower as BagTower
from vlp_jax.config.tower_schema import BidirectionalLstmTower as BidirectionalLstmTower
from vlp_jax.config.tower_schema import ConvolutionTower as ConvolutionTower
from vlp_jax.config.tower_schema import GruTower as GruTower
from vlp_jax.config.tower_schema import ImageTower as ImageTower
from vlp_jax.config.tower_schema import InceptionTower as InceptionTower
from vlp_jax.config.tower_schema import LstmTower as LstmTower
from vlp_jax.config.tower_schema import RecurrentTower as RecurrentTower
from vlp_jax.config.tower_schema import ResNetTower as ResNetTower
from vlp_jax.config.tower_schema import Stack as Stack
from vlp_jax.config.tower_schema import TextTower as TextTower
from vlp_jax.config.tower_schema import Tower as Tower
from vlp_jax.config.tower_schema import VggTower as VggTower
from vlp_jax.config.tower_schema import WordTower as WordTower


@dataclasses.dataclass(frozen=True)
class Schedule:
    """The learning rate over time, as a multiple of `optimizer.learning_rate`. Lengths are in steps; a fraction is of the run."""

    kind: Literal["cosine", "linear", "rsqrt", "constant", "exponential", "warmup_stable_decay"] = "cosine"
    warmup: float = between(0.0, 0.0)  # below 1 a fraction of the run, else steps; likewise below
    decay: float = between(0.1, 0.0)  # the last part of warmup_stable_decay, and of rsqrt (0 leaves it out there)
    timescale: float = between(10_000.0, 1.0)  # of rsqrt, in steps
    factor: float = between(0.9, 1e-6, 1.0)  # of exponential: each `period` multiplies the rate by it
    period: float = between(1000.0, 0.0)  # below 1 a fraction of the run, else steps
    final: float = between(0.0, 0.0, 1.0)  # multiple at the end of cosine, linear, warmup_stable_decay, rsqrt; exponential's least


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """An Optax chain: clipping, moments, weight decay, learning rate. Rules are (regex, value) pairs.

    A regex is searched in the parameter's path (`model/image/blocks_0/mlp/in/kernel`); the first rule that matches
    decides, and a rule that matches nothing is an error.
    """

    kind: Literal["adamw", "adam", "sgd", "adafactor", "lion", "muon"] = "adamw"
    learning_rate: float = between(1e-3, 0.0)
    b1: float = between(0.9, 0.0, 0.999999)
    b2: float = between(0.98, 0.0, 0.999999)
    epsilon: float = positive(1e-6)  # adam, adamw, muon
    momentum: float = between(0.9, 0.0, 0.999999)  # sgd
    newton_schulz_steps: int = between(5, 1)  # muon: three products each, to make an update nearly orthogonal
    weight_decay: float = between(0.0, 0.0)
    # What weight decay is multiplied by: the learning rate, as in PyTorch's AdamW, so that an update takes weight_decay *
    # learning_rate of each parameter; or the schedule alone, from 0 to 1, as in big_vision, whose 1e-4 is AdamW's 0.1 at 1e-3.
    decay_coupling: Literal["learning_rate", "schedule"] = "learning_rate"
    decay_multipliers: tuple[tuple[str, float], ...] = ((r"(bias|scale)$", 0.0),)  # multiples of weight_decay
    lr_multipliers: tuple[tuple[str, float], ...] = ()  # multiples of learning_rate
    frozen: tuple[str, ...] = ()  # regexes of parameters that never change; nor do the statistics of a BatchNorm all of whose are
    clip_norm: float | None = positive(None)  # of the global gradient norm
    schedule: Schedule = section(Schedule)


@dataclasses.dataclass(frozen=True)
class Regularizer:
    """l1 * sum |w| + l2 * sum w^2, added to the loss; with both, an elastic net. Unlike weight decay, moments see its slope."""

    l1: float = between(0.0, 0.0)
    l2: float = between(0.0, 0.0)
    pattern: str = r"kernel$"  # regex, searched in the path of each parameter, as in `Optimizer`: whose numbers w are


@dataclasses.dataclass(frozen=True)
class Accumulation:
    """Gradient accumulation over `microbatches` equal parts of a batch."""

    microbatches: int = between(1, 1)
    # What losses that compare examples see: the whole batch, by a second forward pass (the gradients of one batch, exactly),
    # or only the microbatch (cheaper, and another loss).
    negatives: Literal["batch", "microbatch"] = "batch"


@dataclasses.dataclass(frozen=True)
class Precision:
    """Parameters are always float32; so are logits and losses."""

    compute: Literal["float32", "bfloat16"] = "float32"


@dataclasses.dataclass(frozen=True)
class Mesh:
    """The device mesh, and what of the model lies on which of its axes. One size may be -1 and takes the remaining devices.

    `data` and `fsdp` divide the batch; `fsdp` also divides parameters, their moments and averages, `tensor` attention heads,
    MLPs and the vocabulary. A rule is a logical axis and the mesh axes it lies on, if any: ("vocab",), ("embed", "fsdp").
    """

    data: int = between(-1, -1)
    fsdp: int = between(1, -1)
    tensor: int = between(1, -1)
    dcn_data: int = between(-1, -1)  # TPU slices that `data` counts and spans; -1: as many as can be; `fsdp` spans the others
    strategy: Literal["data", "fsdp", "tensor", "fsdp+tensor"] | None = None  # a preset of rules; None: by the sizes above
    rules: tuple[tuple[str, ...], ...] = ()  # put in front of the preset's
    # Parameters with fewer elements (in one layer) lie whole on every device; only `tensor` still divides heads and MLPs.
    replicate_below: int = between(65_536, 0)


@dataclasses.dataclass(frozen=True)
class Profile:
    """A window of updates recorded for TensorBoard's profiler, in DIR/profile."""

    start: int | None = between(None, 1)  # the first update recorded; None records none
    steps: int = between(5, 1)


@dataclasses.dataclass(frozen=True)
class Hosts:
    """How long several hosts wait for each other, in seconds."""

    initialization_seconds: float = between(300.0, 1.0)  # for all of them to come, at the start
    heartbeat_seconds: float = between(60.0, 2.0)  # of silence, after which a host counts as lost and the others leave
    barrier_seconds: float = between(1800.0, 1.0)  # wherever all meet: checks, logged steps, checkpoints


@dataclasses.dataclass(frozen=True)
class Guard:
    """What is done about an update whose loss or gradient is not finite, or stands out. A skipped update leaves parameters,
    moments and average as they are; its batch counts as consumed."""

    non_finite: Literal["stop", "skip"] = "stop"  # stop: the run ends, and the last good checkpoint is named
    spike_factor: float | None = between(None, 1.0)  # skip above so many times the running mean; None: never
    spike_of: Literal["gradient_norm", "loss"] = "gradient_norm"
    spike_decay: float = between(0.99, 0.0, 0.999999)  # of the running mean over the updates that were made
    spike_after: int = between(100, 1)  # updates, before which no spike is told from the noise of a start
    maximum_skips: int = between(20, 1)  # in a row; one more ends the run


@dataclasses.dataclass(frozen=True)
class Watchdog:
    """What is done when nothing moves on for far too long: where every thread stands is written to the terminal and the workdir."""

    # for one step with its data and checkpoint (the first with its compilation), one batch of an evaluation, or the start with
    # a checkpoint's restoration; None: never
    seconds: float | None = between(1800.0, 0.1)
    exit: bool = False  # leave then with status 75, for a launcher that starts the run again


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """When to save and what to keep. The last step is always saved."""

    every_steps: int | None = between(1000, 1)
    every_minutes: float | None = between(None, 0.0)
    keep: int = between(2, 1)  # the newest
    keep_best: int = between(0, 0)  # beside the newest, by `best_metric`
    best_metric: str | None = None  # a name of metrics.jsonl, such as val_vendor/text_to_image_recall@1
    best_mode: Literal["max", "min"] = "max"


@dataclasses.dataclass(frozen=True)
class Evaluator:
    """An evaluation set and what is measured on it. Its name becomes the prefix of the metrics."""

    source: str = "embedded:emoji/val_vendor"
    tasks: tuple[Literal["retrieval", "zero_shot", "matching", "captions", "classification", "regression", "answers"], ...] = (
        "retrieval",)
    every_steps: int | None = between(None, 1)  # None: after the last step only
    batch_size: int = between(256, 1)
    # retrieval: equal captions are one text, found by any image that has it; False: each is a text of its own, found by its own
    # image alone, which is the protocol of COCO and CLIP_benchmark
    merge_equal_captions: bool = False
    # zero_shot: the metadata field that names the class, with dots as in `Target`; None: the source's own, "class" in folders
    class_field: str | None = None
    templates: tuple[str, ...] = ("{}",)  # prompts, with {} for the class; "imagenet": CLIP's 80; or a file with one a line
    # zero_shot: better words for a class than its bare name, by class; or the names of classes 0, 1 and so on, "imagenet" for its
    # 1,000, or a file with one a line
    class_names: dict[str, tuple[str, ...]] | tuple[str, ...] = section(dict)
    captions_per_class: int = between(400, 0)  # zero_shot by descriptions: training captions kept for a class
    objective: str | None = None  # classification, regression, answers: whose head; None: that of the first that has one
    by: str | None = None  # classification: the metadata field, likewise, by whose values accuracy is also given
    num_beams: int = between(1, 1)  # captions and answers: texts that beam search keeps at a time; 1: the likeliest word each time
    # Of beam search, as `generate` of transformers has them: a finished text's log-probability is divided by its length to this
    # power; when the search ends (see `BeamSearch` in models/decoder/generation.py).
    length_penalty: float = 1.0
    early_stopping: Literal[False, True, "never"] = False


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """What a run takes from another one when it begins; a run that goes on never looks there. Either workdir or stage is set.

    Layers may be scanned in one of the two and not in the other. Positions of patches are resampled for pictures of another size;
    of those of words the first are taken where texts are shorter here, and fresh ones stand behind them where they are longer. A
    stack has as many layers here as there, or patterns name as many of them (`/layer_[0-5]/`).
    """

    workdir: str | None = None  # the other run's
    stage: str | None = None  # an earlier stage of the same training (see configs/staged.py)
    step: int | None = between(None, 1)  # None: its newest checkpoint
    ema: bool | None = None  # the averaged parameters; None: where it keeps an average
    # Regexes of those that are taken, by their names here, where both have them. Empty: all of the model, and what an objective has
    # learned that goes on, with the same name, kind and shapes in both (a scale, a bias, a head for the same target)
    parameters: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Config:
    """A whole experiment."""

    seed: int = between(0, 0, 2**31 - 1)
    steps: int | None = between(None, 1)  # exactly one of the three durations is set
    examples: int | None = between(None, 1)
    epochs: float | None = positive(None)
    log_every: int = between(50, 1)
    data: Data = section(Data)
    model: Model = section(Model)
    objectives: dict[str, Objective] = section(dict)
    optimizer: Optimizer = section(Optimizer)
    regularizers: dict[str, Regularizer] = section(dict)
    ema: float | None = between(None, 0.0, 1.0)  # decay of the parameters' exponential moving average
    accumulation: Accumulation = section(Accumulation)
    precision: Precision = section(Precision)
    mesh: Mesh = section(Mesh)
    profile: Profile = section(Profile)
    hosts: Hosts = section(Hosts)
    guard: Guard = section(Guard)
    watchdog: Watchdog = section(Watchdog)
    checkpoint: Checkpoint = section(Checkpoint)
    evaluators: dict[str, Evaluator] = section(dict)
    pretrained: dict[str, Pretrained] = section(dict)  # a later entry wins where several give the same parameter
