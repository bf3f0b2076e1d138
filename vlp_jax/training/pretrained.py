"""The keys of the section `pretrained`; `initialize_from` does what they say."""

import dataclasses
from collections.abc import Iterator
from typing import Any

from vlp_jax.config.fields import between
from vlp_jax.config.section import Section


@dataclasses.dataclass(frozen=True, kw_only=True)
class PretrainedConfig(Section):
    """Parameters that a new run takes from another run; a resumed run ignores it.

    Either workdir or stage is set. Layers may be scanned in one run and not in the other. Position
    embeddings of patches are resampled for another image size. Of those of text, the first are
    taken where texts are shorter here; where they are longer, freshly initialised ones are
    appended. A stack has as many layers here as there, or patterns select as many
    (`/layer_[0-5]/`).
    """

    # of the other run; or a public checkpoint, FORMAT:DIR, such as huggingface:DIR
    workdir: str | None = None
    stage: str | None = None  # an earlier stage of the same training (see configs/staged.py)
    step: int | None = between(None, 1)  # None: its latest checkpoint
    ema: bool | None = None  # take the EMA parameters; None: where the run has them
    # Regexes of the parameters taken, by their names here, where both runs have them. Empty: all of
    # the model, and those of an objective with the same name, kind and shapes in both (a scale, a
    # bias, a head for the same target).
    parameters: tuple[str, ...] = ()
    # modules of your own that may be imported for classes that the other run's config names
    components: tuple[str, ...] = ()

    def validate(self, where: str, experiment: Any) -> Iterator[str]:
        """A message where not exactly one of `workdir` and `stage` is set."""
        if (self.workdir is None) == (self.stage is None):
            yield f"{where}: set either workdir, the folder of a run, or stage, an earlier stage"
