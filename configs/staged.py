"""staged: four stages of training (images, texts, pairs, fine-tuning), initialized from earlier
ones.

python -m vlp_jax.main --config=configs/staged.py --workdir=DIR \
    '--config.data.train.source=webdataset:...' \
    --config.stages.finetuned.data.train.source=folder:/data/train
    --config.stages.finetuned.evaluators.val.source=folder:/data/val

trains DIR/image, DIR/text, DIR/joint and DIR/finetuned in turn; the same command resumes an
interrupted training. `--config.KEY=VALUE` applies to every stage, `--config.stages.joint.KEY=VALUE`
to one; --config=configs/staged.py:full:joint trains one stage alone. The last stage needs labels,
`class` in the metadata; a set without them is noticed only when that stage begins.

As in FLAVA, the towers are first trained on one modality each (Singh et al. 2022, section 3.4),
with other
objectives: SimCLR's two views (Chen et al. 2020) as in slip_b16.py, masked-language modelling
  (Devlin et al. 2019)
as in bert_mlm.py, then CLIP's contrastive loss as in clip_b16.py, and last a classifier of labelled
images. The joint stage's learning rate, and all of fine-tuning, are ours.

Fine-tuning trains the encoder, too, at a tenth of the head's learning rate. With
--config.stages.finetuned.optimizer.frozen='("^model/",)' it is frozen, and only its features are
used; with frozen='("^model/image/patch_embedding/",)', or any other pattern, a part of it is.

`:small` and `:smoke` shrink the stages for a CPU and the embedded data. `:small`, 2 cores of an AMD
EPYC, 2026-11-28: 12 CPU-minutes while other work ran. The joint stage's 300 steps reach a
contrastive loss of 0.76, and from scratch 1.79 (`:small:joint` with
'--config.stages.joint.pretrained={}'). On val_vendor, a vendor absent from
training: recall@1 text to image 0.093 (from scratch 0.057), @10 0.369 (0.237), median rank 23 (64);
  image to text
@1 0.064 (0.043), @10 0.309 (0.195). Nearly all of the gain comes from the image stage: without the
text stage @10 is 0.370 and 0.278. After fine-tuning, 50.1% of val_vendor's images are classified
correctly, in 9 groups, the largest of which has 19.4%.
"""

from vlp_jax.config import clip, to_tree, variant_of
from vlp_jax.config.recipes import WITH_MASK_TOKEN, on_emoji
from vlp_jax.data.images.config import AugmentationConfig

MASK_ID_TOO = 49_416  # CLIP's 49,408 tokens and a mask token, as a multiple of 8
CLASSES, GROUPS = 1000, 9


def get_config(variant="full"):
    stages = dict(image=image, text=text, joint=joint, finetuned=finetuned)
    return dict(stages={name: stage(variant) for name, stage in stages.items()})


def towers():
    """The settings of all stages: towers that are passed from one to the next, no evaluators."""
    config = clip()
    config.data.batch_size = 4096
    config.model.image.update(preset="B/16", rematerialisation="save_matmuls")
    config.model.text.update(
        vocab_size=MASK_ID_TOO, causal=False, pooling="first", rematerialisation="save_matmuls"
    )
    config.evaluators = {}
    return config


def image(variant):
    config = towers()
    config.update(examples=None, epochs=25.0)
    config.data.view_augmentation = to_tree(
        AugmentationConfig(
            area=(0.08, 1.0),
            flip=0.5,
            brightness=0.4,
            contrast=0.4,
            saturation=0.4,
            hue=0.1,
            grayscale=0.2,
            blur=0.5,
        )
    )
    config.objectives = dict(views=dict(kind="simclr", first="first_view"))
    config.optimizer.update(learning_rate=3e-3, epsilon=1e-8, weight_decay=0.1)
    config = shrunk(config, variant, steps=600)
    if variant != "full":
        config.objectives.views.update(hidden_dim=256, output_dim=64)
        config.data.view_augmentation = to_tree(
            AugmentationConfig(
                background="random",
                rotation=15.0,
                scale=(0.5, 1.2),
                shift=0.1,
                brightness=0.4,
                contrast=0.4,
                saturation=0.4,
                grayscale=0.2,
            )
        )
    return config


def text(variant):
    config = towers()
    config.update(examples=None, steps=1_000_000)
    config.data.batch_size = 256
    config.objectives = dict(words=dict(kind="masked_language", with_image=False, tied=True))
    config.optimizer.update(learning_rate=1e-4, b2=0.999, weight_decay=0.01, clip_norm=1.0)
    config.optimizer.schedule.update(kind="linear", warmup=10_000.0)
    config = shrunk(config, variant, steps=150)
    if variant == "small":
        # after 300 steps at 4e-3 the tower learned pairs more slowly than an untrained one
        config.optimizer.learning_rate = 1e-3
    return config


def joint(variant):
    config = towers()
    config.pretrained = dict(
        image=dict(stage="image", parameters=("^model/image/",)),
        text=dict(stage="text", parameters=("^model/text/",)),
    )
    config.optimizer.learning_rate = 2e-4
    config = shrunk(config, variant, steps=300)
    if variant != "full":
        config.evaluators = dict(
            val_vendor=dict(source="embedded:emoji/val_vendor", tasks=("retrieval",))
        )
    return config


def finetuned(variant):
    config = towers()
    config.update(examples=None, epochs=20.0)
    config.data.batch_size = 1024
    config.data.targets = dict(label=dict(kind="class", field="class", classes=CLASSES))
    config.objectives = dict(label=dict(kind="classification", target="label", features="image"))
    config.pretrained = dict(image=dict(stage="joint", parameters=("^model/image/",)))
    config.optimizer.update(
        learning_rate=1e-3, weight_decay=0.05, lr_multipliers=(("^model/", 0.1),)
    )
    config.evaluators = dict(val=dict(source="folder:/data/val", tasks=("classification",)))
    config = shrunk(config, variant, steps=150)
    if variant != "full":
        config.data.targets.label.update(field="group", classes=GROUPS)
        config.optimizer.lr_multipliers = (("^model/", 0.1),)
        config.evaluators = dict(
            val_vendor=dict(source="embedded:emoji/val_vendor", tasks=("classification",))
        )
    return config


def shrunk(config, variant, steps):
    """The variant of a stage; "small" has this number of steps."""

    def small(config):
        config = on_emoji(config)
        config.update(steps=steps, ema=0.98)
        config.data.batch_size = 128
        config.model.image.update(
            depth=1,
            mlp_dim=256,
            pooling="mean",
            embedding_norm=False,
            stem_channels=(32, 64, 96, 128, 128),
            stem_strides=(2, 2, 1, 2, 1),
        )
        return config

    config = variant_of(config, variant, small)
    if variant != "full":
        config.model.text.vocab_size = WITH_MASK_TOKEN
        config.evaluators = {}
    return config
