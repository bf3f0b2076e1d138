"""What a config may say: one frozen dataclass a section, with its default, its type and its range.

`parse.py` turns an `ml_collections.ConfigDict` into a `Config`; everything behind that point receives these checked
values and never a loose dictionary. A field is documented here, where its default stands.
"""

import dataclasses
from typing import Any, Literal


def between(default: Any, low: float | None = None, high: float | None = None) -> Any:
    """A dataclass field with an allowed range; both ends belong to it, None leaves an end open."""
    return dataclasses.field(default=default, metadata={"range": (low, high)})


def section(default: Any) -> Any:
    """A dataclass field holding a nested section or a mapping; `default` is called to make it."""
    return dataclasses.field(default_factory=default)


@dataclasses.dataclass(frozen=True)
class RandAugment:
    """Cubuk et al. 2020, with torchvision's fourteen operations; what turns into view shows the background colour."""

    operations: int = between(0, 0)  # applied one after the other; 0 switches it off
    magnitude: int = between(9, 0, 30)  # of all of them, from the weakest to the strongest


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Random changes to a training image, in this order. All off by default; evaluation never uses them.

    The crop is drawn by `area` and `ratio` or, where `area` is None, by `scale`, `aspect` and `shift`.
    """

    rotation: float = between(0.0, 0.0, 180.0)  # degrees, drawn from [-rotation, rotation]
    area: tuple[float, float] | None = None  # random resized crop (Inception, torchvision): fraction of the picture's area
    ratio: tuple[float, float] = (3 / 4, 4 / 3)  # width/height of a crop by area, drawn uniformly in its logarithm
    scale: tuple[float, float] = (1.0, 1.0)  # side of the crop relative to the image: below 1 zooms in, above 1 zooms out
    aspect: float = between(0.0, 0.0, 1.0)  # log width/height ratio of the crop, drawn from [-aspect, aspect]
    shift: float = between(0.0, 0.0, 1.0)  # of the crop's centre, as a fraction of the image side
    flip: float = between(0.0, 0.0, 1.0)  # probability; leave at 0 where captions say left and right
    background: Literal["random", "fixed"] = "fixed"  # colour behind transparent pixels; fixed: images.background
    randaugment: RandAugment = section(RandAugment)
    brightness: float = between(0.0, 0.0, 1.0)  # factor drawn from [1 - x, 1 + x]; likewise below
    contrast: float = between(0.0, 0.0, 1.0)  # about mid-grey
    saturation: float = between(0.0, 0.0, 1.0)
    hue: float = between(0.0, 0.0, 0.5)  # shift drawn from [-x, x] turns of the colour circle
    grayscale: float = between(0.0, 0.0, 1.0)  # probability
    blur: float = between(0.0, 0.0, 1.0)  # probability of a Gaussian blur, of radius 0.2 to 4 pixels at size 224
    erase: float = between(0.0, 0.0, 1.0)  # probability of painting one random rectangle over


@dataclasses.dataclass(frozen=True)
class Images:
    """How a picture becomes pixels. The size is the model's (`model.image.image_size`)."""

    # Resize the shorter side and crop the centre, resize both sides, or resize the longer side and pad.
    resize: Literal["shortest_side_crop", "squash", "letterbox"] = "shortest_side_crop"
    interpolation: Literal["bicubic", "bilinear", "lanczos"] = "bicubic"  # training shrinks JPEGs by a faster filter
    mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)  # CLIP's, of values in [0, 1]
    std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)
    background: tuple[int, int, int] = (255, 255, 255)  # behind transparent pixels, sRGB
    crop_to_content: bool = False  # drop a transparent border first, keeping the picture square
    content_margin: float = between(0.0, 0.0, 1.0)  # left around the content, as a fraction of its side
    maximum_pixels: int = between(178_956_970, 1)  # a larger picture is refused, not decoded


@dataclasses.dataclass(frozen=True)
class Text:
    """How a caption becomes token ids. The length is the model's (`model.text.length`)."""

    # "embedded:emoji", a tokenizer.json, a SentencePiece .model, a vocab.txt, a folder with a Hugging Face tokenizer's files,
    # or OWNER/NAME on the Hugging Face hub
    tokenizer: str = "embedded:emoji"
    canonicalize: tuple[Literal["html", "lower_case", "punctuation", "whitespace"], ...] = ()  # always in this order
    start_token: str | None = "<start>"
    end_token: str | None = "<end>"
    padding_token: str = "<pad>"


@dataclasses.dataclass(frozen=True)
class Texts:
    """What is drawn as a sample's text. Weights are relative."""

    caption: float = between(1.0, 0.0)  # one of its captions,
    caption_and_keywords: float = between(0.0, 0.0)  # a caption followed by some of its keywords in random order,
    keywords: float = between(0.0, 0.0)  # or keywords alone
    caption_fields: dict[str, float] = section(dict)  # field: weight of its captions; empty: every caption alike
    prompts: tuple[str, ...] = ("{}",)  # one of which the text is put in, for {}


@dataclasses.dataclass(frozen=True)
class MixturePart:
    """One source of a mixture. None takes what `data.train` says for all of them."""

    source: str | None = None  # KIND:PATTERN; must be given
    weight: float | None = between(None, 0.0)  # share of the examples, relative; given for every part or for none
    repeat: float = between(1.0, 0.0)  # passes over this source in an epoch; with weights they only set an epoch's length
    caption: float | None = between(None, 0.0)
    caption_and_keywords: float | None = between(None, 0.0)
    keywords: float | None = between(None, 0.0)
    caption_fields: dict[str, float] | None = None
    prompts: tuple[str, ...] | None = None


@dataclasses.dataclass(frozen=True)
class TrainSource(Texts):
    """What to train on: one source, or several."""

    source: str | None = "embedded:emoji/train"  # KIND:PATTERN, quoted where it has braces; None where there is a mixture
    mixture: dict[str, MixturePart] = section(dict)  # by name


@dataclasses.dataclass(frozen=True)
class Data:
    """The input pipeline."""

    batch_size: int = between(256, 1)  # examples a step, over all devices and hosts
    train: TrainSource = section(TrainSource)
    workers: int = between(0, 0, 1024)  # processes that decode; 0 decodes in threads of this process
    threads: int = between(2, 1, 1024)  # threads that decode, in each process
    prefetch: int = between(4, 1, 10_000)  # batches read ahead
    max_bad_fraction: float = between(0.05, 0.0, 1.0)  # of the examples used; more stops the run
    images: Images = section(Images)
    augmentation: Augmentation = section(Augmentation)
    text: Text = section(Text)


@dataclasses.dataclass(frozen=True)
class Tower:
    """What an image and a text transformer have in common. None takes the preset's value."""

    width: int | None = between(None, 1)
    depth: int | None = between(None, 1)
    heads: int | None = between(None, 1)
    mlp_dim: int | None = between(None, 1)
    norm: Literal["pre", "post"] = "pre"
    norm_kind: Literal["layer", "rms"] = "layer"
    norm_epsilon: float = between(1e-6, 0.0, 1.0)
    activation: Literal["gelu", "gelu_tanh", "quick_gelu", "relu", "swiglu"] = "gelu"  # swiglu: a gated MLP of three matrices
    qk_norm: bool = False
    layer_scale: float | None = between(None, 0.0)  # initial value; None leaves it out
    dropout: float = between(0.0, 0.0, 1.0)
    stochastic_depth: float = between(0.0, 0.0, 1.0)  # rate of the last layer, growing linearly from 0
    scan: bool = False  # one compiled layer looped over stacked parameters
    rematerialisation: Literal["none", "full", "save_matmuls", "save_names"] = "none"  # save_names: keep `saved`
    saved: tuple[Literal["query", "key", "value", "attended", "attention_residual", "hidden", "mlp_residual"], ...] = ()
    attention: Literal["auto", "plain"] = "auto"  # by the platform's kernel where it has one, or never
    initialization: Literal["clip", "xavier", "normal"] = "xavier"  # normal: BERT's, a standard deviation of 0.02
    projection: Literal["none", "linear", "linear_with_bias"] = "linear"  # from pooled width to `model.embedding_dim`


@dataclasses.dataclass(frozen=True)
class ImageTower(Tower):
    """A Vision Transformer."""

    kind: Literal["vit"] = "vit"
    preset: str = "B/16"  # a size of `models/presets.py`, optionally with a patch size behind a slash
    patch_size: int | None = between(None, 1)
    image_size: int = between(224, 1)
    stem: Literal["patch", "convolution"] = "patch"
    stem_channels: tuple[int, ...] = ()  # of the convolution stem, one a layer
    stem_strides: tuple[int, ...] = ()  # one a layer; their product is the patch size
    patch_bias: bool = True
    position: Literal["learned", "factorised", "sincos2d", "rotary2d"] = "learned"
    pooling: Literal["cls", "mean", "map", "none"] = "cls"
    registers: int = between(0, 0)
    embedding_norm: bool = False  # CLIP's LayerNorm in front of the first layer
    norm_before_pooling: bool = True  # False: after it, on the pooled vector (as CLIP does; the same for cls)
    token_drop: float = between(0.0, 0.0, 0.99)  # fraction of patches left out in training (FLIP)


@dataclasses.dataclass(frozen=True)
class TextTower(Tower):
    """A text Transformer."""

    kind: Literal["transformer"] = "transformer"
    preset: str = "clip-B"
    vocab_size: int = between(49408, 1)
    length: int = between(77, 1)
    causal: bool = True
    padding_mask: bool = True  # False lets tokens attend padding, as SigLIP does
    pooling: Literal["end", "last", "first", "cls", "mean", "map"] = "end"
    token_types: int = between(0, 0)  # segments told apart by an embedding of their own, as BERT's two
    embedding_norm: bool = False  # BERT's LayerNorm in front of the first layer
    final_norm: bool = True  # False: none behind the last layer, as with norm="post"
    pooler: bool = False  # a linear layer and tanh on what is pooled


@dataclasses.dataclass(frozen=True)
class Model:
    """An image encoder and a text encoder with a shared embedding space."""

    image: ImageTower = section(ImageTower)
    text: TextTower = section(TextTower)
    embedding_dim: int | None = between(None, 1)  # None: the text preset's width


@dataclasses.dataclass(frozen=True)
class ContrastiveObjective:
    """Fields that the two contrastive objectives share."""

    weight: float = between(1.0, 0.0)
    positives: tuple[Literal["caption", "image"], ...] = ("caption", "image")  # sharing which makes a pair positive
    implementation: Literal["dense", "chunked", "ring"] = "dense"  # how the pairs are met; the numbers are the same
    chunk_size: int = between(1024, 1)  # chunked and ring: texts that a device's images meet at once


@dataclasses.dataclass(frozen=True)
class SoftmaxContrastive(ContrastiveObjective):
    """InfoNCE both ways (Radford et al. 2021)."""

    kind: Literal["softmax"] = "softmax"
    initial_scale: float = between(1 / 0.07, 1e-6)  # multiplies cosine similarities; kept as its logarithm
    maximum_scale: float = between(100.0, 1e-6)
    label_smoothing: float = between(0.0, 0.0, 0.999)


@dataclasses.dataclass(frozen=True)
class SigmoidContrastive(ContrastiveObjective):
    """Pairwise sigmoid loss (Zhai et al. 2023)."""

    kind: Literal["sigmoid"] = "sigmoid"
    initial_scale: float = between(10.0, 1e-6)
    maximum_scale: float = between(1e6, 1e-6)
    initial_bias: float = -10.0


Objective = SoftmaxContrastive | SigmoidContrastive


@dataclasses.dataclass(frozen=True)
class Schedule:
    """The learning rate over time, as a multiple of `optimizer.rate`. Lengths are in steps; a fraction is of the run."""

    kind: Literal["cosine", "linear", "rsqrt", "constant", "warmup_stable_decay"] = "cosine"
    warmup: float = between(0.0, 0.0)  # below 1 a fraction of the run, else steps; likewise below
    decay: float = between(0.1, 0.0)  # the last part of warmup_stable_decay, and of rsqrt (0 leaves it out there)
    timescale: float = between(10_000.0, 1.0)  # of rsqrt, in steps
    final: float = between(0.0, 0.0, 1.0)  # multiple reached at the end of cosine, linear and warmup_stable_decay


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """An Optax chain: clipping, moments, decoupled weight decay, learning rate. Rules are (regex, value) pairs.

    A regex is searched in the parameter's path (`model/image/blocks_0/mlp/in/kernel`); the first rule that matches
    decides, and a rule that matches nothing is an error.
    """

    kind: Literal["adamw", "adam", "sgd", "adafactor", "lion", "muon"] = "adamw"
    rate: float = between(1e-3, 0.0)
    b1: float = between(0.9, 0.0, 1.0)
    b2: float = between(0.98, 0.0, 1.0)
    epsilon: float = between(1e-6, 0.0)
    momentum: float = between(0.9, 0.0, 1.0)  # sgd
    weight_decay: float = between(0.0, 0.0)
    decay_rules: tuple[tuple[str, float], ...] = ((r"(bias|scale)$", 0.0),)  # multiples of weight_decay
    rate_rules: tuple[tuple[str, float], ...] = ()  # multiples of rate
    frozen: tuple[str, ...] = ()  # regexes of parameters that never change
    clip_norm: float | None = between(None, 0.0)  # of the global gradient norm
    schedule: Schedule = section(Schedule)


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
    tasks: tuple[Literal["retrieval", "zero_shot"], ...] = ("retrieval",)
    every_steps: int | None = between(None, 1)  # None: after the last step only
    batch_size: int = between(256, 1)
    class_field: str = "group"  # zero_shot: the metadata field that names the class
    templates: tuple[str, ...] = ("{}",)
    class_names: dict[str, tuple[str, ...]] = section(dict)  # zero_shot: better words for a class than its bare name
    captions_per_class: int = between(400, 0)  # zero_shot by descriptions: training captions kept for a class


@dataclasses.dataclass(frozen=True)
class Config:
    """A whole experiment."""

    seed: int = between(0, 0, 2**31 - 1)
    steps: int | None = between(None, 1)  # exactly one of the three durations is set
    examples: int | None = between(None, 1)
    epochs: float | None = between(None, 0.0)
    log_every: int = between(50, 1)
    data: Data = section(Data)
    model: Model = section(Model)
    objectives: dict[str, Objective] = section(dict)
    optimizer: Optimizer = section(Optimizer)
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
