"""Packing of several captions into one row of tokens.

A window of consecutive examples has a fixed number of rows. Each of its captions gets a place in
them or is dropped. The window alone decides which.
"""

import numpy as np


def pack(
    ids: np.ndarray, mask: np.ndarray, window: int, rows: int, padding: int
) -> dict[str, np.ndarray]:
    """First-fit packing in the order of the examples: each caption goes into the first row that has
    room for it.

    Args:
      ids: [b, L], int32, token ids; b is a multiple of the window.
      mask: [b, L], bool, padding mask; each row starts with its tokens.
      window: number of examples of a window.
      rows: number of rows of a window.
      padding: id of the padding token.

    Returns: arrays by name.
      text: [b / window, rows, L], int32, token ids.
      text_mask: [b / window, rows, L], bool, padding mask.
      segment: [b / window, rows, L], int32, for each token 1 + the number of its example in the
        window, 0 for padding.
      dropped: [b], bool, captions for which no row had room.
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
