"""Tokens of English captions by the rules of the Penn Treebank, without Java.

The tokens are those of pycocoevalcap's `PTBTokenizer` (Stanford CoreNLP 3.4.1) on the texts of
`tests/golden/make_caption_metrics.py`: lower case, contractions split, punctuation removed. Where a
caption ends with an abbreviation, the Java tokenizer reads the first word of the next one too, and
this one does not.
"""

import re
import unicodedata

# what pycocoevalcap removes; its other entries, as -LRB-, never match lower case
REMOVED = {"''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"}
MARKS = "".join(
    chr(code) for code in range(0x300, 0x1E00) if unicodedata.category(chr(code)) in ("Mn", "Mc")
)  # vowel signs and accents of the letter before them
LETTER = rf"(?:[^\W\d_¼-¾²³¹⁰-₎⅓-↏]|[\u00AD\u02C2-\u02C5\u0384\u0385{MARKS}])"
LETTERS = rf"{LETTER}(?:{LETTER}|\d)*"
WORD = rf"{LETTERS}(?:[.!?]{LETTERS})*"  # a sentence's end without a blank is part of a word
APOSTROPHE = r"(?:['\u0092\u2019]|&apos;)"
QUOTE = r"(?:['\u0092\u2019`\u0091\u2018\u201B]|&apos;)"
CONTRACTION = rf"{APOSTROPHE}(?i:[msd]|re|ve|ll)"
NUMBER = r"[-+]?(?:\d+(?:[.:,\u00AD]\d+)*|(?:[.:,]\d+)+)"
PREFIXED = rf"(?:[dDoOlL]{QUOTE}[A-Za-z0-9])?(?:[^\W_¼-¾²³¹⁰-₎⅓-↏]+|{NUMBER})"  # as in O'Neill
ACRONYM = r"[A-Za-z](?:\.[A-Za-z])*\."
HYPHENS = "[-\u058a\u2010\u2011]"

# abbreviations that keep their period
MONTHS_AND_DAYS = "jan feb mar apr jun jul aug sep sept oct nov dec mon tue tues wed thu thurs fri"
PLACES = (
    "ala ariz calif colo conn ct dak fla ga ind kan kans ky md mich minn mo mont neb nev okla "
    "penn tenn va vt wis wisc wyo mt ft st ste ave blvd rd"
)
TITLES = (
    "mr mrs ms dr drs prof profs sen sens rep reps atty lt col gen messrs gov govs adm rev maj sgt "
    "cpl pvt capt pres lieut hon brig cmdr comdr det jr sr bros esq supt ph.d ed.d "
)
OTHERS = (
    "inc co cos corp ltd plc assn univ intl dept natl mfg elec tel est ext sq etc al seq "
    "bldg vs cf wm jos a.k.a rt"
)
CASED = "Az|Ark|Del|Ill|La|Mass|Miss|Ore|Pa|Tex|Wash|Ph|v"
BEFORE_NUMBERS = "ca|figs?|prop|nos?|art|pp|op"
# A letter with a period before one of these is the end of a sentence, and no initial.
SENTENCE_STARTS = (
    "A|About|After|An|As|At|But|Earlier|He|Her|Here|However|If|In|It|Last|Many|More|Now|Once|"
    "One|Other|Our|She|Since|So|Some|Such|That|The|Their|Then|There|These|They|This|We|When|"
    "While|What|Yet|You|According|Additionally"
)
ABBREVIATION = "|".join(
    re.escape(word) for group in (MONTHS_AND_DAYS, PLACES, TITLES, OTHERS) for word in group.split()
)
SYMBOLS = (
    r"[+%&~^|\\¦§¨©¬®¯°-´¶-¹×÷\u2016\u2017\u201A\u201E-\u2023\u2030-\u2038\u203B\u203E-\u2042"
    r"\u2044\u2070\u2074-\u207E\u2080-\u208E\u2100-\u214F\u2190-\u2BFF\u3012\u30FB\uFF01-\uFF0F"
    r"\uFF1A-\uFF20\uFF3B-\uFF40\uFF5B-\uFF65<>=/*()\[\]{}.,;:¡¿]"
)
URL_PART = r"[^\s\"<>|!?.,;:()\u00A0{}]+"
URL_PATH = r"(?:/[^\s\"<>|()]+[^\s\"<>|.!?(){},-])?"

# A token and what follows it. As in a lexer, the longest match of both together counts, and of
# equally long ones the first.
RULES = [
    re.compile(f"({token})(?:{after})")
    for token, after in (
        ("(?i:can)", "(?i:not)"),
        (r"[cC]\+\+", ""),
        ("(?i:gon|wan)", r"(?i:na)(?!\w)"),
        ("(?i:got)", r"(?i:ta)(?!\w)"),
        ("(?i:lem|gim)", r"(?i:me)(?!\w)"),
        (rf"{APOSTROPHE}[tT]", r"(?i:was|is(?!\w))"),
        (r"</?[A-Za-z][\w:.-]*(?: +[A-Za-z][\w:.-]*(?:=(?:\"[^\">]*\"|'[^'>]*'))?)* */?>", ""),
        ("&(?i:amp|lt|gt);", ""),
        (WORD, CONTRACTION),
        (r"[A-Za-z]*[A-MO-Za-mo-z]", rf"[nN]{QUOTE}[tT]"),
        (WORD, ""),
        (r"(?i:https?|ftp)://[^\s\"<>|(){}]+[^\s\"<>|.!?(){},-]", ""),
        (rf"(?i:www\.(?:{URL_PART}\.)+[a-z]{{2,4}}{URL_PATH})", ""),
        (rf"(?i:(?:{URL_PART}\.)+(?:com|net|org|edu){URL_PATH})", ""),
        (rf"<?[A-Za-z0-9][^\s\"<>|()\u00A0{{}}]*@{URL_PART}(?:\.{URL_PART})*>?", ""),
        (rf"@[A-Za-z_]\w*|#{LETTER}(?:{LETTER}|[\d_])*(?:{LETTER}|\d)", ""),
        (rf"{CONTRACTION}|[nN]{QUOTE}[tT]", "[^A-Za-z]|$"),
        (r"\d{1,2}[-/]\d{1,2}[-/]\d{2,4}", ""),
        (NUMBER, ""),
        (r"(?:\d{1,4}[- \u00A0])?\d{1,4}[/\u2044]\d{1,4}", ""),
        (rf"{APOSTROPHE}[nN]{APOSTROPHE}?|(?:[lLdDjJ]|(?i:ol)){APOSTROPHE}", ""),
        (rf"{APOSTROPHE}(?:(?i:em|till?|cause)|[2-9]0s)|(?i:c'mon|nor'easter)", ""),
        (rf"[A-HJ-XZn]{QUOTE}{LETTER}{{2,}}|{LETTER}+[aeiouyAEIOUY]{QUOTE}[aeiouA-Z]{LETTER}*", ""),
        (r"'\d\d", r"\s|$"),
        (f"[yY]{APOSTROPHE}", LETTER),
        (r"[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}(?:\\?/[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}){1,2}", ""),
        (rf"(?:(?i:{ABBREVIATION})|{CASED})\.|{ACRONYM}", ""),
        ("[A-Za-z]", rf"\.\s(?:{SENTENCE_STARTS})[\s?!]"),
        (rf"(?i:{BEFORE_NUMBERS})\.", r" ?\d"),
        (rf"{WORD}\.", "[,;:]"),
        (r"(?:\(\d{2,3}\) ?|(?:\d{2,4}[- ])?\d{2,4}[- ])\d{3,4}[- ]?\d{3,5}", ""),
        (r"[A-Za-z0-9][A-Za-z0-9.,]*(?:[-_](?:[A-Za-z0-9]+|[A-Za-z](?:\.[A-Za-z])+\.))+", ""),
        (rf"{PREFIXED}(?:{HYPHENS}{PREFIXED})*", ""),
        ("[A-Z]+(?:(?:[+&]|&amp;)[A-Z]+)+", ""),
        (r"[<>]?[:;=][-o*']?[()DPdpO\\{@|\[\]]", "[^A-Za-z0-9]|$"),
        (r"(?:[`\u2018-\u201F\u2039\u203A«»]{1,2}|" + APOSTROPHE + ")", rf"{LETTER}\S"),
        (r"\"|[`'\u2018\u2019]'|[`\u2018-\u201F\u2039\u203A«»]{1,2}|" + APOSTROPHE, ""),
        (r"\.\.\.+|…|[-\u2013-\u2015]+|@+|\*+|#+|_+|[?!]+|<<|>>", ""),
        (r"[¼-¾⅓⅔]|[A-Z]*\$|[¢£¤¥€]", ""),
        (SYMBOLS, ""),
    )
]  # fmt: skip
NORMALIZED = str.maketrans(
    {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}
    | {"£": "#", "€": "$", "¤": "$", "¢": "cents", "\u00ad": "", " ": "\u00a0"}
    | {"¼": "1/4", "½": "1/2", "¾": "3/4", "⅓": "1/3", "⅔": "2/3"}
    | dict.fromkeys("\u0092\u2019\u203a", "'") | dict.fromkeys("\u0091\u2018\u201b\u2039", "`")
    | dict.fromkeys("“«", "``") | dict.fromkeys("”»\"", "''")
)  # fmt: skip
INSIDE = str.maketrans({"\u00ad": "", " ": "\u00a0", "(": "-lrb-", ")": "-rrb-"})
PLAIN = re.compile("[A-Za-z]+")
SPLIT = re.compile(r"cannot|gonna|wanna|gotta|lemme|gimme", re.IGNORECASE)


def tokens(text: str) -> list[str]:
    """The tokens of an English text, in lower case and without punctuation.

    Characters that the tokenizer does not know, as most emoji, are left out.
    """
    words = text.split(" ")
    if all(PLAIN.fullmatch(word) and not SPLIT.match(word) for word in words):
        return [word.lower() for word in words]
    found = (normalized(token) for token in split(text.replace("\n", " ")))
    return [token for token in found if token not in REMOVED]


def split(text: str) -> list[str]:
    """The parts of a text that are tokens, as written."""
    parts, place = [], 0
    while place < len(text):
        matches = (rule.match(text, place) for rule in RULES)
        best = max(filter(None, matches), key=lambda match: match.end(), default=None)
        if best is not None and best.end(1) > place:
            parts.append(best[1])
        place = max(place + 1, best.end(1) if best is not None else 0)
    return parts


def normalized(token: str) -> str:
    """A token in lower case, with the treebank's brackets, quotes and dashes."""
    if token in ("&amp;", "&lt;", "&gt;", "&apos;"):
        return {"&amp;": "&", "&lt;": "<", "&gt;": ">", "&apos;": "'"}[token]
    if re.fullmatch(r"\.\.\.+|…", token):
        return "..."
    if re.fullmatch(r"[\u2013-\u2015]|---?-?", token):
        return "--"
    if re.search(r"\w\w", token) and not re.match(QUOTE, token):
        return token.translate(INSIDE).lower()
    return token.translate(NORMALIZED).replace("&apos;", "'").lower()
