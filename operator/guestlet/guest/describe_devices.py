"""Disks and network interfaces of the live description as status entries, and back. Pure."""

from guestlet.api.guest_status import (
    BandwidthStatus,
    DiskStatus,
    FileSourceStatus,
    NetworkStatus,
    SourceStatus,
    ThrottleStatus,
)
from guestlet.api.network_spec import BridgeSpec, HostForwardSpec, IsolatedSpec, TapSpec, UserSpec
from guestlet.api.quantity import format_bytes, parse_quantity
from guestlet.errors import Broken
from guestlet.qemu.machine import (
    Bandwidth,
    BridgeNet,
    Disk,
    FileSource,
    HostForward,
    IsolatedNet,
    NetBackend,
    Nic,
    TapNet,
    Throttle,
    UserNet,
)


def publish_disk(disk: Disk, created_at: str | None) -> DiskStatus:
    """One disk as status has it."""
    return DiskStatus(
        name=disk.name,
        bus=disk.bus,
        source=_publish_source(disk.source) if disk.source else None,
        size=format_bytes(disk.size_bytes),
        created_at=created_at,
        read_only=disk.read_only,
        cdrom=disk.cdrom,
        serial=disk.serial,
        cache=disk.cache,
        aio=disk.aio,
        discard=disk.discard,
        io_thread=disk.io_thread,
        throttle=_publish_throttle(disk.throttle) if disk.throttle else None,
        boot_order=disk.boot_order,
        unit=disk.unit,
    )


def _publish_source(source: FileSource) -> SourceStatus:
    return SourceStatus(
        file=FileSourceStatus(
            pool=source.pool,
            image=source.image,
            format=source.format,
            backing_image=source.backing_image,
            backing_format=source.backing_format,
        )
    )


def _publish_throttle(throttle: Throttle) -> ThrottleStatus:
    return ThrottleStatus(
        iops=throttle.iops,
        iops_burst=throttle.iops_burst,
        bandwidth=_publish_bytes(throttle.bandwidth_bytes),
        bandwidth_burst=_publish_bytes(throttle.bandwidth_burst_bytes),
    )


def _publish_bytes(count: int | None) -> str | None:
    return None if count is None else format_bytes(count)


def _bytes_of(text: str | None) -> int | None:
    return None if text is None else parse_quantity(text)


def disk_of(status: DiskStatus) -> Disk:
    """The disk that a status entry describes.

    Raises:
        Broken: it names no source and is no cdrom drive, which may be empty.
    """
    return Disk(
        name=status.name,
        bus=status.bus,
        source=_source_of(status),
        size_bytes=parse_quantity(status.size),
        read_only=status.read_only,
        cdrom=status.cdrom,
        serial=status.serial,
        cache=status.cache,
        aio=status.aio,
        discard=status.discard,
        io_thread=status.io_thread,
        throttle=_throttle_of(status.throttle) if status.throttle else None,
        boot_order=status.boot_order,
        unit=status.unit,
    )


def _source_of(status: DiskStatus) -> FileSource | None:
    source = status.source.file if status.source else None
    if source is None:
        if status.cdrom and status.source is None:
            return None
        raise Broken("RecordLost", f"status.disks[{status.name}] names no source")
    return FileSource(
        pool=source.pool,
        image=source.image,
        format=source.format,
        backing_image=source.backing_image,
        backing_format=source.backing_format,
    )


def _throttle_of(status: ThrottleStatus) -> Throttle:
    return Throttle(
        iops=status.iops,
        iops_burst=status.iops_burst,
        bandwidth_bytes=_bytes_of(status.bandwidth),
        bandwidth_burst_bytes=_bytes_of(status.bandwidth_burst),
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
        bandwidth=_publish_bandwidth(nic.bandwidth) if nic.bandwidth else None,
        boot_order=nic.boot_order,
        tap_name=nic.tap,
    )


def _publish_bandwidth(bandwidth: Bandwidth) -> BandwidthStatus:
    return BandwidthStatus(
        inbound=_publish_bytes(bandwidth.inbound_bytes), outbound=_publish_bytes(bandwidth.outbound_bytes)
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
        bandwidth=_bandwidth_of(status.bandwidth) if status.bandwidth else None,
        boot_order=status.boot_order,
        tap=status.tap_name,
    )


def _bandwidth_of(status: BandwidthStatus) -> Bandwidth:
    return Bandwidth(inbound_bytes=_bytes_of(status.inbound), outbound_bytes=_bytes_of(status.outbound))


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
