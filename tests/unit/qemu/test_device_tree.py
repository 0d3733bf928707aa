"""``info qtree`` as values."""

from guestlet.qemu.device_tree import parse_device_tree

TEXT = """bus: main-system-bus
  type System
  dev: q35-pcihost, id ""
    bus: pcie.0
      type PCIE
      dev: pcie-root-port, id "port-0"
        chassis = 7 (0x7)
        addr = 02.1
        multifunction = true
        class PCI bridge, addr 00:02.1, pci id 1b36:000c (sub 0000:0000)
        bar 0: mem at 0xfe201000 [0xfe201fff]
        bus: port-0
          type PCIE
          dev: virtio-blk-pci, id "disk-root"
            addr = 00.0
            class SCSI controller, addr 01:00.0, pci id 1af4:1042 (sub 1af4:1100)
            bus: virtio-bus
              type virtio-pci-bus
              dev: virtio-blk-device, id ""
                drive = "disk-root"
                serial = "a = \\"b\\""
  dev: smbus-thing, id ""
    addr = 5 (0x5)
"""


def test_devices_know_their_bus_and_what_makes_it() -> None:
    host, port, disk, back, other = parse_device_tree(TEXT)

    assert (host.makes, host.place, host.bus) == ("pcie.0", "", "")
    assert (port.id, port.bus, port.above, port.makes, port.place) == ("port-0", "pcie.0", host.index, "port-0", "02.1")
    assert (disk.bus, disk.above, disk.vendor, disk.device) == ("port-0", port.index, "1af4", "1042")
    assert (back.above, back.makes, back.place) == (disk.index, None, "")
    assert (other.above, other.place) == (None, "")


def test_properties_are_read_by_their_kind() -> None:
    _, port, disk, back, _ = parse_device_tree(TEXT)

    assert (port.number("chassis"), port.truth("multifunction"), port.number("slot")) == (7, True, None)
    assert (back.text("drive"), back.text("serial"), disk.text("drive")) == ("disk-root", 'a = \\"b\\"', "")
    assert (port.pci_class, back.pci_class) == ("PCI bridge", "")


def test_what_is_no_tree_is_nothing() -> None:
    assert parse_device_tree("") == ()
    assert parse_device_tree('dev: lost, id "x"\nunknown command: qtree\n') == ()
