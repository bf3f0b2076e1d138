"""What a config may say about the input: the `data` section."""

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
    """Cubuk et al. 2020, with torchvision's fourteen operations; what turns into view shows the background colour."""

    operations: int = between(0, 0)  # drawn, and applied one after the other; 0 switches it off
    magnitude: int = between(9, 0, 30)  # of all of them, from the weakest to the strongest
    probability: float = between(1.0, 0.0, 1.0)  # with which each that was drawn is applied
    names: tuple[Literal[RANDAUGMENT], ...] = ()  # from which they are drawn; empty: all fourteen


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
    blur: float = between(0.0, 0.0, 1.0)  # probability of a Gaussian blur, of deviation 0.1 to 2 pixels at size 224
    erase: float = between(0.0, 0.0, 1.0)  # probability of painting one random rectangle over
    erase_area: tuple[float, float] = (0.02, 0.25)  # of that rectangle, as a fraction of the picture's
    erase_ratio: tuple[float, float] = (math.exp(-1), math.e)  # its height/width, drawn uniformly in its logarithm
    erase_fill: Literal["colour", "noise", "mean"] = "colour"  # one random colour, one for each pixel, or images.mean


@dataclasses.dataclass(frozen=True)
class Images:
    """How a picture becomes pixels. The size is the model's (`model.image.image_size`)."""

    # Resize the shorter side and crop the centre, resize both sides, or resize the longer side and pad.
    resize: Literal["shortest_side_crop", "squash", "letterbox"] = "shortest_side_crop"
    interpolation: Literal["bicubic", "bilinear", "lanczos"] = "bicubic"  # training shrinks JPEGs by a faster filter
    mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)  # CLIP's, of values in [0, 1]
    std: tuple[float, float, float] = between((0.26862954, 0.26130258, 0.27577711), 1e-6)
    # composite: transparent pixels show a colour behind them. drop: their own, whatever they hide, as Pillow's convert("RGB") does,
    # and with it the loaders of nearly all published recipes
    transparency: Literal["composite", "drop"] = "composite"
    background: tuple[int, int, int] = (255, 255, 255)  # behind transparent pixels, sRGB
    crop_to_content: bool = False  # drop a transparent border first, keeping the picture square
    content_margin: float = between(0.0, 0.0, 1.0)  # left around the content, as a fraction of its side
    # A larger image is refused, not decoded: 8192x6144 takes up to 0.4 GB and 3 s of a core, in each of `data.threads`.
    maximum_pixels: int = between(8192 * 6144, 1)


@dataclasses.dataclass(frozen=True)
class Text:
    """How a caption becomes token ids. The length is the model's (`model.text.length`)."""

    # "embedded:emoji", a tokenizer.json, a SentencePiece .model, a vocab.txt, a folder with a Hugging Face tokenizer's files,
    # or OWNER/NAME on the Hugging Face hub
    tokenizer: str = "embedded:emoji"
    canonicalize: tuple[Literal[CHANGES_OF_TEXT], ...] = ()  # changes of `data/text/canonicalize.py`, always in the order there
    start_token: str | None = "<start>"
    end_token: str | None = "<end>"
    padding_token: str = "<pad>"
    truncation_side: Literal["right", "left"] = "right"  # where a text too long loses tokens; "left": a dialogue keeps its newest
    packing: int | None = between(None, 1)  # so many consecutive captions share `packing_rows` rows of text; None: a row each
    packing_rows: int = between(1, 1)  # captions that find no place in them are left out, and counted


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
class Target:
    """What a sample's metadata say is to be told of it. An empty value is none."""

    field: str = ""  # of the metadata; a dot reaches into a nested one: answers.answer. Must be given


@dataclasses.dataclass(frozen=True)
class Classes(Target):
    """Fields of targets with classes: so many of the training data's values, the most frequent first, or those named."""

    classes: int | None = between(None, 2)  # how many; must be given, but for `names`
    names: tuple[str, ...] = ()  # the classes themselves
    file: str | None = None  # or a text file with a class a line, of which the first `classes` count
    canonicalize: tuple[Literal[CHANGES_OF_TEXT], ...] = ()  # of the values, as of data.text's captions; VQA's: ("vqa_answer",)


@dataclasses.dataclass(frozen=True)
class ClassTarget(Classes):
    """One of several classes."""

    kind: Literal["class"] = "class"


@dataclasses.dataclass(frozen=True)
class ScoresTarget(Classes):
    """A score of every class by how many annotators gave it, as VQA's official evaluation has it (Antol et al. 2015): of ten
    annotators 0.3, 0.6, 0.9 and 1 for one, two, three and more. The field holds the answers of all."""

    kind: Literal["scores"] = "scores"
    agreeing: int = between(3, 1)  # others with the same answer, from which on it has the score 1; 1: each that is given has it


@dataclasses.dataclass(frozen=True)
class NumberTarget(Target):
    """A number, less `mean`, divided by `std`."""

    kind: Literal["number"] = "number"
    mean: float = 0.0
    std: float = between(1.0, 1e-30)


@dataclasses.dataclass(frozen=True)
class TextTarget(Classes):
    """A text, to be written; of several, the one that is there most often. Its classes are the answers that an evaluation ranks."""

    kind: Literal["text"] = "text"
    length: int = between(8, 3)  # tokens, start and end among them; what is longer loses its last ones


AnyTarget = ClassTarget | ScoresTarget | NumberTarget | TextTarget


@dataclasses.dataclass(frozen=True)
class Boxes:
    """Regions of a sample's picture, each [left, top, right, bottom]. A picture without any is one region."""

    field: str = ""  # of the metadata, with dots as in `Target`: a list of boxes. Must be given
    count: int = between(36, 1)  # most of a picture: the first that training sees of them
    unit: Literal["pixels", "fraction"] = "pixels"  # of the picture in its file, upright; or fractions of its width and height


@dataclasses.dataclass(frozen=True)
class Dependencies:
    """Which words of a sample's caption depend on each other: pairs [head, dependent] of their places, counted from 0. Words are
    those of the text as it is tokenized, by the marks of the vocabulary; in BERT's a punctuation mark is one, unless
    data.text.canonicalize takes it away first."""

    field: str = ""  # of the metadata, with dots as in `Target`: a list of pairs for each caption, in order. Must be given


@dataclasses.dataclass(frozen=True)
class Data:
    """The input pipeline."""

    batch_size: int = between(256, 1)  # examples a step, over all devices and hosts
    train: TrainSource = section(TrainSource)
    # Processes that decode; 0 decodes in threads of this process; None: as many as this machine has cores for (data/cores.py)
    workers: int | None = between(None, 0, 1024)
    threads: int = between(2, 1, 1024)  # threads that decode, in each process
    prefetch: int = between(4, 1, 10_000)  # batches read ahead
    max_bad_fraction: float = between(0.05, 0.0, 1.0)  # of the examples used; more stops the run
    images: Images = section(Images)
    augmentation: Augmentation = section(Augmentation)
    text: Text = section(Text)
    targets: dict[str, AnyTarget] = section(dict)  # by name, for objectives that tell them
    boxes: Boxes | None = None  # for model.fusion.regions="boxes"
    dependencies: Dependencies | None = None  # for model.fusion.words="dependencies"
    view_augmentation: Augmentation | None = None  # of the further views that an objective may ask for; None: as the image's
