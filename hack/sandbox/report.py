"""The end of `hack/test`: how many tests ran, and which were skipped, with the reason. It must never hide one."""

import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree


def main(folder: Path) -> None:
    """Prints one line a report, then the skips of all."""
    skips = []
    for report in sorted(folder.glob("*.xml")):
        cases = list(ElementTree.parse(report).iter("testcase"))
        print(f"{len(cases):8} tests in {report.stem}")
        skips += list(skipped(cases))
    print(f"{len(skips):8} skipped")
    for name, reason in skips:
        print(f"          {name}: {reason}")


def skipped(cases: list[ElementTree.Element]) -> Iterator[tuple[str, str]]:
    """(test, reason) of each that did not run."""
    for case in cases:
        skip = case.find("skipped")
        if skip is not None:
            yield f"{case.get('classname')}.{case.get('name')}", skip.get("message", "no reason given")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
