"""Disks and network interfaces of the live description as status entries, and back. Pure."""

from guestlet.api.guest_status import DiskStatus, FileSourceStatus, NetworkStatus, SourceStatus
from guestlet.api.network_spec import BridgeSpec, HostForwardSpec, IsolatedSpec, TapSpec, UserSpec
from guestlet.api.quantity import format_bytes, parse_quantity
from guestlet.errors import Broken
from guestlet.qemu.machine import (
    BridgeNet,
    Disk,
    FileSource,
    HostForward,
    IsolatedNet,
    NetBackend,
    Nic,
    TapNet,
    UserNet,
)


def publish_disk(disk: Disk, created_at: str | None) -> DiskStatus:
    """One disk as status has it."""
    source = disk.source
    return DiskStatus(
        name=disk.name,
        bus=disk.bus,
        source=SourceStatus(
            file=FileSourceStatus(
                pool=source.pool,
                image=source.image,
                format=source.format,
                backing_image=source.backing_image,
                backing_format=source.backing_format,
            )
        ),
        size=format_bytes(disk.size_bytes),
        created_at=created_at,
        read_only=disk.read_only,
        cdrom=disk.cdrom,
        serial=disk.serial,
        cache=disk.cache,
        aio=disk.aio,
        discard=disk.discard,
        io_thread=disk.io_thread,
        boot_order=disk.boot_order,
        unit=disk.unit,
    )


def disk_of(status: DiskStatus) -> Disk:
    """The disk that a status entry describes.

    Raises:
        Broken: it names no source.
    """
    source = status.source.file
    if source is None:
        raise Broken("RecordLost", f"status.disks[{status.name}] names no source")
    return Disk(
        name=status.name,
        bus=status.bus,
        source=FileSource(
            pool=source.pool,
            image=source.image,
            format=source.format,
            backing_image=source.backing_image,
            backing_format=source.backing_format,
        ),
        size_bytes=parse_quantity(status.size),
        read_only=status.read_only,
        cdrom=status.cdrom,
        serial=status.serial,
        cache=status.cache,
        aio=status.aio,
        discard=status.discard,
        io_thread=status.io_thread,
        boot_order=status.boot_order,
        unit=status.unit,
    )


def publish_network(nic: Nic) -> NetworkStatus:
    """One interface as status has it."""
    backend = nic.backend
    return NetworkStatus(
        name=nic.name,
        model=nic.model,
        mac_address=nic.mac,
        user=_publish_user(backend) if isinstance(backend, UserNet) else None,
        bridge=BridgeSpec(name=backend.bridge) if isinstance(backend, BridgeNet) else None,
        tap=TapSpec(up_script=backend.up_script, down_script=backend.down_script)
        if isinstance(backend, TapNet)
        else None,
        isolated=IsolatedSpec() if isinstance(backend, IsolatedNet) else None,
        queues=nic.queues,
        link_up=nic.link_up,
        boot_order=nic.boot_order,
        tap_name=nic.tap,
    )


def _publish_user(backend: UserNet) -> UserSpec:
    return UserSpec(
        host_forwards=tuple(
            HostForwardSpec(
                protocol=each.protocol,
                host_address=each.host_address,
                host_port=each.host_port,
                guest_port=each.guest_port,
            )
            for each in backend.host_forwards
        )
    )


def network_of(status: NetworkStatus) -> Nic:
    """The interface that a status entry describes.

    Raises:
        Broken: it names no backend.
    """
    return Nic(
        name=status.name,
        model=status.model,
        mac=status.mac_address,
        backend=_backend_of(status),
        queues=status.queues,
        link_up=status.link_up,
        boot_order=status.boot_order,
        tap=status.tap_name,
    )


def _backend_of(status: NetworkStatus) -> NetBackend:
    if status.user is not None:
        return UserNet(
            host_forwards=tuple(
                HostForward(
                    protocol=each.protocol,
                    host_address=each.host_address,
                    host_port=each.host_port,
                    guest_port=each.guest_port,
                )
                for each in status.user.host_forwards
            )
        )
    if status.bridge is not None:
        return BridgeNet(bridge=status.bridge.name)
    if status.tap is not None:
        return TapNet(up_script=status.tap.up_script, down_script=status.tap.down_script)
    if status.isolated is not None:
        return IsolatedNet()
    raise Broken("RecordLost", f"status.networks[{status.name}] names no backend")
