"""The schema of a config: one frozen dataclass per section, with defaults, types and ranges.

`parse.py` turns an `ml_collections.ConfigDict` into a `Config`. All later code receives these
checked values and never an untyped dictionary. A field is documented here, next to its default.
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
    """The learning rate over time, as a multiple of `optimizer.learning_rate`.

    Lengths are in steps; a fraction is of the run.
    """

    kind: Literal["cosine", "linear", "rsqrt", "constant", "exponential", "warmup_stable_decay"] = "cosine"
    warmup: float = between(0.0, 0.0)  # below 1 a fraction of the run, else steps; so is `decay`
    decay: float = between(0.1, 0.0)  # final part of warmup_stable_decay, and of rsqrt (there 0: none)
    timescale: float = between(10_000.0, 1.0)  # of rsqrt, in steps
    factor: float = between(0.9, 1e-6, 1.0)  # exponential: multiplies the learning rate once per `period`
    period: float = between(1000.0, 0.0)  # below 1 a fraction of the run, else steps
    final: float = between(0.0, 0.0, 1.0)  # at the end of cosine, linear, warmup_stable_decay, rsqrt; lower bound of exponential


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """An Optax chain: clipping, moments, weight decay, learning rate. Rules are (regex, value) pairs.

    A regex is searched in the parameter's path (`model/image/blocks_0/mlp/in/kernel`). The first
    rule that matches applies, and a rule that matches no parameter is an error.
    """

    kind: Literal["adamw", "adam", "sgd", "adafactor", "lion", "muon"] = "adamw"
    learning_rate: float = between(1e-3, 0.0)
    b1: float = between(0.9, 0.0, 0.999999)
    b2: float = between(0.98, 0.0, 0.999999)
    epsilon: float = positive(1e-6)  # adam, adamw, muon
    momentum: float = between(0.9, 0.0, 0.999999)  # sgd
    newton_schulz_steps: int = between(5, 1)  # muon: iterations that orthogonalise an update, of three products each
    weight_decay: float = between(0.0, 0.0)
    # The factor of weight decay. learning_rate: as in PyTorch's AdamW, an update subtracts weight_decay * learning_rate of each
    # parameter. schedule: its multiple from 0 to 1 alone, as in big_vision; its 1e-4 equals AdamW's 0.1 at a learning rate of 1e-3.
    decay_coupling: Literal["learning_rate", "schedule"] = "learning_rate"
    decay_multipliers: tuple[tuple[str, float], ...] = ((r"(bias|scale)$", 0.0),)  # multiples of weight_decay
    lr_multipliers: tuple[tuple[str, float], ...] = ()  # multiples of learning_rate
    frozen: tuple[str, ...] = ()  # regexes of constant parameters; a fully frozen BatchNorm keeps its statistics
    clip_norm: float | None = positive(None)  # of the global gradient norm
    schedule: Schedule = section(Schedule)


@dataclasses.dataclass(frozen=True)
class Regularizer:
    """l1 * sum |w| + l2 * sum w^2, added to the loss; with both, an elastic net.

    Unlike weight decay, its gradient enters the optimizer's moments.
    """

    l1: float = between(0.0, 0.0)
    l2: float = between(0.0, 0.0)
    pattern: str = r"kernel$"  # regex, searched in the path of each parameter, as in `Optimizer`, to select w


@dataclasses.dataclass(frozen=True)
class Accumulation:
    """Gradient accumulation over `microbatches` equal parts of a batch."""

    microbatches: int = between(1, 1)
    # Negatives of losses that compare examples. batch: the whole batch, by a second forward pass, with exactly the gradients of
    # one batch. microbatch: cheaper, but a different loss.
    negatives: Literal["batch", "microbatch"] = "batch"


@dataclasses.dataclass(frozen=True)
class Precision:
    """Parameters, logits and losses are always float32."""

    compute: Literal["float32", "bfloat16"] = "float32"


@dataclasses.dataclass(frozen=True)
class Mesh:
    """The device mesh, and the sharding of parameters over it.

    One size may be -1; it takes the remaining devices. `data` and `fsdp` divide the batch. `fsdp`
    also divides parameters, their moments and their EMA; `tensor` divides attention heads, MLPs and
    the vocabulary. A rule is a logical axis and the mesh axes that it is sharded over, if any:
    ("vocab",), ("embed", "fsdp").
    """

    data: int = between(-1, -1)
    fsdp: int = between(1, -1)
    tensor: int = between(1, -1)
    dcn_data: int = between(-1, -1)  # TPU slices that `data` spans, with `fsdp` over the others; -1: as many as possible
    strategy: Literal["data", "fsdp", "tensor", "fsdp+tensor"] | None = None  # a preset of rules; None: by the sizes above
    rules: tuple[tuple[str, ...], ...] = ()  # take precedence over the preset's
    # Parameters with fewer elements (in one layer) are replicated; only `tensor` still divides heads and MLPs.
    replicate_below: int = between(65_536, 0)


@dataclasses.dataclass(frozen=True)
class Profile:
    """A window of updates recorded for TensorBoard's profiler, in DIR/profile."""

    start: int | None = between(None, 1)  # the first recorded update; None: no profile
    steps: int = between(5, 1)


@dataclasses.dataclass(frozen=True)
class Hosts:
    """Timeouts between several hosts, in seconds."""

    initialization_seconds: float = between(300.0, 1.0)  # until all have connected, at the start
    heartbeat_seconds: float = between(60.0, 2.0)  # without a heartbeat, after which a host counts as lost and the others exit
    barrier_seconds: float = between(1800.0, 1.0)  # of barriers: checks, logged steps, checkpoints


@dataclasses.dataclass(frozen=True)
class Guard:
    """Handling of an update with a non-finite loss or gradient, or with a spike.

    A skipped update leaves parameters, moments and EMA unchanged; its batch counts as consumed.
    """

    non_finite: Literal["stop", "skip"] = "stop"  # stop: ends the run, with a message naming the last good checkpoint
    spike_factor: float | None = between(None, 1.0)  # skip above this multiple of the running mean; None: never
    spike_of: Literal["gradient_norm", "loss"] = "gradient_norm"
    spike_decay: float = between(0.99, 0.0, 0.999999)  # of the running mean over updates that were not skipped
    spike_after: int = between(100, 1)  # updates before spikes are detected; early ones are noisy
    maximum_skips: int = between(20, 1)  # in a row; one more ends the run


@dataclasses.dataclass(frozen=True)
class Watchdog:
    """Detection of a run that makes no progress.

    The stack of every thread is then written to the terminal and the workdir.
    """

    # Limit for one step with its data and checkpoint (the first one with compilation), for one batch of an evaluation, or for the
    # start with the restoration of a checkpoint; None: no watchdog.
    seconds: float | None = between(1800.0, 0.1)
    exit: bool = False  # exit then with status 75, for a launcher that restarts the run


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """When checkpoints are saved and which are kept. The last step is always saved."""

    every_steps: int | None = between(1000, 1)
    every_minutes: float | None = between(None, 0.0)
    keep: int = between(2, 1)  # number of latest checkpoints kept
    keep_best: int = between(0, 0)  # number of best ones kept in addition, by `best_metric`
    best_metric: str | None = None  # a key of metrics.jsonl, such as val_vendor/text_to_image_recall@1
    best_mode: Literal["max", "min"] = "max"


@dataclasses.dataclass(frozen=True)
class Evaluator:
    """An evaluation set and its metrics. The name of the entry is the prefix of the metrics."""

    source: str = "embedded:emoji/val_vendor"
    tasks: tuple[Literal["retrieval", "zero_shot", "matching", "captions", "classification", "regression", "answers"], ...] = (
        "retrieval",)
    every_steps: int | None = between(None, 1)  # None: after the last step only
    batch_size: int = between(256, 1)
    # retrieval. True: equal captions are one text, and any image that has it is correct. False: each caption is a text of its own,
    # and only its own image is correct, the protocol of COCO and CLIP_benchmark.
    merge_equal_captions: bool = False
    # zero_shot: metadata field of the class, with dots as in `Target`; None: the source's own, "class" in folders
    class_field: str | None = None
    templates: tuple[str, ...] = ("{}",)  # prompts, with {} for the class; "imagenet": CLIP's 80; or a file with one per line
    # zero_shot: better names for each class, by class; or the names of classes 0, 1 and so on; or "imagenet" for its 1,000; or a
    # file with one per line.
    class_names: dict[str, tuple[str, ...]] | tuple[str, ...] = section(dict)
    captions_per_class: int = between(400, 0)  # zero_shot by descriptions: training captions kept per class
    objective: str | None = None  # classification, regression, answers: the objective with the head; None: the first
    by: str | None = None  # classification: metadata field, as above; accuracy is also reported per value
    num_beams: int = between(1, 1)  # captions and answers: number of beams; 1: greedy
    # Beam search, as in transformers' `generate`. length_penalty: a finished text's log-probability is divided by its length to
    # this power. early_stopping: when the search ends (see `BeamSearch` in models/decoder/generation.py).
    length_penalty: float = 1.0
    early_stopping: Literal[False, True, "never"] = False


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """Parameters that a new run takes from another run; a resumed run ignores it.

    Either workdir or stage is set. Layers may be scanned in one run and not in the other. Position
    embeddings of patches are resampled for another image size. Of those of text, the first are
    taken where texts are shorter here; where they are longer, freshly initialised ones are
    appended. A stack has as many layers here as there, or patterns select as many
    (`/layer_[0-5]/`).
    """

    workdir: str | None = None  # of the other run
    stage: str | None = None  # an earlier stage of the same training (see configs/staged.py)
    step: int | None = between(None, 1)  # None: its latest checkpoint
    ema: bool | None = None  # take the EMA parameters; None: where the run has them
    # Regexes of the parameters taken, by their names here, where both runs have them. Empty: all of the model, and those of an
    # objective with the same name, kind and shapes in both (a scale, a bias, a head for the same target).
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
    ema: float | None = between(None, 0.0, 1.0)  # decay of the exponential moving average (EMA) of the parameters
    accumulation: Accumulation = section(Accumulation)
    precision: Precision = section(Precision)
    mesh: Mesh = section(Mesh)
    profile: Profile = section(Profile)
    hosts: Hosts = section(Hosts)
    guard: Guard = section(Guard)
    watchdog: Watchdog = section(Watchdog)
    checkpoint: Checkpoint = section(Checkpoint)
    evaluators: dict[str, Evaluator] = section(dict)
    pretrained: dict[str, Pretrained] = section(dict)  # a later entry takes precedence for a parameter in several
