"""Which Arrow types can be images, captions and metadata. PyArrow is imported on first use."""

import json
from typing import Any


def is_image(kind: Any) -> bool:
    """Whether a `pyarrow.DataType` is binary, or a struct with a binary field `bytes`."""
    from pyarrow import types

    if types.is_struct(kind):
        return any(field.name == "bytes" and is_image(field.type) for field in kind)
    if types.is_dictionary(kind):
        return is_image(kind.value_type)
    return types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind)


def is_path(kind: Any) -> bool:
    """Whether a type is text, or a struct with a text field `path`: either may name an image
    file."""
    from pyarrow import types

    if types.is_struct(kind):
        return any(field.name == "path" and is_path(field.type) for field in kind)
    return is_text(kind) and not is_list(kind) and not types.is_null(kind)


def is_list(kind: Any) -> bool:
    """Whether a type is a list, of variable or fixed length."""
    from pyarrow import types

    return (
        types.is_list(kind)
        or types.is_large_list(kind)
        or types.is_fixed_size_list(kind)
        or types.is_list_view(kind)
        or types.is_large_list_view(kind)
    )


def is_text(kind: Any) -> bool:
    """Whether a type is text, a list of text or a dictionary of text.

    The null type counts as text, because a column of nulls may be meant as any of them.
    """
    from pyarrow import types

    if is_list(kind) or types.is_dictionary(kind):
        return is_text(kind.value_type)
    return (
        types.is_string(kind)
        or types.is_large_string(kind)
        or types.is_string_view(kind)
        or types.is_null(kind)
    )


def has_fields(kind: Any) -> bool:
    """Whether a type is a struct or a map, or a list of them."""
    from pyarrow import types

    return (
        has_fields(kind.value_type)
        if is_list(kind)
        else types.is_struct(kind) or types.is_map(kind)
    )


def holds_bytes(kind: Any) -> bool:
    """Whether a type contains binary values at any depth."""
    from pyarrow import types

    if types.is_nested(kind):
        return any(holds_bytes(kind.field(place).type) for place in range(kind.num_fields))
    return types.is_fixed_size_binary(kind) or is_image(kind)


def plain(value: Any) -> Any:
    """A value converted to what JSON can hold."""
    if isinstance(value, dict):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value if isinstance(value, str | int | float | None) else str(value)


def class_names(metadata: bytes) -> dict[str, Any]:
    """Class names by column, from the metadata that Hugging Face `datasets` keeps in a schema.

    Args:
      metadata: JSON of the key `huggingface` in the schema's metadata.

    Returns: for each column with class labels a list of names, or nested dictionaries of such lists
      by field where the column is nested. Empty where the metadata cannot be read.
    """
    try:
        features = json.loads(metadata)["info"]["features"]
        return {
            column: names for column, feature in features.items() if (names := _names_in(feature))
        }
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError):
        return {}


def _names_in(feature: Any) -> Any:
    """The names of a class label, or those of a feature's fields by name.

    A list feature counts as its items.
    """
    if isinstance(feature, list):
        return _names_in(feature[0]) if feature else None
    if not isinstance(feature, dict):
        return None
    if feature.get("_type") == "ClassLabel":
        names = feature.get("names")
        return list(map(str, names)) if isinstance(names, list) and names else None
    if "_type" in feature and isinstance(feature.get("feature"), dict | list):
        return _names_in(feature["feature"])
    found = {name: names for name, inner in feature.items() if (names := _names_in(inner))}
    return found or None


def with_names(value: Any, names: Any) -> Any:
    """A value with its class labels replaced by their names.

    Args:
      value: a label, a list, a dictionary, or any other value.
      names: list of names, dictionaries of them by field, or None for no class label.

    Returns: the value; None for a label without a name, such as -1 in a test split.
    """
    if isinstance(value, list | tuple):
        return [with_names(item, names) for item in value]
    if isinstance(names, dict):
        return (
            {key: with_names(item, names.get(key)) for key, item in value.items()}
            if isinstance(value, dict)
            else value
        )
    if names is None or not isinstance(value, int) or isinstance(value, bool):
        return value
    return names[value] if 0 <= value < len(names) else None


def by_path(names: dict[str, Any]) -> dict[str, list[str]]:
    """The names of class labels in one level; a nested label has its path, joined by dots, as its
    key."""
    nested = {
        name: by_path(inner) if isinstance(inner, dict) else {"": inner}
        for name, inner in names.items()
    }
    return {
        f"{name}.{rest}".rstrip("."): found
        for name, inner in nested.items()
        for rest, found in inner.items()
    }
