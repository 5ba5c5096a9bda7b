"""`thumbwheel keys`: API keys for the teams that call the gateway, and the keys that sign feedback tokens.

    create, revoke ──► audit event, acknowledged ──► secrets/api_keys.json ──► every gateway, within a second
    rotate         ──► audit event, acknowledged ──► secrets/token_keys.json ──► every gateway, within a second

Works on the files: no gateway needs to run. The audit event goes first: an act that nobody can be asked about must not
happen, while one that is announced and then fails does no harm.
"""

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from infra.cli.options import Bootstrap, Data, Place, locate

if TYPE_CHECKING:
    from serving.core.access import ApiKey, Scope
    from serving.settings import AccessFiles

app = typer.Typer(
    help="Give a team an API key, take it back; change the keys that sign feedback tokens.", no_args_is_help=True
)

SOURCE = "infra/cli/access"
AUDIT_SECONDS = 5.0
Action = Literal["key_creation", "key_revocation", "key_rotation"]
WithoutAudit = Annotated[
    bool, typer.Option("--without-audit", help="Do it also where no broker can take the audit event.")
]


@app.command(
    epilog="Example: thumbwheel keys create --name shop-web --scopes chat,feedback --tenant shop --expires-days 365"
)
def create(
    name: Annotated[str, typer.Option("--name", help="Who will use it, for your own list.")],
    scopes: Annotated[
        str,
        typer.Option("--scopes", help="What it may be used for, with commas: chat, feedback, outputs, models."),
    ] = "chat,feedback,models",
    tenant: Annotated[
        str | None,
        typer.Option("--tenant", help="Whose users come by it; it is written on every event.", show_default=False),
    ] = None,
    rate: Annotated[
        int | None,
        typer.Option("--rate", min=1, help="Requests a minute (default: THUMBWHEEL_KEY_RATE).", show_default=False),
    ] = None,
    expires_days: Annotated[
        int | None,
        typer.Option("--expires-days", min=1, max=36_500, help="Days that it is good for.", show_default=False),
    ] = None,
    without_audit: WithoutAudit = False,
    data: Data = None,
    bootstrap_servers: Bootstrap = None,
) -> None:
    """Make an API key and print its secret: once, it is kept nowhere."""
    from infra.cli.terminal import err
    from serving.adapters import keys
    from serving.core.access import ApiKeys

    place, now = locate(data, bootstrap_servers), datetime.now(UTC)
    expires = now + timedelta(days=expires_days) if expires_days else None
    key, text = _made(name, _scopes(scopes), tenant=tenant, rate=rate, expires=expires, now=now)
    detail = f"name {key.name}; scopes {','.join(key.scopes)}; tenant {key.tenant or 'none'}"
    _audit(place, "key_creation", key.id, detail, without_audit=without_audit)
    keys.change_api_keys(_files(place).api_keys_file, lambda held: ApiKeys(keys=(*held.keys, key)))
    err().print(f"key {key.id} for {key.name}, good for {', '.join(key.scopes)}, {_until(key)}")
    err().print("This is the only time that it is shown. Gateways know it within a second.")
    print(text)  # noqa: T201 - a result, to be copied or piped


@app.command("list", epilog="Example: thumbwheel keys list --json")
def list_keys(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line instead of a table.")] = False,
    data: Data = None,
) -> None:
    """Every API key that was made, those that are no longer good too. Secrets are not kept, so none is shown."""
    from infra.cli.terminal import err, out, table
    from serving.adapters import keys

    held = keys.read_api_keys(_files(locate(data, None)).api_keys_file).keys
    now = datetime.now(UTC)
    if as_json:
        for key in held:
            print(key.model_dump_json(exclude={"secret_sha256"}, exclude_none=True))  # noqa: T201 - to be piped
        return
    if not held:
        err().print("no API keys yet: `thumbwheel keys create --name NAME` makes one")
        return
    grid = table("id", "name", "state", "scopes", "tenant", "a minute", "created", "expires", right=("a minute",))
    for key in held:
        grid.add_row(*_row(key, now))
    out().print(grid)


@app.command(epilog="Example: thumbwheel keys revoke 3f9c0a1b2d4e")
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="As `thumbwheel keys list` shows it.")],
    without_audit: WithoutAudit = False,
    data: Data = None,
    bootstrap_servers: Bootstrap = None,
) -> None:
    """Make an API key useless, within a second, at every gateway that reads the file."""
    from infra.cli.terminal import out
    from schemas.errors import SettingsError
    from serving.adapters import keys
    from serving.core.access import ApiKeys

    place, now = locate(data, bootstrap_servers), datetime.now(UTC)
    file = _files(place).api_keys_file
    found = keys.read_api_keys(file).by_id.get(key_id)
    if found is None:
        raise SettingsError(f"there is no API key of this id in {file}; `thumbwheel keys list` shows them")
    if found.revoked is not None:
        out().print(f"key {key_id} was revoked before, at {found.revoked:%Y-%m-%d %H:%M} UTC")
        return
    _audit(place, "key_revocation", key_id, f"name {found.name}", without_audit=without_audit)
    revoked = found.model_copy(update={"revoked": now})
    keys.change_api_keys(
        file, lambda held: ApiKeys(keys=tuple(revoked if key.id == key_id else key for key in held.keys))
    )
    out().print(f"key {key_id} ({found.name}) is revoked; what came by it names it in the column `credential`")


@app.command(epilog="Examples: thumbwheel keys rotate | thumbwheel keys rotate --retire-older-than 30")
def rotate(
    retire_older_than: Annotated[
        int | None,
        typer.Option(
            "--retire-older-than",
            metavar="DAYS",
            min=0,
            max=36_500,
            help="Drop keys that have not signed for so many days; tokens that they signed are refused from then on. "
            "0 drops all but the new one: for a key that leaked.",
            show_default=False,
        ),
    ] = None,
    without_audit: WithoutAudit = False,
    data: Data = None,
    bootstrap_servers: Bootstrap = None,
) -> None:
    """Sign feedback tokens by a fresh key from now on; tokens of the older ones stay good."""
    from infra.cli.terminal import out
    from serving.adapters import keys

    place = locate(data, bootstrap_servers)
    retire_after = None if retire_older_than is None else timedelta(days=retire_older_than)
    detail = (
        "no key is dropped" if retire_after is None else f"keys that have not signed for {retire_older_than} days go"
    )
    _audit(place, "key_rotation", "token_keys", detail, without_audit=without_audit)
    kid, retired = keys.rotate_token_keys(
        _files(place).token_keys_file, now=datetime.now(UTC), retire_after=retire_after
    )
    out().print(f"key {kid} signs feedback tokens, 10 seconds from now at the latest")
    for old in retired:
        out().print(f"key {old} is dropped: its tokens are no longer good")


def _made(
    name: str,
    scopes: "tuple[Scope, ...]",
    *,
    tenant: str | None,
    rate: int | None,
    expires: datetime | None,
    now: datetime,
) -> "tuple[ApiKey, str]":
    from pydantic import ValidationError

    from schemas.errors import SettingsError
    from serving.adapters.keys import new_api_key

    try:
        return new_api_key(name=name, scopes=scopes, tenant=tenant, rate=rate, expires=expires, now=now)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise SettingsError(f"--{first['loc'][0]} can't be used: {first['msg']}") from error


def _scopes(text: str) -> "tuple[Scope, ...]":
    from schemas.errors import SettingsError
    from serving.core.access import Scope

    named = {name.strip() for name in text.split(",") if name.strip()}
    unknown = sorted(named - set(Scope))
    if unknown or not named:
        raise SettingsError(
            f"--scopes takes {', '.join(Scope)}, with commas between; not {', '.join(unknown) or 'none'}"
        )
    return tuple(scope for scope in Scope if scope in named)


def _files(place: Place) -> "AccessFiles":
    from serving.settings import load_access_files

    return load_access_files(place.data)


def _audit(place: Place, action: Action, target: str, detail: str, *, without_audit: bool) -> None:
    import getpass

    from infra.cli.terminal import err
    from infra.local.log import Publisher
    from schemas import topics
    from schemas.audit import Audit
    from schemas.envelope import new_event
    from schemas.errors import BrokerUnavailable

    audit = Audit(actor=f"cli:{getpass.getuser()}", action=action, target=target, detail=detail)
    publisher = Publisher(place.kafka, timeout=AUDIT_SECONDS)
    try:
        publisher.publish(topics.AUDIT, new_event(audit, source=SOURCE))
        publisher.flush()
    except BrokerUnavailable as error:
        if not without_audit:
            raise BrokerUnavailable(
                f"nothing was done, because it could not be audited: {error} (--without-audit does it all the same)"
            ) from error
        err().print("[yellow]note:[/] done without an audit event: the broker did not take it")


def _until(key: "ApiKey") -> str:
    return f"until {key.expires:%Y-%m-%d}" if key.expires else "without an end"


def _row(key: "ApiKey", now: datetime) -> tuple[str, ...]:
    from rich.markup import escape

    style = {"active": "green", "expired": "yellow", "revoked": "red"}[key.state(now)]
    return (
        f"[bold]{key.id}[/]",
        escape(key.name),
        f"[{style}]{key.state(now)}[/]",
        ", ".join(key.scopes),
        escape(key.tenant or ""),
        f"{key.rate:,}" if key.rate else "default",
        f"{key.created:%Y-%m-%d}",
        f"{key.expires:%Y-%m-%d}" if key.expires else "",
    )
