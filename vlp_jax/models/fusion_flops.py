def fusion_flops(config):
    return config.fusion.flops(config.shapes())
