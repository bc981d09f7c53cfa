"""Counts, times, FLOPs, energies and sums of money as people read them: one format a kind."""


def count(number: float) -> str:
    """A whole number of things.

    >>> count(1_260_000.0)
    '1,260,000'
    """
    return f"{number:,.0f}"


def duration(seconds: float) -> str:
    """A time that was measured.

    >>> duration(843), duration(7260), duration(3)
    ('14 min 3 s', '2 h 1 min', '3 s')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def rough_duration(seconds: float) -> str:
    """A time that is guessed, or of which only the size matters.

    >>> rough_duration(45), rough_duration(1830), rough_duration(9000), rough_duration(400_000)
    ('45 s', '30 min', '2 h 30 min', '4.6 days')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    if minutes < 60 * 48:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{seconds / 86400:.1f} days"


def energy(joules: float) -> str:
    """An amount of energy.

    >>> energy(5_400), energy(7.2e6), energy(4.5e10)
    ('1.5 Wh', '2 kWh', '12.5 MWh')
    """
    hours = joules / 3600
    if hours >= 1e6:
        return f"{hours / 1e6:.3g} MWh"
    return f"{hours / 1000:.3g} kWh" if hours >= 1000 else f"{hours:.3g} Wh"


def money(amount: float) -> str:
    """A sum of money, in whatever currency the heading names.

    >>> money(1234.5), money(0.01342)
    ('1,234.50', '0.013')
    """
    return f"{amount:,.2f}" if amount >= 1 else f"{amount:.2g}"


def flops(number: float) -> str:
    """Floating-point operations.

    >>> flops(3.42e14), flops(0)
    ('3.42 × 10¹⁴', '0')
    """
    if not number:
        return "0"
    mantissa, exponent = f"{number:.2e}".split("e")
    return f"{mantissa} × 10{str(int(exponent)).translate(_SUPERSCRIPTS)}"


_SUPERSCRIPTS = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")
