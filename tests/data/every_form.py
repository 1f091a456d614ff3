"""Forty-eight texts in every form in which people have datasets, written out from the one that is kept: `plain.csv`."""

import gzip
import json
from pathlib import Path

import polars as pl

PLAIN = Path(__file__).parent / "plain.csv"
TREE = {"home": ("heating", "lamp"), "money": ("pay", "refund"), "travel": ("delay", "seat")}
_NUMBERS = {name: str(n) for n, name in enumerate(TREE)} | {
    name: str(n) for n, name in enumerate(sorted(sum(TREE.values(), ())), start=10)
}


def write_forms(folder):
    """Write every form below a folder; return it."""
    plain = pl.read_csv(PLAIN)
    text, coarse, fine, split = plain
    unsplit, labels = plain.drop("split"), list(zip(coarse, fine, strict=True))

    def write(name, content, encoding="utf-8"):
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content.encode(encoding))

    def table(name, frame=unsplit, columns=(), separator=",", encoding="utf-8", line_end="\n"):
        content = frame.rename(dict(zip(frame.columns, columns, strict=False))).write_csv(separator=separator)
        write(name, content.replace("\n", line_end), encoding)

    def labelled(name, values, column="label"):
        table(name, pl.DataFrame({"text": text, column: values}))

    def records(*columns):
        return plain.rename(dict(zip(plain.columns, columns, strict=False))).to_dicts()

    write("plain.csv", PLAIN.read_text())
    (folder / "packed.csv.gz").write_bytes(gzip.compress(PLAIN.read_bytes()))
    dev = plain.with_columns(split.replace("val", "dev"))
    table("tabs.tsv", dev, ("sentence", "area", "topic", "partition"), separator="\t")
    table("semicolons_utf16.csv", plain, separator=";", encoding="utf-16")
    accented = plain.with_columns(text.str.replace("late", "très tard", literal=True))
    columns = ("utterance", "category", "subcategory", "set")
    table("windows_1252.csv", accented, columns, encoding="windows-1252", line_end="\r\n")
    write("no_header.csv", plain.select("split", "level0", "level1", "text").write_csv(include_header=False))

    write("array.json", json.dumps(records("text", "domain", "intent"), indent=0))
    keyed = records("query", "domain", "intent")
    write("keyed.json", json.dumps({f"q{n}": record for n, record in enumerate(keyed)}, indent=0))
    parts = {name: [] for name in ("train", "val", "test")}
    for record in records("text", "l1", "l2"):
        parts[record.pop("split")].append(record)
    write("splits.json", json.dumps(parts, indent=0))
    paths = pl.DataFrame({"text": text, "labels": [list(pair) for pair in labels], "split": split})
    write("lines.jsonl", paths.write_ndjson())
    plain.rename({"level0": "area", "level1": "topic"}).write_parquet(folder / "columns.parquet")
    plain.rename({"level0": "Level 1", "level1": "Level 2", "split": "Split"}).write_excel(folder / "sheet.xlsx")

    for name, part in (("train", "train"), ("dev", "val"), ("test", "test")):
        table(f"folder/{name}.csv", plain.filter(split=part).drop("split"), ("text", "coarse", "fine"))
    for name, column in (("texts", text), ("area_labels", coarse), ("topic_labels", fine)):
        write(f"parallel/{name}.txt", "\n".join(column) + "\n")

    labelled("path_arrow.csv", [" > ".join(pair) for pair in labels])
    labelled("path_slash.csv", ["/".join(pair) for pair in labels])
    labelled("python_list.csv", [str(list(pair)) for pair in labels])
    several = [(f"{one};{two}", one, two)[row % 3] for row, (one, two) in enumerate(labels)]
    labelled("several_labels.csv", several)
    titles = pl.Series("title", [f"{words.split()[0]} {row}" for row, words in enumerate(text)])
    table("title_and_body.csv", unsplit.select(titles, "*"), ("title", "description", "area", "topic"))
    ends = [None if row % 5 == 0 else "None" if row % 7 == 1 else name for row, name in enumerate(fine)]
    table("uneven.csv", plain.with_columns(level1=pl.Series(ends)))
    for name in ("one_level.csv", "mapping/rows.csv"):
        table(name, plain.drop("level0"), ("text", "intent"))
    write("mapping/domains.json", json.dumps(TREE))

    labelled("tree/rows.csv", fine.replace_strict(_NUMBERS))
    parents = {fine: _NUMBERS[area] for area, below in TREE.items() for fine in below}
    nodes = [f"{number},{parents.get(name, '')},{name}\n" for name, number in _NUMBERS.items()]
    write("tree/nodes.csv", "id,parent,name\n" + "".join(nodes))
    numbered = unsplit.with_columns(coarse.replace_strict(_NUMBERS), fine.replace_strict(_NUMBERS))
    table("names/ids.csv", numbered, ("text", "area", "topic"))
    write("names/labels.csv", "id,name\n" + "".join(f"{number},{name}\n" for name, number in _NUMBERS.items()))

    table("toml/rows.csv", unsplit.drop("level0"), ("said", "what"))
    tree = "".join(f"{area} = {json.dumps(below)}\n" for area, below in TREE.items())
    write("toml/rows.toml", f'files = ["rows.csv"]\ntext = "said"\nlevels = ["what"]\n\n[hierarchy]\n{tree}')
    return folder
