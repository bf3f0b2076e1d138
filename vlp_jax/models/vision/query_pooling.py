"""Pooling of an image's tokens by several learned queries."""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING

from vlp_jax.config.fields import between
from vlp_jax.errors import ConfigError
from vlp_jax.models.layers.transformer import AttentionPooling
from vlp_jax.models.options import LayerOptions
from vlp_jax.models.stack import StackConfig
from vlp_jax.models.vision.tower import ImageTowerConfig

if TYPE_CHECKING:
    from vlp_jax.experiment import Experiment


@dataclasses.dataclass(frozen=True, kw_only=True)
class QueryPoolingConfig(StackConfig, ImageTowerConfig):
    """A transformer over an image's tokens that learned queries may pool: pooling="queries".

    A tower has a key `pooling`, too.
    """

    if TYPE_CHECKING:
        pooling: str

    queries: int = between(0, 0)  # of pooling="queries", at least two
    query_width: int | None = between(None, 1)  # of queries, and tokens; None: that of the layers
    query_heads: int | None = between(None, 1)  # None: those of the layers

    @property
    def token_width(self) -> int:
        """The width of the layers, or of the queries that make the tokens."""
        of_queries = self.query_width if self.pooling == "queries" else None
        return of_queries or self.size.width

    def check_queries(self) -> None:
        """Checks that there are queries for the pooled vector and for tokens, and their width.

        Raises: ConfigError where there are not, or it does not divide into the heads.
        """
        width, heads = self.token_width, self.query_heads or self.size.heads
        if self.queries < 2:
            raise ConfigError(
                f"{self.section}.queries: pooling='queries' needs one for the pooled vector and "
                f"others for tokens, got {self.queries}"
            )
        if width % heads:
            raise ConfigError(
                f"{self.section}.query_width: {width} does not divide into {heads} heads"
            )

    def ignored(self, experiment: "Experiment") -> Mapping[str, str]:
        """The keys of queries with another pooling."""
        names = ("queries", "query_width", "query_heads") if self.pooling != "queries" else ()
        unused = dict.fromkeys(names, f"with pooling={self.pooling!r}: it is for 'queries'")
        return {**super().ignored(experiment), **unused}

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
