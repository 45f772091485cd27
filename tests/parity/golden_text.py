"""Text in many scripts, written for the golden files: training text for the small tokenizers
and the strings they are asked to encode. Everything follows from fixed seeds.
"""

import random
import unicodedata

SENTENCES = {
    "english": """The harbour was quiet when the first boats came home, and nobody asked where they had been.
She doesn't think it's worth it, but they'll try again tomorrow; we've seen that before, and I'm sure he'd agree.
A lighthouse keeper counts the waves, writes the number down, and never reads it again.
Training a small model on a slow machine teaches patience, and sometimes arithmetic.
If you're lost in the tundra, follow the river until it meets another river.
Please restart the service, check the log, and tell us what you find: every detail helps.
"Why," asked the child, "does the moon follow us home?" Nobody knew what to say.
THE QUICK BROWN FOX DIDN'T JUMP OVER THE LAZY DOG; IT WALKED AROUND IT.""",
    "french": """Où êtes-vous allés cet été ? Nous avons goûté des crêpes près de l'île d'Oléron.
L'élève a reçu une lettre : « Ça va, merci ! » Le cœur léger, il rentra chez lui.""",
    "german": """Die Mädchen überquerten die große Straße, während der Bäcker süße Brötchen verkaufte.
Fünf Füchse fraßen frische Früchte; das Geräusch störte die müden Gäste überhaupt nicht.""",
    "spanish": """¿Dónde está el niño? ¡Mañana por la mañana saldrá con su tía hacia Málaga!
El pingüino soñó con un corazón de azúcar y una canción que nadie había escuchado.""",
    "polish": """Zażółć gęślą jaźń, powiedział źrebak, i pobiegł przez łąkę ku zachodzącemu słońcu.
Żółte łódki płynęły wzdłuż brzegu, a dzieci śmiały się głośno.""",
    "turkish": """İstanbul'da ılık bir akşam, çocuklar ığdır ağacının altında şarkı söylüyordu.
Güneş doğmadan önce işçiler köprüyü geçti; ğ harfi hiç başta olmaz.""",
    "vietnamese": """Tôi muốn đến Hà Nội vào mùa thu, khi những chiếc lá vàng rơi trên đường phố cổ.
Người bán phở ở góc phố luôn cười rất tươi mỗi buổi sáng.""",
    "russian": """Старый маяк стоял на краю земли, и море шумело под ним всю ночь.
Мы ещё не знаем, куда придём, но путь уже виден; объём работы большой.""",
    "greek": """Η θάλασσα ήταν ήσυχη και ο γέρος ψαράς μετρούσε τα αστέρια.
Όλοι ξέρουν ότι ο δρόμος προς το νησί είναι μακρύς· κανείς δεν βιάζεται.""",
    "hebrew": """הילד שאל למה הירח הולך אחרינו הביתה, ואיש לא ידע מה לענות.
שָׁלוֹם לְכֻלָּם, אמרה המורה, ופתחה את הספר הישן.""",
    "arabic": """سأل الطفل لماذا يتبعنا القمر إلى البيت، ولم يعرف أحد ماذا يقول.
السَّلامُ عَلَيْكُم، قال المعلم، ثم فتح الكتاب القديم رقم ١٢٣.""",
    "hindi": """बच्चे ने पूछा कि चाँद हमारे साथ घर क्यों आता है, और किसी को उत्तर नहीं पता था।
पुराना प्रकाशस्तंभ समुद्र के किनारे खड़ा था, क्या तुमने उसे देखा है? संख्या १२३ है।""",
    "bengali": """নদীর ধারে ছোট্ট একটি গ্রাম ছিল, সেখানে সবাই সবাইকে চিনত।
আমি বাংলায় গান গাই, তুমি কি শুনতে পাও?""",
    "tamil": """கடலின் ஓரத்தில் ஒரு பழைய வீடு இருந்தது, அங்கே யாரும் வசிக்கவில்லை.
நிலா ஏன் நம்முடன் வருகிறது என்று குழந்தை கேட்டது.""",
    "thai": """เด็กถามว่าทำไมพระจันทร์จึงตามเรากลับบ้าน แต่ไม่มีใครรู้คำตอบ
ฉันชอบกินข้าวผัดกับน้ำชาเย็นในวันที่ร้อนมาก""",
    "chinese": """孩子问:为什么月亮跟着我们回家?没有人知道该怎么回答。
请重新启动服务,检查日志,然后告诉我们你发现了什么。今天是二〇二六年。""",
    "japanese": """子供は「なぜ月は家までついてくるの?」と聞いたが、誰も答えを知らなかった。
サーバーを再起動して、ログを確認してください。カタカナとひらがなと漢字が混ざります。""",
    "korean": """아이가 달은 왜 집까지 따라오느냐고 물었지만 아무도 대답을 몰랐다.
서비스를 다시 시작하고 로그를 확인한 다음 무엇을 찾았는지 알려 주세요.""",
    "georgian": """ბავშვმა იკითხა, რატომ მოგვყვება მთვარე სახლამდე, და არავინ იცოდა პასუხი.""",
    "armenian": """Երեխան հարցրեց, թե ինչու է լուսինը հետևում մեզ մինչև տուն։""",
    "amharic": """ልጁ ጨረቃ ለምን ወደ ቤት እንደምትከተለን ጠየቀ፤ ማንም መልሱን አላወቀም።""",
    "burmese": """ကလေးက လမင်းဟာ ဘာကြောင့် အိမ်အထိ လိုက်လာသလဲလို့ မေးတယ်။""",
    "khmer": """ក្មេងសួរថា ហេតុអ្វីបានជាព្រះចន្ទតាមយើងទៅផ្ទះ។""",
    "tibetan": """བོད་ཡིག་ནི་སྐད་ཡིག་ཅིག་ཡིན།""",
    "cherokee": """ᏣᎳᎩ ᎦᏬᏂᎯᏍᏗ ᎠᏂᏴᏫ""",
}

CODE = [
    "def add(a, b):\n    return a + b\n",
    "for (int i = 0; i < n; ++i) {\n\tsum += x[i] * y[i];\n}\n",
    "if __name__ == '__main__':\n    main(sys.argv[1:])\n",
    "SELECT id, name FROM jobs WHERE state = 'RUNNING' AND step >= 100;",
    "#include <vector>\nstd::vector<std::string> names{\"a\", \"b\"};\n",
    "{\"model\": \"tiny\", \"rank\": 8, \"alpha\": 16.0, \"modules\": [\"q_proj\", \"v_proj\"]}",
    "https://example.org/path/to/page?query=1&other=two#fragment",
    "user.name+tag@example.org",
    "x = y ** 2 // 3 % 4; z != w && !v || u <= t",
    "<div class=\"note\">Tom &amp; Jerry</div>",
    "$ grep -rn 'TODO' --include='*.py' . | wc -l",
    "\\frac{1}{2} \\sum_{i=0}^{n} x_i^2",
    "fn main() -> Result<(), Box<dyn Error>> { Ok(()) }",
    "0x1F 0b1010 1e-5 3.14159 1_000_000 -7",
    "    def method(self):\n        pass\n\n\n    # end\n",
    "\t\tif x:\n\t\t\treturn\t# tab",
    "C:\\Users\\name\\file.txt",
    "```python\nprint('hi')\n```",
]

EMOJI = [
    "😀", "😂😂😂", "👍🏽", "👩‍💻", "👨‍👩‍👧‍👦", "🏳️‍🌈", "🇩🇪🇫🇷🇯🇵", "❤️", "❤", "☃️", "1️⃣2️⃣", "🧑🏿‍🚀", "🏴󠁧󠁢󠁳󠁣󠁴󠁿",
    "🫠", "✨", "🐻‍❄️", "👁️‍🗨️", "©️®™", "🤷🏻‍♀️", "⌚︎⌚️", "🎉🎊", "🀄", "🃏", "🅰️", "🈚",
]

WHITESPACE = [
    " ", "  ", "   ", "    ", "\t", "\n", "\r", "\r\n", "\n\n", "\u00a0", "\u2003", "\u2009", "\u200b", "\u2028",
    "\u2029", "\u3000", "\u0085", "\u000b", "\u000c", "\u1680", "\u180e", "\ufeff", "\u202f", "\u205f", "\u2060",
    "\u001c", "\u001d", "\u001e", "\u001f",
]

# Sequences that composition (NFC) changes, leaves, or reorders.
COMBINING = [
    "e\u0301", "\u00e9", "E\u0301cole", "cafe\u0301", "Cafe\u0301", "nai\u0308ve", "na\u00efve", "A\u030angstro\u0308m",
    "\u212bngstr\u00f6m", "\u2126", "\u212a", "o\u0302\u0323", "o\u0323\u0302", "\u1ed9", "\u01b0\u0323\u031b", "a\u0315\u0300\u05ae\u0300b",
    "q\u0307\u0323", "q\u0323\u0307", "\u1e9b\u0323", "\u0958", "\u0915\u093c", "\u0340", "\u0374", "\u1fef", "\u0344",
    "\u1112\u1161\u11ab", "\u1100\u1161", "\uac00\u11a8", "\u110b\u1175\u11bc", "\ud55c\uae00", "\uf900", "\ufa0e", "\u2f800",
    "\u0f77", "\u0f81", "\u0fb2\u0f71\u0f80", "\u09c7\u09be", "\u0b47\u0b3e", "\u0dd9\u0dcf\u0dca", "\u1025\u102e",
    "\u05e9\u05c1\u05bc", "\u05e9\u05bc\u05c1", "\u0627\u0653", "\u0622", "\u064a\u0654", "\u0652\u0651", "\u0651\u0652",
    "Z\u0351\u036b\u0343\u036a\u0302\u036b\u033d\u034f\u0334\u0319\u0324\u031e\u0349", "\u0301", "\u0301a", " \u0301", "a\u200d\u0301",
    "\ufb01nal", "\uff21\uff22\uff23", "\u00bd", "\u2460", "x\u00b2", "\u01c6", "\U0001d15e", "\U0001d400", "\u0130", "i\u0307",
    "\u304b\u3099", "\u30cf\u309a", "\uff76\uff9e", "ne\u0301e\u0301\u0301", "a\u0327\u0301", "c\u0327\u0301", "\u1e09",
]

APOSTROPHES = ["'", "\u2019", "\u02bc", "\uff07", "`", "\u00b4"]
CONTRACTED = ["s", "t", "re", "ve", "m", "ll", "d", "S", "T", "RE", "VE", "M", "LL", "D", "Re", "vE", "Ll", "\u017f", "x", "sx", "rex"]


def training_lines():
    """The text the small tokenizers are trained on: sentences, code, and reshuffled words."""
    rng = random.Random(20260101)
    lines = [line for text in SENTENCES.values() for line in text.split("\n")]
    lines += SENTENCES["english"].split("\n") * 6 + CODE * 3 + EMOJI
    for name, text in SENTENCES.items():
        words = text.split()
        for _ in range(60 if name == "english" else 8):
            lines.append(" ".join(rng.choice(words) for _ in range(rng.randint(4, 12))))
    for _ in range(60):
        lines.append(" ".join(str(rng.randint(0, 10 ** rng.randint(1, 6))) for _ in range(4)))
    return lines


def _assigned(rng, low, high):
    """A code point in [low, high) that this Python's Unicode assigns, and that is no surrogate."""
    while True:
        char = chr(rng.randrange(low, high))
        if unicodedata.category(char) not in ("Cn", "Cs", "Co"):
            return char


def _edge_cases():
    cases = ["", " ", "a", "A", "Hello", "Hello world", " Hello", "Hello ", "  Hello   world  ", "\n", "\n\n\n", "\ufffd", "a\ufffdb",
             "\ufffd\ufffd\ufffd", "\u0000", "a\u0000b", "\u0000\u0000", "\ufffe", "\uffff", "\U0010ffff", "\ue000\uf8ff",
             "\ufeffBOM first", "BOM\ufeffinside", "\u200bzero\u200cwidth\u200djoin", "\u202eright to left\u202c",
             "\u00ad soft\u00adhyphen", "▁", "▁▁", "a▁b", " ▁ ▁", "▁Hello", "Ġ", "ĠHello", "Ċ", "<0x41>", "<0x0A>", "<0xFF>",
             "<unk>", "Ā", "ÿ", "\u0100", "!!!", "...", "?!?!", "---", "a.b.c", "a,b", "(a)", "[a]", "{a}", "a/b", "#tag @user",
             "100%", "$5.00", "€5", "₹५", "Ⅷ Ⅳ", "½¼¾", "①②③", "²³", "٣٤٥", "१२३", "๑๒๓", "〇一二", "𝟘𝟙𝟚", "1st 2nd 3rd",
             "end of line \nnext", "end of line\n next", "a \n b", "a\n\n\nb", "a \r\n \r\n b", "\t\ta", "a\t\tb", " \t \n \t ",
             "a  b   c    d     e", "trailing   ", "\n  indented", "x\u00a0y", "x\u3000y", "x\u2003 y", "\u00a0", " \u00a0 a",
             "word\u2028word", "1 2 3 4", "1234567890", "12345 678 9", "3.14", "v1.2.3-rc4", "a1b2c3", "abc123def", "x²+y²",
             "İ ı ß ẞ ﬁ ǅ", "ǅ ǈ ǋ", "ʰ ʲ ˀ", "ªº", "々〆", "Ꭰꭰ", "\u0345", "\u16ee", "\u2180", "\u3007", "\u3021",
             "''", "'", "'s", "s's", "'S", " 's", "'ll've", "I'Ll", "don''t", "'tis", "rock'n'roll", "o'clock", "can't've", "'re'ally",
             "Tundra", "tundra", "Tundra.", "Tundras", "aTundra", " Tundra ", "Tundra Tundra", "_Tundra", "Tundra_", "Tundra1", "1Tundra",
             "éTundra", "Tundraé", "Tundra\u0301", "-Tundra-", "\nTundra\n", "日Tundra本",
             "lighthouses", " lighthouses", "two lighthouses burn", "quickstart", " quickstart", "quickstarts", " Unreachable",
             "an Unreachable host", "====", "=====", " ====", "==== a ====", " a", " a a a"]
    return cases


def _whitespace_strings(rng):
    out = []
    for ws in WHITESPACE:
        out += [ws, f"a{ws}b", f"{ws}a", f"a{ws}", f"{ws} a", f" {ws}a", f"a {ws}b", f"a{ws} b", f"a{ws}\n", f"1{ws}2", f"!{ws}?"]
    for _ in range(120):
        out.append("".join(rng.choice(WHITESPACE + ["a", "Word", "7", "!", "é"]) for _ in range(rng.randint(2, 9))))
    return out


def _contractions(rng):
    words = ["I", "you", "WE", "it", "She", "they", "L", "d", "aujourd", "日本", "1990", ""]
    out = [f"it{mark}{tail}" for mark in APOSTROPHES for tail in CONTRACTED]
    for _ in range(90):
        out.append(" ".join(rng.choice(words) + rng.choice(APOSTROPHES[:3]) + rng.choice(CONTRACTED) for _ in range(3)))
    return out


def _numbers(rng):
    out = []
    for _ in range(110):
        parts = []
        for _ in range(rng.randint(1, 4)):
            digits = str(rng.randrange(10 ** rng.randint(1, 14)))
            parts.append(rng.choice(["", "-", "+", "$", "0x", "#", "v"]) + digits + rng.choice(["", ".5", "%", "th", "e-7", ",000", "kg"]))
        out.append(rng.choice([" ", "", ", ", "\n", "/", ":"]).join(parts))
    zeros = [0x30, 0x660, 0x966, 0x9E6, 0xE50, 0xFF10, 0x1D7D8]
    for zero in zeros:
        for length in (1, 2, 3, 4, 7):
            out.append("".join(chr(zero + rng.randrange(10)) for _ in range(length)))
    return out


def _script_strings(rng):
    out = []
    names = list(SENTENCES)
    for name in names:
        out += SENTENCES[name].split("\n")
        words = SENTENCES[name].split()
        for _ in range(16):
            out.append(rng.choice(["", " "]) + " ".join(rng.choice(words) for _ in range(rng.randint(1, 8))))
    for _ in range(220):
        pieces = []
        for _ in range(rng.randint(2, 6)):
            words = SENTENCES[rng.choice(names)].split()
            pieces.append(rng.choice([rng.choice(words), rng.choice(words).upper(), rng.choice(EMOJI), str(rng.randrange(5000))]))
        out.append(rng.choice(["", " ", "  ", "\n", "-", "\u3000"]).join(pieces))
    return out


def _random_code_points(rng):
    ranges = [(0x20, 0x7F), (0x80, 0x250), (0x250, 0x600), (0x600, 0x1000), (0x1000, 0x2000), (0x2000, 0x2E00), (0x2E80, 0x10000),
              (0x10000, 0x12000), (0x1D000, 0x1FB00), (0x20000, 0x30000)]
    out = []
    for low, high in ranges:
        for _ in range(26):
            out.append("".join(rng.choice(["", "", " ", "a"]) + _assigned(rng, low, high) for _ in range(rng.randint(1, 12))))
    for _ in range(80):
        out.append("".join(_assigned(rng, *rng.choice(ranges)) for _ in range(rng.randint(2, 16))))
    return out


def _combining_strings(rng):
    out = list(COMBINING)
    out += [f"x{mark}y" for mark in COMBINING] + [f" {mark} " for mark in COMBINING]
    for _ in range(60):
        out.append(" ".join(rng.choice(COMBINING) for _ in range(rng.randint(2, 5))))
    for name in ("vietnamese", "french", "korean", "polish"):
        for line in SENTENCES[name].split("\n"):
            out += [unicodedata.normalize(form, line) for form in ("NFD", "NFC", "NFKD")]
    return out


def _control_strings():
    codes = list(range(0x20)) + list(range(0x7F, 0xA1))
    return [f"a{chr(code)}b {chr(code)}" for code in codes] + [chr(code) * 3 for code in codes]


def _special_token_strings(rng, special_tokens):
    out = []
    for token in special_tokens:
        out += [token, f"a{token}b", f" {token} ", f"a  {token}  b", f"{token}{token}", f"x\n{token}\ny", token[:-1], token[1:], token.upper(),
                f"{token}\u00a0z", f"é{token}é", f"_{token}_", f"1{token}2", f" {token[:1]} {token[1:]}"]
    fillers = ["Hello", " world", "  ", "\n", "日本", "é", "e\u0301", "!", "", " ", "Tundra", "7", "▁", "\u3000"]
    for _ in range(260):
        out.append("".join(rng.choice(fillers) + rng.choice(special_tokens) for _ in range(rng.randint(1, 5))) + rng.choice(fillers))
    return out


def _long_runs():
    units = ["a", " ", "\n", "ab", "é", "日", "😀", "=", "-", "7", "\t", "\u0000", "e\u0301", "aA", "Tundra ", "\u3000", "▁", "'s", "\u0301", "\r\n"]
    out = [unit * count for unit in units for count in (17, 64, 333)]
    out += ["a" * 10000, " " * 5000, "the harbour was quiet " * 300, "日本語" * 1000, "9" * 3000, "\n" * 2049, "x" + " " * 1023 + "y"]
    return out


def golden_strings(special_tokens):
    """The strings, [(category, text)], without doubles. special_tokens: those of all tokenizers."""
    rng = random.Random(20260102)
    groups = [
        ("edge", _edge_cases()),
        ("whitespace", _whitespace_strings(rng)),
        ("contraction", _contractions(rng)),
        ("number", _numbers(rng)),
        ("code", CODE + ["\n".join(rng.sample(CODE, 2)) for _ in range(40)]),
        ("script", _script_strings(rng)),
        ("random", _random_code_points(rng)),
        ("combining", _combining_strings(rng)),
        ("control", _control_strings()),
        ("emoji", EMOJI + [f"a{e}b {e}{f}" for e in EMOJI for f in EMOJI[::6]]),
        ("special", _special_token_strings(rng, special_tokens)),
        ("long", _long_runs()),
    ]
    seen, out = set(), []
    for category, texts in groups:
        for text in texts:
            if text not in seen:
                seen.add(text)
                out.append((category, text))
    return out
