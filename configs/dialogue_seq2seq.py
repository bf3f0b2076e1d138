"""Replies in a dialogue about a picture, from sequence to sequence: history and question, then the reply, by LSTMs (Sutskever et
al. 2014; Bahdanau et al. 2015; with a picture: Das et al. 2017, "Visual Dialog", section 5).

A bidirectional LSTM reads all that was said and the newest question; its states look at VGG-16's map of the picture, and an LSTM
with additive attention to them writes the reply; evaluation ranks known replies by it, and writes others, greedily. Words of 300
numbers and LSTMs of 512 are Das et al.'s; they fuse otherwise (late, or by a memory), with VGG from ImageNet, here from nothing.
The cross-attention between and the length of training are ours. Their code (batra-mlp-lab/visdial) multiplies the rate by 0.99976
after each update, down to 5e-5, and drops half of what question, history and image give together, nothing in the decoder; here
the rate stays and half is dropped in the decoder. It has batches of 40 dialogues, and clips each number of a gradient to 5, here
the gradient's norm.

Data: JSON lines with `image`, `dialogue` (history and question) and `reply`:
python -m vlp_jax.main --config=configs/dialogue_seq2seq.py --workdir=DIR \
    '--config.data.train.source=jsonl:dialogues.jsonl?caption=dialogue'
The intent of a question can be told from the same context: an objective of kind 'classification' with features='text' and a
target of the field that names it, as `type` in embedded:emoji_dialogues.
`:small` and `:smoke` shrink it for a CPU and the embedded data. `:small`, 2 cores of an AMD EPYC, 2026-11-28: 9 CPU-minutes beside
other work; a reply costs 0.55 a token (unigrams: 3.65). Of 4,380 replies about val_vendor's pictures 52.1% are right, the best of
770 ranked, and 50.8% as they are written; always the most frequent one would be 15.6%, and the most frequent one for each type of
question 26.6%.
"""

from vlp_jax.config import base, schema, to_tree, variant_of
from vlp_jax.config.experiment import on_emoji

REPLIES = 770  # of embedded:emoji_dialogues/train


def get_config(variant="full"):
    config = base()
    config.epochs = 20.0
    config.data.batch_size = 128
    config.data.images.resize = "squash"
    config.data.train.source = "jsonl:/data/dialogues/train.jsonl?caption=dialogue"  # a place to be overridden
    config.data.text.update(tokenizer="google-bert/bert-base-uncased", start_token="[CLS]", end_token="[SEP]",
                            padding_token="[PAD]", canonicalize=("lower_case", "whitespace"),
                            truncation_side="left")  # the newest question stands last
    config.data.targets = dict(reply=dict(kind="text", field="reply", classes=1000, length=20,
                                          canonicalize=config.data.text.canonicalize))
    config.model.image = to_tree(schema.VggTower(depth=16, norm="batch"))
    config.model.text = to_tree(schema.BidirectionalLstmTower(embedding_width=300, width=512, depth=2, vocab_size=30522,
                                                              length=256))
    config.model.fusion = dict(kind="cross_attention", preset="Ti", width=512, depth=1, heads=8, mlp_dim=1024)
    config.model.decoder = dict(kind="lstm", image="attention", embedding_width=300, width=512, attention_width=512, dropout=0.5)
    config.objectives = dict(reply=dict(kind="answering", target="reply", shortlist=100))
    config.optimizer.update(kind="adam", learning_rate=1e-3, b1=0.9, b2=0.999, epsilon=1e-8, clip_norm=5.0)
    config.optimizer.schedule.update(kind="constant")
    config.evaluators = dict(val=dict(source="jsonl:/data/dialogues/val.jsonl?caption=dialogue",
                                      tasks=("classification", "answers")))
    config = variant_of(config, variant, small)
    if variant != "full":
        config.data.train.source = "embedded:emoji_dialogues/train"
        config.data.targets.reply.update(field="answer", classes=REPLIES, length=8, canonicalize=())
        config.objectives.reply.shortlist = 16
        config.evaluators = dict(val_vendor=dict(source="embedded:emoji_dialogues/val_vendor",
                                                 tasks=("classification", "answers"), by="type"))
    return config


def small(config):
    config.model.image, config.model.text = base().model.image, base().model.text  # a ViT behind convolutions, faster than VGG
    config = on_emoji(config)
    config.update(steps=400, ema=0.98)
    config.data.batch_size = 128
    config.model.image.update(width=128, depth=1, mlp_dim=256, pooling="mean", stem_channels=(32, 64, 96, 128, 128),
                              stem_strides=(2, 2, 1, 2, 1))
    vocabulary = config.model.text.vocab_size
    config.model.text = to_tree(schema.BidirectionalLstmTower(embedding_width=128, width=128, vocab_size=vocabulary, length=66))
    config.model.fusion.update(depth=1, mlp_dim=256)
    config.model.decoder.update(dropout=0.0)
    config.optimizer.learning_rate = 5e-3
    return config
