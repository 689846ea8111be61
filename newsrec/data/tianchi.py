"""Format `tianchi`: the files of the Tianchi news-recommendation competition.

The clicks of test users are events like any others; what is held out is each test user's next click. A user of both
logs is a test user: all clicks count as events and no training request is made of them. `testA_labels.csv` is never
opened.
"""

from pathlib import Path

import numpy as np
import polars as pl

from newsrec.data.canonical import Parts, make_log
from newsrec.data.files import read_rows
from newsrec.data.ledger import Ledger
from newsrec.data.lines import read_header
from newsrec.data.log import Log, ReadOptions
from newsrec.data.schema import TIANCHI_ARTICLES, TIANCHI_CLICKS
from newsrec.errors import DataError

TRAIN = "train_click_log.csv"
TEST = "test*_click_log.csv"
ARTICLES = "articles.csv"
EMBEDDINGS = "articles_emb.csv"


def read_tianchi(path: Path, options: ReadOptions) -> Log:
    """Read the competition's folder, or one of its click logs alone.

    Args:
        path: A folder with `train_click_log.csv` and / or `testA_click_log.csv` (`testB...`), `articles.csv` and
            optionally `articles_emb.csv`; or the path of one click log.
        options: `columns` and `integer_ids` do not apply.

    Raises:
        DataError: No click log there, columns missing, or too many bad rows.
    """
    ledger = Ledger(options)
    folder = path if path.is_dir() else path.parent
    logs = [path] if path.is_file() else [p for p in [folder / TRAIN, *sorted(folder.glob(TEST))] if p.is_file()]
    if not logs:
        raise DataError(f"tianchi: '{TRAIN}' or '{TEST}' expected in '{path}', neither found; check --data or --format")
    frames = [read_rows(log, "clicks", TIANCHI_CLICKS, ledger) for log in logs]
    tests = [frame["user_id"] for log, frame in zip(logs, frames, strict=True) if log.match(TEST)]
    trains = [frame["user_id"] for log, frame in zip(logs, frames, strict=True) if not log.match(TEST)]
    held_out = pl.concat(tests).unique() if tests else None
    _note_both(trains, held_out, ledger)
    parts = Parts(clicks=pl.concat(frames, how="diagonal"), held_out_users=held_out)
    if (folder / ARTICLES).is_file():
        parts.articles = read_rows(folder / ARTICLES, "articles", TIANCHI_ARTICLES, ledger)
        if (folder / EMBEDDINGS).is_file():
            parts.articles = _with_embeddings(parts.articles, folder / EMBEDDINGS)
    return make_log("tianchi", parts, ledger)


def _note_both(trains: list[pl.Series], held_out: pl.Series | None, ledger: Ledger) -> None:
    if held_out is None or not trains:
        return
    both = pl.concat(trains).unique().is_in(held_out.implode()).sum()
    if both:
        ledger.note(f"{both} users are in the train and the test log; they count as test users with all their clicks")


def _with_embeddings(articles: pl.DataFrame, path: Path) -> pl.DataFrame:
    """Articles with their row of `articles_emb.csv` as `embedding`, null where there is none."""
    header = read_header(path)
    values = [name for name in header.names if name != "article_id"]
    if len(values) == len(header.names) or not values:
        raise DataError(
            f"columns article_id, emb_0, ... expected in '{path}', {list(header.names[:5])} found; map none"
        )
    schema: dict[str, pl.DataType] = dict.fromkeys(header.names, pl.Float32())
    try:
        table = pl.read_csv(path, schema={**schema, "article_id": pl.Int64()}, separator=header.separator)
    except pl.exceptions.PolarsError as error:
        first = str(error).splitlines()[0][:120]
        raise DataError(f"numbers in every field expected in '{path}', others found ({first}); mend it") from error
    if table.null_count().sum_horizontal().item():
        raise DataError(f"numbers in every field expected in '{path}', empty fields found; mend it or leave it out")
    table = table.unique("article_id", keep="first", maintain_order=True)
    matrix = np.ascontiguousarray(table.select(values).to_numpy())  # (articles, dim)
    vectors = pl.Series("embedding", matrix, dtype=pl.Array(pl.Float32, len(values)))
    found = table.select(item_id="article_id").with_columns(vectors)
    return articles.join(found, on="item_id", how="left", maintain_order="left")
