"""Image towers."""

from typing import TYPE_CHECKING

from vlp_jax.lazy import lazy_names

if TYPE_CHECKING:
    from vlp_jax.models.vision.convnext import ConvNext as ConvNext
    from vlp_jax.models.vision.efficientnet import EfficientNet as EfficientNet
    from vlp_jax.models.vision.inception import Inception as Inception
    from vlp_jax.models.vision.resnet import ClipResNet as ClipResNet
    from vlp_jax.models.vision.resnet import ResNet as ResNet
    from vlp_jax.models.vision.vgg import Vgg as Vgg
    from vlp_jax.models.vision.vit import ViT as ViT

__all__ = ["ClipResNet", "ConvNext", "EfficientNet", "Inception", "ResNet", "Vgg", "ViT"]
_PLACES = {
    "ClipResNet": "vlp_jax.models.vision.resnet:ClipResNet",
    "ConvNext": "vlp_jax.models.vision.convnext:ConvNext",
    "EfficientNet": "vlp_jax.models.vision.efficientnet:EfficientNet",
    "Inception": "vlp_jax.models.vision.inception:Inception",
    "ResNet": "vlp_jax.models.vision.resnet:ResNet",
    "Vgg": "vlp_jax.models.vision.vgg:Vgg",
    "ViT": "vlp_jax.models.vision.vit:ViT",
}
__getattr__, __dir__ = lazy_names(__name__, _PLACES)
