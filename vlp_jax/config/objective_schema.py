"""Schema of the losses: the entries of the `objectives` section."""

import dataclasses
from typing import Literal

from vlp_jax.config.fields import between


@dataclasses.dataclass(frozen=True)
class Weighted:
    """The weight of an objective, and its schedule. Fields shared by all objectives."""

    weight: float = between(1.0, 0.0)
    weight_start: int = between(0, 0)  # updates with weight 0 at the start
    weight_warmup: int = between(0, 0)  # updates over which the weight then grows from 0
    weight_end: int | None = between(None, 1)  # updates after which the weight is 0

    @property
    def planned(self) -> bool:
        """Whether its weight changes during a run."""
        return bool(self.weight_start or self.weight_warmup or self.weight_end)


@dataclasses.dataclass(frozen=True)
class Scaled(Weighted):
    """Fields shared by objectives with a learned scale of cosines.

    The learned parameter is the logarithm of the scale (CLIP), or its inverse (ALBEF). The inverse
    changes by the learning rate itself: at 1e-4 it goes from 0.07 to 0.02 in 500 updates instead of
    12,500.
    """

    scale_parameter: Literal["log_scale", "temperature"] = "log_scale"


@dataclasses.dataclass(frozen=True)
class ContrastiveObjective(Scaled):
    """Fields shared by the two contrastive objectives."""

    positives: tuple[Literal["caption", "image"], ...] = ("caption", "image")  # a pair that shares one is positive
    implementation: Literal["dense", "chunked", "ring"] = "dense"  # how pairs are computed; results are equal
    chunk_size: int = between(1024, 1)  # chunked and ring: texts that a device processes at once


@dataclasses.dataclass(frozen=True)
class SoftmaxContrastive(ContrastiveObjective):
    """InfoNCE in both directions (Radford et al. 2021)."""

    kind: Literal["clip"] = "clip"
    initial_scale: float = between(1 / 0.07, 1e-6)  # multiplies cosine similarities
    minimum_scale: float = between(1.0, 1e-6)
    maximum_scale: float = between(100.0, 1e-6)
    label_smoothing: float = between(0.0, 0.0, 0.999)
    mixup: float = between(0.0, 0.0)  # x of the weight from Beta(x, x) that mixes images and losses in pairs; 0: none


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
    """Hinge loss with a margin between matched and unmatched pairs (Faghri et al. 2018)."""

    kind: Literal["triplet"] = "triplet"
    margin: float = between(0.2, 0.0)  # of cosines
    negatives: Literal["hardest", "all"] = "hardest"  # of a batch: only the nearest, or the sum over all within the margin
    positives: tuple[Literal["caption", "image"], ...] = ("caption", "image")  # a pair that shares one is no negative


@dataclasses.dataclass(frozen=True)
class MomentumContrastive(Scaled):
    """InfoNCE against the EMA model's embeddings and a queue, with soft targets (Li et al. 2021)."""

    kind: Literal["momentum_contrastive"] = "momentum_contrastive"
    positives: tuple[Literal["caption", "image"], ...] = ("caption", "image")  # a candidate that shares one is positive
    initial_scale: float = between(1 / 0.07, 1e-6)
    minimum_scale: float = between(1.0, 1e-6)
    maximum_scale: float = between(1000.0, 1e-6)
    queue: int = between(65_536, 1)  # pairs kept, at least a batch
    alpha: float = between(0.4, 0.0, 1.0)  # weight of the EMA model's similarities in the targets
    alpha_warmup: int = between(0, 0)  # updates over which alpha grows from 0
    teacher_dropout: bool = False  # whether the EMA model drops activations as the trained one does


@dataclasses.dataclass(frozen=True)
class Matching(Weighted):
    """Image-text matching, a binary classification of pairs (Li et al. 2021)."""

    kind: Literal["matching"] = "matching"
    negatives: Literal["similar", "uniform"] = "similar"  # uniform needs no embeddings
    # Multiplies the cosines in the softmax that draws similar negatives; None: the scale learned by a contrastive objective so far
    negative_scale: float | None = between(1 / 0.07, 0.0)
    negative_floor: float = between(0.0, 0.0, 1.0)  # added to each probability of that softmax
    # The replaced part of a negative pair; both: each image with a negative text, and each text with a negative image
    negatives_from: Literal["both", "text", "image"] = "both"
    # Probability that a pair is replaced by a negative one; None: each is classified as it is, and with each negative part
    negative_rate: float | None = between(None, 0.0, 1.0)
    # cross_entropy: of a head with two outputs. binary_cross_entropy and hinge: of a head with one, the log-odds, or a score with
    # zero loss beyond a margin of 1.
    loss: Literal["cross_entropy", "binary_cross_entropy", "hinge"] = "cross_entropy"


@dataclasses.dataclass(frozen=True)
class MaskedLanguage(Weighted):
    """Masked tokens from the others, and from the image (Devlin et al. 2019)."""

    kind: Literal["masked_language"] = "masked_language"
    with_image: bool = True
    rate: float = between(0.15, 0.0, 1.0)  # of the tokens, of which 80% are masked, 10% replaced and 10% unchanged
    keep_first: bool = True  # the start token is never selected
    keep_last: bool = True  # the end token is never selected
    mask_id: int | None = between(None, 0)  # None: the last id of `model.text.vocab_size`, beyond the tokenizer's
    tied: bool = False  # the output embeddings are those of the text tower
    whole_words: bool = False  # select all tokens of a word together (Cui et al. 2019); `rate` is then of words
    alpha: float = between(0.0, 0.0, 1.0)  # weight of the EMA model's predictions (Li et al. 2021, equation 7)
    alpha_warmup: int = between(0, 0)  # updates over which alpha grows from 0


@dataclasses.dataclass(frozen=True)
class CaptioningObjective(Weighted):
    """Each token of the text from those before it, by `model.decoder`."""

    kind: Literal["captioning"] = "captioning"
    label_smoothing: float = between(0.0, 0.0, 0.999)
    unigram: Literal["running", "batch"] = "running"  # tokens counted for `unigram_entropy`; microbatches need "batch"


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
    """Contrastive loss between two views of each image (Chen et al. 2020), as in SLIP (Mu et al. 2022)."""

    kind: Literal["simclr"] = "simclr"
    temperature: float = between(0.1, 1e-6)
    hidden_dim: int = between(4096, 1)  # of the projection head
    output_dim: int = between(256, 1)
    first: Literal["image", "first_view"] = "image"  # first_view: two views next to the image, both by `data.view_augmentation`



@dataclasses.dataclass(frozen=True)
class MaskedPatches(Weighted):
    """Fields shared by the objectives that predict the codes of masked patches (Bao et al. 2022)."""

    image_rate: float = between(0.4, 0.01, 0.99)  # fraction of masked patches
    smallest_block: int = between(16, 1)  # smallest area of the masked rectangles, in patches
    codes: int = between(8192, 2)  # of a random-projection quantizer (Chiu et al. 2022)
    code_width: int = between(16, 1)  # width of its projection of a patch
    codebook_seed: int = between(0, 0, 2**31 - 1)


@dataclasses.dataclass(frozen=True)
class MaskedImage(MaskedPatches):
    """The codes of masked patches from the visible ones."""

    kind: Literal["masked_image"] = "masked_image"


@dataclasses.dataclass(frozen=True)
class MaskedJoint(MaskedPatches):
    """Masked patches and masked tokens at once, from a fusion (Singh et al. 2022)."""

    kind: Literal["masked_joint"] = "masked_joint"
    rate: float = between(0.15, 0.0, 1.0)  # of the text's tokens; this and the following fields as in MaskedLanguage
    keep_first: bool = True
    keep_last: bool = True
    mask_id: int | None = between(None, 0)
    tied: bool = False
    whole_words: bool = False


@dataclasses.dataclass(frozen=True)
class Supervised(Weighted):
    """Fields shared by the objectives that predict a target of `data.targets`."""

    target: str = ""  # its name there; required
    features: Literal["image", "text", "fused"] = "fused"  # the tower's pooled vector, or a fusion of both
    hidden_dim: int | None = between(None, 1)  # of a hidden layer with a norm; None: the head is linear
    dropout: float = between(0.0, 0.0, 1.0)  # of the input of the head's last layer
    initial_bias: float = 0.0  # of the head's last layer; a low one suits scores that are mostly 0
    prior: Literal["running", "batch"] = "running"  # targets counted for `reference`; microbatches need "batch"
    outputs: int | None = between(None, 1)  # of the head; None: as the target has, filled in when a config is loaded


@dataclasses.dataclass(frozen=True)
class Classification(Supervised):
    """Prediction of a class."""

    kind: Literal["classification"] = "classification"
    loss: Literal["softmax", "binary", "hinge"] = "softmax"  # softmax and hinge: of one class; binary: of scores of all
    label_smoothing: float = between(0.0, 0.0, 0.999)  # softmax
    margin: float = between(1.0, 0.0)  # hinge


@dataclasses.dataclass(frozen=True)
class Regression(Supervised):
    """Prediction of a number, with the squared error."""

    kind: Literal["regression"] = "regression"


@dataclasses.dataclass(frozen=True)
class AnsweringObjective(Weighted):
    """A target text, token by token, by `model.decoder` from the fused image and text of `model.fusion`."""

    kind: Literal["answering"] = "answering"
    target: str = ""  # its name in `data.targets`; required
    label_smoothing: float = between(0.0, 0.0, 0.999)
    unigram: Literal["running", "batch"] = "running"  # as in CaptioningObjective
    shortlist: int = between(32, 1)  # evaluation: number of answers, by their first tokens, that are ranked in full
    length: int | None = between(None, 2)  # of the target; None: filled in when a config is loaded


HidesWords = MaskedLanguage | MaskedJoint
Objective = (SoftmaxContrastive | SigmoidContrastive | Triplet | MomentumContrastive | Matching | MaskedLanguage |
             CaptioningObjective | MaskedAutoencoder | ImageViews | MaskedImage | MaskedJoint | Classification | Regression |
             AnsweringObjective)
