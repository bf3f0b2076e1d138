def image_token_width(tower):
    return tower.token_width


def image_width(tower):
    return tower.pooled_width
