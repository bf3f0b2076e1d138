"""Public checkpoints of other libraries, read into our models and written from them.

A *format* (`formats/`) is a layout of files: a Hugging Face folder, an OpenCLIP folder, an npz of
big_vision. A *family* (`families/`) is an architecture in one format: rules from its tensors to our
parameters, and the settings of its config under both names.
"""
