"""Times, energies and FLOPs as people read them."""


def duration(seconds: float) -> str:
    """
    >>> duration(843), duration(7260), duration(3)
    ('14 min 3 s', '2 h 1 min', '3 s')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def energy(joules: float) -> str:
    """
    >>> energy(5_400), energy(7.2e6)
    ('1.5 Wh', '2 kWh')
    """
    hours = joules / 3600
    return f"{hours / 1000:.3g} kWh" if hours >= 1000 else f"{hours:.3g} Wh"


def flops(count: float) -> str:
    """
    >>> flops(3.42e14), flops(0)
    ('3.42 × 10¹⁴', '0')
    """
    if not count:
        return "0"
    mantissa, exponent = f"{count:.2e}".split("e")
    return f"{mantissa} × 10{str(int(exponent)).translate(SUPERSCRIPTS)}"


SUPERSCRIPTS = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")
