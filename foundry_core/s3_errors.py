"""What an object store refuses, in words: which of the things that a person can mend it is."""

from foundry_core.errors import FoundryError

_KEYS = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
_EXPIRED = (
    "the credentials have expired",
    f"fetch new ones, and set AWS_SESSION_TOKEN with its {_KEYS}; then run again to continue",
)
_REGION = ("the bucket is of another region", "set AWS_REGION to it")
# S3's error code → (what is wrong, how to mend it).
_MENDS = {
    **dict.fromkeys(("ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"), _EXPIRED),
    "RequestExpired": _EXPIRED,
    "RequestTimeTooSkewed": (
        "the clock of this machine and the store's are too far apart",
        "set the clock (NTP); then run again to continue",
    ),
    "InvalidAccessKeyId": (
        "the store does not know this access key",
        "mend AWS_ACCESS_KEY_ID, or AWS_ENDPOINT_URL if the key is another store's",
    ),
    "SignatureDoesNotMatch": (
        "the secret key is not that of the access key",
        "mend AWS_SECRET_ACCESS_KEY; a proxy that changes requests shows itself so, too",
    ),
    "InvalidToken": (
        "the session token is not that of the access key",
        "mend or unset AWS_SESSION_TOKEN",
    ),
    **dict.fromkeys(
        ("PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"),
        _REGION,
    ),
}


def error_code(error: BaseException) -> str:
    """S3's error code behind an exception, or ''."""
    response = getattr(error, "response", None) or getattr(error.__cause__, "response", None)
    return str(response["Error"].get("Code", "")) if response else ""


def explained(uri: str, what: str, error: Exception) -> Exception:
    """The FoundryError for what a person must mend; any other error as it is. uri: of the store;
    what: the call."""
    # botocore is imported by s3fs already
    from botocore import exceptions

    code = error_code(error)
    said = str(error).strip() or type(error).__name__
    if code in _MENDS:
        problem, mend = _MENDS[code]
        return FoundryError(f"{uri}: {problem} ({code}: {said})", mend)
    if code == "NoSuchBucket":
        bucket = uri.partition("://")[2].partition("/")[0]
        return FoundryError(
            f"{uri}: bucket {bucket!r} does not exist",
            "create it, or mend FOUNDRY_STORE or AWS_ENDPOINT_URL",
        )
    if isinstance(error, exceptions.NoCredentialsError | exceptions.PartialCredentialsError):
        return FoundryError(f"{uri}: no complete credentials", f"set {_KEYS}, or AWS_PROFILE")
    if isinstance(error, PermissionError):
        return FoundryError(
            f"{uri}: may not {what} ({said})",
            "the credentials need s3:ListBucket, GetObject, PutObject, DeleteObject here; those "
            "that have expired are refused so, too",
        )
    # What botocore says before it sends anything: names, profiles, endpoints, sign-on.
    if isinstance(error, exceptions.BotoCoreError | ValueError):
        return FoundryError(
            f"{uri}: cannot {what} ({said.splitlines()[0]})",
            "mend FOUNDRY_STORE, AWS_PROFILE or AWS_ENDPOINT_URL, whichever it names",
        )
    return error
