"""The base of all image towers."""

import dataclasses
from typing import TYPE_CHECKING, ClassVar, Literal

import flax.linen as nn

from vlp_jax.config.registry import Kinds
from vlp_jax.models.layers.flops import projection_flops
from vlp_jax.models.options import Precision
from vlp_jax.models.part import Tower
from vlp_jax.models.shapes import Grid, ImageShapes

if TYPE_CHECKING:
    pass


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageTowerConfig(Tower):
    """Fields shared by all image towers, and what other parts of a model ask of them.

    A tower has a key `image_size`, too.

    Attributes:
      token_drop: fraction of the tokens that is dropped in training.
      registers: number of tokens without a position, behind the others.
      rematerialisation: the policy of rematerialisation.
      policies: the possible policies.
    """

    section: ClassVar[str] = "model.image"
    if TYPE_CHECKING:
        image_size: int
        token_drop: float = 0.0
        registers: int = 0
        rematerialisation: str = "none"
    # without an annotation, as keys of these names have their place where a tower declares them
    else:
        token_drop = 0.0
        registers = 0
        rematerialisation = "none"
    policies: ClassVar[tuple[str, ...]] = ("none",)

    kinds: ClassVar[Kinds] = Kinds(
        {
            "vit": "vlp_jax.models.vision.vit_config:ViTConfig",
            "resnet": "vlp_jax.models.vision.resnet:ResNetConfig",
            "vgg": "vlp_jax.models.vision.vgg:VggConfig",
            "inception_v3": "vlp_jax.models.vision.inception:InceptionConfig",
            "convnext": "vlp_jax.models.vision.convnext:ConvNextConfig",
            "efficientnet": "vlp_jax.models.vision.efficientnet:EfficientNetConfig",
        },
        default="vit",
    )

    # from pooled width to `model.embedding_dim`
    projection: Literal["none", "linear", "linear_with_bias"] = "linear"

    def build(self, precision: Precision) -> nn.Module:
        """The encoder, called with (image, train, tokens).

        Raises: ConfigError as `check`.
        """
        raise NotImplementedError

    @property
    def side(self) -> int:
        """The number of tokens along each axis of an image."""
        raise NotImplementedError

    @property
    def token_width(self) -> int:
        """The width of the tokens."""
        raise NotImplementedError

    @property
    def pooled_width(self) -> int:
        """The width of the pooled vector."""
        return self.token_width

    @property
    def front(self) -> int:
        """The number of tokens before those of the grid: class tokens."""
        return 0

    @property
    def class_token(self) -> bool:
        """Whether the first token is a class token."""
        return self.front > 0

    @property
    def pools(self) -> bool:
        """Whether there is a pooled vector."""
        return True

    @property
    def projects_tokens(self) -> bool:
        """Whether the projection of the pooled vector also fits the tokens of the grid: the pooled
        vector is one of the tokens or their mean."""
        return False

    @property
    def patch(self) -> int | None:
        """The side, in pixels, of the patches that a caller can choose by `kept` and `masked`; None
        where it cannot."""
        return None

    @property
    def grid(self) -> Grid:
        """Layout of the tokens, without token dropping."""
        return Grid(self.side, self.front, self.registers)

    @property
    def tokens(self) -> int:
        """The number of tokens of an image, without token dropping."""
        return self.grid.tokens

    @property
    def shapes(self) -> ImageShapes:
        """What other parts of the model need of the tower.

        Raises: ConfigError for sizes that are not possible.
        """
        return ImageShapes(
            tokens=self.tokens,
            token_width=self.token_width,
            pooled_width=self.pooled_width,
            grid=self.grid,
            class_token=self.class_token,
            token_drop=self.token_drop,
        )

    def flops(
        self, embedding_dim: int, train: bool = True, tokens: bool = True, embedded: bool = True
    ) -> int:
        """The tower and its projection on one image, forward.

        Args:
          embedding_dim: width of the shared space.
          train: whether tokens dropped in training are left out.
          tokens: whether the tokens are needed in addition to the pooled vector.
          embedded: whether the projection is needed.
        """
        projected = (
            projection_flops(self.projection, self.pooled_width, embedding_dim=embedding_dim)
            if embedded
            else 0
        )
        return self.encoder_flops(train, tokens) + projected

    def encoder_flops(self, train: bool, tokens: bool) -> int:
        """`flops` without the projection."""
        raise NotImplementedError
