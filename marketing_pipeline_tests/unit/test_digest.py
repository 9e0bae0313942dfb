from collections.abc import Callable
from uuid import UUID, uuid5

import orjson
import pytest
import rfc8785
from hypothesis import example, given
from hypothesis import strategies as st

from marketing_pipeline.domain import digest
from marketing_pipeline.domain.effect import EffectKind

text = st.text(st.characters(codec=None, exclude_categories=()))  # lone surrogates among them
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | text | st.sampled_from(EffectKind),
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(text, inner),
)


def form(canonical: Callable[[object], bytes], value: object) -> bytes | None:
    """None: it cannot be expressed."""
    try:
        return canonical(value)
    except ValueError:
        return None


@given(values)
@example(2**53 - 1)
@example(2**53)
@example(-(2**53))
@example([1e16, 0.1, -0.0])
@example({"\ufb33": 1, "\U0001f600": 2})
@example({"\ud800": 1})
@example("".join(map(chr, range(0xD800))))
def test_every_value_has_the_form_of_rfc_8785(value: object) -> None:
    assert form(digest.canonical, value) == form(rfc8785.dumps, value)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [1e16, 1.0, {"\ufb33": 1, "\U0001f600": 2}, [{"a": [-0.0]}]])
def test_what_is_left_to_rfc8785_would_have_had_another_form(value: object) -> None:
    """The known-bad case: orjson alone."""
    assert orjson.dumps(value, option=orjson.OPT_SORT_KEYS) != digest.canonical(value)


@given(st.lists(st.uuids() | st.integers(-(2**53) + 1, 2**53 - 1) | st.none() | st.text()))
def test_what_names_its_parts_is_the_uuid5_of_their_canonical_form(parts: list[object]) -> None:
    name = rfc8785.dumps([str(one) if isinstance(one, UUID) else one for one in parts])
    assert digest.identity(*parts) == uuid5(digest.NAMESPACE, name.decode())
