"""The command lines of the control plane's programs, as values.

It must never start anything or touch a file: control_plane.py does.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sandbox.assets import Assets

# What a cluster without kubelets needs so that namespaces end, owners are collected, Pods get their service account,
# nodes without a Lease turn Unknown, and the aggregated roles (admin, edit, view) include ours.
CONTROLLERS = (
    "clusterrole-aggregation-controller",
    "garbage-collector-controller",
    "namespace-controller",
    "node-lifecycle-controller",
    "root-ca-certificate-publisher-controller",
    "serviceaccount-controller",
    "serviceaccount-token-controller",
    "taint-eviction-controller",
)
PORT_NAMES = ("etcd", "etcd-peer", "kube-apiserver")
TOKEN_ISSUER = "https://kubernetes.default.svc"
AUDIT_POLICY = """\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Metadata
"""
# etcd writes its members' peer address into its data at the first start; a constant keeps the data free of ports.
_PEER_URL = "https://localhost:2380"


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The paths and ports of one control plane."""

    root: Path
    etcd_port: int
    etcd_peer_port: int
    api_port: int

    @property
    def server(self) -> str:
        """The API server's URL."""
        return f"https://127.0.0.1:{self.api_port}"

    @property
    def pki(self) -> Path:
        """The folder of keys and certificates."""
        return pki_directory(self.root)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a caller may choose about a control plane.

    Args:
        audit_log: write one line per request there (Metadata level), None for none.
        unsafe_no_fsync: etcd does not wait for the disk: quick, and lost data only when the machine itself dies.
        api_server_flags: further flags for kube-apiserver, for tests that need it to behave in a certain way.
    """

    audit_log: Path | None = None
    unsafe_no_fsync: bool = True
    api_server_flags: tuple[str, ...] = ()


def data_directory(root: Path) -> Path:
    """The folder for everything that the control plane keeps and people need not see."""
    return root / "control-plane"


def etcd_directory(root: Path) -> Path:
    """The folder of etcd's data, which snapshot.py copies."""
    return data_directory(root) / "etcd"


def pki_directory(root: Path) -> Path:
    """The folder of keys and certificates."""
    return data_directory(root) / "pki"


def etcd_argv(assets: Assets, layout: Layout, options: Options) -> tuple[str, ...]:
    """The command line of etcd: TLS with client certificates, since whoever can talk to etcd owns the cluster."""
    pki, client = layout.pki, f"https://127.0.0.1:{layout.etcd_port}"
    return (
        str(assets.etcd),
        "--name=sandbox",
        f"--data-dir={etcd_directory(layout.root)}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls=https://127.0.0.1:{layout.etcd_peer_port}",
        f"--initial-advertise-peer-urls={_PEER_URL}",
        f"--initial-cluster=sandbox={_PEER_URL}",
        "--client-cert-auth",
        "--peer-client-cert-auth",
        f"--trusted-ca-file={pki / 'ca.crt'}",
        f"--cert-file={pki / 'etcd.crt'}",
        f"--key-file={pki / 'etcd.key'}",
        f"--peer-trusted-ca-file={pki / 'ca.crt'}",
        f"--peer-cert-file={pki / 'etcd.crt'}",
        f"--peer-key-file={pki / 'etcd.key'}",
        "--log-level=warn",
        *(("--unsafe-no-fsync",) if options.unsafe_no_fsync else ()),
    )


def api_server_argv(assets: Assets, layout: Layout, options: Options) -> tuple[str, ...]:
    """The command line of kube-apiserver: RBAC, certificates for the administrator, tokens for service accounts."""
    pki = layout.pki
    return (
        str(assets.kube_apiserver),
        f"--etcd-servers=https://127.0.0.1:{layout.etcd_port}",
        f"--etcd-cafile={pki / 'ca.crt'}",
        f"--etcd-certfile={pki / 'etcd.crt'}",
        f"--etcd-keyfile={pki / 'etcd.key'}",
        "--bind-address=127.0.0.1",
        f"--secure-port={layout.api_port}",
        f"--tls-cert-file={pki / 'kube-apiserver.crt'}",
        f"--tls-private-key-file={pki / 'kube-apiserver.key'}",
        f"--client-ca-file={pki / 'ca.crt'}",
        "--authorization-mode=RBAC",
        "--allow-privileged=true",
        "--service-cluster-ip-range=10.0.0.0/24",
        # A loopback address may not stand in the endpoints of the service "kubernetes".
        "--endpoint-reconciler-type=none",
        # A constant issuer: tokens stay valid when the port has to change.
        f"--service-account-issuer={TOKEN_ISSUER}",
        f"--service-account-key-file={pki / 'service-accounts.pub'}",
        f"--service-account-signing-key-file={pki / 'service-accounts.key'}",
        "--service-account-max-token-expiration=8784h",
        # Open watches would keep it from ending for a minute.
        "--shutdown-watch-termination-grace-period=1s",
        "--profiling=false",
        *_audit_flags(layout, options),
        *options.api_server_flags,
    )


def controller_manager_argv(assets: Assets, layout: Layout, _options: Options) -> tuple[str, ...]:
    """The command line of kube-controller-manager with the few controllers that a sandbox needs."""
    return (
        str(assets.kube_controller_manager),
        f"--kubeconfig={data_directory(layout.root) / 'kube-controller-manager.kubeconfig'}",
        f"--controllers={','.join(CONTROLLERS)}",
        "--leader-elect=false",
        "--use-service-account-credentials=true",
        f"--service-account-private-key-file={layout.pki / 'service-accounts.key'}",
        f"--root-ca-file={layout.pki / 'ca.crt'}",
        # No metrics, no health: one port less that could be taken.
        "--secure-port=0",
    )


def scheduler_argv(assets: Assets, layout: Layout, _options: Options) -> tuple[str, ...]:
    """The command line of kube-scheduler."""
    return (
        str(assets.kube_scheduler),
        f"--kubeconfig={data_directory(layout.root) / 'kube-scheduler.kubeconfig'}",
        "--leader-elect=false",
        "--secure-port=0",
    )


# In the order in which they are started; they are stopped in reverse.
COMPONENTS: tuple[tuple[str, Callable[[Assets, Layout, Options], tuple[str, ...]]], ...] = (
    ("etcd", etcd_argv),
    ("kube-apiserver", api_server_argv),
    ("kube-controller-manager", controller_manager_argv),
    ("kube-scheduler", scheduler_argv),
)


def _audit_flags(layout: Layout, options: Options) -> tuple[str, ...]:
    if options.audit_log is None:
        return ()
    return (
        f"--audit-policy-file={data_directory(layout.root) / 'audit-policy.yaml'}",
        f"--audit-log-path={options.audit_log}",
        # One file for the whole run: whoever counts writes must not lose the first half to rotation.
        "--audit-log-maxsize=1000000",
    )
