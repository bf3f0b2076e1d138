"""Linen modules: layers, towers, and their composition. No losses.

The names in `__all__` are imported at their first use.
"""

from typing import TYPE_CHECKING

from vlp_jax.lazy import lazy_names

if TYPE_CHECKING:
    from vlp_jax.models.decoder.recurrent import RecurrentDecoder as RecurrentDecoder
    from vlp_jax.models.decoder.transformer import TextDecoder as TextDecoder
    from vlp_jax.models.layers.transformer import Encoding as Encoding
    from vlp_jax.models.options import LayerOptions as LayerOptions
    from vlp_jax.models.options import Precision as Precision
    from vlp_jax.models.text.recurrent import BagOfWords as BagOfWords
    from vlp_jax.models.text.recurrent import RecurrentText as RecurrentText
    from vlp_jax.models.text.transformer import TextTransformer as TextTransformer
    from vlp_jax.models.vision.inception import Inception as Inception
    from vlp_jax.models.vision.resnet import ClipResNet as ClipResNet
    from vlp_jax.models.vision.resnet import ResNet as ResNet
    from vlp_jax.models.vision.vgg import Vgg as Vgg
    from vlp_jax.models.vision.vit import ViT as ViT
    from vlp_jax.models.vision_language import VisionLanguageModel as VisionLanguageModel

__all__ = [
    "BagOfWords",
    "ClipResNet",
    "Encoding",
    "Inception",
    "LayerOptions",
    "Precision",
    "RecurrentDecoder",
    "RecurrentText",
    "ResNet",
    "TextDecoder",
    "TextTransformer",
    "Vgg",
    "ViT",
    "VisionLanguageModel",
]
_PLACES = {
    "BagOfWords": "vlp_jax.models.text.recurrent:BagOfWords",
    "ClipResNet": "vlp_jax.models.vision.resnet:ClipResNet",
    "Encoding": "vlp_jax.models.layers.transformer:Encoding",
    "Inception": "vlp_jax.models.vision.inception:Inception",
    "LayerOptions": "vlp_jax.models.options:LayerOptions",
    "Precision": "vlp_jax.models.options:Precision",
    "RecurrentDecoder": "vlp_jax.models.decoder.recurrent:RecurrentDecoder",
    "RecurrentText": "vlp_jax.models.text.recurrent:RecurrentText",
    "ResNet": "vlp_jax.models.vision.resnet:ResNet",
    "TextDecoder": "vlp_jax.models.decoder.transformer:TextDecoder",
    "TextTransformer": "vlp_jax.models.text.transformer:TextTransformer",
    "Vgg": "vlp_jax.models.vision.vgg:Vgg",
    "ViT": "vlp_jax.models.vision.vit:ViT",
    "VisionLanguageModel": "vlp_jax.models.vision_language:VisionLanguageModel",
}
__getattr__, __dir__ = lazy_names(__name__, _PLACES)
