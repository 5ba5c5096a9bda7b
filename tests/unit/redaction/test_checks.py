"""Check digits, on the examples that the issuers print."""

from thumbwheel_redaction.checks import luhn, mod_11_10, mod_97_10, verhoeff, weighted


def test_luhn_accepts_the_number_of_the_standard_and_refuses_a_changed_digit():
    # 7992739871 and check digit 3: 7+9+9+2+7+3+9+8+7+1 with every second doubled is 67, and 67 + 3 = 70.
    assert luhn("79927398713")
    assert not luhn("79927398710")
    assert not luhn("79927398731")  # two digits exchanged


def test_mod_11_10_accepts_the_example_of_the_german_tax_office():
    assert mod_11_10("86095742719")
    assert not mod_11_10("86095742718")


def test_mod_97_10_accepts_the_registrys_example():
    # GB82 WEST 1234 5698 7654 32 with its first four characters behind.
    assert mod_97_10("WEST12345698765432GB82")
    assert not mod_97_10("WEST12345698765432GB83")


def test_verhoeff_accepts_the_example_of_the_literature():
    assert verhoeff("2363")  # 236 has the check digit 3
    assert not verhoeff("2364")
    assert not verhoeff("2633")  # two digits exchanged


def test_a_weighted_sum_stops_at_the_shorter_of_the_two():
    assert weighted("123456", (3, 2, 1)) == 3 + 4 + 3
