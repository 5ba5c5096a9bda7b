"""Takes personal data and secrets out of text, and puts typed placeholders in their place.

from thumbwheel_redaction import Kind, Redactor

talk = Redactor().conversation()
talk.redact("mail me: ann@example.org")   # "mail me: [EMAIL_1]"
talk.found                                # {Kind.EMAIL: 1}: how many, never what
"""

from thumbwheel_redaction.findings import Finding, Span
from thumbwheel_redaction.kinds import Kind
from thumbwheel_redaction.names import KnownNames, NameFinder
from thumbwheel_redaction.recogniser import Recogniser
from thumbwheel_redaction.redactor import Conversation, Redactor

__all__ = ["Conversation", "Finding", "Kind", "KnownNames", "NameFinder", "Recogniser", "Redactor", "Span"]
