from vlp_jax.models.layers.flops import layer_flops


def image_flops(tower, embedding_dim, train=True, tokens=True, embedded=True):
    return tower.flops(embedding_dim, train, tokens, embedded)


def image_tokens(tower):
    return tower.tokens


def masked_autoencoder_flops(tower, mask_ratio: float, decoder) -> int:
    patches, others = tower.side**2, tower.class_token + tower.registers
    visible = max(1, int(patches * (1.0 - mask_ratio)))
    flops = tower.kept_flops(visible) + 2 * (visible + others) * tower.token_width * decoder.width
    flops += decoder.depth * layer_flops(decoder, patches + others, "gelu")
    return flops + 2 * patches * decoder.width * 3 * tower.patch**2


def text_flops(tower, embedding_dim: int, tokens: bool = True, embedded: bool = True) -> int:
    return tower.flops(embedding_dim, tokens, embedded)


def decoder_flops(config, pictures: int = 1, rows: int = 1, length=None, memory=None) -> int:
    return config.decoder.flops(config.shapes(), pictures, rows, length, memory)
