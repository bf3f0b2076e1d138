"""multimodal_classification: film genres by a gated multimodal unit (Arevalo et al. 2017).

Settings (MM-IMDb, genres of films from poster and plot): VGG-16's hidden layers; the mean of the
plot's word vectors (word2vec, 300 wide); the gated multimodal unit; the sum of binary
cross-entropies of 23 genres, of which a film has several; Adam. Evaluators report micro and macro
F1 of the genres, as in the paper, and average precision. model.text.word_vectors=FILE initializes
the word embeddings.

Differences:
- The paper found sizes and learning rates by random search. gmu.json of its code has a width of
  512, a learning rate of 0.01 and dropout 0.5, and stops where the validation stalls; 1e-3, dropout
  0.3 and 20 epochs are ours.
- The head is linear (released code: an MLP of maxout units with BatchNorm before them).
- VGG starts from scratch and is trained (released code: from ImageNet, and frozen).

Data: JSON lines with `image`, `plot` and `genres`, a list.

python -m vlp_jax.main --config=configs/multimodal_classification.py --workdir=DIR \
    '--config.data.train.source=jsonl:films.jsonl?caption=plot'

`:small` and `:smoke` predict an emoji's subgroup, one of 98; from the image alone with
--config.objectives.label.features=image --config.model.fusion=none. `:small`, 2 cores of an AMD
EPYC, 2026-11-28, 2.5 CPU-minutes while other work ran. Accuracy on val_vendor, whose captions occur
in training with other images: 0.968; from the image alone 0.309; with the largest subgroup as every
prediction 0.149. On val_concept, whose captions are new: 0.471, 0.185 and 0.037.
"""

from vlp_jax.config import base, to_tree, variant_of
from vlp_jax.config.recipes import on_emoji
from vlp_jax.models.text.recurrent import BagOfWordsConfig
from vlp_jax.models.vision.vgg import VggConfig

GENRES, SUBGROUPS = 23, 98


def get_config(variant="full"):
    config = base()
    config.epochs = 20.0
    config.data.batch_size = 128
    config.data.images.resize = "squash"
    # a placeholder to be overridden
    config.data.train.source = "jsonl:/data/films/train.jsonl?caption=plot"
    config.data.text.update(
        tokenizer="google-bert/bert-base-uncased",
        start_token=None,
        end_token=None,
        padding_token="[PAD]",
        canonicalize=("lower_case", "punctuation", "whitespace"),
    )
    config.data.targets = dict(
        label=dict(kind="scores", field="genres", classes=GENRES, agreeing=1)
    )
    config.model.image = to_tree(VggConfig(depth=16, pooling="hidden"))
    config.model.text = to_tree(BagOfWordsConfig(width=300, vocab_size=30522, length=256))
    config.model.fusion = dict(kind="gated", width=512)
    config.objectives = dict(
        label=dict(
            kind="classification", target="label", loss="binary", dropout=0.3, initial_bias=-2.0
        )
    )
    config.optimizer.update(kind="adam", learning_rate=1e-3, b1=0.9, b2=0.999, epsilon=1e-8)
    config.optimizer.schedule.update(kind="constant")
    config.evaluators = dict(
        val=dict(source="jsonl:/data/films/val.jsonl?caption=plot", tasks=("classification",))
    )
    config = variant_of(config, variant, small)
    if variant != "full":
        config.data.targets.label.update(field="subgroup", classes=SUBGROUPS)
        config.evaluators = {
            split: dict(
                source=f"embedded:emoji/{split}", tasks=dict(classification=dict(by="group"))
            )
            for split in ("val_vendor", "val_concept")
        }
    return config


def small(config):
    # a ViT on a convolution stem, faster than VGG
    config.model.image, config.model.text = base().model.image, base().model.text
    config = on_emoji(config)
    config.update(steps=300, ema=0.98)
    config.data.batch_size = 128
    config.model.image.update(
        width=128,
        depth=1,
        mlp_dim=256,
        pooling="mean",
        stem_channels=(32, 64, 96, 128, 128),
        stem_strides=(2, 2, 1, 2, 1),
    )
    config.model.text = to_tree(
        BagOfWordsConfig(width=128, vocab_size=config.model.text.vocab_size, length=16)
    )
    config.model.fusion.width = 128
    config.data.targets.label = dict(kind="class")  # one subgroup per emoji
    config.objectives.label.update(loss="softmax", initial_bias=0.0)
    # with the others' learning rate: 0.441 on val_vendor after 300 steps
    config.optimizer.lr_multipliers = (("/head/", 20.0),)
    return config
