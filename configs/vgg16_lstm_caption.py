"""A captioner: a VGG-16 encoder (Simonyan & Zisserman 2015) whose picture begins the state of an LSTM decoder (Vinyals et al. 2015,
"Show and tell"), with the sizes and the optimizer of neuraltalk2 (Karpathy 2015), which joins these two.

python -m vlp_jax.main --config=configs/vgg16_lstm_caption.py --workdir=DIR '--config.data.train.source=webdataset:...'
Words and states of 512, dropout of a half; Adam at 4e-4 with b1 0.8, 80 captions a batch; 60 epochs of COCO's 113,287 x 5 captions
(neuraltalk2 sets no end). What is not as there: the encoder begins from nothing, where theirs was trained on ImageNet, so that it
has BatchNorm here, one rate with the rest, and the mean of its last map in place of its fully connected layers; captions are of
GPT-2's tokens, not of COCO's frequent words; gradients are clipped by their norm, not each number to 0.1; crops have 90% to 100%
of the area, theirs are the pixels of a square of 224 in one of 256. Theirs does not train the encoder unless told to, then at 1e-5.
`:small` and `:smoke` shrink it for a CPU and the embedded data. `:small`, 2 cores of an AMD EPYC, 2026-11-28: 9 CPU-minutes beside
other work; captions 1.61 a token, the mean of four batches (unigrams: 5.02); on val_vendor they cost 2.67 a token, where an
even guess over the vocabulary costs 8.32.
"""

from vlp_jax.config import base, schema, to_tree, variant_of
from vlp_jax.config.experiment import WEB_SOURCE, on_emoji


def get_config(variant="full"):
    config = base()
    config.examples = 33_986_100
    config.data.batch_size = 80
    config.data.augmentation.area = (0.9, 1.0)
    config.data.train.source = WEB_SOURCE
    config.data.images.update(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    config.data.text.update(tokenizer="openai-community/gpt2", start_token="<|endoftext|>", end_token="<|endoftext|>",
                            padding_token="<|endoftext|>")
    config.model.image = to_tree(schema.VggTower(depth=16, norm="batch", image_size=224))
    config.model.text.update(vocab_size=50_257, length=32)
    config.model.decoder = dict(kind="lstm", image="state", embedding_width=512, width=512, dropout=0.5)
    config.objectives = dict(captioning=dict(kind="captioning"))
    config.optimizer.update(kind="adam", learning_rate=4e-4, b1=0.8, b2=0.999, epsilon=1e-8, clip_norm=1.0)
    config.optimizer.schedule.update(kind="constant")
    config.precision.compute = "bfloat16"
    return captioner(variant_of(config, variant, on_emoji), variant)


def captioner(config, variant):
    """Captions are looked at; a narrow decoder has little to drop, and a short run no time for it."""
    if variant == "small":
        config.steps = 1000
        config.model.decoder.dropout = 0.1
        config.checkpoint.every_steps = 1000
    if variant != "full":
        config.evaluators = dict(val_vendor=dict(source="embedded:emoji/val_vendor", tasks=("captions",)))
    return config
