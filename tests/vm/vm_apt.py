# SPDX-License-Identifier: GPL-2.0-or-later
"""
Packages from apt: those that the machine's own sources offer (OWN), or those of all of Debian's
suites. The latter needs an apt state directory of its own, which has its own list of sources, so
that nothing of the machine's changes: the machine's mirror and its proxies are used, and the
signatures are checked with the package debian-archive-keyring. The lists are fetched once a day.
"""
import contextlib
import fcntl
import functools
import glob
import os
import re
import subprocess
import time

from vm_env import SLOW, Fail, Skip, run

SUITES = ("bookworm", "bookworm-backports", "trixie", "trixie-backports", "forky", "sid",
          "experimental")
SECURITY_SUITES = ("bookworm-security", "trixie-security")
MIRROR, SECURITY = "http://deb.debian.org/debian", "http://deb.debian.org/debian-security"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
LIST_AGE = 24 * 3600
CONFIG = """\
{acquire}
Dir::Etc::main "/dev/null";
Dir::Etc::parts "{base}/none";
Dir::Etc::sourcelist "{base}/sources.list";
Dir::Etc::sourceparts "{base}/none";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "{base}/none";
Dir::State "{base}";
Dir::State::status "/dev/null";
Dir::Cache "{base}";
APT::Architecture "amd64";
APT::Architectures {{ "amd64"; }};
APT::Sandbox::User "root";
"""


class Package:
    """One version of a package: its name, version and dependencies."""

    def __init__(self, stanza):
        fields = dict(re.findall(r"(?m)^([\w-]+): (.*)$", stanza))
        self.name, self.version = fields.get("Package"), fields.get("Version")
        self.depends = [(m.group(1), m.group(2)) for m in
                        re.finditer(r"([a-z0-9][^\s,(|]+)(?: \(= ([^)]+)\))?",
                                    fields.get("Depends", ""))]

    def __str__(self):
        return f"{self.name}={self.version}"


def newer(a, b):
    """Compares the versions of two packages as sorted() wants it."""
    for result, how in ((1, "gt"), (-1, "lt")):
        if run("dpkg", "--compare-versions", a.version, how, b.version, ok=(0, 1)).returncode == 0:
            return result
    return 0


class Apt:
    """What one configuration of apt knows. config is the file that APT_CONFIG names, or None."""

    def __init__(self, config=None):
        self.env = {**os.environ, "LC_ALL": "C"}
        if config:
            self.env["APT_CONFIG"] = config

    def call(self, *argv, timeout=300, cwd=None):
        try:
            return subprocess.run(argv, cwd=cwd, env=self.env, stdin=subprocess.DEVNULL, text=True,
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
                                  timeout=timeout * SLOW)
        except (OSError, subprocess.TimeoutExpired) as e:
            raise Skip(f"{argv[0]}: {e}") from None

    def show(self, *names):
        """All versions that are offered of these packages."""
        if not names:
            return []
        out = self.call("apt-cache", "show", *names).stdout
        return [p for p in map(Package, out.split("\n\n")) if p.name in names and p.version]

    def newest(self, names):
        """The package with the highest version among all of these, or None."""
        found = self.show(*names)
        return max(found, key=functools.cmp_to_key(newer)) if found else None

    def search(self, pattern):
        """The names of the packages that match a regular expression."""
        out = self.call("apt-cache", "search", "--names-only", pattern).stdout
        return [line.split(" - ")[0] for line in out.splitlines() if " - " in line]

    def download(self, packages, directory):
        """Downloads the packages into the directory; returns the files."""
        os.chmod(directory, 0o777)  # apt downloads as another user
        p = self.call("apt-get", "download", "-q", *map(str, packages), timeout=600, cwd=directory)
        debs = glob.glob(os.path.join(directory, "*.deb"))
        if p.returncode or len(debs) < len(packages):
            said = [line for line in p.stdout.splitlines() if line.startswith("E:")]
            raise Skip(f"apt-get download {' '.join(map(str, packages))}: "
                       f"{' '.join(said)[-300:] or p.stdout[-200:]}")
        return debs


OWN = Apt()


def mirrors():
    """The addresses of Debian and of its security updates that the machine's own sources name."""
    named = {"Debian": MIRROR, "Debian-Security": SECURITY}
    with contextlib.suppress(Skip):
        out = OWN.call("apt-get", "indextargets", "--format", "$(LABEL) $(REPO_URI)",
                       "Created-By: Packages").stdout
        for line in reversed(out.splitlines()):
            label, _, uri = line.partition(" ")
            if label in named and re.match(r"[a-z+]+:/", uri) and not uri.startswith("cdrom"):
                named[label] = uri
    return named["Debian"], named["Debian-Security"]


def sources():
    debian, security = mirrors()
    return "".join(f"deb [signed-by={KEYRING} arch=amd64 lang=none pdiffs=no] {uri} {suite} main\n"
                   for uri, suites in ((debian, SUITES), (security, SECURITY_SUITES))
                   for suite in suites)


def write(path, text):
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)


@contextlib.contextmanager
def locked(path):
    """One process at a time may use the state directory."""
    with open(path, "w", encoding="utf-8") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        yield


def fetch_lists(apt, base):
    """
    Fetches the lists unless they are new. A suite that cannot be had is left out; without any
    list there is nothing to choose from.
    """
    stamp = os.path.join(base, "fetched")
    if os.path.exists(stamp) and time.time() - os.path.getmtime(stamp) < LIST_AGE:
        return
    p = apt.call("apt-get", "update", "-q", "-o", "APT::Update::Error-Mode=any", timeout=600)
    if p.returncode == 0:
        write(stamp, "")
    elif not glob.glob(os.path.join(base, "lists", "*_Packages*")):
        said = re.search(r"(?m)^(?:Err:|E:).*\n.*", p.stdout)
        raise Skip(f"apt-get update: {' '.join((said or [p.stdout])[0].split())[:300]}")


@functools.lru_cache(maxsize=None)
def all_suites(cache):
    """Apt with all of Debian's suites; its state is in the directory cache."""
    if not os.path.exists(KEYRING):
        raise Skip(f"{KEYRING} is missing (package debian-archive-keyring)")
    base = os.path.join(os.path.abspath(cache), "apt")
    for d in ("lists/partial", "archives/partial", "none"):
        os.makedirs(os.path.join(base, d), exist_ok=True)
    with locked(os.path.join(base, "lock")):
        acquire = OWN.call("apt-config", "dump", "Acquire")
        if acquire.returncode:
            raise Fail(f"apt-config dump: {acquire.stdout[-200:]}")
        write(os.path.join(base, "sources.list"), sources())
        config = os.path.join(base, "apt.conf")
        write(config, CONFIG.format(acquire=acquire.stdout, base=base))
        apt = Apt(config)
        fetch_lists(apt, base)
    return apt
