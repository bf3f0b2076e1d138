"""Random-access readers of image-text data, one module per format, selected by the registry."""
