"""The two shapes that settings have: a section read from the environment, and a service's own set of sections.

A section is frozen once read. A setting `x` of a section with the prefix `FLUX_KAFKA_` is the variable `FLUX_KAFKA_X`,
unless it names its own as `validation_alias`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pydantic import AfterValidator, BaseModel, ConfigDict, SecretStr
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, SettingsConfigDict


class Section(BaseSettings):
    """Some settings that belong together; subclasses set `env_prefix`."""

    model_config = SettingsConfigDict(
        env_prefix="FLUX_", frozen=True, extra="forbid", populate_by_name=True, hide_input_in_errors=True
    )

    @classmethod
    def env_name(cls, name: str) -> str:
        """Return the environment variable of the setting `name`."""
        info: FieldInfo = cls.model_fields[name]
        prefix = str(cls.model_config.get("env_prefix", ""))
        return info.validation_alias if isinstance(info.validation_alias, str) else f"{prefix}{name}".upper()

    def secret_files(self) -> Iterator[tuple[str, Path]]:
        """Yield each file that holds a secret, with the variable that leads to it."""
        for name, info in type(self).model_fields.items():
            path = getattr(self, name)
            if path is not None and any(isinstance(m, AfterValidator) and m.func is secret_file for m in info.metadata):
                yield self.env_name(name), path

    def unfit(self) -> Iterator[str]:
        """Yield what production refuses of these settings: variable, fault, next step."""
        yield from ()

    def doubtful(self) -> Iterator[str]:
        """Yield what production warns of: legal, and rarely meant."""
        yield from ()


class SectionSet(BaseModel):
    """A base for sets of sections; every field of a subclass is a `Section`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def sections(cls) -> dict[str, type[Section]]:
        """Return the section class of each field, in the order of their declaration."""
        found: dict[str, type[Section]] = {}
        for name, info in cls.model_fields.items():
            if not (isinstance(info.annotation, type) and issubclass(info.annotation, Section)):
                raise TypeError(f"{cls.__name__}.{name} is not a Section; make it a setting of one")
            found[name] = info.annotation
        return found


def read_secret(path: Path) -> SecretStr:
    """Return the text of a secret's file without its last line end.

    Raises OSError if it cannot be read, ValueError if it is empty.
    """
    text = path.read_text("utf-8").rstrip("\r\n")
    if not text:
        raise ValueError(f"{path} is empty; write the secret into it")
    return SecretStr(text)


def secret_file(path: Path | None) -> Path | None:
    """Return `path` if its secret can be read now, or None; raises ValueError if it cannot."""
    if path is not None:
        try:
            read_secret(path)
        except OSError as error:
            raise ValueError(
                f"the file {path} cannot be read ({error.strerror}); mount the secret there, readable by this user"
            ) from None
    return path
