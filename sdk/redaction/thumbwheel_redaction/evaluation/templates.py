"""Sentences with holes, as people write them to a language model. `{decoy}` holes hold what must stay.

SEEN may be looked at to improve the recognisers. HELD_OUT may not: whoever reads their misses and mends them has to
write new ones.
"""

SEEN: tuple[str, ...] = (
    # e-mail
    "Please write a polite reply to {email} and say that I am on holiday.",
    "my address is {email}, can you put it in the signature",
    "From: {name} <{email}>\nTo: {email}\nSubject: offer",
    "Contact: {email}.",
    "mailto:{email}?subject=hello",
    "Schreib bitte eine Mail an {email}, dass ich morgen nicht komme.",
    # telephone
    "You can call me at {phone} any time after six.",
    "Phone: {phone}\nFax: {phone}",
    "Meine Handynummer ist {phone}, ruf einfach an.",
    "Mon téléphone : {phone}",
    "mi número es {phone} por si necesitas algo",
    "{name}, tel. {phone}, has asked twice about order {decoy}",
    # cards, accounts
    "I paid with my card {card} and was charged twice.",
    "Visa {card}, expires 09/27, what is the fee?",
    "Is {card} a valid credit card number?",
    "Please transfer the money to {iban} by Friday.",
    "IBAN: {iban}\nBIC: EXAMPLEXXX",
    "Überweise es bitte auf mein Konto {iban}.",
    # national ids
    "My {identity_name} is {identity}, what do I do with it?",
    "{identity_name}: {identity}",
    "Fill the form for me: {name}, {identity_name} {identity}, born in Lyon.",
    "the customer gave {identity_alone} and nothing else",
    # addresses of the internet
    "Why can't I ping {ip} from my laptop?",
    '{ip} - - [21/Nov/2026:10:12:01 +0000] "GET / HTTP/1.1" 200 512',
    "ssh root@{ip} hangs",
    "The printer has {ip} and the router {ip}.",
    # secrets
    "here is my key {secret} please write a script that uses it",
    "export API_TOKEN={secret}",
    "curl -H 'Authorization: Bearer {secret}' https://api.example.org/v1",
    'config = {{"apiKey": "{secret}"}}',
    "password: {password}",
    "my password is {password}, is that strong enough?",
    "DB_PASSWORD={password}",
    "The login is admin and the pwd = {password}",
    "api key: {opaque_key}",
    "client_secret={opaque_key}",
    # nothing
    "What is {decoy}?",
    "I don't understand {decoy}, can you explain it?",
    "We shipped {decoy} last week.",
    "In the log it says {decoy} and then stops.",
    "Compare {decoy} with {decoy}.",
    "The result was {decoy}",
    "Bitte erkläre mir {decoy}.",
    "Summarise: {decoy}; {decoy}; {decoy}.",
    "the error mentions {decoy} on line 12",
    "I found {decoy} on the label",
    "{decoy}",
    "It costs more than {decoy}, doesn't it?",
)

HELD_OUT: tuple[str, ...] = (
    # e-mail
    "can u check if {email} is a real adress",
    "cc {email}; {email} and the rest of the team",
    "Sign me up with '{email}' please!",
    "Envoyez le devis à {email} avant lundi.",
    "| name | mail |\n| {name} | {email} |",
    "https://shop.example.com/unsubscribe?user={email}&list=7",
    # telephone
    "text {phone} when you get there",
    "her cell is {phone} I think",
    "Bei Fragen erreichen Sie mich unter {phone}.",
    "Reach out to {name} ({phone}) for the keys.",
    "Appelle-moi au {phone} ce soir",
    "Tel.: {phone} / Mobile: {phone}",
    # cards, accounts
    "{name} {card} 11/28 123",
    "cc number={card}",
    "La tarjeta {card} fue rechazada, ¿por qué?",
    "Refund to account {iban}, thanks",
    "my bank details ({iban}) have changed, write to my landlord",
    "Virement vers {iban}",
    # national ids
    "for the tax form they want my {identity_name}, it's {identity}",
    "{name} / {identity_name} {identity} / insured since 2011",
    "Can someone steal my identity with my {identity_name} {identity}?",
    "ID on file: {identity_alone}",
    # addresses of the internet
    "block {ip} in the firewall",
    "http://{ip_v4}/admin shows a blank page",
    "connection from {ip} port 51544 refused",
    "nameserver {ip}",
    # secrets
    "I accidentally committed {secret} to the repo, how bad is it?",
    "openai.api_key = '{secret}'",
    "token: {secret}",
    "{secret}",
    "login: {email} password: {password}",
    "user=admin;password={password};host=db",
    'the wifi password is "{password}"',
    "Mein Passwort lautet {password}",
    "secret key = '{opaque_key}'",
    "x-api-key: {opaque_key}",
    # nothing
    "Is {decoy} correct?",
    "Where do I find {decoy} in the manual?",
    "They compared {decoy} and {decoy} in the paper.",
    "Error near {decoy}: unexpected token",
    "Explique-moi {decoy} s'il te plaît.",
    "Please call the function with {decoy} as its argument",
    "My phone shows {decoy}.",
    "Translate to Spanish: the {decoy} is on the table",
    "{decoy} {decoy}",
    "I was told {decoy} by the clerk",
    "Regarding {decoy}: no news yet.",
    "write a poem about {decoy}",
)
