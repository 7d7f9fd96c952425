"""One typed tree of settings: tollgate.yaml, then TOLLGATE_* variables, then flags; the later wins.

TOLLGATE_ENGINE__THREADS sets engine.threads; TOLLGATE_METERING__DATABASE_URL_FILE names a file that holds
metering.database_url, so that a secret need not stand in the environment. Each room has a slice of its own and never
sees the rest.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import yaml
from pydantic import Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    YamlConfigSettingsSource,
)
from pydantic_settings.exceptions import SettingsError as BadVariable

from app.admission.settings import LimitSettings
from app.api.settings import ApiSettings
from app.delivery.settings import EventSettings, WebhookSettings
from app.engine.settings import EngineSettings
from app.errors import SettingsError
from app.metering.settings import MeteringSettings
from app.observability.settings import ObservabilitySettings
from app.registry.settings import RegistrySettings

PREFIX = "TOLLGATE_"
FILE_NAME = "tollgate.yaml"
IN_FILE = "_file"
NOT_SETTINGS = frozenset({"TOLLGATE_CONFIG", "TOLLGATE_API_KEY", "TOLLGATE_URL", "TOLLGATE_KERNEL_CACHE"})
"""Variables that others read: the settings' file, a server's address and key, where compiled kernels are kept."""


class Settings(BaseSettings):
    """All settings of a server."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        nested_model_default_partial_update=True,
    )

    home: Path = Field(Path("~/.tollgate"), description="The data folder: database, pepper, cache of models.")
    log_level: str = Field("info", pattern="^(debug|info|warning|error)$", description="Least severity that is logged.")
    log_format: str = Field("text", pattern="^(text|json)$", description="One line an event: for people, or JSON.")
    api: ApiSettings = Field(default_factory=lambda: ApiSettings())
    engine: EngineSettings = Field(default_factory=lambda: EngineSettings.model_validate({}))
    limits: LimitSettings = Field(default_factory=lambda: LimitSettings.model_validate({}))
    metering: MeteringSettings = Field(default_factory=lambda: MeteringSettings.model_validate({}))
    observability: ObservabilitySettings = Field(default_factory=lambda: ObservabilitySettings())
    events: EventSettings = Field(default_factory=lambda: EventSettings.model_validate({}))
    webhooks: WebhookSettings = Field(default_factory=lambda: WebhookSettings.model_validate({}))
    registry: RegistrySettings = Field(default_factory=lambda: RegistrySettings.model_validate({}))

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags (as init values) over variables over the file."""
        assert isinstance(init_settings, InitSettingsSource) and isinstance(env_settings, EnvSettingsSource)
        env_settings.env_vars = with_files_read(env_settings.env_vars)
        flags = dict(cast("dict[str, Any]", init_settings.init_kwargs))
        path = flags.pop("file", None)
        sources: list[PydanticBaseSettingsSource] = [InitSettingsSource(settings_cls, flags), env_settings]
        if path is not None:
            sources.append(YamlConfigSettingsSource(settings_cls, yaml_file=path, yaml_file_encoding="utf-8"))
        return tuple(sources)


def load_settings(flags: dict[str, Any] | None = None, *, file: Path | None = None) -> Settings:
    """Read every source. Raises SettingsError: one line that names the setting.

    `file` (or TOLLGATE_CONFIG) must exist; without either, the working folder's tollgate.yaml is read, if there is one.
    """
    path = file or (Path(found) if (found := os.environ.get("TOLLGATE_CONFIG")) else None)
    if path is not None and not path.is_file():
        raise SettingsError(f"there is no settings file {path}")
    if path is None and Path(FILE_NAME).is_file():
        path = Path(FILE_NAME)
    refuse_unknown_variables()
    try:
        if path is not None:
            refuse_no_mapping(path)
        values: dict[str, Any] = (flags or {}) | ({"file": path} if path else {})
        settings = Settings(**values)
    except ValidationError as cause:
        raise SettingsError(first_fault(cause)) from cause
    except BadVariable as cause:
        raise SettingsError(" ".join(str(cause).split())) from cause
    except (yaml.YAMLError, OSError, ValueError) as cause:  # ValueError: the 13th month, a number of 5,000 digits
        raise SettingsError(f"{path} cannot be read: {' '.join(str(cause).split())}") from cause
    return settings.model_copy(update={"home": settings.home.expanduser().resolve()})


def refuse_no_mapping(path: Path) -> None:
    """Raises SettingsError for YAML that holds anything but names and their values, or what reading it raises."""
    found: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    is_mapping = isinstance(found, dict) and all(isinstance(name, str) for name in cast("dict[Any, Any]", found))
    if found is not None and not is_mapping:
        raise SettingsError(f"{path} must hold settings, as `name: value`")


def with_files_read(variables: Mapping[str, str | None]) -> dict[str, str | None]:
    """The variables (in small letters) with each `…_file` replaced by what it names. Raises SettingsError."""
    read: dict[str, str | None] = {}
    known = {name.lower() for name in known_variables()}
    for name, value in variables.items():
        setting = name.removesuffix(IN_FILE)
        if name in known or setting not in known or value is None:
            read[name] = value
            continue
        if setting in variables:
            raise SettingsError(f"{setting.upper()} and {name.upper()} are both set; keep one")
        try:
            read[setting] = Path(value).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as cause:
            raise SettingsError(f"{name.upper()} names {value}, which cannot be read: {cause}") from cause
    return read


def refuse_unknown_variables() -> None:
    """Raises SettingsError for a TOLLGATE_ variable that sets nothing: it is most likely a typo."""
    known = known_variables()
    known |= {name + IN_FILE.upper() for name in known}
    for name in sorted(os.environ):
        if name.upper().startswith(PREFIX) and name.upper() not in known | NOT_SETTINGS:
            raise SettingsError(f"the variable {name} sets nothing; `tollgate serve --print-config` lists the settings")


def known_variables() -> set[str]:
    """Every variable that sets something."""
    names: set[str] = set()
    for name, info in Settings.model_fields.items():
        names.add(PREFIX + name.upper())
        for inner in getattr(info.annotation, "model_fields", ()):
            names.add(f"{PREFIX}{name}__{inner}".upper())
    return names


def first_fault(error: ValidationError) -> str:
    """The first fault in one line."""
    fault = error.errors(include_url=False, include_context=False)[0]
    place = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        return f"{place} is no setting; `tollgate serve --print-config` lists them"
    if any(word in place for word in ("url", "secret", "token")):
        return f"{place}: {fault['msg']}"
    return f"{place}: {fault['msg']} (got {str(fault['input'])[:100]!r})"


def printed(settings: Settings) -> str:
    """The settings as a tollgate.yaml; what is secret in them is hidden."""
    return yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False)
