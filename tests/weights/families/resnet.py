"""transformers' ResNetModel of bottlenecks and of basic blocks, and with a head."""

import dataclasses

import vit
from weight_reference import (
    SIZES,
    draw_images,
    load_huggingface,
    numbers,
    perturb,
    save_huggingface,
    torch_images,
)

FORMAT = "huggingface"
save, ours = save_huggingface, vit.ours
SIDES = 32, 40, 29


def build(variant):
    import transformers

    depths = ([1, 2, 1], [1, 1, 2, 1], [2, 1])[variant]
    width, basic = (4, 3, 8)[variant], variant == 1
    config = transformers.ResNetConfig(
        embedding_size=width,
        hidden_sizes=[width * (1 if basic else 4) * 2**stage for stage in range(len(depths))],
        depths=depths,
        layer_type="basic" if basic else "bottleneck",
    )
    name = "ResNetForImageClassification" if variant == 2 else "ResNetModel"
    return perturb(getattr(transformers, name)(config), variant)


def inputs(variant, rng):
    sizes = dataclasses.replace(SIZES[variant], image_size=SIDES[variant])
    return dict(image=draw_images(sizes, rng))


def outputs(model, inputs):
    import torch

    tower = getattr(model, "resnet", model)
    with torch.no_grad():
        found = tower(pixel_values=torch_images(inputs))
    tokens, pooled = found.last_hidden_state, found.pooler_output[:, :, 0, 0]
    embedding = pooled / pooled.norm(dim=-1, keepdim=True)
    return numbers(
        tokens=tokens.flatten(2).transpose(1, 2), pooled=pooled, image_embedding=embedding
    )


def load(folder):
    model, problems = load_huggingface("ResNetModel", folder)
    # counters of batches, which start at 0 and are not written
    return model, [name for name in problems if not name.endswith("num_batches_tracked")]
