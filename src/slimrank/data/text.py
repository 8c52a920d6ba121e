"""Text to token ids, by a tokenizer that travels with the model: WordPiece, from a `tokenizer.json`.

A row's ids stand at the front, with the tokens of beginning and end around them; 0 is padding. Work is bounded: of a
text only the first `CHARACTERS` a token are looked at. `TextCodec.pruned` is the tokenizer of a smaller vocabulary, and
`TextCodec.translated` brings ids from one to the other without the text. The library `tokenizers` is imported where it
is used. Left out: training a tokenizer, and models other than WordPiece.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from slimrank.config import InputError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TOKENIZER_FILE = "tokenizer.json"
CHARACTERS = 64  # of a text, looked at for each token that is kept
LONGEST_WORD = 100  # characters of a word from which on WordPiece gives the unknown token
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")  # of a pruned vocabulary, in the order of their ids
Ids = NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class TextCodec:
    """A WordPiece tokenizer and how many tokens of a text are kept.

    Attributes:
        content: what stands in `tokenizer.json`.
        max_length: tokens kept of a text, those of beginning and end among them.
    """

    content: bytes
    max_length: int
    _tokenizer: Tokenizer = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_tokenizer", _made(self.content, self.max_length))

    def __deepcopy__(self, memo: dict[int, Any]) -> TextCodec:
        """Itself: nothing of it changes, and models that are copied share it."""
        return self

    @classmethod
    def read(cls, path: Path, max_length: int) -> TextCodec:
        """The tokenizer in a file.

        Raises:
            InputError: no such file, or it holds no WordPiece tokenizer.
        """
        try:
            content = path.read_bytes()
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {error.strerror}") from None
        return cls(content, max_length)

    @property
    def size(self) -> int:
        """Number of ids: the largest and one, since a vocabulary may leave some out."""
        return max(self.vocabulary.values()) + 1

    @property
    def vocabulary(self) -> dict[str, int]:
        """The id of every token."""
        return dict(self._tokenizer.get_vocab())

    def encode(
        self, texts: Sequence[Any], pairs: Sequence[Any] | None = None, *, names: tuple[str, str] = ("text", "pair")
    ) -> tuple[Ids, int]:
        """Ids int32 [N, L] of texts (with `pairs`, of two texts each), L being the longest, and how many were cut.

        An empty text is the two tokens of beginning and end.

        Raises:
            InputError: a text is neither a string nor bytes in UTF-8; says in which of the columns `names`, and row.
        """
        limit = CHARACTERS * self.max_length
        whole = [_text(value, names[0], row, limit) for row, value in enumerate(texts)]
        rows: list[Any] = [text for text, _ in whole]
        cut = [is_cut for _, is_cut in whole]
        if pairs is not None:
            others = [_text(value, names[1], row, limit) for row, value in enumerate(pairs)]
            rows = list(zip(rows, (text for text, _ in others), strict=True))
            cut = [one or other for one, (_, other) in zip(cut, others, strict=True)]
        found = self._tokenizer.encode_batch_fast(rows)
        ids = np.zeros((len(rows), max((len(each.ids) for each in found), default=0)), np.int32)
        for row, each in enumerate(found):
            ids[row, : len(each.ids)] = each.ids
            cut[row] = cut[row] or bool(each.overflowing)
        return ids, sum(cut)

    def pruned(self, kept: Collection[str]) -> tuple[TextCodec, NDArray[np.int64]]:
        """The tokenizer of the special tokens and `kept`, in that order, and what the id of each was before.

        A word whose token is gone is cut into smaller pieces, down to its characters where these are kept.

        Raises:
            InputError: a special token is missing, or `kept` holds no token of the vocabulary.
        """
        old = self.vocabulary
        missing = [token for token in SPECIAL if token not in old]
        unknown = [token for token in kept if token not in old]
        if missing or unknown:
            raise InputError(f"the vocabulary holds no token {(missing + unknown)[0]!r}")
        order = [*SPECIAL, *(token for token in dict.fromkeys(kept) if token not in SPECIAL)]
        record = json.loads(self.content)
        new = {token: place for place, token in enumerate(order)}
        record["model"]["vocab"] = new
        record["added_tokens"] = [
            {**each, "id": new[each["content"]]} for each in record.get("added_tokens", ()) if each["content"] in new
        ]
        _renumber(record.get("post_processor"), new)
        content = json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode()
        return TextCodec(content, self.max_length), np.array([old[token] for token in order], np.int64)

    def translated(self, ids: Ids, to: TextCodec) -> Ids:
        """`ids` [N, L] of this tokenizer as `to`, a pruned one, would have given them: words are put together and cut
        anew. A text that was cut may end earlier.
        """
        names = {place: token for token, place in self.vocabulary.items()}
        vocabulary, prefix = to.vocabulary, "##"
        rows = []
        pieces_of: dict[str, list[int]] = {}
        for row in ids.tolist():
            made: list[int] = []
            for word in _words([names[each] for each in row if each], prefix):
                if word not in pieces_of:
                    pieces_of[word] = [vocabulary[word]] if word in SPECIAL else word_pieces(word, vocabulary, prefix)
                made += pieces_of[word]
            rows.append(made if len(made) <= to.max_length else [*made[: to.max_length - 1], made[-1]])
        found = np.zeros((len(rows), max(map(len, rows), default=0)), np.int32)
        for place, made in enumerate(rows):
            found[place, : len(made)] = made
        return found


def word_pieces(word: str, vocabulary: Mapping[str, int], prefix: str = "##") -> list[int]:
    """The longest token that the word begins with, then the same for the rest; the unknown token where there is none.

    >>> word_pieces("unwell", {"[UNK]": 1, "un": 2, "well": 3, "##well": 4, "##w": 5})
    [2, 4]
    """
    found, start = [], 0
    while start < len(word):
        stop = len(word)
        while stop > start and (prefix if start else "") + word[start:stop] not in vocabulary:
            stop -= 1
        if stop == start or len(word) > LONGEST_WORD:
            return [vocabulary["[UNK]"]]
        found.append(vocabulary[(prefix if start else "") + word[start:stop]])
        start = stop
    return found


def _words(tokens: Sequence[str], prefix: str) -> list[str]:
    """Tokens put together to words; special tokens stay alone."""
    words: list[str] = []
    for token in tokens:
        if token.startswith(prefix) and token != prefix and words and words[-1] not in SPECIAL:
            words[-1] += token.removeprefix(prefix)
        else:
            words.append(token)
    return words


def _text(value: Any, name: str, row: int, limit: int) -> tuple[str, bool]:
    """The first `limit` characters of a text, and whether there were more; missing is empty."""
    if value is None:
        return "", False
    if isinstance(value, bytes):
        piece = value[: 4 * limit + 4]  # no character takes more than 4 bytes
        try:
            text = piece.decode()
        except UnicodeDecodeError as error:
            if len(piece) == len(value) or error.start < len(piece) - 3:
                raise InputError(f"field {name!r}: row {row} is not UTF-8 (byte {error.start})") from None
            text = piece[: error.start].decode()
        return text[:limit], len(value) > len(piece) or len(text) > limit
    if not isinstance(value, str):
        raise InputError(f"field {name!r}: row {row} holds a {type(value).__name__}, must be text")
    text = value[:limit]
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"field {name!r}: row {row} is not UTF-8 (character {error.start})") from None
    return text, len(value) > limit


def _made(content: bytes, max_length: int) -> Tokenizer:
    """The tokenizer in `content`, without padding, that keeps `max_length` tokens."""
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise InputError("text needs the package tokenizers: pip install 'slimrank[text]'") from None
    try:
        kind = json.loads(content)["model"]["type"]
        tokenizer = Tokenizer.from_buffer(content)
    except Exception as error:  # the library raises bare ones
        raise InputError(f"{TOKENIZER_FILE}: no tokenizer: {error}") from None
    if kind != "WordPiece":
        raise InputError(f"{TOKENIZER_FILE}: the model is {kind}. Allowed: WordPiece.")
    if tokenizer.token_to_id("[PAD]") != 0:
        raise InputError(f"{TOKENIZER_FILE}: [PAD] has the id {tokenizer.token_to_id('[PAD]')}, must be 0")
    special = tokenizer.num_special_tokens_to_add(False)
    if max_length <= special:
        raise InputError(f"max_length is {max_length}, must leave room beside {special} special tokens")
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length)
    return tokenizer


def _renumber(processor: Any, new: Mapping[str, int]) -> None:
    """Give the special tokens of a post-processor their new ids, in place."""
    for token in ((processor or {}).get("special_tokens") or {}).values():
        token["ids"] = [new[each] for each in token["tokens"]]
    for key in ("sep", "cls"):
        if isinstance((processor or {}).get(key), list):
            processor[key] = [processor[key][0], new[processor[key][0]]]
