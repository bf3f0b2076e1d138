def fused_width(config):
    return config.fusion.fused_width(config.shapes())


def pooled_width(config):
    return config.fusion.pooled_width(config.shapes())
