"""The kinds of text a user may write, each with the pattern that makes tricks impossible and a message with the remedy.

A file name never holds a slash, a comma, an equals sign, a colon or a leading dot or dash: it cannot leave its pool,
and it cannot become an option of QEMU. Nothing here looks at a file.
"""

from typing import Annotated

from guestlet.api.cel import matching

_FILE = r"^[A-Za-z0-9_][A-Za-z0-9_.+~@-]*$"
_FILE_REMEDY = (
    "give letters, digits and . _ + ~ @ - only, not starting with . or -, at most 128 characters: "
    "no path, no comma, no '=', no ':'"
)

ImageName = Annotated[
    str, matching(_FILE, message=f"must be the plain name of a file inside the pool: {_FILE_REMEDY}", max_length=128)
]
ScriptName = Annotated[
    str,
    matching(
        _FILE,
        message=f"must be the plain name of a file in the node's scripts directory: {_FILE_REMEDY}",
        max_length=128,
    ),
]
DeviceName = Annotated[
    str,
    matching(
        r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
        message="must be a name such as root or data-1: lower-case letters, digits and '-', starting and ending with "
        "a letter or digit, at most 32 characters",
        max_length=32,
    ),
]
PoolName = Annotated[
    str,
    matching(
        r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
        message="must be the name of a pool of the node, such as default: lower-case letters, digits and '-', "
        "at most 63 characters",
        max_length=63,
    ),
]
NodeName = Annotated[
    str,
    matching(
        r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$",
        message="must be the name of a Node as kubectl get nodes prints it",
        max_length=253,
    ),
]
BridgeName = Annotated[
    str,
    matching(
        r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$",
        message="must be the name of a bridge of the node, such as br0: letters, digits and . _ -, "
        "at most 15 characters",
        max_length=15,
    ),
]
MacText = Annotated[
    str,
    matching(
        r"^[0-9a-fA-F][02468aceACE](:[0-9a-fA-F]{2}){5}$",
        message="must be a unicast MAC address such as 52:54:00:12:34:56: six pairs of hexadecimal digits, "
        "the second digit even",
        max_length=17,
    ),
]
PciText = Annotated[
    str,
    matching(
        r"^[A-Za-z][A-Za-z0-9._-]{0,30}:[01][0-9a-f]\.[0-7]$",
        message="must be <bus id>:<slot>.<function>, numbers in lower-case hexadecimal, such as pcie.0:05.0 or "
        "port-2:00.0 (slots 00 to 1f, functions 0 to 7)",
        max_length=36,
    ),
]
SerialText = Annotated[
    str,
    matching(
        r"^[A-Za-z0-9_.+-]+$",
        message="must be 1 to 20 letters, digits or . _ + - (the limit of virtio, SATA and NVMe)",
        max_length=20,
    ),
]
CpuModelName = Annotated[
    str,
    matching(
        r"^[A-Za-z0-9][A-Za-z0-9_.-]*$",
        message="must be a CPU model that the node's QEMU knows, such as Nehalem-v2, or Host or Max; "
        "flags (',+x') are not accepted",
        max_length=64,
    ),
]
Ipv4Text = Annotated[
    str,
    matching(
        r"^((25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])\.){3}(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])$",
        message="must be an IPv4 address of the node, such as 127.0.0.1 (or 0.0.0.0 for all)",
        max_length=15,
    ),
]
RestartToken = Annotated[
    str,
    matching(
        r"^[A-Za-z0-9_.:+-]+$",
        message="must be 1 to 128 letters, digits or . _ : + -, such as a date (2026-11-23T19:00:00Z)",
        max_length=128,
    ),
]
KernelCommandLine = Annotated[
    str,
    matching(
        r"^[^\x00-\x1f]*$",
        message="must be one line of text without control characters, at most 2047 characters",
        max_length=2047,
        min_length=0,
    ),
]
