"""vgg16_lstm_caption: a VGG-16 encoder and an LSTM decoder (after neuraltalk2, Karpathy 2015).

The encoder is that of Simonyan & Zisserman 2015. The image is the decoder's input before the words,
as in "Show and tell" (Vinyals et al. 2015). Sizes and optimizer are those of neuraltalk2, which
combines the two.

Settings: word embeddings and states of 512, dropout 0.5; Adam at 4e-4 with b1 0.8, 80 captions per
batch; 60 epochs of COCO's 113,287 x 5 captions (neuraltalk2 sets no end).

As in neuraltalk2, `:pretrained` has the encoder as it was trained on ImageNet, without BatchNorm
and with its fully connected layers, and does not train it (train.lua: `cnn_model`,
`finetune_cnn_after`; misc/net_utils.lua: `build_cnn`).

Differences from neuraltalk2:
- The encoder starts from scratch (there: from ImageNet), unless `:pretrained` is given. It
  therefore has BatchNorm, the learning rate of the rest, and the mean of its last feature map in
  place of the fully connected layers. There it is trained only by an option, at 1e-5.
- `:pretrained` has torchvision's weights (there: those of the paper's authors, in Caffe).
- Captions consist of GPT-2's tokens (there: of COCO's frequent words).
- Gradients are clipped by their norm (there: each element to 0.1).
- Crops have 90% to 100% of the area (there: 224 x 224 of 256 x 256 pixels).

python -m vlp_jax.main --config=configs/vgg16_lstm_caption.py --workdir=DIR \
    '--config.data.train.source=webdataset:...'

`--config=configs/vgg16_lstm_caption.py:pretrained` starts from public weights; another place is set
by --config.pretrained.image.workdir=timm:DIR.

`:small` and `:smoke` shrink it for a CPU and the embedded data. `:small`, 2 cores of an AMD EPYC,
2026-11-28: 9 CPU-minutes while other work ran; captioning loss 1.61 per token, the mean of four
batches (unigrams: 5.02); on val_vendor 2.67 per token, where a uniform guess over the vocabulary
has 8.32.
"""

from vlp_jax.config import base, to_tree, variant_of
from vlp_jax.config.recipes import WEB_SOURCE, on_emoji
from vlp_jax.models.vision.vgg import VggConfig


def get_config(variant="full"):
    config = base()
    config.examples = 33_986_100
    config.data.batch_size = 80
    config.data.augmentation.area = (0.9, 1.0)
    config.data.train.source = WEB_SOURCE
    config.data.images.update(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    config.data.text.update(
        tokenizer="openai-community/gpt2",
        start_token="<|endoftext|>",
        end_token="<|endoftext|>",
        padding_token="<|endoftext|>",
    )
    config.model.image = to_tree(VggConfig(depth=16, norm="batch", image_size=224))
    config.model.text.update(vocab_size=50_257, length=32)
    config.model.decoder = dict(
        kind="lstm", image="state", embedding_width=512, width=512, dropout=0.5
    )
    config.objectives = dict(captioning=dict(kind="captioning"))
    config.optimizer.update(
        kind="adam", learning_rate=4e-4, b1=0.8, b2=0.999, epsilon=1e-8, clip_norm=1.0
    )
    config.optimizer.schedule.update(kind="constant")
    config.precision.compute = "bfloat16"
    return captioner(variant_of(config, variant, on_emoji, pretrained), variant)


def pretrained(config):
    config.model.image.update(norm="none", pooling="hidden")
    config.optimizer.frozen = ("^model/image/",)
    config.pretrained = dict(
        image=dict(workdir="timm:timm/vgg16.tv_in1k", parameters=("^model/image/",))
    )
    return config


def captioner(config, variant):
    """Evaluates captions in small variants; less dropout in "small", whose decoder is narrow and
    whose run is short."""
    if variant == "small":
        config.steps = 1000
        config.model.decoder.dropout = 0.1
        config.checkpoint.every_steps = 1000
    if variant in ("smoke", "small"):
        config.evaluators = dict(
            val_vendor=dict(source="embedded:emoji/val_vendor", tasks=("captions",))
        )
    return config
