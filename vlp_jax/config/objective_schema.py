"""What a config may say about the losses: the entries of the `objectives` section."""

import dataclasses
from typing import Literal

from vlp_jax.config.fields import between


@dataclasses.dataclass(frozen=True)
class Weighted:
    """How much an objective counts, and when. Fields that all objectives share."""

    weight: float = between(1.0, 0.0)
    weight_start: int = between(0, 0)  # updates before it counts
    weight_warmup: int = between(0, 0)  # updates over which its weight then grows from 0
    weight_end: int | None = between(None, 1)  # updates after which it counts no more

    @property
    def planned(self) -> bool:
        """Whether its weight changes during a run."""
        return bool(self.weight_start or self.weight_warmup or self.weight_end)


@dataclasses.dataclass(frozen=True)
class Scaled(Weighted):
    """Fields that objectives share which learn the scale of cosines.

    The parameter that is learned is the logarithm of the scale (CLIP), or its inverse (ALBEF), which moves by the learning rate
    itself: at 1e-4 from 0.07 to 0.02 in 500 updates and not in 12,500.
    """

    scale_parameter: Literal["log_scale", "temperature"] = "log_scale"


@dataclasses.dataclass(frozen=True)
class ContrastiveObjective(Scaled):
    """Fields that the two contrastive objectives share."""

    positives: tuple[Literal["caption", "image"], ...] = ("caption", "image")  # sharing which makes a pair positive
    implementation: Literal["dense", "chunked", "ring"] = "dense"  # how the pairs are met; the numbers are the same
    chunk_size: int = between(1024, 1)  # chunked and ring: texts that a device's images meet at once


@dataclasses.dataclass(frozen=True)
class SoftmaxContrastive(ContrastiveObjective):
    """InfoNCE both ways (Radford et al. 2021)."""

    kind: Literal["clip"] = "clip"
    initial_scale: float = between(1 / 0.07, 1e-6)  # multiplies cosine similarities
    minimum_scale: float = between(1.0, 1e-6)
    maximum_scale: float = between(100.0, 1e-6)
    label_smoothing: float = between(0.0, 0.0, 0.999)
    mixup: float = between(0.0, 0.0)  # pictures are mixed in pairs by a weight from Beta(x, x), and their losses; 0 leaves them


@dataclasses.dataclass(frozen=True)
class SigmoidContrastive(ContrastiveObjective):
    """Pairwise sigmoid loss (Zhai et al. 2023)."""

    kind: Literal["siglip"] = "siglip"
    initial_scale: float = between(10.0, 1e-6)
    minimum_scale: float = between(1.0, 1e-6)
    maximum_scale: float = between(1e6, 1e-6)
    initial_bias: float = -10.0


@dataclasses.dataclass(frozen=True)
class Triplet(Weighted):
    """A pair nearer than others, by a margin (Faghri et al. 2018)."""

    kind: Literal["triplet"] = "triplet"
    margin: float = between(0.2, 0.0)  # of cosines
    negatives: Literal["hardest", "all"] = "hardest"  # of a batch: only the nearest counts, or the sum of all that are too near
    positives: tuple[Literal["caption", "image"], ...] = ("caption", "image")  # sharing which makes no pair a negative


@dataclasses.dataclass(frozen=True)
class MomentumContrastive(Scaled):
    """InfoNCE against the averaged model's embeddings, a queue of earlier ones among them, with soft targets (Li et al. 2021)."""

    kind: Literal["momentum_contrastive"] = "momentum_contrastive"
    positives: tuple[Literal["caption", "image"], ...] = ("caption", "image")  # sharing which makes a candidate a positive
    initial_scale: float = between(1 / 0.07, 1e-6)
    minimum_scale: float = between(1.0, 1e-6)
    maximum_scale: float = between(1000.0, 1e-6)
    queue: int = between(65_536, 1)  # pairs remembered, at least a batch
    alpha: float = between(0.4, 0.0, 1.0)  # share of the averaged model's similarities in the targets
    alpha_warmup: int = between(0, 0)  # updates over which that share grows from 0
    teacher_dropout: bool = False  # whether the averaged model drops activations as the trained one does


@dataclasses.dataclass(frozen=True)
class Matching(Weighted):
    """Does a text belong to an image? (Li et al. 2021)"""

    kind: Literal["matching"] = "matching"
    negatives: Literal["similar", "uniform"] = "similar"  # uniform needs no embeddings
    # Of the cosines by whose softmax similar negatives are drawn; None: the scale that a contrastive objective has learned so far
    negative_scale: float | None = between(1 / 0.07, 0.0)
    negative_floor: float = between(0.0, 0.0, 1.0)  # added to each probability of that softmax
    # The wrong part of a negative pair; both: each image with a wrong text, and each text with a wrong image
    negatives_from: Literal["both", "text", "image"] = "both"
    # Probability with which a pair is asked about as a wrong one, and not as it is; None: each as it is, and with each wrong part
    negative_rate: float | None = between(None, 0.0, 1.0)
    # cross_entropy: of a head of two numbers; binary_cross_entropy and hinge: of one, the log-odds, or a score beyond whose margin
    # of 1 nothing is lost
    loss: Literal["cross_entropy", "binary_cross_entropy", "hinge"] = "cross_entropy"


@dataclasses.dataclass(frozen=True)
class MaskedLanguage(Weighted):
    """Hidden words from the others, and from the image (Devlin et al. 2019)."""

    kind: Literal["masked_language"] = "masked_language"
    with_image: bool = True
    rate: float = between(0.15, 0.0, 1.0)  # of the tokens, of which 80% are hidden, 10% replaced and 10% left
    keep_first: bool = True  # the start token is never chosen
    keep_last: bool = True  # nor is the end token
    mask_id: int | None = between(None, 0)  # None: the last id of `model.text.vocab_size`, beyond the tokenizer's
    tied: bool = False  # words are told by the text tower's own embeddings
    whole_words: bool = False  # all tokens of a word are chosen together (Cui et al. 2019); rate is of words then
    alpha: float = between(0.0, 0.0, 1.0)  # weight of what the averaged model tells (Li et al. 2021, equation 7)
    alpha_warmup: int = between(0, 0)  # updates over which that weight grows from 0


@dataclasses.dataclass(frozen=True)
class CaptioningObjective(Weighted):
    """Each token of the text from those before it, by `model.decoder`."""

    kind: Literal["captioning"] = "captioning"
    label_smoothing: float = between(0.0, 0.0, 0.999)
    unigram: Literal["running", "batch"] = "running"  # of which tokens the reference `unigram_entropy` is; batch with microbatches


@dataclasses.dataclass(frozen=True)
class MaskedAutoencoder(Weighted):
    """Regression of the pixels of masked patches from the visible ones (He et al. 2022)."""

    kind: Literal["masked_autoencoder"] = "masked_autoencoder"
    mask_ratio: float = between(0.75, 0.01, 0.99)
    decoder_width: int = between(512, 4)
    decoder_depth: int = between(8, 1)
    decoder_heads: int = between(16, 1)


@dataclasses.dataclass(frozen=True)
class ImageViews(Weighted):
    """Two views of each picture among those of all pictures (Chen et al. 2020), as SLIP adds it to CLIP (Mu et al. 2022)."""

    kind: Literal["simclr"] = "simclr"
    temperature: float = between(0.1, 1e-6)
    hidden_dim: int = between(4096, 1)  # of the projection head
    output_dim: int = between(256, 1)
    first: Literal["image", "first_view"] = "image"  # first_view: two views beside the image, both by `data.view_augmentation`



@dataclasses.dataclass(frozen=True)
class MaskedPatches(Weighted):
    """Fields that the objectives share which tell the codes of hidden patches (Bao et al. 2022)."""

    image_rate: float = between(0.4, 0.01, 0.99)  # of the patches
    smallest_block: int = between(16, 1)  # patches are hidden in rectangles of at least so many
    codes: int = between(8192, 2)  # of a random-projection quantizer (Chiu et al. 2022)
    code_width: int = between(16, 1)  # to which it projects a patch
    codebook_seed: int = between(0, 0, 2**31 - 1)


@dataclasses.dataclass(frozen=True)
class MaskedImage(MaskedPatches):
    """The codes of hidden patches from the visible ones."""

    kind: Literal["masked_image"] = "masked_image"


@dataclasses.dataclass(frozen=True)
class MaskedJoint(MaskedPatches):
    """Hidden patches and hidden words at once, from a fusion (Singh et al. 2022)."""

    kind: Literal["masked_joint"] = "masked_joint"
    rate: float = between(0.15, 0.0, 1.0)  # of the words' tokens; this and what follows as in MaskedLanguage
    keep_first: bool = True
    keep_last: bool = True
    mask_id: int | None = between(None, 0)
    tied: bool = False
    whole_words: bool = False


@dataclasses.dataclass(frozen=True)
class Supervised(Weighted):
    """Fields that the objectives share which tell a target of `data.targets`."""

    target: str = ""  # its name there; must be given
    features: Literal["image", "text", "fused"] = "fused"  # by what the tower pooled, or a fusion of both
    hidden_dim: int | None = between(None, 1)  # of a layer with a norm in the head; None: the head is linear
    dropout: float = between(0.0, 0.0, 1.0)  # of what the head's last layer reads
    initial_bias: float = 0.0  # of the head's last layer; a low one says of scores that most classes are false
    prior: Literal["running", "batch"] = "running"  # of which targets' frequencies `reference` knows; batch with microbatches
    outputs: int | None = between(None, 1)  # of the head; None: as many as the target has, filled in when a config is read


@dataclasses.dataclass(frozen=True)
class Classification(Supervised):
    """Which class."""

    kind: Literal["classification"] = "classification"
    loss: Literal["softmax", "binary", "hinge"] = "softmax"  # of one class, of scores of all, of one class by a margin
    label_smoothing: float = between(0.0, 0.0, 0.999)  # softmax
    margin: float = between(1.0, 0.0)  # hinge


@dataclasses.dataclass(frozen=True)
class Regression(Supervised):
    """Which number, by the squared error."""

    kind: Literal["regression"] = "regression"


@dataclasses.dataclass(frozen=True)
class AnsweringObjective(Weighted):
    """A target that is a text, word by word, by `model.decoder` from what `model.fusion` made of picture and text."""

    kind: Literal["answering"] = "answering"
    target: str = ""  # its name in `data.targets`; must be given
    label_smoothing: float = between(0.0, 0.0, 0.999)
    unigram: Literal["running", "batch"] = "running"  # as in CaptioningObjective
    shortlist: int = between(32, 1)  # evaluation: answers that are compared in full, after those with the likeliest first words
    length: int | None = between(None, 2)  # of the target; None: filled in when a config is read


HidesWords = MaskedLanguage | MaskedJoint
Objective = (SoftmaxContrastive | SigmoidContrastive | Triplet | MomentumContrastive | Matching | MaskedLanguage |
             CaptioningObjective | MaskedAutoencoder | ImageViews | MaskedImage | MaskedJoint | Classification | Regression |
             AnsweringObjective)
