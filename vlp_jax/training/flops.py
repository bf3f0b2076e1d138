"""Model flops of an update: the numerator of model flops utilisation (Chowdhery et al. 2022, "PaLM", appendix B)."""

from vlp_jax.config import schema
from vlp_jax.models.flops import image_flops, text_flops
from vlp_jax.models.vision_language import embedding_dim
from vlp_jax.objectives.module import build_objectives


def train_step_flops(config: schema.Config) -> int:
    """Operations of the matrix products of one update of the global batch: three times the forward pass, as the backward pass
    forms a product for the inputs and one for the parameters. What rematerialisation and exact accumulation compute again does
    not count; frozen parameters count as if they were trained."""
    dim, batch = embedding_dim(config.model), config.data.batch_size
    objectives = build_objectives(config.objectives).values()
    needs = {need for objective in objectives for need in objective.needs}
    image = image_flops(config.model.image, dim, tokens="image" in needs) if needs & {"image", "image_embedding"} else 0
    text = text_flops(config.model.text, dim, tokens="text" in needs) if needs & {"text", "text_embedding"} else 0
    return 3 * (batch * (image + text) + sum(objective.flops(config.model, batch) for objective in objectives))
