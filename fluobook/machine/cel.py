"""The Common Expression Language of Talos' disk, volume and link selectors: whether an expression is one, and its type.

It covers what selectors use: fields, comparisons, logic, arithmetic, functions, and the macros over lists. Messages are
those of cel-go, which Talos shows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from fluobook.files import packaged

Fields = Mapping[str, str]
"""The fields of an object and their types."""

_TOKEN = re.compile(
    r"""\s*(?:(?P<double>\d+\.\d+(?:[eE][-+]?\d+)?)|(?P<uint>(?:0x[0-9a-fA-F]+|\d+)[uU])|(?P<int>0x[0-9a-fA-F]+|\d+)
    |(?P<string>[rR]?(?:"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'))|(?P<name>[A-Za-z_]\w*)
    |(?P<operator>\|\||&&|[<>=!]=|[-+*/%<>!?:.,()\[\]{}])|(?P<end>$))""",
    re.VERBOSE,
)
_LEVELS = (("||",), ("&&",), ("<", "<=", ">=", ">", "==", "!=", "in"), ("+", "-"), ("*", "/", "%"))
_VOCABULARY: Mapping[str, Fields] = packaged(__package__, "cel.yaml")
"""The types of names, and of what functions, methods and macros return."""


def problem(text: str, objects: Mapping[str, str | Fields], expected: str = "bool") -> str:
    """Why an expression is not one that gives a value of the expected type; "" if it is.

    Args:
        text: the expression.
        objects: the type of each variable, or the fields of the object that it is.
        expected: the type.
    """
    try:
        result = _Parser(text, objects).whole()
    except _Problem as error:
        at, message = error.args
        return f"ERROR: <input>:1:{at + 1}: {message}\n | {text}\n | {'.' * at}^"
    return "" if result in {expected, "dyn"} else f"expression output type is {result}, expected {expected}"


class _Problem(Exception):
    """A position and what is wrong there."""


class _Parser:
    """A recursive descent over the tokens; each method returns the type of what it read."""

    def __init__(self, text: str, objects: Mapping[str, str | Fields]) -> None:
        self.text, self.objects = text, dict(objects)
        self.at = self.end = 0
        self.kind = self.token = ""
        self._next()

    def whole(self) -> str:
        """The type of the whole text."""
        result = self._ternary()
        if self.kind != "end":
            raise _Problem(self.at, f"Syntax error: extraneous input '{self.token}' expecting <EOF>")
        return result

    def _next(self) -> str:
        previous, match = self.token, _TOKEN.match(self.text, self.end)
        if match is None:
            at = self.end + len(self.text[self.end :]) - len(self.text[self.end :].lstrip())
            raise _Problem(at, f"Syntax error: token recognition error at: '{self.text[at : at + 2]}'")
        self.kind, self.token, self.end = str(match.lastgroup), match[str(match.lastgroup)], match.end()
        self.at = self.end - len(self.token)
        return previous

    def _accept(self, *tokens: str) -> str:
        return self._next() if self.kind in {"operator", "name"} and self.token in tokens else ""

    def _expect(self, token: str) -> None:
        if not self._accept(token):
            raise _Problem(self.at, f"Syntax error: missing '{token}' at '{self.token or '<EOF>'}'")

    def _ternary(self) -> str:
        condition = self._binary(0)
        if not self._accept("?"):
            return condition
        left = self._binary(0)
        self._expect(":")
        right = self._ternary()
        return left if left == right else "dyn"

    def _binary(self, level: int) -> str:
        if level == len(_LEVELS):
            return self._unary()
        left = self._binary(level + 1)
        while True:
            at = self.at
            if not (operator := self._accept(*_LEVELS[level])):
                return left
            right = self._binary(level + 1)
            left = self._applied(at, operator, left, right)

    def _applied(self, at: int, operator: str, left: str, right: str) -> str:
        if operator == "in":
            return "bool"
        logic = operator in {"||", "&&"}
        fits = {left, right} <= {"bool", "dyn"} if logic else left == right or "dyn" in {left, right}
        if not fits or (operator in {"-", "*", "/", "%"} and left in {"string", "bool"}):
            raise _Problem(at, f"found no matching overload for '_{operator}_' applied to '({left}, {right})'")
        return "bool" if logic or operator in _LEVELS[2] else left

    def _unary(self) -> str:
        at = self.at
        if operator := self._accept("!", "-"):
            value = self._unary()
            if operator == "!" and value not in {"bool", "dyn"}:
                raise _Problem(at, f"found no matching overload for '!_' applied to '({value})'")
            return value
        return self._members(*self._primary())

    def _primary(self) -> tuple[str, Fields | None]:
        at, kind = self.at, self.kind
        if kind in {"double", "uint", "int", "string"}:
            self._next()
            return kind, None
        if kind == "name":
            name = self._next()
            if self._accept("("):
                self._arguments(")")
                if name not in _VOCABULARY["functions"]:
                    raise _Problem(at, f"undeclared reference to '{name}' (in container '')")
                return _VOCABULARY["functions"][name], None
            value = {**_VOCABULARY["names"], **self.objects}.get(name)
            if value is None:
                raise _Problem(at, f"undeclared reference to '{name}' (in container '')")
            return (value, None) if isinstance(value, str) else (name, value)
        if self._accept("("):
            value = self._ternary()
            self._expect(")")
            return value, None
        return self._literal(), None

    def _literal(self) -> str:
        """The type of a list or a map."""
        if self._accept("["):
            self._arguments("]")
            return "list"
        if not self._accept("{"):
            problem = "mismatched" if self.kind == "end" else "extraneous"
            expected = "expecting an expression"
            raise _Problem(self.at, f"Syntax error: {problem} input '{self.token or '<EOF>'}' {expected}")
        while not self._accept("}"):
            self._ternary()
            self._expect(":")
            self._ternary()
            if not self._accept(","):
                self._expect("}")
                break
        return "map"

    def _members(self, value: str, fields: Fields | None) -> str:
        while separator := self._accept(".", "["):
            if separator == "[":
                self._arguments("]")
                value, fields = "dyn", None
                continue
            if self.kind != "name":
                raise _Problem(self.at, f"Syntax error: mismatched input '{self.token}' expecting IDENTIFIER")
            at, name = self.at, self._next()
            if self._accept("("):
                if name in _VOCABULARY["macros"] and self.kind == "name":
                    self.objects[self.token] = "dyn"
                self._arguments(")")
                value = {**_VOCABULARY["methods"], **_VOCABULARY["macros"]}.get(name, "")
                if not value:
                    raise _Problem(at - 1, f"undeclared reference to '{name}' (in container '')")
            elif fields is not None and name not in fields:
                raise _Problem(at - 1, f"undefined field '{name}'")
            else:
                value = fields[name] if fields else "dyn"
            fields = None
        return value

    def _arguments(self, end: str) -> None:
        while not self._accept(end):
            self._ternary()
            if not self._accept(","):
                self._expect(end)
                return
