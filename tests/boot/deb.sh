#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The Debian package: made from this build, installed into a folder, run from there, removed without a trace.
# usage: deb.sh SOURCE-FOLDER BUILD-FOLDER
set -u
command -v dpkg-shlibdeps >/dev/null || { echo "skipped: dpkg-dev is not installed"; exit 77; }
[ "$(id -u)" = 0 ] || { echo "skipped: dpkg installs as root only"; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 143' TERM INT HUP # by way of EXIT
fail() { echo "FAILED: $*"; exit 1; }
"$1/scripts/deb" "$2" "$work" >"$work/name" 2>"$work/log" || { cat "$work/log"; fail "scripts/deb"; }
deb=$(cat "$work/name")
root=$work/root
mkdir -p "$root/var/lib/dpkg/info" "$root/var/lib/dpkg/updates" "$root/var/lib/dpkg/triggers"
: >"$root/var/lib/dpkg/status"
d() { dpkg --root="$root" --force-script-chrootless --force-depends --log=/dev/null "$@" >"$work/log" 2>&1 || { cat "$work/log"; fail "dpkg $*"; }; }
d -i "$deb"
"$root/usr/bin/ospite" version | grep -q '^ospite [0-9]' || fail "it does not run"
for file in lib/systemd/system/ospite@.service lib/systemd/system/ospite-autostart.service usr/share/bash-completion/completions/ospite usr/share/zsh/vendor-completions/_ospite \
	usr/share/fish/vendor_completions.d/ospite.fish usr/share/doc/ospite/copyright; do
	[ -s "$root/$file" ] || fail "no $file"
done
! command -v scdoc >/dev/null || zcat "$root/usr/share/man/man1/ospite.1.gz" | grep -q '^\.SH COMMANDS' || fail "no manual page"
dpkg-deb -f "$deb" Depends | grep -q 'libc6' || fail "it does not say what it needs"
d -r ospite
d -P ospite
left=$(find "$root" -name '*ospite*')
[ -z "$left" ] || fail "left behind: $left"
echo "installed, run, removed"
