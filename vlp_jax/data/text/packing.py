"""Several captions in a row of tokens: a window of consecutive examples has a fixed number of rows, and its captions find a place
there or are left out. Which, is decided by the window alone."""

import numpy as np


def pack(ids: np.ndarray, mask: np.ndarray, window: int, rows: int, padding: int) -> dict[str, np.ndarray]:
    """First fit, in the order of the examples: each caption goes behind the last one of the first row that has room for it.

    ids: int32 [b, L]; mask: bool [b, L], each row's tokens in front; b is a number of whole windows.
    Returns: text int32 and text_mask bool [b / window, rows, L]; segment int32 of that shape, 1 + the place in its window of the
    example whose caption a token is of, 0 for padding; dropped bool [b], captions for which no row had room.
    """
    count, length = len(ids) // window, ids.shape[1]
    text = np.full((count, rows, length), padding, np.int32)
    segment, dropped = np.zeros(text.shape, np.int32), np.zeros(len(ids), bool)
    used = np.zeros((count, rows), np.int64)
    for example, tokens in enumerate(mask.sum(axis=1)):
        group, place = divmod(example, window)
        open_rows = np.flatnonzero(used[group] + tokens <= length)
        if not len(open_rows):
            dropped[example] = True
            continue
        row = open_rows[0]
        span = slice(used[group, row], used[group, row] + tokens)
        text[group, row, span], segment[group, row, span] = ids[example, :tokens], place + 1
        used[group, row] += tokens
    return {"text": text, "text_mask": segment > 0, "segment": segment, "dropped": dropped}
