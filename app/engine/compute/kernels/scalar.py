"""Elementary functions on one fp32 number, written so that the compiler turns a loop over them into vector code."""

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic, overload

SERIAL = {"nogil": True, "cache": True, "error_model": "numpy", "fastmath": {"reassoc", "contract", "nsz"}}
INLINE = {**SERIAL, "inline": "always"}


@intrinsic
def float_of_bits(typing, bits):
    """The fp32 number with these 32 bits."""

    def generate(_context, builder, _signature, arguments):
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.int32), generate


@intrinsic
def bits_of_float(typing, number):
    """The 32 bits of an fp32 number."""

    def generate(_context, builder, _signature, arguments):
        return builder.bitcast(arguments[0], ir.IntType(32))

    return types.int32(types.float32), generate


def _rounding(name):
    """An instruction of LLVM's that rounds fp32: numba's own calls a function, which no loop over vectors can."""

    @intrinsic
    def rounded(typing, number):
        def generate(_context, builder, _signature, arguments):
            kind = ir.FloatType()
            function = builder.module.globals.get(name)
            if function is None:
                function = ir.Function(builder.module, ir.FunctionType(kind, [kind]), name)
            return builder.call(function, arguments)

        return types.float32(types.float32), generate

    return rounded


floor = _rounding("llvm.floor.f32")
nearest = _rounding("llvm.rint.f32")
"""To the nearest whole number, half to even."""


@njit(**INLINE)
def exp(x):
    """e^x to about one part in 10^7; 0 below -87, NaN stays NaN."""
    above = np.float32(-87.0) if x < np.float32(-87.0) else x
    z = (np.float32(88.0) if above > np.float32(88.0) else above) * np.float32(1.44269504)
    whole = floor(z + np.float32(0.5))
    r = z - whole
    p = np.float32(1.5403530e-4)
    p = p * r + np.float32(1.3333558e-3)
    p = p * r + np.float32(9.6181291e-3)
    p = p * r + np.float32(5.5504109e-2)
    p = p * r + np.float32(2.4022651e-1)
    p = p * r + np.float32(6.9314718e-1)
    p = p * r + np.float32(1.0)
    return p * float_of_bits((np.int32(whole) + np.int32(127)) << np.int32(23))


@njit(**INLINE)
def tanh(x):
    """The hyperbolic tangent."""
    return np.float32(1.0) - np.float32(2.0) / (np.float32(1.0) + exp(np.float32(2.0) * x))


@njit(**INLINE)
def gelu_tanh(x):
    """Hendrycks and Gimpel 2016, the tanh form: x * sigmoid(2u), u = sqrt(2/pi) (x + 0.044715 x^3)."""
    u = np.float32(1.5957691216) * (x + np.float32(0.044715) * x * x * x)
    return x / (np.float32(1.0) + exp(-u))


@njit(**INLINE)
def gelu(x):
    """The exact form, with erf by Abramowitz and Stegun 7.1.26 (error below 1.5e-7)."""
    y = abs(x) * np.float32(0.70710678)
    t = np.float32(1.0) / (np.float32(1.0) + np.float32(0.3275911) * y)
    p = np.float32(1.061405429)
    p = p * t + np.float32(-1.453152027)
    p = p * t + np.float32(1.421413741)
    p = p * t + np.float32(-0.284496736)
    p = p * t + np.float32(0.254829592)
    tail = np.float32(0.5) * p * t * exp(-y * y)
    return x * (np.float32(1.0) - tail) if x > np.float32(0.0) else x * tail


@njit(**INLINE)
def gelu_near(x):
    """gelu to 10^-4, for what is held in 8 bits next: max(x, 0) - y (1/2 - y P(y^2)), y = |x| or the edge.

    P is that polynomial of degree 7 whose largest error is least, among those that give 0 at the edge.
    """
    y = np.float32(4.25) if abs(x) > np.float32(4.25) else abs(x)
    s = y * y
    p = np.float32(-8.460362419e-10)
    p = p * s + np.float32(7.570799930e-08)
    p = p * s + np.float32(-2.938793131e-06)
    p = p * s + np.float32(6.552695734e-05)
    p = p * s + np.float32(-9.404465280e-04)
    p = p * s + np.float32(9.257818850e-03)
    p = p * s + np.float32(-6.545349172e-02)
    p = p * s + np.float32(3.984200384e-01)
    above = x if x > np.float32(0.0) else np.float32(0.0)
    return above - y * (np.float32(0.5) - y * p)


@njit(**INLINE)
def gelu_tanh_near(x):
    """gelu_tanh to 10^-4, see gelu_near."""
    y = np.float32(4.0) if abs(x) > np.float32(4.0) else abs(x)
    s = y * y
    p = np.float32(-1.138293922e-09)
    p = p * s + np.float32(9.572268131e-08)
    p = p * s + np.float32(-3.494601181e-06)
    p = p * s + np.float32(7.352126642e-05)
    p = p * s + np.float32(-1.003041126e-03)
    p = p * s + np.float32(9.508940459e-03)
    p = p * s + np.float32(-6.585300371e-02)
    p = p * s + np.float32(3.984793151e-01)
    above = x if x > np.float32(0.0) else np.float32(0.0)
    return above - y * (np.float32(0.5) - y * p)


@njit(**INLINE)
def power_near(z):
    """2^z to 10^-4 for z at most 0, for what is then held as a bfloat16; 2^-126 below -126, NaN stays NaN."""
    above = np.float32(-126.0) if z < np.float32(-126.0) else z
    whole = nearest(above)
    r = above - whole
    p = np.float32(5.500893e-2)
    p = p * r + np.float32(2.4221098e-1)
    p = p * r + np.float32(6.9328293e-1)
    p = p * r + np.float32(1.0)
    return p * float_of_bits((np.int32(whole) + np.int32(127)) << np.int32(23))


@njit(**INLINE)
def largest(numbers):
    """The largest of at least one number; NaN when there is a NaN with a positive sign.

    Compared as whole numbers of the same order: a compiler may not reorder comparisons of numbers that can be NaN, and
    so would compare one by one.
    """
    most = np.int32(-2147483648)
    for place in range(numbers.size):
        bits = bits_of_float(numbers[place])
        ordered = bits ^ ((bits >> np.int32(31)) & np.int32(0x7FFFFFFF))
        most = ordered if ordered > most else most
    return float_of_bits(most ^ ((most >> np.int32(31)) & np.int32(0x7FFFFFFF)))


@njit(nogil=True, cache=True)
def keep(array):
    """Uses `array`, and does nothing: the compiler frees an array after its last use, and an address is none."""
    return array.size


def number(held):
    """A stored element as fp32: itself, or 16 bits that are a bfloat16."""
    raise NotImplementedError


@overload(number, inline="always")
def _number(held):
    if isinstance(held, types.Float):
        return lambda held: held
    return lambda held: float_of_bits(np.int32(held) << np.int32(16))


def stored(number, like):
    """An fp32 number as an element of the kind of `like`: itself, or rounded (half to even) to a bfloat16's 16 bits."""
    raise NotImplementedError


@overload(stored, inline="always")
def _stored(number, like):
    if isinstance(like, types.Float):
        return lambda number, like: number

    def rounded(number, like):
        bits = bits_of_float(number)
        odd = (bits >> np.int32(16)) & np.int32(1)
        return np.uint16(((bits + np.int32(0x7FFF) + odd) >> np.int32(16)) & np.int32(0xFFFF))

    return rounded
