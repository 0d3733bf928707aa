"""Command lines of QEMUs that other programs and people start: what ``record.py`` records the replies of.

``{pool}`` and ``{run}`` stand for the folders of images and sockets, ``{tap}`` for the number of an open tap.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """One way to start QEMU. ``plugs``: QMP commands sent once the firmware has run; ``tap``: name of a tap it gets."""

    name: str
    arguments: tuple[str, ...]
    images: tuple[str, ...] = ()
    plugs: tuple[tuple[str, dict[str, object]], ...] = ()
    tap: str | None = field(default=None)


def _file_nodes(number: int, path: str, *, driver: str = "qcow2", read_only: str = "false") -> list[str]:
    """Nodes as libvirt 9 makes them for an image."""
    storage = f"libvirt-{number}-storage"
    return [
        "-blockdev",
        f'{{"driver":"file","filename":"{path}","node-name":"{storage}","read-only":{read_only},'
        '"auto-read-only":true,"discard":"unmap","cache":{"direct":true,"no-flush":false},"aio":"native"}',
        "-blockdev",
        f'{{"node-name":"libvirt-{number}-format","read-only":{read_only},"discard":"unmap",'
        f'"cache":{{"direct":true,"no-flush":false}},"driver":"{driver}","file":"{storage}"}}',
    ]


def _libvirt_port(number: int) -> list[str]:
    slot, function = 2 + (number - 1) // 8, (number - 1) % 8
    packed = '"multifunction":true,' if function == 0 else ""
    return [
        "-device",
        f'{{"driver":"pcie-root-port","port":{15 + number},"chassis":{number},"id":"pci.{number}","bus":"pcie.0",'
        f'{packed}"addr":"{hex(slot)}{f".{hex(function)}" if function else ""}"}}',
    ]


LIBVIRT = Shape(
    name="libvirt-q35",
    images=("root.qcow2", "data.qcow2", "install.iso"),
    tap="vnet7",
    arguments=(
        *("-name", "guest=web,debug-threads=on"),
        "-S",
        *("-machine", "pc-q35-7.2,usb=off,vmport=off,dump-guest-core=off,memory-backend=pc.ram"),
        *("-accel", "tcg", "-cpu", "qemu64", "-m", "64"),
        *("-object", '{"qom-type":"memory-backend-ram","id":"pc.ram","size":67108864}'),
        *("-overcommit", "mem-lock=off", "-smp", "2,maxcpus=4,sockets=2,dies=1,cores=2,threads=1"),
        *("-uuid", "4dea22b3-1d52-d8f3-2516-782e98ab3fa0", "-no-user-config", "-nodefaults"),
        *("-object", '{"qom-type":"iothread","id":"iothread1"}'),
        *("-chardev", "socket,id=charmonitor,path={run}/monitor.sock,server=on,wait=off"),
        *("-mon", "chardev=charmonitor,id=monitor,mode=control"),
        *("-rtc", "base=utc,driftfix=slew", "-global", "kvm-pit.lost_tick_policy=delay", "-no-shutdown"),
        *("-global", "ICH9-LPC.disable_s3=1", "-global", "ICH9-LPC.disable_s4=1", "-boot", "strict=on"),
        *(each for number in range(1, 15) for each in _libvirt_port(number)),
        *("-device", '{"driver":"qemu-xhci","p2":15,"p3":15,"id":"usb","bus":"pci.2","addr":"0x0"}'),
        *("-device", '{"driver":"virtio-scsi-pci","id":"scsi0","bus":"pci.3","addr":"0x0"}'),
        *("-device", '{"driver":"virtio-serial-pci","id":"virtio-serial0","bus":"pci.4","addr":"0x0"}'),
        *_file_nodes(3, "{pool}/root.qcow2"),
        "-device",
        '{"driver":"virtio-blk-pci","iothread":"iothread1","bus":"pci.5","addr":"0x0","drive":"libvirt-3-format",'
        '"id":"virtio-disk0","bootindex":1,"write-cache":"on","serial":"WD-0001"}',
        *_file_nodes(2, "{pool}/data.qcow2"),
        "-device",
        '{"driver":"scsi-hd","bus":"scsi0.0","channel":0,"scsi-id":0,"lun":0,"device_id":"drive-scsi0-0-0-0",'
        '"drive":"libvirt-2-format","id":"scsi0-0-0-0","write-cache":"on"}',
        *_file_nodes(1, "{pool}/install.iso", driver="raw", read_only="true"),
        *("-device", '{"driver":"ide-cd","bus":"ide.0","drive":"libvirt-1-format","id":"sata0-0-0","bootindex":2}'),
        *("-netdev", '{"type":"tap","fd":"{tap}","id":"hostnet0"}'),
        "-device",
        '{"driver":"virtio-net-pci","netdev":"hostnet0","id":"net0","mac":"52:54:00:8b:1c:07","bus":"pci.1",'
        '"addr":"0x0"}',
        *(
            "-chardev",
            "pty,id=charserial0",
            "-device",
            '{"driver":"isa-serial","chardev":"charserial0","id":"serial0"}',
        ),
        *("-chardev", "socket,id=charchannel0,path={run}/agent.sock,server=on,wait=off"),
        "-device",
        '{"driver":"virtserialport","bus":"virtio-serial0.0","nr":1,"chardev":"charchannel0","id":"channel0",'
        '"name":"org.qemu.guest_agent.0"}',
        *("-display", "none"),
        *("-device", '{"driver":"VGA","id":"video0","vgamem_mb":16,"bus":"pcie.0","addr":"0x1"}'),
        *("-device", '{"driver":"virtio-balloon-pci","id":"balloon0","bus":"pci.6","addr":"0x0"}'),
        *("-object", '{"qom-type":"rng-random","id":"objrng0","filename":"/dev/urandom"}'),
        *("-device", '{"driver":"virtio-rng-pci","rng":"objrng0","id":"rng0","bus":"pci.7","addr":"0x0"}'),
        *("-msg", "timestamp=on"),
    ),
)

PROXMOX = Shape(
    name="proxmox-pc",
    images=("vm-101-disk-0.qcow2", "vm-101-disk-1.raw"),
    tap="tap101i0",
    arguments=(
        *("-name", "web,debug-threads=on", "-no-shutdown"),
        *("-chardev", "socket,id=qmp,path={run}/101.qmp,server=on,wait=off", "-mon", "chardev=qmp,mode=control"),
        *("-smbios", "type=1,uuid=0d8a5f6e-2a55-4d0b-9f0d-6a3b2f7f4b11", "-smp", "2,sockets=1,cores=2,maxcpus=2"),
        *("-nodefaults", "-boot", "menu=on,strict=on,reboot-timeout=1000", "-display", "none"),
        *("-cpu", "qemu64,+aes,enforce", "-m", "64", "-accel", "tcg"),
        *("-device", "pci-bridge,id=pci.1,chassis_nr=1,bus=pci.0,addr=0x1e"),
        *("-device", "pci-bridge,id=pci.2,chassis_nr=2,bus=pci.0,addr=0x1f"),
        *(
            "-device",
            "piix3-usb-uhci,id=uhci,bus=pci.0,addr=0x1.0x2",
            "-device",
            "usb-tablet,id=tablet,bus=uhci.0,port=1",
        ),
        *("-device", "VGA,id=vga,bus=pci.0,addr=0x2"),
        *("-device", "virtio-balloon-pci,id=balloon0,bus=pci.0,addr=0x3,free-page-reporting=on"),
        *("-drive", "if=none,id=drive-ide2,media=cdrom,aio=threads"),
        *("-device", "ide-cd,bus=ide.1,unit=0,drive=drive-ide2,id=ide2,bootindex=101"),
        *("-device", "virtio-scsi-pci,id=scsihw0,bus=pci.0,addr=0x5"),
        "-drive",
        "file={pool}/vm-101-disk-0.qcow2,if=none,id=drive-scsi0,format=qcow2,cache=none,aio=native,discard=on,"
        "detect-zeroes=unmap,iops=500,bps=10485760,bps_max=20971520",
        "-device",
        "scsi-hd,bus=scsihw0.0,channel=0,scsi-id=0,lun=0,drive=drive-scsi0,id=scsi0,bootindex=100",
        "-drive",
        "file={pool}/vm-101-disk-1.raw,if=none,id=drive-virtio1,format=raw,cache=writethrough",
        *("-device", "virtio-blk-pci,drive=drive-virtio1,id=virtio1,bus=pci.0,addr=0xb"),
        *("-netdev", "type=tap,id=net0,fd={tap},vhost=off"),
        *("-device", "virtio-net-pci,mac=BC:24:11:3B:5E:01,netdev=net0,bus=pci.0,addr=0x12,id=net0,bootindex=102"),
        *("-machine", "type=pc"),
    ),
)

_QMP = ("-qmp", "unix:{run}/qmp.sock,server=on,wait=off", "-display", "none")

PLAIN_PC = Shape(
    name="plain-pc", images=("disk.img",), arguments=("-accel", "tcg", "-m", "64", "-hda", "{pool}/disk.img", *_QMP)
)
PLAIN_Q35 = Shape(
    name="plain-q35",
    images=("disk.img",),
    arguments=("-accel", "tcg", "-M", "q35", "-m", "64", "-hda", "{pool}/disk.img", *_QMP),
)

NESTED_PC = Shape(
    name="nested-pc",
    images=("deep.qcow2",),
    arguments=(
        *("-accel", "tcg", "-m", "64", "-nodefaults", *_QMP),
        *(
            "-device",
            "pci-bridge,id=br1,chassis_nr=1,addr=5",
            "-device",
            "pci-bridge,id=br2,chassis_nr=2,bus=br1,addr=3",
        ),
        *("-device", "pci-bridge,chassis_nr=3,bus=br2,addr=7"),
        *("-drive", "file={pool}/deep.qcow2,format=qcow2,if=none,id=deep"),
        *("-device", "pci-bridge,id=br4,chassis_nr=4,bus=br2,addr=8"),
        *("-device", "virtio-blk-pci,drive=deep,id=Deep_Disk,bus=br4,addr=2,serial=deep-1"),
        *("-netdev", "user,id=u0,hostfwd=tcp:127.0.0.1:0-:22"),
        *("-device", "e1000,netdev=u0,id=card,bus=br2,addr=4,mac=52:54:00:00:00:aa"),
    ),
)
NESTED_Q35 = Shape(
    name="nested-q35",
    images=("deep.qcow2",),
    arguments=(
        *("-accel", "tcg", "-M", "q35", "-m", "64", "-nodefaults", *_QMP),
        *("-device", "i82801b11-bridge,id=dmi,addr=1e", "-device", "pcie-pci-bridge,id=pp,addr=3"),
        *(
            "-device",
            "pci-bridge,id=b1,chassis_nr=1,bus=pp,addr=1",
            "-device",
            "pci-bridge,id=b2,chassis_nr=2,bus=b1,addr=2",
        ),
        *("-device", "pci-bridge,id=b3,chassis_nr=3,bus=b2,addr=3"),
        *("-drive", "file={pool}/deep.qcow2,format=qcow2,if=none,id=deep"),
        *("-device", "virtio-blk-pci,drive=deep,id=vda,bus=b3,addr=4"),
        *("-device", "virtio-rng-pci,bus=b2,addr=9"),
    ),
)


def _functions(bus: str) -> tuple[str, ...]:
    return (
        *("-drive", "file={pool}/first.qcow2,format=qcow2,if=none,id=first"),
        *("-device", f"virtio-blk-pci,drive=first,id=blk0,bus={bus},addr=4.0,multifunction=on,serial=first"),
        *(
            "-netdev",
            "user,id=n0",
            "-device",
            f"virtio-net-pci,netdev=n0,id=card0,bus={bus},addr=4.1,mac=52:54:00:00:00:01",
        ),
        *("-device", f"virtio-rng-pci,id=rng0,bus={bus},addr=4.2"),
        *("-device", f"virtio-balloon-pci,id=bal0,bus={bus},addr=4.3"),
    )


FUNCTIONS_PC = Shape(
    name="multifunction-pc",
    images=("first.qcow2",),
    arguments=("-accel", "tcg", "-m", "64", "-nodefaults", *_QMP, *_functions("pci.0")),
)
FUNCTIONS_Q35 = Shape(
    name="multifunction-q35",
    images=("first.qcow2",),
    arguments=("-accel", "tcg", "-M", "q35", "-m", "64", "-nodefaults", *_QMP, *_functions("pcie.0")),
)

IOMMU = Shape(
    name="viommu-q35",
    images=("root.qcow2",),
    arguments=(
        *("-accel", "tcg", "-M", "q35", "-m", "64", "-nodefaults", *_QMP),
        *("-device", "intel-iommu,intremap=on,caching-mode=on,device-iotlb=on"),
        *(
            "-device",
            "ioh3420,id=root.1,chassis=1,slot=1,addr=4",
            "-device",
            "pcie-root-port,id=root.2,chassis=2,addr=5",
        ),
        *("-blockdev", "driver=file,filename={pool}/root.qcow2,node-name=f0"),
        *("-blockdev", "driver=qcow2,file=f0,node-name=q0"),
        *("-device", "virtio-blk-pci,drive=q0,id=vda,bus=root.1,iommu_platform=on,ats=on,disable-legacy=on"),
        *(
            "-netdev",
            "hubport,hubid=3,id=h0",
            "-device",
            "virtio-net-pci,netdev=h0,id=nic0,bus=root.2,iommu_platform=on",
        ),
    ),
)

DIMMS = Shape(
    name="dimms-q35",
    arguments=(
        *("-accel", "tcg", "-M", "q35", "-m", "64,slots=4,maxmem=1G", "-smp", "1,maxcpus=4,cores=4"),
        *("-nodefaults", *_QMP),
    ),
    plugs=(
        ("object-add", {"qom-type": "memory-backend-ram", "id": "mem1", "size": 128 << 20}),
        ("device_add", {"driver": "pc-dimm", "id": "dimm1", "memdev": "mem1"}),
        ("object-add", {"qom-type": "memory-backend-ram", "id": "mem2", "size": 256 << 20}),
        ("device_add", {"driver": "pc-dimm", "memdev": "mem2", "slot": 3}),
        ("device_add", {"driver": "qemu64-x86_64-cpu", "socket-id": 0, "core-id": 1, "thread-id": 0}),
    ),
)
VIRTIO_MEM = Shape(
    name="virtio-mem-pc",
    arguments=(
        *("-accel", "tcg", "-M", "pc", "-m", "128,maxmem=1G", "-smp", "2,maxcpus=3,sockets=3", "-nodefaults", *_QMP),
        *("-object", "memory-backend-ram,id=vmem0,size=512M"),
        *("-device", "virtio-mem-pci,id=vm0,memdev=vmem0,requested-size=64M,addr=6"),
    ),
)

OURS = Shape(
    name="ours-q35",
    images=("root.qcow2", "base.qcow2", "data.raw", "seed.iso"),
    arguments=(
        *("-name", "guest=default/demo,debug-threads=on", "-uuid", "6f1e1b52-7a4d-4a34-9b6e-3a5c1f0d2e11"),
        *("-S", "-no-user-config", "-nodefaults", "-pidfile", "{run}/qemu.pid", "-msg", "timestamp=on"),
        *("-display", "none"),
        *("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"),
        *("-object", '{"qom-type":"memory-backend-ram","id":"ram","size":134217728}', "-m", "size=134217728B"),
        "-machine",
        "type=pc-q35-7.2,usb=off,vmport=off,smm=off,hpet=off,sata=on,dump-guest-core=off,memory-backend=ram",
        *("-accel", "tcg,thread=multi,tb-size=128", "-cpu", "Nehalem-v1"),
        *("-smp", "cpus=2,maxcpus=2,sockets=1,cores=2,threads=1", "-rtc", "base=utc"),
        *("-global", "ICH9-LPC.disable_s3=1", "-global", "ICH9-LPC.disable_s4=1"),
        *("-action", "reboot=reset,shutdown=poweroff,panic=pause,watchdog=poweroff"),
        *("-chardev", "socket,id=qmp,path={run}/qmp,server=on,wait=off"),
        *("-mon", "chardev=qmp,id=monitor-qmp,mode=control"),
        *("-chardev", "socket,id=observer,path={run}/observer,server=on,wait=off"),
        *("-mon", "chardev=observer,id=monitor-observer,mode=control", "-boot", "menu=off,strict=off"),
        *("-chardev", "socket,id=console,path={run}/console,server=on,wait=off,logfile={run}/serial.log,logappend=on"),
        *("-device", '{"driver":"isa-serial","id":"serial","chardev":"console"}'),
        *("-device", '{"driver":"pcie-pci-bridge","id":"pcie-bridge","bus":"pcie.0","addr":"01.0"}'),
        *("-device", '{"driver":"pci-bridge","id":"bridge-0","bus":"pcie-bridge","addr":"01.0","chassis_nr":1}'),
        *(
            each
            for number in range(8)
            for each in (
                "-device",
                f'{{"driver":"pcie-root-port","id":"port-{number}","bus":"pcie.0","addr":"02.{number}",'
                f'"multifunction":true,"chassis":{number + 1},"port":{number}}}',
            )
        ),
        *("-object", '{"qom-type":"iothread","id":"iothread-root"}'),
        *("-device", '{"driver":"virtio-scsi-pci","id":"scsi","bus":"port-3","addr":"00.0"}'),
        "-blockdev",
        '{"driver":"file","node-name":"back-root-file","filename":"{pool}/base.qcow2","aio":"threads",'
        '"read-only":true,"cache":{"direct":false,"no-flush":false},"discard":"unmap"}',
        "-blockdev",
        '{"driver":"qcow2","node-name":"back-root","backing":null,"file":"back-root-file","read-only":true,'
        '"cache":{"direct":false,"no-flush":false},"discard":"unmap"}',
        "-blockdev",
        '{"driver":"file","node-name":"disk-root-file","filename":"{pool}/root.qcow2","aio":"threads",'
        '"read-only":false,"cache":{"direct":false,"no-flush":false},"discard":"unmap"}',
        "-blockdev",
        '{"driver":"qcow2","node-name":"disk-root","backing":"back-root","file":"disk-root-file","read-only":false,'
        '"cache":{"direct":false,"no-flush":false},"discard":"unmap"}',
        "-device",
        '{"driver":"virtio-blk-pci","bus":"port-0","addr":"00.0","iothread":"iothread-root","id":"disk-root",'
        '"drive":"disk-root","serial":"root","write-cache":"on","werror":"stop","rerror":"stop","bootindex":1}',
        "-blockdev",
        '{"driver":"file","node-name":"disk-data-file","filename":"{pool}/data.raw","aio":"threads",'
        '"read-only":false,"cache":{"direct":false,"no-flush":false},"discard":"ignore"}',
        "-blockdev",
        '{"driver":"raw","node-name":"disk-data","file":"disk-data-file","read-only":false,'
        '"cache":{"direct":false,"no-flush":false},"discard":"ignore"}',
        "-device",
        '{"driver":"scsi-hd","bus":"scsi.0","channel":0,"scsi-id":0,"lun":0,"id":"disk-data","drive":"disk-data",'
        '"serial":"data","write-cache":"off","werror":"stop","rerror":"stop"}',
        "-blockdev",
        '{"driver":"file","node-name":"disk-seed-file","filename":"{pool}/seed.iso","aio":"threads",'
        '"read-only":true,"cache":{"direct":false,"no-flush":false},"discard":"unmap"}',
        "-blockdev",
        '{"driver":"raw","node-name":"disk-seed","file":"disk-seed-file","read-only":true,'
        '"cache":{"direct":false,"no-flush":false},"discard":"unmap"}',
        "-device",
        '{"driver":"ide-cd","bus":"ide.0","id":"disk-seed","drive":"disk-seed","serial":"seed","write-cache":"on",'
        '"werror":"stop","rerror":"stop"}',
        *("-netdev", '{"type":"user","id":"net-lan","hostfwd":[{"str":"tcp:127.0.0.1:0-:22"}]}'),
        "-device",
        '{"driver":"virtio-net-pci","id":"nic-lan","netdev":"net-lan","mac":"52:54:00:12:34:01","bus":"port-1",'
        '"addr":"00.0","romfile":""}',
        *("-netdev", '{"type":"hubport","id":"net-lab","hubid":1}'),
        "-device",
        '{"driver":"e1000","id":"nic-lab","netdev":"net-lab","mac":"52:54:00:12:34:02","bus":"bridge-0",'
        '"addr":"01.0","romfile":""}',
        *("-object", '{"qom-type":"rng-random","id":"rng-source","filename":"/dev/urandom"}'),
        *("-device", '{"driver":"virtio-rng-pci","id":"rng","rng":"rng-source","bus":"port-4","addr":"00.0"}'),
        *("-device", '{"driver":"virtio-balloon-pci","id":"balloon","bus":"port-5","addr":"00.0"}'),
        *("-device", '{"driver":"i6300esb","id":"watchdog","bus":"bridge-0","addr":"02.0"}'),
        *("-device", '{"driver":"pvpanic","id":"pvpanic"}'),
    ),
)

SHAPES = (
    LIBVIRT,
    PROXMOX,
    PLAIN_PC,
    PLAIN_Q35,
    NESTED_PC,
    NESTED_Q35,
    FUNCTIONS_PC,
    FUNCTIONS_Q35,
    IOMMU,
    DIMMS,
    VIRTIO_MEM,
    OURS,
)
