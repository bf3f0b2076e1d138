"""dialogue_seq2seq: replies in a dialogue about an image, by LSTMs (after Das et al. 2017).

History and question are the input sequence, the reply is the output sequence (Sutskever et al.
2014; Bahdanau et al. 2015). A bidirectional LSTM encodes the history and the newest question; its
states attend to VGG-16's feature map of the image; an LSTM decoder with additive attention to these
states generates the reply. Evaluation ranks the known replies by their likelihood, and also
generates replies greedily.

Settings: word embeddings of 300 and LSTMs of width 512 are those of Das et al. 2017 ("Visual
Dialog", section 5). The cross-attention between encoder and image, and the length of training, are
ours.

Differences from Das et al. and their code (batra-mlp-lab/visdial):
- Fusion by cross-attention (theirs: late fusion, or a memory network).
- VGG starts from scratch (theirs: from ImageNet).
- The learning rate is constant (theirs: multiplied by 0.99976 after each update, down to 5e-5).
- Dropout of 0.5 in the decoder (theirs: of the joint vector of question, history and image, none in
  the decoder).
- The batch is 128 (theirs: 40 dialogues).
- The norm of the gradient is clipped to 5 (theirs: each element of it).

Data: JSON lines with `image`, `dialogue` (history and question) and `reply`.

python -m vlp_jax.main --config=configs/dialogue_seq2seq.py --workdir=DIR \
    '--config.data.train.source=jsonl:dialogues.jsonl?caption=dialogue'

To predict the intent of a question from the same context, add an objective of kind 'classification'
with features='text' and a target of the field that holds the intent, such as `type` in
embedded:emoji_dialogues.

`:small` and `:smoke` shrink it for a CPU and the embedded data. `:small`, 2 cores of an AMD EPYC,
2026-11-28: 9 CPU-minutes while other work ran; the loss of a reply is 0.55 per token (unigrams:
3.65). Accuracy on 4,380 replies about val_vendor's images: 52.1% for the best-ranked of 770
replies, 50.8% for the generated reply; always the most frequent reply would have 15.6%, and the
most frequent one for each type of question 26.6%.
"""

from vlp_jax.config import base, to_tree, variant_of
from vlp_jax.config.recipes import on_emoji
from vlp_jax.models.text.recurrent import BidirectionalLstmConfig
from vlp_jax.models.vision.vgg import VggConfig

REPLIES = 770  # of embedded:emoji_dialogues/train


def get_config(variant="full"):
    config = base()
    config.epochs = 20.0
    config.data.batch_size = 128
    config.data.images.resize = "squash"
    # a placeholder to be overridden
    config.data.train.source = "jsonl:/data/dialogues/train.jsonl?caption=dialogue"
    config.data.text.update(
        tokenizer="google-bert/bert-base-uncased",
        start_token="[CLS]",
        end_token="[SEP]",
        padding_token="[PAD]",
        canonicalize=("lower_case", "whitespace"),
        truncation_side="left",
    )  # the newest question is last
    config.data.targets = dict(
        reply=dict(
            kind="text",
            field="reply",
            classes=1000,
            length=20,
            canonicalize=config.data.text.canonicalize,
        )
    )
    config.model.image = to_tree(VggConfig(depth=16, norm="batch"))
    config.model.text = to_tree(
        BidirectionalLstmConfig(
            embedding_width=300, width=512, depth=2, vocab_size=30522, length=256
        )
    )
    config.model.fusion = dict(
        kind="cross_attention", preset="Ti", width=512, depth=1, heads=8, mlp_dim=1024
    )
    config.model.decoder = dict(
        kind="lstm",
        image="attention",
        embedding_width=300,
        width=512,
        attention_width=512,
        dropout=0.5,
    )
    config.objectives = dict(reply=dict(kind="answering", target="reply", shortlist=100))
    config.optimizer.update(
        kind="adam", learning_rate=1e-3, b1=0.9, b2=0.999, epsilon=1e-8, clip_norm=5.0
    )
    config.optimizer.schedule.update(kind="constant")
    config.evaluators = dict(
        val=dict(
            source="jsonl:/data/dialogues/val.jsonl?caption=dialogue",
            tasks=("classification", "answers"),
        )
    )
    config = variant_of(config, variant, small)
    if variant != "full":
        config.data.train.source = "embedded:emoji_dialogues/train"
        config.data.targets.reply.update(field="answer", classes=REPLIES, length=8, canonicalize=())
        config.objectives.reply.shortlist = 16
        config.evaluators = dict(
            val_vendor=dict(
                source="embedded:emoji_dialogues/val_vendor",
                tasks=dict(classification=dict(by="type"), answers={}),
            )
        )
    return config


def small(config):
    # a ViT on a convolution stem, faster than VGG
    config.model.image, config.model.text = base().model.image, base().model.text
    config = on_emoji(config)
    config.update(steps=400, ema=0.98)
    config.data.batch_size = 128
    config.model.image.update(
        width=128,
        depth=1,
        mlp_dim=256,
        pooling="mean",
        stem_channels=(32, 64, 96, 128, 128),
        stem_strides=(2, 2, 1, 2, 1),
    )
    vocabulary = config.model.text.vocab_size
    config.model.text = to_tree(
        BidirectionalLstmConfig(embedding_width=128, width=128, vocab_size=vocabulary, length=66)
    )
    config.model.fusion.update(depth=1, mlp_dim=256)
    config.model.decoder.update(dropout=0.0)
    config.optimizer.learning_rate = 5e-3
    return config
