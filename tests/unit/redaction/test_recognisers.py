"""What each recogniser finds and what it leaves, example by example. The numbers are the issuers' own examples, or
worked out by hand from the published rule; nobody's."""

import pytest

from thumbwheel_redaction import Kind, Redactor

REDACTOR = Redactor()


def found(text: str) -> list[tuple[Kind, str]]:
    """Kind and value of each finding."""
    return [(finding.kind, text[finding.start : finding.end]) for finding in REDACTOR.find(text)]


def only(kind: Kind, value: str, text: str) -> bool:
    """Whether this one value is found, whole, and nothing else."""
    assert found(text) == [(kind, value)]
    return True


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("write to ann@example.org.", "ann@example.org"),
        ("<Ann.Smith+news@Sub.Example.CO.UK>", "Ann.Smith+news@Sub.Example.CO.UK"),
        ("mailto:bob_1@example.org?subject=x", "bob_1@example.org"),
        ("?user=ann%40example.org&list=7", "ann%40example.org"),
        ("jürgen@müller.example", "jürgen@müller.example"),
        ("ann@xn--mller-kva.example", "ann@xn--mller-kva.example"),
        ("(ann@example.org)", "ann@example.org"),
        ("ann (at) example (dot) org", "ann (at) example (dot) org"),
        ("ann [at] example.org please", "ann [at] example.org"),
        ("reach ann at example dot org", "ann at example dot org"),
        ("o'brien@example.org", "o'brien@example.org"),
    ],
)
def test_an_email_address_is_found(text: str, value: str):
    assert only(Kind.EMAIL, value, text)


@pytest.mark.parametrize(
    "text",
    [
        "@property",
        "x @ y.T",
        "a@b",
        "user@",
        "@ann on social media",
        "git@localhost",
        "10 @ 5.99",
        "we meet at noon dot",
        "look at the dot in the middle",
        "name.@example.org",
        "f(at)h",
    ],
)
def test_an_at_sign_alone_is_no_email_address(text: str):
    assert found(text) == []


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("+49 30 12345678", "+49 30 12345678"),
        ("+493012345678!", "+493012345678"),
        ("+49 (0)30 1234567 or", "+49 (0)30 1234567"),
        ("0049 30 1234567", "0049 30 1234567"),
        ("Ann (+49 30 12345678) has it", "+49 30 12345678"),
        ("Ann (tel 555-0132) has it", "555-0132"),
        ("+1 (415) 555-0132 ext. 12", "+1 (415) 555-0132 ext. 12"),
        ("(415) 555-0132", "(415) 555-0132"),
        ("415.555.0132", "415.555.0132"),
        ("1-415-555-0132", "1-415-555-0132"),
        ("020 7946 0958", "020 7946 0958"),
        ("0171/1234567", "0171/1234567"),
        ("06 12 34 56 78", "06 12 34 56 78"),
        ("(11) 91234-5678", "(11) 91234-5678"),
        ("138 0013 8000", "138 0013 8000"),
        ("call me at 5550132", "5550132"),
        ("电话13800138000", "13800138000"),
        ("my number is 612 345 678", "612 345 678"),
        ("order 7 is late, call 415-555-0132", "415-555-0132"),
        ("+49 30 1234567 2026", "+49 30 1234567"),  # no number of Germany is as long as both
    ],
)
def test_a_telephone_number_is_found(text: str, value: str):
    assert only(Kind.PHONE, value, text)


@pytest.mark.parametrize(
    "text",
    [
        "order 415-555-0132",
        "invoice no. 0171/1234567",
        "on 01/02/2020 12:30",
        "2026-11-21",
        "21.11.2026",
        "1999-2026",
        "1,234,567.89",
        "ISBN 0-306-40615-2",
        "5550132",
        "3.14159265358979",
        "call me on 12.12.2026",
        "call 911",
        "+999 1234567890 12",
        "+2 + 3",
        "the phone cost $1234567",
        "points 1200 1300 1400",
        "052.3676",
        "555-0132-99-01-2-3",
    ],
)
def test_dates_prices_and_orders_are_no_telephone_numbers(text: str):
    assert found(text) == []


@pytest.mark.parametrize(
    "value",
    [
        "4111 1111 1111 1111",
        "4111111111111111",
        "5500-0000-0000-0004",
        "378282246310005",
        "3782 822463 10005",
        "6011111111111117",
        "3530111333300000",
        "30569309025904",
        "2223003122003222",
        "6200000000000005",
        "4111.1111.1111.1111",
    ],
)
def test_a_card_number_is_found(value: str):
    assert only(Kind.CARD, value, f"card {value} exp 12/26")


@pytest.mark.parametrize(
    "text",
    [
        "4111111111111112",  # fails the check
        "1111111111111117",  # checks out, but nobody issues numbers that begin with 1
        "41111111111111",  # too short for that issuer
        "x4111111111111111",
        "4111111111111111a",
        "4111  1111  1111  1111",
    ],
)
def test_a_number_that_no_issuer_gives_out_is_no_card(text: str):
    assert Kind.CARD not in dict(found(text))


def test_a_card_is_found_with_its_check_code_behind_it():
    assert found("4111 1111 1111 1111 123")[0] == (Kind.CARD, "4111 1111 1111 1111")


@pytest.mark.parametrize(
    "value",
    [
        "DE89370400440532013000",
        "DE89 3704 0044 0532 0130 00",
        "GB82 WEST 1234 5698 7654 32",
        "gb82west12345698765432",
        "FR1420041010050500013M02606",
        "NL91ABNA0417164300",
        "MT84MALT011000012345MTLCAST001S",
        "NO93 8601 1117 947",
        "DE 89 370400440532013000",
    ],
)
def test_an_iban_is_found(value: str):
    assert only(Kind.IBAN, value, f"to {value}, please")


@pytest.mark.parametrize(
    "text",
    [
        "DE89370400440532013001",
        "DE8937040044053201300",
        "XX89370400440532013000",
        "DE893704004405320130001",
        "no 15 people came",
    ],
)
def test_what_fails_the_registrys_rules_is_no_iban(text: str):
    assert Kind.IBAN not in dict(found(text))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("123-45-6789", "123-45-6789"),
        ("SSN 123 45 6789", "123 45 6789"),
        ("my social security number is 123456789", "123456789"),
        ("AB 12 34 56 C", "AB 12 34 56 C"),
        ("NI number ab123456c", "ab123456c"),
        ("NHS number 943 476 5919", "943 476 5919"),
        ("86095742719", "86095742719"),
        ("86 095 742 719", "86 095 742 719"),
        ("2 55 08 14 168 025 38", "2 55 08 14 168 025 38"),
        ("255081416802538", "255081416802538"),
        ("12345678Z", "12345678Z"),
        ("12.345.678-Z", "12.345.678-Z"),
        ("X1234567L", "X1234567L"),
        ("RSSMRA85T10A562S", "RSSMRA85T10A562S"),
        ("BSN 111222333", "111222333"),
        ("44051401359", "44051401359"),
        ("811218-9876", "811218-9876"),
        ("19811218-9876", "19811218-9876"),
        ("personnummer 8112189876", "8112189876"),
        ("85.07.30-033 28", "85.07.30-033 28"),
        ("NIF 123456789", "123456789"),
        ("131052-308T", "131052-308T"),
        ("CPR 070761-4285", "070761-4285"),
        ("756.9217.0769.85", "756.9217.0769.85"),
        ("529.982.247-25", "529.982.247-25"),
        ("52998224725", "52998224725"),
        ("11010519491231002X", "11010519491231002X"),
        ("9999 4105 7058", "9999 4105 7058"),
        ("aadhaar 999941057058", "999941057058"),
        ("PAN: ABCPE1234F", "ABCPE1234F"),
        ("046-454-286", "046-454-286"),
        ("my SIN is 046 454 286", "046 454 286"),
        ("8001015009087", "8001015009087"),
        ("10000000146", "10000000146"),
        ("passport number C01X00T47 is mine", "C01X00T47"),
        ("Driver's license no. D1234567", "D1234567"),
    ],
)
def test_a_national_number_is_found(text: str, value: str):
    assert only(Kind.NATIONAL_ID, value, text)


@pytest.mark.parametrize(
    "text",
    [
        "000-12-3456",
        "666-12-3456",
        "123-00-4567",
        "123-45-0000",
        "900-12-3456",  # numbers that are never given out
        "part 123-45-6789",
        "123456789",
        "123 45 6789",  # no check digit: the form or a word is needed
        "AB123456C",
        "DA 12 34 56 C",
        "AB 12 34 56 E",
        "86095742718",
        "12345678901",
        "255081416802539",
        "12345678A",
        "X1234567M",
        "RSSMRA85T10A562T",
        "BSN 111222334",
        "111222333",
        "44051401358",
        "811218-9875",
        "8112189876",
        "85.07.30-033 29",
        "131052-308U",
        "756.9217.0769.86",
        "529.982.247-26",
        "111.111.111-11",
        "110105194912310021",
        "9999 4105 7059",
        "999941057058",
        "046-454-287",
        "10000000147",
        "ABCPE1234F",
        "070761-4286",
        "passport 2024 edition",
    ],
)
def test_a_number_that_fails_its_countrys_rule_is_none(text: str):
    assert Kind.NATIONAL_ID not in dict(found(text))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("from 203.0.113.7 port", "203.0.113.7"),
        ("http://192.168.1.10:8080/x", "192.168.1.10"),
        ("203.0.113.7.", "203.0.113.7"),
        ("10.0.0.0/8", "10.0.0.0"),
        ("2001:db8::1 is", "2001:db8::1"),
        ("[2001:db8:0:0:0:0:0:1]:443", "2001:db8:0:0:0:0:0:1"),
        ("fe80::1ff:fe23:4567:890a", "fe80::1ff:fe23:4567:890a"),
        ("::ffff:203.0.113.7", "::ffff:203.0.113.7"),
        ("2001:db8::.", "2001:db8::"),
    ],
)
def test_an_address_of_the_internet_is_found(text: str, value: str):
    assert only(Kind.IP, value, text)


@pytest.mark.parametrize(
    "text",
    [
        "version 1.2.3.4",
        "v. 1.2.3.4",
        "v1.2.3.4",
        "Chrome/120.0.0.0",
        "§ 1.2.3.4",
        "section 1.2.3.4",
        "1.3.6.1.4.1",
        "127.0.0.1",
        "0.0.0.0",
        "255.255.255.0",
        "224.0.0.1",
        "300.1.1.1",
        "1.2.3",
        "::1",
        "std::vector",
        "12:30:45",
        "add::bed",
        "00:1a:2b:3c:4d:5e",
        "01.02.2026",
    ],
)
def test_versions_masks_and_loopback_are_no_addresses(text: str):
    assert found(text) == []


@pytest.mark.parametrize(
    "value",
    [
        "AKIAIOSFODNN7EXAMPLE",
        "ASIAIOSFODNN7EXAMPLE",
        "ghp_" + "a1B2" * 9,
        "gho_" + "a1B2" * 9,
        "github_pat_" + "a1B2" * 10,
        "xoxb-123456789012-abcdefABCDEF",
        "sk_live_" + "a1B2" * 6,
        "sk-" + "a1B2" * 12,
        "sk-ant-api03-" + "a1B2" * 20,
        "AIza" + "a1B2_" * 7,
        "twk_k1_" + "a1B2" * 8,
        "glpat-" + "a1B2" * 5,
        "hf_" + "a1B2" * 8,
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl-_1",
        "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBg\n-----END PRIVATE KEY-----",
        "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEA",  # cut off before its end
    ],
)
def test_a_secret_with_a_mark_is_found(value: str):
    assert only(Kind.SECRET, value, f"use {value}")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("password = hunter2", "hunter2"),
        ("password: hunter2.", "hunter2"),
        ("DB_PASSWORD=correcthorse", "correcthorse"),
        ('"password": "hunter"', "hunter"),
        ("my password is s3cret!", "s3cret"),
        ("Mein Passwort lautet Kaffee7", "Kaffee7"),
        ("pwd=a&b1c2&host=db", "a&b1c2"),
        ('"apiKey": "abcd1234efgh"', "abcd1234efgh"),
        ("client_secret=abcd1234efgh", "abcd1234efgh"),
        ("Authorization: Bearer abcdefghijklmnop1234", "abcdefghijklmnop1234"),
        ("postgres://ann:pa55@db.example.org:5432/x", "ann:pa55@db.example.org"),
        ("aws secret key wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"),
        ("my api key 9f86d081884c7d659a2feaa0c55ad015 works", "9f86d081884c7d659a2feaa0c55ad015"),
    ],
)
def test_a_secret_behind_a_word_is_found(text: str, value: str):
    assert only(Kind.SECRET, value, text)


@pytest.mark.parametrize(
    "text",
    [
        "password: required",
        "password is incorrect",
        "if password == None:",
        "password=${DB_PASSWORD}",
        "token = get_token()",
        "password = os.environ['DB']",
        "the token: smallest unit",
        "api_key: <your key>",
        "api_key=xxxxxxxxxxxx",
        "secret: null",
        "the key point is 42",
        "primary key 550e8400-e29b-41d4-a716-446655440000",
        "sha256 9f86d081884c7d659a2feaa0c55ad015",
        "sk-learn-contrib-something-long",
        "skeleton",
        "eyJ is how tokens begin",
        "http://example.org:8080/a@b",
        "tokens: 1234567",
        "-----BEGIN CERTIFICATE-----",
        "AKIA",
        "the secret is to start early",
        "https://user:{password}@host/",
    ],
)
def test_talk_of_secrets_is_none(text: str):
    assert found(text) == []


def test_a_key_word_counts_only_nearby():
    far = "SSN" + " and so on" * 6
    assert found(f"{far} 123456789") == []


def test_values_side_by_side_are_all_found():
    text = "ann@example.org,bob@example.org;203.0.113.7/203.0.113.8 4111111111111111 5500000000000004"
    kinds = [kind for kind, _ in found(text)]
    assert kinds == [Kind.EMAIL, Kind.EMAIL, Kind.IP, Kind.IP, Kind.CARD, Kind.CARD]
