"""Small tables of words for the edits."""

from __future__ import annotations

NUMBER_WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")

NEGATIONS = (
    # A negated claim becomes the plain one, a plain one is negated. Templates are those of `re.Match.expand`.
    (r"\b(is|are|was|were|do|does|did|has|have|can|could|must|should|will|would) not\b", r"\1"),
    (r"\b(is|are|was|were|must|should|will|would|could)\b(?! not|n't)", r"\1 not"),
    (r"\bcan\b(?! not|'t)", "cannot"),
    (r"\bcannot\b", "can"),
    (r"\bequals\b", "does not equal"),
    (r"\bmeans\b", "does not mean"),
    (r"\bhas\b(?! not|n't)", "lacks"),
    (r"\bshows\b", "does not show"),
    (r"\bcontains\b", "does not contain"),
    ("不是", "是"),
    ("(?<!不)是(?![否不])", "不是"),
    ("(?<!不)等于", "不等于"),
)

_STOP_WORDS = """
a about all also an and any are as at be because been but by can could did do does each first for from had has
have here how if in into is it its just let like look looks more most must next no not now of on only or other our
out over same second see seems should since so some such than that the their them then there therefore these they
this those thus to too very was we were what when where whether which while who why will with would you your
"""
STOP_WORDS = frozenset(_STOP_WORDS.split())
"""Words that say too little for their exchange to make a step wrong."""

ENGLISH_TO_CHINESE = {
    "therefore": "因此",
    "thus": "从而",
    "hence": "于是",
    "so": "所以",
    "because": "因为",
    "since": "由于",
    "first": "首先",
    "then": "然后",
    "next": "接下来",
    "finally": "最后",
    "but": "但是",
    "however": "然而",
    "and": "和",
    "or": "或者",
    "if": "如果",
    "with": "与",
    "we": "我们",
    "this": "这",
    "that": "那",
    "there": "那里",
    "here": "这里",
    "all": "所有",
    "each": "每个",
    "only": "只有",
    "also": "也",
    "is": "是",
    "are": "都是",
    "has": "有",
    "equals": "等于",
    "shows": "显示",
    "see": "看到",
    "look": "看",
    "find": "求",
    "know": "知道",
    "means": "意味着",
    "answer": "答案",
    "question": "问题",
    "image": "图片",
    "picture": "图像",
    "figure": "图形",
    "shape": "形状",
    "colour": "颜色",
    "color": "色彩",
    "number": "数字",
    "angle": "角",
    "triangle": "三角形",
    "circle": "圆",
    "square": "正方形",
    "rectangle": "长方形",
    "line": "线",
    "length": "长度",
    "area": "面积",
    "sum": "总和",
    "left": "左边",
    "right": "右边",
    "option": "选项",
    "correct": "正确",
    "wrong": "错误",
    "step": "步骤",
}
"""English words and their Chinese counterparts, each once, so that the table reads both ways."""
