"""Untrusted text made visible: hidden or look-alike characters are replaced by their code points.

Look-alikes are not taken from the full table of confusables (Unicode TS 39), which marks half of
every alphabet: only letters that no font distinguishes from a Latin one count, and only in
otherwise Latin text, so that names in Cyrillic, Greek or Armenian stay as they are.
"""

from __future__ import annotations

import re
import unicodedata

CONTROLS = frozenset(("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"))  # Unicode's general categories
# Letters, marks and symbols that render as nothing.
BLANK = frozenset(
    "\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0\U0001d159\u180b\u180c\u180d\u180f"
    + "".join(map(chr, (*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0))))
)
# Cyrillic, Greek, Armenian and IPA letters that look like a Latin one.
ALIKE = frozenset(
    "\u0405\u0406\u0408\u0410\u0412\u0415\u041a\u041c\u041d\u041e\u0420\u0421\u0422\u0425\u04ae"
    "\u051a\u051c\u0430\u0435\u043e\u0440\u0441\u0443\u0445\u0455\u0456\u0458\u04bb\u0501\u051b"
    "\u051d\u04cf\u04af\u0391\u0392\u0395\u0396\u0397\u0399\u039a\u039c\u039d\u039f\u03a1\u03a4"
    "\u03a5\u03a7\u03bf\u03f2\u03f3\u054d\u0555\u0570\u0578\u057d\u0581\u0585\u0251\u0261\u01c0"
)
BYTE_ORDER_MARK = "\ufeff"
LETTERLIKE = range(0x2100, 0x2150)  # the script l of a norm, the double-struck R of the reals
SAME = ("<wide>", "<narrow>", "<font>", "<small>", "<compat>")  # the same letter in another form
WORD = re.compile(r"\w+")


def unmarked(text: str) -> str:
    """Strip the byte order mark that some editors write at the start of a text.

    Python itself skips one only in files.
    """
    return text.removeprefix(BYTE_ORDER_MARK)


def visible(text: str) -> str:
    """Show hidden and disguised characters as <U+200B>; plain ASCII is unchanged."""
    if text.isascii() and text.isprintable():
        return text
    shown = "".join(number(c) if hidden(c) else c for c in text)
    written = {_script(c) for c in shown if c.isalpha() and c not in ALIKE}
    return WORD.sub(lambda word: _word(word[0], written), shown)


def hidden(character: str) -> bool:
    """Return whether a character is invisible, alters others, or is unassigned."""
    return unicodedata.category(character) in CONTROLS or character in BLANK


def number(character: str) -> str:
    """Return the code point of a character in Unicode's notation."""
    return f"<U+{ord(character):04X}>"


def _word(word: str, written: set[str]) -> str:
    """Replace look-alike letters of a word by their code points."""
    latin = any(c.isascii() and c.isalpha() for c in word)
    return "".join(
        number(c) if (c in ALIKE and (latin or _script(c) not in written)) or _other_form(c) else c
        for c in word
    )


def _script(letter: str) -> str:
    return unicodedata.name(letter, "").partition(" ")[0]


def _other_form(character: str) -> bool:
    """Return whether it is a variant of an ASCII letter or digit: full-width, Kelvin and so on."""
    if character.isascii() or (ord(character) in LETTERLIKE and character != "\u212a"):
        return False
    kind, _, _ = unicodedata.decomposition(character).rpartition(" ")
    plain = unicodedata.normalize("NFKC", character)
    return (not kind or kind in SAME) and len(plain) == 1 and plain.isascii() and plain.isalnum()
