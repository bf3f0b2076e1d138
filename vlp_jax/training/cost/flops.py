"""Model flops of an update: the numerator of model flops utilisation.

See Chowdhery et al. 2022, "PaLM", appendix B.
"""

from typing import TYPE_CHECKING

from vlp_jax.models.config import embedding_dim
from vlp_jax.objectives.pretraining_module import VIEWS, needs_behind

if TYPE_CHECKING:
    from vlp_jax.experiment import Experiment


def train_step_flops(config: "Experiment") -> int:
    """Operations of the matrix products of one update of the global batch.

    They are three times those of the forward pass, as the backward pass forms a product for the
    inputs and one for the parameters. Recomputation by rematerialisation and exact accumulation
    does not count. Frozen parameters count as trained ones. A teacher has no backward pass.
    """
    batch, objectives = config.data.batch_size, config.objectives.values()
    needs = {need for objective in objectives for need in objective.needs}
    teacher_needs = {need for objective in objectives for need in objective.teacher_needs}
    forward = encodings_flops(config, needs) + sum(
        objective.flops(config.model, batch) for objective in objectives
    )
    return 3 * forward + encodings_flops(config, teacher_needs, train=False)


def encodings_flops(config: "Experiment", needs: set[str], train: bool = True) -> int:
    """Operations of the forward pass of the encodings in `needs`, for the global batch.

    The encodings are those of `PretrainingModule.encode`.
    """
    model, window = config.model, config.data.text.packing or 1
    shapes = model.shapes(config.data.batch_size)
    dim, needs, flops = embedding_dim(model), needs | needs_behind(model, needs), 0
    if needs & {"image", "image_embedding", "image_pooled"}:
        flops += model.image.flops(
            dim, train, tokens="image" in needs, embedded="image_embedding" in needs
        )
    if needs & {"text", "text_embedding", "text_pooled"}:
        flops += model.text.flops(dim, tokens="text" in needs, embedded="text_embedding" in needs)
    flops += len(needs & set(VIEWS)) * model.image.flops(dim, train, tokens=False, embedded=False)
    flops += model.fusion.flops(shapes) if "fused" in needs and model.fusion is not None else 0
    flops *= shapes.batch
    if "decoding" in needs and model.decoder is not None:
        flops += (
            shapes.batch
            // window
            * model.decoder.flops(shapes, pictures=window, rows=config.data.text.packing_rows)
        )
    return flops
