"""Random specs as users might write them: wire form, within the bounds of the schema."""

from typing import Any

from hypothesis import strategies as st

from guestlet.qemu.machine import CacheMode, DiscardMode, DiskBus, ImageFormat, NicModel

names = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,30}[a-z0-9])?", fullmatch=True)
images = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.+~@-]{0,40}", fullmatch=True)
sizes = st.builds(lambda count, unit: f"{count}{unit}", st.integers(2, 1000), st.sampled_from(("Mi", "Gi", "G")))


def words(kind: Any) -> st.SearchStrategy[str]:
    return st.sampled_from([member.value for member in kind])


throttles = st.fixed_dictionaries(
    {"iops": st.integers(1, 10**6)},
    optional={"iopsBurst": st.just(10**6), "bandwidth": sizes, "bandwidthBurst": st.just("1Ti")},
)
empty_drives = st.fixed_dictionaries(
    {"name": names, "bus": st.sampled_from(("SATA", "SCSI")), "cdrom": st.just(True), "readOnly": st.just(True)}
)
written_disks = st.fixed_dictionaries(
    {
        "name": names,
        "source": st.fixed_dictionaries(
            {"file": st.fixed_dictionaries({"pool": st.just("default"), "image": images, "format": words(ImageFormat)})}
        ),
    },
    optional={
        "bus": words(DiskBus),
        "size": sizes,
        "serial": st.from_regex(r"[A-Za-z0-9_.+-]{1,20}", fullmatch=True),
        "cache": words(CacheMode),
        "discard": words(DiscardMode),
        "throttle": throttles,
        "bootOrder": st.integers(1, 255),
        "pciAddress": st.from_regex(r"pcie\.0:[01][0-9a-f]\.[0-7]", fullmatch=True),
    },
)
disks = written_disks | empty_drives
backends = st.sampled_from(
    (
        {"user": {}},
        {"user": {"hostForwards": [{"hostPort": 2222, "guestPort": 22}]}},
        {"bridge": {"name": "br0"}},
        {"bridge": {"name": "br0"}, "bandwidth": {"inbound": "10M"}},
        {"tap": {"upScript": "up"}, "bandwidth": {"inbound": "1Mi", "outbound": "1Mi"}},
        {"isolated": {}},
    )
)
networks = st.builds(
    lambda name, model, backend, link: {"name": name, "model": model, "linkUp": link, **backend},
    names,
    words(NicModel),
    backends,
    st.booleans(),
)
specs = st.fixed_dictionaries(
    {},
    optional={
        "nodeName": st.from_regex(r"[a-z0-9]{1,20}", fullmatch=True),
        "paused": st.booleans(),
        "terminationGracePeriodSeconds": st.integers(0, 86400),
        "machine": st.sampled_from(({"type": "q35"}, {"type": "pc"})),
        "cpu": st.fixed_dictionaries({"count": st.integers(1, 255)}, optional={"maxCount": st.just(255)}),
        "memory": st.fixed_dictionaries(
            {"size": st.integers(16, 4096).map(lambda mib: f"{mib}Mi")}, optional={"maxSize": st.just("4Ti")}
        ),
        "disks": st.lists(disks, max_size=5, unique_by=lambda disk: disk["name"]),
        "networks": st.lists(networks, max_size=4, unique_by=lambda network: network["name"]),
        "devices": st.fixed_dictionaries({"rng": st.booleans()}, optional={"watchdog": st.just({"action": "Pause"})}),
        "restart": st.fixed_dictionaries({"token": st.from_regex(r"[A-Za-z0-9_.:+-]{1,40}", fullmatch=True)}),
    },
)
