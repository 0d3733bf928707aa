"""A node's and the controller's settings (node.yaml), validated once at start. No effects beyond reading the file."""

from pathlib import Path
from typing import Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel
from pydantic_settings import BaseSettings, SettingsConfigDict

from guestlet.errors import Refused


class PoolSettings(BaseModel):
    """A directory pool of the node."""

    model_config = ConfigDict(extra="forbid", alias_generator=to_camel, populate_by_name=True)

    name: str = Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$")
    path: Path


class AgentSettings(BaseSettings):
    """What ``guestlet agent --config node.yaml`` reads; keys may also come as ``GUESTLET_…`` in the environment."""

    model_config = SettingsConfigDict(
        extra="forbid", alias_generator=to_camel, populate_by_name=True, env_prefix="GUESTLET_"
    )

    node_name: str = Field(min_length=1, max_length=63)
    state_dir: Path
    runtime_dir: Path = Field(description="sockets; short, because a Unix socket's path has at most 107 bytes")
    pools: tuple[PoolSettings, ...] = ()
    allowed_bridges: tuple[str, ...] = ()
    scripts_dir: Path | None = None
    script_timeout_seconds: float = Field(default=10, gt=0, le=300)
    firmware_dirs: tuple[Path, ...] = (Path("/usr/share/OVMF"), Path("/usr/share/edk2/x64"))
    qemu_binary: Path = Path("/usr/bin/qemu-system-x86_64")
    qemu_img: Path = Path("/usr/bin/qemu-img")
    qemu_data_dirs: tuple[Path, ...] = ()
    qemu_module_dir: Path | None = None
    qemu_uid: int = Field(default=64055, ge=1, description="QEMU's numeric uid; needs no passwd entry")
    qemu_gid: int = Field(default=64055, ge=1)
    memory_reserved: str = "512Mi"
    register_node: bool = False
    kubeconfig: Path | None = Field(default=None, description="absent: the Pod's service account")
    system_namespace: str = "guestlet-system"
    http_address: str = "127.0.0.1"
    http_port: int = Field(default=0, ge=0, le=65535, description="/healthz, /readyz, /metrics; 0: a free one")
    log_format: Literal["auto", "json", "text"] = "auto"
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    resync_seconds: float = Field(default=300, ge=5)
    qmp_greeting_timeout_seconds: float = Field(default=30, ge=1, description="a QEMU silent for longer is killed")


class ControllerSettings(BaseSettings):
    """What ``guestlet controller`` reads."""

    model_config = SettingsConfigDict(
        extra="forbid", alias_generator=to_camel, populate_by_name=True, env_prefix="GUESTLET_"
    )

    kubeconfig: Path | None = None
    system_namespace: str = "guestlet-system"
    http_address: str = "127.0.0.1"
    http_port: int = Field(default=0, ge=0, le=65535)
    log_format: Literal["auto", "json", "text"] = "auto"
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    resync_seconds: float = Field(default=300, ge=5)
    lease_stale_seconds: float = Field(default=40, ge=5, description="an agent silent for longer is lost")


Settings = TypeVar("Settings", bound=BaseSettings)


def load_agent_settings(path: Path) -> AgentSettings:
    """The settings of one node.

    Raises:
        Refused: InvalidSettings, the message names the file and each wrong key.
    """
    return _load(AgentSettings, path)


def load_controller_settings(path: Path | None) -> ControllerSettings:
    """The settings of the controller; all have defaults.

    Raises:
        Refused: InvalidSettings, the message names the file and each wrong key.
    """
    return _load(ControllerSettings, path) if path else ControllerSettings()


def _load(kind: type[Settings], path: Path) -> Settings:
    try:
        return kind(**(yaml.safe_load(path.read_text()) or {}))
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
        raise Refused("InvalidSettings", f"{path}: {wrong}") from error
    except (OSError, yaml.YAMLError, TypeError) as error:
        raise Refused("InvalidSettings", f"{path}: {error}") from error
