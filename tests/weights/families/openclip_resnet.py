"""OpenCLIP's CLIP with a ModifiedResNet; run by an interpreter with open_clip."""

import dataclasses

import openclip_vit
from weight_reference import END, SIZES, START, draw_images, draw_texts, perturb

FORMAT = "openclip"
NEEDS = "open_clip"
BLOCKS = ((2, 1, 1, 1), (1, 1, 2, 1), (1, 2, 1, 1))
PIXELS, WIDTHS, HEADS = (32, 64, 32), (2, 2, 4), (4, 2, 8)
save, outputs, ours, load = (
    openclip_vit.save,
    openclip_vit.outputs,
    openclip_vit.ours,
    openclip_vit.load,
)


def sizes_of(variant):
    return dataclasses.replace(SIZES[variant], image_size=PIXELS[variant])


def build(variant):
    import open_clip

    width = WIDTHS[variant]
    config = openclip_vit.model_cfg(variant)
    config["vision_cfg"] = dict(
        image_size=PIXELS[variant],
        layers=list(BLOCKS[variant]),
        width=width,
        head_width=32 * width // HEADS[variant],
        patch_size=None,
    )
    model = open_clip.CLIP(**config)
    model.cfg = config
    return perturb(model, variant)


def inputs(variant, rng):
    sizes = sizes_of(variant)
    text, mask = draw_texts(sizes, rng, (START, END, 0), (1, START))
    image = draw_images(SIZES[0], rng)[:, :8, :8]  # enlarged, as the golden file is then small
    scale = sizes.image_size // 8
    return dict(image=image.repeat(scale, 1).repeat(scale, 2), text=text, text_mask=mask)
