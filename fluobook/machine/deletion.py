"""`$patch: delete` in a patch: takes a map, a key, an item of a list or a whole document out of a configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fluobook.errors import ParamsError

if TYPE_CHECKING:
    from fluobook.machine.documents import Document

_MARK, _VERB = "$patch", "delete"
_HEAD = frozenset({"version", "apiVersion", "kind", "name"})
#: Maps that Talos leaves out when they are empty. Structures stay as `{}`.
_VANISHING_MAPS = frozenset(
    [
        *["env", "extraArgs", "extraManifestHeaders", "extraTags", "mirrors", "sysctls", "sysfs"],
        *["nodeAnnotations", "nodeLabels", "nodeTaints"],
    ]
)
_GONE = object()


@dataclass(frozen=True)
class Deletion:
    """One thing to delete: the keys that lead to it, and for an item of a list the field that tells it."""

    path: tuple[str, ...]
    field: str = ""
    value: Any = None

    def __str__(self) -> str:
        """The place, as a person writes it."""
        where = ".".join(self.path) or "the document"
        return f"{where}[{self.field}={self.value}]" if self.field else where


def split(change: Document) -> tuple[list[Deletion], Document | None]:
    """What a patch's document deletes, and the rest of it that is to be merged; None if nothing is left.

    Raises:
        ParamsError: `$patch` says something other than delete, or stands where Talos does not allow it.
    """
    deletions: list[Deletion] = []
    rest = _cleaned(change, (), deletions, inside_list=False)
    if rest is _GONE:
        return deletions, None
    if set(rest) <= _HEAD and (deletions or not rest.get("kind")):
        return deletions, None
    return deletions, rest


def delete(documents: list[Document], deletion: Deletion, identity: tuple[str, str, str]) -> None:
    """Delete one thing from the documents, in place.

    Raises:
        ParamsError: it is not there.
    """
    kind = " ".join(part for part in identity if part) or "v1alpha1"
    for index, document in enumerate(documents):
        if _identity(document) == identity:
            if not deletion.path:
                _delete_document(documents, index)
            elif not _delete_from(document, deletion):
                break
            return
    raise ParamsError(
        f"the patch deletes {deletion} in {kind}, which is not there",
        remedy="take the `$patch: delete` out of the patch",
    )


def _identity(document: Document) -> tuple[str, str, str]:
    return document.get("apiVersion", ""), document.get("kind", ""), document.get("name", "")


def _delete_document(documents: list[Document], index: int) -> None:
    if not documents[index].get("kind"):
        raise ParamsError("a patch cannot delete the v1alpha1 document")
    del documents[index]


def _delete_from(document: Document, deletion: Deletion) -> bool:
    parents, value = [], document
    for key in deletion.path:
        if not isinstance(value, dict) or value.get(key) is None:
            return False
        parents.append((value, key))
        value = value[key]
    holder, last = parents[-1]
    if deletion.field:
        return _delete_item(holder, last, deletion)
    del holder[last]
    if len(parents) > 1 and not holder and parents[-2][1] in _VANISHING_MAPS:
        del parents[-2][0][parents[-2][1]]
    return True


def _delete_item(holder: Document, key: str, deletion: Deletion) -> bool:
    items = holder[key]
    for index, item in enumerate(items if isinstance(items, list) else []):
        if isinstance(item, dict) and _same(item.get(deletion.field), deletion.value):
            del items[index]
            if not items:
                del holder[key]
            return True
    return False


def _same(one: Any, other: Any) -> bool:
    return one is not None and (one == other or str(one) == str(other))


def _cleaned(value: Any, path: tuple[str, ...], deletions: list[Deletion], *, inside_list: bool) -> Any:
    if isinstance(value, dict):
        return _cleaned_map(value, path, deletions, inside_list=inside_list)
    if isinstance(value, list):
        return _cleaned_list(value, path, deletions)
    return value


def _cleaned_map(value: Document, path: tuple[str, ...], deletions: list[Deletion], *, inside_list: bool) -> Any:
    if _MARK in value:
        deletions.append(_deletion(value, path, inside_list=inside_list))
        return _GONE
    rest = {}
    for key, item in value.items():
        # Below an item of a list Talos deletes nothing: it could not tell which item is meant.
        below = _cleaned(
            item, ("[]", *path, str(key)) if inside_list else (*path, str(key)), deletions, inside_list=False
        )
        if below is not _GONE:
            rest[key] = below
    return rest if rest or not value else _GONE


def _cleaned_list(value: list[Any], path: tuple[str, ...], deletions: list[Deletion]) -> Any:
    items = [_cleaned(item, path, deletions, inside_list=True) for item in value]
    rest = [item for item in items if item is not _GONE]
    return rest if rest or not value else _GONE


def _deletion(value: Document, path: tuple[str, ...], *, inside_list: bool) -> Deletion:
    if value[_MARK] != _VERB:
        raise ParamsError(f"a patch knows only `$patch: delete`, not `$patch: {value[_MARK]}`")
    if path[:1] == ("[]",):
        raise ParamsError(
            f"a patch cannot delete a part of a list's item, as at {'.'.join(path[1:])}",
            remedy="delete the item, and give the new one in the same patch",
        )
    if not inside_list:
        return Deletion(path)
    told = [(key, field) for key, field in value.items() if key != _MARK]
    if not told:
        raise ParamsError(f"the patch does not say which item of {'.'.join(path)} is to go")
    return Deletion(path, *told[0])
