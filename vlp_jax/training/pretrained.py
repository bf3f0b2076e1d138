"""The keys of the section `pretrained`; `initialize_from` does what they say."""

import dataclasses
import re
from collections.abc import Iterator, Sequence
from typing import Any

from vlp_jax.config.fields import between
from vlp_jax.config.section import Section

Pairs = Sequence[tuple[str, str]]  # (path here, path there)

NUMBER = re.compile(r"\{([+-]\d+)?\}")  # of a layer there, from that here
EXAMPLE = "as in ('model/fusion/transformer/layer_{}', 'model/text/transformer/layer_{+6}')"


@dataclasses.dataclass(frozen=True, kw_only=True)
class PretrainedConfig(Section):
    """Parameters that a new run takes from another run; a resumed run ignores it.

    Either workdir or stage is set. Layers may be scanned in one run and not in the other. Position
    embeddings of patches are resampled for another image size. Of those of text, the first are
    taken where texts are shorter here; where they are longer, freshly initialised ones are
    appended. A stack has as many layers here as there, or patterns select as many
    (`/layer_[0-5]/`), or pairs of `renamed` do.
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
    # Pairs (path here, path there) of parameters, or of modules, that have another name there; the
    # first that fits counts. {} is the number of a layer, {+6} there that of the layer six above:
    # ('model/fusion/transformer/layer_{}', 'model/text/transformer/layer_{+6}'). Two equal paths
    # take the first layers of a deeper stack.
    renamed: tuple[tuple[str, str], ...] = ()
    # modules of your own that may be imported for classes that the other run's config names
    components: tuple[str, ...] = ()

    def validate(self, where: str, experiment: Any) -> Iterator[str]:
        """A message where not exactly one of `workdir` and `stage` is set, and for each pair of
        `renamed` that is not understood."""
        if (self.workdir is None) == (self.stage is None):
            yield f"{where}: set either workdir, the folder of a run, or stage, an earlier stage"
        yield from pair_problems(f"{where}.renamed", self.renamed)


def pair_problems(where: str, pairs: Pairs) -> Iterator[str]:
    """A message for each pair whose numbers of layers are not understood.

    Args:
      where: the key, for messages.
      pairs: the pairs.
    """
    for here, there in pairs:
        if here.count("{}") > 1 or set("{}") & set(here.replace("{}", "")):
            yield f"{where}: {here!r} has braces other than one {{}}; write pairs {EXAMPLE}"
        elif set("{}") & set(NUMBER.sub("", there)):
            yield (
                f"{where}: {there!r} has braces other than {{}}, {{+N}} or {{-N}}; write pairs "
                f"{EXAMPLE}"
            )
        elif len(NUMBER.findall(there)) != here.count("{}"):
            yield f"{where}: {here!r} and {there!r} need a number {{}} each, or neither has one"
