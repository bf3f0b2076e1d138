"""Model flops of an update: the numerator of model flops utilisation (Chowdhery et al. 2022, "PaLM", appendix B)."""

from vlp_jax.config import schema
from vlp_jax.models.flops import decoder_flops, image_flops, text_flops
from vlp_jax.models.vision_language import embedding_dim
from vlp_jax.objectives.module import VIEWS, build_objectives, needs_of_decoding


def train_step_flops(config: schema.Config) -> int:
    """Operations of the matrix products of one update of the global batch: three times the forward pass, as the backward pass
    forms a product for the inputs and one for the parameters. What rematerialisation and exact accumulation compute again does
    not count; frozen parameters count as if they were trained."""
    dim, batch = embedding_dim(config.model), config.data.batch_size
    objectives = build_objectives(config.objectives).values()
    needs = {need for objective in objectives for need in objective.needs}
    needs |= needs_of_decoding(config.model, needs)
    forward = 0
    if needs & {"image", "image_embedding", "image_pooled"}:
        forward += image_flops(config.model.image, dim, tokens="image" in needs, embedded="image_embedding" in needs)
    if needs & {"text", "text_embedding"}:
        forward += text_flops(config.model.text, dim, tokens="text" in needs, embedded="text_embedding" in needs)
    forward += len(needs & set(VIEWS)) * image_flops(config.model.image, dim, tokens=False, embedded=False)
    forward *= batch
    if "decoding" in needs:
        text = config.data.text
        forward += batch // (text.packing or 1) * decoder_flops(config.model, text.packing or 1, text.packing_rows)
    return 3 * (forward + sum(objective.flops(config.model, batch) for objective in objectives))
