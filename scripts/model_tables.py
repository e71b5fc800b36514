"""The tables of a network's section in the model card, from the metrics.json files that tests write.

python scripts/model_tables.py table results/x2/metrics.json
    a Markdown table: one line for each data set, the baseline's scores beside the network's
python scripts/model_tables.py table results/x2/metrics.json results/x2_seed*/metrics.json
    the same of several seeds: mean and sample standard deviation; their number stands below
python scripts/model_tables.py record x2 results/x2/metrics.json
    write the scores beside the weights in the package, where lists, the page and docs/weights.md take them from
"""

import argparse
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mambair.commands.exit_codes import OK, reports_user_errors
from mambair.engine.evaluate.tables import format_value
from mambair.errors import UserError
from mambair.runtime.files import FileMark, write_unless_changed
from mambair.runtime.markdown import markdown_table
from mambair.weights import sources
from mambair.weights.measured import FILE, Measured, measured

Content = Mapping[str, Any]


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = parser.add_subparsers(dest="action", required=True)
    table = actions.add_parser("table", help="Markdown table of one network, of one or several seeds")
    table.add_argument("files", nargs="+", type=Path, metavar="metrics.json")
    record = actions.add_parser("record", help="note what was measured of a network in the package")
    record.add_argument("name", help="of the file in the package, without ending")
    record.add_argument("file", type=Path, metavar="metrics.json")
    record.add_argument("--note", default="", help="what must be known about the scores")
    return parser


def read_metrics(path: Path) -> Content:
    """What a test wrote. Raises UserError for another file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as a test's metrics.json ({error})") from error
    if not isinstance(content, dict) or not {"datasets", "protocol", "weights"} <= content.keys():
        raise UserError(f"{path}: is no metrics.json of a test")
    return content


def scores_of(content: Content) -> dict[str, dict[str, float]]:
    """Means by data set and metric; data sets without ground truth have none."""
    means = {
        dataset: {metric: value for metric, value in scores.items() if isinstance(value, float)}
        for dataset, scores in content["datasets"].items()
    }
    return {dataset: scores for dataset, scores in means.items() if scores}


def check_alike(files: Sequence[Path], contents: Sequence[Content]) -> None:
    """Raise UserError where tests cannot stand in one table: other data sets, another protocol, or the same weights."""
    for path, content in zip(files[1:], contents[1:], strict=True):
        for key, what in (("protocol", "another protocol"), ("datasets", "other data sets or images")):
            one, other = contents[0][key], content[key]
            if key == "datasets":
                one, other = ({name: sorted(s["images"]) for name, s in each.items()} for each in (one, other))
            if one != other:
                raise UserError(f"{path}: has {what} than {files[0]}; tables of seeds need the same test")
    weights = [content["weights"] for content in contents]
    for path, used in zip(files, weights, strict=True):
        if weights.count(used) > 1:
            raise UserError(f"{path}: several files are of the same weights ({used}); a seed counts once")


def shown(metric: str, values: Sequence[float]) -> str:
    """One value, or mean and sample standard deviation."""
    mean = format_value(metric, statistics.fmean(values))
    return mean if len(values) == 1 else f"{mean} ± {format_value(metric, statistics.stdev(values))}"


def make_table(files: Sequence[Path]) -> str:
    """The Markdown table of one network's tests."""
    contents = [read_metrics(path) for path in files]
    check_alike(files, contents)
    scores = [scores_of(content) for content in contents]
    baseline = contents[0].get("baseline")
    metrics = list(dict.fromkeys(metric for each in scores[0].values() for metric in each))
    before = [] if baseline is None else [f"{baseline['name']} {metric.upper()}" for metric in metrics]
    lines = [["", *before, *(metric.upper() for metric in metrics)]]
    for dataset, means in scores[0].items():
        old = {} if baseline is None else baseline["datasets"].get(dataset, {})
        cells = [] if baseline is None else [format_value(metric, old.get(metric)) for metric in metrics]
        cells += [
            shown(metric, [each[dataset][metric] for each in scores]) if metric in means else "-" for metric in metrics
        ]
        lines.append([dataset, *cells])
    table = markdown_table(lines)
    if len(files) > 1:
        table += f"\nMean and standard deviation of {len(files)} seeds.\n"
    return table


def in_words(protocol: Content) -> str:
    """How a test was done, as measured.json says it."""
    metric = next(iter(protocol.get("metrics", {}).values()), {})
    planes = "Y channel" if metric.get("test_y_channel") else "RGB"
    crop = metric.get("crop_border", 0)
    border = f"{crop} pixels cropped at each border" if crop else "nothing cropped"
    tile = protocol.get("tile")
    return f"{planes}, {border}, {'images whole' if tile in (None, 'none') else f'tiles: {tile}'}"


def record(name: str, path: Path, note: str) -> Path:
    """Write one network's scores into shipped/measured.json; returns its path.

    Raises UserError where the test was not of the file in the package.
    """
    shipped = sources.shipped_weights()
    if name not in shipped:
        raise UserError(f"{name}: is not in the package; there are {', '.join(shipped) or 'none'}")
    content = read_metrics(path)
    used = str(content["weights"])
    if used != name and Path(used).resolve() != shipped[name].resolve():
        raise UserError(f"{path}: was measured on {used}; test the file in the package: --weights {name}")
    entry = {"scores": scores_of(content), "protocol": in_words(content["protocol"])} | ({"note": note} if note else {})
    target = sources.SHIPPED_FOLDER / FILE
    earlier = FileMark.of(target)
    entries = {key: as_entry(value) for key, value in measured().items()} | {name: entry}
    with write_unless_changed(target, earlier) as temporary:
        temporary.write_text(json.dumps(dict(sorted(entries.items())), indent=2) + "\n", encoding="utf-8")
    return target


def as_entry(value: Measured) -> dict[str, Any]:
    """As it stands in the file."""
    return {"scores": value.scores, "protocol": value.protocol} | ({"note": value.note} if value.note else {})


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    arguments = build_parser().parse_args(argv)
    if arguments.action == "table":
        print(make_table(arguments.files), end="")
    else:
        print(f"written: {record(arguments.name, arguments.file, arguments.note)}")
    return OK


if __name__ == "__main__":
    sys.exit(main())
