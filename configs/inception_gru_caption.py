"""inception_gru_caption: an Inception-v3 encoder and a GRU decoder with visual attention (Xu et al.
2015).

The encoder is that of Szegedy et al. 2016. The decoder (GRU: Cho et al. 2014) attends to the image
before each word, with the soft attention of "Show, attend and tell". Sizes are those of
TensorFlow's tutorial "Image captioning with visual attention", which combines the two.

Settings: 299 x 299 pixels, 64 positions to attend to; word embeddings of 256, states and attention
of 512; Adam at 1e-3, batch 64; 20 epochs of COCO's 82,783 x 5 captions.

Differences from the tutorial:
- The encoder starts from scratch and is trained (tutorial: pretrained on ImageNet and frozen).
- As in Xu et al., the initial state is computed from the mean of the image's features, the attended
  features have a gate, and words are predicted from previous word, state and attended features.
  Their penalty on positions that are never attended to is left out.
- Captions consist of GPT-2's tokens.

python -m vlp_jax.main --config=configs/inception_gru_caption.py --workdir=DIR \
    '--config.data.train.source=webdataset:...'

`:small` and `:smoke` shrink it for a CPU and the embedded data. We have not trained the full recipe
to the end. `:small`, 2 cores of an AMD EPYC, 2026-11-28: 10 CPU-minutes while other work ran;
captioning loss 1.93 per token (unigrams: 5.02), on val_vendor 2.74; of the five captions generated
there one is close ("man gesturing no" for "woman judge"), the others name another thing.
"""

from vlp_jax.config import base, to_tree, variant_of
from vlp_jax.config.recipes import WEB_SOURCE, on_emoji
from vlp_jax.models.vision.inception import InceptionConfig


def get_config(variant="full"):
    config = base()
    config.examples = 8_278_300
    config.data.batch_size = 64
    config.data.augmentation.area = (0.9, 1.0)
    config.data.train.source = WEB_SOURCE
    config.data.images.update(mean=(0.5,) * 3, std=(0.5,) * 3)
    config.data.text.update(
        tokenizer="openai-community/gpt2",
        start_token="<|endoftext|>",
        end_token="<|endoftext|>",
        padding_token="<|endoftext|>",
    )
    config.model.image = to_tree(InceptionConfig(image_size=299))
    config.model.text.update(vocab_size=50_257, length=48)
    config.model.decoder = dict(
        kind="gru", image="attention", embedding_width=256, width=512, attention_width=512
    )
    config.objectives = dict(captioning=dict(kind="captioning"))
    config.optimizer.update(kind="adam", learning_rate=1e-3, b1=0.9, b2=0.999, epsilon=1e-7)
    config.optimizer.schedule.update(kind="constant")
    config.precision.compute = "bfloat16"
    return captioner(variant_of(config, variant, on_emoji), variant)


def captioner(config, variant):
    """Evaluates captions, with GroupNorm of a single group instead of BatchNorm, in small variants.

    With BatchNorm's statistics over few positions, in nearly fifty layers, a run would depend on
    rounding errors.
    """
    if variant != "full":
        config.model.image.update(norm="group", groups=1)
        config.evaluators = dict(
            val_vendor=dict(source="embedded:emoji/val_vendor", tasks=("captions",))
        )
    return config
