"""ALBEF's released code; built of transformers' BertEmbeddings, BertLayer and masked-word head and
of plain PyTorch, as its source has it (github salesforce/ALBEF, models): model_pretrain.py:34-83
(parts) and :88 (forward pass), model_retrieval.py (names of the text encoder), vit.py (`Block`,
`VisionTransformer`), xbert.py (`BertLayer`, `BertEncoder`, `BertOnlyMLMHead`)."""

import re

import vilt_masked
from weight_reference import (
    SIZES,
    draw_images,
    draw_masked,
    draw_texts,
    numbers,
    perturb,
    seen,
    torch_images,
    torch_labels,
    write_json,
)

FORMAT = "original"
FUSED = (2, 1, 3)  # layers of the fusion


def prepare():
    """Heads as narrow as those of the tiny models."""
    from vlp_jax.weights.families import released_code

    released_code.HEAD_WIDTH = 8


def settings_of(variant):
    """ALBEF's settings of a tiny model."""
    sizes = SIZES[variant]
    return dict(
        image_res=sizes.image_size,
        vision_width=sizes.image_width,
        embed_dim=sizes.embedding,
        temp=0.07,
        mlm_probability=0.15,
        queue_size=6,
        momentum=0.995,
        alpha=0.4,
        bert_config=dict(
            model_type="bert",
            hidden_act=("gelu", "relu", "gelu_new")[variant],
            hidden_size=sizes.text_width,
            intermediate_size=sizes.text_mlp,
            layer_norm_eps=1e-12,
            max_position_embeddings=sizes.length,
            num_attention_heads=sizes.text_heads,
            num_hidden_layers=sizes.text_depth + FUSED[variant],
            type_vocab_size=2,
            vocab_size=sizes.vocabulary,
            fusion_layer=sizes.text_depth,
            encoder_width=sizes.image_width,
        ),
    )


def image_tower(variant):
    """DeiT's image tower, and all of its tokens behind the final norm."""
    import torch
    from torch import nn

    sizes = SIZES[variant]
    width, heads = sizes.image_width, sizes.image_width // 8

    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

        def forward(self, x):
            parts = self.qkv(x).unflatten(-1, (3, heads, width // heads)).unbind(2)
            query, key, value = (part.transpose(1, 2) for part in parts)
            weights = (query @ key.transpose(-1, -2) * (width // heads) ** -0.5).softmax(-1)
            return self.proj((weights @ value).transpose(1, 2).flatten(2))

    class Mlp(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1 = nn.Linear(width, sizes.image_mlp)
            self.fc2 = nn.Linear(sizes.image_mlp, width)

        def forward(self, x):
            return self.fc2(nn.functional.gelu(self.fc1(x)))

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm1, self.norm2 = (nn.LayerNorm(width, eps=1e-6) for _ in range(2))
            self.attn, self.mlp = Attention(), Mlp()

        def forward(self, x):
            x = x + self.attn(self.norm1(x))
            return x + self.mlp(self.norm2(x))

    class VisionTransformer(nn.Module):
        def __init__(self):
            super().__init__()
            patch, count = sizes.patch_size, (sizes.image_size // sizes.patch_size) ** 2
            self.cls_token = nn.Parameter(torch.randn(1, 1, width))
            self.pos_embed = nn.Parameter(torch.randn(1, count + 1, width))
            self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, width, patch, patch)})
            self.blocks = nn.ModuleList([Block() for _ in range(sizes.image_depth)])
            self.norm = nn.LayerNorm(width, eps=1e-6)

        def forward(self, image):
            x = self.patch_embed["proj"](image).flatten(2).transpose(1, 2)
            x = torch.cat([self.cls_token.expand(len(x), 1, width), x], dim=1) + self.pos_embed
            for block in self.blocks:
                x = block(x)
            return self.norm(x)

    return VisionTransformer()


def text_encoder(variant):
    """BERT whose layers from `fusion_layer` on attend to an image, with a head for masked words
    where it is of the pretrained model."""
    from torch import nn
    from transformers import BertConfig
    from transformers.models.bert import modeling_bert

    settings = settings_of(variant)["bert_config"]
    fusion_layer, image_width = settings.pop("fusion_layer"), settings.pop("encoder_width")
    config = BertConfig(**settings, attn_implementation="eager")
    crossing = BertConfig(
        **settings, attn_implementation="eager", is_decoder=True, add_cross_attention=True
    )

    def layer(number):
        if number < fusion_layer:
            return modeling_bert.BertLayer(config)
        made = modeling_bert.BertLayer(crossing)
        for name in ("key", "value"):
            linear = nn.Linear(image_width, config.hidden_size)
            setattr(made.crossattention.self, name, linear)
        return made

    class Bert(nn.Module):
        def __init__(self):
            super().__init__()
            self.embeddings = modeling_bert.BertEmbeddings(config)
            layers = nn.ModuleList([layer(i) for i in range(config.num_hidden_layers)])
            self.encoder = nn.ModuleDict({"layer": layers})

        def text(self, ids, hidden):
            x = self.embeddings(input_ids=ids)
            for layer in self.encoder["layer"][:fusion_layer]:
                x = layer(x, hidden)
            return x

        def fuse(self, x, hidden, image):
            for layer in self.encoder["layer"][fusion_layer:]:
                x = layer(x, hidden, image, None)
            return x

    if variant == 1:  # of the model of retrieval
        return Bert()
    head = modeling_bert.BertOnlyMLMHead(config)
    bert = Bert()
    head.predictions.decoder.weight = bert.embeddings.word_embeddings.weight
    head.predictions.decoder.bias = head.predictions.bias
    return nn.ModuleDict({"bert": bert, "cls": head})


def build(variant):
    import torch
    from torch import nn

    sizes = SIZES[variant]

    class Albef(nn.Module):
        def __init__(self):
            super().__init__()
            self.variant = variant
            for end in ("", "_m"):
                setattr(self, f"visual_encoder{end}", image_tower(variant))
                setattr(self, f"text_encoder{end}", text_encoder(variant))
                vision = nn.Linear(sizes.image_width, sizes.embedding)
                setattr(self, f"vision_proj{end}", vision)
                text = nn.Linear(sizes.text_width, sizes.embedding)
                setattr(self, f"text_proj{end}", text)
            self.temp = nn.Parameter(torch.tensor(0.2))
            self.itm_head = nn.Linear(sizes.text_width, 2)
            for name in ("image_queue", "text_queue"):
                self.register_buffer(name, torch.randn(sizes.embedding, 6))
            self.register_buffer("queue_ptr", torch.zeros(1, dtype=torch.long))

        def forward(self, image, text, mask):
            hidden = -1e4 * (1.0 - mask[:, None, None].float())
            bert = self.text_encoder if variant == 1 else self.text_encoder["bert"]
            images, texts = self.visual_encoder(image), bert.text(text, hidden)
            return images, texts, bert.fuse(texts, hidden, images)

    return perturb(Albef(), variant)


def save(model, folder):
    from safetensors.torch import save_file

    # of the momentum model only some, for a small file
    left_out = re.compile(r"(visual|text)_encoder_m\..*(blocks|layer|word_embeddings|decoder)")
    tensors = {
        name: value.clone()
        for name, value in model.state_dict().items()
        if not left_out.match(name)
    }
    save_file(tensors, folder / "model.safetensors")
    write_json(folder / "config.json", settings_of(model.variant))


def inputs(variant, rng):
    text, mask = draw_texts(SIZES[variant], rng)
    image = draw_images(SIZES[variant], rng)
    return dict(image=image, **draw_masked(dict(text=text, text_mask=mask), rng))


def outputs(model, inputs):
    import torch
    from torch.nn.functional import cross_entropy, normalize

    mask = torch.from_numpy(inputs["text_mask"])
    text, masked = (torch.from_numpy(inputs[name]).long() for name in ("text", "masked"))
    with torch.no_grad():
        images, texts, fused = model(torch_images(inputs), text, mask)
        image = normalize(model.vision_proj(images[:, 0]), dim=-1)
        words = normalize(model.text_proj(texts[:, 0]), dim=-1)
        similar, own = image @ words.T / model.temp, torch.arange(len(image))
        found = dict(
            image_tokens=images,
            tokens=texts,
            fused=fused,
            image_embedding=image,
            text_embedding=words,
            contrastive_loss=(cross_entropy(similar, own) + cross_entropy(similar.T, own)) / 2,
            matching=model.itm_head(fused[:, 0]),
        )
        if model.variant != 1:
            logits = model.text_encoder["cls"](model(torch_images(inputs), masked, mask)[2])
            labels = torch_labels(inputs["text"], inputs["chosen"])
            loss = cross_entropy(logits.flatten(0, 1), labels.flatten())
            found |= dict(logits=logits, loss=loss)
    found = numbers(**found)
    words = {
        name: seen(found[name], inputs) for name in ("tokens", "fused", "logits") if name in found
    }
    return found | words


def ours(model, variables, inputs):
    from vlp_jax import losses

    def computed(module, image, text, mask):
        images, texts = module.model.encode_image(image), module.model.encode_text(text, mask)
        fused = module.model.fuse(images, texts, False)
        matching = module.objectives["matching"].logits(module.model, images, texts)
        return dict(
            image_tokens=images.tokens,
            tokens=seen(texts.tokens, inputs),
            fused=seen(fused.tokens, inputs),
            matching=matching,
        )

    arrays = inputs["image"], inputs["text"], inputs["text_mask"]
    found = model.module.apply(variables, *arrays, method=computed)
    image, text = model.embed(variables, *arrays)
    temperature = variables["params"]["objectives_contrastive"]["temperature"]
    found |= dict(
        image_embedding=image,
        text_embedding=text,
        contrastive_loss=losses.softmax_contrastive(image, text, 1.0 / temperature),
    )
    if "words" not in model.config.objectives:
        return found
    return found | vilt_masked.ours(model, variables, inputs)
