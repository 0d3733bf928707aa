"""The stable words of conditions: types, and reasons with what each means and what a person should do.

Programs may match on them, so a word here is never changed or reused for something else.
"""

from enum import StrEnum
from typing import Self


class _Described(StrEnum):
    """A word with the sentence that the API reference prints about it."""

    description: str

    def __new__(cls, word: str, description: str = "") -> Self:
        """The member for ``word``; the default of ``description`` is for look-ups by value."""
        member = str.__new__(cls, word)
        member._value_ = word
        member.description = description
        return member


class ConditionType(_Described):
    """What is observed about a guest."""

    READY = "Ready", "The guest runs with everything that was recorded for it (or stands still because it was told to)."
    RECONCILING = "Reconciling", "The program is working towards the spec; nobody need do anything."
    STALLED = "Stalled", "The spec cannot be had until a person acts; the message says how."
    PAUSED = "Paused", "The guest's virtual CPUs stand still."
    RESTART_REQUIRED = (
        "RestartRequired",
        "Fields were changed that take effect at the next start; the message names them.",
    )
    SOFTWARE_EMULATION = "SoftwareEmulation", "TCG, not KVM, executes the guest's instructions."


class Reason(_Described):
    """Why a condition is as it is."""

    # Life
    RUNNING = "Running", "The guest runs."
    STARTING = "Starting", "QEMU is being started."
    STOPPING = "Stopping", "The guest was asked to power down; it is killed when its grace period is over."
    RESTARTING = "Restarting", "A restart was asked for and is under way."
    HALTED = "Halted", "The guest does not run because runStrategy says so."
    COMPLETED = "Completed", "runStrategy Once: the guest ran and ended; it is not started again."
    POWERED_OFF = "PoweredOff", "The guest powered itself off and its runStrategy does not start it again."
    BACK_OFF = "BackOff", "QEMU ended unexpectedly; it is started again after a growing pause."
    TERMINATING = "Terminating", "The object is being deleted: the guest is stopped, then its finalizer is removed."
    UP_TO_DATE = "UpToDate", "Nothing waits: what runs is what the spec asks for."
    FIELDS_WAITING = "FieldsWaiting", "The fields named in the message take effect at the next start."

    # Changes of the running machine
    PLUGGING = "Plugging", "Devices are being plugged into the running guest; nobody need do anything."
    UNPLUGGING = "Unplugging", "The guest was asked to let go of a device; it is gone when the guest has."
    UNPLUG_IGNORED = (
        "UnplugIgnored",
        "The guest did not answer the request to let go of a device; it is asked again when it reboots.",
    )
    UNPLUG_REFUSED = "UnplugRefused", "The guest refused to let go of a device; the message has its word."
    PLUG_FAILED = "PlugFailed", "QEMU refused a device; what was begun was taken away again."
    MIGRATING = "Migrating", "The guest migrates: its machine is not changed meanwhile."
    IMAGE_BUSY = "ImageBusy", "A block job uses the disk; the change is made when it has ended."
    MEMORY_NOT_ALIGNED = "MemoryNotAligned", "The size is no whole number of the blocks that memory is plugged in."
    MEMORY_NOT_TAKEN = "MemoryNotTaken", "The guest did not take the memory that it was offered."
    BANDWIDTH_UNSUPPORTED = "BandwidthUnsupported", "The node's kernel cannot limit traffic in that direction."

    # Placement
    WAITING_FOR_NODE = "WaitingForNode", "No node has been chosen: none is live, or none has room."
    WAITING_FOR_AGENT = "WaitingForAgent", "The guest is placed; its node's agent has not looked at it yet."
    NO_SUCH_NODE = "NoSuchNode", "spec.nodeName names no Node: create it, or create the guest on another."
    NO_LIVE_AGENT = "NoLiveAgent", "The Node exists but no agent renews its Lease there: start one."
    NODE_LOST = (
        "NodeLost",
        "The node's agent is silent; whether the guest runs is not known. Restore or fence the node.",
    )
    AGENT_MISMATCH = "AgentMismatch", "Another agent holds the Lease of this node name; it is named in the message."
    PLACEMENT_ROLLED_BACK = (
        "PlacementRolledBack",
        "The object is older than the node's own record (a restored etcd); the guest is not touched.",
    )
    PLACEMENT_MOVED = "PlacementMoved", "The guest was placed elsewhere meanwhile; this node does nothing."

    # Standing still
    NOT_PAUSED = "NotPaused", "The guest's virtual CPUs may run."
    USER = "User", "spec.paused is true."
    IO_ERROR = (
        "IOError",
        "QEMU stopped the guest because a disk failed or is full; mend it, set paused true, then false.",
    )
    GUEST_PANICKED = "GuestPanicked", "The guest's kernel reported a panic; restart it."
    WATCHDOG = "Watchdog", "The guest's watchdog fired and its action is Pause; restart the guest."

    # Storage
    NO_SUCH_POOL = "NoSuchPool", "The node has no pool of that name: name another, or add it to the node's settings."
    POOL_NOT_READY = "PoolNotReady", "The pool's identity file is missing (not mounted?); nothing is created there."
    IMAGE_MISSING = "ImageMissing", "The image does not exist, or existed and is gone; it is never created again blank."
    IMAGE_IN_USE = "ImageInUse", "Another guest of the node uses the image."
    IMAGE_FORMAT_MISMATCH = "ImageFormatMismatch", "The image is not of the declared format."
    IMAGE_NAME_REFUSED = "ImageNameRefused", "The image is not a plain file inside the pool."
    IMAGE_SIZE_MISMATCH = "ImageSizeMismatch", "The image is larger than size: an image is never shrunk."
    IMAGE_CORRUPT = "ImageCorrupt", "The image cannot be read as its format."
    BACKING_IMAGE_MISSING = "BackingImageMissing", "The backing image does not exist in the pool."
    BACKING_IMAGE_MISMATCH = "BackingImageMismatch", "The image has another backing image than the one declared."
    NO_SPACE = "NoSpace", "The pool is full; what was begun was removed."

    # Network
    NO_SUCH_BRIDGE = "NoSuchBridge", "The node has no bridge of that name."
    BRIDGE_NOT_ALLOWED = "BridgeNotAllowed", "The node's settings do not allow guests on that bridge."
    NO_SUCH_SCRIPT = "NoSuchScript", "The node's scripts directory has no executable file of that name."
    SCRIPT_FAILED = "ScriptFailed", "A tap script failed or took too long; the message has the end of its output."
    TAP_FAILED = "TapFailed", "The node could not make the tap."
    HOST_PORT_TAKEN = "HostPortTaken", "A host forward's port is taken on the node."

    # What the machine is made of
    INVALID_SPEC = "InvalidSpec", "The object holds a value that this program cannot read; the message names it."
    NAME_TOO_LONG = "NameTooLong", "metadata.name is longer than 63 characters."
    MACHINE_TYPE_MISSING = "MachineTypeMissing", "The node's QEMU does not have the machine type."
    UNKNOWN_CPU_MODEL = "UnknownCpuModel", "The node's QEMU does not have the CPU model."
    DEVICE_MISSING = "DeviceMissing", "The node's QEMU does not have a device the guest needs."
    FIRMWARE_MISSING = "FirmwareMissing", "The node has no UEFI firmware image: install ovmf."
    INSUFFICIENT_MEMORY = "InsufficientMemory", "The guest's memory is more than the node has or has left."
    INSUFFICIENT_CPUS = "InsufficientCpus", "The guest has more virtual CPUs than the node has CPUs."
    ACCELERATOR_MISSING = "AcceleratorMissing", "KVM was asked for and the node cannot use /dev/kvm."

    # Accelerator (SoftwareEmulation)
    HARDWARE_ACCELERATED = "HardwareAccelerated", "KVM executes the guest's instructions."
    TCG_FASTER = "TcgFaster", "KVM is there but was timed slower than TCG on this node."
    KVM_MISSING = "KvmMissing", "The node has no usable /dev/kvm."
    TCG_REQUESTED = "TcgRequested", "spec.accelerator asks for TCG."

    # PCI
    PCI_ADDRESS_TAKEN = "PciAddressTaken", "An explicit pciAddress is taken by another device or a controller."
    PCI_ADDRESS_REFUSED = "PciAddressRefused", "An explicit pciAddress is the machine's own, or on no bus of it."
    PCI_EXHAUSTED = "PciExhausted", "No address is left; the message names the limit."
    PCI_MISMATCH = "PciMismatch", "QEMU's devices are not where they were recorded."
    LAYOUT_UNKNOWN = "LayoutUnknown", "The guest's firmware had not numbered the buses by the deadline."
    ADDRESSES_PENDING = "AddressesPending", "The guest's firmware has not numbered the buses yet."

    # QEMU
    QEMU_MISSING = "QemuMissing", "The node has no QEMU."
    LAUNCH_FAILED = "LaunchFailed", "QEMU could not be started."
    QEMU_EXITED = "QemuExited", "QEMU ended; status.lastExit has the end of its log."
    QEMU_SILENT = "QemuSilent", "QEMU did not open or answer its monitor by the deadline."
    QEMU_UNKNOWN = "QemuUnknown", "A command may or may not have taken effect; QEMU is being asked."
    RECORD_LOST = "RecordLost", "The node's record of the guest is gone or unreadable."
    HOST_FAILURE = "HostFailure", "The node failed in a way no spec can mend; the message has the cause."

    # The program itself: in its log and its metrics; in a condition only if the guest waits for a person because of it
    RECORD_UNREADABLE = "RecordUnreadable", "The node's record of the guest cannot be read by this version."
    STATE_DIRECTORY_IN_USE = "StateDirectoryInUse", "Another agent works with the same state directory."
    INVALID_SETTINGS = "InvalidSettings", "The settings file cannot be understood; the message says where."
    RUNTIME_DIR_TOO_LONG = "RuntimeDirTooLong", "The runtime directory's path leaves no room for a socket's name."
    IMAGE_EXISTS = "ImageExists", "An image of that name appeared while it was being created; it is left alone."
    LAUNCH_REFUSED = "LaunchRefused", "The node refused to run QEMU."
    QMP_REFUSED = "QmpRefused", "QEMU refused a command."
    LEASE_HELD_BY_ANOTHER = "LeaseHeldByAnother", "Another agent or controller holds the Lease."
    CONFLICT = "Conflict", "The object changed meanwhile; it is read again."
    INVALID = "Invalid", "The API server refused what was sent."
    UNAUTHORIZED = "Unauthorized", "The API server does not know who we are: renew the token."
    FORBIDDEN = "Forbidden", "The API server does not allow it: apply manifests/base."
    KIND_MISSING = "KindMissing", "The API server does not serve the kind: apply crds/."
    API_UNAVAILABLE = "ApiUnavailable", "The API server cannot be reached or is overloaded; it is tried again."
    API_ANSWER = "ApiAnswer", "The API server's answer makes no sense."
    CREDENTIALS_MISSING = "CredentialsMissing", "There is no kubeconfig and no service account, or it cannot be read."
    CREDENTIALS_UNSUPPORTED = "CredentialsUnsupported", "The kubeconfig logs in by a way that is not supported."
