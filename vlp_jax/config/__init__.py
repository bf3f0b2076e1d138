"""Experiment configs: the schema, the parser with its error messages, and loading of config files."""

from vlp_jax.config.experiment import base as base
from vlp_jax.config.experiment import clip as clip
from vlp_jax.config.experiment import siglip as siglip
from vlp_jax.config.experiment import variant_of as variant_of
from vlp_jax.config.load import AnyConfig as AnyConfig
from vlp_jax.config.load import load_config as load_config
from vlp_jax.config.load import load_stages as load_stages
from vlp_jax.config.load import read_config as read_config
from vlp_jax.config.parse import flatten as flatten
from vlp_jax.config.parse import to_config as to_config
from vlp_jax.config.parse import to_tree as to_tree
from vlp_jax.config.schema import Config as Config
