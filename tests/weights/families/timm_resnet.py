"""timm's ResNet: of bottlenecks and of basic blocks, with few blocks."""

import numpy as np
import timm_vit
from weight_reference import numbers, perturb, torch_images

FORMAT, NEEDS = "timm", "timm"
SIDES = 64, 40, 33  # of the images
ours = timm_vit.ours


def build(variant):
    import timm

    name = ("resnet50", "resnet18", "resnet50")[variant]
    layers = ((1, 1, 1, 1), (2, 1, 1, 2), (1, 2, 1, 1))[variant]
    return named(timm.create_model(name, layers=layers, num_classes=0), name, variant)


def named(model, name, variant, side=None):
    """A perturbed model, smaller changes for its weights, so that nothing overflows; with the size
    of its images."""
    import torch

    model.pretrained_cfg["input_size"] = (3, *((side or SIDES[variant]),) * 2)
    model.heads = None
    states = {key: value.clone() for key, value in model.state_dict().items()}
    perturb(model, variant)
    with torch.no_grad():
        for key, value in model.named_parameters():
            if value.ndim > 1:
                value.copy_(states[key])
    return model


def save(model, folder):
    timm_vit.save(model, folder)


def inputs(variant, rng):
    side = SIDES[variant]
    return dict(image=rng.normal(size=(2, side, side, 3)).astype(np.float32))


def outputs(model, inputs):
    import torch

    with torch.no_grad():
        tokens = model.forward_features(torch_images(inputs))
        pooled = model(torch_images(inputs))
    return numbers(tokens=tokens.flatten(2).transpose(1, 2), pooled=pooled)
