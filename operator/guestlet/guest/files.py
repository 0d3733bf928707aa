"""Names of the files that a guest has in its state directory on the node."""

SOURCE_FILE = "source.json"
NEXT_SCRIPT = "next.sh"
FORGET_MARK = "forget"
