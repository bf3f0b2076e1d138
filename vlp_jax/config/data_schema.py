"""Schema of the input: the `data` section."""

import dataclasses
import math
from typing import Literal

from vlp_jax.config.fields import between, section

CHANGES_OF_TEXT = ("ftfy", "html", "lower_case", "vqa_answer", "person", "separators", "marks", "marks_to_blanks", "punctuation",
                   "stop_words", "whitespace")
RANDAUGMENT = ("identity", "shear_x", "shear_y", "translate_x", "translate_y", "rotate", "brightness", "colour", "contrast",
               "sharpness", "posterize", "solarize", "autocontrast", "equalize")


@dataclasses.dataclass(frozen=True)
class RandAugment:
    """RandAugment (Cubuk et al. 2020), with torchvision's fourteen operations.

    Uncovered pixels show the background colour.
    """

    operations: int = between(0, 0)  # number drawn, applied one after the other; 0: off
    magnitude: int = between(9, 0, 30)  # of all operations, from weakest to strongest
    probability: float = between(1.0, 0.0, 1.0)  # of applying each drawn operation
    names: tuple[Literal[RANDAUGMENT], ...] = ()  # operations to draw from; empty: all fourteen


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Random changes to a training image, in this order. All are off by default; evaluation never uses them.

    The crop is drawn by `area` and `ratio` or, where `area` is None, by `scale`, `aspect` and
    `shift`.
    """

    rotation: float = between(0.0, 0.0, 180.0)  # degrees, drawn from [-rotation, rotation]
    area: tuple[float, float] | None = None  # random resized crop (Inception, torchvision): fraction of the image's area
    ratio: tuple[float, float] = (3 / 4, 4 / 3)  # width/height of a crop by area, drawn uniformly in its logarithm
    scale: tuple[float, float] = (1.0, 1.0)  # side of the crop relative to the image: below 1 zooms in, above 1 zooms out
    aspect: float = between(0.0, 0.0, 1.0)  # log width/height ratio of the crop, drawn from [-aspect, aspect]
    shift: float = between(0.0, 0.0, 1.0)  # of the crop's centre, as a fraction of the image side
    flip: float = between(0.0, 0.0, 1.0)  # probability; keep 0 where captions mention left and right
    background: Literal["random", "fixed"] = "fixed"  # colour behind transparent pixels; fixed: images.background
    randaugment: RandAugment = section(RandAugment)
    brightness: float = between(0.0, 0.0, 1.0)  # factor drawn from [1 - x, 1 + x]; likewise contrast and saturation
    contrast: float = between(0.0, 0.0, 1.0)  # about mid-grey
    saturation: float = between(0.0, 0.0, 1.0)
    hue: float = between(0.0, 0.0, 0.5)  # shift drawn from [-x, x] turns of the colour circle
    grayscale: float = between(0.0, 0.0, 1.0)  # probability
    blur: float = between(0.0, 0.0, 1.0)  # probability of a Gaussian blur, with std 0.1 to 2 pixels at size 224
    erase: float = between(0.0, 0.0, 1.0)  # probability of erasing one random rectangle
    erase_area: tuple[float, float] = (0.02, 0.25)  # of that rectangle, as a fraction of the image's
    erase_ratio: tuple[float, float] = (math.exp(-1), math.e)  # its height/width, drawn uniformly in its logarithm
    erase_fill: Literal["colour", "noise", "mean"] = "colour"  # one random colour, one per pixel, or images.mean


@dataclasses.dataclass(frozen=True)
class Images:
    """Conversion of an image to pixels. The size is the model's (`model.image.image_size`)."""

    # Resize the shorter side and crop the centre, resize both sides, or resize the longer side and pad.
    resize: Literal["shortest_side_crop", "squash", "letterbox"] = "shortest_side_crop"
    interpolation: Literal["bicubic", "bilinear", "lanczos"] = "bicubic"  # training downscales JPEGs by a faster filter
    mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)  # CLIP's, of values in [0, 1]
    std: tuple[float, float, float] = between((0.26862954, 0.26130258, 0.27577711), 1e-6)
    # composite: transparent pixels show the background colour. drop: their own, hidden colour, as with Pillow's convert("RGB"), and
    # so in the loaders of nearly all published recipes.
    transparency: Literal["composite", "drop"] = "composite"
    background: tuple[int, int, int] = (255, 255, 255)  # behind transparent pixels, sRGB
    crop_to_content: bool = False  # crop a transparent border first; the image stays square
    content_margin: float = between(0.0, 0.0, 1.0)  # left around the content, as a fraction of its side
    # Larger images are rejected, not decoded: 8192x6144 takes up to 0.4 GB and 3 s of a core, in each of `data.threads`.
    maximum_pixels: int = between(8192 * 6144, 1)


@dataclasses.dataclass(frozen=True)
class Text:
    """Conversion of a caption to token ids. The length is the model's (`model.text.length`)."""

    # "embedded:emoji", a tokenizer.json, a SentencePiece .model, a vocab.txt, a folder with a Hugging Face tokenizer's files,
    # or OWNER/NAME on the Hugging Face hub
    tokenizer: str = "embedded:emoji"
    canonicalize: tuple[Literal[CHANGES_OF_TEXT], ...] = ()  # changes of `data/text/canonicalize.py`, always in its order
    start_token: str | None = "<start>"
    end_token: str | None = "<end>"
    padding_token: str = "<pad>"
    truncation_side: Literal["right", "left"] = "right"  # side where long texts lose tokens; "left" keeps a dialogue's latest turns
    packing: int | None = between(None, 1)  # number of consecutive captions that share `packing_rows` rows; None: a row each
    packing_rows: int = between(1, 1)  # captions that do not fit in them are left out, and counted


@dataclasses.dataclass(frozen=True)
class Texts:
    """The choice of a sample's text. Weights are relative."""

    caption: float = between(1.0, 0.0)  # one of its captions
    caption_and_keywords: float = between(0.0, 0.0)  # a caption followed by some of its keywords in random order
    keywords: float = between(0.0, 0.0)  # keywords only
    caption_fields: dict[str, float] = section(dict)  # field: weight of its captions; empty: all captions equally
    prompts: tuple[str, ...] = ("{}",)  # one is drawn; {} is replaced by the text


@dataclasses.dataclass(frozen=True)
class MixturePart:
    """One source of a mixture. None takes the value of `data.train`."""

    source: str | None = None  # KIND:PATTERN; required
    weight: float | None = between(None, 0.0)  # relative share of the examples; set for every part or for none
    repeat: float = between(1.0, 0.0)  # passes over this source per epoch; with weights, only sets an epoch's length
    caption: float | None = between(None, 0.0)
    caption_and_keywords: float | None = between(None, 0.0)
    keywords: float | None = between(None, 0.0)
    caption_fields: dict[str, float] | None = None
    prompts: tuple[str, ...] | None = None


@dataclasses.dataclass(frozen=True)
class TrainSource(Texts):
    """Training data: one source, or a mixture of several."""

    source: str | None = "embedded:emoji/train"  # KIND:PATTERN, quoted where it has braces; None with a mixture
    mixture: dict[str, MixturePart] = section(dict)  # by name


@dataclasses.dataclass(frozen=True)
class Target:
    """A target to predict, from a sample's metadata. An empty value is no target."""

    field: str = ""  # of the metadata; a dot selects a nested one: answers.answer. Required


@dataclasses.dataclass(frozen=True)
class Classes(Target):
    """Fields of targets with classes: the most frequent values of the training data, or named ones."""

    classes: int | None = between(None, 2)  # number of classes; required, except with `names`
    names: tuple[str, ...] = ()  # the classes themselves
    file: str | None = None  # or a text file with one class per line; the first `classes` are used
    canonicalize: tuple[Literal[CHANGES_OF_TEXT], ...] = ()  # of the values, as for captions in data.text; VQA: ("vqa_answer",)


@dataclasses.dataclass(frozen=True)
class ClassTarget(Classes):
    """One of several classes."""

    kind: Literal["class"] = "class"


@dataclasses.dataclass(frozen=True)
class ScoresTarget(Classes):
    """A score of every class by the number of annotators who gave it (Antol et al. 2015).

    The scores are those of VQA's official evaluation: of ten annotators, one, two, three and more
    give the scores 0.3, 0.6, 0.9 and 1. The field holds the answers of all.
    """

    kind: Literal["scores"] = "scores"
    agreeing: int = between(3, 1)  # number of others with the same answer for a score of 1; 1: every given answer


@dataclasses.dataclass(frozen=True)
class NumberTarget(Target):
    """A number, standardised: minus `mean`, divided by `std`."""

    kind: Literal["number"] = "number"
    mean: float = 0.0
    std: float = between(1.0, 1e-30)


@dataclasses.dataclass(frozen=True)
class TextTarget(Classes):
    """A text to generate; of several, the most frequent. Its classes are the answers that an evaluation ranks."""

    kind: Literal["text"] = "text"
    length: int = between(8, 3)  # in tokens, with start and end; longer texts lose their last tokens


AnyTarget = ClassTarget | ScoresTarget | NumberTarget | TextTarget


@dataclasses.dataclass(frozen=True)
class Boxes:
    """Regions of a sample's image, each [left, top, right, bottom]. An image without any is one region."""

    field: str = ""  # of the metadata, with dots as in `Target`: a list of boxes. Required
    count: int = between(36, 1)  # largest number per image; the first ones are used
    unit: Literal["pixels", "fraction"] = "pixels"  # of the image in its file, upright; or fractions of its width and height


@dataclasses.dataclass(frozen=True)
class Dependencies:
    """Syntactic dependencies between words of a sample's caption.

    They are pairs [head, dependent] of word indices, counted from 0. Words are those of the text as
    it is tokenized, by the word marks of the vocabulary. In BERT's, a punctuation mark is a word,
    unless data.text.canonicalize removes it first.
    """

    field: str = ""  # of the metadata, with dots as in `Target`: a list of pairs for each caption, in order. Required


@dataclasses.dataclass(frozen=True)
class Data:
    """The input pipeline."""

    batch_size: int = between(256, 1)  # examples per step, over all devices and hosts
    train: TrainSource = section(TrainSource)
    # Processes that decode; 0: threads of this process; None: by the number of cores of this machine (data/cores.py)
    workers: int | None = between(None, 0, 1024)
    threads: int = between(2, 1, 1024)  # decoding threads in each process
    prefetch: int = between(4, 1, 10_000)  # batches read ahead
    max_bad_fraction: float = between(0.05, 0.0, 1.0)  # of the examples used; more than that ends the run
    images: Images = section(Images)
    augmentation: Augmentation = section(Augmentation)
    text: Text = section(Text)
    targets: dict[str, AnyTarget] = section(dict)  # by name, for objectives that predict them
    boxes: Boxes | None = None  # for model.fusion.regions="boxes"
    dependencies: Dependencies | None = None  # for model.fusion.words="dependencies"
    view_augmentation: Augmentation | None = None  # of the additional views of some objectives; None: that of the image
