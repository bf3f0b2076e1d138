"""Pooling of an image's tokens by one learned query, or by several."""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Self

from vlp_jax.config.fields import between
from vlp_jax.config.section import Sizes
from vlp_jax.errors import ConfigError
from vlp_jax.models.layers.transformer import AttentionPooling
from vlp_jax.models.options import LayerOptions
from vlp_jax.models.stack import StackConfig
from vlp_jax.models.vision.tower import ImageTowerConfig

if TYPE_CHECKING:
    from vlp_jax.experiment import Experiment


@dataclasses.dataclass(frozen=True, kw_only=True)
class QueryPoolingConfig(StackConfig, ImageTowerConfig):
    """A transformer over an image's tokens that learned queries may pool: pooling="queries", or
    with one query "map".

    A tower has a key `pooling`, too.
    """

    if TYPE_CHECKING:
        pooling: str

    queries: int = between(0, 0)  # of pooling="queries", at least two
    query_width: int | None = between(None, 1)  # of queries, and tokens; None: that of the layers
    query_heads: int | None = between(None, 1)  # also of "map"; None: those of the layers
    # of pooling="map": hidden width of the MLP behind its query; None: that of the layers
    query_mlp_dim: int | None = between(None, 1)

    @property
    def token_width(self) -> int:
        """The width of the layers, or of the queries that make the tokens."""
        of_queries = self.query_width if self.pooling == "queries" else None
        return of_queries or self.size.width

    def check_queries(self) -> None:
        """Checks that several queries are for the pooled vector and for tokens, and their width.

        Raises: ConfigError where they are not, or it does not divide into the heads.
        """
        width, heads = self.token_width, self.query_heads or self.size.heads
        if self.pooling == "queries" and self.queries < 2:
            raise ConfigError(
                f"{self.section}.queries: pooling='queries' needs one for the pooled vector and "
                f"others for tokens, got {self.queries}"
            )
        if width % heads:
            name = "query_width" if self.pooling == "queries" else "query_heads"
            raise ConfigError(f"{self.section}.{name}: {width} does not divide into {heads} heads")

    def ignored(self, experiment: "Experiment") -> Mapping[str, str]:
        """The keys of queries with another pooling."""
        kinds = {
            "queries": ("queries",),
            "query_width": ("queries",),
            "query_heads": ("queries", "map"),
            "query_mlp_dim": ("map",),
        }
        unused = {
            name: f"with pooling={self.pooling!r}: it is for {' and '.join(map(repr, poolings))}"
            for name, poolings in kinds.items()
            if self.pooling not in poolings
        }
        return {**super().ignored(experiment), **unused}

    def smoke(self, sizes: Sizes) -> Self:
        """As that of the layers; a single query has their sizes."""
        small = super().smoke(sizes)
        if self.pooling != "map":
            return small
        return dataclasses.replace(small, query_heads=None, query_mlp_dim=None)

    def map_pooling(self, options: LayerOptions) -> AttentionPooling:
        """The one query of pooling="map" as the submodule `pooling_head` of the calling module.

        Args:
          options: of the layers.
        """
        options = dataclasses.replace(
            options,
            heads=self.query_heads or options.heads,
            mlp_dim=self.query_mlp_dim or options.mlp_dim,
        )
        return AttentionPooling(options, name="pooling_head")

    def query_pooling(self, options: LayerOptions) -> AttentionPooling:
        """The queries as the submodule `pooling_head` of the calling module, with norms before and
        after attention.

        Args:
          options: of the layers.
        """
        heads = self.query_heads or options.heads
        options = dataclasses.replace(options, width=self.token_width, heads=heads)
        return AttentionPooling(
            options, self.queries, mlp=False, input_norms=True, name="pooling_head"
        )
