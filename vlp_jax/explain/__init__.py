"""Heat maps that explain a score of an image and a text: attention, gradients and occlusion."""
