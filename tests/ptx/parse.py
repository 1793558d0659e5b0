"""PTX text -> `Module` of `Kernel`s: syntax only, no meaning.

Scopes are resolved here: every register gets a name that is unique in its kernel, every call is replaced by a copy of
the function that it calls, and branch targets become positions in one flat list of instructions.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from .faults import Unsupported


@dataclass(frozen=True)
class Register:
    name: str
    bits: int  # 1 for a predicate


@dataclass(frozen=True)
class Special:
    name: str  # %tid.x, %laneid, ...


@dataclass(frozen=True)
class Immediate:
    value: int  # the number, or the bits of a float
    bits: int | None = None  # 32 or 64 for a float, None for an integer


@dataclass(frozen=True)
class Symbol:
    name: str
    offset: int = 0


@dataclass(frozen=True)
class Address:
    base: Operand
    offset: int


@dataclass(frozen=True)
class Vector:
    items: tuple[Operand, ...]


@dataclass(frozen=True)
class Pair:
    first: Operand
    second: Operand


@dataclass(frozen=True)
class Not:
    register: Operand


@dataclass(frozen=True)
class Sink:
    """The `_` operand: a result that nobody wants."""


@dataclass(frozen=True)
class Names:
    """A parenthesised list, as `call` has it."""

    items: tuple[Symbol, ...]


Operand = Register | Special | Immediate | Symbol | Address | Vector | Pair | Not | Sink | Names


@dataclass(frozen=True)
class Instruction:
    line: int
    text: str
    guard: Register | None
    negated: bool
    opcode: str
    operands: tuple[Operand, ...]


@dataclass(frozen=True)
class Variable:
    """A `.param`, `.shared`, `.local`, `.const` or `.global` declaration; `size` in bytes, None: set by the launch."""

    space: str
    name: str
    type: str
    align: int
    size: int | None
    contents: bytes | None = None


@dataclass(eq=False)
class Kernel:
    """One `.entry` or `.func`. `labels` and `tables` (of `brx.idx`) map names to positions in `body`."""

    name: str
    is_entry: bool
    parameters: list[Variable]
    results: list[Variable]
    max_threads: tuple[int, ...] | None = None
    required_threads: tuple[int, ...] | None = None
    body: list[Instruction] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)
    tables: dict[str, list[str]] = field(default_factory=dict)
    variables: dict[str, Variable] = field(default_factory=dict)


@dataclass
class Module:
    target: str
    kernels: dict[str, Kernel]

    def __getitem__(self, name: str) -> Kernel:
        try:
            return self.kernels[name]
        except KeyError:
            raise KeyError(f"no kernel {name!r}; the module has {sorted(self.kernels)}") from None


def parse(text: str) -> Module:
    """Parses a PTX module as nvcc and Triton write it; raises `Unsupported` at anything else."""
    return _Parser(text).module()


# Everything that carries no meaning for execution: comments, source positions, debug sections.
_NOISE = re.compile(
    r"//[^\n]*|/\*.*?\*/|^[ \t]*\.(?:loc|file)\b[^\n]*|^[ \t]*\.section\s+\.debug_\w+\s*\{[^}]*\}", re.S | re.M
)
_TARGET = re.compile(r"^\s*\.version\s+\d+\.\d+\s+\.target\s+(\w+)[^\n]*\s+\.address_size\s+64\s*$", re.M)
_FUNCTION = re.compile(r"\s*(?:\.(?:visible|weak|extern)\s+)*\.(?:entry|func)\b")
_HEADER = re.compile(
    r"(?:\.(?:visible|weak|extern)\s+)*\.(entry|func)\s+(?:\((?P<results>[^)]*)\)\s*)?(?P<name>[\w$]+)\s*"
    r"(?:\((?P<parameters>[^)]*)\))?(?P<tail>.*)",
    re.S,
)
_VARIABLE = re.compile(
    r"(?:\.(?:visible|weak|extern|common)\s+)*\.(?P<space>param|shared|local|const|global)\s+"
    r"(?:\.align\s+(?P<align>\d+)\s+)?\.(?P<type>[busf](?P<bits>8|16|32|64))\s+"
    r"(?:\.ptr\s+(?:\.(?:global|const|shared|local)\s+)?(?:\.align\s+\d+\s+)?)?"
    r"(?P<name>[\w$]+)\s*(?P<array>\[\s*(?P<count>\d*)\s*\])?\s*(?:=\s*(?P<value>.+))?",
    re.S,
)
_REGISTERS = re.compile(r"\.reg\s+\.(pred|[busf](?:8|16|32|64))\s+(.+)", re.S)
_NUMBER = re.compile(
    r"(-?)(?:0[fF]([0-9a-fA-F]{8})|0[dD]([0-9a-fA-F]{16})|(\d+\.\d+)|(0[xX][0-9a-fA-F]+|[1-9]\d*|0)U?)"
)
_SPECIAL = re.compile(r"%(?:(?:tid|ntid|ctaid|nctaid)\.[xyz]|laneid|lanemask_(?:eq|lt|le|gt|ge))")
_TAIL = re.compile(r"\.(maxntid|reqntid|minnctapersm|maxnreg)\s+(\d+(?:\s*,\s*\d+)*)")


class _Parser:
    def __init__(self, text: str):
        self.text = _NOISE.sub(lambda match: "\n" * match[0].count("\n"), text)
        self.line = 1
        self.scopes = 0

    def fail(self, what: str) -> Unsupported:
        return Unsupported(f"PTX line {self.line}: {what}")

    def statements(self) -> Iterator[tuple[str, str]]:
        """Yields (delimiter, text) for each `;` statement, `{` header or scope, `}` and `:` label."""
        start = depth = 0
        line = 1
        for match in re.finditer(r"[;{}]|(?<!:):(?!:)", self.text):
            pending = self.text[start : match.start()]
            delimiter = match[0]
            inside = delimiter == "{" and pending.strip() and not _FUNCTION.match(pending)
            if depth or inside:  # braces of a vector operand or an initialiser
                depth += {"{": 1, "}": -1}.get(delimiter, 0)
                continue
            self.line = line + pending[: len(pending) - len(pending.lstrip())].count("\n")
            yield delimiter, pending.strip()
            line += pending.count("\n")
            start = match.end()
        if self.text[start:].strip():
            raise self.fail(f"text after the last statement: {self.text[start:].strip()[:60]!r}")

    def module(self) -> Module:
        target = _TARGET.search(self.text)
        if target is None:
            raise self.fail("expected .version, .target and .address_size 64")
        self.text = self.text[: target.start()] + "\n" * target[0].count("\n") + self.text[target.end() :]
        functions: dict[str, Kernel] = {}
        variables: dict[str, Variable] = {}
        statements = self.statements()
        for delimiter, text in statements:
            header = _HEADER.fullmatch(text)
            if header and delimiter == "{":
                function = self.header(header)
                functions[function.name] = function
                self.body(function, statements)
            elif header and delimiter == ";":
                continue  # a declaration; a call that has nothing else to go to is refused at the call
            elif delimiter == ";":
                variable = self.variable(text)
                variables[variable.name] = variable
            else:
                raise self.fail(f"not understood: {text[:60]!r}")
        for function in functions.values():
            function.variables = {**variables, **function.variables}
        kernels = {name: _inline(function, functions) for name, function in functions.items() if function.is_entry}
        return Module(target[1], kernels)

    def header(self, match: re.Match[str]) -> Kernel:
        limits = {}
        for name, numbers in _TAIL.findall(match["tail"]):
            limits[name] = tuple(int(number) for number in numbers.split(","))
        if _TAIL.sub("", match["tail"]).strip():
            raise self.fail(f"directives not understood: {match['tail'].strip()!r}")

        def variables(text: str | None) -> list[Variable]:
            return [self.variable(part) for part in _split(text or "")]

        return Kernel(
            match["name"],
            match[1] == "entry",
            variables(match["parameters"]),
            variables(match["results"]),
            limits.get("maxntid"),
            limits.get("reqntid"),
        )

    def variable(self, text: str) -> Variable:
        match = _VARIABLE.fullmatch(text.strip())
        if match is None:
            raise self.fail(f"not understood: {text[:80]!r}")
        element = int(match["bits"]) // 8
        size: int | None = element
        if match["array"]:
            size = element * int(match["count"]) if match["count"] else None
        contents = None
        if match["value"]:
            numbers = [self.number(item) for item in _split(match["value"].strip().strip("{}"))]
            contents = b"".join((n.value & ((1 << 8 * element) - 1)).to_bytes(element, "little") for n in numbers)
            contents = contents.ljust(size or 0, b"\0")
        return Variable(match["space"], match["name"], match["type"], int(match["align"] or element), size, contents)

    def body(self, function: Kernel, statements: Iterator[tuple[str, str]]) -> None:
        # Innermost scope last; a scope maps the names declared in it to registers and local parameters.
        scopes: list[dict[str, Register | Symbol]] = [{}]
        label = ""
        for delimiter, text in statements:
            if delimiter == "{" and not text:
                scopes.append({})
                self.scopes += 1
            elif delimiter == "}" and not text:
                scopes.pop()
                if not scopes:
                    return
            elif delimiter == ":":
                if text in function.labels:
                    raise self.fail(f"label {text} twice")
                label = text
                function.labels[text] = len(function.body)
            elif delimiter != ";":
                raise self.fail(f"not understood: {text[:60]!r}")
            elif text.startswith(".reg"):
                self.declare_registers(text, scopes, len(scopes) > 1)
            elif text.startswith(".branchtargets"):
                function.tables[label] = _split(text.removeprefix(".branchtargets"))
            elif text.startswith(".pragma"):
                continue
            elif text.startswith("."):
                variable = self.variable(text)
                unique = variable.name
                if variable.space == "param":
                    unique = f"{variable.name}#{self.scopes}"
                    scopes[-1][variable.name] = Symbol(unique)
                function.variables[unique] = replace(variable, name=unique)
            elif text:
                function.body.append(self.instruction(text, scopes))
        raise self.fail(f"{function.name} does not end")

    def declare_registers(self, text: str, scopes: list[dict[str, Register | Symbol]], nested: bool) -> None:
        match = _REGISTERS.fullmatch(text)
        if match is None:
            raise self.fail(f"not understood: {text!r}")
        bits = 1 if match[1] == "pred" else int(match[1].lstrip("busf"))
        suffix = f"#{self.scopes}" if nested else ""
        for name in _split(match[2]):
            family = re.fullmatch(r"([%\w$]+)<(\d+)>", name)
            names = [f"{family[1]}{i}" for i in range(int(family[2]))] if family else [name]
            for each in names:
                scopes[-1][each] = Register(each + suffix, bits)

    def instruction(self, text: str, scopes: list[dict[str, Register | Symbol]]) -> Instruction:
        match = re.fullmatch(r"(?:@(!?)([%\w$]+)\s+)?([\w.:]+)\s*(.*)", text, re.S)
        if match is None:
            raise self.fail(f"not understood: {text!r}")
        guard = self.operand(match[2], scopes) if match[2] else None
        if guard is not None and not (isinstance(guard, Register) and guard.bits == 1):
            raise self.fail(f"the guard {match[2]} is no predicate")
        operands = tuple(self.operand(part, scopes) for part in _split(match[4]))
        return Instruction(self.line, " ".join(text.split()), guard, match[1] == "!", match[3], operands)

    def operand(self, text: str, scopes: list[dict[str, Register | Symbol]]) -> Operand:
        for scope in reversed(scopes):
            if text in scope:
                return scope[text]

        def several(inner: str) -> tuple[Operand, ...]:
            return tuple(self.operand(part, scopes) for part in _split(inner))

        if text == "_":
            return Sink()
        if text.startswith("["):
            match = re.fullmatch(r"\[\s*([%\w$]+)\s*(?:\+\s*(-?\d+|-?0x[0-9a-fA-F]+)|(-\s*\d+))?\s*\]", text)
            if match is None:
                raise self.fail(f"address not understood: {text}")
            return Address(self.operand(match[1], scopes), int((match[2] or match[3] or "0").replace(" ", ""), 0))
        if text.startswith("{"):
            return Vector(several(text[1:-1]))
        if text.startswith("("):
            return Names(tuple(each for each in several(text[1:-1]) if isinstance(each, Symbol)))
        if "|" in text:
            return Pair(*several(text.replace("|", ",")))
        if text.startswith("!"):
            return Not(self.operand(text[1:], scopes))
        if _NUMBER.fullmatch(text):
            return self.number(text)
        if _SPECIAL.fullmatch(text):
            return Special(text)
        match = re.fullmatch(r"([A-Za-z_$][\w$]*)(?:\s*\+\s*(\d+))?", text)
        if match is None:
            raise self.fail(f"operand not understood or not declared: {text!r}")
        return Symbol(match[1], int(match[2] or 0))

    def number(self, text: str) -> Immediate:
        match = _NUMBER.fullmatch(text.strip())
        if match is None:
            raise self.fail(f"number not understood: {text!r}")
        sign, single, double, decimal, integer = match.groups()
        if decimal:
            single = struct.pack(">f", float(decimal)).hex()
        if single or double:
            bits = 32 if single else 64
            return Immediate(int(single or double, 16) ^ (bool(sign) << (bits - 1)), bits)
        return Immediate(-int(integer, 0) if sign else int(integer, 0))


def _split(text: str) -> list[str]:
    """Splits at the commas outside of brackets."""
    return [part.strip() for part in re.split(r",(?![^\[{(]*[\]})])", text)] if text.strip() else []


def _inline(function: Kernel, functions: dict[str, Kernel], path: tuple[str, ...] = ()) -> Kernel:
    """Replaces each call by a copy of its target, so that execution needs no call stack."""
    if function.name in path:
        raise Unsupported(f"recursion: {' -> '.join((*path, function.name))}")
    if not any(each.opcode.startswith("call") for each in function.body):
        return function
    positions = {}  # old position -> new position
    result = replace(function, body=[], labels={}, tables=dict(function.tables), variables=dict(function.variables))
    for position, instruction in enumerate(function.body):
        positions[position] = len(result.body)
        if not instruction.opcode.startswith("call"):
            result.body.append(instruction)
            continue
        names = [each for each in instruction.operands if isinstance(each, Symbol)]
        if instruction.guard or len(names) != 1 or names[0].name not in functions:
            raise Unsupported(f"PTX line {instruction.line}: call not understood: {instruction.text}")
        callee = _inline(functions[names[0].name], functions, (*path, function.name))
        lists = [each.items for each in instruction.operands if isinstance(each, Names)]
        formal = ([callee.results] if callee.results else []) + ([callee.parameters] if callee.parameters else [])
        actual = dict(
            (variable.name, symbol.name)
            for variables, symbols in zip(formal, lists, strict=True)
            for variable, symbol in zip(variables, symbols, strict=True)
        )
        tag = f"@{len(result.body)}"
        offset = len(result.body)
        end = f"return{tag}"
        for each in callee.body:
            each = _rename(each, tag, actual, callee)
            if each.opcode in ("ret", "ret.uni"):
                each = replace(each, opcode="bra", operands=(Symbol(end),))
            result.body.append(each)
        result.labels |= {name + tag: offset + at for name, at in callee.labels.items()}
        result.labels[end] = len(result.body)
        result.tables |= {name + tag: [each + tag for each in table] for name, table in callee.tables.items()}
        for variable in callee.variables.values():
            name = variable.name + tag if variable.space in ("local", "param") else variable.name
            result.variables[name] = replace(variable, name=name)
    positions[len(function.body)] = len(result.body)
    result.labels |= {name: positions[at] for name, at in function.labels.items()}
    return result


def _rename(instruction: Instruction, tag: str, actual: dict[str, str], callee: Kernel) -> Instruction:
    def renamed(operand: Operand) -> Operand:
        if isinstance(operand, Register):
            return replace(operand, name=operand.name + tag)
        if isinstance(operand, Symbol):
            if operand.name in actual:
                return replace(operand, name=actual[operand.name])
            variable = callee.variables.get(operand.name)
            private = operand.name in callee.labels or (variable and variable.space in ("local", "param"))
            return replace(operand, name=operand.name + tag) if private else operand
        if isinstance(operand, Address):
            return replace(operand, base=renamed(operand.base))
        if isinstance(operand, Vector):
            return Vector(tuple(renamed(item) for item in operand.items))
        if isinstance(operand, Pair):
            return Pair(renamed(operand.first), renamed(operand.second))
        if isinstance(operand, Not):
            return Not(renamed(operand.register))
        return operand

    guard = instruction.guard and replace(instruction.guard, name=instruction.guard.name + tag)
    return replace(instruction, guard=guard, operands=tuple(renamed(each) for each in instruction.operands))
