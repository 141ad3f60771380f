"""Contact sheet of `sagelink teach`: the pictures whose labels are most likely wrong, as one HTML page.

In: the pictures and their held-out log-probabilities. Out: a page without scripts, with small pictures inside it. A
picture is listed if its held-out answer is another class; the surest answers come first.
"""

from __future__ import annotations

import base64
import html
import io
from pathlib import Path

import numpy as np
from PIL import Image

from sagelink.lab.probabilities import Ids, Matrix
from sagelink.lab.teach.pictures import Pictures
from sagelink.pipeline.files.output_files import MADE_BY
from sagelink.pipeline.text import one_line

_MOST = 60  # pictures on a sheet
_SIDE = 240  # pixels, of a small picture
SHEET_MARK = f'<meta name="generator" content="{MADE_BY} teach">'


def sheet_path(head: Path) -> Path:
    """Beside the head file."""
    return head.with_name(f"{head.name}.mislabelled.html")


def suspects(log_probs: Matrix, ids: Ids) -> list[int]:
    """Rows with another held-out answer than their label, the surest first."""
    against = log_probs.max(1) - log_probs[np.arange(len(ids)), ids]
    return [int(row) for row in np.argsort(-against, kind="stable") if against[row] > 0][:_MOST]


def contact_sheet(pictures: Pictures, log_probs: Matrix) -> str:
    """The page. `log_probs`: (n, C), held out, one row a picture."""
    figures = []
    for row in suspects(log_probs, pictures.ids):
        answer = int(log_probs[row].argmax())
        words = [
            f"label: {pictures.classes[pictures.ids[row]]}",
            f"answer: {pictures.classes[answer]} ({np.exp(log_probs[row, answer]):.0%})",
            one_line(pictures.found[row].name),
        ]
        caption = "<br>".join(html.escape(word) for word in words)
        figures.append(f'<figure><img src="{_small(pictures, row)}" alt=""><figcaption>{caption}</figcaption></figure>')
    return f"""<!doctype html><meta charset="utf-8">{SHEET_MARK}<title>Likely mislabelled pictures</title>
<style>body{{font:14px sans-serif}}figure{{display:inline-block;width:{_SIDE}px;margin:8px;vertical-align:top}}
img{{max-width:100%}}figcaption{{overflow-wrap:anywhere}}</style>
<h1>Likely mislabelled pictures</h1>
<p>Held-out answers contradict these labels, the surest first. Check them: a wrong label costs more than a picture.</p>
{"".join(figures)}
"""


def _small(pictures: Pictures, row: int) -> str:
    image = Image.fromarray(pictures.read(row))
    image.thumbnail((_SIDE, _SIDE))
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"
