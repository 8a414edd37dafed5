"""Text of others made visible: what cannot be seen, or passes for another letter, by its number.

Letters are not judged by a full table of confusables (Unicode TS 39), which marks half of every
alphabet: only those that no font tells from a Latin one, and only where the text around them is
Latin, so that names in Cyrillic, Greek or Armenian stay as they are.
"""

from __future__ import annotations

import re
import unicodedata

CONTROLS = frozenset(("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"))  # Unicode's own categories
# Letters, marks and symbols that are drawn as nothing at all.
BLANK = frozenset(
    "\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0\U0001d159\u180b\u180c\u180d\u180f"
    + "".join(map(chr, (*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0))))
)
# Cyrillic, Greek, Armenian and IPA letters that are drawn as a Latin one.
ALIKE = frozenset(
    "\u0405\u0406\u0408\u0410\u0412\u0415\u041a\u041c\u041d\u041e\u0420\u0421\u0422\u0425\u04ae"
    "\u051a\u051c\u0430\u0435\u043e\u0440\u0441\u0443\u0445\u0455\u0456\u0458\u04bb\u0501\u051b"
    "\u051d\u04cf\u04af\u0391\u0392\u0395\u0396\u0397\u0399\u039a\u039c\u039d\u039f\u03a1\u03a4"
    "\u03a5\u03a7\u03bf\u03f2\u03f3\u054d\u0555\u0570\u0578\u057d\u0581\u0585\u0251\u0261\u01c0"
)
BYTE_ORDER_MARK = "\ufeff"
LETTERLIKE = range(0x2100, 0x2150)  # the script l of a norm, the double R of the reals: as written
SAME = ("<wide>", "<narrow>", "<font>", "<small>", "<compat>")  # the letter itself, in another form
WORD = re.compile(r"\w+")


def unmarked(text: str) -> str:
    """The text without the byte order mark that some editors write before it; Python passes over
    one in files alone."""
    return text.removeprefix(BYTE_ORDER_MARK)


def visible(text: str) -> str:
    """The text with hidden and disguised characters as <U+200B>; plain ASCII as it is."""
    if text.isascii() and text.isprintable():
        return text
    shown = "".join(number(c) if hidden(c) else c for c in text)
    written = {_script(c) for c in shown if c.isalpha() and c not in ALIKE}
    return WORD.sub(lambda word: _word(word[0], written), shown)


def hidden(character: str) -> bool:
    """Whether a character is drawn as nothing, changes others, or means nothing."""
    return unicodedata.category(character) in CONTROLS or character in BLANK


def number(character: str) -> str:
    """A character by its number, as Unicode writes it."""
    return f"<U+{ord(character):04X}>"


def _word(word: str, written: set[str]) -> str:
    """A word whose letters say which ones they are."""
    latin = any(c.isascii() and c.isalpha() for c in word)
    return "".join(
        number(c) if (c in ALIKE and (latin or _script(c) not in written)) or _other_form(c) else c
        for c in word
    )


def _script(letter: str) -> str:
    return unicodedata.name(letter, "").partition(" ")[0]


def _other_form(character: str) -> bool:
    """Whether it is an ASCII letter or digit in another form: full-width, mathematical, Kelvin."""
    if character.isascii() or (ord(character) in LETTERLIKE and character != "\u212a"):
        return False
    kind, _, _ = unicodedata.decomposition(character).rpartition(" ")
    plain = unicodedata.normalize("NFKC", character)
    return (not kind or kind in SAME) and len(plain) == 1 and plain.isascii() and plain.isalnum()
