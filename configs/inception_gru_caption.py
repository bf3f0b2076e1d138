"""A captioner: an Inception-v3 encoder (Szegedy et al. 2016) and a GRU decoder (Cho et al. 2014) that attends to the picture before
each word (Xu et al. 2015, "Show, attend and tell", soft attention), with the sizes of TensorFlow's tutorial "Image captioning with
visual attention", which joins these.

python -m vlp_jax.main --config=configs/inception_gru_caption.py --workdir=DIR '--config.data.train.source=webdataset:...'
299 x 299 pixels, 64 places to look at; words of 256, states and attention of 512; Adam at 1e-3, batches of 64; 20 epochs of COCO's
82,783 x 5 captions. What is not as there: the encoder begins from nothing and is trained, where theirs was trained on ImageNet and
stays as it is; the state begins with the picture's mean, what is seen has a gate, and words come from word, state and what was
seen, all as in Xu et al.; their penalty on places that are never looked at is left out; captions are of GPT-2's tokens.
Never trained to the end by us; `:small` and `:smoke` shrink it for a CPU and the embedded data. `:small`, 2 cores of an AMD EPYC,
2026-11-28: 10 CPU-minutes beside other work; captions 1.93 a token (unigrams: 5.02), on val_vendor 2.74; of the five written there
one is near ("man gesturing no" for "woman judge"), the others name another thing.
"""

from vlp_jax.config import base, schema, to_tree, variant_of
from vlp_jax.config.experiment import WEB_SOURCE, on_emoji


def get_config(variant="full"):
    config = base()
    config.examples = 8_278_300
    config.data.batch_size = 64
    config.data.augmentation.area = (0.9, 1.0)
    config.data.train.source = WEB_SOURCE
    config.data.images.update(mean=(0.5,) * 3, std=(0.5,) * 3)
    config.data.text.update(tokenizer="openai-community/gpt2", start_token="<|endoftext|>", end_token="<|endoftext|>",
                            padding_token="<|endoftext|>")
    config.model.image = to_tree(schema.InceptionTower(image_size=299))
    config.model.text.update(vocab_size=50_257, length=48)
    config.model.decoder = dict(kind="gru", image="attention", embedding_width=256, width=512, attention_width=512)
    config.objectives = dict(captioning=dict(kind="captioning"))
    config.optimizer.update(kind="adam", learning_rate=1e-3, b1=0.9, b2=0.999, epsilon=1e-7)
    config.optimizer.schedule.update(kind="constant")
    config.precision.compute = "bfloat16"
    return captioner(variant_of(config, variant, on_emoji), variant)


def captioner(config, variant):
    """Captions are looked at. Statistics of few places, in nearly fifty layers, would make a run hang on rounding errors: there,
    GroupNorm of a single group stands for BatchNorm."""
    if variant != "full":
        config.model.image.update(norm="group", groups=1)
        config.evaluators = dict(val_vendor=dict(source="embedded:emoji/val_vendor", tasks=("captions",)))
    return config
