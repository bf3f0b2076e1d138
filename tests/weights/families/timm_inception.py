"""timm's Inception-v3."""

import timm_resnet
import timm_vit

FORMAT, NEEDS = "timm", "timm"
save, ours, outputs = timm_vit.save, timm_vit.ours, timm_resnet.outputs
SIDES = 75, 107, 96


def build(variant):
    import timm

    name = "inception_v3"
    model = timm.create_model(name, num_classes=0, aux_logits=False)
    return timm_resnet.named(model, name, variant, SIDES[variant])


def inputs(variant, rng):
    side = SIDES[variant]
    return dict(image=rng.normal(size=(1, side, side, 3)).astype("float32"))
