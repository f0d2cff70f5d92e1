"""Texts that PyTorch evaluates: arithmetic passes, whatever could run code does not."""

from __future__ import annotations

import pytest
import sympy

from batcher.models.pytorch import archive_texts
from batcher.models.pytorch.archive_texts import is_guard, is_size

CODE = "__import__('os').system('true')"


@pytest.mark.parametrize(
    "text",
    [
        "s0",
        "2*s6",
        "u0 + 1",
        "zuf0",
        "Symbol('s77', integer=True, positive=True)",
        "Mul(Integer(2), Symbol('s0', integer=True))",
        "Pow(Symbol('s0', positive=True), Integer(2))",
        "s0**2 // 3 % 5",
        "GreaterThan(Symbol('u0', integer=True), Integer(0))",
        "StrictLessThan(Symbol('u1'), Integer(9223372036854775807))",
        "Max(1, FloorDiv(s0, 2)) - Min(s0, 4)",
        "And(Eq(Mod(s0, 2), 0), Ne(s1, 1))",
        "Float('0.5', precision=53)",
        "Rational(1, 2)",
        "FloatPow(ToFloat(Symbol('s7', positive=True)), Float('0.5', precision=53))",
        "Pow(s0, Rational(-1, 2))",
        "Where(s0 < 3, s1, -int_oo)",
        "ModularIndexing(s0, 2, 3)",
        "true",
    ],
)
def test_arithmetic_of_sizes_passes(text: str) -> None:
    assert is_size(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        CODE,
        f"s0 or {CODE}",
        "s0.func",
        "Symbol('s0').func",
        "Symbol(s0).__class__",
        "(lambda: 1)()",
        "[s0 for s0 in (1,)]",
        "s0[0]",
        "L['x']",
        "print",
        "print(1)",
        "sympify('1')",
        "Symbol",
        "Max(*s0)",
        "Max(**{})",
        "Symbol('s0', integer=print(1))",
        "Symbol('s0', integer='x')",
        "Symbol('a b')",
        "Symbol('__import__(1)')",
        "Add('print(1)')",
        "Mul('x', 'y')",
        "f'{s0}'",
        "(s0 := 1)",
        "s0 if s1 else print",
        "s0, s1",
        "s0; s1",
        "b'x'",
        "...",
        "None",
        "10 ** 1000",
        "s0 ** s1",
        "(9 ** 64) ** 64",
        "Pow(Pow(9, 64), 64)",
        "PowByNatural(10, 999999999)",
        "LShift(1, 99999999999)",
        "FloatPow(9, Float('1e300'))",
        "FloatPow(9, Float('nan'))",
        "FloatPow(9, Float(print))",
        "1 << 99999999999",
        "1" * 30,
        "(" * 300 + "1" + ")" * 300,
        "1 + " * 10_000 + "1",
        "__import__",
        "s0 @ s1",
        "e0",
    ],
)
def test_what_is_no_arithmetic_of_sizes_does_not_pass(text: str) -> None:
    assert not is_size(text)


@pytest.mark.parametrize(
    "text",
    [
        "L['x'].size()[0] <= 100",
        "(L['x'].size()[0] % 2) == 0",
        "L['inputs']['my-ids'][0].size()[1] == L['mask'].stride()[0]",
        "L['x'].size()[-1] != 1",
        "math.floor(L['x'].size()[0] / 2) + 1 >= 2",
        "torch.sym_float(L['x'].size()[0]) < math.inf",
        "max(2, L['x'].size()[0]) == L['x'].size()[0] and not False",
        "L['mode'] == 'mean'",
        "2 <= L['x'].size()[0] and L['x'].size()[0] <= 4",
    ],
)
def test_conditions_on_the_sizes_of_inputs_pass(text: str) -> None:
    assert is_guard(text)


@pytest.mark.parametrize(
    "text",
    [
        CODE,
        f"L['x'].size()[0] == {CODE}",
        "L['x'].tolist()",
        "L['x'].size().__class__",
        "L['x'].size(print())",
        "L",
        "L()",
        "L.size()",
        "M['x']",
        "math.exp",
        "math.factorial(99)",
        "torch.load('x')",
        "torch.ops.load_library('x')",
        "torch.sym_float.__globals__",
        "L['x'].size()[print()]",
        "L['a\"b'].size()[0] == 1",
        "L['a\\'b'] == 1",
        "L['x'] == 'a\"b'",
        "L['x'] == 1 # + ",
        "L['x'] == 1\n",
        "L['x'] == (1 + \\\n 1)",
        "max(key=print)",
        "open('x', 'w')",
    ],
)
def test_what_could_run_code_in_a_guard_does_not_pass(text: str) -> None:
    assert not is_guard(text)


def test_every_term_that_sympy_has_is_arithmetic_and_no_symbol_is_a_name_of_sympy() -> None:
    known = [getattr(sympy, term) for term in archive_texts._TERMS if hasattr(sympy, term)]
    plain = (sympy.Basic, sympy.logic.boolalg.BooleanAtom)
    assert [term for term in known if isinstance(term, type) and not issubclass(term, plain)] == []
    assert [name for name in vars(sympy) if archive_texts._SYMBOL.fullmatch(name)] == []
