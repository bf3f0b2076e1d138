"""METEOR's alignment of two texts: which word of one matches which word of the other."""

import dataclasses
from collections.abc import Callable, Sequence

BEAMS = 40  # partial alignments that are kept


@dataclasses.dataclass(frozen=True)
class Match:
    """A word of the candidate that matches a word of the reference.

    Attributes:
      place: index of the candidate's word.
      exact: whether the words are equal; else their stems are.
    """

    place: int
    exact: bool


@dataclasses.dataclass(frozen=True)
class Alignment:
    """Matches of the words of a reference, up to a word of it.

    Attributes:
      matches: the match of each word so far, or None.
      used: the candidate's words that are matched.
      exact: number of exact matches.
      chunks: number of closed sequences of matches that are adjacent in both texts.
      distance: sum of the distances that the search has counted.
      end: the candidate's word after the last match; -1 where the last word has no match.
    """

    matches: tuple[Match | None, ...] = ()
    used: frozenset[int] = frozenset()
    exact: int = 0
    chunks: int = 0
    distance: int = 0
    end: int = -1

    @property
    def rank(self) -> tuple[int, int, int]:
        """Sorts the best alignment first: METEOR's search counts exact matches only."""
        return (-self.exact, self.chunks, self.distance)

    def with_match(self, match: Match, distance: int) -> "Alignment":
        """The alignment with a match of the next word."""
        return Alignment(
            matches=(*self.matches, match),
            used=self.used | {match.place},
            exact=self.exact + match.exact,
            chunks=self.chunks + (self.end not in (-1, match.place)),
            distance=self.distance + distance,
            end=match.place + 1,
        )

    def without_match(self, distance: int = 0) -> "Alignment":
        """The alignment with no match of the next word."""
        return dataclasses.replace(
            self,
            matches=(*self.matches, None),
            chunks=self.chunks + (self.end != -1),
            distance=self.distance + distance,
            end=-1,
        )


def possible_matches(
    candidate: Sequence[str], reference: Sequence[str], stem: Callable[[str], str]
) -> list[list[Match]]:
    """For each word of the reference the candidate's equal words, then those of equal stem."""
    stems = [stem(word) for word in candidate]
    return [
        [Match(place, True) for place, other in enumerate(candidate) if other == word]
        + [
            Match(place, False)
            for place, other in enumerate(candidate)
            if other != word and stems[place] == stem(word)
        ]
        for word in reference
    ]


def aligned(
    candidate: Sequence[str], reference: Sequence[str], stem: Callable[[str], str]
) -> Alignment:
    """The alignment with most exact matches, then fewest chunks, then the smallest distance, by
    beam search from the reference's first word to its last.

    A match counts as certain where neither of its words has another one. The distance of an
    alignment includes that of the alternatives tried before it, as in METEOR 1.5, so that equal
    alignments are chosen as there.

    Args:
      candidate: words of the candidate.
      reference: words of the reference.
      stem: the stem of a word.
    """
    same = list(candidate) == list(reference)
    possible = possible_matches(candidate, reference, (lambda word: word) if same else stem)
    times = [sum(match.place == place for found in possible for match in found)
             for place in range(len(candidate))]  # fmt: skip
    certain = [len(found) == 1 and times[found[0].place] == 1 for found in possible]
    paths = [Alignment()]
    for place, found in enumerate(possible):
        paths.sort(key=lambda path: path.rank)
        following = []
        for path in paths[:BEAMS]:
            if certain[place]:
                (match,) = found
                following.append(path.with_match(match, abs(place - match.place)))
            else:
                following += continuations(path, found, place)
        paths = following
    closed = [dataclasses.replace(path, chunks=path.chunks + (path.end != -1)) for path in
              sorted(paths, key=lambda path: path.rank)[:BEAMS]]  # fmt: skip
    return min(closed, key=lambda path: path.rank)


def continuations(path: Alignment, found: Sequence[Match], place: int) -> list[Alignment]:
    """The alignment with each possible match of the word at `place`, and with none."""
    following, distance = [], 0
    for match in found:
        if match.place not in path.used:
            following.append(path.with_match(match, distance))
            distance += abs(place - match.place)
    return [*following, path.without_match(distance)]
