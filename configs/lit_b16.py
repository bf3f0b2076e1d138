"""LiT ViT-B/16: a text tower that learns to read out an image tower which is locked (Zhai et al. 2022).

python -m vlp_jax.main --config=configs/lit_b16.py --workdir=DIR '--config.data.train.source=webdataset:...'
Published: batch 16,384, 55,000 steps, Adafactor at 1e-3 with weight decay 1e-4, cosine after 10,000 steps of warm-up, gradients
clipped at 1, an initial scale of 10, 16 tokens of SentencePiece, no projection behind the image tower. The locked tower keeps the
values it starts with: random ones, unless `pretrained` brings others. Decay and text as in siglip_b16.py. The one config that is
public, big_vision's lit_coco.py, is an example for COCO: weight decay 0.01, a warm-up of 3% of 5,000 steps, flips and RandAugment,
BERT for the text. big_vision's Adafactor does not clip updates by their root mean square, factors matrices from 32 elements a side
on, here from 128, and keeps its momentum in bfloat16.
What it shares with other SigLIP recipes, and what differs from big_vision: `siglip` in vlp_jax/config/experiment.py.
The tokenizer is fetched once from the Hugging Face hub; without a network: --config.data.text.tokenizer=FOLDER.
Never trained to the end by us; `:smoke` shrinks it for a CPU and the embedded data.
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
    config.objectives = dict(contrastive=dict(kind="clip", initial_scale=10.0, maximum_scale=1e6, implementation="ring"))
    config.optimizer.update(kind="adafactor", b2=0.999, learning_rate=1e-3, clip_norm=1.0, frozen=("^model/image/",))
    config.optimizer.schedule.update(kind="cosine", warmup=10_000.0)
    return variant_of(config, variant)
