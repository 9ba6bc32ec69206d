"""The types of single values in parameters, each with its rule and the message for a value that breaks it.

All of them stay plain strings and numbers, in the canonical form that Proxmox VE, Talos and Kubernetes receive.
"""

from __future__ import annotations

import base64
import datetime as dt
import re
from collections.abc import Callable, Collection
from ipaddress import AddressValueError, IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal
from urllib.parse import SplitResult, unquote, urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WrapValidator

from fluobook.params.cpus import MODELS, TOO_OLD
from fluobook.params.problems import did_you_mean, is_secret, refuse
from fluobook.params.schedules import is_schedule

LABEL = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
PROXMOX_OUI = "BC:24:11"
"""The vendor prefix of MAC addresses that Proxmox VE generates."""

_HIGHEST_PORT = 65535
_LONGEST_CLUSTER_NAME = 32
_SHA1_DIGITS, _SHA256_DIGITS = 40, 64
_SCP_LIKE = re.compile(r"(\w[\w.-]*)@(\[[^]/@]*\]|[^:/@]+):(?!//)([\w./~+-]+)", re.ASCII)
_CREDENTIALS_IN_PATH = re.compile(r"[;=]|:[^/]*@|\b(gh[a-z]|github_pat|glpat)[-_]\w")
_UNUSABLE_IN_URLS = re.compile(r"[\x00-\x20\x7f\\]")
_SPECIAL = {
    IPv4Network("0.0.0.0/8"): "unspecified",
    IPv4Network("127.0.0.0/8"): "loopback",
    IPv4Network("169.254.0.0/16"): "link-local",
    IPv4Network("224.0.0.0/4"): "multicast",
    IPv4Network("240.0.0.0/4"): "reserved",
}
"""Networks whose addresses no machine has for others."""
_RESERVED_NAMES = {
    "common": "is the name of the patches of all nodes",
    "controlplane": "is the name of the control planes' patches",
    "worker": "is the name of the workers' patches",
    "cilium": "is the name of Cilium's manifest, beside the nodes' files",
    "localhost": "means every machine itself",
}
"""What a node cannot be called, because files are named after nodes and these are others, and why."""
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_NAME = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")
_LONGEST_NAME, _LONGEST_DOMAIN = 63, 253
EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
"""Effects of a taint."""
_CREDENTIALS = (
    "credentials are never parameters: give them to Argo CD as a Secret with the label"
    " argocd.argoproj.io/secret-type: repository, and to git on this machine by a credential helper"
)


class Model(BaseModel):
    """The base of every part of the parameters: frozen, and without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


def _match(value: str, pattern: str, rule: str, meant: str = "") -> str:
    if not re.fullmatch(pattern, value, re.ASCII):
        raise refuse(rule, meant)
    return value


def matching(pattern: str, rule: str, meant: str = "") -> AfterValidator:
    """Accepts text that matches the whole `pattern`."""
    return AfterValidator(lambda value: _match(value, pattern, rule, meant))


def _refuse_ipv6(value: Any) -> Any:
    """IPv6 would need the cloud-init drive, the DHCP reservations, Cilium and every rule for addresses to know it.

    Dual stack is written as a list, or with a comma.
    """
    if not any(map(_is_ipv6_network, value if isinstance(value, list) else str(value).split(","))):
        return value
    meant = "nodes, pods and Services have IPv4 addresses; only servers outside the platform may have IPv6 ones"
    raise refuse("is IPv6, which fluobook does not support for the platform", meant)


def _is_ipv6_network(value: Any) -> bool:
    try:
        IPv6Network(str(value).strip(" []"), strict=False)
    except ValueError:
        return False
    return isinstance(value, str)


def _refuse_special(value: str, *, but: str = "") -> None:
    """Refuse an IPv4 address or network that other machines cannot use, but for one kind."""
    for special, kind in _SPECIAL.items():
        if kind != but and IPv4Network(value).overlaps(special):
            raise refuse(f"is in {special}, whose addresses are {kind}", "give one that other machines can reach")


def _ipv4(value: str, *, but: str = "") -> str:
    _refuse_ipv6(value)
    try:
        address = str(IPv4Address(value))
    except AddressValueError:
        raise refuse("must be an IPv4 address", 'four numbers from 0 to 255, such as "10.10.0.10"') from None
    _refuse_special(address, but=but)
    return address


def _server(host: str) -> str:
    """The host of a URL: an IPv4 address or a name, in lower case; DNS knows names in ASCII alone.

    Dotted numbers are never a name, and a name never ends in a number.
    """
    lower = host.lower().removesuffix(".")
    if not host.isascii():
        raise refuse("has a host name that is not ASCII", f"write {_punycode(host)}")
    if re.fullmatch(r"(.*\.)?(\d+|0x[0-9a-f]*)", lower):
        return _ipv4(host, but="loopback")
    if len(host) > _LONGEST_DOMAIN or not re.fullmatch(r"(?!-)[\w-]{1,63}(?<!-)(\.(?!-)[\w-]{1,63}(?<!-))*", lower):
        raise refuse(
            "has an invalid host name", "letters, digits, inner hyphens, dots between, such as pve1.example.org"
        )
    return lower


def _punycode(host: str) -> str:
    """How DNS knows a name that is not ASCII; Python's codec is that of 2003, which changes some letters."""
    try:
        encoded = host.encode("idna").decode()
        return encoded if encoded.encode().decode("idna") == host.lower() else "its ASCII form, xn--…"
    except UnicodeError:
        return "its ASCII form, xn--…"


def _cidr(value: str) -> str:
    if "/" not in value:
        raise refuse("must be an IPv4 network with its prefix length", 'such as "10.10.0.0/24"')
    try:
        network = str(IPv4Network(value))
    except ValueError as error:
        if "host bits" in str(error):
            raise refuse(
                "has bits set behind its prefix", f'"{IPv4Network(value, strict=False)}" is the network'
            ) from None
        raise refuse("must be an IPv4 network with its prefix length", 'such as "10.10.0.0/24"') from None
    _refuse_special(network)
    return network


def _mac(value: str) -> str:
    upper = value.upper().replace("-", ":")
    if not re.fullmatch(r"[0-9A-F]{2}(:[0-9A-F]{2}){5}", upper):
        raise refuse("must be a MAC address", 'six pairs of hexadecimal digits, such as "BC:24:11:00:01:10"')
    first = int(upper[:2], 16)
    if first & 1:
        raise refuse("is a multicast address", f"a network card needs a unicast one, such as {PROXMOX_OUI}:…")
    if not upper.startswith(PROXMOX_OUI) and not first & 2:
        raise refuse(
            "belongs to another vendor's cards", f"use Proxmox VE's {PROXMOX_OUI}:… or a locally administered 02:…"
        )
    return upper


def _fingerprint(value: str) -> str:
    digits = value.upper().replace(":", "").removeprefix("SHA256")
    if re.fullmatch(r"[0-9A-F]*", digits) and len(digits) == _SHA1_DIGITS:
        raise refuse("is a SHA-1 fingerprint", "SHA-256 is required: 32 pairs, as `pvenode cert info` shows")
    if not re.fullmatch(rf"[0-9A-F]{{{_SHA256_DIGITS}}}", digits):
        raise refuse("must be a SHA-256 fingerprint", "32 pairs of hexadecimal digits, as `pvenode cert info` shows")
    return ":".join(digits[index : index + 2] for index in range(0, _SHA256_DIGITS, 2))


def split_url(
    value: str, schemes: Collection[str] = ("http", "https", "oci", "file"), meant: str = _CREDENTIALS
) -> SplitResult:
    """A URL in its parts; one with a password, or with a user in one of `schemes`, is refused without repeating it."""
    if _UNUSABLE_IN_URLS.search(value):
        raise refuse("must be a URL", "it has a space, a control character or a backslash", hidden=True)
    try:
        parts = urlsplit(value)
    except ValueError:
        raise refuse("must be a URL", "such as https://pve1.example.org:8006", hidden=True) from None
    user = unquote(parts.username or "")
    in_user = parts.password is not None or parts.username == "" or ":" in user
    if in_user or (user and parts.scheme in {*schemes, ""}) or _CREDENTIALS_IN_PATH.search(unquote(parts.path)):
        raise refuse("contains a user, password or token", meant, hidden=True)
    if parts.hostname and ":" in parts.hostname and not _is_ipv6(parts.hostname):
        raise refuse(
            "has an IPv6 address that cannot be used", "a unicast one without a zone: https://[2001:db8::10]:8006"
        )
    try:
        port = parts.port
    except ValueError:
        port = 0
    host = parts.netloc.rpartition("@")[2]
    if port == 0 and "[" not in host and host.count(":") > 1:
        raise refuse("has an IPv6 address without brackets", "write it as in https://[2001:db8::10]:8006", hidden=True)
    if port == 0:
        raise refuse("has an invalid port", f"ports are numbers from 1 to {_HIGHEST_PORT}", hidden=True)
    if parts.hostname and ":" not in parts.hostname:
        _server(parts.hostname)
    return parts


def _is_ipv6(text: str) -> bool:
    try:
        address = IPv6Address(text)
    except AddressValueError:
        return False
    return not (address.scope_id or address.is_multicast or address.is_unspecified or address.is_link_local)


def authority(host: str, port: int) -> str:
    """host:port as in a URL: an IPv6 address in brackets."""
    return f"[{IPv6Address(host)}]:{port}" if ":" in host else f"{host.lower().removesuffix('.')}:{port}"


def split_authority(text: str) -> tuple[str, int]:
    """Host, without brackets, and port of `authority`."""
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)


def _proxmox_url(value: str) -> str:
    parts = split_url(value, ["https"], "no user in it; use token_id and token_secret")
    if parts.scheme == "http":
        raise refuse("is not encrypted", "use https://; a self-signed certificate is pinned by `fingerprint`")
    if parts.scheme != "https" or not parts.hostname:
        raise refuse("must be an https:// URL", "such as https://192.168.1.100:8006")
    if parts.port is None:
        raise refuse("names no port", f"Proxmox VE listens on 8006: https://{authority(parts.hostname, 8006)}")
    url = f"https://{authority(parts.hostname, parts.port)}"
    if parts.path not in {"", "/"} or parts.query or parts.fragment:
        raise refuse("must be only https://host:port", url, hidden=True)
    return url


def _is_scp_like(value: str) -> bool:
    scp = _SCP_LIKE.fullmatch(value)
    if scp and scp[2].startswith("["):
        raise refuse("has an IPv6 address in the form of scp", f"write ssh://{scp[1]}@{scp[2]}/{scp[3].lstrip('/')}")
    return bool(scp and _server(scp[2]))


def _repository(value: str) -> str:
    if _is_scp_like(value):
        return value
    parts = _without_query(split_url(value, ["https"]))
    if parts.scheme == "http":
        raise refuse("is not encrypted", "use https:// or ssh://")
    if parts.scheme not in {"https", "ssh"} or not parts.hostname or not parts.path.strip("/"):
        raise refuse("must be an https:// or ssh:// URL of a Git repository", "such as https://github.com/org/repo.git")
    if page := re.search(r"/(-/)?(tree|blob|raw|src/branch|commits?)/", parts.path):
        meant = f"give its URL, which ends before {page[0]}, and the branch as `revision`"
        raise refuse("is a page about the repository", meant)
    return value


def _without_query(parts: SplitResult) -> SplitResult:
    if parts.query or parts.fragment:
        rule = "has a query or a fragment, which the address of a repository does not have"
        raise refuse(rule, f"take it out; {_CREDENTIALS}", hidden=True)
    return parts


def _source_url(value: str) -> str:
    if _is_scp_like(value):
        return value
    parts = _without_query(split_url(value))
    if parts.scheme not in {"http", "https", "ssh", "oci", "file"} or not (parts.hostname or parts.scheme == "file"):
        raise refuse("must be a URL", "a repoURL or the beginning of one, such as https://helm.cilium.io")
    return value.rstrip("/")


def _host_port(value: str) -> str:
    host, _, port = value.rpartition(":")
    bracketed = re.fullmatch(r"\[(.*)\]", host)
    is_host = _is_ipv6(bracketed[1]) if bracketed else host and not re.search(r"[:/@\s]", host)
    if not is_host or not re.fullmatch("[0-9]{1,5}", port) or not 0 < int(port) <= _HIGHEST_PORT:
        raise refuse("must be host:port", 'such as "192.168.1.100:8006" or "[2001:db8::10]:8006"')
    if not bracketed:
        _server(host)
    return authority(host.strip("[]"), int(port))


def _host(value: str) -> str:
    if re.fullmatch(r"[0-9.]+|[0-9A-Fa-f:.\[\]]*:[0-9A-Fa-f:.\[\]]*(%.*)?", value):
        return _ipv4(value)
    if not value.isascii():
        _server(value)
    meant = "in lower case, without scheme and port"
    return _server(_match(value, rf"{LABEL}(\.{LABEL})*\.?", "must be an IPv4 address or a host name", meant))


def _domain(value: str) -> str:
    if not value.isascii():
        _server(value)
    meant = "lower case, with a dot, such as iot.example.org"
    _match(value, rf"{LABEL}(\.{LABEL})*\.(?!\d+$){LABEL}", "must be a domain name", meant)
    return _server(value)


def _email(value: str) -> str:
    local, at, domain = value.rpartition("@")
    meant = "such as ops@example.org"
    _match(f"{local}{at}", r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]+@", "must be an e-mail address", meant)
    _domain(domain.lower())
    return value


def _revision(value: str) -> str:
    """By the rules of `git check-ref-format`; an option of git is no revision either."""
    if re.search(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|^[-/]|[/.]$|(^|/)\.|\.lock(/|$)|^@$", value):
        rule = "must be a branch, a tag or a commit of Git"
        raise refuse(rule, "no spaces, no .., no ~^:?*[\\, no leading - and no .lock at the end; such as main")
    return value


def _interface(value: str) -> str:
    if vlan := re.fullmatch(r"(.+)\.(\d+)|(vmbr\d+)v(\d+)", value):
        bridge, tag = vlan[1] or vlan[3], vlan[2] or vlan[4]
        raise refuse(f"is VLAN {tag} of {bridge} and not a bridge", f"write bridge: {bridge} and vlan: {tag}")
    if re.fullmatch(r"lo|(bond|eth|en[ops]|tap|veth|fwbr|fwpr|fwln)\d\w*", value):
        raise refuse("is a network card and not a bridge", "give the bridge that it belongs to, such as vmbr0")
    return _match(value, r"[A-Za-z][\w.-]{1,14}", "must be the name of a bridge", "such as vmbr0")


def _node_name(value: str) -> str:
    if re.fullmatch(r"\d+|0x[0-9a-f]+", value):
        raise refuse("is a number, which DNS takes for an address", "give the node a name, such as worker-1")
    if value in _RESERVED_NAMES:
        raise refuse(_RESERVED_NAMES[value], "give the node another name, such as worker-1")
    return value


def _device(value: str) -> str:
    _match(value, r"/dev/[\w.:-]+(/[\w.:-]+)*", "must be the path of a disk", "such as /dev/vda")
    if ".." in value or re.search(r"/((s|v|xv)d[a-z]+|nvme\d+n\d+p)\d+$|-part\d+$", value):
        raise refuse("is not the path of a whole disk", "Talos partitions it itself; such as /dev/vda")
    return value


def _schedule(value: str) -> str:
    if not is_schedule(value):
        raise refuse(_SCHEDULE_FORM[0], "minute 0-59, hour 0-23, day 1-31, month 1-12, day of the week 0-6")
    return value


def _line(value: str) -> str:
    if not value.isprintable():
        raise refuse("has a control character", "write it on one line", hidden=True)
    return _match(value, r"(?u:\S(.*\S)?)", "must not be empty, nor begin or end with a space")


def _text(value: str) -> str:
    if is_secret(value):
        raise refuse("has the form of a credential", "credentials are never parameters", hidden=True)
    return value


def _path(value: str) -> str:
    if re.fullmatch(r"(?i:(sha-?256[:=]?)?([0-9a-f]{2}:){19,}[0-9a-f]{2})", value):
        raise refuse("is a fingerprint and not the path of a file", "`fingerprint` takes that of the API's certificate")
    if re.match(r"\w[\w+.-]*://", value):
        raise refuse("is a URL and not the path of a file", "save the file here and give its path", hidden=True)
    if "-----BEGIN" in value or is_secret(value):
        rule = "contains the secret itself" if is_secret(value) else "is the content of a file and not its path"
        raise refuse(rule, "save it in a file and give its path", hidden=True)
    return value


def _wireguard_key(value: str) -> str:
    if not any(base64.b64decode(value)):
        raise refuse("is no public key: all its bits are zero", _KEY_FORM)
    return value


def _handle(value: str) -> str:
    if re.search(r"[\s:/]", value):
        meant = "passwords and URLs of webhooks are credentials: they are in a Secret (docs/how-to/alerts.md)"
        raise refuse("is no name: it has a space, a colon or a slash", meant, hidden=True)
    return value


def _one_spelling(value: Any, validate: Callable[[Any], Any]) -> Any:
    """Keys that mean the same would replace each other silently."""
    validated = validate(value)
    if len(validated) < len(value):
        raise refuse("has one key in two spellings", "keep one of them")
    return validated


def _distinct(values: tuple[str, ...]) -> tuple[str, ...]:
    if twice := next((value for value in values if values.count(value) > 1), ""):
        raise refuse(f"has {twice!r} twice", "leave one out")
    return values


def _moment(value: str) -> str:
    try:
        dt.datetime.fromisoformat(value)
    except ValueError:
        raise refuse("must be a time that exists", _MOMENT_FORM) from None
    return value


def _version(value: str) -> str:
    if not re.fullmatch(r"\d{1,4}(\.\d{1,4}){2}", value, re.ASCII):
        numbers = re.findall(r"\d{1,4}", value)[:3]
        full = ".".join([*numbers, *"100"[len(numbers) :]])
        raise refuse("must be major.minor.patch, without a v", f'such as "{full}"')
    return value


def _token_id(value: str) -> str:
    if "=" in value.rpartition("!")[2]:
        raise refuse(
            "contains the token's secret too", "give user@realm!name here, the secret by token_secret", hidden=True
        )
    meant = "such as fluobook@pve!fluobook, as Datacenter > API Tokens shows"
    if value.startswith("PVEAPIToken="):
        raise refuse("begins with the name of a header", "leave out PVEAPIToken=, give user@realm!name", hidden=True)
    return _match(value, r"[^\s:/]+@[A-Za-z][\w.-]+![A-Za-z][\w.-]+", "must be user@realm!name", meant)


def _cpu(value: str) -> str:
    if value in TOO_OLD:
        raise refuse(
            "lacks x86-64-v2, so Talos halts at boot", "host, or a model of your own (custom-NAME) with PCLMULQDQ"
        )
    if value not in MODELS and not re.fullmatch(r"custom-[A-Za-z0-9][\w-]*", value, re.ASCII):
        similar = did_you_mean(value, MODELS - TOO_OLD)
        meant = similar if similar.startswith("did") else "such as host"
        raise refuse("is not a CPU type of Proxmox VE", f"{meant}; a model of your own is custom-NAME")
    return value


def _scsi_controller(value: object) -> object:
    if value == "virtio-scsi-single":
        raise refuse("hides the disks from Talos on some hosts, and its bootstrap hangs", "virtio-scsi-pci")
    return value


def _cluster_name(value: str) -> str:
    if len(value) > _LONGEST_CLUSTER_NAME:
        raise refuse(f"is longer than {_LONGEST_CLUSTER_NAME} characters", "Cilium takes no longer cluster name")
    if value == "lab":
        raise refuse("is the name of the folder of the labs, beside the clusters'", "such as fluodata")
    return _match(value, LABEL, "must be lower-case letters, digits and hyphens", "such as fluodata")


def _repository_path(value: str) -> str:
    if value.startswith("/") or ".." in value.split("/"):
        raise refuse("must stay inside the repository", "such as cluster-gitops/bootstrap")
    if value and (shortest := str(PurePosixPath(value))) != value:
        raise refuse("is not the shortest form of the path", f"write {shortest}")
    return _match(
        value, r"(?u:(?!-|\.$)[\w./-]+)", "must be a folder of the repository", "such as cluster-gitops/bootstrap"
    )


def qualified_name_problem(text: str) -> str:
    """Why a text is no key of a label, in the words of Talos; "" if it is one."""
    prefix, slash, name = text.rpartition("/")
    if "/" in prefix:
        return f'invalid format: too many slashes: "{text}"'
    if slash and not prefix:
        return f'prefix cannot be empty: "{text}"'
    if len(prefix) > _LONGEST_DOMAIN or (prefix and not _SUBDOMAIN.fullmatch(prefix)):
        return f'prefix "{prefix}" is invalid: domain doesn\'t match required format: "{prefix}"'
    if not name:
        return f'name cannot be empty: "{text}"'
    if len(name) > _LONGEST_NAME:
        return f'name is too long: "{text}" (limit is {_LONGEST_NAME})'
    return "" if _NAME.fullmatch(name) else f'name "{name}" is invalid'


def label_value_problem(text: str) -> str:
    """Why a text is no value of a label, in the words of Talos; "" if it is one."""
    if len(text) > _LONGEST_NAME:
        return f'label value length exceeds limit of {_LONGEST_NAME}: "{text}"'
    return "" if not text or _NAME.fullmatch(text) else f'label value "{text}" is invalid'


def _label_key(value: str) -> str:
    if problem := qualified_name_problem(value):
        raise refuse("is not the key of a label", problem)
    return value


def _label_value(value: str) -> str:
    if problem := label_value_problem(value):
        raise refuse("is not the value of a label", problem)
    return value


def _taint(value: str) -> str:
    text, _, effect = value.rpartition(":")
    if effect not in EFFECTS:
        raise refuse("must be EFFECT or VALUE:EFFECT", f"effects are {', '.join(EFFECTS)}")
    return f"{_label_value(text)}:{effect}" if text else effect


Ipv4 = Annotated[str, AfterValidator(_ipv4)]
_AGE = r"age1[02-9ac-hj-np-z]{58}"
AgeRecipient = Annotated[
    str, matching(_AGE, "must be the public half of an age key", "age1…, as `age-keygen -y FILE` prints it")
]
_MOMENT_FORM = 'quoted, such as "2027-03-01" or "2027-03-01T09:30:00Z"'
_MOMENT = r"\d{4}-\d\d-\d\d(T\d\d:\d\d(:\d\d)?Z)?"
Moment = Annotated[
    str,
    matching(_MOMENT, "must be a date, or a time in UTC", _MOMENT_FORM),
    AfterValidator(_moment),
]
Cidr = Annotated[str, BeforeValidator(_refuse_ipv6), AfterValidator(_cidr)]
Mac = Annotated[str, AfterValidator(_mac)]
Fingerprint = Annotated[str, AfterValidator(_fingerprint)]
ProxmoxUrl = Annotated[str, AfterValidator(_proxmox_url)]
RepositoryUrl = Annotated[str, AfterValidator(_repository)]
SourceUrl = Annotated[str, AfterValidator(_source_url)]
HostPort = Annotated[str, AfterValidator(_host_port)]
Host = Annotated[str, AfterValidator(_host)]
Version = Annotated[str, AfterValidator(_version)]
TokenId = Annotated[str, AfterValidator(_token_id)]
Cpu = Annotated[str, AfterValidator(_cpu)]
ScsiController = Annotated[Literal["virtio-scsi-pci"], BeforeValidator(_scsi_controller)]
ClusterName = Annotated[str, AfterValidator(_cluster_name)]
_LABEL_FORM = "lower-case letters, digits and inner hyphens, 63 characters at most"
Name = Annotated[str, matching(LABEL, "must be a host name (RFC 1123)", _LABEL_FORM)]
NodeName = Annotated[Name, AfterValidator(_node_name)]
_NODE_FORM = "letters, digits and inner hyphens, as `pvecm nodes` lists it"
HostName = Annotated[str, matching(rf"(?i:{LABEL})", "must be the name of a Proxmox VE node", _NODE_FORM)]
PhaseName = Annotated[str, matching(LABEL, "must be lower-case letters, digits and hyphens", _LABEL_FORM)]
LabelKey = Annotated[str, AfterValidator(_label_key)]
LabelValue = Annotated[str, AfterValidator(_label_value)]
Taint = Annotated[str, AfterValidator(_taint)]
_TAG, _TAG_FORM = r"(?!fluobook(-|$))[a-z0-9_][a-z0-9_.+-]*", "lower-case letters, digits, _, -, + and ."
VmTag = Annotated[str, matching(_TAG, "must be a tag of Proxmox VE that is not fluobook's own", _TAG_FORM)]
_POOL = r"[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+){0,2}"
VmPool = Annotated[str, matching(_POOL, "must be the id of a pool", "as Datacenter > Pools shows it")]
Email = Annotated[str, AfterValidator(_email)]
Domain = Annotated[str, AfterValidator(_domain)]
_STORAGE = r"[A-Za-z][\w.-]*[A-Za-z0-9]"
Storage = Annotated[str, matching(_STORAGE, "must be the id of a storage", "as `pvesm status` lists it")]
Interface = Annotated[str, AfterValidator(_interface)]
_SDN_FORM = "a letter, then letters and digits, 2 to 8 characters"
SdnName = Annotated[str, matching(r"[A-Za-z][A-Za-z0-9]{1,7}", "must be the id of an SDN object", _SDN_FORM)]
_TUNNEL_FORM = "a letter, then letters, digits and hyphens, 2 to 8 characters, no hyphen at the end"
_TUNNEL = r"[A-Za-z][A-Za-z0-9-]{0,6}[A-Za-z0-9]"
TunnelName = Annotated[str, matching(_TUNNEL, "must be the name of an interface", _TUNNEL_FORM)]
_SSH_FORM = "such as root@198.51.100.11, or a Host of ~/.ssh/config; port and key belong there too"
_DESTINATION = r"([a-z_][a-z0-9_-]*@)?[A-Za-z0-9][A-Za-z0-9._:-]*"
SshDestination = Annotated[str, matching(_DESTINATION, "must be a destination of ssh", _SSH_FORM)]
_KEY_FORM = "44 characters, as `wg pubkey` prints it"
WireguardKey = Annotated[
    str,
    matching(r"[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=", "must be a public key of WireGuard", _KEY_FORM),
    AfterValidator(_wireguard_key),
]
DevicePath = Annotated[str, AfterValidator(_device)]
_BUCKET_FORM = "3 to 63 lower-case letters, digits, dots and inner hyphens"
_BUCKET = r"(?!.*\.\.|[0-9.]+$)[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]"
Bucket = Annotated[str, matching(_BUCKET, "must be the name of a bucket", _BUCKET_FORM)]
Region = Annotated[str, matching(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", "must be a region", "such as eu-central-1")]
_ENDPOINT = r"https?://[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?"
Endpoint = Annotated[str, matching(_ENDPOINT, "must be the URL of a server", 'such as "https://s3.example.com:9000"')]
_SCHEDULE = r"([0-9*/,-]+ ){4}[0-9*/,-]+"
_SCHEDULE_FORM = "must be a schedule of five fields", 'such as "30 1 * * *"'
Schedule = Annotated[str, matching(_SCHEDULE, *_SCHEDULE_FORM), AfterValidator(_schedule)]
RepositoryPath = Annotated[str, AfterValidator(_repository_path)]
_Line = Annotated[str, AfterValidator(_line)]
Text = Annotated[_Line, AfterValidator(_text)]
FilePath = Annotated[str, AfterValidator(_path), AfterValidator(_line)]
Handle = Annotated[Text, AfterValidator(_handle)]
Revision = Annotated[_Line, AfterValidator(_revision)]

Flag = Annotated[bool, Field(strict=True)]
Port = Annotated[int, Field(strict=True, ge=1, le=_HIGHEST_PORT)]
Count = Annotated[int, Field(strict=True, ge=1)]
Vmid = Annotated[int, Field(strict=True, ge=100, le=999_999_999)]
Mtu = Annotated[int, Field(strict=True, ge=1280, le=9216)]
VlanTag = Annotated[int, Field(strict=True, ge=1, le=4094)]
Seconds = Annotated[float, Field(strict=True, gt=0, le=604_800, allow_inf_nan=False)]
Cores = Annotated[int, Field(strict=True, ge=1, le=1024)]
MemoryGib = Annotated[int, Field(strict=True, ge=1, le=4096)]
DiskGib = Annotated[int, Field(strict=True, ge=1, le=65536)]
Distinct = AfterValidator(_distinct)
"""For a list in which nothing may stand twice."""
OneSpelling = WrapValidator(_one_spelling)
"""For a mapping whose keys have several spellings."""


def _nullable(schema: dict[str, Any]) -> None:
    schema["default"] = None
    if isinstance(schema.get("type"), str):
        schema["type"] = [schema["type"], "null"]


DERIVED = Field(json_schema_extra=_nullable)
"""Marks a value that may be missing or null in a file and is always set in the model (`fluobook.params.derive`)."""
