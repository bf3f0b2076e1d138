"""timm's VGG, with and without BatchNorm, with narrow fully connected layers."""

import timm_resnet
import timm_vit
from weight_reference import numbers, torch_images

FORMAT, NEEDS = "timm", "timm"
SIDE, HIDDEN = 224, 24  # the layers are on maps of 7 x 7
save, ours = timm_vit.save, timm_vit.ours


def build(variant):
    import timm
    from timm.models.vgg import ConvMlp

    name = ("vgg16", "vgg11_bn", "vgg13")[variant]
    model = timm.create_model(name, num_classes=0)
    model.pre_logits = ConvMlp(512, HIDDEN, 7)
    return timm_resnet.named(model, name, variant, SIDE)


def inputs(variant, rng):
    return dict(image=rng.normal(size=(1, SIDE, SIDE, 3)).astype("float32"))


def outputs(model, inputs):
    import torch

    with torch.no_grad():
        tokens = model.forward_features(torch_images(inputs))
        pooled = model.pre_logits(tokens)[:, :, 0, 0]
    return numbers(tokens=tokens.flatten(2).transpose(1, 2), pooled=pooled)
