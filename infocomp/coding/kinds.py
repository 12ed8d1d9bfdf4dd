"""Kinds of what is written: numbers, dates, names, quotations, rare words, punctuation, code, white space.

A text is cut into spans of one kind each by the rules in `RULES`, which are few and coarse: they are written out so
that a reader can disagree and change them.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

RULES = {
    "code": "A block between lines of ```; `code` in a line; a web or mail address; a <tag>; a line that assigns to "
    "one name, imports, defines, holds an operator that prose has not (==, !=, =>, ->, ::, +=, &&, ||, :=), or ends "
    "in ; { } and holds a word with ( [ or = right after it.",
    "quotation": "From an opening mark to its closing one, with all in between: “ ”, ‘ ’, « », „ “, ` ' and straight "
    "double quotes, without a blank line and of at most `quotation_characters`. Straight single quotes are no marks.",
    "date": "Day, month and year in figures (1999-01-31, 31/1/1999, 31.1.1999) or with an English month's name, which "
    "needs a day or a year beside it; the years 1500 to 2099 by themselves. Times of day are numbers.",
    "number": "Digits, with signs, currency, separators, exponent, % and ordinal ending. Numbers in words are words.",
    "name": "A capitalised word of two letters or more inside a sentence and a line; where one begins, only if the "
    "texts have it capitalised inside another and never in lower case. A word all in capitals, if never in lower case. "
    "Not I. A sentence begins after . ! ? … : but not after Mr. and the like or an initial. (German nouns would all be "
    "names.)",
    "common word": "Any other word below the decile `rare_from`. A word is letters, with hyphens and apostrophes "
    "inside; each Han or kana character is one.",
    "rare word": "Any other word from that decile on. Deciles are of running words, each spelling (case aside) in the "
    "one where the middle of its share falls, the commonest first; words of one count share a decile, a word never "
    "counted is in the tenth. The counts are those of the texts themselves unless others are given.",
    "whitespace": "Line ends, indentation and runs of spaces. A single space belongs to what follows it, as it does in "
    "byte-level tokens (`space_with_next`).",
    "punctuation": "Everything else: marks, symbols, control characters, emoji.",
}
DECILES = 10

_MONTH = (
    "(?:January|February|March|April|May|June|July|August|September|October|November|December"
    r"|(?:Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec)\b\.?)"
)
_DAY = r"\d{1,2}(?:st|nd|rd|th)?"
_FRACTIONS = "\u00b2\u00b3\u00b9\u00bc-\u00be\u2070-\u209f\u2150-\u218b"  # and powers, Roman figures: no letters
_ABBREVIATED = re.compile(r"\b(?:Mrs?|Ms|Dr|St|Prof|Rev|Capt|Col|Gen|[A-Z])\.$")
_OPERATOR = r"==|!=|=>|->|::|\+=|&&|\|\||:="
_PATTERNS = {
    "code": r"^(?:```|~~~)(?s:.*?)^(?:```|~~~)[^\S\n]*$"
    r"|(?<!\w)`[^`'\n]+`(?!\w)"
    r"|(?:(?:https?|ftp)://|www\.)[^\s<>]*[\w/]|[\w.+-]+@[\w-]+\.[\w.-]*\w|</?[a-zA-Z!][^<>\n]*>"
    r"|^[^\S\n]*(?=\S)(?:[\w.\[\]]+[^\S\n]*=[^\S\n=][^\n]*|import[^\S\n]+[\w.]+(?:[^\S\n]+as[^\S\n]+\w+)?$|from[^\S\n]+[\w.]+[^\S\n]+import\b[^\n]*"
    r"|(?:def|class|function)[^\S\n]+\w+[^\S\n]*[(:{][^\n]*|\#(?:include|define|!)[^\n]*"
    rf"|(?=[^\n]*(?:{_OPERATOR}))[^\n]*|(?=[^\n]*\w(?:[(\[]|\s?=))[^\n]*[;{{}}](?=[^\S\n]*$)|[(){{}}\[\];]+(?=[^\S\n]*$))",
    "quotation": "|".join(
        rf"(?<!\w){begin}(?:(?!\n[^\S\n]*\n){inside}){{1,QUOTED}}?{end}(?!\w)"
        for begin, inside, end in (
            ("“", "[^“”]", "”"),
            ("„", "[^„“”]", "[“”]"),
            ("«", "[^«»]", "»"),
            ("‘", "[^‘]", "’"),
            ("`", "[^`]", "'"),
            ('"', '[^"]', '"'),
        )
    ),
    "date": r"(?<![\w.,])(?:\d{4}-\d{2}-\d{2}(?:[T ]\d{2}:\d{2}(?::\d{2})?)?|\d{1,2}/\d{1,2}/(?:\d{4}|\d{2})"
    rf"|\d{{1,2}}\.\d{{1,2}}\.\d{{4}}|{_DAY}\s(?:of\s)?{_MONTH}(?:,?\s\d{{4}})?|{_MONTH}\s{_DAY}(?:,?\s\d{{4}})?"
    rf"|{_MONTH},?\s\d{{4}}|(?:1[5-9]|20)\d\ds?)(?!\w|[.,:]\d)",
    "number": rf"(?:(?<!\w)[-+−])?[$€£¥]?[\d{_FRACTIONS}]+(?:[.,:]\d+)*(?:[eE][-+]?\d+)?(?:%|(?:st|nd|rd|th)\b)?",
    "whitespace": r"\r?\n|[^\S\n]+",
}


@dataclass(frozen=True)
class Rules:
    """What may be changed of the rules. `order` is which of the kinds found by pattern are looked for, the first one
    that fits at a place wins, and one that is left out is not looked for: without "quotation", what stands between
    the marks is names, words and so on. ValueError for an unknown kind and for a decile outside 1 … 10.
    """

    order: tuple[str, ...] = ("code", "quotation", "date", "number")
    rare_from: int = 6
    quotation_characters: int = 1000
    space_with_next: bool = True

    def __post_init__(self) -> None:
        choice = ("code", "quotation", "date", "number")
        unknown = [kind for kind in self.order if kind not in choice]
        if unknown:
            raise ValueError(
                f"no pattern for the kind '{unknown[0]}'; the kinds that can be ordered are {', '.join(choice)}."
            )
        if not 1 <= self.rare_from <= DECILES:
            raise ValueError(f"rare_from must be a decile from 1 to {DECILES}, got {self.rare_from}; 6 is usual.")

    @property
    def kinds(self) -> tuple[str, ...]:
        """All kinds that spans can have, in the order of a table."""
        rare = (f"rare word, decile {decile}" for decile in range(self.rare_from, DECILES + 1))
        return ("number", "date", "name", "quotation", "common word", *rare, "punctuation", "code", "whitespace")


class Lexicon:
    """What the rules must know of whole texts: word frequencies, and which words stand in lower case or capitals.

    `counts` (word in lower case → how often) replaces the texts' own; `counted_in` says whose the counts are.
    """

    def __init__(
        self, texts: Iterable[str], counts: Mapping[str, int] | None = None, counted_in: str | None = None
    ) -> None:
        own: Counter[str] = Counter()
        self._lower: set[str] = set()
        self._inside: set[str] = set()
        for text in texts:
            for match in _word_pattern(_marks(text)).finditer(text):
                word = match.group()
                own[word.casefold()] += 1
                if word[0].islower():
                    self._lower.add(word.casefold())
                elif not word.isupper() and not _begins(text, match.start()):
                    self._inside.add(word.casefold())
        self.counted_in = counted_in or ("the texts themselves" if counts is None else "counts that were given")
        self._deciles = _deciles(own if counts is None else counts)

    def decile(self, word: str) -> int:
        """1 (the commonest tenth of running words) to 10."""
        return self._deciles.get(word.casefold(), DECILES)

    def is_name(self, word: str, begins: bool) -> bool:
        """Whether the rule for names holds; `begins` where the word is the first of a sentence or a line."""
        if len(word) < 2 or not word[0].isupper() or re.split("['’]", word)[0] == "I":
            return False
        folded = word.casefold()
        if word.isupper():
            return folded not in self._lower
        return not begins or (folded in self._inside and folded not in self._lower)


def _deciles(counts: Mapping[str, int]) -> dict[str, int]:
    """The tenth of the running words in which the middle of all words of one count lies."""
    of_count: dict[int, list[str]] = {}
    for word, count in counts.items():
        of_count.setdefault(count, []).append(word.casefold())
    total, before, deciles = sum(counts.values()), 0, {}
    for count in sorted(of_count, reverse=True):
        share = count * len(of_count[count])
        decile = min(DECILES, 1 + int(DECILES * (before + share / 2) / total)) if total else DECILES
        deciles |= dict.fromkeys(of_count[count], decile)
        before += share
    return deciles


def kinds_of(text: str, rules: Rules | None = None, lexicon: Lexicon | None = None) -> list[tuple[int, int, str]]:
    """Spans (start, end, kind) in characters that cover the text once and in order; `RULES` says what the kinds are.

    Without a lexicon, the words of this text alone decide on names and on rare words.
    """
    rules, lexicon = rules or Rules(), lexicon or Lexicon([text])
    spans: list[tuple[int, int, str]] = []
    waiting = None  # a single space that belongs to what follows
    for match in _span_pattern(rules.order, rules.quotation_characters, _marks(text)).finditer(text):
        kind, start, end = str(match.lastgroup), match.start(), match.end()
        if kind == "word":
            word = match.group()
            decile = lexicon.decile(word)
            if lexicon.is_name(word, _begins(text, start)):
                kind = "name"
            else:
                kind = "common word" if decile < rules.rare_from else f"rare word, decile {decile}"
        if waiting is not None:
            if kind == "whitespace":
                spans.append((waiting, start, kind))
            else:
                start = waiting
            waiting = None
        if rules.space_with_next and kind == "whitespace" and match.group() == " " and end < len(text):
            waiting = start
        else:
            spans.append((start, end, kind))
    return spans


def _begins(text: str, place: int) -> bool:
    """Whether the word at a place is the first of its sentence or of its line, opening marks aside."""
    while place and (text[place - 1].isspace() or text[place - 1] in "\"'`“”‘’«»„([{*_-—"):
        place -= 1
        if text[place] == "\n":
            return True
    if place and text[place - 1] == ".":
        return not _ABBREVIATED.search(text[max(0, place - 6) : place])
    return not place or text[place - 1] in "!?…:"


def _marks(text: str) -> str:
    """The combining marks in a text, which belong to the letter before them."""
    return "" if text.isascii() else "".join(sorted(c for c in set(text) if unicodedata.category(c)[0] == "M"))


def _word(marks: str) -> str:
    han_or_kana = "[\u3041-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
    letter = rf"(?:(?!{han_or_kana})[^\W\d_{_FRACTIONS}])"
    more = f"|[{re.escape(marks)}]" if marks else ""
    return rf"{han_or_kana}|{letter}(?:{letter}{more}|['’-](?={letter}))*"


@lru_cache(maxsize=64)
def _word_pattern(marks: str) -> re.Pattern[str]:
    return re.compile(_word(marks))


@lru_cache(maxsize=64)
def _span_pattern(order: tuple[str, ...], quoted: int, marks: str) -> re.Pattern[str]:
    """One alternative for each kind, tried in order at each place; the last takes any character."""
    found = {kind: _PATTERNS[kind].replace("QUOTED", str(quoted)) for kind in order}
    found |= {"word": _word(marks), "whitespace": _PATTERNS["whitespace"], "punctuation": r"(?s:.)"}
    return re.compile("|".join(f"(?P<{kind}>{pattern})" for kind, pattern in found.items()), re.MULTILINE)
