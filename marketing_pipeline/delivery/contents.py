"""What an effect says: its content, from the inputs that the ledger keeps of its rendering."""

from collections.abc import Iterable, Mapping
from typing import Any, Protocol, assert_never

from psycopg import AsyncConnection

from marketing_pipeline.campaigns import meaning, rendering
from marketing_pipeline.campaigns.meaning import Meaning
from marketing_pipeline.domain.effect import Contact, Content, EffectKind, Post
from marketing_pipeline.domain.template import Template
from marketing_pipeline.event_log import versions


class Inputs(Protocol):
    """What the ledger holds of a rendering."""

    @property
    def kind(self) -> str: ...
    @property
    def template(self) -> str | None: ...
    @property
    def variables(self) -> Mapping[str, Any]: ...
    @property
    def config_digest(self) -> str: ...
    @property
    def address(self) -> str | None: ...


class Contents:
    """Renders effects by the configuration and template they were planned with, however old."""

    def __init__(self) -> None:
        self._meanings: dict[str, Meaning] = {}
        self._templates: dict[str, Template] = {}

    async def prepare(self, conn: AsyncConnection, effects: Iterable[Inputs]) -> None:
        """Load the configurations and templates that these effects need and are not here yet."""
        digests: set[str] = set()
        hashes: set[str] = set()
        for effect in effects:
            digests.add(effect.config_digest)
            if effect.template is not None:
                hashes.add(effect.template)
        for digest in digests:
            await self.meaning(conn, digest)
        if missing := hashes - self._templates.keys():
            for template in await versions.templates(conn, sorted(missing)):
                self._templates[template.hash] = template

    async def meaning(self, conn: AsyncConnection, digest: str) -> Meaning:
        """What a version of the operator's file meant, read once."""
        if digest not in self._meanings:
            self._meanings[digest] = meaning.of(await versions.config(conn, digest))
        return self._meanings[digest]

    def of(self, effect: Inputs) -> Content:
        """The content of a prepared effect.

        Raises:
            TemplateError: its template fails on its variables.
        """
        kind = EffectKind(effect.kind)
        match kind:
            case EffectKind.EMAIL:
                assert effect.template is not None
                assert effect.address is not None
                return rendering.render(
                    self._templates[effect.template],
                    effect.variables,
                    self._meanings[effect.config_digest].sender,
                    effect.address,
                )
            case EffectKind.CONTACT:
                assert effect.address is not None
                return Contact(email=effect.address, properties=dict(effect.variables))
            case EffectKind.POST:
                return Post(body=dict(effect.variables))
            case _:
                assert_never(kind)
