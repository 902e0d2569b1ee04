r"""Which entries of an archive are surely no recordings, and which a user leaves out: by name, and for markers by size.

What a file holds decides what it is, so that only names are left out which no recorder gives to sound. The table is
`LITTER`; names are compared without regard to case, because the systems that make them do so.

| reason | what | names |
|---|---|---|
| ``recycle_bin`` | folders of what was deleted | ``$RECYCLE.BIN``, ``#recycle``, ``.Trash-1000``, ``@Recycle`` |
| ``snapshot`` | folders of older states | ``.snapshot``, ``~snapshot``, ``#snapshot``, ``.zfs``, ``@GMT-…`` |
| ``system`` | of file systems, operating systems, file servers, Hadoop | ``lost+found``, ``@eaDir``, ``_SUCCESS`` |
| ``hidden`` | every other name that begins with a dot | ``._a.wav``, ``.git``, ``.a.wav.XyZ123`` of rsync |
| the suffix | documents, tables, signatures; uploads under way | ``a.wav.md5``, ``call.meta``, ``a.wav.filepart`` |
| the suffix | markers, if they hold at most 100 bytes | ``call.done``, ``a.wav.lock`` |
| ``excluded`` | what a pattern of the user matches | |

Listed all the same: ``Trash``, ``snapshots_of_2024`` (without the mark of a system anybody may call a folder so),
``tmp_2024.wav``, ``a.wav.bak``, ``~a.wav``, names without a suffix, ``download.aspx`` (pages that send recordings are
saved under such names), and packed or encrypted files (``.zip``, ``.gpg``), which fail as `unsupported` and are seen.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import translate
from typing import Literal, TypeAlias

from emolib.errors import SettingsError

EXCLUDED: Literal["excluded"] = "excluded"
"""Why an entry is left out that a pattern of the user matches."""

_FOLDERS: Mapping[str, tuple[str, ...]] = {
    "recycle_bin": (
        *("$recycle.bin", "recycler"),  # Windows
        *(".trash", ".trashes", "network trash folder"),  # macOS, desktops of Linux
        *(".recycle", ".recycle.bin", ".recycler", "recycle bin", "#recycle", "@recycle"),  # file servers
    ),
    "snapshot": (".snapshot", ".snapshots", "~snapshot", "#snapshot", "@recently-snapshot", ".zfs", ".ckpt"),
    "system": (
        *("lost+found", "system volume information", "dfsrprivate"),
        *("@eadir", "@tmp", "@sharebin", "@upload_cache", "@__thumb", ".@__thumb", ".@__qini"),  # Synology, QNAP
        *("__macosx", "temporary items", "thevolumesettingsfolder", "thefindbycontentfolder"),  # macOS
        *("_temporary", "_delta_log", "_spark_metadata", "_impala_insert_staging"),  # Hadoop
    ),
}
_FOLDERS_LIKE: Mapping[str, str] = {
    "recycle_bin": r"\.trash-.*|_nas_recycle_.*",
    "snapshot": r"@gmt-\d{4}\.\d\d\.\d\d-.*",  # Samba, Windows
    "system": r"found\.\d{3}",  # of chkdsk
}
_FILES: Mapping[str, tuple[str, ...]] = {
    "system": (
        *("icon\r", "_success", "_metadata", "_common_metadata"),
        *("md5sums", "sha1sums", "sha256sums", "sha512sums", "readme", "license", "changelog"),
    ),
}
_FILES_LIKE: Mapping[str, str] = {
    # Streams of NTFS, macOS and Synology that were copied to where there are none; marks of Hadoop and Databricks.
    "system": r".+(:zone\.identifier|:com\.apple\.[^:]*|[:.]afp_\w+|@syno\w+)|thumbs\.db:.*|.+_\$folder\$"
    r"|_(started|committed)_\d+",
    "upload": r".+\._copying_|.+\.sb-[0-9a-f]{8}-\w{6}",  # Hadoop, macOS
}

_TEXTS = (
    *(".txt", ".md", ".rst", ".html", ".htm", ".pdf", ".rtf", ".doc", ".docx", ".odt", ".ppt", ".pptx", ".log", ".nfo"),
    *(".eml", ".srt", ".vtt", ".sbv", ".ttml", ".lrc", ".textgrid", ".eaf", ".trs", ".ctm", ".stm", ".meta", ".info"),
    *(".metadata", ".transcript", ".lab", ".phn", ".wrd", ".cue", ".m3u", ".m3u8", ".pls"),
)
_TABLES = (
    *(".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".xml", ".xsd", ".xsl", ".parquet", ".avro", ".orc", ".feather"),
    *(".xls", ".xlsx", ".xlsm", ".ods", ".db", ".db-wal", ".db-shm", ".db-journal", ".sqlite", ".sqlite3", ".mdb"),
    *(".accdb", ".dbf", ".sql", ".idx"),
)
_OWN = (".rttm", ".prom")  # of `emolib export`, and of `emolib nightly --metrics`
_SETTINGS = (".toml", ".yaml", ".yml", ".ini", ".cfg", ".conf", ".properties", ".py", ".pyc")
_PROGRAMS = (".exe", ".dll", ".msi", ".lnk", ".url", ".webloc", ".inf", ".bat", ".cmd", ".ps1", ".sh", ".js", ".css")
_CHECKSUMS = (
    *(".md5", ".sha1", ".sha224", ".sha256", ".sha384", ".sha512", ".sfv", ".crc", ".crc32", ".par2", ".checksum"),
    *(".md5sum", ".sha1sum", ".sha256sum", ".sha512sum", ".hash", ".digest"),
)
_SIGNATURES = (".sig", ".asc", ".p7s", ".minisig", ".tsr", ".tsq", ".ots", ".pem", ".crt", ".cer")
_MODELS = (".keras", ".onnx", ".npz")
_PICTURES = (".png", ".jpg", ".jpeg", ".gif", ".svg", ".bmp", ".tif", ".tiff", ".webp", ".ico", ".heic")
_PEAKS = (".pk", ".pkf", ".peak", ".reapeaks", ".sfk", ".sfl", ".asd", ".gpk", ".ovw")  # what sound editors leave
_CAPTURES = (".pcap", ".pcapng")
_UPLOADS = (
    *(".part", ".partial", ".filepart", ".crdownload", ".download", ".opdownload", ".gstmp", ".aria2"),
    *(".tmp", ".temp", ".incomplete", ".inprogress", ".in_progress", ".uploading", ".unfinished", ".swp"),
    *(".upload", ".pending", ".writing", ".copying"),
    *(".!sync", ".!bt", ".!ut", ".!qb", ".bc!", ".bts"),
)
_SUFFIXES = frozenset(
    (
        *(*_TEXTS, *_TABLES, *_OWN, *_SETTINGS, *_PROGRAMS, *_CHECKSUMS, *_SIGNATURES, *_MODELS, *_PICTURES),
        *(*_PEAKS, *_CAPTURES, *_UPLOADS),
    )
)
# Some pipelines rename what they have processed: a.wav.done may be the recording itself.
_MARKERS = frozenset(
    (
        *(".done", ".ok", ".ready", ".complete", ".completed", ".finished", ".processed", ".success", ".err", ".error"),
        *(".failed", ".ack", ".trg", ".trigger", ".flag", ".fin", ".eof", ".go", ".sem", ".ctl", ".lock", ".lck"),
        ".pid",
    )
)
_MOST_OF_A_MARKER = 100  # bytes: of the densest speech codec a sixth of a second, less than a window needs

_Names: TypeAlias = tuple[Mapping[str, str], Sequence[tuple[re.Pattern[str], str]]]


def _by_name(names: Mapping[str, Sequence[str]], like: Mapping[str, str]) -> _Names:
    return (
        {name: reason for reason, each in names.items() for name in each},
        [(re.compile(expression), reason) for reason, expression in like.items()],
    )


LITTER = {True: _by_name(_FILES, _FILES_LIKE), False: _by_name(_FOLDERS, _FOLDERS_LIKE)}
"""By whether it is a file: why an entry is left out by its name, whole or by an expression, in lower case."""


def why_left_out(name: str, *, size: int | None = None) -> str | None:
    """Return why an entry of this name is left out of a listing, or None.

    Parameters
    ----------
    size
        Of the file, in bytes; None: it is a folder.

    Examples
    --------
    >>> [why_left_out(name, size=8000) for name in ("call.wav", "call", "calls.CSV", "._call.wav", "call.done")]
    [None, None, '.csv', 'hidden', None]
    >>> why_left_out("call.done", size=0), why_left_out("#recycle"), why_left_out("Trash")
    ('.done', 'recycle_bin', None)
    """
    lower = name.lower()
    whole, like = LITTER[size is not None]
    if (reason := whole.get(lower)) is not None:
        return reason
    at = lower.rfind(".")
    if size is not None and at > 0:
        suffix = lower[at:]
        if suffix in _SUFFIXES or (suffix in _MARKERS and size <= _MOST_OF_A_MARKER):
            return suffix
    for pattern, reason in like:
        if pattern.fullmatch(lower):
            return reason
    if name.startswith("."):
        return "hidden"
    return ".zarr" if size is None and lower.endswith(".zarr") else None


class Exclusion:
    """The patterns by which a user leaves files and folders out; with a folder goes all that lies in it.

    As in ``.gitignore``: a pattern without a slash is compared with every name on the way, one with a slash with the
    whole path from the root of the archive. ``*`` and ``?`` stand for no slash, ``**`` for any number of folders; one
    that ends with a slash means folders only. Case counts; the Unicode form does not.

    Raises
    ------
    SettingsError
        If a pattern names nothing, or leaves the archive.

    Examples
    --------
    >>> tests = Exclusion(["test", "2023/*", "**/old/*.wav"])
    >>> [tests.matches(uri) for uri in ("a/test", "2023/a.wav", "a/2023/a.wav", "a/b/old/c.wav", "tests")]
    [True, True, False, True, False]
    """

    def __init__(self, patterns: Iterable[str] = ()) -> None:
        self._rules = [_rule(pattern) for pattern in patterns]

    def __bool__(self) -> bool:
        return bool(self._rules)

    def matches(self, uri: str, *, is_file: bool = True) -> bool:
        """Return whether the entry of a path, whose folders are not left out, is left out."""
        parts = unicodedata.normalize("NFC", uri).split("/")
        return any(
            _matches(parts if is_path else parts[-1:], pattern)
            for pattern, is_path, is_for_folders in self._rules
            if not (is_file and is_for_folders)
        )

    def covers(self, folder: str) -> bool:
        """Return whether all that lies in a folder is left out, whatever its name."""
        return self.matches(f"{folder}/\0")


_Pattern: TypeAlias = Sequence[re.Pattern[str] | None]  # None: any number of folders


def _rule(text: str) -> tuple[_Pattern, bool, bool]:
    """Return what a pattern says of each part, whether of a path from the root, and whether of folders only."""
    parts = [name for name in unicodedata.normalize("NFC", text).split("/") if name not in ("", ".")]
    if not parts or ".." in parts:
        raise SettingsError(
            f"exclude {text!r} found, expected a pattern of a name or of a path relative to the archive, such as "
            "test or '2023/*.wav'"
        )
    compiled = [None if part == "**" else re.compile(translate(part)) for part in parts]
    return compiled, "/" in text.rstrip("/"), text.endswith("/")


def _matches(parts: Sequence[str], pattern: _Pattern) -> bool:
    if not pattern:
        return not parts
    first, rest = pattern[0], pattern[1:]
    if first is None:
        fewest = 0 if rest else 1  # at the end: something that lies there
        return any(_matches(parts[count:], rest) for count in range(fewest, len(parts) + 1))
    return bool(parts) and first.match(parts[0]) is not None and _matches(parts[1:], rest)
