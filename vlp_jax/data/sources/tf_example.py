"""tf.train.Example records without TensorFlow: the wire format of TFDS, declared in a few lines of
protobuf.

`tensorflow_datasets.proto.tf_example_pb2` is the same message, but importing it imports all of
TFDS.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory

Values = list[bytes] | list[int] | list[float]


def _example_class() -> Any:
    types = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name="vlp_jax/example.proto", package="vlp_jax", syntax="proto3"
    )

    def field(owner, name, number, kind, of=None, repeated=False):
        label = types.LABEL_REPEATED if repeated else types.LABEL_OPTIONAL
        added = owner.field.add(name=name, number=number, type=kind, label=label)
        if of:
            added.type_name = f".vlp_jax.{of}"
        return added

    for name, kind in (
        ("Bytes", types.TYPE_BYTES),
        ("Floats", types.TYPE_FLOAT),
        ("Integers", types.TYPE_INT64),
    ):
        field(file.message_type.add(name=name), "value", 1, kind, repeated=True)
    feature = file.message_type.add(name="Feature")
    feature.oneof_decl.add(name="kind")
    for number, (name, of) in enumerate(
        (("bytes", "Bytes"), ("floats", "Floats"), ("integers", "Integers")), start=1
    ):
        field(feature, name, number, types.TYPE_MESSAGE, of).oneof_index = 0
    features = file.message_type.add(name="Features")
    entry = features.nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    field(entry, "key", 1, types.TYPE_STRING)
    field(entry, "value", 2, types.TYPE_MESSAGE, "Feature")
    field(features, "feature", 1, types.TYPE_MESSAGE, "Features.FeatureEntry", repeated=True)
    field(file.message_type.add(name="Example"), "features", 1, types.TYPE_MESSAGE, "Features")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("vlp_jax.Example"))


_Example = _example_class()


def encode_example(fields: Mapping[str, Sequence]) -> bytes:
    """One record from lists of bytes, str, int or float. The encoding is deterministic.

    Raises:
      TypeError: if values have another type, or several types.
    """
    example = _Example()
    for name, values in fields.items():
        feature = example.features.feature[name]
        if not values:
            feature.bytes.SetInParent()
        elif all(isinstance(value, bytes | str) for value in values):
            feature.bytes.value.extend(
                value.encode() if isinstance(value, str) else value for value in values
            )
        elif all(isinstance(value, int) for value in values):
            feature.integers.value.extend(values)
        else:
            feature.floats.value.extend(values)
    return example.SerializeToString(deterministic=True)


def decode_example(record: bytes) -> dict[str, Values]:
    """The lists in a record, by field.

    Raises:
      ValueError: if it is not a tf.train.Example.
    """
    try:
        features = _Example.FromString(record).features.feature
    except message.DecodeError as error:
        raise ValueError(f"not a tf.train.Example: {error}") from error
    decoded = {}
    for name, feature in features.items():
        kind = feature.WhichOneof("kind")
        decoded[name] = list(getattr(feature, kind).value) if kind else []
    return decoded
