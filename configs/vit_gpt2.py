"""vit_gpt2: captioning by a ViT and a GPT-2 with cross-attention (Vaswani et al. 2017).

The parts are those of Dosovitskiy et al. 2021 (ViT) and Radford et al. 2019 (GPT-2), combined as in
transformers' VisionEncoderDecoderModel; both start from scratch here, unless `:pretrained` is
given: then the encoder starts from ViT-B/16 of ImageNet-21k and the decoder from GPT-2, as in
transformers' example of captioning (examples/flax/image-captioning/README.md). The cross-attention
is new.

Settings: ViT-B/16 at 224 pixels, and GPT-2 small (12 layers, width 768, 50,257 tokens); AdamW as
for GPT-3 (Brown et al. 2020, appendix B).

python -m vlp_jax.main --config=configs/vit_gpt2.py --workdir=DIR \
    '--config.data.train.source=webdataset:...'

`--config=configs/vit_gpt2.py:pretrained` starts from public weights; another place is set as in
--config.pretrained.image.workdir=huggingface:DIR.

`:small` and `:smoke` shrink it for a CPU and the embedded data. `:small`, 2 cores of an AMD EPYC,
2026-11-28: 5 minutes, 5 CPU-minutes; captioning loss 1.56 per token, 2.47 with smoothed labels
(unigrams: 5.02); on val_vendor 2.11 per token, where the untrained model has 8.33. Required of a
run: 4 less.
"""

from vlp_jax.config import base, variant_of
from vlp_jax.config.recipes import WEB_SOURCE, on_emoji


def get_config(variant="full"):
    config = base()
    config.examples = 100_000_000
    config.data.batch_size = 1024
    config.data.augmentation.area = (0.9, 1.0)
    config.data.train.source = WEB_SOURCE
    config.data.images.transparency = "drop"
    config.data.images.update(mean=(0.5,) * 3, std=(0.5,) * 3)
    config.data.text.update(
        tokenizer="openai-community/gpt2",
        start_token="<|endoftext|>",
        end_token="<|endoftext|>",
        padding_token="<|endoftext|>",
    )
    config.model.image.update(preset="B/16", scan=True, rematerialisation="save_matmuls")
    config.model.text.update(vocab_size=50_257, length=77)
    config.model.decoder = dict(
        preset="B",
        activation="gelu_tanh",
        norm_epsilon=1e-5,
        dropout=0.1,
        attention_dropout=0.1,
        initialization="gpt2",
        scan=True,
        rematerialisation="save_matmuls",
    )
    config.objectives = dict(captioning=dict(kind="captioning", label_smoothing=0.1))
    config.optimizer.update(
        learning_rate=6e-4, b1=0.9, b2=0.95, epsilon=1e-8, weight_decay=0.1, clip_norm=1.0
    )
    config.optimizer.schedule.update(kind="cosine", warmup=0.01, final=0.1)
    config.precision.compute = "bfloat16"
    return captioner(variant_of(config, variant, on_emoji, pretrained), variant)


def pretrained(config):
    config.model.image.norm_epsilon = 1e-12
    config.pretrained = dict(
        image=dict(
            workdir="huggingface:google/vit-base-patch16-224-in21k", parameters=("^model/image/",)
        ),
        decoder=dict(workdir="huggingface:openai-community/gpt2", parameters=("^model/decoder/",)),
    )
    return config


def captioner(config, variant):
    """Evaluates captions in small variants."""
    if variant in ("smoke", "small"):
        config.evaluators = dict(
            val_vendor=dict(source="embedded:emoji/val_vendor", tasks=("captions",))
        )
    return config
