"""Packer: rows become sequences of one length, or examples that stand alone."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from lmoe_studio.sources.rows import TextRow
from lmoe_studio.training.examples import IGNORED, Example, Examples
from lmoe_studio.training.row_files import RowFiles

_TOKENS_A_CHARACTER = 0.2  # a low guess, from which it is said how many texts to pick at first
_EMPTY = Example([], [], [])


@dataclass
class Packer:
    """Packs examples into sequences of one length.

    Texts are packed end to end and cut where a sequence is full; what was cut off goes on in the next,
    after what the tokenizer puts before a text. Pairs and conversations stay whole: a sequence holds
    as many as fit.
    """

    examples: Examples
    length: int
    dropped: Counter[str]
    skipped: frozenset[int] = frozenset()
    """Hashes of rows that are held out: a copy of one is not trained on."""

    def pack(self, files: RowFiles, order: Sequence[int], wanted: int) -> list[Example]:
        """As many sequences as wanted, or all there are, from the rows in this order."""
        for picked in self._growing(order, files, wanted):
            noted = Counter[str]()
            found = list(islice(self._sequences(files.pick(picked), noted), wanted + 1))
            # The last sequence may be a rest that further texts would have filled.
            if len(found) > wanted or len(picked) == len(order):
                self.dropped += noted
                return found[:wanted]
        return []

    def alone(self, files: RowFiles, order: Sequence[int], wanted: int) -> list[Example]:
        """Examples that are not packed, with as many tokens as the sequences wanted would have.

        Of each the beginning, as `Studio.evaluate` reads it; only where there is too little of that,
        what follows in longer texts too.
        """
        room, examples = wanted * self.length, list[Example]()
        for picked in self._growing(order, files, wanted):
            examples = [self.examples.measured(row) for row in files.pick(picked)]
            if sum(min(self.length, len(one)) for one in examples) >= room:
                break
        found = list[Example]()
        while examples:
            parts = [self._parted(example) for example in examples]
            for part, _ in parts:
                if room > 0 and part.learned:
                    found.append(part)
                    room -= len(part)
            examples = [rest for _, rest in parts if room > 0 and rest.learned]
        return found

    def _growing(
        self, order: Sequence[int], files: RowFiles, wanted: int
    ) -> Iterator[Sequence[int]]:
        """First rows of an order that may be enough, then more, at last all."""
        mean = max(1.0, files.characters / max(1, files.count))
        guess = int(wanted * self.length / (mean * _TOKENS_A_CHARACTER)) + 8
        while guess < len(order):
            yield order[:guess]
            guess *= 2
        yield order

    def _sequences(self, rows: Iterable[TextRow], noted: Counter[str]) -> Iterator[Example]:
        texts, whole = _EMPTY, _EMPTY
        for row in rows:
            if hash(row.parts) in self.skipped:
                noted["copy of a held-out text"] += 1
                continue
            noted["special tokens read as characters"] += self.examples.special_tokens(row)
            example = self.examples.of(row)
            if row.kind == "text":
                texts = example.after(texts)
                while len(texts) >= self.length:
                    part, texts = self._parted(texts)
                    yield part
            elif (cut := self._cut(example, noted)) is not None:
                if len(whole) + len(cut) > self.length:
                    yield whole
                    whole = _EMPTY
                # Its first token is not to be predicted from the example before it.
                whole = cut.unforeseen().after(whole)
        yield from (rest for rest in (whole, texts) if rest.learned)

    def _parted(self, example: Example) -> tuple[Example, Example]:
        """What fits a sequence, and what goes on in the next."""
        part, rest = example.part(0, self.length), example.part(self.length)
        opening = self.examples.opening
        if not rest or not opening or rest.ids[: len(opening)] == opening:
            return part, rest
        # Nothing foretells the middle of a text from its opening alone.
        begun = Example(opening, [IGNORED] * len(opening), [-1] * len(opening))
        return part, rest.unforeseen().after(begun)

    def _cut(self, example: Example, noted: Counter[str]) -> Example | None:
        cut = example.part(0, self.length)
        if len(cut) < len(example):
            noted["response cut" if cut.learned else "prompt too long"] += 1
        elif not cut.learned:
            noted["nothing to learn"] += 1
        return cut if cut.learned else None
