"""vlp_jax: pretraining vision-language models in JAX.

The names in `__all__` are the public ones; each is imported at its first use, and `import vlp_jax`
alone imports neither JAX nor Flax.
"""

import sys
from typing import TYPE_CHECKING

from vlp_jax.lazy import lazy_names

__version__ = "0.1.0"

if sys.argv[:1] == ["-m"]:  # `python -m vlp_jax.NAME`, before NAME is imported, which takes seconds
    from vlp_jax.interrupts import leave_on_ctrl_c

    leave_on_ctrl_c()

if TYPE_CHECKING:
    from vlp_jax import config as config
    from vlp_jax import data as data
    from vlp_jax import losses as losses
    from vlp_jax import models as models
    from vlp_jax.config.load import list_models as list_models
    from vlp_jax.data.preprocessor import Preprocessor as Preprocessor
    from vlp_jax.evaluate import run_evaluation as run_evaluation
    from vlp_jax.inference import Model as Model
    from vlp_jax.loading import create_model as create_model
    from vlp_jax.loading import load as load
    from vlp_jax.main import train as train

__all__ = [
    "Model",
    "Preprocessor",
    "config",
    "create_model",
    "data",
    "list_models",
    "load",
    "losses",
    "models",
    "run_evaluation",
    "train",
]
_PLACES = {
    "Model": "vlp_jax.inference:Model",
    "Preprocessor": "vlp_jax.data.preprocessor:Preprocessor",
    "config": "vlp_jax.config",
    "create_model": "vlp_jax.loading:create_model",
    "data": "vlp_jax.data",
    "list_models": "vlp_jax.config.load:list_models",
    "load": "vlp_jax.loading:load",
    "losses": "vlp_jax.losses",
    "models": "vlp_jax.models",
    "run_evaluation": "vlp_jax.evaluate:run_evaluation",
    "train": "vlp_jax.main:train",
}
__getattr__, __dir__ = lazy_names(__name__, _PLACES)
