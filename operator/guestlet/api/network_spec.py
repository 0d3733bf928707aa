"""What a user may ask of a network interface: the card the guest sees and the backend behind it.

The models hold what was asked, never what was resolved. Rules across several networks stand on the guest's spec.
"""

from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field

from guestlet.api.base import ApiModel
from guestlet.api.cel import CelRule
from guestlet.api.disk_spec import RATE
from guestlet.api.quantity import Quantity
from guestlet.api.text import BridgeName, DeviceName, Ipv4Text, MacText, PciText, ScriptName
from guestlet.qemu.machine import NicModel, Protocol


class HostForwardSpec(ApiModel):
    """A port of the node that leads into the guest."""

    protocol: Protocol = Field(default=Protocol.TCP, description="Transport that is forwarded, TCP or UDP.")
    host_address: Ipv4Text = Field(
        default="127.0.0.1", description="IPv4 address of the node that listens; 0.0.0.0 for all of them."
    )
    host_port: int = Field(description="Port of the node that listens.", ge=1, le=65535)
    guest_port: int = Field(description="Port of the guest that answers.", ge=1, le=65535)


class UserSpec(ApiModel):
    """QEMU's user-mode network: the guest reaches out by the node's own connections, nothing reaches in unasked."""

    host_forwards: tuple[HostForwardSpec, ...] = Field(
        default=(),
        description="Ports of the node that lead into the guest.",
        max_length=16,
        json_schema_extra={
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["protocol", "hostAddress", "hostPort"],
        },
    )


class BridgeSpec(ApiModel):
    """A tap that the agent makes and puts on a bridge of the node."""

    name: BridgeName = Field(
        description="Name of the bridge on the node; the node's settings must allow it. It may change while the guest "
        "runs."
    )


class TapSpec(ApiModel):
    """A tap that the agent makes and hands to scripts of the node, at attach and at detach."""

    up_script: ScriptName | None = Field(
        default=None, description="File name in the node's scripts directory, run when the interface is attached."
    )
    down_script: ScriptName | None = Field(
        default=None, description="File name in the node's scripts directory, run when the interface is detached."
    )


class IsolatedSpec(ApiModel):
    """An interface with link and no peer."""


class BandwidthSpec(ApiModel):
    """Limits of an interface, in the directions that the guest sees; changed while the guest runs."""

    inbound: Annotated[Quantity, AfterValidator(RATE.check)] | None = Field(
        default=None, description="Bytes a second towards the guest.", json_schema_extra=RATE.schema
    )
    outbound: Annotated[Quantity, AfterValidator(RATE.check)] | None = Field(
        default=None,
        description="Bytes a second from the guest; needs the kernel's act_police and cls_matchall on the node.",
        json_schema_extra=RATE.schema,
    )

    cel_rules: ClassVar = (
        CelRule(
            rule="has(self.inbound) || has(self.outbound)",
            message="bandwidth without inbound and outbound says nothing: set one, or remove bandwidth",
        ),
    )


class NetworkSpec(ApiModel):
    """One network interface; exactly one of user, bridge, tap and isolated is set."""

    name: DeviceName = Field(description="Name of the network, unique among the guest's networks; status uses it too.")
    model: NicModel = Field(default=NicModel.VIRTIO, description="The card the guest sees, Virtio or E1000.")
    mac_address: MacText | None = Field(
        default=None,
        description="MAC address, unique in the guest; absent: one is generated once and kept in status.",
    )
    user: UserSpec | None = Field(default=None, description="QEMU's user-mode network, with ports forwarded on demand.")
    bridge: BridgeSpec | None = Field(default=None, description="A tap on a bridge of the node.")
    tap: TapSpec | None = Field(default=None, description="A tap handed to scripts of the node.")
    isolated: IsolatedSpec | None = Field(default=None, description="An interface with link and no peer.")
    queues: int = Field(
        default=1,
        description="Pairs of transmit and receive queues; more than one needs model Virtio on a bridge or tap.",
        ge=1,
        le=16,
    )
    link_up: bool = Field(
        default=True, description="Whether the guest sees the cable plugged in; may change while it runs."
    )
    bandwidth: BandwidthSpec | None = Field(
        default=None, description="Limits of the interface, of a bridge or tap only; absent: none."
    )
    boot_order: int | None = Field(
        default=None,
        description="Place in the firmware's boot order, lowest first, unique over disks and networks.",
        ge=1,
        le=255,
    )
    pci_address: PciText | None = Field(
        default=None,
        description="Place of the card as <bus id>:<slot>.<function>, such as pcie.0:05.0; honoured exactly or "
        "refused. Absent: placed once and kept in status.pci.",
    )

    cel_rules: ClassVar = (
        CelRule(
            rule="[has(self.user), has(self.bridge), has(self.tap), has(self.isolated)].filter(x, x).size() == 1",
            message="set exactly one of user, bridge, tap and isolated",
            expression="'network ' + self.name "
            "+ ': set exactly one of user, bridge, tap and isolated (isolated: {} for a link without a peer)'",
        ),
        CelRule(
            rule="self.queues == 1 || self.model == 'Virtio'",
            message="more than one queue needs model Virtio: set model to Virtio, or queues to 1",
            field_path=".queues",
        ),
        CelRule(
            rule="self.queues == 1 || has(self.bridge) || has(self.tap)",
            message="more than one queue needs a bridge or a tap: set bridge or tap, or queues to 1",
            field_path=".queues",
        ),
        CelRule(
            rule="!has(self.bandwidth) || has(self.bridge) || has(self.tap)",
            message="bandwidth needs a bridge or a tap: set bridge or tap, or remove bandwidth",
            field_path=".bandwidth",
        ),
    )
