"""LiT ViT-B/16: contrastive training of a text tower against a locked image tower (Zhai et al.
2022).

Settings of the paper: batch 16,384, 55,000 steps; Adafactor with learning rate 1e-3 and weight
decay 1e-4; cosine after 10,000 steps of warm-up; gradients clipped at 1; initial scale 10; 16
tokens of SentencePiece; no projection after the image tower. Weight decay and text as in
siglip_b16.py.

The locked tower keeps its initial values: random ones, or with `:pretrained` those of AugReg's
ViT-B/16 of ImageNet-21k (Steiner et al. 2021), as in big_vision (lit_coco.py and common.py in
big_vision/configs/proj/image_text: `inits`). The text tower starts from scratch, as it has SigLIP's
architecture and not BERT's.

Differences from big_vision:
- Its only public config, lit_coco.py, is an example for COCO: weight decay 0.01, warm-up over 3% of
  5,000 steps, flips and RandAugment, BERT for the text.
- Its Adafactor does not clip updates by their root mean square, factors matrices whose sides have
  32 elements or more (here: 128), and keeps its momentum in bfloat16.

See `siglip` in vlp_jax/config/recipes.py for shared settings and more differences from
big_vision.

python -m vlp_jax.main --config=configs/lit_b16.py --workdir=DIR \
    '--config.data.train.source=webdataset:...'

`--config=configs/lit_b16.py:pretrained` starts from public weights; another place is set by
--config.pretrained.image.workdir=timm:DIR.

The tokenizer is downloaded once from the Hugging Face hub; without a network:
--config.data.text.tokenizer=FOLDER.
`:smoke` shrinks it for a CPU and the embedded data. We have not trained it to the end.
"""

from vlp_jax.config import siglip, variant_of


def get_config(variant="full"):
    config = siglip()
    config.examples = 55_000 * 16_384
    config.data.batch_size = 16_384
    config.model.image.update(preset="B/16", pooling="cls", activation="gelu", projection="none")
    config.model.text.update(length=16, projection="linear")
    config.model.image.rematerialisation = "none"  # a locked tower has no backward pass
    config.model.text.rematerialisation = "save_matmuls"
    config.model.embedding_dim = 768
    config.objectives = dict(
        contrastive=dict(kind="clip", initial_scale=10.0, maximum_scale=1e6, implementation="ring")
    )
    config.optimizer.update(
        kind="adafactor", b2=0.999, learning_rate=1e-3, clip_norm=1.0, frozen=("^model/image/",)
    )
    config.optimizer.schedule.update(kind="cosine", warmup=10_000.0)
    return variant_of(config, variant, pretrained=pretrained)


def pretrained(config):
    config.pretrained = dict(
        image=dict(
            workdir="timm:timm/vit_base_patch16_224.augreg_in21k", parameters=("^model/image/",)
        )
    )
    return config
