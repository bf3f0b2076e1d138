"""Which Arrow types can be images, captions and metadata. PyArrow is imported when one is asked about."""

from typing import Any


def is_image(kind: Any) -> bool:
    """Whether a `pyarrow.DataType` is binary, or a struct with a binary field `bytes`."""
    from pyarrow import types

    if types.is_struct(kind):
        return any(field.name == "bytes" and is_image(field.type) for field in kind)
    return types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind)


def is_text(kind: Any) -> bool:
    """Whether a type is text or a list of text; a column of nothing but nulls may be meant as either."""
    from pyarrow import types

    if types.is_list(kind) or types.is_large_list(kind) or types.is_dictionary(kind):
        return is_text(kind.value_type)
    return types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind) or types.is_null(kind)


def holds_bytes(kind: Any) -> bool:
    """Whether there are binary values in a type, however deep."""
    from pyarrow import types

    if types.is_nested(kind):
        return any(holds_bytes(kind.field(place).type) for place in range(kind.num_fields))
    return types.is_fixed_size_binary(kind) or is_image(kind)


def plain(value: Any) -> Any:
    """A value as JSON can hold it."""
    if isinstance(value, dict):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value if isinstance(value, str | int | float | None) else str(value)
